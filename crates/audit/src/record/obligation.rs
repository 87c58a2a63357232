//! What a decision obliges to, as records have it: on the line whose word it is and of what kind, beside it what it says,
//! because a rule may say anything of the call there. What was changed of an answer, and who was told, likewise.

use std::collections::BTreeMap;

use model::{
    Action, Duty, Id, Obligation, Principal, Tenant, Tool,
    id::{DecisionMark, Run},
    registry::Task,
};
use serde::{Deserialize, Serialize};

use super::kind;
use crate::{canonical::Unrecordable, values::Draft};

/// What was changed of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// How many values were made `null`.
    pub values: u64,
    /// How many at each place, as the obligations name it. A value that several name counts for each.
    pub places: BTreeMap<String, u64>,
}

/// Somebody is told of a call, because policy obliges to it.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The call.
    pub call: Id<DecisionMark>,
    /// Where it is told.
    pub channel: String,
    /// What is said.
    pub message: String,
    /// The obligation's code.
    pub code: String,
    /// The package that obliges to it.
    pub source: String,
    /// The user of the call.
    pub user: Option<Principal>,
    /// The agent that made it.
    pub agent: Option<Principal>,
    /// Its tenant.
    pub tenant: Option<Id<Tenant>>,
    /// Its run.
    pub run: Option<Id<Run>>,
    /// Its task.
    pub task: Option<Id<Task>>,
    /// The tool.
    pub tool: Option<Id<Tool>>,
    /// The action.
    pub action: Option<Id<Action>>,
}

/// An obligation as it stands on the line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenObligation {
    code: String,
    duty: String,
    source: String,
}

/// What it says, and what of it is for people.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ObligationWords {
    duty: Duty,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    internal: Option<String>,
}

impl From<&Obligation> for WrittenObligation {
    fn from(one: &Obligation) -> Self {
        Self { code: one.code.clone(), duty: one.duty.name().to_owned(), source: one.source.clone() }
    }
}

impl From<&Obligation> for ObligationWords {
    fn from(one: &Obligation) -> Self {
        Self { duty: one.duty.clone(), message: one.message.clone(), internal: one.internal.clone() }
    }
}

impl WrittenObligation {
    /// Both parts of it together again.
    pub(crate) fn with(self, words: ObligationWords) -> Obligation {
        let (Self { code, source, .. }, ObligationWords { duty, message, internal }) = (self, words);
        Obligation { code, message, internal, source, duty }
    }
}

/// The members of a settled record.
pub(super) fn altered(draft: &mut Draft, altered: &Altered) -> Result<(), Unrecordable> {
    draft.plain("altered", &true)?;
    draft.plain("redactions", &altered.values)?;
    draft.personal("redacted", &altered.places)
}

pub(super) fn notice(notice: &Notice) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::ALERT_RAISED)?;
    draft.plain("alert", &"policy_notice")?;
    draft.plain("call", &notice.call)?;
    draft.plain("channel", &notice.channel)?;
    draft.plain("code", &notice.code)?;
    draft.plain("source", &notice.source)?;
    draft.personal("message", &notice.message)?;
    if let Some(user) = &notice.user {
        draft.personal("user", user)?;
    }
    draft.optional("agent", notice.agent.as_ref())?;
    draft.optional("tenant", notice.tenant.as_ref())?;
    draft.optional("run_id", notice.run.as_ref())?;
    draft.optional("task_id", notice.task.as_ref())?;
    draft.optional("tool", notice.tool.as_ref())?;
    draft.optional("action", notice.action.as_ref())?;
    Ok(draft)
}
