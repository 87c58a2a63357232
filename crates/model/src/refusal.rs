//! Refusals: the one table of denial codes (DESIGN §5.3), and what a refused agent is told.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Action, Id, Reason};

/// Why a call was not forwarded. Codes are stable: agents and alerts are written against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant's meaning is in `entry`, which the documentation is generated from")]
pub enum Code {
    NoCredential,
    InvalidToken,
    Expired,
    WrongAudience,
    WrongSender,
    Withdrawn,
    Impersonation,
    RobotUser,
    UnknownAgent,
    AgentSuspended,
    TaskEnded,
    TenantMismatch,
    UnknownTool,
    UnmappedAction,
    InsufficientScope,
    Entitlement,
    LimitExceeded,
    Stage,
    Chain,
    RelationUnproven,
    PolicyNoAllow,
    PolicyDenied,
    ObligationUnknown,
    ApprovalRequired,
    Velocity,
    Malformed,
    BodyTooLarge,
    NoPolicy,
    PolicyError,
    PolicyBudget,
    PolicyStale,
    FactsUnavailable,
    LimitUnavailable,
    AuthorityStale,
    LedgerUnavailable,
    KeysUnavailable,
    CredentialUnavailable,
    Overloaded,
    ToolUnreachable,
    ToolTimeout,
    ResponseWithheld,
}

/// Whether and when the same call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It will be refused again.
    Never,
    /// Later: the condition passes by itself.
    After,
    /// Once something changed: the call, the token, the grant or the policy.
    AfterChange,
    /// Once a person approved it.
    AfterApproval,
}

/// One row of the table of codes.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The HTTP status.
    pub status: u16,
    /// A short title, the same for every refusal with the code.
    pub title: &'static str,
    /// What it means and what would fix it.
    pub meaning: &'static str,
    /// Whether to try again, where the reasons do not say otherwise.
    pub retry: Retry,
}

const fn entry(status: u16, title: &'static str, meaning: &'static str, retry: Retry) -> Entry {
    Entry { status, title, meaning, retry }
}

impl Code {
    /// Every code, in the order of the table in the documentation.
    pub const ALL: [Self; 41] = [
        Self::NoCredential,
        Self::InvalidToken,
        Self::Expired,
        Self::WrongAudience,
        Self::WrongSender,
        Self::Withdrawn,
        Self::Impersonation,
        Self::RobotUser,
        Self::UnknownAgent,
        Self::AgentSuspended,
        Self::TaskEnded,
        Self::TenantMismatch,
        Self::UnknownTool,
        Self::UnmappedAction,
        Self::InsufficientScope,
        Self::Entitlement,
        Self::LimitExceeded,
        Self::Stage,
        Self::Chain,
        Self::RelationUnproven,
        Self::PolicyNoAllow,
        Self::PolicyDenied,
        Self::ObligationUnknown,
        Self::ApprovalRequired,
        Self::Velocity,
        Self::Malformed,
        Self::BodyTooLarge,
        Self::NoPolicy,
        Self::PolicyError,
        Self::PolicyBudget,
        Self::PolicyStale,
        Self::FactsUnavailable,
        Self::LimitUnavailable,
        Self::AuthorityStale,
        Self::LedgerUnavailable,
        Self::KeysUnavailable,
        Self::CredentialUnavailable,
        Self::Overloaded,
        Self::ToolUnreachable,
        Self::ToolTimeout,
        Self::ResponseWithheld,
    ];

    /// Status, title, meaning and retry advice of the code.
    #[expect(clippy::too_many_lines, reason = "one table, one row a code")]
    pub const fn entry(self) -> Entry {
        use Retry::{After, AfterApproval, AfterChange, Never};
        match self {
            Self::NoCredential => entry(
                401,
                "No credential",
                "The request has no `Authorization: Bearer` token. Obtain a delegated token and send it.",
                AfterChange,
            ),
            Self::InvalidToken => entry(
                401,
                "Invalid token",
                "The token is not one that this sidecar accepts: its form, issuer, key, signature, type or time is wrong.",
                AfterChange,
            ),
            Self::Expired => entry(
                401,
                "Token expired",
                "The token was valid and has ended. Obtain a new one for the same task.",
                AfterChange,
            ),
            Self::WrongAudience => entry(
                401,
                "Wrong audience",
                "The token is for somebody else. Obtain one whose audience is this sidecar.",
                AfterChange,
            ),
            Self::WrongSender => entry(
                401,
                "Wrong sender",
                "The token is bound to a key, and the request does not prove possession of it.",
                AfterChange,
            ),
            Self::Withdrawn => entry(
                401,
                "Withdrawn",
                "What the token was issued for was taken back or narrowed since. Ask for a new one; it holds what is left.",
                AfterChange,
            ),
            Self::Impersonation => entry(
                403,
                "Impersonation",
                "The token names a user and no agent acting for them. Exchange it for a delegated token.",
                AfterChange,
            ),
            Self::RobotUser => {
                entry(403, "Robot user", "The token names a service account where the user should be.", Never)
            }
            Self::UnknownAgent => {
                entry(403, "Unknown agent", "An agent in the chain is not registered here.", AfterChange)
            }
            Self::AgentSuspended => {
                entry(403, "Agent suspended", "An agent in the chain may not act at present.", AfterChange)
            }
            Self::TaskEnded => {
                entry(403, "Task ended", "The task that the token was issued for came to its end.", Never)
            }
            Self::TenantMismatch => entry(
                403,
                "Tenant mismatch",
                "The token's tenant is not one that its issuer or this sidecar serves.",
                Never,
            ),
            Self::UnknownTool => {
                entry(403, "Unknown tool", "The path addresses no tool of this sidecar for this tenant.", Never)
            }
            Self::UnmappedAction => entry(
                403,
                "Unmapped action",
                "The tool is known; the method and path are no action of its catalogue.",
                Never,
            ),
            Self::InsufficientScope => entry(
                403,
                "Insufficient scope",
                "A principal in the chain does not hold the action on this tool and resource.",
                AfterChange,
            ),
            Self::Entitlement => entry(
                403,
                "User not entitled",
                "The user themselves may not do this; no agent can do it for them.",
                AfterChange,
            ),
            Self::LimitExceeded => entry(
                403,
                "Limit exceeded",
                "A parameter is over a limit that a principal in the chain holds, or over what is left of one within its window; `allowed` and `limiting_hop` say which.",
                AfterChange,
            ),
            Self::Stage => entry(403, "Stage too low", "The task's stage does not reach this effect.", AfterChange),
            Self::Chain => entry(
                403,
                "Invalid chain",
                "The delegation chain loops, widens, runs too deep or contradicts itself.",
                AfterChange,
            ),
            Self::RelationUnproven => entry(
                403,
                "Relation unproven",
                "A relation that the delegation demands (such as: the user placed the order) is not shown by the facts.",
                Never,
            ),
            Self::PolicyNoAllow => entry(403, "Not allowed by policy", "No policy rule allows the call.", AfterChange),
            Self::PolicyDenied => {
                entry(403, "Denied by policy", "A policy rule denies the call; `reasons` say which.", AfterChange)
            }
            Self::ObligationUnknown => entry(
                403,
                "Unknown obligation",
                "Policy attached an obligation that is none, or that this sidecar cannot meet; the record says which and whose.",
                AfterChange,
            ),
            Self::ApprovalRequired => {
                entry(403, "Approval required", "A person has to approve the call first.", AfterApproval)
            }
            Self::Velocity => entry(
                429,
                "Too many calls",
                "As many calls were made within a window as a principal in the chain may make; `limiting_hop` says whose limit it is, `allowed` until when.",
                After,
            ),
            Self::Malformed => entry(
                400,
                "Malformed request",
                "The path, a header, the query or the body cannot be read in exactly one way, or a parameter is missing or wrong.",
                AfterChange,
            ),
            Self::BodyTooLarge => entry(
                413,
                "Body too large",
                "The body is larger than what may be read of it, and the action declares what may be in it.",
                AfterChange,
            ),
            Self::NoPolicy => entry(503, "No policy", "No policy is loaded for this tool.", After),
            Self::PolicyError => entry(
                503,
                "Policy error",
                "A policy rule failed while it was evaluated; the record names the package.",
                After,
            ),
            Self::PolicyBudget => entry(503, "Policy budget spent", "Evaluation took longer than its budget.", After),
            Self::PolicyStale => entry(
                503,
                "Policy is stale",
                "The policy's server has not confirmed it for longer than it may decide unconfirmed (`max_age`).",
                After,
            ),
            Self::FactsUnavailable => {
                entry(503, "Facts unavailable", "A fact about the resource could not be read from the tool.", After)
            }
            Self::LimitUnavailable => entry(
                503,
                "Limit unavailable",
                "A cumulative limit applies and nobody can say how much of it is left.",
                After,
            ),
            Self::AuthorityStale => entry(
                503,
                "Authority not heard",
                "The sidecar has not heard from the authority for so long that it cannot know what was withdrawn.",
                After,
            ),
            Self::LedgerUnavailable => entry(
                503,
                "Ledger unavailable",
                "The decision could not be made durable, so the call was not sent.",
                After,
            ),
            Self::KeysUnavailable => {
                entry(503, "Keys unavailable", "The issuer's signing keys could not be fetched.", After)
            }
            Self::CredentialUnavailable => {
                entry(503, "Credential unavailable", "The sidecar has no credential for the tool.", After)
            }
            Self::Overloaded => entry(503, "Overloaded", "The sidecar sheds load.", After),
            Self::ToolUnreachable => {
                entry(502, "Tool unreachable", "The tool could not be reached, or broke off.", After)
            }
            Self::ToolTimeout => entry(504, "Tool timeout", "The tool did not answer in time.", After),
            Self::ResponseWithheld => entry(
                502,
                "Response withheld",
                "The tool answered, and an obligation of policy keeps the answer back: it is larger than it may be, or nothing can be redacted in what it is. The call was sent and may have taken effect.",
                AfterChange,
            ),
        }
    }

    /// The code as agents, records and metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::InvalidToken => "invalid_token",
            Self::Expired => "expired",
            Self::WrongAudience => "wrong_audience",
            Self::WrongSender => "wrong_sender",
            Self::Withdrawn => "withdrawn",
            Self::Impersonation => "impersonation",
            Self::RobotUser => "robot_user",
            Self::UnknownAgent => "unknown_agent",
            Self::AgentSuspended => "agent_suspended",
            Self::TaskEnded => "task_ended",
            Self::TenantMismatch => "tenant_mismatch",
            Self::UnknownTool => "unknown_tool",
            Self::UnmappedAction => "unmapped_action",
            Self::InsufficientScope => "insufficient_scope",
            Self::Entitlement => "entitlement",
            Self::LimitExceeded => "limit_exceeded",
            Self::Stage => "stage",
            Self::Chain => "chain",
            Self::RelationUnproven => "relation_unproven",
            Self::PolicyNoAllow => "policy_no_allow",
            Self::PolicyDenied => "policy_denied",
            Self::ObligationUnknown => "obligation_unknown",
            Self::ApprovalRequired => "approval_required",
            Self::Velocity => "velocity",
            Self::Malformed => "malformed",
            Self::BodyTooLarge => "body_too_large",
            Self::NoPolicy => "no_policy",
            Self::PolicyError => "policy_error",
            Self::PolicyBudget => "policy_budget",
            Self::PolicyStale => "policy_stale",
            Self::FactsUnavailable => "facts_unavailable",
            Self::LimitUnavailable => "limit_unavailable",
            Self::AuthorityStale => "authority_stale",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::KeysUnavailable => "keys_unavailable",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::Overloaded => "overloaded",
            Self::ToolUnreachable => "tool_unreachable",
            Self::ToolTimeout => "tool_timeout",
            Self::ResponseWithheld => "response_withheld",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that is not forwarded, and what is said of it: to the agent, and only to the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// One sentence for the agent. Holds nothing that it could not know.
    pub detail: String,
    /// One sentence for the record and the operator.
    pub internal: Option<String>,
    /// Whether to try again.
    pub retry: Retry,
    /// In how many seconds, where that is known.
    pub retry_after: Option<u64>,
    /// The rules behind it; their `internal` never reaches the agent.
    pub reasons: Vec<Reason>,
    /// The principal whose authority falls short, as people write it.
    pub limiting_hop: Option<String>,
    /// What would be allowed: `{"amount": {"max": "50.00", "currency": "USD"}}`.
    pub allowed: Option<serde_json::Value>,
    /// The actions that a new token would have to name.
    pub missing_scope: BTreeSet<Id<Action>>,
}

impl Refusal {
    /// A refusal with the code's own retry advice.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            internal: None,
            retry: code.entry().retry,
            retry_after: None,
            reasons: Vec::new(),
            limiting_hop: None,
            allowed: None,
            missing_scope: BTreeSet::new(),
        }
    }

    /// The same, with what only the record holds.
    #[must_use]
    pub fn internally(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_listed_once_and_written_as_it_is_serialised() {
        let mut seen = BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!((400..600).contains(&code.entry().status));
        }
    }
}
