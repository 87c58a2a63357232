//! The agent's listener and what is said to it that is no plain request of HTTP: preambles, upgrades, tunnels, old
//! versions, peers that stop half way. What it does not serve it refuses, and nothing behind it is believed.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    World,
    http::{connect, parse, raw},
    mark, world,
};

const ORDER: &str = "/orders/v1/orders/17";

/// What an agent says on a connection of its own.
struct Agent<'a> {
    world: &'a World,
    port: u16,
    token: String,
    mark: String,
}

impl<'a> Agent<'a> {
    /// Who may read and refund orders.
    fn new(world: &'a World) -> Self {
        Self { world, port: world.sidecar.port(), token: world.openid.delegated("alice"), mark: mark() }
    }

    /// Who may use the tool's other actions.
    fn probing(world: &'a World) -> Self {
        Self { token: world.probe(), ..Self::new(world) }
    }

    /// A head with the token; `fields` end their lines themselves.
    fn head(&self, line: &str, fields: &str) -> String {
        let Self { port, token, mark, .. } = self;
        format!("{line}\r\nhost: localhost:{port}\r\nauthorization: Bearer {token}\r\nx-mark: {mark}\r\n{fields}\r\n")
    }

    fn get(&self, fields: &str) -> String {
        self.head(&format!("GET {ORDER} HTTP/1.1"), fields)
    }

    fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        String::from_utf8_lossy(&raw(self.port, bytes.as_ref())).into_owned()
    }

    /// How many requests of it reached the tool.
    fn arrived(&self) -> usize {
        self.world.tool.marked(&self.mark).len()
    }
}

/// The statuses of the answers on a connection, in their order.
fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.").skip(1).filter_map(|answer| answer.split(' ').nth(1)).collect()
}

#[test]
fn what_http_would_hide_is_refused_at_any_place_of_a_connection_and_ends_it() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let refund = |fields: &str| {
        agent.head("POST /orders/v1/orders/17/refunds HTTP/1.1", &format!("content-type: application/json\r\n{fields}"))
    };
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = body.len();
    let hidden = [
        refund(&format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n")) + &chunked,
        refund(&format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n")) + &chunked,
        refund("transfer-encoding: chunked\r\ncontent-length: nonsense\r\n") + &chunked,
        agent.head(&format!("GET {ORDER}#part HTTP/1.1"), ""),
        agent.head(&format!("GET {ORDER}?a=b#part HTTP/1.1"), ""),
        agent.head(&format!("GET http://localhost:{}{ORDER}#part HTTP/1.1", agent.port), ""),
    ];
    let mut good = 0;
    for hidden in hidden {
        // At the start, after others, and with others behind it that came in the same packet.
        for before in 0..3 {
            let answers = agent.say(format!("{}{hidden}{}", agent.get("").repeat(before), agent.get("")));
            let mut expected = vec!["200"; before];
            expected.push("400");
            assert_eq!(statuses(&answers), expected, "{before} before {hidden}: {answers}");
            good += before;
        }
    }
    assert_eq!(agent.arrived(), good);
}

#[test]
fn a_long_connection_of_bodies_that_look_like_requests_is_read_as_it_was_sent() {
    let Some(world) = world() else { return };
    let agent = Agent::probing(world);
    let get = |fields: &str| agent.head("GET /orders/v1/echo/a HTTP/1.1", fields);
    let inside = agent.head("GET /orders/v1/echo/b HTTP/1.1", "");
    let upload = |fields: &str| agent.head("POST /orders/v1/upload HTTP/1.1", fields);
    let mut said = String::new();
    for number in 0..40 {
        said.push_str(&match number % 4 {
            0 => get(""),
            1 => upload(&format!("content-length: {}\r\n", inside.len())) + &inside,
            2 => {
                let chunks = format!("{:x};a=b\r\n{inside}\r\n3\r\n0\r\n\r\n000\r\nx: y\r\n\r\n", inside.len());
                upload("transfer-encoding: chunked\r\n") + &chunks
            }
            _ => format!("\r\n{}", get("content-length: 0\r\n")),
        });
    }
    said.push_str(&get("connection: close\r\n"));
    let mut stream = connect(agent.port);
    let mut reading = stream.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut answers = Vec::new();
        reading.read_to_end(&mut answers).unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    });
    for piece in said.as_bytes().chunks(613) {
        stream.write_all(piece).unwrap();
    }
    let answers = reader.join().unwrap();
    assert_eq!(statuses(&answers), ["200"; 41], "{answers}");
    assert_eq!(agent.arrived(), 41);
    assert!(world.tool.marked(&agent.mark).iter().all(|request| request["url"] != "/v1/echo/b"));
}

#[test]
fn a_proxy_preamble_is_no_request_and_nobody_believes_it() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let one = b"PROXY TCP4 10.1.2.3 10.1.2.4 4711 8690\r\n".as_slice();
    let unknown = b"PROXY UNKNOWN\r\n".as_slice();
    let two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\x01\x02\x04\x12\x67\x21\xf2".as_slice();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".as_slice();
    for preamble in [one, unknown, two, local] {
        let answers = agent.say([preamble, agent.get("").as_bytes()].concat());
        assert!(statuses(&answers).iter().all(|status| *status == "400"), "{preamble:?}: {answers}");
    }
    // Nor on a connection that was good before.
    let answers = agent.say([agent.get("").as_bytes(), one, agent.get("").as_bytes()].concat());
    assert_eq!(statuses(&answers), ["200", "400"], "{answers}");
    assert_eq!(agent.arrived(), 1);
}

#[test]
fn nothing_is_upgraded_and_nothing_is_tunnelled() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let websocket = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let refused = [
        agent.get(websocket),
        agent.get("connection: upgrade, close\r\nupgrade: h2c, websocket\r\n"),
        agent.get("connection: upgrade, close\r\nupgrade: TLS/1.2\r\n"),
        agent.head("CONNECT tool.example:443 HTTP/1.1", "connection: close\r\n"),
        agent.head(&format!("CONNECT {ORDER} HTTP/1.1"), "connection: close\r\n"),
    ];
    for request in refused {
        // What would be said to the other end of a tunnel is read by nobody.
        let answers = agent.say(format!("{request}{}", agent.get("")));
        assert_eq!(statuses(&answers), ["400"], "{request}: {answers}");
    }
    assert_eq!(agent.arrived(), 0);
    // An offer of HTTP/2 is passed over, and the connection stays what it is.
    let offer = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let answers = agent.say(agent.get(offer) + &agent.get("connection: close\r\n"));
    assert_eq!(statuses(&answers), ["200", "200"], "{answers}");
    assert_eq!(agent.arrived(), 2);
}

/// A frame of HTTP/2 on stream 1 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Fields without compression (RFC 7541 §6.2.2), their lengths in one or two bytes.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = match text.len() {
            short @ 0..127 => vec![u8::try_from(short).unwrap()],
            long => {
                let rest = long - 127;
                assert!(rest < 128 * 128, "long enough");
                vec![127, u8::try_from(rest % 128).unwrap() | 0x80, u8::try_from(rest / 128).unwrap()]
            }
        };
        [length, text.as_bytes().to_vec()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Sends one request over HTTP/2 and says whether anything but a refusal came back: a head with status 2xx.
fn spoke_h2(port: u16, head: &[(&str, &str)]) -> bool {
    let mut stream = connect(port);
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend(frame(4, 0, 0, &[]));
    said.extend(frame(1, 0x05, 1, &fields(head)));
    stream.write_all(&said).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            // The indexed fields of `:status` 200, 204 and 206.
            1 => return matches!(payload.first(), Some(0x88..=0x8a)),
            // RST_STREAM, GOAWAY
            3 | 7 => return false,
            _ => {}
        }
    }
}

#[test]
fn http2_tunnels_nothing_either() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let (token, host) = (format!("Bearer {}", agent.token), format!("localhost:{}", agent.port));
    let common = [("authorization", token.as_str()), ("x-mark", agent.mark.as_str())];
    let speak = |special: &[(&str, &str)]| spoke_h2(agent.port, &[special, &common].concat());
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", host.as_str()), (":path", ORDER)];
    assert!(speak(&get), "the frames are good");
    assert_eq!(agent.arrived(), 1);
    let connect = [(":method", "CONNECT"), (":authority", "tool.example:443")];
    assert!(!speak(&connect));
    let mut extended = get.to_vec();
    extended[0] = (":method", "CONNECT");
    extended.insert(1, (":protocol", "websocket"));
    assert!(!speak(&extended));
    let mut disguised = get.to_vec();
    disguised.insert(1, (":protocol", "websocket"));
    assert!(!speak(&disguised));
    let upgrade = [&get[..], &[("connection", "upgrade"), ("upgrade", "websocket")]].concat();
    assert!(!speak(&upgrade));
    assert_eq!(agent.arrived(), 1);
    // A fragment is cut off before anything is decided, so that what is decided is what is sent.
    let target = format!("{ORDER}#part");
    let mut fragment = get.to_vec();
    fragment[3] = (":path", &target);
    speak(&fragment);
    assert!(world.tool.marked(&agent.mark).iter().all(|request| request["url"] == "/v1/orders/17"));
}

#[test]
fn a_peer_that_says_no_more_gets_its_answer() {
    let Some(world) = world() else { return };
    let (agent, probing) = (Agent::new(world), Agent::probing(world));
    for request in [agent.get(""), probing.head("GET /orders/v1/stream?count=5&every=100 HTTP/1.1", "")] {
        let mut stream = connect(agent.port);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(statuses(&answer), ["200"], "{answer}");
        assert!(answer.ends_with("\r\n0\r\n\r\n") || answer.contains("\"17\""), "all of it: {answer}");
    }
    // One that stops in the middle of a body said no whole request.
    let mut stream = connect(agent.port);
    let part = agent
        .head("POST /orders/v1/orders/17/refunds HTTP/1.1", "content-type: application/json\r\ncontent-length: 99\r\n");
    stream.write_all((part + "{\"amount\":").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert!(statuses(&String::from_utf8_lossy(&answer)).iter().all(|status| status.starts_with('4')));
    assert_eq!((agent.arrived(), probing.arrived()), (1, 1));
}

#[test]
fn only_who_waits_to_be_told_to_go_on_is_told_so() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let refund = |version: &str, fields: &str| {
        let line = format!("POST /orders/v1/orders/17/refunds HTTP/{version}");
        agent.head(
            &line,
            &format!(
                "content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{fields}",
                body.len()
            ),
        )
    };
    let mut stream = connect(agent.port);
    stream.write_all(refund("1.1", "expect: 100-continue\r\n").as_bytes()).unwrap();
    assert_eq!(until_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(parse(&answer).unwrap().status, 201);

    assert_eq!(statuses(&agent.say(refund("1.1", "") + body)), ["201"]);
    assert_eq!(statuses(&agent.say(agent.get("connection: close\r\nexpect: 100-continue\r\n"))), ["200"]);
    assert_eq!(
        statuses(&agent.say(refund("1.0", "expect: 100-continue\r\n") + body)),
        ["201"],
        "it would not understand"
    );
    assert_eq!(agent.arrived(), 4);
    // Whoever is refused by the head alone is not asked for the rest.
    let stranger = refund("1.1", "expect: 100-continue\r\n").replace(&agent.token, "a.b.c");
    let mut stream = connect(agent.port);
    stream.write_all(stranger.as_bytes()).unwrap();
    assert!(until_head(&mut stream).starts_with("HTTP/1.1 401 "));
    assert_eq!(statuses(&agent.say(refund("1.1", "expect: 200-maybe\r\n") + body)), ["400"]);
    assert_eq!(agent.arrived(), 4);
}

/// The first head that is answered.
fn until_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn old_versions_and_rare_forms_of_target_have_one_meaning_or_none() {
    let Some(world) = world() else { return };
    let agent = Agent::new(world);
    let host = format!("localhost:{}", agent.port);
    // Served: HTTP/1.0 with a host, one answer and the end; a target that names the host once more.
    let old = agent.say(agent.head(&format!("GET {ORDER} HTTP/1.0"), "") + &agent.get(""));
    assert_eq!(statuses(&old), ["200"], "{old}");
    let absolute = agent.say(agent.head(&format!("GET http://{host}{ORDER} HTTP/1.1"), "connection: close\r\n"));
    assert_eq!(statuses(&absolute), ["200"], "{absolute}");
    assert_eq!(agent.arrived(), 2);
    let urls: Vec<Value> = world.tool.marked(&agent.mark).iter().map(|request| request["url"].clone()).collect();
    assert_eq!(urls, ["/v1/orders/17", "/v1/orders/17"]);

    let without_host =
        format!("GET {ORDER} HTTP/1.0\r\nauthorization: Bearer {}\r\nx-mark: {}\r\n\r\n", agent.token, agent.mark);
    let refused = [
        without_host.clone(),
        without_host.replace("1.0", "1.1"),
        format!("GET {ORDER}\r\n"),
        format!("GET {ORDER}\r\n\r\n"),
        agent.head(&format!("GET {ORDER} HTTP/0.9"), ""),
        agent.head(&format!("GET {ORDER} HTTP/1.2"), ""),
        agent.head(&format!("GET {ORDER} HTTP/2.0"), ""),
        agent.head(&format!("GET {ORDER} http/1.1"), ""),
        agent.head("OPTIONS * HTTP/1.1", ""),
        agent.head("GET * HTTP/1.1", ""),
        agent.head("GET localhost HTTP/1.1", ""),
        agent.head("GET orders/v1/orders/17 HTTP/1.1", ""),
        agent.head(&format!("GET http://other.example{ORDER} HTTP/1.1"), ""),
        agent.head(&format!("GET http:{ORDER} HTTP/1.1"), ""),
        agent.head(&format!("GET file://{ORDER} HTTP/1.1"), ""),
        agent.head(&format!("POST {ORDER} HTTP/1.0"), "transfer-encoding: chunked\r\n") + "0\r\n\r\n",
    ];
    for request in refused {
        let mut stream = connect(agent.port);
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            statuses(&answer).iter().all(|status| matches!(*status, "400" | "404" | "405" | "505")),
            "{request}: {answer}"
        );
    }
    assert_eq!(agent.arrived(), 2);
}
