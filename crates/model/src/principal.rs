//! Who: users, agents and services. A principal's identity is the pair (issuer, id), never the id alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Id, Tenant};

/// A user, an agent or a service, as an issuer names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// Its name at the issuer (`sub`).
    pub id: Id<Self>,
    /// Whose name it is: the `iss` URL under which `id` is unique.
    pub issuer: String,
    /// The tenant it belongs to.
    pub tenant: Option<Id<Tenant>>,
}

/// The kinds of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A registered non-human principal that acts for somebody.
    Agent,
    /// A non-human principal that is not an agent: a back end, a gateway.
    Service,
}

impl PrincipalKind {
    /// The kind's word, as policy input, records and logs have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Service => "service",
        }
    }
}

impl Principal {
    /// Whether both name the same principal: same issuer, same id, whatever else is said of them.
    pub fn is(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.id == other.id
    }
}

impl std::fmt::Display for Principal {
    /// `user:alice@acme`, `agent:support-v2`: for people; never compared. A user whose id already has an `@`
    /// is not given a second one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)?;
        match &self.tenant {
            Some(tenant) if self.kind == PrincipalKind::User && !self.id.as_str().contains('@') => {
                write!(f, "@{tenant}")
            }
            _ => Ok(()),
        }
    }
}
