//! settle: what happened? One record for each permitted call, whatever became of it: a [`Settlement`] that is
//! dropped without word says that the agent went away.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use audit::{
    CallSettled, LedgerError,
    record::{Digest, Outcome, Timings},
};
use aws_lc_rs::digest;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use model::{Code, Id, id::DecisionMark};
use net::{Body, BoxError};

use crate::{forward::trailers::Trailers, overload::UnderWay, sidecar::Sidecar, trace::Traced, trail::Trail};

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
    sent: bool,
    answered: Option<Instant>,
    began: Instant,
    /// Its room is free again once its end is on record.
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
}

impl Settlement {
    pub(crate) fn new(sidecar: &Arc<Sidecar>, trail: &Trail, call: &Traced) -> Self {
        let open = Open {
            sidecar: Arc::clone(sidecar),
            id: trail.arrival.id.clone(),
            tool: trail.known().map(|known| known.tool.to_string()).unwrap_or_default(),
            run: trail.delegation.as_ref().map(|delegation| delegation.run.to_string()),
            call: call.clone(),
            request: None,
            flow: Arc::new(Flow::default()),
            armed: false,
            outcome: Outcome::ClientGone,
            status: None,
            code: None,
            sent: false,
            answered: None,
            began: net::clock::monotonic(),
            under_way: trail.under_way.clone(),
        };
        Self { open: Some(open) }
    }

    /// Of no call.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        Self { open: None }
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

    fn ended(&mut self, outcome: Outcome) {
        if let Some(open) = &mut self.open {
            open.outcome = outcome;
        }
    }
}

impl Drop for Settlement {
    /// The end of a call is written by a task of its own: whoever waited for the response may be gone.
    fn drop(&mut self) {
        let Some(open) = self.open.take().filter(|open| open.armed) else { return };
        #[cfg(any(test, feature = "bench"))]
        let began = net::clock::monotonic();
        let record = open.record();
        open.sidecar.metrics.settled(&open.tool, open.outcome);
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

    fn record(&self) -> CallSettled {
        let microseconds = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        let mut timings = Timings::new();
        if self.sent {
            let now = net::clock::monotonic();
            timings.insert("forward", microseconds(self.began, self.answered.unwrap_or(now)));
            if let Some(answered) = self.answered {
                timings.insert("stream", microseconds(answered, now));
            }
        }
        CallSettled {
            id: self.id.clone(),
            outcome: self.outcome,
            status: self.status,
            code: self.code,
            sent: self.sent,
            altered: false,
            request_bytes: self.flow.up.load(Ordering::Relaxed),
            response_bytes: self.flow.down.load(Ordering::Relaxed),
            body: *self.flow.digest.lock().unwrap_or_else(PoisonError::into_inner),
            timings,
        }
    }
}

/// A request body on its way to the tool: counted, and digested where nobody read it before.
pub(crate) struct Upload {
    inner: Body,
    flow: Arc<Flow>,
    digest: Option<digest::Context>,
    trailers: Trailers,
}

impl Upload {
    pub(crate) fn new(inner: Body, flow: Arc<Flow>, digested: bool, trailers: Trailers) -> Self {
        Self { inner, flow, digest: digested.then(|| digest::Context::new(&digest::SHA256)), trailers }
    }

    fn finish(&mut self) {
        let Some(context) = self.digest.take() else { return };
        if let Ok(hash) = <[u8; 32]>::try_from(context.finish().as_ref()) {
            let digest = Some(Digest::from_sha256(hash));
            *self.flow.digest.lock().unwrap_or_else(PoisonError::into_inner) = digest;
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.flow.up.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if let Some(digest) = &mut self.digest {
                        digest.update(data);
                    }
                }
                if self.inner.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => self.flow.broken.store(true, Ordering::Relaxed),
            None => self.finish(),
        }
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(match frame.into_trailers() {
            Ok(trailers) => {
                self.finish();
                self.trailers.kept(trailers).map(|kept| Ok(Frame::trailers(kept)))
            }
            Err(data) => Some(Ok(data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body on its way to the agent, frame by frame as it comes; settles the call when it ends.
pub(crate) struct Download {
    inner: Incoming,
    flow: Arc<Flow>,
    settlement: Settlement,
    trailers: Trailers,
    ended: bool,
}

impl Download {
    pub(crate) fn new(inner: Incoming, settlement: Settlement, trailers: Trailers) -> Self {
        Self { inner, flow: settlement.flow(), settlement, trailers, ended: false }
    }

    /// Nothing is left to come: in HTTP/2 the end can follow the last byte, and who has them all need not wait for it.
    fn is_whole(&self) -> bool {
        self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0)
    }

    fn end(&mut self, outcome: Outcome) {
        if !self.ended {
            self.ended = true;
            self.settlement.ended(outcome);
        }
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match frame {
            Some(Ok(frame)) => {
                let data = match frame.into_data() {
                    Ok(data) => data,
                    Err(last) => {
                        self.end(Outcome::Completed);
                        let kept = last.into_trailers().ok().and_then(|trailers| self.trailers.kept(trailers));
                        return Poll::Ready(kept.map(|kept| Ok(Frame::trailers(kept))));
                    }
                };
                self.flow.down.fetch_add(data.len() as u64, Ordering::Relaxed);
                if self.is_whole() {
                    self.end(Outcome::Completed);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                self.end(Outcome::ToolBroke);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.end(Outcome::Completed);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    /// A response without a body is never asked for a frame.
    fn drop(&mut self) {
        if self.is_whole() {
            self.end(Outcome::Completed);
        }
    }
}
