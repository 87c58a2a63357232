//! Deciding cases, each as it is and again without each of its optional parts: whatever is missing may make a decision
//! stricter, never more permissive.

use std::collections::BTreeSet;

use model::{Decision, Verdict, obligation::holds_as_much};

use super::{
    build::{Built, said},
    without,
};
use crate::Engine;

/// What became of a case.
#[derive(Debug, Clone)]
pub struct CaseOutcome {
    /// The decision.
    pub decision: Decision,
    /// Why it did not pass; nothing, where it did.
    pub failures: Vec<String>,
    /// What was more permissive without some part, acknowledged or not.
    pub loosened: Vec<Loosened>,
}

/// A decision that was more permissive without some part of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loosened {
    /// The part: `facts.order.status`.
    pub without: String,
    /// What was decided then.
    pub decision: Decision,
    /// Why that is right, as the case has it.
    pub acknowledged: Option<String>,
}

/// Decides `case` by `engine`.
#[must_use]
pub fn run(engine: &Engine, case: &Built) -> CaseOutcome {
    let decision = engine.decide(&case.question);
    let mut failures: Vec<String> = case.differs(&decision).into_iter().collect();
    let mut loosened = Vec::new();
    for (without, question) in without::each(&case.question, case.action.as_ref()) {
        let other = engine.decide(&question);
        if looser(&other, &decision) {
            let acknowledged = case.acknowledged.get(&without).cloned();
            loosened.push(Loosened { without, decision: other, acknowledged });
        }
    }
    for Loosened { without, decision: other, .. } in loosened.iter().filter(|one| one.acknowledged.is_none()) {
        let from =
            if other.verdict == decision.verdict { said(&decision) } else { decision.verdict.as_str().to_owned() };
        let to = said(other);
        failures.push(format!(
            "without `{without}` it is more permissive: {to}, instead of {from}. Guard the rule, or say why that is \
             right in `more_permissive_without`"
        ));
    }
    let found: BTreeSet<&str> = loosened.iter().map(|one| one.without.as_str()).collect();
    for name in case.acknowledged.keys().filter(|name| !found.contains(name.as_str())) {
        failures.push(format!("`more_permissive_without` names `{name}`, without which nothing is more permissive"));
    }
    CaseOutcome { decision, failures, loosened }
}

/// Whether `other` lets a call go further than `decision`, or with less that it is held to.
fn looser(other: &Decision, decision: &Decision) -> bool {
    let same = other.verdict == decision.verdict && decision.verdict != Verdict::Deny;
    freedom(other) > freedom(decision) || (same && !holds_as_much(&other.obligations, &decision.obligations))
}

/// How far a decision lets a call go.
const fn freedom(decision: &Decision) -> u8 {
    match decision.verdict {
        Verdict::Deny => 0,
        Verdict::ApprovalRequired => 1,
        Verdict::Permit => 2,
    }
}
