//! What a proposal, or a catalogue, would be to a sidecar, asked of the code that a sidecar reads its configuration with.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::{Id, Tool};
use proxy::{config::ToolConfig, resolve_tools};
use serde_json::{Value, json};

use super::draft::Draft;
use crate::{
    failure::{Exit, Failure},
    run::catalogue::{Actions, typed},
};

/// Whether a sidecar reads values from `source`: headers that hold credentials it does not.
pub(crate) fn reads(source: &str) -> bool {
    let (place, name) = source.split_once(':').unwrap_or((source, ""));
    if place != "header" {
        return source.parse::<model::catalogue::Source>().is_ok();
    }
    // The header alone, in an action that is good otherwise.
    let parameters = json!({ "p": { "type": "string", "value": format!("header:{name}") } });
    let action = json!({ "match": "GET /x", "effect": "read", "resource": "x", "parameters": parameters });
    loads(&json!({ "x.read": action })).is_ok()
}

/// Whether `draft` would load.
pub(crate) fn load(draft: &Draft) -> Result<(), String> {
    loads(&json!({ draft.name.as_str(): draft.to_json() }))
}

/// Whether these actions of one tool would load together.
fn loads(actions: &Value) -> Result<(), String> {
    let tool = json!({ "at": "/tool", "upstream": "https://tool.example", "credential": "none", "actions": actions });
    let tool: ToolConfig = serde_json::from_value(tool).map_err(|error| error.to_string())?;
    let id = Id::new("tool").map_err(|error| error.to_string())?;
    let tenants = Id::new("tenant").into_iter().collect();
    resolve_tools(&BTreeMap::from([(id, tool)]), &tenants, &|_| None).map_err(|error| error.to_string())?;
    Ok(())
}

/// Whether the catalogue at `path` would load beside tools that declare the facts it names.
///
/// # Errors
/// 78 where it would not. Says the action.
pub(crate) fn load_catalogue(path: &Path) -> Result<(), Failure> {
    let source = policy::catalogue::at(path).map_err(Failure::configuration)?;
    let wrong = |why: String| Failure::because(Exit::Configuration, path.display(), why);
    let tenants = Id::new("tenant").into_iter().collect();
    let said = typed(&source).map_err(wrong)?;
    let tools = said.into_iter().enumerate().map(|(number, said)| described(number, said)).collect::<Result<_, _>>();
    resolve_tools(&tools.map_err(wrong)?, &tenants, &|_| None).map(drop).map_err(|error| wrong(error.to_string()))
}

/// A tool that has these actions, wherever it is.
fn described(number: usize, (id, actions): (Id<Tool>, Actions)) -> Result<(Id<Tool>, ToolConfig), String> {
    // What a fact reads, and which variables it takes, is the configuration's to say.
    let facts: BTreeSet<&String> = actions.values().flat_map(|action| &action.facts).collect();
    let fact = json!({ "get": "/fact", "ttl": "1s", "timeout": "1s", "pick": {} });
    let facts: BTreeMap<&String, &Value> = facts.into_iter().map(|name| (name, &fact)).collect();
    let at = format!("/tool-{number}");
    let tool = json!({ "at": at, "upstream": "https://tool.example", "credential": "none", "facts": facts });
    let tool: ToolConfig = serde_json::from_value(tool).map_err(|error| error.to_string())?;
    Ok((id, ToolConfig { actions, ..tool }))
}
