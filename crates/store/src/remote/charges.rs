//! `/v1/charges` as both planes speak it: a call under an idempotency key is charged once, whichever sidecars it comes to.
//!
//! What a call is charged is taken from a slice first, and told then. So what stands here is always counted, also where
//! the sidecar that told it is gone a moment later.

use jiff::Timestamp;
use model::{Id, Tenant, id::DecisionMark, limits::LimitKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::Lease;

/// Where the authority answers.
pub const CHARGES_PATH: &str = "/v1/charges";

/// What a sidecar tells of a call under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChargeRequest {
    /// What it wants.
    pub step: ChargeStep,
    /// The tenant of the call.
    pub tenant: Id<Tenant>,
    /// SHA-256, in hexadecimal, over the key and everything that makes the call the same one again.
    pub digest: String,
    /// The decision that permits it.
    pub decision: Id<DecisionMark>,
    /// What it is charged to.
    pub limits: Vec<ChargedTo>,
}

/// What a sidecar wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChargeStep {
    /// It was charged for this decision, unless the same call was before.
    Charge,
    /// It is to go on what the same call was charged before, if it was.
    Repeat,
    /// It was not sent: nothing is charged after all, unless somebody goes on it.
    Release,
}

/// What a call is charged to one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChargedTo {
    /// Which limit.
    pub limit: LimitKey,
    /// When the window starts.
    #[schemars(with = "String")]
    pub starts: Timestamp,
    /// How much, in the limit's units.
    pub units: u64,
    /// The lease that it was taken from, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Id<Lease>>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeAnswer {
    /// The decision that the call was charged for; none, where it is charged for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<Id<DecisionMark>>,
    /// For how many seconds that holds.
    pub seconds: u64,
}
