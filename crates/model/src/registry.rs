//! What stands registered: agents, the grants users gave them, and the tasks under those grants.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Action, Authority, Id, Presence, Principal, Sensitivity, Stage, Tenant, id::Run};

/// A registered non-human principal with an accountable owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name at `issuer`.
    pub id: Id<Principal>,
    /// Whose name it is.
    pub issuer: String,
    /// The accountable person.
    pub owner: String,
    /// What it is registered to do, at most.
    pub actions: BTreeSet<Id<Action>>,
    /// The tenants it may work for.
    pub tenants: BTreeSet<Id<Tenant>>,
    /// Whether it may act.
    #[serde(default)]
    pub status: AgentStatus,
}

/// Whether an agent may act.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// It may.
    #[default]
    Active,
    /// It may not, until somebody lifts that.
    Suspended,
    /// It never will again.
    Decommissioned,
}

impl AgentStatus {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Decommissioned => "decommissioned",
        }
    }
}

impl Agent {
    /// Whether this is the registration of `principal`.
    pub fn is(&self, principal: &Principal) -> bool {
        self.id == principal.id && self.issuer == principal.issuer
    }
}

/// A user's standing permission for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name.
    pub id: Id<Self>,
    /// The user who gave it.
    pub user: Principal,
    /// The agent it is for.
    pub agent: Principal,
    /// What the agent may do.
    pub authority: Authority,
    /// The furthest stage a task under it may have.
    pub stage: Stage,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How many further agents it may be passed on to.
    pub redelegate: usize,
}

/// One piece of work under a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub id: Id<Self>,
    /// The grant it is under.
    pub grant: Id<Grant>,
    /// The run it belongs to.
    pub run: Id<Run>,
    /// The tenant whose data it touches.
    pub tenant: Id<Tenant>,
    /// The user's session at their identity provider that it is bound to.
    pub session: Option<String>,
    /// What it is for.
    pub use_case: Option<String>,
    /// Who started it.
    pub initiated_by: String,
    /// How sensitive its data is.
    pub sensitivity: Sensitivity,
    /// How far it may go.
    pub stage: Stage,
    /// Whether the user is there.
    pub presence: Presence,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Whether it is still going.
    pub status: TaskStatus,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Tokens are issued under it.
    Active,
    /// The work is done.
    Completed,
    /// Somebody ended it.
    Withdrawn,
}
