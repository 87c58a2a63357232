//! What the management API says when it does not do as asked (RFC 9457), and the challenges that go with it.
//!
//! One code a case, stable: the command line and consoles are written against them.

use http::{HeaderValue, Response, StatusCode, header};
use net::Body;
use serde_json::{Value, json};
use store::StoreError;

use crate::refused::{Error, Refused, json_response};

/// A request that was not carried out, and what would help.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    /// Further members.
    more: Vec<(&'static str, Value)>,
    /// Seconds to wait before trying again.
    after: Option<u64>,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The request cannot be read, or says something that makes no sense.
    Invalid,
    /// There is no credential.
    NoCredential,
    /// The credential is not one that opens this.
    InvalidToken,
    /// The user's login is too long ago for this.
    LoginTooOld,
    /// Who asks is known and may not.
    Forbidden,
    /// There is nothing, or nothing of theirs.
    NotFound,
    /// The method does nothing here.
    MethodNotAllowed,
    /// It clashes with what is there.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON by its own word.
    NotJson,
    /// What is asked for is beyond what somebody has to give.
    Beyond,
    /// The `Idempotency-Key` came with another request before.
    KeyReused,
    /// Too many requests of one principal.
    TooMany,
    /// Too much is going on at once.
    Overloaded,
    /// Something that is needed does not work now.
    Unavailable,
}

impl Code {
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid => (StatusCode::BAD_REQUEST, "invalid", "The request makes no sense"),
            Self::NoCredential => (StatusCode::UNAUTHORIZED, "no_credential", "No credential"),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, "invalid_token", "Invalid token"),
            Self::LoginTooOld => (StatusCode::UNAUTHORIZED, "login_too_old", "The login is too long ago"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is nothing here"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "It clashes with what is there"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large"),
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "The body is not JSON"),
            Self::Beyond => (StatusCode::FORBIDDEN, "beyond", "More than there is to give"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The key is used up"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much is going on at once"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now"),
        }
    }
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let after = matches!(code, Code::Overloaded | Code::Unavailable | Code::TooMany).then_some(1);
        Self { code, detail: detail.into(), more: Vec::new(), after }
    }

    /// The request makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::Invalid, detail)
    }

    /// The same for what is not there and for what is somebody else's, so that names cannot be tried.
    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing of that name, or nothing of yours.")
    }

    /// Who asks may not.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    /// Something needed does not work; why goes to the log.
    pub(crate) fn unavailable(what: &'static str, why: &dyn std::fmt::Display) -> Self {
        tracing::error!(%why, "{what} is unavailable, a request of the management API is not answered");
        Self::new(Code::Unavailable, format!("{what} is unavailable"))
    }

    /// The same with one member more.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((name, value.into()));
        self
    }

    /// The same, to be tried again after so many seconds.
    #[must_use]
    pub(crate) const fn after(mut self, seconds: u64) -> Self {
        self.after = Some(seconds);
        self
    }

    /// The code as it is sent and counted.
    pub(crate) const fn code(&self) -> &'static str {
        self.code.row().1
    }

    /// Why, in a sentence.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The same at an endpoint of OAuth, where a sidecar that could not be told from a stranger is a client that could not.
    pub(crate) fn of_sidecar(self) -> Refused {
        match self.code {
            Code::Unavailable => Refused::new(Error::TemporarilyUnavailable, self.detail),
            _ => Refused::client(self.detail),
        }
    }

    /// The response.
    pub(crate) fn response(&self) -> Response<Body> {
        let (status, code, title) = self.code.row();
        let kind = match self.code {
            Code::TooMany => "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned(),
            _ => format!("urn:countersign:problem:{code}"),
        };
        let mut body =
            json!({ "type": kind, "title": title, "status": status.as_u16(), "detail": self.detail, "code": code });
        if let Some(members) = body.as_object_mut() {
            members.extend(self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        let mut response = json_response(status, &body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// RFC 6750 §3, and RFC 9470 for a login that is too old.
    fn challenge(&self) -> Option<HeaderValue> {
        match self.code {
            Code::NoCredential => Some(HeaderValue::from_static("Bearer")),
            Code::InvalidToken => Some(HeaderValue::from_static("Bearer error=\"invalid_token\"")),
            Code::LoginTooOld => {
                let seconds = self.more.iter().find(|(name, _)| *name == "max_age")?.1.as_u64()?;
                let text = format!("Bearer error=\"insufficient_user_authentication\", max_age=\"{seconds}\"");
                HeaderValue::from_str(&text).ok()
            }
            _ => None,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(why) => Self::new(Code::Conflict, why),
            StoreError::Invalid(why) => Self::invalid(why),
            StoreError::NotFound { .. } => Self::not_found(),
            StoreError::OtherRequest => {
                Self::new(Code::KeyReused, "The `Idempotency-Key` was used for another request before.")
            }
            StoreError::Unavailable { .. }
            | StoreError::WentBack { .. }
            | StoreError::Damaged(_)
            | StoreError::Keys { .. } => Self::unavailable("the store", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_challenge_and_nobody_may_keep_it() {
        let old = Problem::new(Code::LoginTooOld, "log in again").with("max_age", 300).response();
        let challenge = &old.headers()["www-authenticate"];
        assert_eq!(challenge, "Bearer error=\"insufficient_user_authentication\", max_age=\"300\"");
        assert_eq!(old.headers()["cache-control"], "no-store");
        let none = Problem::new(Code::NoCredential, "a token is missing").response();
        assert_eq!(none.headers()["www-authenticate"], "Bearer");
        let many = Problem::new(Code::TooMany, "slower").after(7).response();
        assert_eq!((many.status().as_u16(), &many.headers()["retry-after"]), (429, &HeaderValue::from(7)));
    }
}
