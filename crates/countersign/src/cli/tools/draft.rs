//! An action as it is proposed: what would stand in the configuration, and what a person has to look at before it does.

use std::collections::BTreeMap;

use model::{Effect, ParameterKind};
use serde_json::{Map, Value, json};

/// A proposed action.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// Its name.
    pub(crate) name: String,
    /// Its method.
    pub(crate) method: String,
    /// Its path below the tool's.
    pub(crate) template: String,
    pub(crate) effect: Effect,
    pub(crate) resource: String,
    pub(crate) parameters: BTreeMap<String, DraftParameter>,
    /// Where the caller's idempotency key is.
    pub(crate) idempotency: Option<String>,
    /// Whether calls need `additional: allow` to go at all. It is never set without a person.
    pub(crate) needs_additional: bool,
    /// What a person has to look at.
    pub(crate) review: Vec<String>,
    /// What it was made from, for a person.
    pub(crate) from: String,
}

/// A proposed parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DraftParameter {
    pub(crate) kind: ParameterKind,
    pub(crate) value: String,
    pub(crate) currency: Option<String>,
    pub(crate) minor: bool,
    pub(crate) scale: Option<u32>,
    pub(crate) optional: bool,
}

/// A proposed tool.
#[derive(Debug)]
pub(crate) struct DraftTool {
    /// Its name.
    pub(crate) name: String,
    /// Everything but its actions; `None` where the configuration has it already.
    pub(crate) settings: Option<Settings>,
    /// By name.
    pub(crate) actions: Vec<Draft>,
    /// What is no action, and why.
    pub(crate) left_out: Vec<LeftOut>,
    /// What a person has to know of all of it.
    pub(crate) notes: Vec<String>,
}

/// What a tool has beside its actions.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) at: String,
    pub(crate) upstream: String,
    pub(crate) credential: Value,
    pub(crate) review: Vec<String>,
}

/// An operation that is no action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) operation: String,
    pub(crate) why: String,
}

impl DraftParameter {
    pub(crate) const fn new(kind: ParameterKind, value: String, optional: bool) -> Self {
        Self { kind, value, currency: None, minor: false, scale: None, optional }
    }

    /// As configuration has it.
    pub(crate) fn to_json(&self) -> Value {
        let mut members = Map::new();
        members.insert("type".to_owned(), json!(self.kind));
        members.insert("value".to_owned(), json!(self.value));
        if let Some(currency) = &self.currency {
            members.insert("currency".to_owned(), json!(currency));
        }
        if self.minor {
            members.insert("minor".to_owned(), json!(true));
        }
        if let Some(scale) = self.scale {
            members.insert("scale".to_owned(), json!(scale));
        }
        if self.optional {
            members.insert("optional".to_owned(), json!(true));
        }
        Value::Object(members)
    }
}

impl Draft {
    /// As configuration has it.
    pub(crate) fn to_json(&self) -> Value {
        let mut action = json!({
            "match": format!("{} {}", self.method, self.template),
            "effect": self.effect,
            "resource": self.resource,
        });
        let Some(members) = action.as_object_mut() else { return action };
        if !self.parameters.is_empty() {
            let parameters: Map<String, Value> =
                self.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.to_json())).collect();
            members.insert("parameters".to_owned(), Value::Object(parameters));
        }
        if let Some(idempotency) = &self.idempotency {
            members.insert("idempotency".to_owned(), json!(idempotency));
        }
        action
    }

    /// Adds a parameter under a name that policy can write, and that no other has.
    pub(crate) fn add(&mut self, place: &str, name: &str, parameter: DraftParameter) {
        let name = written(name);
        let free = |name: &String| !self.parameters.contains_key(name);
        let candidates = [name.clone(), format!("{place}_{name}")];
        let numbered = (2..).map(|number| format!("{place}_{name}_{number}"));
        if let Some(name) = candidates.into_iter().chain(numbered).find(free) {
            self.parameters.insert(name, parameter);
        }
    }
}

impl DraftTool {
    /// What a program reads.
    pub(crate) fn to_json(&self) -> Value {
        let actions: Map<String, Value> =
            self.actions.iter().map(|draft| (draft.name.clone(), draft.to_json())).collect();
        let review: Vec<Value> = self
            .actions
            .iter()
            .flat_map(|draft| draft.review.iter().map(|text| json!({ "action": draft.name, "text": text })))
            .collect();
        let left_out: Vec<Value> =
            self.left_out.iter().map(|left| json!({ "operation": left.operation, "why": left.why })).collect();
        let mut tool = Map::new();
        if let Some(settings) = &self.settings {
            tool.insert("at".to_owned(), json!(settings.at));
            tool.insert("upstream".to_owned(), json!(settings.upstream));
            tool.insert("credential".to_owned(), settings.credential.clone());
        }
        tool.insert("actions".to_owned(), Value::Object(actions));
        let notes = self.settings.iter().flat_map(|settings| &settings.review).chain(&self.notes).collect::<Vec<_>>();
        json!({ "tools": { self.name.clone(): tool }, "review": review, "left_out": left_out, "notes": notes })
    }
}

/// `name` as Rego can write it after a dot.
fn written(name: &str) -> String {
    let mut text: String =
        name.chars().take(100).map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        text.insert(0, '_');
    }
    text
}
