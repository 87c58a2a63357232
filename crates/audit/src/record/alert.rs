//! Alerts: a credential that is overdue; a token that was used by another than it is bound to, or that was used after it, or what it was issued for, had been taken back, because somebody still has it
//! and tries; a ledger that is not the one whose head was anchored.

use jiff::Timestamp;
use model::{
    Code, Id, Principal, Target, Tenant, Withdrawal,
    id::{DecisionMark, Run},
    registry::Task,
};

use super::kind;
use crate::{canonical::Unrecordable, values::Draft};

/// A use of a token that is an alert. Its signature was verified; what is said of it here is what it says.
#[derive(Debug, Clone)]
pub struct TokenUse {
    /// The call it was used for.
    pub call: Id<DecisionMark>,
    /// What the call was refused with: `expired` where the token had also ended by itself.
    pub code: Code,
    /// SHA-256 of the compact token, base64url.
    pub token: String,
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

/// A token that was used after its end.
#[derive(Debug, Clone)]
pub struct UsedAfterEnd {
    /// The use.
    pub used: TokenUse,
    /// Whether whoever used it proved to be whom it was given to.
    pub proved: bool,
    /// What was withdrawn, where it is a single thing.
    pub withdrawal: Option<WithdrawalFacts>,
}

/// A token that was used by another instance than the one it is bound to.
#[derive(Debug, Clone)]
pub struct UsedByAnother {
    /// The use.
    pub used: TokenUse,
    /// SHA-256 of the certificate that it is bound to, base64url.
    pub bound_to: String,
    /// The same of the certificate that the connection showed, if any.
    pub presented: Option<String>,
}

/// A token that came to the authority by another instance of its agent than the one it was issued to.
#[derive(Debug, Clone)]
pub struct ShownByAnother {
    /// SHA-256 of the compact token, base64url.
    pub token: String,
    /// The agent.
    pub agent: Principal,
    /// The instance that it was issued to.
    pub instance: String,
    /// The instance that showed it.
    pub presented: String,
    /// Whether a certificate proves that; otherwise it is its own word.
    pub proved: bool,
}

/// A credential of an agent that is older than it may be.
#[derive(Debug, Clone)]
pub struct CredentialOverdue {
    /// The agent.
    pub agent: Principal,
    /// The credential's name.
    pub credential: String,
    /// When the agent was given it.
    pub added: Timestamp,
    /// Since when it is overdue.
    pub since: Timestamp,
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

/// A pin of policy is not obeyed here: this sidecar has not got the revision that it names.
#[derive(Debug, Clone)]
pub struct PinUnmet {
    /// The bundle, by the name of its source.
    pub bundle: String,
    /// The revision.
    pub revision: String,
    /// The pin, by its id.
    pub pin: String,
    /// Why it is not obeyed.
    pub why: String,
}

pub(crate) fn pin_unmet(unmet: &PinUnmet) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"policy_pin_unmet")?;
    draft.plain("bundle", &unmet.bundle)?;
    draft.plain("revision", &unmet.revision)?;
    draft.plain("pin", &unmet.pin)?;
    draft.plain("why", &unmet.why)?;
    Ok(draft)
}

/// A sidecar cannot write its ledger, or can again: its authority says so, because it cannot.
#[derive(Debug, Clone)]
pub struct SidecarUnrecorded {
    /// The sidecar, by its id.
    pub sidecar: String,
    /// Its name for people.
    pub name: String,
    /// The ledger's id.
    pub ledger: String,
    /// Since when, by the sidecar's clock.
    pub since: Timestamp,
    /// Whether it is over.
    pub over: bool,
    /// Why, by the sidecar's word.
    pub why: String,
}

pub(crate) fn sidecar_unrecorded(unrecorded: &SidecarUnrecorded) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"sidecar_ledger_unavailable")?;
    draft.plain("sidecar", &unrecorded.sidecar)?;
    draft.plain("name", &unrecorded.name)?;
    draft.plain("ledger", &unrecorded.ledger)?;
    draft.plain("since", &unrecorded.since)?;
    draft.plain("over", &unrecorded.over)?;
    draft.plain("why", &unrecorded.why)?;
    Ok(draft)
}

pub(crate) fn used_after_end(alert: &UsedAfterEnd) -> Result<Draft, Unrecordable> {
    let mut draft = used("used_after_end", &alert.used)?;
    draft.plain("proved", &alert.proved)?;
    if let Some(WithdrawalFacts { id, target, position, at }) = &alert.withdrawal {
        draft.plain("withdrawal", id)?;
        draft.plain("target_kind", &target.kind())?;
        draft.personal("target", &target.to_string())?;
        draft.plain("position", position)?;
        draft.plain("withdrawn_at", at)?;
    }
    Ok(draft)
}

pub(crate) fn used_by_another(alert: &UsedByAnother) -> Result<Draft, Unrecordable> {
    let mut draft = used("used_by_another", &alert.used)?;
    draft.plain("bound_to", &alert.bound_to)?;
    draft.optional("presented", alert.presented.as_ref())?;
    Ok(draft)
}

pub(crate) fn shown_by_another(alert: &ShownByAnother) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"used_by_another")?;
    draft.plain("token", &alert.token)?;
    draft.plain("agent", &alert.agent)?;
    draft.plain("instance", &alert.instance)?;
    draft.plain("presented_instance", &alert.presented)?;
    draft.plain("proved", &alert.proved)?;
    Ok(draft)
}

pub(crate) fn credential_overdue(alert: &CredentialOverdue) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"credential_overdue")?;
    draft.plain("agent", &alert.agent)?;
    draft.plain("credential", &alert.credential)?;
    draft.plain("added_at", &alert.added)?;
    draft.plain("overdue_since", &alert.since)?;
    Ok(draft)
}

fn used(alert: &str, used: &TokenUse) -> Result<Draft, Unrecordable> {
    let TokenUse { call, code, token, user, agent, tenant, run, task } = used;
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &alert)?;
    draft.plain("call", call)?;
    draft.plain("code", code)?;
    draft.plain("token", token)?;
    if let Some(user) = user {
        draft.personal("user", user)?;
    }
    draft.optional("agent", agent.as_ref())?;
    draft.optional("tenant", tenant.as_ref())?;
    draft.optional("run_id", run.as_ref())?;
    draft.optional("task_id", task.as_ref())?;
    Ok(draft)
}
