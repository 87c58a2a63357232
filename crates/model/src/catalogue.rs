//! The tools and actions a sidecar knows, and how a request is recognised as one of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    CanonicalPath, Effect, Id, Money, ParameterKind, Tenant,
    template::{Template, Variables},
};

/// The versioned set of tools and actions. Immutable: a change is a new catalogue.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The tools, longest address first.
    tools: Vec<Tool>,
    /// A digest of the configuration it was made from.
    revision: String,
}

/// An upstream API.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its name.
    pub id: Id<Self>,
    /// The path prefix that addresses it.
    pub at: CanonicalPath,
    /// Its base URL, without a trailing slash.
    pub upstream: String,
    /// The tenants it serves; `None` where it serves all of the sidecar's.
    pub tenants: Option<BTreeSet<Id<Tenant>>>,
    /// What the tool sees of the caller.
    pub identity: IdentityMode,
    /// The reads that facts come from, by name.
    pub facts: BTreeMap<String, FactDeclaration>,
    /// Its actions.
    pub actions: Vec<Action>,
}

/// What the tool sees of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMode {
    /// The sidecar's own credential for the tool; who is behind the call stays in the record.
    ServiceAccount,
    /// The same, and beside it in `Txn-Token` who acts for whom in this one call, signed with the key that the sidecar
    /// enrolled. It needs `authority`; docs/tools-identity.md says how a tool verifies it.
    Hybrid,
}

/// A business operation on a tool.
#[derive(Debug, Clone)]
pub struct Action {
    /// Its name, unique in the catalogue.
    pub id: Id<Self>,
    /// The HTTP method, upper case.
    pub method: String,
    /// The path below the tool's address.
    pub template: Template,
    /// What it does.
    pub effect: Effect,
    /// The name of the resource it touches, made from path variables.
    pub resource: Template,
    /// The facts it always needs.
    pub facts: Vec<String>,
    /// Its parameters, by name.
    pub parameters: BTreeMap<String, ParameterDeclaration>,
    /// Whether members that are not declared are let through unseen.
    pub additional: bool,
    /// Where the caller's idempotency key is.
    pub idempotency: Option<Source>,
}

/// How a parameter is found and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterDeclaration {
    /// Its type.
    pub kind: ParameterKind,
    /// Where its value is.
    pub value: Source,
    /// For money: where its currency is, or which it always is.
    pub currency: Option<CurrencySource>,
    /// For money: whether the value counts minor units (cents).
    pub minor: bool,
    /// For decimals: how many fraction digits it may have.
    pub scale: u32,
    /// Whether a call may leave it out.
    pub optional: bool,
}

/// Where in a request a value is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A variable of the path template.
    Path(String),
    /// A query parameter.
    Query(String),
    /// A header field, lower case.
    Header(String),
    /// An RFC 6901 pointer into the JSON body.
    Body(String),
}

/// Where a currency is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurrencySource {
    /// In the request.
    From(Source),
    /// Always this ISO 4217 code.
    Always(String),
}

/// A read of the tool that facts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactDeclaration {
    /// The path of the `GET`, below the tool's base URL.
    pub template: Template,
    /// How long an answer may be used again.
    pub ttl: std::time::Duration,
    /// How long the read may take.
    pub timeout: std::time::Duration,
    /// Where the resource's own tenant is in the answer; where it differs from the call's, the resource counts
    /// as missing.
    pub tenant: Option<String>,
    /// The leaves, by name.
    pub pick: BTreeMap<String, Leaf>,
}

/// One value picked from the answer of a fact's read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// RFC 6901 pointer to it.
    pub at: String,
    /// Where it names a principal: the issuer whose name it is.
    pub principal: Option<String>,
}

/// Why a catalogue, or a part of it, is not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidCatalogue {
    /// Not a template.
    #[error("`{0}` is not a template: segments are literals or a whole `{{variable}}`")]
    Template(String),
    /// Not a source.
    #[error("`{0}` is not a source: write `path:name`, `query:name`, `header:Name` or `body:/pointer`")]
    Source(String),
    /// Two tools at one address.
    #[error("tools `{0}` and `{1}` have the same address `{2}`")]
    SameAddress(String, String, String),
    /// Two actions with one name.
    #[error("the action name `{0}` is used twice; names are unique in a catalogue")]
    SameAction(String),
    /// Two actions of a tool that one request could be.
    #[error("actions `{0}` and `{1}` of tool `{2}` match the same requests")]
    Ambiguous(String, String, String),
    /// A template names a variable that the path does not have.
    #[error("action `{action}`: `{{{variable}}}` is not a variable of its path")]
    UnknownVariable {
        /// The action.
        action: String,
        /// The variable.
        variable: String,
    },
    /// An action needs a fact that its tool does not declare.
    #[error("action `{action}` needs the fact `{fact}`, which tool `{tool}` does not declare")]
    UnknownFact {
        /// The action.
        action: String,
        /// The fact.
        fact: String,
        /// The tool.
        tool: String,
    },
    /// A money parameter without a currency, or a currency on something else.
    #[error("action `{action}`: parameter `{parameter}` of type money needs `currency`, and no other type has one")]
    Currency {
        /// The action.
        action: String,
        /// The parameter.
        parameter: String,
    },
}

impl Catalogue {
    /// Checks `tools` against each other and takes them; `revision` is the digest of what they were made from.
    pub fn new(mut tools: Vec<Tool>, revision: String) -> Result<Self, InvalidCatalogue> {
        tools.sort_by_key(|tool| std::cmp::Reverse(tool.at.segments().len()));
        let mut addresses: BTreeMap<&str, &Tool> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for tool in &tools {
            if let Some(other) = addresses.insert(tool.at.as_str(), tool) {
                return Err(InvalidCatalogue::SameAddress(
                    other.id.to_string(),
                    tool.id.to_string(),
                    tool.at.to_string(),
                ));
            }
            tool.check()?;
            for action in &tool.actions {
                if !names.insert(action.id.clone()) {
                    return Err(InvalidCatalogue::SameAction(action.id.to_string()));
                }
            }
        }
        Ok(Self { tools, revision })
    }

    /// The tool that `path` addresses, and the rest of the path.
    pub fn tool_at(&self, path: &CanonicalPath) -> Option<(&Tool, CanonicalPath)> {
        self.tools.iter().find_map(|tool| path.strip_prefix(&tool.at).map(|rest| (tool, rest)))
    }

    /// The tools.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The tool of that name.
    pub fn tool(&self, id: &Id<Tool>) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.id == *id)
    }

    /// What identifies this version of the catalogue.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl Tool {
    /// The action that `method` on `path` (below the tool's address) is, with the values of its path variables.
    /// A literal segment wins over a variable.
    pub fn action_for(&self, method: &str, path: &CanonicalPath) -> Option<(&Action, Variables)> {
        self.actions
            .iter()
            .filter(|action| action.method == method)
            .filter_map(|action| action.template.matches(path).map(|variables| (action, variables)))
            .min_by(|(a, _), (b, _)| a.template.precedence(&b.template))
    }

    /// Whether the tool answers for `tenant`.
    pub fn serves(&self, tenant: &Id<Tenant>) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant))
    }

    fn check(&self) -> Result<(), InvalidCatalogue> {
        for (index, action) in self.actions.iter().enumerate() {
            action.check(self)?;
            let twin =
                |other: &&Action| other.method == action.method && other.template.same_requests(&action.template);
            if let Some(other) = self.actions.iter().skip(index + 1).find(twin) {
                return Err(InvalidCatalogue::Ambiguous(
                    action.id.to_string(),
                    other.id.to_string(),
                    self.id.to_string(),
                ));
            }
        }
        Ok(())
    }
}

impl Action {
    fn check(&self, tool: &Tool) -> Result<(), InvalidCatalogue> {
        let known: BTreeSet<&str> = self.template.variables().collect();
        let unknown = |variable: &str| InvalidCatalogue::UnknownVariable {
            action: self.id.to_string(),
            variable: variable.to_owned(),
        };
        let in_path = |source: &Source| match source {
            Source::Path(name) if !known.contains(name.as_str()) => Err(unknown(name)),
            _ => Ok(()),
        };
        if let Some(variable) = self.resource.variables().find(|variable| !known.contains(variable)) {
            return Err(unknown(variable));
        }
        for fact in &self.facts {
            let declared = tool.facts.get(fact).ok_or_else(|| InvalidCatalogue::UnknownFact {
                action: self.id.to_string(),
                fact: fact.clone(),
                tool: tool.id.to_string(),
            })?;
            if let Some(variable) = declared.template.variables().find(|variable| !known.contains(variable)) {
                return Err(unknown(variable));
            }
        }
        for (name, parameter) in &self.parameters {
            in_path(&parameter.value)?;
            if let Some(CurrencySource::From(source)) = &parameter.currency {
                in_path(source)?;
            }
            if (parameter.kind == ParameterKind::Money) != parameter.currency.is_some() {
                return Err(InvalidCatalogue::Currency { action: self.id.to_string(), parameter: name.clone() });
            }
        }
        Ok(())
    }

    /// Whether the body has to be read before the call is decided: because parameters lie in it, or because nothing
    /// may lie in it that is not declared.
    pub fn reads_body(&self) -> bool {
        let in_body = |source: &Source| matches!(source, Source::Body(_));
        let closed = self.effect != Effect::Read && !self.additional;
        closed
            || self.parameters.values().any(|parameter| {
                in_body(&parameter.value)
                    || matches!(&parameter.currency, Some(CurrencySource::From(source)) if in_body(source))
            })
            || self.idempotency.as_ref().is_some_and(in_body)
    }
}

impl std::str::FromStr for Source {
    type Err = InvalidCatalogue;

    fn from_str(text: &str) -> Result<Self, InvalidCatalogue> {
        let invalid = || InvalidCatalogue::Source(text.chars().take(120).collect());
        let (place, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(invalid)?;
        match place {
            "path" => Ok(Self::Path(name.to_owned())),
            "query" => Ok(Self::Query(name.to_owned())),
            // A name with `_` reads like the one with `-` to some servers; such fields do not get past the sidecar.
            "header" if !name.contains('_') => Ok(Self::Header(name.to_ascii_lowercase())),
            "body" if name.starts_with('/') => Ok(Self::Body(name.to_owned())),
            _ => Err(invalid()),
        }
    }
}

impl std::str::FromStr for CurrencySource {
    type Err = InvalidCatalogue;

    fn from_str(text: &str) -> Result<Self, InvalidCatalogue> {
        if text.contains(':') {
            return text.parse().map(Self::From);
        }
        match Money::from_minor(0, text) {
            Ok(_) => Ok(Self::Always(text.to_owned())),
            Err(_) => Err(InvalidCatalogue::Source(text.chars().take(120).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_one_way() {
        assert_eq!("body:/amount".parse(), Ok(Source::Body("/amount".into())));
        assert_eq!("header:Idempotency-Key".parse(), Ok(Source::Header("idempotency-key".into())));
        for text in ["amount", "body:amount", "cookie:x", "path:", ":x", "header:X_Key"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
        assert_eq!("USD".parse(), Ok(CurrencySource::Always("USD".into())));
        assert!("dollars".parse::<CurrencySource>().is_err());
    }
}
