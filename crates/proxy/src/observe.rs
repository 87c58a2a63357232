//! Observe mode (DESIGN §4): for an action that is only observed, what the guards, policy and limits would refuse is
//! written down and goes all the same. It waives nothing that says whose call it is, and nothing that was taken back.

use std::{collections::BTreeMap, sync::Arc};

use audit::record::{Mode, Observed, Waived};
use jiff::Timestamp;
use model::{Action, Code, Decision, Id, Refusal, Tool, Verdict};

use crate::{
    config::{ObserveConfig, ToolConfig},
    passthrough::Passthrough,
};

/// The actions that are only observed (their names are unique over all tools), and the tools whose calls are passed
/// through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    actions: BTreeMap<Id<Action>, Arc<Observation>>,
    passed: BTreeMap<Id<Tool>, Arc<Passthrough>>,
}

/// Who answers for it that an action is only observed, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The action's tool.
    pub tool: Id<Tool>,
    /// The accountable person.
    pub owner: String,
    /// From then on it is enforced.
    pub until: Timestamp,
}

impl Observations {
    /// Those that `tools` configure: an action's own word, else its tool's.
    pub fn of(tools: &BTreeMap<Id<Tool>, ToolConfig>) -> Self {
        let mut observed = BTreeMap::new();
        for (tool, config) in tools {
            for (name, action) in &config.actions {
                if let Some(ObserveConfig { owner, until }) = action.observe.as_ref().or(config.observe.as_ref()) {
                    let observation = Observation { tool: tool.clone(), owner: owner.clone(), until: *until };
                    observed.insert(name.clone(), Arc::new(observation));
                }
            }
        }
        Self { actions: observed, passed: BTreeMap::new() }
    }

    /// Calls of `tool` are passed through.
    pub(crate) fn pass(&mut self, tool: &Id<Tool>, passthrough: Passthrough) {
        self.passed.insert(tool.clone(), Arc::new(passthrough));
    }

    /// Whether calls of any tool are.
    pub(crate) fn passes_any(&self) -> bool {
        !self.passed.is_empty()
    }

    /// How calls of `tool` are passed through, also where that is over.
    pub(crate) fn passthrough(&self, tool: &Id<Tool>) -> Option<&Arc<Passthrough>> {
        self.passed.get(tool)
    }

    /// Each tool whose calls are passed through, also where that is over.
    pub fn passed(&self) -> impl Iterator<Item = (&Id<Tool>, &Passthrough)> {
        self.passed.iter().map(|(tool, passthrough)| (tool, &**passthrough))
    }

    /// Each action that is only observed, also where that is over.
    pub fn iter(&self) -> impl Iterator<Item = (&Id<Action>, &Observation)> {
        self.actions.iter().map(|(action, observation)| (action, &**observation))
    }

    /// What may be waived of a call of `action` at the moment `now`.
    pub(crate) fn waiver(&self, action: &Id<Action>, now: Timestamp) -> Waiver {
        let observation = self.actions.get(action).filter(|observation| now < observation.until);
        Waiver { observation: observation.cloned(), waived: Vec::new(), policy: None }
    }
}

/// What was waived of one call, in the order of its stages. Nothing, where its action is enforced.
#[derive(Debug, Default)]
pub(crate) struct Waiver {
    observation: Option<Arc<Observation>>,
    waived: Vec<Waived>,
    policy: Option<(Verdict, Option<Code>)>,
}

impl Waiver {
    /// Goes on without what `refusal` asks for, where the action is observed and that may be waived.
    ///
    /// # Errors
    /// The refusal, where it stands.
    pub(crate) fn waive(&mut self, stage: &'static str, refusal: Box<Refusal>) -> Result<(), Box<Refusal>> {
        if self.observation.is_none() || !is_waivable(refusal.code) {
            return Err(refusal);
        }
        self.waived.push(Waived { stage, refusal });
        Ok(())
    }

    /// What a stage came to, or `instead` where its refusal is waived.
    pub(crate) fn or<T>(
        &mut self,
        stage: &'static str,
        result: Result<T, Box<Refusal>>,
        instead: impl FnOnce() -> T,
    ) -> Result<T, Box<Refusal>> {
        match result {
            Ok(value) => Ok(value),
            Err(refusal) => self.waive(stage, refusal).map(|()| instead()),
        }
    }

    /// Policy's own answer, which was not followed.
    pub(crate) fn overruled(&mut self, decision: &Decision) {
        self.policy = Some((decision.verdict, decision.code));
    }

    /// What enforcing would have answered: the first refusal.
    pub(crate) fn would(&self) -> Option<Code> {
        self.waived.first().map(|waived| waived.refusal.code)
    }

    /// Whether the call is enforced.
    pub(crate) const fn mode(&self) -> Mode {
        if self.observation.is_some() { Mode::Observe } else { Mode::Enforce }
    }

    /// What goes on record of it; nothing where the action is enforced.
    pub(crate) fn on_record(self) -> Option<Box<Observed>> {
        let Self { observation, waived, policy } = self;
        observation.map(|observation| Box::new(Observed { until: observation.until, waived, policy }))
    }
}

/// Scope, limits, relations with the facts that would show them, stage, policy and approval: nothing else.
const fn is_waivable(code: Code) -> bool {
    matches!(
        code,
        Code::InsufficientScope
            | Code::LimitExceeded
            | Code::Velocity
            | Code::LimitUnavailable
            | Code::RelationUnproven
            | Code::FactsUnavailable
            | Code::Stage
            | Code::NoPolicy
            | Code::PolicyNoAllow
            | Code::PolicyDenied
            | Code::PolicyError
            | Code::PolicyBudget
            | Code::ObligationUnknown
            | Code::ApprovalRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observations {
        let observation = Observation {
            tool: Id::new("orders").unwrap(),
            owner: "dana@acme.example".to_owned(),
            until: "2026-12-01T00:00:00Z".parse().unwrap(),
        };
        let actions = [(Id::new("refunds.create").unwrap(), Arc::new(observation))].into();
        Observations { actions, passed: BTreeMap::new() }
    }

    fn waived(action: &str, now: &str, code: Code) -> bool {
        let mut waiver = observed().waiver(&Id::new(action).unwrap(), now.parse().unwrap());
        waiver.waive("guard", Box::new(Refusal::new(code, "no"))).is_ok()
    }

    #[test]
    fn only_what_is_observed_is_waived_and_only_until_its_end() {
        assert!(waived("refunds.create", "2026-11-30T23:59:59Z", Code::LimitExceeded));
        assert!(!waived("refunds.create", "2026-12-01T00:00:00Z", Code::LimitExceeded));
        assert!(!waived("orders.read", "2026-11-22T00:00:00Z", Code::LimitExceeded));
    }

    #[test]
    fn whose_call_it_is_and_what_was_taken_back_is_never_waived() {
        let never = [
            Code::NoCredential,
            Code::InvalidToken,
            Code::Expired,
            Code::WrongAudience,
            Code::WrongSender,
            Code::Withdrawn,
            Code::Impersonation,
            Code::RobotUser,
            Code::UnknownAgent,
            Code::AgentSuspended,
            Code::TaskEnded,
            Code::TenantMismatch,
            Code::UnknownTool,
            Code::UnmappedAction,
            Code::Entitlement,
            Code::Chain,
            Code::Malformed,
            Code::BodyTooLarge,
            Code::AuthorityStale,
            Code::LedgerUnavailable,
            Code::KeysUnavailable,
            Code::CredentialUnavailable,
            Code::Overloaded,
            Code::ToolUnreachable,
            Code::ToolTimeout,
        ];
        for code in never {
            assert!(!waived("refunds.create", "2026-11-22T00:00:00Z", code), "{code}");
        }
    }
}
