//! The HTTP server: one task a connection, HTTP/1.1 and HTTP/2 (prior knowledge) told apart by the first bytes.
//!
//! What hyper 1.12 guarantees to a handler, and what it does not, so that `accept` checks the rest:
//! - refused by hyper with 400 and the connection closed: `Content-Length` that differs, repeats differently,
//!   is a list or no number; `Transfer-Encoding` whose last coding is not `chunked`, or on HTTP/1.0;
//!   whitespace before a colon, folded lines, bare CR, NUL and control bytes in values, names that are no token;
//! - `Transfer-Encoding` together with `Content-Length`: hyper reads the body as chunked (RFC 9112 §6.3), hands
//!   the request on *without* `Content-Length`, and closes the connection after the response, so nothing can
//!   follow it; the handler cannot tell that it was there;
//! - not checked by hyper: further codings before `chunked` (`gzip, chunked`), `Host` (missing, repeated, or
//!   other than an absolute-form target or `:authority`), `Expect` other than `100-continue`, the methods
//!   CONNECT and TRACE, the path (any byte above space but DEL may occur; a `#fragment` is cut off silently);
//! - HTTP/2: h2 refuses connection-specific fields, uppercase names and misplaced pseudo-fields.
//!
//! Upgrades never happen: connections are served without hyper's upgrade support, and a handler that
//! answers 101 or 2xx to CONNECT would only break its own connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use crate::listen::{Accepted, Complaints, Endpoint};
use crate::{Body, Peer, Tasks};

/// What one listener gives to all its peers, and to one of them.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections at once; further ones wait in the system's queue.
    pub max_connections: usize,
    /// Until the head of a request is complete. On HTTP/1.1 it is also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Bytes of a request's head (at least 8 KiB). More is answered with 431.
    pub max_header_bytes: usize,
    /// Header fields of a request. More is answered with 431.
    pub max_headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// How often a quiet HTTP/2 peer is asked whether it lives.
    pub ping_interval: Duration,
}

impl Default for ServeLimits {
    /// 4096 connections, 30 s, 32 KiB in 100 fields, 128 streams, a ping each 30 s.
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_streams: 128,
            ping_interval: Duration::from_secs(30),
        }
    }
}

/// Serves until shutdown begins, then lets every connection finish its requests and returns at once;
/// [`Tasks::drain`] waits for the connections. A panic in `handler` ends only its own connection (HTTP/1.1)
/// or stream (HTTP/2).
///
/// When a peer goes away, the future that answers it is dropped at its next await: what has to be finished
/// in any case belongs in a task of its own.
pub async fn serve<E, H, F>(endpoint: E, limits: ServeLimits, tasks: Tasks, handler: H)
where
    E: Into<Endpoint>,
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let endpoint = endpoint.into();
    let soft = tasks.shutdown_token();
    let room = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut complaints = Complaints::default();
    let server = Arc::new(Server { http: http(&limits, &tasks), limits, tasks, handler });
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, endpoint.accept(&mut complaints).await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = soft.cancelled() => return,
        };
        let connection = Arc::clone(&server);
        server.tasks.spawn("connection", async move {
            connection.connection(accepted).await;
            drop(place);
        });
    }
}

struct Server<H> {
    http: auto::Builder<Spawn>,
    limits: ServeLimits,
    tasks: Tasks,
    handler: H,
}

impl<H, F> Server<H>
where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn connection(&self, accepted: Accepted) {
        let soft = self.tasks.shutdown_token();
        let ready = tokio::select! {
            ready = accepted.ready() => ready,
            () = soft.cancelled() => return,
        };
        let (stream, peer) = match ready {
            Ok(ready) => ready,
            Err((peer, error)) => return tracing::debug!(%peer, %error, "no connection"),
        };
        let address = peer.address;
        let max_headers = self.limits.max_headers;
        let handler = self.handler.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            // hyper counts fields on HTTP/1.1 only.
            let handled = (request.headers().len() <= max_headers).then(|| handler(peer.clone(), request));
            async move {
                Ok::<_, Infallible>(match handled {
                    Some(response) => response.await,
                    None => too_many_headers(),
                })
            }
        });
        let io = TokioIo::new(FirstBytes::new(stream, self.limits.header_timeout));
        let mut connection = std::pin::pin!(self.http.serve_connection(io, service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = soft.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %address, %error, "connection ended");
        }
    }
}

fn http(limits: &ServeLimits, tasks: &Tasks) -> auto::Builder<Spawn> {
    let head = limits.max_header_bytes.max(8 * 1024);
    let mut builder = auto::Builder::new(Spawn(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(head)
        .max_headers(limits.max_headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(limits.ping_interval);
    builder
}

fn too_many_headers() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

/// Lets hyper run HTTP/2 streams as our tasks.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2 stream", future);
    }
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes must come in time. hyper's own timer starts only once the version is known,
/// so a peer that connects and says nothing, or half a preface, would otherwise hold its place for ever.
struct FirstBytes<I> {
    inner: I,
    /// `None` once the version is known.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has come.
    matched: usize,
}

impl<I> FirstBytes<I> {
    fn new(inner: I, timeout: Duration) -> Self {
        Self { inner, deadline: Some(Box::pin(tokio::time::sleep(timeout))), matched: 0 }
    }

    fn saw(&mut self, bytes: &[u8]) {
        let expected = HTTP2_PREFACE.get(self.matched..).unwrap_or_default();
        self.matched += bytes.len();
        let undecided = bytes.len() < expected.len() && !bytes.is_empty() && expected.starts_with(bytes);
        if !undecided {
            self.deadline = None;
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for FirstBytes<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else {
            return read;
        };
        if read.is_pending() {
            return deadline
                .as_mut()
                .poll(context)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "no request in time")));
        }
        self.saw(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for FirstBytes<I> {
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

#[cfg(test)]
mod tests;
