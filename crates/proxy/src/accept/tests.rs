//! Requests that two servers could read in two ways, and those that are plain.

use std::net::SocketAddr;

use super::*;
use crate::testing::listener;

fn request(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Request<Body> {
    let builder = Request::builder().method("GET").uri("/orders/v1/orders/1").header("host", "127.0.0.1:8690");
    build(builder).body(Body::empty()).unwrap()
}

fn arrival() -> Arrival {
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    Arrival::new("ledger1", peer, "2026-11-22T10:00:00Z".parse().unwrap(), net::clock::monotonic()).unwrap()
}

fn accepted(request: Request<Body>) -> Result<Incoming, Code> {
    accept(arrival(), request, &listener()).map_err(|refusal| refusal.code)
}

#[test]
fn a_plain_request_is_accepted_with_a_decision_id_of_its_ledger_and_moment() {
    let incoming = accepted(request(|r| r.header("accept", "*/*"))).unwrap();
    let (ledger, uuid) = incoming.arrival().id.as_str().split_once('.').unwrap();
    assert_eq!(ledger, "ledger1");
    assert_eq!(Uuid::parse_str(uuid).unwrap().get_version_num(), 7);
    assert_eq!(incoming.path().as_str(), "/orders/v1/orders/1");
}

#[test]
fn a_field_that_some_servers_take_for_another_does_not_get_past() {
    let named =
        |r: http::request::Builder| r.header("x_api_key", "evil").header("content_type", "x").header("x-a", "1");
    let incoming = accepted(request(named)).unwrap();
    let mut names: Vec<&str> = incoming.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "x-a"]);
}

#[test]
fn an_offer_of_http_2_is_passed_over() {
    let offered = |r: http::request::Builder| {
        r.header("upgrade", "h2c").header("connection", "Upgrade, HTTP2-Settings").header("http2-settings", "AAMAAABk")
    };
    let incoming = accepted(request(offered)).unwrap();
    assert!(!incoming.headers().contains_key("http2-settings") && !incoming.headers().contains_key("upgrade"));
}

#[test]
fn what_can_be_read_in_two_ways_is_malformed() {
    type Build = fn(http::request::Builder) -> http::request::Builder;
    let cases: &[(&str, Build)] = &[
        ("connect", |r| r.method("CONNECT")),
        ("trace", |r| r.method("TRACE")),
        ("dot segments", |r| r.uri("/orders/../admin")),
        ("encoded dots", |r| r.uri("/orders/%2e%2e/admin")),
        ("long path", |r| r.uri(format!("/orders/{}", "a".repeat(3000)))),
        ("encoded slash", |r| r.uri("/orders/a%2Fb")),
        ("double slash", |r| r.uri("//orders")),
        ("path parameter", |r| r.uri("/orders;x=1/v1")),
        ("broken query", |r| r.uri("/orders?a=%zz")),
        ("query backslash", |r| r.uri("/orders?a=b\\c")),
        ("two hosts", |r| r.header("host", "other")),
        ("absolute form of another host", |r| r.uri("http://other.example/orders")),
        ("absolute form of another scheme", |r| r.uri("ftp://127.0.0.1:8690/orders")),
        ("user info", |r| r.uri("http://a@127.0.0.1:8690/orders")),
        ("both lengths", |r| r.header("transfer-encoding", "chunked").header("content-length", "3")),
        ("two lengths", |r| r.header("content-length", "3").header("content-length", "4")),
        ("compressed transfer", |r| r.header("transfer-encoding", "gzip, chunked")),
        ("upgrade", |r| r.header("upgrade", "websocket").header("connection", "upgrade")),
        ("expectation", |r| r.header("expect", "200-ok")),
        ("two credentials", |r| r.header("authorization", "Bearer a").header("authorization", "Bearer b")),
        ("connection names authorization", |r| r.header("connection", "close, Authorization")),
        ("connection names a claim", |r| r.header("connection", "x-forwarded-for")),
        ("connection is no list", |r| r.header("connection", "a b")),
        ("one large field", |r| r.header("x", "y".repeat(40_000))),
        ("many fields", |r| (0..120).fold(r, |r, n| r.header(format!("x-{n}"), "1"))),
    ];
    for (name, build) in cases {
        assert_eq!(accepted(request(build)).err(), Some(Code::Malformed), "{name}");
    }
    let mut missing = request(|r| r);
    missing.headers_mut().remove("host");
    assert_eq!(accepted(missing).err(), Some(Code::Malformed));
    // The name that a browser was led here by.
    let mut elsewhere = request(|r| r);
    elsewhere.headers_mut().insert("host", "rebound.example:8690".parse().unwrap());
    assert_eq!(accepted(elsewhere).err(), Some(Code::Malformed));
    let body = request(|r| r).map(|_| Body::full("x"));
    assert_eq!(accepted(body).err(), Some(Code::Malformed), "a GET with a body");
}

#[test]
fn http2_takes_its_host_from_the_authority_and_both_must_agree() {
    let h2 = |host: Option<&str>| {
        let mut request = request(|r| r.uri("http://127.0.0.1:8690/orders").version(Version::HTTP_2));
        request.headers_mut().remove("host");
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        accepted(request).map(|_| ())
    };
    assert_eq!(h2(None), Ok(()));
    assert_eq!(h2(Some("127.0.0.1:8690")), Ok(()));
    assert_eq!(h2(Some("other")), Err(Code::Malformed));
}

#[test]
fn fields_between_neighbours_are_gone_before_anything_is_decided() {
    let incoming = accepted(request(|r| {
        r.header("connection", "x-amount, close").header("x-amount", "5").header("te", "trailers").header("x-b", "1")
    }))
    .unwrap();
    let names: Vec<&str> = incoming.headers().keys().map(HeaderName::as_str).collect();
    // Whether trailers are taken is for `forward` to know; it lets the field go no further.
    assert_eq!(names, ["host", "te", "x-b"]);
}

#[test]
fn a_claimed_trace_is_read_strictly_or_not_at_all() {
    let claimed = |values: &[&str]| {
        let incoming =
            accepted(request(|r| values.iter().fold(r, |r, value| r.header("traceparent", *value)))).unwrap();
        incoming.claimed_trace().map(|context| context.trace_id().to_string())
    };
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(claimed(&[good]).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(claimed(&[good, good]), None);
    for bad in [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        "00-4bf92f3577b34da6-00f067aa0ba902b7-01",
        "",
    ] {
        assert_eq!(claimed(&[bad]), None, "{bad}");
    }
}
