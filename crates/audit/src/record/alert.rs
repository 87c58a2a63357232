//! Alerts: a token that was used after it, or what it was issued for, had been taken back, because somebody still has it
//! and tries; a ledger that is not the one whose head was anchored.

use jiff::Timestamp;
use model::{
    Code, Id, Principal, Target, Tenant, Withdrawal,
    id::{DecisionMark, Run},
    registry::Task,
};

use super::kind;
use crate::{canonical::Unrecordable, values::Draft};

/// A token that was used after its end. Its signature was verified; everything here is what it says.
#[derive(Debug, Clone)]
pub struct UsedAfterEnd {
    /// The call it was used for.
    pub call: Id<DecisionMark>,
    /// What the call was refused with: `expired` where the token had also ended by itself.
    pub code: Code,
    /// SHA-256 of the compact token, base64url.
    pub token: String,
    /// What was withdrawn, where it is a single thing.
    pub withdrawal: Option<WithdrawalFacts>,
    /// The user it names.
    pub user: Option<Principal>,
    /// The agent it names.
    pub agent: Option<Principal>,
    /// The tenant it names.
    pub tenant: Option<Id<Tenant>>,
    /// The run it names.
    pub run: Option<Id<Run>>,
    /// The task it names.
    pub task: Option<Id<Task>>,
}

/// Which withdrawal it was.
#[derive(Debug, Clone)]
pub struct WithdrawalFacts {
    /// Its name.
    pub id: Id<Withdrawal>,
    /// What it took back.
    pub target: Target,
    /// Its place in the authority's change log.
    pub position: u64,
    /// When it was committed.
    pub at: Timestamp,
}

/// A sidecar's ledger is not the one whose head is anchored: it was cut, or what the head covers was rewritten.
#[derive(Debug, Clone)]
pub struct OtherHistory {
    /// The ledger's id.
    pub ledger: String,
    /// The sidecar that speaks for it, by its id.
    pub sidecar: String,
    /// Whether it is shorter than it was; otherwise it is another one.
    pub cut: bool,
    /// The head that is anchored, as it was signed.
    pub anchored: String,
    /// The head that came, as it was signed.
    pub found: String,
}

pub(crate) fn other_history(other: &OtherHistory) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", if other.cut { &"ledger_cut" } else { &"ledger_rewritten" })?;
    draft.plain("ledger", &other.ledger)?;
    draft.plain("sidecar", &other.sidecar)?;
    draft.plain("anchored", &other.anchored)?;
    draft.plain("found", &other.found)?;
    Ok(draft)
}

/// Records of this ledger have not been at the authority for longer than they may.
#[derive(Debug, Clone)]
pub struct Unshipped {
    /// When the oldest of them was written.
    pub since: Timestamp,
    /// Whether drafts and writes are refused until they are.
    pub refuses_writes: bool,
    /// Why they are not.
    pub why: String,
}

pub(crate) fn unshipped(unshipped: &Unshipped) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"ledger_unshipped")?;
    draft.plain("since", &unshipped.since)?;
    draft.plain("refuses_writes", &unshipped.refuses_writes)?;
    draft.plain("why", &unshipped.why)?;
    Ok(draft)
}

pub(crate) fn used_after_end(used: &UsedAfterEnd) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"used_after_end")?;
    draft.plain("call", &used.call)?;
    draft.plain("code", &used.code)?;
    draft.plain("token", &used.token)?;
    if let Some(WithdrawalFacts { id, target, position, at }) = &used.withdrawal {
        draft.plain("withdrawal", id)?;
        draft.plain("target_kind", &target.kind())?;
        draft.personal("target", &target.to_string())?;
        draft.plain("position", position)?;
        draft.plain("withdrawn_at", at)?;
    }
    if let Some(user) = &used.user {
        draft.personal("user", user)?;
    }
    draft.optional("agent", used.agent.as_ref())?;
    draft.optional("tenant", used.tenant.as_ref())?;
    draft.optional("run_id", used.run.as_ref())?;
    draft.optional("task_id", used.task.as_ref())?;
    Ok(draft)
}
