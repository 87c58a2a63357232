//! What a verified token proves: chain, grant, task, authority, limits and expiry, as plain data.
//!
//! Holding a `Delegation` proves nothing; `token::Verified` does, and hands one out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Authority, Chain, Id, Presence, Sensitivity, Stage, Tenant,
    id::Run,
    registry::{Grant, Task},
};

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The token itself.
    pub token: TokenFacts,
    /// Who acts for whom, through whom.
    pub chain: Chain,
    /// What the token allows now: its top-level `scope` and `authorization_details`.
    pub authority: Authority,
    /// Whether `authorization_details` were assumed by configuration, because the issuer sends none.
    pub authority_assumed: bool,
    /// What is known of the user.
    pub user: UserClaims,
    /// What the user may do without any agent.
    pub entitlement: BTreeSet<Id<Action>>,
    /// The tenant whose data the token is for.
    pub tenant: Id<Tenant>,
    /// The grant it was issued under.
    pub grant: Option<Id<Grant>>,
    /// The run it belongs to.
    pub run: Id<Run>,
    /// Whether `run` was derived from issuer and `jti`, because the issuer sends none.
    pub run_derived: bool,
    /// The task it was issued for.
    pub task: TaskClaims,
    /// The user's session at their identity provider.
    pub session: Option<String>,
    /// The position in the authority's change log when it was minted.
    pub position: Option<u64>,
    /// How the token is bound to its sender.
    pub sender: Sender,
}

/// What identifies a token and bounds it in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFacts {
    /// SHA-256 of the compact token, base64url.
    pub digest: String,
    /// Who signed it.
    pub issuer: String,
    /// Its `jti`.
    pub jti: Option<String>,
    /// The OAuth client it was issued to.
    pub client_id: Option<String>,
    /// The key that signed it.
    pub key_id: Option<String>,
    /// The algorithm it was signed with.
    pub algorithm: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What the identity provider says of the user, copied at exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserClaims {
    /// Groups.
    pub groups: BTreeSet<String>,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// When the user last authenticated, in seconds since 1970.
    pub auth_time: Option<i64>,
    /// Further attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

/// What the token says of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskClaims {
    /// Its name.
    pub id: Option<Id<Task>>,
    /// What it is for.
    pub use_case: Option<String>,
    /// Who started it.
    pub initiated_by: Option<String>,
    /// How sensitive its data is; the configured default where the token does not say.
    pub sensitivity: Sensitivity,
    /// How far it may go; the configured default where the token does not say.
    pub stage: Stage,
    /// Whether the user is there.
    pub presence: Option<Presence>,
}

/// How a token is bound to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// Not at all: whoever holds it can present it. A setting of the listener allows that.
    Bearer,
    /// To a client certificate (RFC 8705), which the connection of every call has to have.
    Certificate,
}

impl Sender {
    /// Whether a proof bound the token to its sender on this call.
    pub const fn is_constrained(self) -> bool {
        match self {
            Self::Bearer => false,
            Self::Certificate => true,
        }
    }
}
