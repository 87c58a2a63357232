//! How exporters reach their collector: our own HTTP client, on the process's runtime.
//!
//! The SDK's batch processors export from plain threads, where there is no runtime: what needs one is handed over to
//! it, and the thread waits.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use net::{Body, HttpClient, UrlTrust};
use opentelemetry_http::{Bytes, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::{TelemetryError, settings::Signal};

/// The largest answer of a collector that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) struct OtlpClient {
    http: HttpClient,
    runtime: Handle,
    timeout: Duration,
}

impl OtlpClient {
    pub(super) fn new(signal: &Signal, runtime: Handle) -> Result<Self, TelemetryError> {
        let roots = signal.certificate.clone().map_or(net::Roots::Platform, net::Roots::Pem);
        let options = net::ClientOptions::new(net::client_config(roots)?, UrlTrust::Operator);
        let entered = runtime.enter();
        let http = HttpClient::new(options);
        drop(entered);
        Ok(Self { http, runtime, timeout: signal.timeout })
    }
}

#[async_trait]
impl opentelemetry_http::HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let timeout = self.timeout;
        // Not `net::Tasks`: the last export comes after all tasks have ended.
        let sending = self.runtime.spawn(async move {
            let answer = http.send(request.map(Body::full), timeout).await?;
            let (head, body) = answer.into_parts();
            let body = tokio::time::timeout(timeout, net::body::collect(body, MAX_ANSWER_BYTES)).await??;
            Ok::<_, HttpError>(Response::from_parts(head, body))
        });
        sending.await?
    }
}

impl fmt::Debug for OtlpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
