//! The management API (`/v1`): who withdraws, enrols, registers, grants and starts, one file a route.
//!
//! The straight line of each request: there is room, it is somebody's, they have quota left, the body is JSON, the
//! route does it. What it did is on record before the answer.

mod agents;
mod alerts;
mod body;
pub(crate) mod caller;
mod changes;
mod enrol;
mod grants;
mod heads;
mod ledgers;
mod limits;
mod object;
mod openapi;
mod page;
mod pins;
pub(crate) mod problem;
mod query;
pub(crate) mod quota;
mod records;
mod route;
pub(crate) mod shipped;
mod sidecars;
mod tasks;
pub(crate) mod tool_keys;
mod withdrawals;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use model::Id;
use net::{Body, BoxError, Peer, Shares, body::CollectError};
use opentelemetry::{KeyValue, metrics::Counter};
use serde_json::Value;
use store::{Sidecar, Writer};
use tokio::sync::Semaphore;

use self::{
    caller::Caller,
    problem::{Code, Problem},
    query::Query,
    quota::Quotas,
    route::Route,
};
use crate::{Authority, refused::json_response};

/// The largest body.
const MAX_BODY_BYTES: usize = 128 * 1024;
/// How long a client may take to send it.
const MAX_BODY_TIME: Duration = Duration::from_secs(10);
/// Requests that go on at once.
const AT_ONCE: usize = 256;
/// The most of them of one principal.
const EACH_AT_ONCE: usize = 16;
/// Sidecars' long polls that go on at once.
const FOLLOW_AT_ONCE: usize = 8_192;
/// The most of them of one sidecar: it may ask anew before it knows that it was answered.
const EACH_FOLLOWS: usize = 4;
/// Chunks of ledgers that are received at once: each may take some megabytes.
const CHUNKS_AT_ONCE: usize = 16;
/// Things that sidecars tell of their ledgers at once.
const UPLINKS_AT_ONCE: usize = 128;
/// The most of them of one sidecar.
const EACH_UPLINKS: usize = 4;
/// Tasks that one agent may start by itself in a second, over a while.
const STARTS_PER_SECOND: u32 = 10;
/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 200;

/// What bounds the API and counts it.
pub(crate) struct Api {
    /// For whoever it is; tokens that are none take room too while they are verified.
    room: Arc<Semaphore>,
    own: Shares<String>,
    quotas: Quotas<String>,
    /// Sidecars' long polls, which take room of their own.
    followers: Shares<Id<Sidecar>>,
    /// What sidecars tell of their ledgers, likewise.
    uplinks: Shares<Id<Sidecar>>,
    forks: heads::Forks,
    /// What sidecars are told of bundles that stay at a revision.
    pins: pins::View,
    /// Chunks of ledgers that may be in memory at once.
    chunks: Arc<Semaphore>,
    /// Searches of what was shipped: those under way, and those that can go on.
    searching: Arc<Semaphore>,
    searches: records::Searches,
    /// Questions for slices of limits, and of calls that are charged once: each take room of their own.
    leases: limits::Questions,
    charges: limits::Questions,
    /// Tasks that agents start by themselves, by agent.
    starting: Quotas<String>,
    /// What sidecars say of outages of their ledgers.
    outages: Quotas<Id<Sidecar>>,
    requests: Counter<u64>,
}

impl Api {
    pub(crate) fn new(requests_per_second: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(AT_ONCE)),
            own: Shares::new(AT_ONCE, EACH_AT_ONCE),
            quotas: Quotas::new(requests_per_second),
            followers: Shares::new(FOLLOW_AT_ONCE, EACH_FOLLOWS),
            uplinks: Shares::new(UPLINKS_AT_ONCE, EACH_UPLINKS),
            forks: heads::Forks::new(),
            pins: pins::View::default(),
            chunks: Arc::new(Semaphore::new(CHUNKS_AT_ONCE)),
            searching: Arc::new(Semaphore::new(records::AT_ONCE)),
            searches: records::Searches::default(),
            leases: limits::Questions::for_slices(),
            charges: limits::Questions::of_charges(),
            starting: Quotas::new(STARTS_PER_SECOND),
            outages: Quotas::new(alerts::OUTAGES_PER_SECOND),
            requests: opentelemetry::global::meter("countersign")
                .u64_counter("countersign_management")
                .with_description("Requests of the management API, by route and code.")
                .build(),
        }
    }
}

impl Api {
    /// Whether `agent` may start one more task by itself; or the seconds until it may.
    pub(crate) fn starts(&self, agent: &str, now: Timestamp) -> Result<(), u64> {
        self.starting.take(agent.to_owned(), now)
    }
}

/// A request whose caller is known and whose body was read.
pub(crate) struct Call {
    /// Who asks.
    pub(crate) caller: Caller,
    /// Its query.
    pub(crate) query: Query,
    /// Its body.
    pub(crate) body: Bytes,
    /// The caller's own name for this write.
    pub(crate) idempotency: Option<String>,
    /// The moment.
    pub(crate) now: Timestamp,
}

impl Authority {
    /// Answers a request below `/v1`; `path` is what follows that.
    pub(crate) async fn manage<B>(&self, path: &str, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (name, outcome) = match Route::at(path) {
            Ok(route) => (route.name(), self.routed(&route, peer, request).await),
            Err(problem) => ("none", Err(problem)),
        };
        let code = outcome.as_ref().map_or_else(Problem::code, |_| "ok");
        self.api.requests.add(1, &[KeyValue::new("route", name), KeyValue::new("code", code)]);
        outcome.unwrap_or_else(|problem| problem.response())
    }

    async fn routed<B>(&self, route: &Route, peer: &Peer, request: Request<B>) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        if !route.methods().contains(&head.method) {
            let methods: Vec<_> = route.methods().iter().map(Method::as_str).collect();
            let mut response = Problem::new(Code::MethodNotAllowed, "The method does nothing here.").response();
            if let Ok(allow) = methods.join(", ").parse() {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            return Ok(response);
        }
        match route {
            Route::LedgerSegments => {
                return self.segments(&head.method, &head.headers, head.uri.query(), body).await;
            }
            Route::LedgerErasures => return self.erasures(&head.headers, body).await,
            Route::LedgerHeads => return self.anchor(&head.headers, body).await,
            Route::Alerts => return self.alarmed(&head.headers, body).await,
            Route::Limits => return self.lease(&head.headers, body).await,
            Route::Charges => return self.charge(&head.headers, body).await,
            Route::Changes => return self.follow(&head.headers, head.uri.query()).await,
            Route::Description => return Ok(json_response(StatusCode::OK, openapi::document())),
            Route::Enrol => return self.join(peer, &head.headers, body).await,
            _ => {}
        }
        let now = net::clock::now();
        let _room = Arc::clone(&self.api.room).try_acquire_owned().map_err(|_| full())?;
        let caller = self.caller(&head.headers, route.operation(&head.method), now).await?;
        let _place = self.api.own.try_take(caller.key(), 1).map_err(|_| {
            Problem::new(Code::TooMany, format!("More than {EACH_AT_ONCE} of your requests are under way."))
        })?;
        self.api
            .quotas
            .take(caller.key(), now)
            .map_err(|seconds| Problem::new(Code::TooMany, "You ask more often than is allowed.").after(seconds))?;
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let idempotency = idempotency(&head.headers)?;
        let body = read(&head.headers, body).await?;
        // Anew: verifying the token and reading the body may take a moment.
        let call = Call { caller, query, body, idempotency, now: net::clock::now() };
        match self.answer(route, &head.method, &call).await {
            Ok(answer) => Ok(answer.response()),
            Err(problem) => {
                tracing::info!(
                    route = route.name(),
                    caller = call.caller.name(),
                    code = problem.code(),
                    detail = problem.detail(),
                    "a request of the management API is refused"
                );
                Err(problem)
            }
        }
    }

    async fn join<B>(&self, peer: &Peer, headers: &HeaderMap, body: B) -> Result<Response<Body>, Problem>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let _room = self.doors.joining.enter(peer, net::clock::now())?;
        let body = read(headers, body).await?;
        self.enrol(peer, &body, net::clock::now()).await.map(|answer| answer.response())
    }

    /// Returns when everything up to `position` is on record: before that, nothing is answered.
    pub(crate) async fn recorded(&self, position: u64) -> Result<(), Problem> {
        self.recorder.up_to(position).await.map_err(|error| {
            // It holds all the same; the record follows, and the same request with the same key is answered then.
            Problem::unavailable("the record of what was done", &error)
        })
    }
}

impl Call {
    /// The caller, as whoever writes to the store.
    pub(crate) fn writer(&self, reason: Option<String>) -> Writer {
        Writer { by: self.caller.name(), reason, now: self.now, idempotency: self.idempotency.clone() }
    }
}

/// What a route answers.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    body: Value,
    replayed: bool,
}

impl Answer {
    /// What was asked for.
    pub(crate) const fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, replayed: false }
    }

    /// What was made.
    pub(crate) const fn created(body: Value) -> Self {
        Self { status: StatusCode::CREATED, body, replayed: false }
    }

    /// The same, of what was made.
    #[must_use]
    pub(crate) const fn for_new(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self
    }

    /// The same; `replayed` where it is the answer to an earlier request with the same key.
    #[must_use]
    pub(crate) const fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    fn response(&self) -> Response<Body> {
        let mut response = json_response(self.status, &self.body);
        if self.replayed {
            let name = header::HeaderName::from_static("idempotency-replayed");
            response.headers_mut().insert(name, header::HeaderValue::from_static("true"));
        }
        response
    }
}

fn full() -> Problem {
    Problem::new(Code::Overloaded, "Too many requests are under way; try again in a moment.")
}

/// The caller's own name for a write.
fn idempotency(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
            let key = key.ok_or_else(|| {
                Problem::invalid(format!("`Idempotency-Key` has to be 1 to {MAX_KEY_BYTES} printable characters"))
            })?;
            Ok(Some(key.to_owned()))
        }
        (Some(_), Some(_)) => Err(Problem::invalid("`Idempotency-Key` is there twice")),
    }
}

/// The whole body, which has to say that it is JSON where there is one.
async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let body = match tokio::time::timeout(MAX_BODY_TIME, net::body::collect(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(CollectError::TooLarge { limit })) => {
            return Err(Problem::new(Code::TooLarge, format!("The body is larger than {limit} bytes.")));
        }
        Ok(Err(CollectError::Broken { .. })) => return Err(Problem::invalid("the body broke off")),
        Err(_) => return Err(Problem::invalid("the body did not arrive in time")),
    };
    // A form or plain text is what a browser sends across sites without asking first.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if body.is_empty() || kind.eq_ignore_ascii_case("application/json") {
        Ok(body)
    } else {
        Err(Problem::new(Code::NotJson, "`Content-Type` has to be `application/json`."))
    }
}
