//! How an authority is told something: one request under one deadline, signed by whoever asks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use jiff::Timestamp;
use net::{Body, HttpClient};

/// How a request is authorised: a header value, made anew for each.
pub type Authorise = Arc<dyn Fn(Timestamp) -> Result<HeaderValue, String> + Send + Sync>;

/// From the first byte to the last of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Which authority is told, by whom.
#[derive(Clone)]
pub struct Uplink {
    /// What asks.
    pub client: HttpClient,
    /// The authority's URL, without a last slash.
    pub authority: String,
    /// Who asks.
    pub authorise: Authorise,
    /// The name of whoever asks at the authority: `<authority>/sidecars/<id>`.
    pub sidecar: String,
}

/// Why an authority was not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// Nobody could be named who asks.
    #[error("the request cannot be signed: {0}")]
    Unauthorised(String),
    /// It did not arrive, or no answer came.
    #[error("{0}")]
    Unreachable(String),
    /// It was refused.
    #[error("the authority answers {status}: {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Why, by its own word.
        detail: String,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerUnread),
}

/// The ledger itself cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be read: {0}")]
pub struct LedgerUnread(pub(crate) String);

impl From<crate::LedgerError> for NotTold {
    fn from(error: crate::LedgerError) -> Self {
        Self::Ledger(LedgerUnread(error.to_string()))
    }
}

/// An answer that was heard whole.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Told {
    /// What it says, where it is one of success.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, NotTold> {
        if self.status.is_success()
            && let Ok(said) = serde_json::from_slice(&self.body)
        {
            return Ok(said);
        }
        Err(self.refused())
    }

    /// The member `name` of a refusal.
    pub(crate) fn member(&self, name: &str) -> Option<serde_json::Value> {
        let mut problem: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        problem.get_mut(name).map(serde_json::Value::take)
    }

    pub(crate) fn refused(&self) -> NotTold {
        let detail = self.member("detail").and_then(|detail| detail.as_str().map(str::to_owned));
        // Another's words end up in our log: on one line, and not too many.
        let detail = detail.unwrap_or_default().chars().filter(|c| !c.is_control()).take(400).collect();
        NotTold::Refused { status: self.status, detail }
    }
}

impl Uplink {
    pub(crate) async fn get(&self, path: &str) -> Result<Told, NotTold> {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, kind: &'static str, body: Bytes) -> Result<Told, NotTold> {
        self.send(Method::POST, path, Some((kind, body))).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&'static str, Bytes)>) -> Result<Told, NotTold> {
        let url: Uri = format!("{}{path}", self.authority)
            .parse()
            .map_err(|_| NotTold::Unreachable(format!("{path} is no path")))?;
        let authorisation = (self.authorise)(net::clock::now()).map_err(NotTold::Unauthorised)?;
        let (kind, body) = body.map_or((None, Body::empty()), |(kind, body)| (Some(kind), Body::full(body)));
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = url;
        request.headers_mut().insert(header::AUTHORIZATION, authorisation);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let unreachable = |error: String| NotTold::Unreachable(error);
        let whole = async {
            let response = self.client.send(request, DEADLINE).await.map_err(|error| unreachable(error.to_string()))?;
            let status = response.status();
            let body = net::body::collect(response.into_body(), MAX_ANSWER_BYTES).await;
            body.map(|body| Told { status, body }).map_err(|error| unreachable(error.to_string()))
        };
        let late = |_| unreachable(format!("no whole answer within {DEADLINE:?}"));
        tokio::time::timeout(DEADLINE, whole).await.map_err(late)?
    }
}
