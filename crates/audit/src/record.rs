//! The records this sidecar writes, typed: what each kind holds, and which of its values are personal.
//!
//! Callers build these from plain `model` data. Identity fields hold verified values only.

mod alert;
mod amend;
mod call;
mod candidate;
mod change;
mod charge;
mod event;
mod issuing;
mod obligation;
mod passed;
mod ruling;
mod timings;
mod token;

use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Action, Agent, Code, Decision, Delegation, Effect, Id, Parameters, Principal, Question, Refusal, Task, Tenant,
    Tool, Verdict,
    catalogue::IdentityMode,
    id::{DecisionMark, Run},
    question::RequestFacts,
};
use serde::{Deserialize, Serialize};

pub use alert::{
    CredentialOverdue, OtherHistory, PinUnmet, ShownByAnother, SidecarUnrecorded, TokenUse, Unshipped, UsedAfterEnd,
    UsedByAnother, WithdrawalFacts,
};
pub use amend::CopyChanged;
pub use candidate::{Compared, Differed, DifferedCall, PolicyCandidate, PolicyCompared, PolicyDiffered};
pub use change::AuthorityChange;
pub use charge::{ChargeFate, Charged, ChargedLimit};
pub use event::{ActivatedBundle, Event, ModeChanged, RefusalsFolded, TokenIssued, TokenRefused};
pub use issuing::Issuing;
pub use obligation::{Altered, Notice};
pub use passed::{Asserted, Connection, OwnCredential, Passed};
pub use ruling::PolicyRuling;
pub use timings::Timings;
pub(crate) use {
    amend::{ErasedValues, KeptRows, RetiredSegment, WrittenHead, erased, retired},
    call::{Explanation, Words, WrittenObserved, WrittenReason, decided, question, settled, settled_unknown},
    event::{event, started, stopped, unavailable},
    issuing::WrittenIssuing,
    obligation::{ObligationWords, WrittenObligation},
    token::{delegation, delegation_content, registration, token_seen},
};

/// The kinds of record, as member `kind` has them.
pub mod kind {
    /// What stays the same under one token, once a segment; later records cite its digest.
    pub const TOKEN_SEEN: &str = "token.seen";
    /// A call was decided on, before its first byte went to the tool.
    pub const CALL_DECIDED: &str = "call.decided";
    /// What became of a call.
    pub const CALL_SETTLED: &str = "call.settled";
    /// Something that an operator has to know.
    pub const ALERT_RAISED: &str = "alert.raised";
    /// A segment was taken away by retention; the ledger begins after it.
    pub const SEGMENT_RETIRED: &str = "segment.retired";
    /// The companion values of one person were taken out of a segment.
    pub const VALUES_ERASED: &str = "values.erased";
    /// An authority took values out of its copy of a sidecar's ledger.
    pub const COPY_ERASED: &str = "copy.erased";
    /// An authority took a segment of its copy of a sidecar's ledger away.
    pub const COPY_RETIRED: &str = "copy.retired";
    /// A policy candidate is asked beside what decides, or no longer.
    pub const POLICY_CANDIDATE: &str = "policy.candidate";
    /// A policy candidate would have answered otherwise.
    pub const POLICY_DIFFERED: &str = "policy.differed";
    /// Of how many calls a policy candidate was asked.
    pub const POLICY_COMPARED: &str = "policy.compared";
    /// An authority issued a token.
    pub const TOKEN_ISSUED: &str = "token.issued";
    /// An authority refused a token to a client that had proved who it is.
    pub const TOKEN_REFUSED: &str = "token.refused";
}

/// A decision on one call: everything that it rests on, and everything that explains it.
#[derive(Debug, Clone)]
pub struct CallDecided {
    /// What was decided on, whole or as far as it was known.
    pub subject: Subject,
    /// The decision.
    pub decision: Decision,
    /// What the agent was told, for a refusal.
    pub refusal: Option<Box<Refusal>>,
    /// The stage of the call's way that refused, or `record` for a permit.
    pub stage_reached: &'static str,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// The digest of the exact policy input, where policy was asked.
    pub input_digest: Option<Digest>,
    /// What is known of the request's body.
    pub body: Body,
    /// The versions the decision was made with.
    pub revisions: Revisions,
    /// What the tool gets to see of the caller.
    pub identity_mode: Option<IdentityMode>,
    /// What was charged against cumulative limits.
    pub charge: Option<Charged>,
    /// How the caller's identity was established.
    pub entry: EntryMode,
    /// What was let through because the action is only observed; `None` where it is enforced.
    pub observed: Option<Box<Observed>>,
    /// Microseconds each stage took.
    pub timings: Timings,
}

/// What a decision is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The whole question.
    Question(Arc<Question>),
    /// A refusal before the question was complete: what had been verified by then.
    Partial(Box<Partial>),
    /// A call that was passed through: nobody was verified, and there was no question.
    Passed(Box<Passed>),
}

impl Subject {
    /// The delegation, where the token passed.
    pub fn delegation(&self) -> Option<&Arc<Delegation>> {
        match self {
            Self::Question(question) => Some(&question.delegation),
            Self::Partial(partial) => partial.delegation.as_ref(),
            Self::Passed(_) => None,
        }
    }

    /// The calling agent's registration, where it was looked up.
    pub fn registration(&self) -> Option<&Agent> {
        match self {
            Self::Question(question) => Some(&*question.agent),
            Self::Partial(partial) => partial.registration.as_ref(),
            Self::Passed(_) => None,
        }
    }
}

/// What was known of a call that was refused early. Identities are verified or absent.
#[derive(Debug, Clone)]
pub struct Partial {
    /// The decision's id.
    pub id: Id<DecisionMark>,
    /// The moment of the refusal.
    pub now: Timestamp,
    /// The whole delegation, where the token passed.
    pub delegation: Option<Arc<Delegation>>,
    /// The user, where a signature vouches for them but the token did not pass.
    pub user: Option<Principal>,
    /// The agent, likewise.
    pub agent: Option<Principal>,
    /// The tenant, likewise.
    pub tenant: Option<Id<Tenant>>,
    /// The run, likewise.
    pub run: Option<Id<Run>>,
    /// The task, likewise.
    pub task: Option<Id<Task>>,
    /// The request, where it had a canonical form.
    pub request: Option<RequestFacts>,
    /// The tool it addresses.
    pub tool: Option<Id<Tool>>,
    /// The action it was recognised as.
    pub action: Option<Id<Action>>,
    /// The action's effect.
    pub effect: Option<Effect>,
    /// The resource.
    pub resource: Option<String>,
    /// The parameters.
    pub parameters: Option<Parameters>,
    /// The calling agent's registration.
    pub registration: Option<Agent>,
}

/// What became of a call that was permitted.
#[derive(Debug, Clone)]
pub struct CallSettled {
    /// The decision's id.
    pub id: Id<DecisionMark>,
    /// How it ended.
    pub outcome: Outcome,
    /// The tool's HTTP status, where it answered.
    pub status: Option<u16>,
    /// The code the agent was answered with instead of the tool's answer.
    pub code: Option<Code>,
    /// Whether any byte of the call went to the tool.
    pub sent: bool,
    /// What became of what it was charged.
    pub charge: Option<ChargeFate>,
    /// What an obligation changed of the response.
    pub altered: Option<Box<Altered>>,
    /// Why an obligation kept the response back, whole or from some byte on.
    pub withheld: Option<&'static str>,
    /// Bytes of the request's body that went to the tool.
    pub request_bytes: u64,
    /// Bytes of the response's body that went to the agent.
    pub response_bytes: u64,
    /// The digest of a request body that streamed.
    pub body: Option<Digest>,
    /// Microseconds of each stage after the record.
    pub timings: Timings,
}

/// How a permitted call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The tool's whole answer went to the agent.
    Completed,
    /// The agent went away before that.
    ClientGone,
    /// The tool could not be reached.
    ToolUnreachable,
    /// The tool did not answer in time.
    ToolTimeout,
    /// The tool broke off in mid-answer.
    ToolBroke,
    /// It was not sent, for a reason of our own: `code` says which.
    NotSent,
    /// It was broken off, for a reason of our own: `code` says which.
    Cut,
    /// The sidecar stopped before it knew.
    Unknown,
}

impl Outcome {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::ToolUnreachable => "tool_unreachable",
            Self::ToolTimeout => "tool_timeout",
            Self::ToolBroke => "tool_broke",
            Self::NotSent => "not_sent",
            Self::Cut => "cut",
            Self::Unknown => "unknown",
        }
    }
}

/// A W3C trace id and span id, lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 digits.
    pub trace_id: String,
    /// 16 digits.
    pub span_id: String,
}

/// A SHA-256 digest of something that is not kept. Written down as a personal value, so that it cannot be used to
/// guess what it is of once the companion value is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crate::chain::sha256(bytes))
    }

    /// A digest that was computed as the bytes streamed by.
    pub const fn from_sha256(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// base64url, as the record's companion value has it.
    pub fn text(&self) -> String {
        crate::chain::encoded(&self.0)
    }
}

/// What is known of a request's body when the decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It was read whole, for its parameters.
    Read(Digest),
    /// It streams past; its digest is in the settled record.
    Unseen,
}

/// The versions a decision was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// Of policy: sources, library, engine and input version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Of the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<String>,
    /// Of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Of the program.
    pub binary: String,
}

/// How the caller's identity was established: a rung of the ladder of DESIGN §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryMode {
    /// By a delegated token that names user and agent.
    Delegated,
    /// By one that the sidecar obtained: the agent by its connection, the user by a token of their own or by their task.
    Exchanged,
    /// Not at all: the call was passed through.
    Passthrough,
}

/// Whether decisions are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A denied call is not sent.
    Enforce,
    /// What would deny it is written down, and it is sent.
    Observe,
    /// Nothing is decided: it is written down, and sent with the agent's own credential.
    Passthrough,
}

impl Mode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Passthrough => "passthrough",
        }
    }

    /// The rung of the ladder that a call in this mode stands on (DESIGN §4). Those between come with the first token.
    pub const fn rung(self) -> u8 {
        match self {
            Self::Passthrough => 0,
            Self::Observe => 4,
            Self::Enforce => 5,
        }
    }
}

/// A call of an action that is only observed: what enforcing would have done.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When the action begins to be enforced.
    pub until: Timestamp,
    /// What was waived, in the order of the call's stages. The first is what the agent would have been told.
    pub waived: Vec<Waived>,
    /// Policy's own verdict and code, where it did not permit.
    pub policy: Option<(Verdict, Option<Code>)>,
}

/// A refusal that was not followed.
#[derive(Debug, Clone)]
pub struct Waived {
    /// The stage that refused.
    pub stage: &'static str,
    /// What it refused with.
    pub refusal: Box<Refusal>,
}

impl CallDecided {
    /// Whether the decision is enforced.
    pub const fn mode(&self) -> Mode {
        match (&self.subject, &self.observed) {
            (Subject::Passed(_), _) => Mode::Passthrough,
            (_, Some(_)) => Mode::Observe,
            (_, None) => Mode::Enforce,
        }
    }

    /// The decision's id.
    pub fn id(&self) -> &Id<DecisionMark> {
        match &self.subject {
            Subject::Question(question) => &question.id,
            Subject::Partial(partial) => &partial.id,
            Subject::Passed(passed) => &passed.partial.id,
        }
    }

    /// Whether any verified principal is known, or the call went without one. A refusal without one is counted in
    /// [`Event::RefusalsSummary`], so that unauthenticated traffic cannot fill the disk.
    pub fn names_a_principal(&self) -> bool {
        match &self.subject {
            Subject::Question(_) | Subject::Passed(_) => true,
            Subject::Partial(partial) => {
                partial.delegation.is_some() || partial.user.is_some() || partial.agent.is_some()
            }
        }
    }

    /// Whether the call is, for all that is known, more than a read.
    pub(crate) fn changes_something(&self) -> bool {
        let effect = match &self.subject {
            Subject::Question(question) => Some(question.call.effect),
            Subject::Partial(partial) => partial.effect,
            Subject::Passed(passed) => passed.partial.effect,
        };
        effect != Some(Effect::Read)
    }
}

/// What began a run of the program: the first record after each start.
#[derive(Debug, Clone)]
pub struct Started {
    /// Which plane.
    pub component: Component,
    /// Its configured name.
    pub name: String,
    /// The program's version.
    pub version: String,
}

/// The program that keeps a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The data plane: `sidecar.started`, `sidecar.stopped`.
    Sidecar,
    /// The control plane: `authority.started`, `authority.stopped`.
    Authority,
    /// The command line, on a ledger that no plane has open: `maintenance.started`, `maintenance.stopped`.
    Maintenance,
}

impl Component {
    pub(crate) const ALL: [Self; 3] = [Self::Sidecar, Self::Authority, Self::Maintenance];

    pub(crate) const fn started(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar.started",
            Self::Authority => "authority.started",
            Self::Maintenance => "maintenance.started",
        }
    }

    pub(crate) const fn stopped(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar.stopped",
            Self::Authority => "authority.stopped",
            Self::Maintenance => "maintenance.stopped",
        }
    }
}
