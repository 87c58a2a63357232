//! What lies around the demo's agents, and one call into it: through the sidecar as any HTTP client would make it,
//! or past it. The answer is read as an agent in another process could read it.

use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
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

    async fn send(&self, url: &str, call: Call, token: Option<&Token>, started: Instant) -> Result<Answer, Failure> {
        let failed = |cause: String| Failure::new(Exit::Failed, format!("{} {url}: {cause}", call.method));
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

        let response = self.client.send(request, PATIENCE).await.map_err(|error| failed(error.to_string()))?;
        let (head, body) = response.into_parts();
        let body = collect(body, MAX_ANSWER_BYTES).await.map_err(|error| failed(error.to_string()))?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_problem = text("content-type").is_some_and(|kind| kind.starts_with("application/problem+json"));
        let denial = is_problem.then(|| serde_json::from_slice::<Denial>(&body).ok()).flatten();
        Ok(Answer {
            status: head.status,
            decision_id: text("countersign-decision-id"),
            denial: denial.filter(|denial| denial.kind == format!("{DENIAL}{}", denial.code)),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            took: net::clock::monotonic().saturating_duration_since(started),
        })
    }
}
