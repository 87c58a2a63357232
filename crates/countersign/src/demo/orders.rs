//! The demo's tool: an orders API that knows nothing of Countersign, agents or delegated tokens.
//!
//! It answers whoever shows its one service credential and keeps what it received, so that the demo can check
//! what reached it, and what never did.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::{Frame, Incoming};
use net::{Body, body::collect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::Interval;

/// The largest refund request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// How often whoever follows an order hears of it.
const EVENT_EVERY: Duration = Duration::from_millis(50);
/// How many events there are: far more than anybody waits for.
const EVENTS: u32 = 12_000;

/// The sample orders API. Clones share its state.
#[derive(Clone)]
pub(super) struct Orders(Arc<Shared>);

struct Shared {
    credential: SecretString,
    orders: BTreeMap<&'static str, Order>,
    received: Mutex<Vec<Received>>,
}

struct Order {
    placed_by: &'static str,
    status: &'static str,
    item: &'static str,
    total: &'static str,
}

/// One request, as the tool saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Received {
    /// Its method.
    pub(super) method: Method,
    /// Its path.
    pub(super) path: String,
    /// Whether it showed the service credential, and nothing else, in `Authorization`.
    pub(super) authorised: bool,
}

impl Orders {
    /// An API that wants `credential`.
    pub(super) fn new(credential: SecretString) -> Self {
        let order = |placed_by, status, item, total| Order { placed_by, status, item, total };
        let orders = BTreeMap::from([
            ("17", order("alice", "open", "standing desk", "420.00")),
            ("18", order("alice", "closed", "desk lamp", "35.00")),
            ("99", order("bob", "open", "office chair", "260.00")),
        ]);
        Self(Arc::new(Shared { credential, orders, received: Mutex::default() }))
    }

    /// Everything received so far, in order.
    pub(super) fn received(&self) -> Vec<Received> {
        self.0.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers one request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let authorised = self.is_authorised(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        self.note(Received { method: method.clone(), path: path.clone(), authorised });
        if !authorised {
            let mut refused = answer(StatusCode::UNAUTHORIZED, &json!({"error": "service credential required"}));
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return refused;
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method, segments.as_slice()) {
            (Method::GET, ["v1", "orders", id]) => self.order(id),
            (Method::GET, ["v1", "orders", id, "events"]) => self.events(id),
            (Method::POST, ["v1", "orders", id, "refunds"]) => match collect(request.into_body(), MAX_BODY_BYTES).await
            {
                Ok(body) => self.refund(id, &body),
                Err(error) => answer(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
            },
            _ => answer(StatusCode::NOT_FOUND, &json!({"error": "no such resource"})),
        }
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let expected = format!("Bearer {}", self.0.credential.expose_secret());
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        shown.next().is_some_and(|value| value.as_bytes() == expected.as_bytes()) && shown.next().is_none()
    }

    fn note(&self, received: Received) {
        self.0.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    }

    fn order(&self, id: &str) -> Response<Body> {
        match self.0.orders.get(id) {
            Some(order) => answer(
                StatusCode::OK,
                &json!({
                    "id": id, "status": order.status, "item": order.item,
                    "total": {"amount": order.total, "currency": "USD"},
                    "customer": {"id": order.placed_by},
                }),
            ),
            None => answer(StatusCode::NOT_FOUND, &json!({"error": "no such order"})),
        }
    }

    /// What becomes of an order, as server-sent events.
    fn events(&self, id: &str) -> Response<Body> {
        let Some(order) = self.0.orders.get(id) else {
            return answer(StatusCode::NOT_FOUND, &json!({"error": "no such order"}));
        };
        let about = json!({"order": id, "status": order.status}).to_string();
        let mut response =
            Response::new(Body::new(Events { tick: tokio::time::interval(EVENT_EVERY), told: 0, about }));
        let kind = header::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// Pays whatever it is asked to: that this caller may not is Countersign's to say.
    fn refund(&self, id: &str, body: &[u8]) -> Response<Body> {
        if !self.0.orders.contains_key(id) {
            return answer(StatusCode::NOT_FOUND, &json!({"error": "no such order"}));
        }
        match serde_json::from_slice::<Value>(body) {
            Ok(wanted) => answer(
                StatusCode::CREATED,
                &json!({
                    "refund": uuid::Uuid::now_v7().to_string(), "order": id,
                    "amount": wanted.get("amount"), "currency": wanted.get("currency"),
                }),
            ),
            Err(_) => answer(StatusCode::BAD_REQUEST, &json!({"error": "not JSON"})),
        }
    }
}

/// One event after the other.
struct Events {
    tick: Interval,
    told: u32,
    about: String,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.told == EVENTS {
            return Poll::Ready(None);
        }
        self.tick.poll_tick(context).map(|_| {
            self.told += 1;
            Some(Ok(Frame::data(format!("id: {}\ndata: {}\n\n", self.told, self.about).into())))
        })
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Orders {
        Orders::new(SecretString::from("the-tools-own"))
    }

    #[test]
    fn only_the_service_credential_alone_is_accepted() {
        let shown = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, header::HeaderValue::from_static(value));
            }
            orders().is_authorised(&headers)
        };
        assert!(shown(&["Bearer the-tools-own"]));
        assert!(!shown(&[]));
        assert!(!shown(&["Bearer other"]));
        assert!(!shown(&["Bearer the-tools-own", "Bearer an-agents-token"]));
    }

    #[test]
    fn an_order_says_who_placed_it() {
        assert_eq!(orders().order("17").status(), StatusCode::OK);
        assert_eq!(orders().order("1").status(), StatusCode::NOT_FOUND);
        assert_eq!(orders().refund("17", b"{").status(), StatusCode::BAD_REQUEST);
    }
}
