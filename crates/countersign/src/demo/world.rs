//! What lies around the demo's agents, and one call into it: through the sidecar as any HTTP client would make it,
//! or past it. The answer is read as an agent in another process could read it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use jiff::Timestamp;
use net::{Body, HttpClient, body::collect};
use serde::Deserialize;
use serde_json::Value;

use super::agent::Token;
use crate::failure::{Exit, Failure};

/// What the `type` of every refusal begins with (docs/reference/denial-codes.md).
const DENIAL: &str = "urn:countersign:denial:";

/// How long any answer may take: nothing here is far away.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer that is read.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What an agent knows of the world around it.
#[derive(Clone)]
pub(super) struct World {
    /// Its HTTP client.
    pub(super) client: HttpClient,
    /// The authority's issuer URL.
    pub(super) authority: String,
    /// The logical audience of the sidecar.
    pub(super) audience: String,
    /// Where the sidecar listens.
    pub(super) sidecar: String,
}

/// One call to the tool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Its method.
    pub(super) method: &'static str,
    /// Its path at the sidecar.
    pub(super) path: &'static str,
    /// Its JSON body.
    pub(super) body: Option<&'static str>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// `Countersign-Decision-Id`.
    pub(super) decision_id: Option<String>,
    /// What Countersign refused with; `None` when the answer is the tool's own.
    pub(super) denial: Option<Denial>,
    /// The tool's answer, where there is one.
    pub(super) body: Value,
    /// From sending the request to the last byte of the answer.
    pub(super) took: Duration,
}

/// A refusal as the agent receives it (RFC 9457 problem document).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Denial {
    /// `urn:countersign:denial:<code>`
    #[serde(rename = "type")]
    kind: String,
    /// The stable code.
    pub(super) code: String,
    /// One sentence.
    #[serde(default)]
    pub(super) detail: String,
    /// The run, where the token was good enough to name one.
    pub(super) run_id: Option<String>,
    /// Whether anything was sent to the tool.
    pub(super) sent: Option<bool>,
    /// The principal that the limit comes from.
    pub(super) limiting_hop: Option<String>,
    /// What would be allowed.
    pub(super) allowed: Option<Value>,
    /// Policy's reasons.
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
}

/// One reason of a refusal.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reason {
    /// The rule's code.
    pub(super) code: String,
    /// What it tells the agent.
    pub(super) message: Option<String>,
}

impl World {
    /// Sends `call` to the sidecar with `token`.
    pub(super) async fn call(&self, call: Call, token: &Token, started: Instant) -> Result<Answer, Failure> {
        let url = format!("{}{}", self.sidecar, call.path);
        self.send(&url, call, Some(token), started).await
    }

    /// Sends `call` past the sidecar, to `url`, without any credential.
    pub(super) async fn call_directly(&self, url: &str, call: Call, started: Instant) -> Result<Answer, Failure> {
        self.send(url, call, None, started).await
    }

    /// Sends `call` to the sidecar with `token`, for an answer that streams. Returns with its first event, and what
    /// follows; without the latter where the answer is a whole one.
    pub(super) async fn watch(
        &self,
        call: Call,
        token: &Token,
        started: Instant,
    ) -> Result<(Answer, Option<Stream>), Failure> {
        let url = format!("{}{}", self.sidecar, call.path);
        let response = self.begin(&url, call, Some(token)).await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != b"text/event-stream") {
            return Ok((answer(response, &url, call, started).await?, None));
        }
        let (head, body) = response.into_parts();
        let mut stream = Stream(body);
        let event = stream.next().await.map_err(|cause| failed(&url, call, &cause))?.unwrap_or_default();
        let event = String::from_utf8_lossy(&event);
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let answer = Answer {
            status: head.status,
            decision_id: text(&head.headers, "countersign-decision-id"),
            denial: None,
            body: serde_json::from_str(data).unwrap_or_default(),
            took: net::clock::monotonic().saturating_duration_since(started),
        };
        Ok((answer, Some(stream)))
    }

    async fn send(&self, url: &str, call: Call, token: Option<&Token>, started: Instant) -> Result<Answer, Failure> {
        answer(self.begin(url, call, token).await?, url, call, started).await
    }

    async fn begin(&self, url: &str, call: Call, token: Option<&Token>) -> Result<Response<Incoming>, Failure> {
        let failed = |cause: String| failed(url, call, &cause);
        let mut request = Request::builder().method(call.method).uri(url);
        if let Some(token) = token {
            let value =
                net::secret::header_value("Bearer ", token.compact()).map_err(|error| failed(error.to_string()))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = call.body.map_or_else(Body::empty, Body::full);
        let request = request.body(body).map_err(|error| failed(error.to_string()))?;

        self.client.send(request, PATIENCE).await.map_err(|error| failed(error.to_string()))
    }
}

/// An answer that goes on.
pub(super) struct Stream(Incoming);

impl Stream {
    /// What comes next; nothing at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = std::future::poll_fn(|context| Pin::new(&mut self.0).poll_frame(context)).await;
            match frame.transpose().map_err(|error| error.to_string())? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// When it broke off; `None` where it came to its end instead.
    pub(super) async fn until_broken(mut self) -> Option<Timestamp> {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(_) => return Some(net::clock::now()),
            }
        }
    }
}

async fn answer(response: Response<Incoming>, url: &str, call: Call, started: Instant) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let body = collect(body, MAX_ANSWER_BYTES).await.map_err(|error| failed(url, call, &error.to_string()))?;
    let is_problem =
        text(&head.headers, "content-type").is_some_and(|kind| kind.starts_with("application/problem+json"));
    let denial = is_problem.then(|| serde_json::from_slice::<Denial>(&body).ok()).flatten();
    Ok(Answer {
        status: head.status,
        decision_id: text(&head.headers, "countersign-decision-id"),
        denial: denial.filter(|denial| denial.kind == format!("{DENIAL}{}", denial.code)),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        took: net::clock::monotonic().saturating_duration_since(started),
    })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn failed(url: &str, call: Call, cause: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{} {url}: {cause}", call.method))
}
