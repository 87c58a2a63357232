//! What a proposal would be to a sidecar, asked of the code that a sidecar reads its configuration with.

use std::collections::BTreeMap;

use model::Id;
use proxy::{config::ToolConfig, resolve_tools};
use serde_json::{Value, json};

use super::draft::Draft;

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
