//! The operator's socket: `/status`, the state of everything in one answer. A Unix socket of mode 0600, served to the
//! process's own user and root by the kernel's word; nothing that an agent can hold opens it.

pub(crate) mod ask;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod trace;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use net::{Body, Endpoint, ListenError, ServeLimits, Tasks, UnixListener, bind_unix};
use rustix::process::geteuid;

use self::{
    status::Status,
    trace::{TRACE, Traces},
};
use crate::health::{hosts::Hosts, response};

/// The path that tells everything.
pub(crate) const STATUS: &str = "/status";

/// Binds the socket at `path`.
///
/// # Errors
/// When it is in use, or cannot be made there.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    bind_unix(path, 0o600, Some(BTreeSet::from([0, geteuid().as_raw()])))
}

/// Serves `status`, which is asked each time, and calls as they happen, until shutdown begins.
pub(crate) fn serve<S>(listener: UnixListener, tasks: &Tasks, traces: Traces, status: S)
where
    S: Fn() -> Status + Send + Sync + 'static,
{
    let status = Arc::new(status);
    let limits = ServeLimits { max_connections: 16, ..ServeLimits::default() };
    let serving = net::serve(Endpoint::Unix(listener), limits, tasks.clone(), move |_, request: Request<Incoming>| {
        let (status, traces) = (Arc::clone(&status), traces.clone());
        async move { answer(&request, &traces, status.as_ref()) }
    });
    tasks.spawn("admin listener", serving);
}

fn answer<B>(request: &Request<B>, traces: &Traces, status: &dyn Fn() -> Status) -> Response<Body> {
    if !Hosts::any().serve(request) {
        return response(StatusCode::BAD_REQUEST, "text/plain", "the request names no host, or several\n");
    }
    let path = request.uri().path();
    if path != STATUS && path != TRACE {
        return response(StatusCode::NOT_FOUND, "text/plain", "not found; there are /status and /trace\n");
    }
    if request.method() != Method::GET && (path == TRACE || request.method() != Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
    }
    if path == TRACE {
        return traces.answer(request.uri().query().unwrap_or_default());
    }
    match serde_json::to_string_pretty(&status()) {
        Ok(text) => response(StatusCode::OK, "application/json", text + "\n"),
        Err(error) => {
            tracing::error!(%error, "the status could not be written");
            response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "unreadable\n")
        }
    }
}
