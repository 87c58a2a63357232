//! `GET /trace`: calls as they happen, a line of JSON each time something is known of one, until all that were asked for
//! have ended.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::Frame;
use net::{Body, Tasks};
use percent_encoding::percent_decode_str;
use proxy::live::{Listening, Live, Wanted};
use serde_json::{Map, Value};

use crate::health::response;

/// The path of it.
pub(crate) const TRACE: &str = "/trace";
/// The first line: from here on nothing that matches is missed.
pub(crate) const LISTENING: &str = "listening";

/// Whom calls are told of.
#[derive(Clone)]
pub(crate) struct Traces {
    live: Arc<Live>,
    tasks: Tasks,
}

impl Traces {
    pub(crate) fn new(live: Arc<Live>, tasks: Tasks) -> Self {
        Self { live, tasks }
    }

    /// Answers a request with `query`.
    pub(super) fn answer(&self, query: &str) -> Response<Body> {
        let (wanted, calls) = match asked(query) {
            Ok(asked) => asked,
            Err(why) => return response(StatusCode::BAD_REQUEST, "text/plain", why + "\n"),
        };
        match self.live.listen(wanted, calls) {
            Ok(listening) => {
                let stop = Box::pin(self.tasks.shutdown_token().cancelled_owned());
                let mut answer = Response::new(Body::new(Lines { listening, begun: false, stop }));
                let kind = http::HeaderValue::from_static("application/x-ndjson");
                answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                answer
            }
            Err(error) => response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{error}\n")),
        }
    }
}

/// What `query` asks for, and how many calls of it.
fn asked(query: &str) -> Result<(Wanted, u32), String> {
    let mut members = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|error| format!("`{name}`: {error}"))?;
        if members.insert(name.to_owned(), Value::from(value.into_owned())).is_some() {
            return Err(format!("`{name}` is there twice"));
        }
    }
    let calls = members.remove("calls").map_or(Ok(1), |calls| calls.as_str().unwrap_or_default().parse());
    let calls = calls.map_err(|error| format!("`calls`: {error}"))?;
    Ok((serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())?, calls))
}

/// The body of an answer that goes on.
struct Lines<S> {
    listening: Listening,
    begun: bool,
    stop: Pin<Box<S>>,
}

impl<S: Future<Output = ()> + Send> hyper::body::Body for Lines<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.begun {
            self.begun = true;
            let line = format!("{{\"event\":\"{LISTENING}\"}}\n");
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(line)))));
        }
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.listening.poll_next(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_whole_or_refused() {
        let (wanted, calls) = asked("action=refunds.create&user=alice%40acme&calls=3").unwrap();
        assert_eq!(
            (wanted.action.as_deref(), wanted.user.as_deref(), calls),
            (Some("refunds.create"), Some("alice@acme"), 3)
        );
        assert_eq!(asked("").unwrap(), (Wanted::default(), 1));
        for wrong in ["acton=a", "calls=-1", "calls=x", "action=a&action=b", "user=%ff"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
