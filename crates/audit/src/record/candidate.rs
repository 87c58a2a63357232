//! Records of a policy candidate beside what decides: its coming and going, where it would have answered otherwise, and of
//! how many calls that was asked. What others answered is on no record of theirs: nothing is written of agreement.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Action, Code, Decision, Id, Principal, Task, Tenant, Tool, Verdict,
    id::{DecisionMark, Run},
};
use serde::Serialize;

use super::{ActivatedBundle, ObligationWords, Words, WrittenObligation, WrittenReason, kind};
use crate::{canonical::Unrecordable, values::Draft};

/// A candidate is asked from now on, or no longer.
#[derive(Debug, Clone)]
pub struct PolicyCandidate {
    /// The revision of what it would come to: what decides, with the candidates in the place of their namesakes.
    pub revision: String,
    /// The revision of what decides beside it.
    pub active: String,
    /// Whether it is no longer asked.
    pub ended: bool,
    /// The packages that it has in their place.
    pub packages: Vec<String>,
    /// Of a hundred calls, about how many it is asked.
    pub percent: u8,
    /// The bundles among its own.
    pub bundles: Vec<ActivatedBundle>,
}

/// Where a candidate would have answered otherwise.
#[derive(Debug, Clone)]
pub struct PolicyDiffered {
    /// The kind of difference, as a replay names it.
    pub change: &'static str,
    /// The tool.
    pub tool: Id<Tool>,
    /// The action.
    pub action: Id<Action>,
    /// What was decided, and by which revision.
    pub active: (String, Decision),
    /// What the candidate says, and its revision.
    pub candidate: (String, Decision),
    /// Of which calls.
    pub of: Differed,
}

/// The calls that a difference is of.
#[derive(Debug, Clone)]
pub enum Differed {
    /// One.
    Call(Box<DifferedCall>),
    /// Further ones that are alike: too many for a record each.
    More {
        /// How many.
        count: u64,
        /// When the first of them was decided.
        from: Timestamp,
        /// When the last was.
        to: Timestamp,
        /// The first of them.
        first: Id<DecisionMark>,
    },
}

/// A call that a candidate would have answered otherwise.
#[derive(Debug, Clone)]
pub struct DifferedCall {
    /// Its decision.
    pub id: Id<DecisionMark>,
    /// The user.
    pub user: Principal,
    /// The agent that called.
    pub agent: Principal,
    /// The tenant.
    pub tenant: Id<Tenant>,
    /// The run.
    pub run: Id<Run>,
    /// The task.
    pub task: Option<Id<Task>>,
}

/// Of how many calls a candidate was asked in some time.
#[derive(Debug, Clone)]
pub struct PolicyCompared {
    /// The candidate's revision.
    pub candidate: String,
    /// The revision of what decided.
    pub active: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Calls of which it was not asked, because it is too slow for them.
    pub dropped: u64,
    /// Differences that are in no record but this one.
    pub unrecorded: u64,
    /// How many of each action.
    pub actions: BTreeMap<Id<Action>, Compared>,
}

/// Calls of one action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Of which it was asked.
    pub compared: u64,
    /// Of those, how many it would have answered otherwise.
    pub differed: u64,
}

/// An answer as it stands on the line: codes and packages, no words.
#[derive(Serialize)]
struct Answered<'a> {
    revision: &'a str,
    decision: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    reasons: Vec<WrittenReason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obligations: Vec<WrittenObligation>,
}

impl<'a> From<&'a (String, Decision)> for Answered<'a> {
    fn from((revision, decision): &'a (String, Decision)) -> Self {
        let reasons = decision.reasons.iter().map(WrittenReason::from).collect();
        let obligations = decision.obligations.iter().map(WrittenObligation::from).collect();
        Self { revision, decision: decision.verdict, code: decision.code, reasons, obligations }
    }
}

pub(super) fn candidate(candidate: &PolicyCandidate) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::POLICY_CANDIDATE)?;
    draft.plain("candidate", &candidate.revision)?;
    draft.plain("active", &candidate.active)?;
    draft.plain("state", if candidate.ended { &"ended" } else { &"begun" })?;
    draft.plain("packages", &candidate.packages)?;
    draft.plain("percent", &candidate.percent)?;
    draft.optional("bundles", (!candidate.bundles.is_empty()).then_some(&candidate.bundles))?;
    Ok(draft)
}

pub(super) fn differed(differed: &PolicyDiffered) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::POLICY_DIFFERED)?;
    draft.plain("change", &differed.change)?;
    draft.plain("tool", &differed.tool)?;
    draft.plain("action", &differed.action)?;
    draft.plain("active", &Answered::from(&differed.active))?;
    draft.plain("candidate", &Answered::from(&differed.candidate))?;
    match &differed.of {
        Differed::Call(call) => {
            draft.plain("decision_id", &call.id)?;
            draft.personal("user", &call.user)?;
            draft.plain("agent", &call.agent)?;
            draft.plain("tenant", &call.tenant)?;
            draft.plain("run_id", &call.run)?;
            draft.optional("task_id", call.task.as_ref())?;
            let reasons = &differed.candidate.1.reasons;
            if reasons.iter().any(|reason| reason.message.is_some() || reason.internal.is_some()) {
                draft.personal("explanation", &reasons.iter().map(Words::from).collect::<Vec<_>>())?;
            }
            let obligations = &differed.candidate.1.obligations;
            if !obligations.is_empty() {
                draft.personal("obliged", &obligations.iter().map(ObligationWords::from).collect::<Vec<_>>())?;
            }
        }
        Differed::More { count, from, to, first } => {
            draft.plain("count", count)?;
            draft.plain("from", from)?;
            draft.plain("to", to)?;
            draft.plain("first", first)?;
        }
    }
    Ok(draft)
}

pub(super) fn compared(compared: &PolicyCompared) -> Result<Draft, Unrecordable> {
    let sum = |of: fn(&Compared) -> u64| compared.actions.values().map(of).sum::<u64>();
    let mut draft = Draft::new(kind::POLICY_COMPARED)?;
    draft.plain("candidate", &compared.candidate)?;
    draft.plain("active", &compared.active)?;
    draft.plain("from", &compared.from)?;
    draft.plain("to", &compared.to)?;
    draft.plain("compared", &sum(|one| one.compared))?;
    draft.plain("differed", &sum(|one| one.differed))?;
    draft.plain("dropped", &compared.dropped)?;
    draft.optional("unrecorded", (compared.unrecorded > 0).then_some(&compared.unrecorded))?;
    draft.plain("actions", &compared.actions)?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use model::{PrincipalKind, Reason};

    use super::*;

    fn decision(verdict: Verdict, code: Option<Code>, rule: &str) -> Decision {
        let reason = Reason {
            code: rule.to_owned(),
            message: Some("Alice's order is too old.".to_owned()),
            internal: None,
            retry: None,
            source: "countersign.teams.support".to_owned(),
        };
        Decision { verdict, code, reasons: vec![reason], obligations: Vec::new() }
    }

    fn principal(kind: PrincipalKind, id: &str) -> Principal {
        Principal { kind, id: Id::new(id).unwrap(), issuer: "https://sso.example".to_owned(), tenant: None }
    }

    #[test]
    fn a_difference_says_both_answers_in_codes_and_nothing_personal_on_its_line() {
        let call = DifferedCall {
            id: Id::new("L1.0198f3a2-7d1e-7000-8000-000000000001").unwrap(),
            user: principal(PrincipalKind::User, "alice"),
            agent: principal(PrincipalKind::Agent, "support-v1"),
            tenant: Id::new("acme").unwrap(),
            run: Id::new("run-1").unwrap(),
            task: None,
        };
        let record = PolicyDiffered {
            change: "new_denial",
            tool: Id::new("orders").unwrap(),
            action: Id::new("refunds.create").unwrap(),
            active: ("one".to_owned(), decision(Verdict::Permit, None, "covered")),
            candidate: ("two".to_owned(), decision(Verdict::Deny, Some(Code::PolicyDenied), "too_late")),
            of: Differed::Call(Box::new(call)),
        };
        let mut draft = differed(&record).unwrap();
        let line = draft.line(1, Timestamp::UNIX_EPOCH, &[0; 32]).unwrap();
        assert!(!line.to_lowercase().contains("alice"), "{line}");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["active"]["decision"], "permit");
        assert_eq!(said["candidate"]["code"], "policy_denied");
        assert_eq!(said["candidate"]["reasons"][0]["code"], "too_late");
        let row = draft.row(1).unwrap().unwrap();
        assert!(row.contains("alice") && row.contains("too old"), "{row}");
    }

    #[test]
    fn what_was_compared_is_summed_up_over_all_actions() {
        let action = |name: &str| Id::new(name).unwrap();
        let record = PolicyCompared {
            candidate: "two".to_owned(),
            active: "one".to_owned(),
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            dropped: 3,
            unrecorded: 0,
            actions: BTreeMap::from([
                (action("orders.read"), Compared { compared: 5, differed: 0 }),
                (action("refunds.create"), Compared { compared: 2, differed: 1 }),
            ]),
        };
        let line = compared(&record).unwrap().line(1, Timestamp::UNIX_EPOCH, &[0; 32]).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&said["compared"], &said["differed"], &said["dropped"]), (&7.into(), &1.into(), &3.into()));
        assert!(said.get("unrecorded").is_none() && said["actions"]["refunds.create"]["differed"] == 1, "{line}");
    }
}
