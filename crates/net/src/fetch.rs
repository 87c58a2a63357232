//! Small documents from elsewhere: keys, metadata, facts.
//!
//! One GET under one deadline and one size limit. A redirect is an answer like any other: nobody follows it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};

use crate::body::{CollectError, collect};
use crate::url::redacted;
use crate::{Body, HttpClient, SendError};

/// What to get, and how much of everything to spend on it.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Absolute.
    pub url: Uri,
    /// Sent as they are.
    pub headers: HeaderMap,
    /// From the first lookup to the last byte.
    pub deadline: Duration,
    /// Of the body, in bytes.
    pub max_bytes: usize,
}

/// The whole answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The status, 3xx included.
    pub status: StatusCode,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no whole answer. Texts name the URL without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No response.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The body is too large.
    #[error("{url}: the answer is larger than {max_bytes} bytes")]
    TooLarge {
        /// Where from.
        url: String,
        /// The limit.
        max_bytes: usize,
    },
    /// The body broke off.
    #[error("{url}: the answer broke off: {cause}")]
    Broken {
        /// Where from.
        url: String,
        /// For a person.
        cause: String,
    },
    /// The deadline passed.
    #[error("{url}: no whole answer within {after:?}")]
    Deadline {
        /// Where from.
        url: String,
        /// The deadline.
        after: Duration,
    },
}

/// Gets one document whole, and asks once more where a kept connection had ended before any of the answer came. Which URLs are allowed is the client's [`crate::UrlTrust`].
///
/// # Errors
/// When there is no whole answer within the limits. A status that means failure is not an error here.
pub async fn fetch(client: &HttpClient, request: FetchRequest) -> Result<Fetched, FetchError> {
    let FetchRequest { url, headers, deadline, max_bytes } = request;
    let shown = redacted(&url);
    let get = || {
        let mut get = Request::new(Body::empty());
        *get.uri_mut() = url.clone();
        *get.headers_mut() = headers.clone();
        get
    };
    let whole = async {
        // The outer deadline is the one that counts; the inner only satisfies `send`.
        let response = match client.send(get(), deadline).await {
            Err(error) if error.is_of_the_connection() => client.send(get(), deadline).await,
            outcome => outcome,
        };
        let (head, body) = response?.into_parts();
        let body = collect(body, max_bytes).await.map_err(|error| match error {
            CollectError::TooLarge { limit } => FetchError::TooLarge { url: shown.clone(), max_bytes: limit },
            CollectError::Broken { cause } => FetchError::Broken { url: shown.clone(), cause },
        })?;
        Ok(Fetched { status: head.status, headers: head.headers, body })
    };
    match tokio::time::timeout(deadline, whole).await {
        Ok(Err(FetchError::Send(SendError::Timeout { .. }))) | Err(_) => {
            Err(FetchError::Deadline { url: shown, after: deadline })
        }
        Ok(outcome) => outcome,
    }
}

#[cfg(test)]
mod tests;
