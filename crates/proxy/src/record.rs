//! record: is the decision safe on disk? A permit is durable before the first byte goes to the tool (P4); a
//! refusal of somebody known is recorded, of anybody else counted, so that garbage cannot fill the disk.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use audit::{
    CallDecided, Event, LedgerError, Receipt,
    record::{Digest, Outcome, Partial, Revisions, Subject},
};
use jiff::Timestamp;
use model::{Agent, Code, Decision, Reason, Refusal, Verdict};
use tokio::sync::watch;

use crate::{
    approve::Permit, passthrough, reserve::Charge, settle::Settlement, sidecar::Sidecar, snapshot::Snapshot,
    trace::Traced, trail::Trail,
};

/// How often refusals without a principal are summed up.
pub(crate) const SUMMARY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// Writes the permit down. What becomes of the call is settled from here on, also when this future is dropped
/// because the agent went away: the writing then goes on as a task of its own, and settles what nobody waits for.
pub(crate) async fn record(
    sidecar: &Arc<Sidecar>,
    permit: &Permit<'_>,
    charge: Charge,
    snapshot: &Snapshot,
    trail: &Trail,
    trace: &Traced,
) -> Result<(Receipt, Settlement), Box<Refusal>> {
    let mut record = decided(permit.decision().clone(), None, snapshot, trail, sidecar);
    record.charge = charge.record();
    write(record, Settlement::new(sidecar, trail, trace, charge), sidecar).await
}

/// The same of a call that is passed through: no policy was asked about it, so that none is named.
pub(crate) async fn passed(
    sidecar: &Arc<Sidecar>,
    snapshot: &Snapshot,
    trail: &Trail,
    trace: &Traced,
) -> Result<(Receipt, Settlement), Box<Refusal>> {
    let mut record = decided(passthrough::decision(), None, snapshot, trail, sidecar);
    record.revisions.policy = None;
    write(record, Settlement::new(sidecar, trail, trace, Charge::default()), sidecar).await
}

async fn write(
    record: CallDecided,
    settlement: Settlement,
    sidecar: &Arc<Sidecar>,
) -> Result<(Receipt, Settlement), Box<Refusal>> {
    let ledger = sidecar.ledger.clone();
    let writing = Box::pin(async move { ledger.decided(record).await });
    let mut waiting = Waiting { sidecar, unwritten: Some(Unwritten { writing, settlement }) };
    let written = tokio::time::timeout(audit::PATIENCE, waiting.written()).await;
    match written {
        Ok(Ok(receipt)) => match waiting.unwritten.take() {
            Some(done) => Ok((receipt, done.settlement.armed())),
            None => Err(Box::new(unavailable(&"the record is another call's"))),
        },
        Ok(Err(error)) => {
            waiting.unwritten = None;
            Err(Box::new(unwritten(&error)))
        }
        Err(_) => Err(Box::new(unavailable(&"the disk does not answer"))),
    }
}

/// A record that is being written, and what is to be settled once it is.
struct Unwritten {
    writing: Pin<Box<dyn Future<Output = Result<Receipt, LedgerError>> + Send>>,
    settlement: Settlement,
}

/// Waits for a record. Dropped before it is written, it leaves the waiting to a task.
struct Waiting<'a> {
    sidecar: &'a Arc<Sidecar>,
    unwritten: Option<Unwritten>,
}

impl Waiting<'_> {
    async fn written(&mut self) -> Result<Receipt, LedgerError> {
        match &mut self.unwritten {
            Some(unwritten) => unwritten.writing.as_mut().await,
            None => Err(LedgerError::Closed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(Unwritten { writing, settlement }) = self.unwritten.take() else { return };
        self.sidecar.tasks.spawn("record", async move {
            if writing.await.is_ok() {
                // Nobody waited for it, so nothing was sent.
                let mut settlement = settlement.armed();
                settlement.failed(Outcome::NotSent, Code::LedgerUnavailable, false);
            }
        });
    }
}

/// A call that is not on record does not go. Only where the disk is to blame is it worth trying again.
fn unwritten(error: &LedgerError) -> Refusal {
    if let LedgerError::TooLarge(_) = error {
        let detail = "The call's parameters are too large to be recorded, so the call was not sent.";
        return Refusal::new(Code::BodyTooLarge, detail).internally(error.to_string());
    }
    unavailable(error)
}

fn unavailable(error: &impl ToString) -> Refusal {
    let detail = "The decision could not be made durable, so the call was not sent.";
    Refusal::new(Code::LedgerUnavailable, detail).internally(error.to_string())
}

/// Records a refusal whose principal is known, or counts it. A refusal stands whether or not the ledger takes it, and
/// what is too large for a record does not keep the rest off it.
pub(crate) async fn refusal(
    sidecar: &Sidecar,
    refusal: &Refusal,
    decision: Option<Decision>,
    snapshot: &Snapshot,
    trail: &Trail,
) {
    let decision = decision.unwrap_or_else(|| of_guard(refusal, trail.stage()));
    let record = decided(decision.clone(), Some(Box::new(refusal.clone())), snapshot, trail, sidecar);
    if !record.names_a_principal() {
        sidecar.unrecorded.add(refusal.code);
        return;
    }
    if refusal.code == Code::LedgerUnavailable {
        sidecar.metrics.unrecorded();
        return;
    }
    let mut written = soon(sidecar, record).await;
    if let Err(LedgerError::TooLarge(_)) = written {
        let record = decided(decision, Some(Box::new(refusal.clone())), snapshot, trail, sidecar);
        written = soon(sidecar, without_values(record)).await;
    }
    if let Err(error) = written {
        sidecar.metrics.unrecorded();
        sidecar.unrecorded.add(refusal.code);
        if let Some(lines) = sidecar.quiet.due("refusal unrecorded") {
            let (decision_id, code, suppressed) = (&trail.arrival.id, refusal.code, lines - 1);
            tracing::warn!(%decision_id, %code, %error, suppressed, "a refusal could not be recorded");
        }
    }
}

/// Nobody waits for a refusal longer than for a permit. What the ledger was given it still writes.
async fn soon(sidecar: &Sidecar, record: CallDecided) -> Result<Receipt, LedgerError> {
    let late = |_| LedgerError::Unavailable("the disk does not answer".to_owned());
    tokio::time::timeout(audit::PATIENCE, sidecar.ledger.decided(record)).await.map_err(late)?
}

/// The digest of the exact input that policy was asked with.
pub(crate) fn input_digest(written: &policy::Written) -> Option<Digest> {
    match written.input() {
        Ok(bytes) => Some(Digest::of(bytes)),
        Err(error) => {
            tracing::debug!(%error, "no policy input to digest");
            None
        }
    }
}

/// The decision that a stage's own refusal is.
fn of_guard(refusal: &Refusal, stage: &'static str) -> Decision {
    let mut reasons = refusal.reasons.clone();
    if reasons.is_empty() {
        reasons.push(Reason {
            code: refusal.code.as_str().to_owned(),
            message: None,
            internal: None,
            retry: None,
            source: format!("countersign.{stage}"),
        });
    }
    Decision { verdict: verdict(refusal.code), code: Some(refusal.code), reasons, obligations: Vec::new() }
}

/// What a refusal with `code` comes to.
pub(crate) fn verdict(code: Code) -> Verdict {
    if code == Code::ApprovalRequired { Verdict::ApprovalRequired } else { Verdict::Deny }
}

fn decided(
    decision: Decision,
    refusal: Option<Box<Refusal>>,
    snapshot: &Snapshot,
    trail: &Trail,
    sidecar: &Sidecar,
) -> CallDecided {
    CallDecided {
        subject: trail.subject(trail.arrival.time),
        decision,
        refusal,
        stage_reached: trail.stage(),
        trace: trail.trace(),
        input_digest: trail.input_digest,
        body: trail.body(),
        revisions: Revisions {
            policy: Some(snapshot.policy.revision().to_owned()),
            catalogue: Some(snapshot.catalogue.revision().to_owned()),
            config: snapshot.config_revision.clone(),
            binary: sidecar.version.clone(),
        },
        identity_mode: trail.identity_mode,
        charge: None,
        entry: trail.entry,
        observed: trail.observed.clone(),
        timings: trail.timings.clone(),
    }
}

/// The longest text that a refusal without values keeps of each of its words.
const MAX_WORDS: usize = 1024;

/// Who, what and why, without what the agent can make as large as it likes: parameters, facts, header fields, and
/// words that repeat them. The digests of body and policy input stay.
fn without_values(mut record: CallDecided) -> CallDecided {
    let mut partial = match record.subject {
        Subject::Question(question) => Partial {
            id: question.id.clone(),
            now: question.now,
            delegation: Some(Arc::clone(&question.delegation)),
            user: None,
            agent: None,
            tenant: None,
            run: None,
            task: None,
            request: Some(question.request.clone()),
            tool: Some(question.call.tool.clone()),
            action: Some(question.call.action.clone()),
            effect: Some(question.call.effect),
            resource: Some(question.call.resource.clone()),
            parameters: None,
            registration: Some(Agent::clone(&question.agent)),
        },
        Subject::Partial(partial) => *partial,
        // Only what goes is on record as passed through.
        Subject::Passed(passed) => passed.partial,
    };
    partial.parameters = None;
    if let Some(request) = &mut partial.request {
        request.headers.clear();
    }
    record.subject = Subject::Partial(Box::new(partial));
    let short = |words: &mut Option<String>| drop(words.take_if(|words| words.len() > MAX_WORDS));
    for reason in &mut record.decision.reasons {
        short(&mut reason.message);
        short(&mut reason.internal);
    }
    if let Some(refusal) = &mut record.refusal {
        refusal.detail.truncate(refusal.detail.floor_char_boundary(MAX_WORDS));
        refusal.internal =
            Some("The parameters, facts and header fields are too large for a record and not in it.".to_owned());
    }
    record
}

/// Refusals that no record names, by code.
#[derive(Debug)]
pub(crate) struct Unrecorded {
    counts: watch::Sender<BTreeMap<Code, u64>>,
}

impl Unrecorded {
    pub(crate) fn new() -> Self {
        Self { counts: watch::Sender::new(BTreeMap::new()) }
    }

    pub(crate) fn add(&self, code: Code) {
        self.counts.send_modify(|counts| *counts.entry(code).or_default() += 1);
    }

    fn take(&self) -> BTreeMap<Code, u64> {
        self.counts.send_replace(BTreeMap::new())
    }
}

/// Writes a summary at most each [`SUMMARY_INTERVAL`], and a last one when shutdown begins. What the ledger does
/// not take is kept for the next.
pub(crate) async fn summaries(sidecar: Arc<Sidecar>) {
    let stopping = sidecar.tasks.shutdown_token();
    let mut from = net::clock::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SUMMARY_INTERVAL) => {}
            () = stopping.cancelled() => {}
        }
        from = summary(&sidecar, from, net::clock::now()).await;
        if stopping.is_cancelled() {
            return;
        }
    }
}

/// Returns since when the next summary counts.
pub(crate) async fn summary(sidecar: &Sidecar, from: Timestamp, to: Timestamp) -> Timestamp {
    let counts = sidecar.unrecorded.take();
    if counts.is_empty() {
        return to;
    }
    let event = Event::RefusalsSummary { from, to, counts: counts.clone() };
    match sidecar.ledger.event(event).await {
        Ok(_) => to,
        Err(error) => {
            tracing::warn!(%error, "a summary of refusals could not be recorded");
            sidecar.unrecorded.counts.send_modify(|kept| {
                for (code, count) in counts {
                    *kept.entry(code).or_default() += count;
                }
            });
            from
        }
    }
}

#[cfg(test)]
mod tests;
