//! decide: is every relation proved, and what does policy say? Proof comes first: what a delegation demands is
//! not policy's to waive. On success the answer and the whole question are [`Decided`].

mod lane;

use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Code, Decision, Delegation, Element, Facts, Limits, Principal, Question, Refusal, Verdict, fact,
    limits::{Claim, claims},
    obligation,
    question::LimitState,
};
use policy::{Engine, Written};

use crate::{
    admit::Admitted,
    candidate::{Answered, Beside},
    facts::Read,
    guard::{Bounds, Candidates},
    obligations::{notice::Notices, within_reach},
    observe::Waiver,
    reserve,
    resolve::Call,
    snapshot::Snapshot,
};

pub(crate) use lane::Lanes;

/// A call that neither guards nor policy deny, or whose denial is waived.
#[derive(Debug)]
pub(crate) struct Decided {
    question: Arc<Question>,
    claims: Vec<Claim>,
    decision: Decision,
    needs_approval: bool,
}

impl Decided {
    /// Everything the decision rests on.
    pub(crate) fn question(&self) -> &Arc<Question> {
        &self.question
    }

    /// What the call is charged against cumulative limits.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// What policy said: permit, or approval required; a denial where that is waived.
    pub(crate) fn decision(&self) -> &Decision {
        &self.decision
    }

    /// Whether a person has to say yes, by stage or by policy.
    pub(crate) fn needs_approval(&self) -> bool {
        self.needs_approval || self.decision.verdict == Verdict::ApprovalRequired
    }
}

/// The question, and whether every relation that the delegation demands is shown.
#[derive(Debug)]
pub(crate) struct Asked {
    question: Arc<Question>,
    claims: Vec<Claim>,
    written: Written,
    unproven: Option<Box<Refusal>>,
}

impl Asked {
    /// Everything the decision rests on, also where a relation is not shown: the record needs the facts then.
    pub(crate) fn question(&self) -> &Arc<Question> {
        &self.question
    }

    #[cfg(test)]
    pub(crate) fn in_test(question: Question, policy: &Engine) -> Self {
        Self { written: policy.write(&question), question: Arc::new(question), claims: Vec::new(), unproven: None }
    }

    /// The same as the record commits to it.
    pub(crate) fn written(&self) -> &Written {
        &self.written
    }

    /// The question as policy may be asked it.
    pub(crate) fn proved(self, waiver: &mut Waiver) -> Result<Proved, Box<Refusal>> {
        let Self { question, claims, written, unproven } = self;
        if let Some(unproven) = unproven {
            waiver.waive("decide", unproven)?;
        }
        Ok(Proved { question, claims, written })
    }
}

/// A question with every relation proved, or waived.
#[derive(Debug)]
pub(crate) struct Proved {
    question: Arc<Question>,
    claims: Vec<Claim>,
    written: Written,
}

/// What a question is put with, besides the call itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) policy: &'a Engine,
    /// What is held of cumulative limits, where an authority counts them.
    pub(crate) limits: Option<&'a reserve::Limits>,
    pub(crate) now: Timestamp,
}

/// Puts the question together, proving the relations of one element for each authority.
pub(crate) fn ask(admitted: &Admitted, call: &Call<'_>, bounds: &Bounds<'_>, facts: Read, known: Known<'_>) -> Asked {
    let Known { policy, limits, now } = known;
    let delegation = admitted.delegation();
    let authority = limits.map(reserve::Limits::authority);
    let charged = proved(delegation, bounds.candidates(), facts.facts())
        .and_then(|held| claims(delegation, held, &call.facts.parameters, authority).map_err(uncountable));
    let (claims, unproven) = match charged {
        Ok(claims) => (claims, None),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let state = |claim: &Claim| LimitState {
        name: claim.key.name.clone(),
        max: claim.limit.max.clone(),
        used: limits.and_then(|limits| limits.used(claim, now)).map(|units| claim.limit.amount(units)),
        window: claim.limit.window,
        hop: claim.hop,
    };
    let question = Question {
        id: call.outgoing.arrival.id.clone(),
        now,
        request: call.request.clone(),
        call: call.facts.clone(),
        delegation: Arc::clone(delegation),
        agent: Arc::clone(bounds.agent()),
        limits: claims.iter().map(state).collect(),
        facts: facts.into_facts(),
    };
    let written = policy.write(&question);
    Asked { question: Arc::new(question), claims, written, unproven }
}

/// Asks policy.
pub(crate) async fn decide(
    proved: Proved,
    bounds: &Bounds<'_>,
    snapshot: &Snapshot,
    beside: &Beside,
    notices: &Notices,
    waiver: &mut Waiver,
) -> Result<Decided, (Box<Refusal>, Decision)> {
    let Proved { question, claims, written } = proved;
    let decision = match snapshot.policy.recall(&question, &written) {
        Some(known) => known,
        None => {
            let decide = || snapshot.policy.decide_written(&question, &written);
            snapshot.lanes.run(&question.call.action, decide).await.map_err(|refusal| {
                let none = Decision {
                    verdict: Verdict::Deny,
                    code: Some(refusal.code),
                    reasons: Vec::new(),
                    obligations: Vec::new(),
                };
                (refusal, none)
            })?
        }
    };
    beside.offer(&Answered {
        policy: &snapshot.policy,
        question: &question,
        written: &written,
        decision: &decision,
        by_stage: bounds.needs_approval(),
    });
    let obligations = decision.obligations.clone();
    let mut decision = within_reach(decision, &snapshot.listener, notices);
    if decision.verdict == Verdict::Deny {
        let mut refusal = denied(decision.code.unwrap_or(Code::PolicyDenied), &decision);
        refusal.allowed = obligation::allowed(&decision.obligations, &question);
        if let Err(refusal) = waiver.waive("decide", refusal) {
            return Err((refusal, decision));
        }
        // What is out of reach here is waived; the others are on record beside it, as they are without it.
        decision.obligations = obligations;
    }
    Ok(Decided { question, claims, decision, needs_approval: bounds.needs_approval() })
}

/// For each authority, one element all of whose relations the facts prove. Of several the one that charges no
/// cumulative limit is taken. Returns the limits of those that have some, with whose they are.
pub(crate) fn proved<'d>(
    delegation: &Delegation,
    candidates: &[Candidates<'d>],
    facts: &Facts,
) -> Result<Vec<(usize, &'d Principal, &'d Limits)>, Box<Refusal>> {
    let chain = &delegation.chain;
    let first = chain.agents().next().unwrap_or_else(|| chain.agent());
    let known = |agent| fact::Known { user: &chain.user().principal, agent, tenant: delegation.tenant.as_str() };
    let mut charged = Vec::new();
    for candidate in candidates {
        // `$agent` is whoever holds the authority, and for the user's grant the agent it was given to: a helper is
        // not let through because it is itself what its parent would have had to be.
        let known = known(if candidate.hop == 0 { &first.principal } else { candidate.principal });
        let holds =
            |element: &&&Element| element.relations.iter().all(|(fact, value)| facts.prove(fact, value, &known));
        let element = candidate
            .elements
            .iter()
            .filter(holds)
            .min_by_key(|element| element.limits.cumulative().count())
            .ok_or_else(|| unproven(candidate))?;
        if element.limits.cumulative().next().is_some() {
            charged.push((candidate.hop, candidate.principal, &element.limits));
        }
    }
    Ok(charged)
}

/// The guard has seen that each element can be charged.
fn uncountable((_, name): (usize, String)) -> Box<Refusal> {
    Box::new(Refusal::new(Code::LimitExceeded, format!("The call cannot be charged to the limit `{name}`.")))
}

fn unproven(candidate: &Candidates<'_>) -> Box<Refusal> {
    let wanted: Vec<String> = candidate
        .elements
        .iter()
        .map(|element| {
            let relations = element.relations.iter().map(|(fact, value)| format!("{fact} = {value}"));
            relations.collect::<Vec<_>>().join(" and ")
        })
        .collect();
    let wanted = wanted.join(", or ");
    let mut refused = Refusal::new(
        Code::RelationUnproven,
        format!("`{}` may do this only where {wanted}, which the facts do not show.", candidate.principal),
    );
    refused.limiting_hop = Some(candidate.principal.to_string());
    Box::new(refused)
}

/// Policy's denial as a refusal. The agent is told what the rules mean it to hear.
fn denied(code: Code, decision: &Decision) -> Box<Refusal> {
    let detail = decision.reasons.iter().find_map(|reason| reason.message.as_deref());
    let mut refused = Refusal::new(code, detail.unwrap_or(code.entry().meaning));
    if let Some(retry) = decision.reasons.iter().find_map(|reason| reason.retry) {
        refused.retry = retry;
    }
    refused.reasons.clone_from(&decision.reasons);
    Box::new(refused)
}

#[cfg(test)]
mod tests;
