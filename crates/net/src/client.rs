//! The HTTP client: pooled connections, HTTP/1.1 and HTTP/2 by ALPN, and errors that say what was sent.
//!
//! It follows no redirect, reads no proxy from the environment, keeps no cookie and repeats nothing. What
//! a caller has to know after a failure is whether the request can have reached the other side.

pub(crate) mod heard;
pub(crate) mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Extensions, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::Resumption;

use self::heard::Heard;
use self::tls::{ClientTls, Shown};
use crate::connect::{Connector, Forbidden};
use crate::url::{UrlTrust, check_learned_url, redacted};
use crate::{Body, clock, with_causes};

/// How often a quiet HTTP/2 server with open requests is asked whether it lives, and how long it may take.
const HTTP2_PING: Duration = Duration::from_secs(15);

/// How much of one HTTP/2 response may wait for whoever reads it, in bytes.
const HTTP2_RESPONSE_WINDOW: u32 = 256 * 1024;

/// How much of all responses of one HTTP/2 connection may wait: room for thousands that nobody reads, so that those
/// cannot hold up the others that share the connection. What bounds the sum is how many calls there may be at once.
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024 * 1024;

/// TLS sessions that a pool keeps for resumption.
const SESSIONS: usize = 32;

/// How a client connects and what it keeps.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Whom it believes: see [`crate::tls::client_config`].
    pub tls: ClientConfig,
    /// Who wrote the URLs it will be given. Connections are never shared between clients, so a learned
    /// URL cannot ride on a connection that an operator's URL opened.
    pub trust: UrlTrust,
    /// For resolving, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Shorter than common servers' own, which lessens the chance
    /// of picking one that the server is just closing.
    pub pool_idle_timeout: Duration,
    /// How many unused connections are kept for one host.
    pub pool_idle_per_host: usize,
    /// The largest response head, in bytes (at least 8 KiB).
    pub max_response_header_bytes: usize,
    /// Whether servers are known to speak HTTP/2, so that it is spoken in clear text too (RFC 9113 §3.3).
    pub prior_knowledge: bool,
}

impl ClientOptions {
    /// Defaults: 5 s to connect, 15 s idle, 512 unused connections per host, 64 KiB of response head.
    #[must_use]
    pub fn new(tls: ClientConfig, trust: UrlTrust) -> Self {
        Self {
            tls,
            trust,
            connect_timeout: Duration::from_secs(5),
            pool_idle_timeout: Duration::from_secs(15),
            pool_idle_per_host: 512,
            max_response_header_bytes: 64 * 1024,
            prior_knowledge: false,
        }
    }
}

/// Why there is no response. Texts name the URL without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not one byte of the request was written, or the server says that it looked at none: it had no effect.
    #[error("{url}: not sent: {cause}")]
    NotSent {
        /// Where it should have gone.
        url: String,
        /// What kept it.
        reason: NotSentReason,
        /// The same for a person.
        cause: String,
    },
    /// The connection failed when some of the request may have been written: it may have taken effect.
    #[error("{url}: interrupted: {cause}")]
    Interrupted {
        /// Where it went.
        url: String,
        /// Whether it went over an HTTP/1 connection that was kept from an earlier request, and not a byte came back:
        /// as where the server hung up on an unused connection just when it was picked. Repeating what only reads is
        /// as good as sending it once.
        unheard: bool,
        /// For a person.
        cause: String,
    },
    /// No response head in time. The request may have been written, and may take effect yet.
    #[error("{url}: no response within {after:?}")]
    Timeout {
        /// Where it went.
        url: String,
        /// How long was waited.
        after: Duration,
    },
}

/// What kept a request from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSentReason {
    /// The URL is malformed or, for a learned one, not allowed.
    Refused,
    /// No connection: the name did not resolve, nobody listens, or TLS failed.
    Unreachable,
    /// The server closed an unused connection just when it was picked; another attempt will open a new one.
    StaleConnection,
    /// The server refused it unprocessed (RFC 9113 §8.7).
    Unprocessed,
}

impl SendError {
    /// Whether the request provably had no effect.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        matches!(self, Self::NotSent { .. })
    }

    /// Whether it is the connection that was at fault, and none of an answer came: what only reads and has no body may
    /// be sent once more.
    #[must_use]
    pub fn is_of_the_connection(&self) -> bool {
        match self {
            Self::NotSent { reason, .. } => {
                matches!(reason, NotSentReason::StaleConnection | NotSentReason::Unprocessed)
            }
            Self::Interrupted { unheard, .. } => *unheard,
            Self::Timeout { .. } => false,
        }
    }
}

/// A pool of connections. Clones share it.
#[derive(Clone)]
pub struct HttpClient {
    pool: Arc<ArcSwap<Pool>>,
    /// Whom all clients of one family believe.
    believed: Arc<ArcSwap<ClientConfig>>,
    /// What this one's server is shown and held to beside that.
    own: Option<Arc<ClientTls>>,
    options: Arc<ClientOptions>,
}

/// Whom a family of clients believed at some moment: equal until somebody else is.
#[derive(Clone)]
pub struct Believed(Arc<ClientConfig>);

impl PartialEq for Believed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Connections that were all made with the same TLS configuration.
struct Pool {
    client: Client<Connector, Body>,
    believed: Arc<ClientConfig>,
    shown: Option<Arc<Shown>>,
}

impl HttpClient {
    /// A client without connections yet. Must be used inside a tokio runtime.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        let believed = Arc::new(ArcSwap::from_pointee(options.tls.clone()));
        Self::with(believed, None, Arc::new(options))
    }

    /// A client of the same family with connections of its own, which no other client's requests travel on. It
    /// believes whom the family believes, unless `own` says otherwise.
    #[must_use]
    pub fn apart(&self, own: Option<Arc<ClientTls>>) -> Self {
        Self::with(Arc::clone(&self.believed), own, Arc::clone(&self.options))
    }

    /// The same for a server in clear text that is known to speak HTTP/2.
    #[must_use]
    pub fn apart_with_prior_knowledge(&self) -> Self {
        let options = ClientOptions { prior_knowledge: true, ..ClientOptions::clone(&self.options) };
        Self::with(Arc::clone(&self.believed), None, Arc::new(options))
    }

    fn with(believed: Arc<ArcSwap<ClientConfig>>, own: Option<Arc<ClientTls>>, options: Arc<ClientOptions>) -> Self {
        let shown = own.as_ref().map(|own| own.current());
        let pool = Arc::new(ArcSwap::from_pointee(Pool::new(&options, believed.load_full(), shown)));
        Self { pool, believed, own, options }
    }

    /// The whole family believes what `tls` says from the next request on. Requests under way are finished; no
    /// connection that was opened before is used again.
    pub fn believe(&self, tls: ClientConfig) {
        self.believed.store(Arc::new(tls));
    }

    /// Whom the family believes now.
    #[must_use]
    pub fn believed(&self) -> Believed {
        Believed(self.believed.load_full())
    }

    /// The connections that may be used now: none that was made when somebody else was believed, or shown.
    fn pool(&self) -> Arc<Pool> {
        let pool = self.pool.load_full();
        let shown = self.own.as_ref().map(|own| own.current());
        let same_shown = match (&pool.shown, &shown) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if same_shown && Arc::ptr_eq(&pool.believed, &self.believed.load()) {
            return pool;
        }
        let pool = Arc::new(Pool::new(&self.options, self.believed.load_full(), shown));
        self.pool.store(Arc::clone(&pool));
        pool
    }

    /// Sends one request, once, and returns when the response's head is there; its body streams.
    /// `header_timeout` covers everything until then, connecting included; with [`Duration::MAX`] there is none.
    ///
    /// The URL must be absolute. The request's HTTP version is ours to choose and is ignored; `Host` is
    /// added unless present. Dropping the future gives the request up, possibly half sent.
    ///
    /// # Errors
    /// Says whether the request can have reached the other side.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        header_timeout: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        self.check(request.uri())?;
        let url = request.uri().clone();
        // A version copied from an inbound request would be refused on a connection of another version.
        *request.version_mut() = Version::HTTP_11;
        let begun = clock::monotonic();
        let sending = self.pool().client.request(request);
        let sent = match header_timeout {
            // Whoever has a clock of their own needs no second one.
            Duration::MAX => Ok(sending.await),
            header_timeout => tokio::time::timeout(header_timeout, sending).await,
        };
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                // Of a connection over which nothing was negotiated the library does not say what it speaks.
                let begun = (!self.options.prior_knowledge).then_some(begun);
                Err(classified(redacted(&url), &error, begun))
            }
            Err(_) => Err(SendError::Timeout { url: redacted(&url), after: header_timeout }),
        }
    }

    fn check(&self, url: &Uri) -> Result<(), SendError> {
        let refused = |cause: String| SendError::NotSent { url: redacted(url), reason: NotSentReason::Refused, cause };
        match self.options.trust {
            UrlTrust::Learned => check_learned_url(url).map_err(|error| refused(error.to_string())),
            UrlTrust::Operator if url.scheme().is_none() || url.host().is_none_or(str::is_empty) => {
                Err(refused("not an absolute URL".to_owned()))
            }
            UrlTrust::Operator => Ok(()),
        }
    }
}

impl Pool {
    fn new(options: &ClientOptions, believed: Arc<ClientConfig>, shown: Option<Arc<Shown>>) -> Self {
        let mut tls = shown.as_ref().map_or_else(|| ClientConfig::clone(&believed), |shown| shown.over(&believed));
        // No session of another pool is resumed in this one: a resumed session is neither verified again nor shown a
        // certificate.
        tls.resumption = Resumption::in_memory_sessions(SESSIONS);
        let head = options.max_response_header_bytes.max(8 * 1024);
        let connector = Connector::new(tls, options.trust, options.connect_timeout);
        // Connections run on tokio directly and not as `Tasks`: an unused one would hold up shutdown.
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(options.pool_idle_timeout)
            .pool_max_idle_per_host(options.pool_idle_per_host)
            // hyper-util would send a request again only when it comes back untouched from a reused
            // connection, which is safe by itself. But withdrawals must be looked at before every attempt,
            // and that look belongs to the caller: it gets `StaleConnection` and decides.
            .retry_canceled_requests(false)
            // Without it a dead HTTP/2 connection stays in the pool, and every request on it times out.
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING)
            .http2_initial_stream_window_size(HTTP2_RESPONSE_WINDOW)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .http2_only(options.prior_knowledge)
            .http1_max_buf_size(head)
            .http2_max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
        Self { client: builder.build(connector), believed, shown }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpClient").field("trust", &self.options.trust).finish_non_exhaustive()
    }
}

/// `begun` is when the request was handed over, where that may have been over HTTP/1: before it no connection can have
/// answered it.
fn classified(url: String, error: &legacy::Error, begun: Option<Instant>) -> SendError {
    let cause = with_causes(error);
    let reason = if find::<Forbidden>(error).is_some() {
        NotSentReason::Refused
    } else if error.is_connect() {
        NotSentReason::Unreachable
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_canceled) {
        // hyper reports "canceled" only together with the untouched request: the connection ended before
        // it took the request from its queue. Everything else counts as possibly written.
        NotSentReason::StaleConnection
    } else if find::<h2::Error>(error).is_some_and(is_refused) {
        NotSentReason::Unprocessed
    } else {
        return SendError::Interrupted { url, unheard: begun.is_some_and(|begun| is_unheard(error, begun)), cause };
    };
    SendError::NotSent { url, reason, cause }
}

fn is_unheard(error: &legacy::Error, begun: Instant) -> bool {
    let Some(connected) = error.connect_info().filter(|connected| !connected.is_negotiated_h2()) else { return false };
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<Heard>().is_some_and(|heard| heard.only_before(begun))
}

/// Whether the other side said that it did nothing with the request.
fn is_refused(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests;
