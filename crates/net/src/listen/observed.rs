//! A connection as the HTTP library reads it, observed on the way: what the heads of its requests say is noted, and a
//! peer that stops sending while it waits for an answer is not taken for gone at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::heads::{HeadFault, Heads, Inspector};

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer that has stopped sending may wait for its answer, and for each further part of it.
const HALF_CLOSED: Duration = Duration::from_secs(3);

/// How long what a peer still sends is taken and thrown away when it was answered before the end of its request: closed
/// at once, the connection would be reset, and the answer lost before it was read.
const LINGER: Duration = Duration::from_secs(3);
/// How much is taken at a time.
const LINGER_BYTES: usize = 16 * 1024;

/// What was seen of a connection, for those who answer its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    heads: Heads,
}

impl Observation {
    /// Whether `request`, which the library hands on next, may be answered. HTTP/2 has one framing, and its heads are
    /// not text.
    pub(crate) fn check<B>(&self, request: &http::Request<B>) -> Result<(), HeadFault> {
        if request.version() == http::Version::HTTP_2 { Ok(()) } else { self.heads.check(request) }
    }
}

/// A stream that is observed.
pub(crate) struct Observed<I, B> {
    inner: I,
    version: Version,
    inspector: Inspector,
    /// Whether a request is being answered.
    busy: B,
    end: End,
    /// Bytes that were sent to the peer.
    taken: u64,
    /// Whether there are more that it has no room for.
    blocked: bool,
    /// Nothing more is sent, and for so long what comes is thrown away.
    lingering: Option<Pin<Box<Sleep>>>,
}

/// What the peer speaks, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// So much of HTTP/2's preface has come.
    Open(usize),
    Http1,
    Http2,
}

/// Whether the peer has stopped sending.
enum End {
    No,
    /// It may wait for an answer, or be gone: nothing tells the two apart but that the latter takes nothing.
    Seen {
        timer: Pin<Box<Sleep>>,
        /// What it had taken when the timer began.
        taken: u64,
    },
    Told,
}

impl<I, B: Fn() -> bool> Observed<I, B> {
    /// The library takes `longest` bytes of a head.
    pub(crate) fn new(inner: I, longest: usize, busy: B) -> (Self, Observation) {
        let observation = Observation::default();
        let inspector = Inspector::new(observation.heads.clone(), longest);
        (
            Self {
                inner,
                version: Version::Open(0),
                inspector,
                busy,
                end: End::No,
                taken: 0,
                blocked: false,
                lingering: None,
            },
            observation,
        )
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

    /// Tells the library that nothing comes any more: at once where nobody waits for an answer to a whole request.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waiting = self.blocked || (self.busy)();
        if self.version != Version::Http1 || self.inspector.is_in_body() || !waiting {
            self.end = End::Told;
        }
        loop {
            match &mut self.end {
                End::Told => return Poll::Ready(()),
                End::Seen { timer, taken } => {
                    ready!(timer.as_mut().poll(context));
                    if *taken == self.taken {
                        self.end = End::Told;
                        continue;
                    }
                }
                End::No => {}
            }
            self.end = End::Seen { timer: Box::pin(tokio::time::sleep(HALF_CLOSED)), taken: self.taken };
        }
    }

    fn sent(&mut self, outcome: &Poll<io::Result<usize>>) {
        self.blocked = outcome.is_pending();
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.taken = self.taken.wrapping_add(*bytes as u64);
        }
    }
}

impl<I: AsyncRead + Unpin, B> Observed<I, B> {
    /// Takes what comes until it ends, or long enough.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [0; LINGER_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<I: AsyncRead + Unpin, B: Fn() -> bool + Unpin> AsyncRead for Observed<I, B> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !matches!(self.end, End::No) {
            return self.poll_end(context).map(Ok);
        }
        let before = buffer.filled().len();
        let room = buffer.remaining() > 0;
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() && room {
            return self.poll_end(context).map(Ok);
        }
        self.saw(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin, B: Fn() -> bool + Unpin> AsyncWrite for Observed<I, B> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.sent(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
        }
        if self.version == Version::Http1 && self.inspector.is_in_body() {
            ready!(self.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.sent(&outcome);
        outcome
    }
}
