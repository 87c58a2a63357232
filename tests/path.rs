//! Requests that two servers could read in two ways, said by a raw socket: refused before anything is looked at.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{
    Answer,
    http::{connect, parse, raw},
    mark,
    tool::values,
    world,
};

struct Agent {
    port: u16,
    token: String,
    mark: String,
}

impl Agent {
    /// One request: its first line and the fields that are special about it.
    fn say(&self, line: &str, fields: &str) -> Option<Answer> {
        let Self { port, token, mark } = self;
        let request = format!(
            "{line}\r\nhost: localhost:{port}\r\nauthorization: Bearer {token}\r\nx-mark: {mark}\r\nconnection: close\r\n{fields}\r\n"
        );
        parse(&raw(*port, request.as_bytes()))
    }
}

fn agent(world: &crate::support::World) -> Agent {
    Agent { port: world.sidecar.port(), token: world.openid.delegated("alice"), mark: mark() }
}

#[test]
fn a_path_that_could_be_read_in_two_ways_is_malformed() {
    let Some(world) = world() else { return };
    let agent = agent(world);
    let paths = [
        "/orders/../orders/v1/orders/17",
        "/orders/v1/orders/./17",
        "/orders/v1/orders/17/..",
        "/orders/v1/%2e%2e/v1/orders/17",
        "/orders/v1/%2E%2e/v1/orders/17",
        "/orders/v1/.%2e/orders/17",
        "//orders/v1/orders/17",
        "/orders//v1/orders/17",
        "/orders/v1/orders//17",
        "/orders/v1/orders/17%2f18",
        "/orders/v1/orders/17%5c18",
        "/orders/v1/orders/17\\18",
        "/orders/v1/orders/17%00",
        "/orders/v1/orders/17%0d%0aX:1",
        "/orders/v1/orders/17%",
        "/orders/v1/orders/17%zz",
        "/orders/v1/orders/%252e%252e",
        "/orders/v1/orders/17;admin=1",
        "/orders/v1/orders/17%3b",
        "/orders/v1/orders/17%23",
        "/orders/v1/orders/%ff%fe",
        "/orders/v1/orders/%c0%ae%c0%ae",
        "/orders/v1/orders/17?a=%zz",
    ];
    let mut wrong = Vec::new();
    for path in paths {
        match agent.say(&format!("GET {path} HTTP/1.1"), "") {
            // The HTTP library may refuse by itself, without a problem document.
            Some(answer) if answer.status == 400 && answer.body.is_empty() => {}
            Some(answer) if answer.status == 400 && answer.code() == "malformed" => {}
            other => wrong.push(format!("{path}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.tool.marked(&agent.mark), Vec::<Value>::new());
    agent.say("GET /orders/v1/orders/%31%37 HTTP/1.1", "").unwrap().went(200);
    assert_eq!(world.tool.marked(&agent.mark)[0]["url"], "/v1/orders/17", "what was decided is what is sent");
}

#[test]
fn what_is_no_request_or_two_in_one_is_refused() {
    let Some(world) = world() else { return };
    let agent = agent(world);
    let get = "GET /orders/v1/orders/17 HTTP/1.1";
    let post = "POST /orders/v1/orders/17/refunds HTTP/1.1";
    let many = "x-many: 1\r\n".repeat(200);
    let large = format!("x-large: {}\r\n", "x".repeat(40 << 10));
    let cases = [
        ("two hosts", get, "host: other.example\r\n"),
        ("two lengths", post, "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("length and chunks", post, "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks, oddly", post, "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("chunks twice", post, "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks and more", post, "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("a length with a plus", post, "content-length: +4\r\n\r\nabcd"),
        ("a space before the colon", get, "x-odd : 1\r\n"),
        ("a folded line", get, "x-odd: 1\r\n 2\r\n"),
        ("a NUL", get, "x-odd: a\0b\r\n"),
        ("a bare carriage return", get, "x-odd: a\rb\r\n"),
        ("a body on a GET", get, "content-length: 4\r\n\r\nabcd"),
        ("an upgrade", get, "upgrade: websocket\r\n"),
        ("an unknown expectation", get, "expect: the-unexpected\r\n"),
        ("a connection that drops the authorization", get, "connection: authorization\r\n"),
        ("too many fields", get, &many),
        ("too large fields", get, &large),
        ("a tunnel", "CONNECT other.example:443 HTTP/1.1", ""),
        ("a trace", "TRACE /orders/v1/orders/17 HTTP/1.1", ""),
        ("a target that disagrees with the host", "GET http://other.example/orders/v1/orders/17 HTTP/1.1", ""),
        ("credentials in the target", "GET http://a:b@localhost/orders/v1/orders/17 HTTP/1.1", ""),
        ("another scheme", "GET ftp://localhost/orders/v1/orders/17 HTTP/1.1", ""),
        ("an old protocol", "GET /orders/v1/orders/17 HTTP/0.9", ""),
        ("a space too many", "GET  /orders/v1/orders/17 HTTP/1.1", ""),
    ];
    let mut wrong = Vec::new();
    for (name, line, fields) in cases {
        match agent.say(line, fields) {
            None => {}
            Some(answer) if [400, 413, 414, 417, 431, 405, 501, 505].contains(&answer.status) => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.tool.marked(&agent.mark), Vec::<Value>::new());
    agent.say(get, "").unwrap().went(200);
    assert_eq!(world.tool.marked(&agent.mark).len(), 1);
}

#[test]
fn what_an_agent_says_about_itself_does_not_reach_the_tool() {
    let Some(world) = world() else { return };
    let agent = agent(world);
    let fields = "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-HTTP-Method-Override: DELETE\r\nx_http_method_override: DELETE\r\n\
                  X-Original-URL: /v1/orders/21\r\nTxn-Token: forged\r\nClient-Cert: forged\r\nBaggage: a=b\r\nCountersign-Decision-Id: forged\r\n\
                  DPoP: forged\r\nX-Kept: 1\r\n";
    let answer = agent.say("GET /orders/v1/orders/17 HTTP/1.1", fields).unwrap();
    answer.went(200);
    assert_ne!(answer.decision_id(), "forged");
    let [request] = &world.tool.marked(&agent.mark)[..] else { panic!("the tool was called once") };
    let names = [
        "x-forwarded-for",
        "forwarded",
        "x-http-method-override",
        "x_http_method_override",
        "x-original-url",
        "txn-token",
        "client-cert",
        "baggage",
        "dpop",
    ];
    for name in names {
        assert_eq!(values(request, name), Vec::<String>::new(), "{name}");
    }
    assert!(!request.to_string().contains("forged"), "{request}");
    assert_eq!(values(request, "x-kept"), ["1"]);
}

#[test]
fn noise_on_the_wire_harms_nobody() {
    let Some(world) = world() else { return };
    let port = world.sidecar.port();
    let noise: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x01\x00\x00\x00\x00",
        b"\r\n\r\n\r\n",
        b"GET",
        b"\x00\x01\x02\x03\x04\x05\x06\x07",
    ];
    for bytes in noise {
        let mut stream = connect(port);
        stream.write_all(bytes).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).ok();
    }
    let token = world.openid.delegated("alice");
    world.sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    assert!(!world.sidecar.daemon.output().contains("panicked"), "{}", world.sidecar.daemon.output());
    assert_eq!(json!(world.sidecar.is_ready()), true);
}
