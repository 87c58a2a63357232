//! Hostile bodies: what two readers could read in two ways, or what cannot be read at all, is never sent on.

use serde_json::{Value, json};

use crate::support::{
    Answer,
    http::{self, parse, raw},
    mark, sha256, world,
};

const JSON: &str = "application/json";

/// What a case is, its content type, further fields, and its body.
type Typed<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a case a row")]
fn a_body_that_is_not_exactly_what_the_action_declares_is_malformed() {
    let Some(world) = world() else { return };
    let token = format!("Bearer {}", world.openid.delegated("alice"));
    let mark = mark();
    let post = |content_type: &str, more: &[(&str, &str)], body: &[u8]| -> Answer {
        let headers =
            [&[("authorization", token.as_str()), ("x-mark", &mark), ("content-type", content_type)], more].concat();
        http::request(world.sidecar.port(), "POST", "/orders/v1/orders/17/refunds", &headers, body)
    };
    let deep =
        format!("{{\"amount\":\"1.00\",\"currency\":\"USD\",\"reason\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let long = format!("{{\"amount\":{},\"currency\":\"USD\"}}", "9".repeat(400));
    let bodies: [(&str, &[u8]); 36] = [
        ("an amount twice", br#"{"amount":"20.00","currency":"USD","amount":"1.00"}"#),
        ("an amount twice, once escaped", br#"{"amount":"20.00","currency":"USD","\u0061mount":"1.00"}"#),
        ("a currency twice", br#"{"amount":"20.00","currency":"USD","currency":"JPY"}"#),
        ("no amount", br#"{"currency":"USD"}"#),
        ("no currency", br#"{"amount":"20.00"}"#),
        ("an amount that is null", br#"{"amount":null,"currency":"USD"}"#),
        ("a currency that is null", br#"{"amount":"20.00","currency":null}"#),
        ("a negative amount", br#"{"amount":"-20.00","currency":"USD"}"#),
        ("a negative number", br#"{"amount":-20,"currency":"USD"}"#),
        ("minus zero", br#"{"amount":"-0.00","currency":"USD"}"#),
        ("an amount that is true", br#"{"amount":true,"currency":"USD"}"#),
        ("an amount in a list", br#"{"amount":["20.00"],"currency":"USD"}"#),
        ("an amount in an object", br#"{"amount":{"value":"20.00"},"currency":"USD"}"#),
        ("an engine's own number", br#"{"amount":{"$serde_json::private::Number":"20.00"},"currency":"USD"}"#),
        ("an engine's own member", br#"{"$serde_json::private::Number":"20.00"}"#),
        ("an amount in words", br#"{"amount":"twenty","currency":"USD"}"#),
        ("an empty amount", br#"{"amount":"","currency":"USD"}"#),
        ("an amount with spaces", br#"{"amount":" 20.00 ","currency":"USD"}"#),
        ("an amount with a plus", br#"{"amount":"+20.00","currency":"USD"}"#),
        ("an amount in full-width digits", "{\"amount\":\"\u{ff12}\u{ff10}\",\"currency\":\"USD\"}".as_bytes()),
        ("a fraction of a cent", br#"{"amount":"20.001","currency":"USD"}"#),
        ("an exponent as text", br#"{"amount":"2e1","currency":"USD"}"#),
        ("1e400", br#"{"amount":1e400,"currency":"USD"}"#),
        ("1e-400", br#"{"amount":1e-400,"currency":"USD"}"#),
        ("four hundred digits", long.as_bytes()),
        ("NaN", br#"{"amount":NaN,"currency":"USD"}"#),
        ("a currency that is none", br#"{"amount":"20.00","currency":"ZZZ"}"#),
        ("a currency in lower case", br#"{"amount":"20.00","currency":"usd"}"#),
        ("an undeclared member", br#"{"amount":"20.00","currency":"USD","approved":true}"#),
        ("a reason that is a number", br#"{"amount":"20.00","currency":"USD","reason":1}"#),
        ("nested deep", deep.as_bytes()),
        ("something after the end", br#"{"amount":"20.00","currency":"USD"}{"amount":"99.00"}"#),
        ("a list", br#"[{"amount":"20.00","currency":"USD"}]"#),
        ("nothing", b""),
        ("not UTF-8", b"{\"amount\":\"20.00\",\"currency\":\"USD\",\"reason\":\"\xff\"}"),
        ("half a surrogate pair", br#"{"amount":"20.00","currency":"USD","reason":"\ud800"}"#),
    ];
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    for (name, body) in bodies {
        let answer = post(JSON, &[], body);
        if answer.status != 400 || answer.code() != "malformed" {
            wrong.push(format!("{name}: {} {}", answer.status, answer.text()));
        }
        refused.push(answer);
    }
    let good = br#"{"amount":"20.00","currency":"USD"}"#;
    let marked = [b"\xef\xbb\xbf".as_slice(), good].concat();
    let wide: Vec<u8> = good.iter().flat_map(|byte| [*byte, 0]).collect();
    let types: [Typed<'_>; 9] = [
        ("text", "text/plain", &[], good),
        ("a form", "application/x-www-form-urlencoded", &[], b"amount=20.00&currency=USD"),
        ("XML", "application/xml", &[], b"<amount>20.00</amount>"),
        ("no type", "", &[], good),
        ("another character set", "application/json; charset=utf-16le", &[], &wide),
        ("a byte order mark", JSON, &[], &marked),
        ("compressed", JSON, &[("content-encoding", "gzip")], b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
        ("compressed, it says", JSON, &[("content-encoding", "gzip")], good),
        ("two types", JSON, &[("content-type", "text/plain")], good),
    ];
    for (name, content_type, more, body) in types {
        let answer = post(content_type, more, body);
        if answer.status != 400 || answer.code() != "malformed" {
            wrong.push(format!("{name}: {} {}", answer.status, answer.text()));
        }
        refused.push(answer);
    }
    let query = http::request(
        world.sidecar.port(),
        "POST",
        "/orders/v1/orders/17/refunds?amount=1.00",
        &[("authorization", &token), ("x-mark", &mark), ("content-type", JSON)],
        good,
    );
    query.refused(400, "malformed");
    let large =
        [br#"{"amount":"20.00","currency":"USD","reason":""#.as_slice(), &b"x".repeat(100 << 10), b"\"}"].concat();
    post(JSON, &[], &large).refused(413, "body_too_large");
    let over = post(JSON, &[], br#"{"amount":"50.01","currency":"USD"}"#);
    over.refused(403, "limit_exceeded");
    post(JSON, &[], br#"{"amount":"20.00","currency":"EUR"}"#).refused(403, "limit_exceeded");
    post(JSON, &[], br#"{"amount":"900000000000000.00","currency":"USD"}"#);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new(), "something reached the tool");

    let records = world.sidecar.query(&["--user", "alice"]);
    for answer in refused {
        let id = answer.decision_id();
        let record = records.iter().find(|record| record["decision_id"] == id.as_str()).expect("a record");
        assert_eq!((&record["code"], &record["agent"]["id"]), (&json!("malformed"), &json!("support-v1")), "{record}");
    }
    post("application/json; charset=utf-8", &[], good).went(201);
    assert_eq!(world.tool.marked(&mark).len(), 1);
}

#[test]
fn a_chunked_body_is_read_and_sent_on_as_the_same_bytes() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let mark = mark();
    let head = format!(
        "POST /orders/v1/orders/17/refunds HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nx-mark: {mark}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let chunks: String = body
        .as_bytes()
        .chunks(5)
        .map(|chunk| format!("{:x};note=1\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
        .collect();
    let answer = parse(&raw(world.sidecar.port(), format!("{head}{chunks}0\r\n\r\n").as_bytes())).unwrap();
    answer.went(201);
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(request["body_sha256"], sha256(body.as_bytes()));
    // Broken off in the middle: never decided on, never sent.
    raw_and_leave(world.sidecar.port(), format!("{head}{}", &chunks[..20]).as_bytes());
    world.sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    assert_eq!(world.tool.marked(&mark).len(), 1);
}

fn raw_and_leave(port: u16, bytes: &[u8]) {
    use std::io::{Read, Write};
    let mut stream = http::connect(port);
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Whatever it answers, it has seen the end once it closes.
    stream.read_to_end(&mut Vec::new()).ok();
}

#[test]
fn a_body_that_trickles_in_has_a_deadline() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let sidecar = crate::support::sidecar::Setup::new(&world.openid, &world.tool)
        .with(|config| config["listen"]["agent"]["body_timeout"] = json!("300ms"))
        .start();
    let head = format!(
        "POST /orders/v1/orders/17/refunds HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 35\r\n\r\n{{\"amount\""
    );
    let answer = parse(&raw(sidecar.port(), head.as_bytes())).expect("an answer");
    assert!(answer.status >= 400, "{} {}", answer.status, answer.text());
}
