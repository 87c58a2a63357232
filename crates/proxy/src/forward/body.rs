//! The two bodies of a forwarded call, frame by frame as they come: counted, digested where nobody read them before, with
//! the trailers that may travel on, and ended when the tool stops in the middle.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use audit::record::{Digest, Outcome};
use aws_lc_rs::digest;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use model::Code;
use net::{Body, BoxError};
use tokio::time::Sleep;

use super::trailers::Trailers;
use crate::{
    obligations::{Altering, Withheld},
    settle::{Flow, Settlement},
    withdrawals::{Cut, Watch},
};

/// How long what was shown has to be on its way before the connection breaks, which drops what is not.
const MOMENT: Duration = Duration::from_millis(50);

/// A request body on its way to the tool: counted, and digested where nobody read it before.
pub(super) struct Upload {
    inner: Body,
    flow: Arc<Flow>,
    digest: Option<digest::Context>,
    trailers: Trailers,
    cut: Option<Arc<Cut>>,
}

impl Upload {
    pub(super) fn new(inner: Body, flow: Arc<Flow>, digested: bool, trailers: Trailers, cut: Option<Arc<Cut>>) -> Self {
        Self { inner, flow, digest: digested.then(|| digest::Context::new(&digest::SHA256)), trailers, cut }
    }

    fn finish(&mut self) {
        let Some(context) = self.digest.take() else { return };
        if let Ok(hash) = <[u8; 32]>::try_from(context.finish().as_ref()) {
            self.flow.digested(Digest::from_sha256(hash));
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(code) = self.cut.as_ref().and_then(|cut| cut.poll_up(context)) {
            return Poll::Ready(Some(Err(BrokenOff(code).into())));
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.flow.up(data.len());
                    if let Some(digest) = &mut self.digest {
                        digest.update(data);
                    }
                }
                if self.inner.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => self.flow.broke(),
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
pub(super) struct Download {
    inner: Incoming,
    flow: Arc<Flow>,
    settlement: Settlement,
    trailers: Trailers,
    patience: Patience,
    watch: Option<Watch>,
    /// What is obliged to of it; nothing, for most.
    altering: Option<Box<Altering>>,
    /// Nothing more of it may be shown, and it breaks off when this is over.
    withheld: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Download {
    /// `pause` is the longest that the tool may let the agent wait in the middle of it.
    pub(super) fn new(
        inner: Incoming,
        settlement: Settlement,
        trailers: Trailers,
        pause: Option<Duration>,
        watch: Option<Watch>,
        altering: Option<Box<Altering>>,
    ) -> Self {
        let patience = Patience { pause, over: None };
        let flow = settlement.flow();
        Self { inner, flow, settlement, trailers, patience, watch, altering, withheld: None, ended: false }
    }

    /// Nothing is left to come: in HTTP/2 the end can follow the last byte, and who has them all need not wait for it.
    fn is_whole(&self) -> bool {
        self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0)
    }

    fn break_off(&mut self, code: Code) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.ended {
            self.ended = true;
            self.settlement.cut(code);
        }
        Poll::Ready(Some(Err(BrokenOff(code).into())))
    }

    /// What of `data` is shown (the same where nothing is obliged to, nothing where all of it is hidden), and whether
    /// that is the last.
    fn shown(&mut self, data: Bytes) -> (Bytes, Option<Withheld>) {
        let whole = self.is_whole();
        let Some(altering) = &mut self.altering else { return (data, None) };
        let (shown, mut withheld) = altering.take(data);
        if whole && withheld.is_none() {
            withheld = altering.finish().err();
        }
        (shown, withheld)
    }

    /// Nothing more of it may be shown: the agent sees that it was broken off, and not an end.
    fn withhold(&mut self, withheld: Withheld) {
        if !self.ended {
            self.ended = true;
            self.settlement.withheld(withheld.word());
            self.settlement.cut(Code::ResponseWithheld);
        }
        self.withheld = Some(Box::pin(tokio::time::sleep(MOMENT)));
    }

    /// Breaks off once what was shown is on its way.
    fn withheld(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(moment) = &mut self.withheld {
            ready!(moment.as_mut().poll(context));
        }
        self.break_off(Code::ResponseWithheld)
    }

    /// The next of it, where any of that is shown.
    fn data(&mut self, data: Bytes, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (data, withheld) = self.shown(data);
        if let Some(withheld) = withheld {
            self.withhold(withheld);
            if data.is_empty() {
                return self.withheld(context);
            }
        } else if data.is_empty() && self.altering.is_some() && !self.is_whole() {
            // Hidden whole. The next piece is asked for when this is woken, which is now.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flow.down(data.len());
        if self.is_whole() {
            self.end(Outcome::Completed);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// The end of it, where it may end there.
    fn finished(&self) -> Result<(), Withheld> {
        self.altering.as_ref().map_or(Ok(()), |altering| altering.finish())
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
        if self.withheld.is_some() {
            return self.withheld(context);
        }
        let cut = self.watch.as_ref().and_then(|watch| watch.cut().poll_down(context));
        let frame = match (Pin::new(&mut self.inner).poll_frame(context), cut) {
            // What is here whole is not kept from whoever has to know what a call came to.
            (frame, Some(code)) if !(frame.is_ready() && self.is_whole()) => return self.break_off(code),
            (frame, _) => frame,
        };
        let frame = match frame {
            Poll::Pending => {
                let paused = ready!(self.patience.poll(context));
                self.end(Outcome::ToolTimeout);
                return Poll::Ready(Some(Err(paused.into())));
            }
            Poll::Ready(frame) => frame,
        };
        self.patience.over = None;
        match frame {
            Some(Ok(frame)) => {
                let data = match frame.into_data() {
                    Ok(data) => data,
                    Err(last) => {
                        if let Err(withheld) = self.finished() {
                            self.withhold(withheld);
                            return self.withheld(context);
                        }
                        self.end(Outcome::Completed);
                        let kept = last.into_trailers().ok().and_then(|trailers| self.trailers.kept(trailers));
                        return Poll::Ready(kept.map(|kept| Ok(Frame::trailers(kept))));
                    }
                };
                self.data(data, context)
            }
            Some(Err(error)) => {
                self.end(Outcome::ToolBroke);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if let Err(withheld) = self.finished() {
                    self.withhold(withheld);
                    return self.withheld(context);
                }
                self.end(Outcome::Completed);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // What is withheld breaks off, and has no end.
        self.withheld.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is changed on the way has another length, which nobody knows before its end.
        if self.altering.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}

impl Drop for Download {
    /// A response without a body is never asked for a frame.
    fn drop(&mut self) {
        if self.is_whole() && self.finished().is_ok() {
            self.end(Outcome::Completed);
        }
        if let Some(altered) = self.altering.as_ref().and_then(|altering| altering.altered()) {
            self.settlement.altered(altered);
        }
    }
}

/// How long the agent still waits for the next of a response. Counts only while it does: whoever reads slowly keeps no
/// tool waiting, and no tool is blamed for that.
struct Patience {
    pause: Option<Duration>,
    over: Option<Pin<Box<Sleep>>>,
}

/// The tool began an answer and did not go on with it.
#[derive(Debug, thiserror::Error)]
#[error("the tool's answer paused for longer than {0:?}")]
struct Paused(Duration);

/// What the call rests on was taken back while it was under way.
#[derive(Debug, thiserror::Error)]
#[error("the call was broken off: {0}")]
struct BrokenOff(Code);

impl Patience {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Paused> {
        let Some(pause) = self.pause else { return Poll::Pending };
        let over = self.over.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        over.as_mut().poll(context).map(|()| Paused(pause))
    }
}
