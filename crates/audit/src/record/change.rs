//! Records of what the authority changed: withdrawals, enrolments, registrations, grants, tasks. One for each change of
//! its change log, with its position there.

use jiff::Timestamp;
use model::{
    Id, Principal, Tenant,
    id::Run,
    registry::{Grant, Task},
};
use serde_json::Value;

use crate::{canonical::Unrecordable, values::Draft};

/// One change: who made it, why, and what it is about.
#[derive(Debug, Clone)]
pub struct AuthorityChange {
    /// The kind of record: `withdrawal.created`, `task.started` …
    pub kind: String,
    /// Its place in the change log.
    pub position: u64,
    /// The generation of that log.
    pub generation: String,
    /// When it was committed.
    pub at: Timestamp,
    /// Who made it, as people write it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// The user whose authority it is about.
    pub user: Option<Principal>,
    /// The agent it is about.
    pub agent: Option<Principal>,
    /// The tenant it is about.
    pub tenant: Option<Id<Tenant>>,
    /// The grant.
    pub grant: Option<Id<Grant>>,
    /// The task.
    pub task: Option<Id<Task>>,
    /// The run.
    pub run: Option<Id<Run>>,
    /// All of it, as the change log has it.
    pub change: Value,
}

pub(super) fn change(change: &AuthorityChange) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(&change.kind)?;
    draft.plain("position", &change.position)?;
    draft.plain("generation", &change.generation)?;
    draft.plain("at", &change.at)?;
    draft.personal("by", &change.by)?;
    if let Some(reason) = &change.reason {
        draft.personal("reason", reason)?;
    }
    if let Some(user) = &change.user {
        draft.personal("user", user)?;
    }
    draft.optional("agent", change.agent.as_ref())?;
    draft.optional("tenant", change.tenant.as_ref())?;
    draft.optional("grant_id", change.grant.as_ref())?;
    draft.optional("task_id", change.task.as_ref())?;
    draft.optional("run_id", change.run.as_ref())?;
    draft.personal("change", &change.change)?;
    Ok(draft)
}
