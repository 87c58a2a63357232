//! Refusals of the token endpoint, as RFC 6749 §5.2 and RFC 8693 §2.2.2 want them.

use audit::record::{Issuing, PolicyRuling};
use http::{HeaderValue, Response, StatusCode, header};
use model::Code;
use net::Body;
use serde_json::json;

/// The longest `error_description`, in characters.
const MAX_DESCRIPTION: usize = 300;

/// Why no token is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The code.
    pub(crate) error: Error,
    /// What is wrong, for the developer of the client. Never another principal's data.
    pub(crate) description: String,
    /// The denial code that it comes to where the client is a sidecar that asks for an agent.
    pub(crate) denial: Option<Code>,
    /// What policy said, where it is policy that refuses, and what it was asked.
    pub(crate) ruling: Option<Box<(PolicyRuling, Issuing)>>,
}

/// The codes, with the status each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// RFC 6749 §5.2; also for a subject token that is invalid for any reason (RFC 8693 §2.2.2).
    InvalidRequest,
    /// RFC 6749 §5.2: who asks could not be established.
    InvalidClient,
    /// RFC 6749 §5.2: who asks is known and may not ask for this.
    UnauthorizedClient,
    /// RFC 6749 §5.2.
    UnsupportedGrantType,
    /// RFC 6749 §5.2: nothing is left of what was asked for.
    InvalidScope,
    /// RFC 8693 §2.2.2: no tokens are issued for that target.
    InvalidTarget,
    /// RFC 9396 §5: the element is not one of ours.
    InvalidAuthorizationDetails,
    /// RFC 8628 §3.5, as it is used of token exchange: policy does not let it be.
    AccessDenied,
    /// The body is too large.
    TooLarge,
    /// Something that is needed does not work now: the ledger, the store, an issuer's keys.
    TemporarilyUnavailable,
}

impl Error {
    /// The code as it is sent and counted.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::TooLarge => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidAuthorizationDetails => "invalid_authorization_details",
            Self::AccessDenied => "access_denied",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidClient => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidRequest
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::InvalidAuthorizationDetails
            | Self::AccessDenied => StatusCode::BAD_REQUEST,
        }
    }
}

impl Refused {
    pub(crate) fn new(error: Error, description: impl Into<String>) -> Self {
        Self { error, description: description.into(), denial: None, ruling: None }
    }

    /// The same, which comes to `denial` for an agent whose sidecar asks.
    #[must_use]
    pub(crate) fn denied(self, denial: Code) -> Self {
        Self { denial: Some(denial), ..self }
    }

    /// The same, by the word of policy.
    #[must_use]
    pub(crate) fn ruled(self, ruling: PolicyRuling, asked: Issuing) -> Self {
        Self { ruling: Some(Box::new((ruling, asked))), ..self }.denied(Code::PolicyDenied)
    }

    /// `invalid_request`.
    pub(crate) fn request(description: impl Into<String>) -> Self {
        Self::new(Error::InvalidRequest, description)
    }

    /// `invalid_client`.
    pub(crate) fn client(description: impl Into<String>) -> Self {
        Self::new(Error::InvalidClient, description)
    }

    /// `temporarily_unavailable`; why goes to the log, not to the client.
    pub(crate) fn unavailable(what: &'static str, why: &dyn std::fmt::Display) -> Self {
        tracing::error!(%why, "{what} is unavailable, no token is issued");
        Self::new(Error::TemporarilyUnavailable, format!("{what} is unavailable"))
    }

    /// The description as it is sent and recorded.
    pub(crate) fn sendable(&self) -> String {
        sendable(&self.description)
    }

    /// The response.
    pub(crate) fn response(&self) -> Response<Body> {
        let (error, description) = (self.error.as_str(), self.sendable());
        let body = match self.denial {
            Some(code) => json!({ "error": error, "error_description": description, "code": code }),
            None => json!({ "error": error, "error_description": description }),
        };
        let mut response = json_response(self.error.status(), &body);
        if self.error == Error::InvalidClient {
            // RFC 9110 §15.5.2 wants a challenge on each 401; the scheme is that of RFC 7523's assertions.
            let challenge = HeaderValue::from_static("private_key_jwt");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A JSON answer that nobody may keep (RFC 6749 §5.1).
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The characters that RFC 6749 §5.2 allows in an `error_description`; others become `'`.
fn sendable(text: &str) -> String {
    let allowed = |c| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
    text.chars().take(MAX_DESCRIPTION).map(|c| if allowed(c) { c } else { '\'' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_cannot_leave_its_quotes() {
        assert_eq!(sendable("a\"b\\c\nd\u{e9}"), "a'b'c'd'");
        assert_eq!(sendable(&"x".repeat(1000)).len(), MAX_DESCRIPTION);
    }

    #[test]
    fn every_refusal_forbids_keeping_it_and_an_unknown_client_is_told_so() {
        let response = Refused::client("no").response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert!(response.headers().contains_key("www-authenticate"));
        assert_eq!(Refused::request("no").response().status(), StatusCode::BAD_REQUEST);
    }
}
