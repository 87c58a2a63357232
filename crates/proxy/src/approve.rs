//! approve: does a person have to say yes? Nobody can be asked yet, so what needs a yes is refused, and says so.
//! On success the call is the [`Permit`]'s, and goes at most once.

use std::sync::Arc;

use audit::record::Mode;
use model::{Code, Decision, Question, Refusal, Retry, Verdict, limits::Claim};

use crate::{decide::Decided, obligations::Duties, observe::Waiver, resolve::Call};

/// A call that may go. It owns the call: what was decided is what is sent, once.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    call: Call<'a>,
    question: Arc<Question>,
    claims: Vec<Claim>,
    decision: Decision,
    duties: Option<Box<Duties>>,
}

impl<'a> Permit<'a> {
    pub(crate) const fn call(&self) -> &Call<'a> {
        &self.call
    }

    pub(crate) fn question(&self) -> &Arc<Question> {
        &self.question
    }

    /// What the call is charged against cumulative limits.
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.claims
    }

    pub(crate) fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The call, and what is obliged to of its answer.
    pub(crate) fn into_call(self) -> (Call<'a>, Option<Box<Duties>>) {
        (self.call, self.duties)
    }
}

/// Refuses what needs a person's yes, unless that is waived.
pub(crate) fn approve<'a>(call: Call<'a>, decided: &Decided, waiver: &mut Waiver) -> Result<Permit<'a>, Box<Refusal>> {
    if decided.needs_approval() {
        let detail = match decided.decision().reasons.iter().find_map(|reason| reason.message.as_deref()) {
            Some(message) => message.to_owned(),
            None => "A person has to approve this call, and this sidecar cannot ask one.".to_owned(),
        };
        let mut refused = Refusal::new(Code::ApprovalRequired, detail);
        // No approval can be asked for here: only another stage, grant or policy helps.
        refused.retry = Retry::AfterChange;
        refused.reasons.clone_from(&decided.decision().reasons);
        waiver.waive("approve", Box::new(refused))?;
    }
    let (question, mut decision) = (Arc::clone(decided.question()), decided.decision().clone());
    if decision.verdict != Verdict::Permit {
        waiver.overruled(&decision);
        (decision.verdict, decision.code) = (Verdict::Permit, None);
    }
    // What is only observed is let through as it would be without policy.
    let duties = if waiver.mode() == Mode::Enforce { Duties::of(&decision) } else { None };
    Ok(Permit { call, question, claims: decided.claims().to_vec(), decision, duties })
}
