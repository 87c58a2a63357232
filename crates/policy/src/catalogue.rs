//! The catalogue of tools and actions as a source of its own: read, signed and fetched as policy is, but that it holds data
//! alone, `data.catalogue.<tool>.actions`, and of no tool that is not its own (DESIGN §5.2).
//!
//! What an action is made of is known to whoever resolves calls by it: here it is an object.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path as FilePath, PathBuf},
};

use model::{Id, Tool};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    LoadError, PolicySource, Source,
    bundle::{KeysConfig, Manifest, is_catalogue_source, unfit},
    config::{BundleConfig, SourceKind, place},
};

/// The document that it is, below `data`.
const ROOT: &str = "catalogue";
/// What it says of a tool.
const ACTIONS: &str = "actions";
/// The most actions of one source: each is held against every other of its tool.
pub const MAX_ACTIONS: usize = 20_000;

/// One source of the catalogue: where the actions of tools come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogueSource {
    /// Its name: lower-case letters, digits and `_`. No source of policy has the same.
    pub name: String,
    /// The directory that holds the documents, or a bundle of them (`.tar.gz`); relative paths start at the configuration
    /// file. Either this or `bundle`.
    #[serde(default)]
    pub path: PathBuf,
    /// The server that the bundle is fetched from, and asked for changes of. Either this or `path`.
    #[serde(default)]
    pub bundle: Option<BundleConfig>,
    /// Whose signature the bundle has to carry, as in `policy`.
    #[serde(default)]
    pub keys: Option<KeysConfig>,
    /// The tools whose actions it says. Each stands in `tools`, without actions, and in no other source's `for`.
    #[serde(rename = "for")]
    pub tools: BTreeSet<Id<Tool>>,
}

/// The actions of tools, by their names, as they were written.
pub type Actions = BTreeMap<Id<Tool>, Map<String, Value>>;

impl CatalogueSource {
    /// Takes every relative path from `base`, the directory of the configuration.
    pub fn place(&mut self, base: &FilePath) {
        place(&mut self.path, self.bundle.as_mut(), self.keys.as_mut(), base);
    }

    /// The same as sources are read, fetched and kept.
    #[must_use]
    pub fn source(&self) -> PolicySource {
        let Self { name, path, bundle, keys, tools } = self.clone();
        let kind = SourceKind::Catalogue;
        PolicySource { name, path, bundle, keys, tools: Some(tools), candidate: None, kind }
    }

    /// Whether it can be a source at all. Says everything that is wrong with it.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.source().problems();
        if !is_catalogue_source(&self.name) {
            problems.push(format!(
                "catalogue.{}: its name has to be lower-case letters, digits and `_`, and may not be `org` or a word of \
                 policy's own",
                self.name
            ));
        }
        if self.tools.is_empty() {
            problems.push(format!("catalogue.{}: `for` names no tool", self.name));
        }
        problems
    }
}

/// Reads what lies in `directory`, and its `.manifest`: the actions of `tools`, where it is said whose.
pub(crate) fn read(
    name: &str,
    directory: &FilePath,
    tools: Option<&BTreeSet<Id<Tool>>>,
) -> Result<(Source, Manifest), LoadError> {
    let (source, manifest) = Source::gathered(name, directory, tools.cloned())?;
    Ok((fitting(source, &manifest, directory)?, manifest))
}

/// The catalogue that lies in the directory or bundle at `path`, whatever tools it is about. A bundle's signature is not
/// looked at.
///
/// # Errors
/// Where it is none.
pub fn at(path: &FilePath) -> Result<Source, LoadError> {
    Source::catalogue_at(path)
}

/// That `source` is a catalogue and speaks of none but its own tools, those that `manifest` says among them. Errors name
/// it `shown`.
pub(crate) fn fitting(source: Source, manifest: &Manifest, shown: &FilePath) -> Result<Source, LoadError> {
    if let Some(file) = source.policies.iter().chain(&source.tests).next() {
        return Err(unfit(FilePath::new(&file.path), "a catalogue holds data alone, and no Rego"));
    }
    if source.data.is_empty() {
        return Err(unfit(shown, "it holds no data document (`data.json`, `data.yaml`)"));
    }
    let owned = owned(&source, manifest).map_err(|why| unfit(shown, why))?;
    let actions = actions(&source)?;
    if let Some(tool) = owned.as_ref().and_then(|owned| actions.keys().find(|tool| !owned.contains(*tool))) {
        let why =
            format!("holds `data.{ROOT}.{tool}`, which is not among its tools: {}", listed(owned.iter().flatten()));
        return Err(unfit(shown, why));
    }
    Ok(source)
}

/// The tools that `source` may speak of: where its manifest names roots, no others of those in `for`.
fn owned(source: &Source, manifest: &Manifest) -> Result<Option<BTreeSet<Id<Tool>>>, String> {
    let Some(roots) = &manifest.roots else { return Ok(source.tools.clone()) };
    let mut owned = BTreeSet::new();
    for root in roots {
        let tool = root.strip_prefix(ROOT).and_then(|rest| Id::<Tool>::new(rest.strip_prefix('/')?).ok());
        let of_ours = |tool: &Id<Tool>| source.tools.as_ref().is_none_or(|tools| tools.contains(tool));
        let ours = tool.filter(of_ours).ok_or_else(|| {
            let tools = listed(source.tools.iter().flatten());
            format!(".manifest: its root `{root}` is none of a catalogue of these tools: `{ROOT}/<tool>` of {tools}")
        })?;
        owned.insert(ours);
    }
    if owned.is_empty() { Err(".manifest: it has no roots".to_owned()) } else { Ok(Some(owned)) }
}

fn listed<'t>(tools: impl Iterator<Item = &'t Id<Tool>>) -> String {
    let names: Vec<String> = tools.map(|tool| format!("`{tool}`")).collect();
    if names.is_empty() { "any".to_owned() } else { names.join(", ") }
}

/// The roots of a catalogue that names none: one for each tool that it speaks of.
pub(crate) fn roots(source: &Source) -> Result<Vec<String>, LoadError> {
    Ok(actions(source)?.keys().map(|tool| format!("{ROOT}/{tool}")).collect())
}

/// What the documents of `source` say of each tool.
///
/// # Errors
/// Where they say anything else, or the same thing twice.
pub fn actions(source: &Source) -> Result<Actions, LoadError> {
    let mut all = Actions::new();
    let mut count = 0_usize;
    for data in &source.data {
        let wrong = |why: String| unfit(FilePath::new(&data.path), why);
        let document = serde_json::to_value(data.document()).map_err(|error| wrong(error.to_string()))?;
        let tools = only(document, "data", ROOT).map_err(wrong)?.unwrap_or_default();
        for (name, about) in object(tools, &format!("data.{ROOT}")).map_err(wrong)? {
            let tool = Id::<Tool>::new(&name).map_err(|error| wrong(format!("data.{ROOT}: {error}")))?;
            let place = format!("data.{ROOT}.{tool}");
            let about = only(about, &place, ACTIONS).map_err(wrong)?.unwrap_or_default();
            let known = all.entry(tool.clone()).or_default();
            for (name, action) in object(about, &format!("{place}.{ACTIONS}")).map_err(wrong)? {
                count += 1;
                if count > MAX_ACTIONS {
                    return Err(wrong(format!("more than {MAX_ACTIONS} actions")));
                }
                check(&action).map_err(|why| wrong(format!("{place}.{ACTIONS}.{name}: {why}")))?;
                if known.insert(name.clone(), action).is_some() {
                    return Err(wrong(format!("{place}.{ACTIONS}.{name}: another document has it too")));
                }
            }
        }
    }
    Ok(all)
}

/// What no bundle says of an action, whatever else it is made of.
fn check(action: &Value) -> Result<(), String> {
    let Value::Object(members) = action else { return Err("an action is an object".to_owned()) };
    if members.contains_key("observe") {
        return Err("`observe` is not a catalogue's to say: what is enforced stands in the configuration".to_owned());
    }
    Ok(())
}

/// The member `name` of an object that has no other.
fn only(value: Value, place: &str, name: &str) -> Result<Option<Value>, String> {
    let mut members = object(value, place)?;
    let found = members.remove(name);
    match members.keys().next() {
        None => Ok(found),
        Some(other) => Err(format!("holds `{place}.{}`; a catalogue is `data.{ROOT}.<tool>.{ACTIONS}`", plain(other))),
    }
}

fn object(value: Value, place: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        Value::Null => Ok(Map::new()),
        _ => Err(format!("`{place}` is no object")),
    }
}

/// Names come from whoever made the bundle, and end in logs and on terminals.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests;
