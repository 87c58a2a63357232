//! What was decided, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Code, Obligation, Retry};

/// The answer to a [`crate::Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// The code of a refusal; `None` for a permit.
    pub code: Option<Code>,
    /// What led to it.
    pub reasons: Vec<Reason>,
    /// What it obliges to, in the order of the packages. Of a denial, what the call fell short of is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Obligation>,
}

/// The possible answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call goes.
    Permit,
    /// It does not.
    Deny,
    /// It may, once a person said yes.
    ApprovalRequired,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::ApprovalRequired => "approval_required",
        }
    }
}

/// One reason, from a policy rule or a guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The rule's own code: `not_your_order`.
    pub code: String,
    /// What the agent may be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What only the record holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<String>,
    /// Whether and when to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// The package or guard it comes from: `countersign.teams.support`.
    pub source: String,
}
