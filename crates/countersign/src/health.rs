//! The health listener: `/livez`, `/readyz` and `/metrics`, and nothing else. It is the only thing that the network
//! may see, so it says what state the parts are in and never what passed through them.

pub(crate) mod hosts;
pub(crate) mod probe;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use net::{Body, Endpoint, LocalAddress, ServeLimits, Tasks};
use serde::Serialize;
use serde_json::Value;

use self::hosts::Hosts;
use crate::telemetry::Metrics;

/// Whether the process should get traffic, part by part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Readiness {
    /// Whether every part is.
    pub(crate) ready: bool,
    /// Each part's own word.
    pub(crate) checks: BTreeMap<&'static str, Check>,
}

/// One part's state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// Whether the part is as it should be.
    pub(crate) ok: bool,
    /// What else is worth knowing.
    #[serde(flatten)]
    pub(crate) detail: serde_json::Map<String, Value>,
}

impl Check {
    /// A part's state without detail.
    pub(crate) fn of(ok: bool) -> Self {
        Self { ok, detail: serde_json::Map::new() }
    }

    /// The same with one more detail.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

impl Readiness {
    /// Ready where every check is.
    pub(crate) fn of(checks: impl IntoIterator<Item = (&'static str, Check)>) -> Self {
        let checks: BTreeMap<_, _> = checks.into_iter().collect();
        Self { ready: checks.values().all(|check| check.ok), checks }
    }
}

/// Serves health until shutdown begins. `ready` is asked at each `/readyz`.
pub(crate) fn serve<R>(endpoint: Endpoint, tasks: &Tasks, metrics: Metrics, ready: R)
where
    R: Fn() -> Readiness + Send + Sync + 'static,
{
    let hosts = match endpoint.local() {
        LocalAddress::Tcp(address) => Hosts::of(address),
        LocalAddress::Unix(_) => Hosts::any(),
    };
    let state = Arc::new((hosts, metrics, ready));
    // Whoever asks here asks briefly; what agents do at their own listener takes nothing of this one.
    let limits = ServeLimits {
        max_connections: 64,
        peer_share: 75,
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(10),
        ..ServeLimits::default()
    };
    let serving = net::serve(endpoint, limits, tasks.clone(), move |_, request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (hosts, metrics, ready) = state.as_ref();
            if !hosts.serve(&request) {
                return response(StatusCode::MISDIRECTED_REQUEST, "text/plain", "not the host that is served here\n");
            }
            answer(request.method(), request.uri().path(), metrics, ready)
        }
    });
    tasks.spawn("health listener", serving);
}

fn answer(method: &Method, path: &str, metrics: &Metrics, ready: &dyn Fn() -> Readiness) -> Response<Body> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return response(StatusCode::NOT_FOUND, "text/plain", "not found\n");
    }
    if method != Method::GET && method != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
    }
    match path {
        "/livez" => response(StatusCode::OK, "application/json", "{\"alive\":true}\n"),
        "/readyz" => {
            let readiness = ready();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            match serde_json::to_vec(&readiness) {
                Ok(mut text) => {
                    text.push(b'\n');
                    response(status, "application/json", text)
                }
                Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "unreadable\n"),
            }
        }
        _ => match metrics.text() {
            Ok(text) => response(StatusCode::OK, Metrics::MEDIA_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics could not be written");
                response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "unreadable\n")
            }
        },
    }
}

/// What the operator's listeners answer: never kept by anybody.
pub(crate) fn response(status: StatusCode, media_type: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
