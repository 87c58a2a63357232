//! `/v1/limits` as both planes speak it, and the client that a sidecar asks with: a slice of a cumulative limit is
//! leased, told to be spent, and given back.
//!
//! One question does all of it. What the sidecar keeps (`hold`) it may spend whatever becomes of the question; what it
//! gives up it has given up before it asks; what it gets more it has once it reads the answer. So an answer that is lost
//! costs room and never makes a limit be overspent.

use std::{fmt, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use jiff::Timestamp;
use model::{Id, Tenant, limits::LimitKey};
use net::{Body, HttpClient, SendError, body::collect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Authorise,
    charges::{ChargeAnswer, ChargeRequest},
};

/// Where the authority answers.
pub const LIMITS_PATH: &str = "/v1/limits";
/// The longest that a slice may be used before the sidecar has to ask again.
pub const MAX_LEASE: Duration = Duration::from_secs(300);
/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Marks the id of a lease, which the sidecar makes.
pub enum Lease {}

/// What a sidecar asks: to hold so much of one window of a limit. All amounts are in the limit's units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The tenant of the call that needs it.
    pub tenant: Id<Tenant>,
    /// Which limit.
    pub limit: LimitKey,
    /// The most within a window, as the token has it. Where the authority knows better, that counts.
    pub max: u64,
    /// When the window starts.
    #[schemars(with = "String")]
    pub starts: Timestamp,
    /// The lease, under a name that the sidecar made for this window.
    pub lease: Id<Lease>,
    /// Rises with each question about this lease. One that was overtaken changes nothing.
    pub step: u64,
    /// How much of it was charged so far, calls under way included.
    pub spent: u64,
    /// How much it keeps of what it was granted, `spent` included. The rest is given back.
    pub hold: u64,
    /// How much more it needs; with less it gets nothing.
    pub need: u64,
    /// How much more it would like, `need` included.
    pub want: u64,
    /// How many seconds it would like to use it without asking.
    pub seconds: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseAnswer {
    /// What the lease holds now, what was spent of it included.
    pub amount: u64,
    /// The most within a window, as it is in force.
    pub max: u64,
    /// What everybody holds together, this lease included.
    pub taken: u64,
    /// What others hold of that and may give back.
    pub reserved: u64,
    /// For how many seconds it may be used without asking again.
    pub seconds: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NotLeased {
    /// The authority could not be asked, or did not answer in time. It is not known what it did.
    #[error("the authority does not answer: {0}")]
    Unheard(String),
    /// It answered that it does not do this.
    #[error("the authority answered {status}: {said}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said, shortened.
        said: String,
    },
    /// The question cannot be signed.
    #[error("the question cannot be authorised: {0}")]
    Unauthorised(String),
}

impl NotLeased {
    /// What an answer means that is none of those asked for, where the same question may have `arrived` before it: that
    /// may have been done, though it is not done again.
    fn of(arrived: bool, status: StatusCode, said: String) -> Self {
        if arrived {
            Self::Unheard(format!("nothing, and then {status} to the same question: {said}"))
        } else {
            Self::Refused { status, said }
        }
    }
}

/// Asks one authority.
pub struct LimitsClient {
    client: HttpClient,
    limits: Uri,
    charges: Uri,
    authorise: Authorise,
    patience: Duration,
}

impl LimitsClient {
    /// A client for `limits` and `charges`, the whole URLs of `/v1/limits` and `/v1/charges`, that waits for an answer as
    /// long as `patience`.
    pub fn new(client: &HttpClient, (limits, charges): (Uri, Uri), authorise: Authorise, patience: Duration) -> Self {
        Self { client: client.apart(None), limits, charges, authorise, patience }
    }

    /// Asks for a slice.
    ///
    /// # Errors
    /// When the authority does not answer, or says no.
    pub async fn ask(&self, asked: &LeaseRequest) -> Result<LeaseAnswer, NotLeased> {
        self.post(&self.limits, asked).await
    }

    /// Tells of a call under an idempotency key.
    ///
    /// # Errors
    /// When the authority does not answer, or says no.
    pub async fn charge(&self, asked: &ChargeRequest) -> Result<ChargeAnswer, NotLeased> {
        self.post(&self.charges, asked).await
    }

    async fn post<A: DeserializeOwned>(&self, url: &Uri, asked: &impl Serialize) -> Result<A, NotLeased> {
        let body = serde_json::to_vec(asked).map_err(|error| NotLeased::Unheard(error.to_string()))?;
        let authorisation = (self.authorise)(net::clock::now()).map_err(NotLeased::Unauthorised)?;
        let request = || {
            let mut request = Request::new(Body::full(body.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = url.clone();
            let fields = request.headers_mut();
            fields.insert(header::AUTHORIZATION, authorisation.clone());
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request
        };
        let answered = async {
            let (arrived, response) = match self.client.send(request(), self.patience).await {
                // The same step again: it is done once, however often it comes.
                Err(error) if error.is_of_the_connection() => {
                    (!error.is_not_sent(), self.client.send(request(), self.patience).await)
                }
                outcome => (false, outcome),
            };
            let (head, body) = response.map_err(|error: SendError| NotLeased::Unheard(error.to_string()))?.into_parts();
            let body = collect(body, MAX_ANSWER_BYTES).await;
            let body = body.map_err(|error| NotLeased::Unheard(format!("{error:?}")))?;
            if head.status != StatusCode::OK {
                let said = String::from_utf8_lossy(&body).chars().take(300).collect();
                return Err(NotLeased::of(arrived, head.status, said));
            }
            serde_json::from_slice(&body).map_err(|error| NotLeased::Unheard(error.to_string()))
        };
        let late = |_| Err(NotLeased::Unheard(format!("no answer within {:?}", self.patience)));
        tokio::time::timeout(self.patience, answered).await.unwrap_or_else(late)
    }
}

impl fmt::Debug for LimitsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitsClient").field("url", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_to_a_question_that_may_have_arrived_before_is_no_word_of_what_was_done() {
        let no = |arrived| NotLeased::of(arrived, StatusCode::TOO_MANY_REQUESTS, "later".to_owned());
        assert!(matches!(no(false), NotLeased::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }));
        assert!(matches!(no(true), NotLeased::Unheard(why) if why.contains("429")));
    }
}
