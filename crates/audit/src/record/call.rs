//! `call.decided` and `call.settled`: how their members are written, and read back without loss.

use std::sync::Arc;

use jiff::Timestamp;
use model::{
    Agent, Amount, Code, Delegation, Facts, Id, Parameters, Question, Reason, Retry, Verdict,
    amount::Money,
    id::DecisionMark,
    limits::Window,
    question::{Call, LimitState, RequestFacts},
};
use serde::{Deserialize, Serialize};

use super::{
    Body, CallDecided, CallSettled, Digest, Mode, Observed, Partial, Subject, Waived,
    charge::WrittenCharge,
    kind, obligation,
    obligation::{ObligationWords, WrittenObligation},
    passed,
};
use crate::{canonical::Unrecordable, values::Draft};

/// What is said of a refusal, in words that may name anything. Personal.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Explanation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) internal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limiting_hop: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allowed: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing_scope: Vec<String>,
    /// For each reason on the line its words, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<Words>,
    /// For each obligation on the line what it says, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) obligations: Vec<ObligationWords>,
}

/// The words of one reason.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Words {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) internal: Option<String>,
}

/// A reason as it stands on the line: codes and packages, no words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenReason {
    pub(crate) code: String,
    pub(crate) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry: Option<Retry>,
}

/// What enforcing would have done, in codes: the words of the first are in the explanation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenObserved {
    /// The rung of the ladder that an observed action stands on: delegated, policy observed.
    rung: u8,
    until: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waived: Vec<WrittenWaived>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<WrittenVerdict>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenWaived {
    stage: String,
    code: Code,
}

/// Policy's own answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenVerdict {
    pub(crate) decision: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Code>,
}

impl From<&Observed> for WrittenObserved {
    fn from(observed: &Observed) -> Self {
        let waived = |waived: &Waived| WrittenWaived { stage: waived.stage.to_owned(), code: waived.refusal.code };
        Self {
            rung: Mode::Observe.rung(),
            until: observed.until,
            waived: observed.waived.iter().map(waived).collect(),
            policy: observed.policy.map(|(decision, code)| WrittenVerdict { decision, code }),
        }
    }
}

/// base64url SHA-256 of what the record does not hold. Personal, because a digest of little can be guessed.
#[derive(Debug, Serialize)]
struct Digests {
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
}

/// A limit's state, exact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenLimit {
    name: String,
    max: WrittenAmount,
    used: Option<WrittenAmount>,
    window: String,
    hop: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAmount {
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

/// The record of a decision.
pub(crate) fn decided(record: &CallDecided) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::CALL_DECIDED)?;
    match &record.subject {
        Subject::Question(question) => question_members(&mut draft, question)?,
        Subject::Partial(partial) => partial_members(&mut draft, partial)?,
        Subject::Passed(passed) => {
            partial_members(&mut draft, &passed.partial)?;
            passed::members(&mut draft, passed)?;
        }
    }
    decision_members(&mut draft, record)?;
    if let Some(trace) = &record.trace {
        draft.plain("trace_id", &trace.trace_id)?;
        draft.plain("span_id", &trace.span_id)?;
    }
    if let Some(charge) = &record.charge {
        draft.plain("charge", &WrittenCharge::from(charge))?;
    }
    digest_members(&mut draft, record)?;
    draft.plain("revisions", &record.revisions)?;
    draft.optional("identity_mode", record.identity_mode.as_ref())?;
    draft.plain("entry", &record.entry)?;
    draft.plain("mode", &record.mode())?;
    draft.plain("rung", &record.mode().rung())?;
    if let Some(observed) = &record.observed {
        draft.plain("observed", &WrittenObserved::from(&**observed))?;
    }
    draft.plain("stage_reached", &record.stage_reached)?;
    draft.plain("timings", &record.timings)?;
    Ok(draft)
}

/// What is not kept: one commitment to both digests.
fn digest_members(draft: &mut Draft, record: &CallDecided) -> Result<(), Unrecordable> {
    let mut digests = Digests { input: record.input_digest.as_ref().map(Digest::text), body: None };
    match &record.body {
        Body::Unseen => draft.plain("body", &"unseen")?,
        Body::Read(digest) => digests.body = Some(digest.text()),
    }
    let none = digests.input.is_none() && digests.body.is_none();
    if none { Ok(()) } else { draft.personal("digests", &digests) }
}

fn question_members(draft: &mut Draft, question: &Question) -> Result<(), Unrecordable> {
    draft.plain("decision_id", &question.id)?;
    draft.plain("now", &question.now)?;
    delegation_members(draft, &question.delegation)?;
    request_members(draft, &question.request)?;
    let call = &question.call;
    draft.plain("tool", &call.tool)?;
    draft.plain("action", &call.action)?;
    draft.plain("effect", &call.effect)?;
    draft.personal("resource", &call.resource)?;
    parameters_member(draft, &call.parameters)?;
    // Absent means empty; what was erased leaves its commitment.
    if !question.facts.0.is_empty() {
        draft.personal("facts", &question.facts)?;
    }
    if !question.limits.is_empty() {
        let limits: Vec<WrittenLimit> = question.limits.iter().map(WrittenLimit::from).collect();
        draft.plain("limits", &limits)?;
    }
    Ok(())
}

fn partial_members(draft: &mut Draft, partial: &Partial) -> Result<(), Unrecordable> {
    draft.plain("decision_id", &partial.id)?;
    draft.plain("now", &partial.now)?;
    draft.plain("partial", &true)?;
    if let Some(delegation) = &partial.delegation {
        delegation_members(draft, delegation)?;
    } else {
        if let Some(user) = &partial.user {
            draft.personal("user", user)?;
        }
        draft.optional("agent", partial.agent.as_ref())?;
        draft.optional("tenant", partial.tenant.as_ref())?;
        draft.optional("run_id", partial.run.as_ref())?;
        draft.optional("task_id", partial.task.as_ref())?;
    }
    if let Some(request) = &partial.request {
        request_members(draft, request)?;
    }
    draft.optional("tool", partial.tool.as_ref())?;
    draft.optional("action", partial.action.as_ref())?;
    draft.optional("effect", partial.effect.as_ref())?;
    if let Some(resource) = &partial.resource {
        draft.personal("resource", resource)?;
    }
    if let Some(parameters) = &partial.parameters {
        parameters_member(draft, parameters)?;
    }
    Ok(())
}

/// What queries look for and a person wants to see; the whole delegation is in `token.seen`.
fn delegation_members(draft: &mut Draft, delegation: &Delegation) -> Result<(), Unrecordable> {
    draft.plain("token", &delegation.token.digest)?;
    draft.personal("user", &delegation.chain.user().principal)?;
    draft.plain("agent", &delegation.chain.agent().principal)?;
    let agents: Vec<_> = delegation.chain.agents().map(|hop| &hop.principal.id).collect();
    if agents.len() > 1 {
        draft.plain("agents", &agents)?;
    }
    draft.plain("tenant", &delegation.tenant)?;
    draft.plain("run_id", &delegation.run)?;
    draft.optional("task_id", delegation.task.id.as_ref())?;
    draft.optional("grant_id", delegation.grant.as_ref())?;
    draft.plain("sender", &delegation.sender)
}

fn request_members(draft: &mut Draft, request: &RequestFacts) -> Result<(), Unrecordable> {
    draft.plain("protocol", &request.protocol)?;
    draft.plain("method", &request.method)?;
    draft.personal("path", &request.path)?;
    if request.headers.is_empty() { Ok(()) } else { draft.personal("headers", &request.headers) }
}

fn parameters_member(draft: &mut Draft, parameters: &Parameters) -> Result<(), Unrecordable> {
    if parameters.iter().next().is_none() { Ok(()) } else { draft.personal("parameters", parameters) }
}

fn decision_members(draft: &mut Draft, record: &CallDecided) -> Result<(), Unrecordable> {
    let decision = &record.decision;
    draft.plain("decision", &decision.verdict)?;
    draft.optional("code", decision.code.as_ref())?;
    let reasons: Vec<WrittenReason> = decision.reasons.iter().map(WrittenReason::from).collect();
    if !reasons.is_empty() {
        draft.plain("reasons", &reasons)?;
    }
    if !decision.obligations.is_empty() {
        let obligations: Vec<_> = decision.obligations.iter().map(WrittenObligation::from).collect();
        draft.plain("obligations", &obligations)?;
    }
    let worded = |reason: &Reason| reason.message.is_some() || reason.internal.is_some();
    let mut explanation = Explanation::default();
    if decision.reasons.iter().any(worded) {
        explanation.reasons = decision.reasons.iter().map(Words::from).collect();
    }
    explanation.obligations = decision.obligations.iter().map(ObligationWords::from).collect();
    let waived = || record.observed.as_ref()?.waived.first().map(|waived| &waived.refusal);
    if let Some(refusal) = record.refusal.as_ref().or_else(waived) {
        explanation.detail = Some(refusal.detail.clone());
        explanation.internal = refusal.internal.clone();
        explanation.limiting_hop = refusal.limiting_hop.clone();
        explanation.allowed = refusal.allowed.clone();
        explanation.missing_scope = refusal.missing_scope.iter().map(ToString::to_string).collect();
    } else if explanation.reasons.is_empty() && explanation.obligations.is_empty() {
        return Ok(());
    }
    draft.personal("explanation", &explanation)
}

/// The record of what became of a call.
pub(crate) fn settled(record: &CallSettled) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::CALL_SETTLED)?;
    draft.plain("decision_id", &record.id)?;
    draft.plain("outcome", &record.outcome)?;
    draft.optional("status", record.status.as_ref())?;
    draft.optional("code", record.code.as_ref())?;
    draft.plain("sent", &record.sent)?;
    draft.optional("charge", record.charge.as_ref())?;
    if let Some(altered) = &record.altered {
        obligation::altered(&mut draft, altered)?;
    }
    draft.optional("withheld", record.withheld.as_ref())?;
    draft.plain("request_bytes", &record.request_bytes)?;
    draft.plain("response_bytes", &record.response_bytes)?;
    if let Some(digest) = &record.body {
        draft.personal("body", &digest.text())?;
    }
    if !record.timings.is_empty() {
        draft.plain("timings", &record.timings)?;
    }
    Ok(draft)
}

/// The record that closes a call whose end nobody recorded before the program stopped.
pub(crate) fn settled_unknown(id: &str) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::CALL_SETTLED)?;
    draft.plain("decision_id", &id)?;
    draft.plain("outcome", &super::Outcome::Unknown)?;
    Ok(draft)
}

impl From<&Reason> for Words {
    fn from(reason: &Reason) -> Self {
        Self { message: reason.message.clone(), internal: reason.internal.clone() }
    }
}

impl From<&Reason> for WrittenReason {
    fn from(reason: &Reason) -> Self {
        Self { code: reason.code.clone(), source: reason.source.clone(), retry: reason.retry }
    }
}

impl From<&LimitState> for WrittenLimit {
    fn from(state: &LimitState) -> Self {
        Self {
            name: state.name.clone(),
            max: WrittenAmount::from(&state.max),
            used: state.used.as_ref().map(WrittenAmount::from),
            window: state.window.to_string(),
            hop: u32::try_from(state.hop).unwrap_or(u32::MAX),
        }
    }
}

impl From<&Amount> for WrittenAmount {
    fn from(amount: &Amount) -> Self {
        Self { text: amount.text(), currency: amount.currency().map(str::to_owned) }
    }
}

impl WrittenLimit {
    fn read(self) -> Result<LimitState, String> {
        Ok(LimitState {
            name: self.name,
            max: self.max.read()?,
            used: self.used.map(WrittenAmount::read).transpose()?,
            window: self.window.parse::<Window>().map_err(|error| error.to_string())?,
            hop: usize::try_from(self.hop).map_err(|error| error.to_string())?,
        })
    }
}

impl WrittenAmount {
    fn read(self) -> Result<Amount, String> {
        match self.currency {
            Some(currency) => Money::from_major(&self.text, &currency).map(Amount::Money),
            None => self.text.parse().map(Amount::Number),
        }
        .map_err(|error| error.to_string())
    }
}

/// What [`question`] reads back; the member names of the record.
#[derive(Debug, Deserialize)]
struct WrittenQuestion {
    decision_id: Id<DecisionMark>,
    now: Timestamp,
    protocol: model::question::Protocol,
    method: String,
    path: model::CanonicalPath,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    tool: Id<model::Tool>,
    action: Id<model::Action>,
    effect: model::Effect,
    resource: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    facts: Facts,
    #[serde(default)]
    limits: Vec<WrittenLimit>,
}

/// The question that a `call.decided` record was made from, given its members with their companion values.
pub(crate) fn question(
    fields: &serde_json::Map<String, serde_json::Value>,
    delegation: Arc<Delegation>,
    agent: Arc<Agent>,
) -> Result<Question, String> {
    let written = WrittenQuestion::deserialize(fields).map_err(|error| error.to_string())?;
    Ok(Question {
        id: written.decision_id,
        now: written.now,
        request: RequestFacts {
            protocol: written.protocol,
            method: written.method,
            path: written.path,
            headers: written.headers,
        },
        call: Call {
            tool: written.tool,
            action: written.action,
            effect: written.effect,
            resource: written.resource,
            parameters: written.parameters,
        },
        delegation,
        agent,
        limits: written.limits.into_iter().map(WrittenLimit::read).collect::<Result<_, _>>()?,
        facts: written.facts,
    })
}
