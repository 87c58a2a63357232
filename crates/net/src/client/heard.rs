//! When a connection was last heard from: whether a server that hung up had begun to answer decides what may be sent
//! again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;

/// When bytes last came over a connection. Clones are of the same connection.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    opened: Instant,
    /// In nanoseconds since then, and one more; zero: never.
    last: Arc<AtomicU64>,
}

impl Heard {
    fn new() -> Self {
        Self { opened: clock::monotonic(), last: Arc::default() }
    }

    fn now(&self) {
        self.last.store(self.nanoseconds(clock::monotonic()), Ordering::Release);
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.opened).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether something came before `moment`, and nothing from then on.
    pub(super) fn only_before(&self, moment: Instant) -> bool {
        (1..self.nanoseconds(moment)).contains(&self.last.load(Ordering::Acquire))
    }
}

/// A connection that notes when it is heard from.
pub(crate) struct Listening<S> {
    io: TokioIo<S>,
    heard: Heard,
}

impl<S> Listening<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io: TokioIo::new(io), heard: Heard::new() }
    }
}

impl<S: Connection> Connection for Listening<S> {
    fn connected(&self) -> Connected {
        self.io.inner().connected().extra(self.heard.clone())
    }
}

impl<S: hyper::rt::Read + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        // The end of a stream is nothing that was said.
        if buffer.filled().len() > before {
            self.heard.now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: hyper::rt::Write + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
