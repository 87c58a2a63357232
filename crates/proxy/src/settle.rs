//! settle: what happened? One record for each permitted call, whatever became of it: a [`Settlement`] that is
//! dropped without word says that the agent went away.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use audit::{
    CallSettled, LedgerError,
    record::{Altered, ChargeFate, Digest, Outcome, Timings},
};
use model::{Code, Id, Refusal, id::DecisionMark};

use crate::{
    forward::Unanswered, live::Told, overload::UnderWay, reserve::Charge, sidecar::Sidecar, trace::Traced, trail::Trail,
};

/// A permitted call whose end is not known yet.
pub(crate) struct Settlement {
    open: Option<Open>,
}

struct Open {
    sidecar: Arc<Sidecar>,
    id: Id<DecisionMark>,
    tool: String,
    run: Option<String>,
    call: Traced,
    request: Option<Traced>,
    flow: Arc<Flow>,
    armed: bool,
    outcome: Outcome,
    status: Option<u16>,
    code: Option<Code>,
    altered: Option<Box<Altered>>,
    withheld: Option<&'static str>,
    sent: bool,
    answered: Option<Instant>,
    began: Instant,
    charge: Charge,
    /// What is told of it, where somebody listens.
    told: Option<Box<Told>>,
    /// Its room is free again once its end is in the ledger's queue, which has its own bound.
    #[expect(dead_code, reason = "held: the call is under way for as long as it is here")]
    under_way: Option<UnderWay>,
}

/// What flowed so far, in both directions.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    up: AtomicU64,
    down: AtomicU64,
    broken: AtomicBool,
    digest: Mutex<Option<Digest>>,
}

impl Flow {
    /// Bytes of the request's body that were handed on.
    pub(crate) fn uploaded(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether the agent's side of the request broke off.
    pub(crate) fn upload_broke(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// So much more of the request went to the tool.
    pub(crate) fn up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So much more of the response went to the agent.
    pub(crate) fn down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The agent's side of the request broke off.
    pub(crate) fn broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// What the whole request's body was.
    pub(crate) fn digested(&self, digest: Digest) {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
    }
}

impl Settlement {
    pub(crate) fn new(sidecar: &Arc<Sidecar>, trail: &Trail, call: &Traced, charge: Charge) -> Self {
        let open = Open {
            sidecar: Arc::clone(sidecar),
            id: trail.arrival.id.clone(),
            tool: trail.tool().map(ToString::to_string).unwrap_or_default(),
            run: trail.delegation.as_ref().map(|delegation| delegation.run.to_string()),
            call: call.clone(),
            request: None,
            flow: Arc::new(Flow::default()),
            armed: false,
            outcome: Outcome::ClientGone,
            status: None,
            code: None,
            altered: None,
            withheld: None,
            sent: false,
            answered: None,
            began: net::clock::monotonic(),
            charge,
            told: None,
            under_way: trail.under_way.clone(),
        };
        Self { open: Some(open) }
    }

    /// Of no call.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        Self { open: None }
    }

    /// Its end is told too.
    pub(crate) fn tell(&mut self, told: Box<Told>) {
        if let Some(open) = &mut self.open {
            open.told = Some(told);
        }
    }

    /// The call is in the ledger: from here on it has to be settled.
    pub(crate) fn armed(mut self) -> Self {
        if let Some(open) = &mut self.open {
            open.armed = true;
            open.sidecar.metrics.sent();
        }
        self
    }

    pub(crate) fn flow(&self) -> Arc<Flow> {
        self.open.as_ref().map(|open| Arc::clone(&open.flow)).unwrap_or_default()
    }

    /// The request goes out now, under this span.
    pub(crate) fn sending(&mut self, request: Traced) {
        if let Some(open) = &mut self.open {
            open.sent = true;
            open.began = net::clock::monotonic();
            open.request = Some(request);
        }
    }

    /// The head of the tool's response is there.
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(open) = &mut self.open {
            let now = net::clock::monotonic();
            open.status = Some(status);
            open.answered = Some(now);
            open.sidecar.metrics.tool(&open.tool, now.saturating_duration_since(open.began));
            if let Some(request) = &open.request {
                request.answered(status, 400);
            }
            open.call.answered(status, 500);
        }
    }

    /// There is no response of the tool; the agent is answered with `code`.
    pub(crate) fn failed(&mut self, outcome: Outcome, code: Code, sent: bool) {
        if let Some(open) = &mut self.open {
            open.outcome = outcome;
            open.code = Some(code);
            open.sent = sent;
            if let Some(request) = &open.request {
                request.failed(code.as_str());
            }
        }
    }

    /// It goes no further, for a reason of our own.
    pub(crate) fn not_sent(mut self, refusal: Box<Refusal>) -> Unanswered {
        self.failed(Outcome::NotSent, refusal.code, false);
        Unanswered { refusal, sent: false }
    }

    /// It was broken off from here, in the middle of the response.
    pub(crate) fn cut(&mut self, code: Code) {
        if let Some(open) = &mut self.open {
            open.outcome = Outcome::Cut;
            open.code = Some(code);
        }
    }

    /// An obligation changed the response.
    pub(crate) fn altered(&mut self, altered: Box<Altered>) {
        if let Some(open) = &mut self.open {
            open.altered = Some(altered);
        }
    }

    /// An obligation kept the response back, or what was left of it.
    pub(crate) fn withheld(&mut self, why: &'static str) {
        if let Some(open) = &mut self.open {
            open.withheld = Some(why);
        }
    }

    /// The response's body came to its end, as it was meant or not.
    pub(crate) fn ended(&mut self, outcome: Outcome) {
        if let Some(open) = &mut self.open {
            open.outcome = outcome;
        }
    }
}

impl Drop for Settlement {
    /// The end of a call is handed to the ledger without waiting: whoever waited for the response may be gone.
    fn drop(&mut self) {
        // What was charged for a call that is not on record goes back with it.
        let Some(mut open) = self.open.take().filter(|open| open.armed) else { return };
        #[cfg(any(test, feature = "bench"))]
        let began = net::clock::monotonic();
        let fate = std::mem::take(&mut open.charge).settle(open.sent, open.outcome);
        let record = open.record(fate);
        open.sidecar.metrics.settled(&open.tool, open.outcome);
        if let Some(mut told) = open.told.take() {
            told.settled(&record);
        }
        tracing::event!(
            name: "countersign.call.settled",
            target: "countersign::audit",
            tracing::Level::INFO,
            countersign.decision.id = %open.id,
            countersign.run.id = open.run.as_deref(),
            countersign.outcome = open.outcome.as_str(),
            http.response.status_code = open.status,
            trace_id = %open.call.ids().trace,
            span_id = %open.call.ids().span,
        );
        match open.sidecar.ledger.settle(&record) {
            Ok(true) => {}
            Ok(false) => open.settle_later(record),
            Err(error) => open.unsettled(&error),
        }
        #[cfg(any(test, feature = "bench"))]
        crate::bench::took("settle", net::clock::monotonic().saturating_duration_since(began));
    }
}

impl Open {
    /// Waits for the ledger to have room. The call is under way until then.
    fn settle_later(self, record: CallSettled) {
        let sidecar = Arc::clone(&self.sidecar);
        sidecar.tasks.spawn("settle", async move {
            match self.sidecar.ledger.settled(record).await {
                Ok(()) => {}
                Err(error @ LedgerError::Kept(_)) => {
                    tracing::debug!(decision_id = %self.id, %error, "what became of a call is recorded later");
                }
                Err(error) => self.unsettled(&error),
            }
        });
    }

    fn unsettled(&self, error: &LedgerError) {
        if let Some(lines) = self.sidecar.quiet.due("settlement unrecorded") {
            let (decision_id, suppressed) = (&self.id, lines - 1);
            tracing::warn!(%decision_id, %error, suppressed, "what became of a call could not be recorded");
        }
    }

    fn record(&self, charge: Option<ChargeFate>) -> CallSettled {
        let microseconds = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        let mut timings = Timings::new();
        if self.sent {
            let now = net::clock::monotonic();
            timings.add("forward", microseconds(self.began, self.answered.unwrap_or(now)));
            if let Some(answered) = self.answered {
                timings.add("stream", microseconds(answered, now));
            }
        }
        CallSettled {
            id: self.id.clone(),
            outcome: self.outcome,
            status: self.status,
            code: self.code,
            sent: self.sent,
            charge,
            altered: self.altered.clone(),
            withheld: self.withheld,
            request_bytes: self.flow.up.load(Ordering::Relaxed),
            response_bytes: self.flow.down.load(Ordering::Relaxed),
            body: *self.flow.digest.lock().unwrap_or_else(PoisonError::into_inner),
            timings,
        }
    }
}
