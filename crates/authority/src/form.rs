//! The body of a token request: `application/x-www-form-urlencoded`, read strictly.
//!
//! A repeated parameter is where two readers of the same request disagree, so it is refused (RFC 6749 §3.2).

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use net::{BoxError, body::CollectError};
use percent_encoding::percent_decode_str;

use crate::refused::{Error, Refused};

/// The largest body: two tokens of 16 KiB and the rest of the parameters.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a client may take to send its body.
const MAX_BODY_TIME: Duration = Duration::from_secs(10);

/// The parameters of a request. A parameter without a value counts as omitted (RFC 6749 §3.2).
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads the body of a `POST`.
    pub(crate) async fn read<B>(request: Request<B>) -> Result<Self, Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        debug_assert_eq!(request.method(), Method::POST);
        if request.uri().query().is_some() {
            return Err(Refused::request("parameters belong into the body, never into the URL"));
        }
        check_type(request.headers())?;
        let body = tokio::time::timeout(MAX_BODY_TIME, net::body::collect(request.into_body(), MAX_BODY_BYTES)).await;
        match body {
            Ok(Ok(bytes)) => Self::parse(&bytes),
            Ok(Err(CollectError::TooLarge { limit })) => {
                Err(Refused::new(Error::TooLarge, format!("the body is larger than {limit} bytes")))
            }
            Ok(Err(CollectError::Broken { .. })) => Err(Refused::request("the body broke off")),
            Err(_) => Err(Refused::request("the body did not arrive in time")),
        }
    }

    /// Parses a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(body).map_err(|_| Refused::request("the body is not UTF-8 text"))?;
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.contains_key(&name) {
                // The name alone is the client's own text; it is cut short and cleaned where it is sent.
                return Err(Refused::request(format!("the parameter {name} is given twice")));
            }
            parameters.insert(name, value);
        }
        Ok(Self(parameters))
    }

    /// The parameter `name`, unless it is absent or empty.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The parameter `name`, which has to be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refused> {
        self.value(name).ok_or_else(|| Refused::request(format!("the parameter {name} is missing")))
    }
}

impl fmt::Debug for Form {
    /// Names only: values are tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Refused> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let form = match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(value), None) => {
            let (kind, parameter) = value.split_once(';').map_or((value, None), |(kind, rest)| (kind, Some(rest)));
            kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
                && parameter.is_none_or(|parameter| parameter.trim().eq_ignore_ascii_case("charset=utf-8"))
        }
        _ => false,
    };
    if form { Ok(()) } else { Err(Refused::request("the content type has to be application/x-www-form-urlencoded")) }
}

fn decode(text: &str) -> Result<String, Refused> {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(hex(rest.next()) && hex(rest.next())) {
            return Err(Refused::request("a percent sign is not followed by two hexadecimal digits"));
        }
    }
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Refused::request("a parameter is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_empty_ones_count_as_omitted() {
        let form = Form::parse(b"scope=orders.read+refunds%2Ecreate&audience=&a=%2541").unwrap();
        assert_eq!(form.value("scope"), Some("orders.read refunds.create"));
        assert_eq!(form.value("audience"), None);
        assert_eq!(form.value("a"), Some("%41"));
        assert!(form.required("audience").is_err());
    }

    #[test]
    fn a_body_with_two_readings_is_refused() {
        for body in [
            &b"scope=a&scope=b"[..],
            b"scope=a&sc%6Fpe=b",
            b"scope=&scope=b",
            b"scope=%",
            b"scope=%4",
            b"scope=%zz",
            b"scope=%ff",
            b"scope=\xff",
        ] {
            assert_eq!(Form::parse(body).unwrap_err().error, Error::InvalidRequest, "{body:?}");
        }
    }

    #[tokio::test]
    async fn only_a_form_of_bounded_size_is_read() {
        let read = |kind: &'static str, body: String| async move {
            let request = Request::post("/oauth2/token").header("content-type", kind);
            Form::read(request.body(Full::new(Bytes::from(body))).unwrap()).await.map_err(|refused| refused.error)
        };
        let kind = "application/x-www-form-urlencoded";
        assert!(read(kind, "a=b".to_owned()).await.is_ok());
        assert!(read("application/x-www-form-urlencoded; charset=UTF-8", "a=b".to_owned()).await.is_ok());
        for other in ["application/json", "", "application/x-www-form-urlencoded; charset=utf-7", "text/plain"] {
            assert_eq!(read(other, "a=b".to_owned()).await.unwrap_err(), Error::InvalidRequest, "{other}");
        }
        assert_eq!(read(kind, format!("a={}", "b".repeat(MAX_BODY_BYTES))).await.unwrap_err(), Error::TooLarge);
    }

    #[test]
    fn a_form_does_not_print_its_values() {
        assert_eq!(format!("{:?}", Form::parse(b"subject_token=secret").unwrap()), "{\"subject_token\"}");
    }
}
