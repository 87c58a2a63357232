//! The way of a call (DESIGN §4): one straight line. Each stage takes what the one before proved, and can only go
//! on or refuse; every refusal ends in [`Sidecar::refuse`].

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use audit::record::Mode;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming as HyperBody;
use model::{Code, Decision, Id, Refusal, Verdict, id::DecisionMark};
use net::{Body, Peer};
use token::{Rejection, Seen};
use tracing::Instrument as _;

use crate::{
    accept::{Arrival, Incoming, accept},
    admit::admit,
    approve::approve,
    assertion::credential,
    decide::{Known, ask, decide},
    facts::Read,
    fold::Fate,
    forward::{Cleared, Going, Unanswered, Way, forward},
    guard::guard,
    metrics::Label,
    obligations::notice,
    overload::UnderWay,
    passthrough::passing,
    record::{self, record},
    refuse::{self, About},
    reserve::{Charge, reserve},
    resolve::{recognise, resolve},
    settle::Settlement,
    sidecar::Sidecar,
    snapshot::Snapshot,
    trace::Traced,
    trail::Trail,
    withdrawals::{self, Look},
};

impl Sidecar {
    /// Answers one request. Dropping the future gives the call up; what was recorded is settled all the same.
    pub async fn handle(self: Arc<Self>, peer: Peer, request: Request<HyperBody>) -> Response<Body> {
        self.answer(peer, request.map(Body::from)).await
    }

    pub(crate) async fn answer(self: Arc<Self>, peer: Peer, request: Request<Body>) -> Response<Body> {
        let snapshot = self.snapshot.load_full();
        let (time, instant) = (net::clock::now(), net::clock::monotonic());
        let arrival = match Arrival::new(self.ledger.id(), peer, time, instant) {
            Ok(arrival) => arrival,
            Err(error) => {
                tracing::error!(%error, "no decision id could be made");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                return response;
            }
        };
        let under_way = match self.gate.enter(&arrival.peer) {
            Ok(under_way) => under_way,
            Err(refusal) => return self.shed(&refusal, &arrival),
        };
        let id = arrival.id.clone();
        let call = self.call(arrival, under_way, request, snapshot);
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => self.failed(&id, &*panic),
        }
    }

    async fn call(
        self: &Arc<Self>,
        arrival: Arrival,
        under_way: UnderWay,
        request: Request<Body>,
        snapshot: Arc<Snapshot>,
    ) -> Response<Body> {
        let (method, version) = (request.method().clone(), request.version());
        let accepted = accept(arrival.clone(), request, &snapshot.listener);
        let claimed = accepted.as_ref().ok().and_then(Incoming::claimed_trace);
        let trace = self.spans.call(&arrival, &method, version, claimed, snapshot.listener.claimed_trace);
        // For log lines, and only where they are wanted in such detail.
        let lines = tracing::debug_span!("call", decision_id = %arrival.id);
        let mut trail = Trail::new(arrival);
        trail.under_way = Some(under_way);
        trail.told = self.live.begin(&trail.arrival.id);
        trail.ids = Some(*trace.ids());
        let line = Box::pin(self.line(accepted, &snapshot, &trace, &mut trail)).instrument(lines.clone());
        match line.await {
            Ok(response) => response,
            // Boxed: most calls take no room for it.
            Err(stopped) => Box::pin(self.refuse(*stopped, &snapshot, &trace, trail)).instrument(lines).await,
        }
    }

    async fn line(
        self: &Arc<Self>,
        accepted: Result<Incoming, Box<Refusal>>,
        snapshot: &Snapshot,
        trace: &Traced,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Box<Stopped>> {
        let incoming = accepted?;
        trail.accepted(&incoming);
        trace.accepted(&incoming);

        trail.enter("admit");
        if let Some(passing) = passing(&incoming, snapshot, trail.arrival.time)? {
            return Box::pin(self.pass(incoming, passing, snapshot, trace, trail)).await;
        }
        let admitted = match &snapshot.identities {
            None => admit(&incoming, snapshot, trail.arrival.time).await?,
            Some(identities) => Box::pin(self.exchanged(identities, &incoming, snapshot, trail)).await?,
        };
        trail.delegation = Some(Arc::clone(admitted.delegation()));
        trace.admitted(admitted.delegation());
        if let Some(under_way) = &mut trail.under_way {
            self.gate.admitted(under_way, admitted.delegation())?;
        }
        #[cfg(test)]
        crate::testing::fault(&incoming);

        trail.enter("resolve");
        let recognised = recognise(&incoming, &admitted.delegation().tenant, &snapshot.catalogue)?;
        trail.recognised(&recognised);
        trace.recognised(incoming.method(), &recognised);
        let call = resolve(incoming, &admitted, recognised, &snapshot.listener, &self.gate).await?;
        trail.resolved(&call);

        trail.enter("guard");
        // A body may have taken its time; a decision is made at one moment, and this is it.
        let now = net::clock::now();
        let look = Look::new(
            self.withdrawals.as_ref(),
            snapshot.following.as_ref(),
            admitted.delegation(),
            call.action.effect,
        );
        let mut waiver = snapshot.observed.waiver(&call.action.id, now);
        let bounds = guard(&admitted, &call, snapshot, look.as_ref(), now, &mut waiver)?;
        trail.registered(bounds.agent());
        let upstream = snapshot.upstreams.get(&call.tool.id).ok_or_else(Stopped::no_upstream)?;

        trail.enter("facts");
        let facts = self.facts.read(&admitted, &call, &bounds, upstream, snapshot.catalogue.revision()).await;
        let facts = waiver.or("facts", facts, || Read::nothing(call.tool))?;

        trail.enter("decide");
        let known = Known { policy: &snapshot.policy, limits: self.limits.as_deref(), now };
        let asked = ask(&admitted, &call, &bounds, facts, known);
        trail.asked(&asked);
        let decided =
            decide(asked.proved(&mut waiver)?, &bounds, snapshot, &self.beside, &self.notices, &mut waiver).await?;

        trail.enter("approve");
        let permit = approve(call, &decided, &mut waiver)?;

        trail.enter("reserve");
        let charge = waiver.or("reserve", reserve(&permit, self.limits.as_ref()).await, Charge::default)?;

        trail.enter("credential");
        let chosen = credential(&permit, &admitted, upstream, snapshot)?;

        trail.enter("record");
        let (would, mode) = (waiver.would(), waiver.mode());
        trail.observed = waiver.on_record();
        let (receipt, mut settlement) = record(self, &permit, charge, snapshot, trail, trace).await?;
        trail.enter("forward");
        self.note(trail, trace, Verdict::Permit, would, mode);
        if mode == Mode::Enforce {
            notice::tell(self, permit.decision(), trail);
        }
        tell(trail, permit.decision(), would, &mut settlement);

        let credential = chosen.present(&permit, admitted.delegation(), upstream, &mut settlement)?;
        let watch = look.map(|look| look.watch(admitted.delegation()));
        let cleared = Cleared { going: Going::permitted(permit, credential), receipt, watch };
        let way = Way { tenant: &admitted.delegation().tenant, upstream, snapshot };
        Ok(forward(cleared, way, self, trace, settlement).await?)
    }

    /// The one end of every call that is not forwarded, or not answered.
    async fn refuse(&self, stopped: Stopped, snapshot: &Snapshot, trace: &Traced, mut trail: Trail) -> Response<Body> {
        let Stopped { refusal, decision, seen, end } = stopped;
        let sent = match end {
            End::Refused => {
                trail.leave();
                trail.seen = seen;
                // What stops an observed call, or one that is passed through, is enforced.
                (trail.observed, trail.passed) = (None, None);
                match self.folding.fate(&trail, refusal.code, net::clock::monotonic()) {
                    Fate::Recorded => record::refusal(self, &refusal, decision, snapshot, &trail).await,
                    Fate::Folded => self.metrics.folded(),
                    Fate::Counted => self.unrecorded.add(refusal.code),
                }
                let verdict = record::verdict(refusal.code);
                self.note(&trail, trace, verdict, Some(refusal.code), Mode::Enforce);
                if let Some(mut told) = trail.told.take() {
                    told.decided(verdict, Some(refusal.code), &refusal.reasons, Some(&refusal.detail));
                }
                false
            }
            End::Unanswered { sent } => sent,
        };
        withdrawals::noticed(self, &refusal, snapshot.following.as_ref(), &trail).await;
        self.tell(&refusal, &trail.arrival.id);
        let run = trail.delegation.as_ref().map(|delegation| &delegation.run);
        let response = refuse::response(&refusal, About { id: &trail.arrival.id, run, sent });
        trace.answered(response.status().as_u16(), 500);
        response
    }

    /// A line in the log for whoever runs it, where it may be theirs to mend.
    fn tell(&self, refusal: &Refusal, decision_id: &Id<DecisionMark>) {
        let (code, internal) = (refusal.code, refusal.internal.as_deref());
        if code.entry().status < 500 {
            tracing::debug!(%decision_id, %code, internal, "refused");
        } else if let Some(lines) = self.quiet.due(code.as_str()) {
            tracing::warn!(%decision_id, %code, internal, suppressed = lines - 1, "not served");
        }
    }

    /// There is no room for the call: nothing of it was looked at, and nothing is written down but a number.
    fn shed(&self, refusal: &Refusal, arrival: &Arrival) -> Response<Body> {
        self.unrecorded.add(refusal.code);
        if let Some(lines) = self.quiet.due("no room") {
            tracing::warn!(detail = refusal.detail, suppressed = lines - 1, "calls are refused for want of room");
        }
        refuse::response(refusal, About { id: &arrival.id, run: None, sent: false })
    }

    /// A fault of ours ends this call and no other.
    fn failed(&self, id: &Id<DecisionMark>, panic: &(dyn Any + Send)) -> Response<Body> {
        self.metrics.panicked();
        if let Some(lines) = self.quiet.due("panic") {
            let (reason, suppressed) = (net::tasks::panic_text(panic), lines - 1);
            tracing::error!(decision_id = %id, reason, suppressed, "a call panicked; this is a defect");
        }
        refuse::failed(id)
    }

    /// Counts a decision and tells those who listen. The `code` of what is only observed is what enforcing would answer.
    pub(crate) fn note(&self, trail: &Trail, trace: &Traced, verdict: Verdict, code: Option<Code>, mode: Mode) {
        let tool = trail.tool().map_or("none", Id::as_str);
        let action = trail.known().map_or("none", |known| known.action.as_str());
        self.metrics.decision(&Label { tool, action, verdict, code, mode }, &trail.timings);
        trace.decided(verdict, code);
        self.spans.stages(trace, trail.arrival.time, &trail.timings);
        let delegation = trail.delegation.as_deref();
        tracing::event!(
            name: "countersign.call.decided",
            target: "countersign::audit",
            tracing::Level::INFO,
            countersign.decision.id = %trail.arrival.id,
            countersign.run.id = delegation.map(|delegation| delegation.run.as_str()),
            countersign.task.id = delegation.and_then(|delegation| delegation.task.id.as_ref()).map(Id::as_str),
            countersign.decision = verdict.as_str(),
            countersign.denial.code = code.map(Code::as_str),
            countersign.mode = mode.as_str(),
            countersign.stage = trail.stage(),
            countersign.tool = tool,
            gen_ai.tool.name = action,
            gen_ai.agent.id = delegation.map(|delegation| delegation.chain.agent().principal.id.as_str()),
            trace_id = %trace.ids().trace,
            span_id = %trace.ids().span,
        );
    }
}

/// Tells whoever listens that a call goes, and what enforcing would have answered.
fn tell(trail: &mut Trail, decision: &Decision, would: Option<Code>, settlement: &mut Settlement) {
    let Some(mut told) = trail.told.take() else { return };
    told.obliges(&decision.obligations);
    told.decided(Verdict::Permit, would, &decision.reasons, would.map(|_| "only observed"));
    settlement.tell(told);
}

/// Why a call went no further.
#[derive(Debug)]
pub(crate) struct Stopped {
    refusal: Box<Refusal>,
    /// Policy's own answer, where it is what refused.
    decision: Option<Decision>,
    /// Whom a token named that did not pass.
    seen: Option<Box<Seen>>,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// It was decided that it does not go.
    Refused,
    /// It was permitted, recorded and given to the tool, which did not answer.
    Unanswered { sent: bool },
}

impl Stopped {
    /// A catalogue and its upstreams come from one resolution; that a tool has none cannot be seen by an agent.
    pub(crate) fn no_upstream() -> Box<Self> {
        Self::from(Box::new(Refusal::new(Code::CredentialUnavailable, "The tool is not configured."))).into()
    }
}

impl From<Box<Refusal>> for Stopped {
    fn from(refusal: Box<Refusal>) -> Self {
        Self { refusal, decision: None, seen: None, end: End::Refused }
    }
}

impl From<Box<Refusal>> for Box<Stopped> {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::new(refusal.into())
    }
}

impl From<Box<Rejection>> for Box<Stopped> {
    fn from(rejection: Box<Rejection>) -> Self {
        let Rejection { refusal, seen } = *rejection;
        Self::new(Stopped { refusal: Box::new(refusal), decision: None, seen, end: End::Refused })
    }
}

impl From<(Box<Refusal>, Decision)> for Box<Stopped> {
    fn from((refusal, decision): (Box<Refusal>, Decision)) -> Self {
        Self::new(Stopped { refusal, decision: Some(decision), seen: None, end: End::Refused })
    }
}

impl From<Unanswered> for Box<Stopped> {
    fn from(unanswered: Unanswered) -> Self {
        let Unanswered { refusal, sent } = unanswered;
        Self::new(Stopped { refusal, decision: None, seen: None, end: End::Unanswered { sent } })
    }
}

#[cfg(test)]
mod tests;
