//! Facts: what the sidecar itself read about the resource, because the call cannot be trusted to say it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Id, Principal};

/// One leaf of a fact. Numbers other than whole ones within ±(2^53 - 1) are kept as their text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FactValue {
    /// Unread, or the resource has none.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Text, or a number that is not a safe integer, as text.
    Text(String),
    /// A principal, by issuer and id.
    Principal(FactPrincipal),
}

/// A principal that a fact names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactPrincipal {
    /// Its id, as the tool stores it.
    pub id: Id<Principal>,
    /// Whose name that is, by configuration.
    pub issuer: String,
}

/// Facts by name, each with all its declared leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facts(pub BTreeMap<String, BTreeMap<String, FactValue>>);

impl Facts {
    /// The leaf at `fact.leaf`, as a relation names it.
    pub fn leaf(&self, path: &str) -> Option<&FactValue> {
        let (fact, leaf) = path.split_once('.')?;
        self.0.get(fact)?.get(leaf)
    }

    /// Whether the relation `path` = `value` is proved. `$user` and `$agent` stand for principals, compared by
    /// issuer and id; `$tenant` and anything else for text. What is null, unread or of another type proves nothing.
    pub fn prove(&self, path: &str, value: &str, known: &Known<'_>) -> bool {
        let named = |principal: &Principal| matches!(self.leaf(path), Some(FactValue::Principal(found)) if found.id == principal.id && found.issuer == principal.issuer);
        let text = |wanted: &str| matches!(self.leaf(path), Some(FactValue::Text(found)) if found == wanted);
        match value {
            "$user" => named(known.user),
            "$agent" => named(known.agent),
            "$tenant" => text(known.tenant),
            other if other.starts_with('$') => false,
            other => text(other),
        }
    }
}

/// What the variables of a relation stand for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// `$user`
    pub user: &'a Principal,
    /// `$agent`
    pub agent: &'a Principal,
    /// `$tenant`
    pub tenant: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrincipalKind;

    fn principal(id: &str, issuer: &str) -> Principal {
        Principal { kind: PrincipalKind::User, id: Id::new(id).unwrap(), issuer: issuer.to_owned(), tenant: None }
    }

    #[test]
    fn a_relation_is_proved_by_issuer_and_id_together_and_by_nothing_that_is_missing() {
        let facts: Facts = serde_json::from_value(serde_json::json!({"order": {"placed_by": {"id": "alice", "issuer": "https://a.example"}, "name": "alice", "none": null}})).unwrap();
        let prove = |path: &str, value: &str, user: &Principal| {
            facts.prove(path, value, &Known { user, agent: user, tenant: "acme" })
        };
        let alice = principal("alice", "https://a.example");
        assert!(prove("order.placed_by", "$user", &alice) && prove("order.name", "alice", &alice));
        assert!(!prove("order.placed_by", "$user", &principal("alice", "https://b.example")));
        assert!(
            !prove("order.name", "$user", &alice)
                && !prove("order.none", "$user", &alice)
                && !prove("order.absent", "$user", &alice)
        );
        assert!(!prove("order.placed_by", "$nobody", &alice) && !prove("order", "$user", &alice));
    }
}
