//! Whether anything still happens on a connection, and on each stream of it: a connection nobody uses is closed, and a
//! response that its peer does not take is given up.
//!
//! Nothing here reads a clock when a call passes: calls leave marks, and whoever waits looks for new ones.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{Body, BoxError};

/// Looks that have to find nothing before a connection counts as idle.
const LOOKS: u32 = 4;

tokio::task_local! {
    /// The stream that the running task answers. HTTP/1.1 has none: there the connection itself stalls.
    static STREAM: Arc<Progress>;
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    open: AtomicUsize,
    opened: AtomicUsize,
}

impl Activity {
    /// A request begins; it ends when what is returned is dropped.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Whether a request is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Whether none was ever opened.
    pub(super) fn is_fresh(&self) -> bool {
        self.opened.load(Ordering::Relaxed) == 0
    }

    /// Returns once no request was open for `bound`, or up to a quarter longer.
    pub(super) async fn idle(&self, bound: Duration) {
        let mut seen = self.opened.load(Ordering::Relaxed);
        let mut quiet = 0;
        while quiet < LOOKS {
            tokio::time::sleep(bound / LOOKS).await;
            let opened = self.opened.load(Ordering::Relaxed);
            let still = opened == seen && self.open.load(Ordering::Relaxed) == 0;
            quiet = if still { quiet + 1 } else { 0 };
            seen = opened;
        }
    }
}

/// A request that is not answered to the end yet.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far the response of one stream is. The lowest bit says whether the next step is the peer's; the others count steps.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    const PEERS: u64 = 1;

    fn step(&self, peers: bool) {
        let steps = self.0.load(Ordering::Relaxed) & !Self::PEERS;
        self.0.store(steps.wrapping_add(2) | u64::from(peers), Ordering::Relaxed);
    }

    /// Runs `stream` to its end, or until its peer took nothing of it for `bound`, or up to twice as long. Whether it
    /// came to its end.
    pub(super) async fn watch(bound: Duration, stream: impl Future<Output = ()>) -> bool {
        let progress = Arc::new(Self::default());
        let stalled = Arc::clone(&progress);
        tokio::select! {
            biased;
            () = STREAM.scope(progress, stream) => true,
            () = stalled.stalled(bound) => false,
        }
    }

    async fn stalled(&self, bound: Duration) {
        let mut before = 0;
        loop {
            tokio::time::sleep(bound).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before && now & Self::PEERS == Self::PEERS {
                return;
            }
            before = now;
        }
    }
}

/// What a peer over HTTP/2 has to take at a time: one that is slow and takes something is not given up.
const PIECE: usize = 16 * 1024;

/// A response body on its way, which tells how far it is.
pub(super) struct Watched {
    inner: Body,
    /// What is left of a frame that was cut into pieces.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    _open: Open,
}

impl Watched {
    /// In the task that answers the request.
    pub(super) fn new(inner: Body, open: Open) -> Self {
        let progress = STREAM.try_with(Arc::clone).ok();
        if let Some(progress) = &progress {
            progress.step(true);
        }
        Self { inner, rest: Bytes::new(), progress, _open: open }
    }

    /// The frame, or its first piece.
    fn piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(mut data) if data.len() > PIECE => {
                self.rest = data.split_off(PIECE);
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(trailers) => trailers,
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(progress) = self.progress.clone() else {
            return Pin::new(&mut self.inner).poll_frame(context);
        };
        let frame = if self.rest.is_empty() {
            Pin::new(&mut self.inner).poll_frame(context)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))))
        };
        progress.step(frame.is_ready());
        frame.map_ok(|frame| self.piece(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
