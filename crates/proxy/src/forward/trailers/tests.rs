//! What may follow a body.

use model::Id;

use super::*;
use crate::testing;

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    map
}

fn names(trailers: &Trailers, sent: &[(&'static str, &'static str)]) -> Vec<String> {
    let kept = trailers.kept(fields(sent)).unwrap_or_default();
    kept.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn of_request(pairs: &[(&'static str, &'static str)]) -> Trailers {
    let tools = testing::tools("http://127.0.0.1:1");
    let tool = tools.catalogue.tool(&Id::new("orders").unwrap()).unwrap();
    let action = tool.actions.iter().find(|action| action.id.as_str() == "orders.tag").unwrap();
    let mut listener = testing::listener();
    listener.input_headers = serde_json::from_value(serde_json::json!(["x-ticket"])).unwrap();
    Trailers::of_request(&fields(pairs), Some(&HeaderName::from_static("x-api-key")), action, &listener)
}

#[test]
fn a_request_keeps_the_trailers_that_it_announced() {
    let trailers = of_request(&[("trailer", "X-Checksum, server-timing"), ("trailer", "x-more")]);
    let sent = [("x-checksum", "1"), ("x-checksum", "2"), ("x-secret", "3"), ("x-more", "4")];
    assert_eq!(names(&trailers, &sent), ["x-checksum: 1", "x-checksum: 2", "x-more: 4"]);
    assert_eq!(trailers.announcement(&HeaderMap::new()).unwrap(), "x-checksum, server-timing, x-more");
    assert_eq!(names(&trailers, &[("x-secret", "3")]), Vec::<String>::new());
    assert_eq!(of_request(&[]).announcement(&HeaderMap::new()), None);
    assert_eq!(names(&of_request(&[]), &sent), Vec::<String>::new());
}

#[test]
fn no_trailer_of_a_request_says_what_only_its_head_may() {
    for name in [
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "idempotency-key",
        "if-match",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "traceparent",
        "via",
        "x-forwarded-for",
        "x-http-method-override",
        "x-owner",
        "x-ticket",
        "x_checksum",
        "x-given",
        "x-api-key",
        "countersign-decision-id",
        "not a name",
    ] {
        let pairs = [("trailer", name), ("x-given", "1")];
        assert_eq!(of_request(&pairs).announcement(&HeaderMap::new()), None, "{name}");
    }
}

#[test]
fn the_agents_token_reaches_no_tool_behind_a_body() {
    let trailers = of_request(&[("authorization", "Bearer header.claims.mark"), ("trailer", "x-checksum, x-more")]);
    let sent = [("x-checksum", "header.claims.mark"), ("x-checksum", "Bearer header.claims.mark"), ("x-more", "4")];
    assert_eq!(names(&trailers, &sent), ["x-more: 4"]);
}

#[test]
fn a_response_keeps_trailers_for_agents_that_take_them() {
    let credential = HeaderValue::from_static("Bearer tool-secret-1");
    let sent = [
        ("server-timing", "db;dur=1"),
        ("grpc-status", "0"),
        ("set-cookie", "a=b"),
        ("www-authenticate", "Basic"),
        ("countersign-decision-id", "forged"),
        ("location", "/x"),
        ("content-length", "3"),
        ("x-echo", "tool-secret-1"),
    ];
    let response =
        |request: &[(&'static str, &'static str)]| Trailers::of_response(&fields(request), &credential.clone().into());
    assert_eq!(names(&response(&[("te", "trailers")]), &sent), ["server-timing: db;dur=1", "grpc-status: 0"]);
    let told = fields(&[("trailer", "Server-Timing, Set-Cookie")]);
    assert_eq!(response(&[("te", "gzip;q=0.5, Trailers")]).announcement(&told).unwrap(), "server-timing");
    for request in [&[][..], &[("te", "gzip")], &[("te", "trailers;q=0"), ("accept", "trailers")]] {
        assert_eq!(names(&response(request), &sent), Vec::<String>::new());
        assert_eq!(response(request).announcement(&told), None);
    }
}
