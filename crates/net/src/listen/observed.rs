//! A connection as the HTTP library reads it, observed on the way: what the heads of its requests say is noted, and so
//! is the moment at which the peer stops sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::heads::{HeadFault, Heads, Inspector};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What was seen of a connection, for those who answer its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    heads: Heads,
    stopped: Arc<Notify>,
}

impl Observation {
    /// Whether `request`, which the library hands on next, may be answered. HTTP/2 has one framing, and its heads are
    /// not text.
    pub(crate) fn check<B>(&self, request: &http::Request<B>) -> Result<(), HeadFault> {
        if request.version() == http::Version::HTTP_2 { Ok(()) } else { self.heads.check(request) }
    }

    /// Until the peer has stopped sending: it may still wait for an answer, or be gone.
    pub(crate) async fn stopped(&self) {
        self.stopped.notified().await;
    }
}

/// A stream that is observed.
pub(crate) struct Observed<I> {
    inner: I,
    version: Version,
    inspector: Inspector,
    observation: Observation,
}

/// What the peer speaks, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// So much of HTTP/2's preface has come.
    Open(usize),
    Http1,
    Http2,
}

impl<I> Observed<I> {
    /// The library takes `longest` bytes of a head.
    pub(crate) fn new(inner: I, longest: usize) -> (Self, Observation) {
        let observation = Observation::default();
        let inspector = Inspector::new(observation.heads.clone(), longest);
        let observed = Self { inner, version: Version::Open(0), inspector, observation: observation.clone() };
        (observed, observation)
    }

    fn saw(&mut self, bytes: &[u8]) {
        if let Version::Open(matched) = self.version {
            let expected = HTTP2_PREFACE.get(matched..).unwrap_or_default();
            let common = bytes.len().min(expected.len());
            self.version = if bytes.get(..common) != expected.get(..common) {
                self.inspector.saw(HTTP2_PREFACE.get(..matched).unwrap_or_default());
                Version::Http1
            } else if common == expected.len() {
                Version::Http2
            } else {
                Version::Open(matched + common)
            };
        }
        if self.version == Version::Http1 {
            self.inspector.saw(bytes);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Observed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining() > 0;
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            let bytes = buffer.filled().get(before..).unwrap_or_default();
            if bytes.is_empty() && room {
                self.observation.stopped.notify_one();
            } else {
                self.saw(bytes);
            }
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Observed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}
