//! The HTTP server: one task a connection, HTTP/1.1 and HTTP/2 (prior knowledge) told apart by the first bytes.
//!
//! What hyper 1.12 guarantees to a handler, and what it does not, so that `accept` checks the rest:
//! - refused by hyper with 400 and the connection closed: `Content-Length` that differs, repeats differently,
//!   is a list or no number; `Transfer-Encoding` whose last coding is not `chunked`, or on HTTP/1.0;
//!   whitespace before a colon, folded lines, bare CR, NUL and control bytes in values, names that are no token;
//! - refused here, because hyper would hand it on without a trace of it: `Transfer-Encoding` together with
//!   `Content-Length`, and a fragment in the target (HTTP/1; over HTTP/2 a fragment is cut off silently);
//! - not checked by hyper: further codings before `chunked` (`gzip, chunked`), `Host` (missing, repeated, or
//!   other than an absolute-form target or `:authority`), `Expect` other than `100-continue`, the methods
//!   CONNECT and TRACE, the path (any byte above space but DEL may occur);
//! - HTTP/2: h2 refuses connection-specific fields, uppercase names and misplaced pseudo-fields.
//!
//! Upgrades never happen: connections are served without hyper's upgrade support, and a handler that
//! answers 101 or 2xx to CONNECT would only break its own connection.

mod activity;
mod census;
mod patience;
mod settings;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio_util::sync::CancellationToken;

pub use census::Census;

use self::activity::{Activity, Watched};
use self::patience::Patient;
use self::settings::Spawn;
use crate::listen::{Accepted, Complaints, Endpoint, HeadFault, Observed, Ready};
use crate::peer::PeerAddress;
use crate::share::{Place, Sharer, Shares};
use crate::tls::server::Standing;
use crate::{Body, Peer, Tasks, clock};

/// How long a connection that was asked to end, and on which nothing happens, may take to do so.
const PARTING: Duration = Duration::from_secs(5);

/// How long who came while shutdown began may take to say what it wants: it could not know.
const ARRIVING: Duration = Duration::from_millis(200);

/// How long answers may go on after the client's certificate has ended, or its authority was taken away.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What one listener gives to all its peers, and to one of them.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections at once; further ones wait in the system's queue.
    pub max_connections: usize,
    /// TLS handshakes in progress at once; further ones wait.
    pub max_handshakes: usize,
    /// How much of both one peer (an address, or a user of this machine) may have, in percent. Its connections beyond
    /// that are closed at once.
    pub peer_share: u8,
    /// Until the TLS handshake is done, and from there until the head of a request is complete. On HTTP/1.1 the latter
    /// is also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Bytes of a request's head (at least 8 KiB). More is answered with 431.
    pub max_header_bytes: usize,
    /// Header fields of a request. More is answered with 431.
    pub max_headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what is sent to it: a connection whose bytes it does not take ends, and an
    /// HTTP/2 stream that it gives no window is reset.
    pub stall_timeout: Duration,
    /// Where it is counted what comes and goes.
    pub census: Census,
}

impl Default for ServeLimits {
    /// 4096 connections, 256 handshakes, of both three quarters for one peer; 30 s and 32 KiB in 100 fields for a head;
    /// 128 streams; 60 s for what is idle or stalled.
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_handshakes: 256,
            peer_share: 75,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_streams: 128,
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            census: Census::default(),
        }
    }
}

/// `percent` of `total`, but something.
#[must_use]
pub fn share_of(total: usize, percent: u8) -> usize {
    (total.saturating_mul(usize::from(percent)) / 100).clamp(1, total.max(1))
}

/// Serves until shutdown begins, and whoever had come by then, or comes in that moment; lets every connection finish its
/// requests and returns; [`Tasks::drain`] waits for the connections. A panic in `handler` ends only its own connection (HTTP/1.1)
/// or stream (HTTP/2).
///
/// When a peer goes away, the future that answers it is dropped at its next await; on HTTP/1.1 that may be noticed only
/// when something is sent to it, or a few seconds later. What has to be finished in any case belongs in a task of its
/// own.
pub async fn serve<E, H, F>(endpoint: E, limits: ServeLimits, tasks: Tasks, handler: H)
where
    E: Into<Endpoint>,
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let endpoint = endpoint.into();
    let soft = tasks.shutdown_token();
    let connections = Shares::new(limits.max_connections, share_of(limits.max_connections, limits.peer_share));
    let handshakes = Shares::new(limits.max_handshakes, share_of(limits.max_handshakes, limits.peer_share));
    let mut complaints = Complaints::default();
    let http = settings::builder(&limits, &tasks);
    let server = Arc::new(Server { http, limits, handshakes, tasks, handler });
    let mut closing = std::pin::pin!(arrived(&soft));
    loop {
        let next = async {
            let room = connections.room().await;
            (room, endpoint.accept(&mut complaints).await)
        };
        // Who waits in the system's queue when it is closed is cut off, after it was told that it is connected.
        let (room, accepted) = tokio::select! {
            biased;
            next = next => next,
            () = closing.as_mut() => return,
        };
        let sharer = Sharer::at(&address(&accepted));
        let Some(Ok(place)) = room.map(|room| room.give(sharer.clone())) else {
            server.limits.census.refused();
            continue;
        };
        let connection = Arc::clone(&server);
        server.tasks.spawn("connection", async move { connection.connection(accepted, sharer, place).await });
    }
}

fn address(accepted: &Accepted) -> PeerAddress {
    match accepted {
        Accepted::Tcp(_, address) | Accepted::Tls(_, address, _) => PeerAddress::Tcp(*address),
        Accepted::Unix(_, address) => *address,
    }
}

struct Server<H> {
    http: auto::Builder<Spawn>,
    limits: ServeLimits,
    handshakes: Shares<Sharer>,
    tasks: Tasks,
    handler: H,
}

impl<H, F> Server<H>
where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn connection(&self, accepted: Accepted, sharer: Sharer, _place: Place<Sharer>) {
        let _counted = self.limits.census.connection();
        let soft = self.tasks.shutdown_token();
        let ready = async {
            let shaking = match &accepted {
                Accepted::Tls(..) => self.handshakes.take(sharer).await,
                Accepted::Tcp(..) | Accepted::Unix(..) => None,
            };
            let counted = shaking.map(|place| (place, self.limits.census.handshake()));
            let ready = accepted.ready().await;
            drop(counted);
            ready
        };
        let ready = tokio::select! {
            ready = tokio::time::timeout(self.limits.header_timeout, ready) => ready,
            () = arrived(&soft) => return,
        };
        match ready {
            Ok(Ok(ready)) => self.http(ready).await,
            Ok(Err((peer, error))) => {
                self.limits.census.unshaken();
                tracing::debug!(%peer, %error, "no connection");
            }
            Err(_) => self.limits.census.unshaken(),
        }
    }

    async fn http(&self, Ready { stream, peer, standing }: Ready) {
        let soft = self.tasks.shutdown_token();
        let address = peer.address;
        let ServeLimits { max_headers, header_timeout, idle_timeout, stall_timeout, .. } = self.limits;
        let handler = self.handler.clone();
        let client = standing.clone();
        let activity = Arc::new(Activity::default());
        let (requests, answering) = (Arc::clone(&activity), Arc::clone(&activity));
        // More than hyper's buffer takes, so that the two never disagree about a long line.
        let longest = 4 * settings::head_bytes(&self.limits);
        let (observed, observation) = Observed::new(stream, longest, move || answering.is_open());
        let service = service_fn(move |request: Request<Incoming>| {
            let open = requests.open();
            let handled = match observation.check(&request) {
                Err(fault) => Err(misread(fault)),
                Ok(()) if client.as_ref().is_some_and(|client| !client.holds(clock::now())) => Err(misdirected()),
                // hyper counts fields on HTTP/1.1 only.
                Ok(()) if request.headers().len() > max_headers => Err(too_many_headers()),
                // Boxed: the library moves what answers a request several times.
                Ok(()) => Ok(Box::pin(handler(peer.clone(), request))),
            };
            async move {
                let response = match handled {
                    Ok(response) => response.await,
                    Err(refusal) => refusal,
                };
                Ok::<_, Infallible>(response.map(|body| Watched::new(body, open)))
            }
        });
        let io = TokioIo::new(Patient::new(observed, header_timeout, stall_timeout));
        let mut connection = std::pin::pin!(self.http.serve_connection(io, service));
        let mut outcome = tokio::select! {
            biased;
            outcome = connection.as_mut() => Some(outcome),
            () = stopping(&soft, &activity) => None,
            () = activity.idle(idle_timeout) => None,
            () = over(standing.as_deref()) => None,
        };
        if outcome.is_none() {
            connection.as_mut().graceful_shutdown();
            // An HTTP/2 peer may leave the farewell unanswered.
            outcome = tokio::select! {
                biased;
                outcome = connection.as_mut() => Some(outcome),
                () = activity.idle(PARTING.min(idle_timeout)) => None,
                () = long_over(standing.as_deref()) => None,
            };
        }
        if let Some(Err(error)) = outcome {
            broke(address, &*error);
        }
    }
}

/// Once shutdown began, and who came in that moment had time to arrive.
async fn arrived(soft: &CancellationToken) {
    soft.cancelled().await;
    tokio::time::sleep(ARRIVING).await;
}

/// Once shutdown began; on a connection that was asked nothing yet, a moment later.
async fn stopping(soft: &CancellationToken, activity: &Activity) {
    soft.cancelled().await;
    if activity.is_fresh() {
        tokio::time::sleep(ARRIVING).await;
    }
}

fn broke(peer: PeerAddress, error: &(dyn std::error::Error + Send + Sync)) {
    tracing::debug!(%peer, %error, "connection ended");
}

/// Once the client's certificate is no longer good.
async fn over(standing: Option<&Standing>) {
    match standing {
        Some(standing) => standing.over().await,
        None => std::future::pending().await,
    }
}

/// And then once more, when answers that were on their way had time to end.
async fn long_over(standing: Option<&Standing>) {
    over(standing).await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// As short as what hyper says of a request that it refuses itself, and with the reason.
fn misread(fault: HeadFault) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{fault}\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    // Where the next request would begin is not sure.
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// RFC 9110 §15.5.20: the request is as good as before on another connection, if its client has a certificate that is.
fn misdirected() -> Response<Body> {
    let mut response = Response::new(Body::full("The client certificate of this connection is no longer good.\n"));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn too_many_headers() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

#[cfg(test)]
mod tests;
