//! Streams under obligations in the running sidecar: each event goes on as it is sent, redacted; what cannot be read ends
//! the stream, and nothing of it is told; and MCP, with a real server.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    sync::mpsc,
};

use serde_json::{Value, json};

use super::{REDACT, VERSIONS, case, cut, last_settled, policy, saying};
use crate::support::{Answer, Curl, PATIENCE, Sidecar, World, process::Part, root, sidecar::Setup, skipped, world};

const EVENTS: &str = "text/event-stream";

/// A tool that answers with what it is handed, piece by piece, and ends the answer where it is handed nothing.
struct Feed {
    port: u16,
    next: mpsc::Sender<Vec<u8>>,
}

impl Feed {
    fn start(kind: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (next, pieces) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let (mut reader, mut head) = (BufReader::new(stream.try_clone().unwrap()), String::new());
                while reader.read_line(&mut head).unwrap_or(0) > 2 {}
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
                write!(stream, "{head}content-type: {kind}\r\n\r\n").ok();
                while let Ok(piece) = pieces.recv() {
                    write!(stream, "{:x}\r\n", piece.len()).ok();
                    stream.write_all(&piece).ok();
                    stream.write_all(b"\r\n").ok();
                    if piece.is_empty() {
                        break;
                    }
                }
            }
        });
        Self { port, next }
    }

    fn says(&self, piece: impl Into<Vec<u8>>) {
        self.next.send(piece.into()).unwrap();
    }

    fn ends(&self) {
        self.says("");
    }

    fn sidecar(&self, world: &World, rules: &str) -> Sidecar {
        let upstream = format!("http://127.0.0.1:{}", self.port);
        let mut setup = Setup::new(&world.openid, &world.tool)
            .with(|config| config["tools"]["orders"]["upstream"] = json!(upstream));
        setup.policy = policy(rules);
        setup.start()
    }
}

/// An answer that is read as it comes.
struct Stream {
    child: Child,
    output: BufReader<ChildStdout>,
    decision: String,
}

impl Stream {
    fn begin(call: &Curl) -> Self {
        let mut child = call.command().args(["--include", "--no-buffer"]).spawn().unwrap();
        let mut stream = Self { output: BufReader::new(child.stdout.take().unwrap()), child, decision: String::new() };
        loop {
            let line = stream.line();
            match line.split_once(": ") {
                Some((name, id)) if name.eq_ignore_ascii_case("countersign-decision-id") => stream.decision = id.into(),
                None if line.is_empty() => return stream,
                _ => {}
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The lines up to an empty one.
    fn event(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return lines,
                line => lines.push(line),
            }
        }
    }

    /// The JSON of the next event that has data.
    fn message(&mut self) -> Value {
        loop {
            let lines = self.event();
            if let Some(data) = lines.iter().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The rest of it, and whether that was an end.
    fn rest(mut self) -> (Vec<u8>, bool) {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().success())
    }
}

#[test]
fn each_event_goes_on_redacted_before_the_next_is_sent() {
    let Some(world) = world() else { return };
    let feed = Feed::start("text/event-stream; charset=UTF-8");
    let sidecar = feed.sidecar(world, REDACT);
    let token = world.probe();
    for version in VERSIONS {
        feed.says("id: 1\r\ndata: {\"customer\":{\"id\":\"SECRET\"},\"n\":1}\r\n\r");
        let mut stream = Stream::begin(&sidecar.get("/orders/v1/stream", &token).argument(version));
        assert_eq!(stream.event(), ["id: 1", r#"data: {"customer":{"id":null},"n":1}"#]);
        feed.says("\n: SECRET and still here\n\n");
        assert_eq!(stream.event(), [":"]);
        // In pieces that are no events, over several lines.
        for piece in ["da", "ta:{\"note\"", ":[\"SEC", "RET\",\ndata:", "\"SECRET\"]", ",\ndata:\"n\":2}\n"] {
            feed.says(piece);
        }
        let lines = [stream.line(), stream.line(), stream.line()];
        assert_eq!(lines, [r#"data: {"note":null"#, "data: ,", r#"data: "n":2}"#]);
        feed.says("\nevent: last\ndata: {\"note\":3}\n\n");
        assert_eq!((stream.event().len(), stream.event().len()), (0, 2));
        feed.ends();
        let id = stream.decision.clone();
        assert_eq!(stream.rest(), (Vec::new(), true));
        let settled = sidecar.settled(&id);
        assert_eq!((&settled["outcome"], &settled["redactions"]), (&json!("completed"), &json!(3)), "{settled}");
        assert_eq!(settled["redacted"], json!({"/customer/id": 1, "/note": 2}));

        feed.says("data: {\"note\":\"SECRET\"}\n\n");
        let mut left = Stream::begin(&sidecar.get("/orders/v1/stream", &token).argument(version));
        assert_eq!(left.event(), [r#"data: {"note":null}"#]);
        left.child.kill().unwrap();
        left.child.wait().unwrap();
        let settled = sidecar.settled(&left.decision);
        assert_eq!((&settled["outcome"], &settled["redacted"]), (&json!("client_gone"), &json!({"/note": 1})));
        feed.ends();
    }
}

fn answer_of(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn what_is_whole_of_a_stream_is_shown_and_the_rest_is_cut_where_it_is_not_json() {
    let Some(world) = world() else { return };
    let (lines, sequence) = ("application/x-ndjson", "application/json-seq");
    let good = "data: {\"note\":null}\n\n";
    let deep = format!("data: {{\"note\":1}}\n\ndata: {}\"SECRET\"", "[".repeat(300));
    let long = format!("data: {{\"note\":1}}\n\nevent: {}\ndata: \"SECRET\"\n\n", "e".repeat(5_000));
    let cases: Vec<(&str, &[u8], &str, &str)> = vec![
        (EVENTS, b"data: {\"note\":1}\n\ndata: SECRET\n\ndata: 1\n\n", good, "not_json"),
        (EVENTS, b"data: {\"note\":1}\r\rdata: {\"note\":\"SECRET\"}}\n\n", good, "not_json"),
        (EVENTS, b"data: {\"note\":1}\n\ndata: {\"n\\u006fte\":\rdata: \"SECRET\r\r", good, "unfinished"),
        (EVENTS, b"data: {\"note\":1}\n\ndata: {\"n\xC1\xAFte\":\"SECRET\"}\n\n", good, "not_json"),
        (EVENTS, b"data: {\"note\":1}\n\ndata: [DONE]SECRET\n\n", good, "not_json"),
        (EVENTS, b"data: {\"note\":1}\n\ndata: {\"note\":\"SECRET", good, "unfinished"),
        (EVENTS, deep.as_bytes(), good, "too_deep"),
        (EVENTS, long.as_bytes(), good, "long_field"),
        (lines, b"{\"note\":1}\n{\"note\":\n\"SECRET\"}\n", "{\"note\":null}\n", "unfinished"),
        (lines, b"{\"note\":1}\n[1,\r{\"note\":\"SECRET\"}\n", "{\"note\":null}\n", "not_json"),
        (lines, b"{\"note\":1}\nSECRET\n", "{\"note\":null}\n", "not_json"),
        (lines, b"data: {\"note\":\"SECRET\"}\n\n", "", "not_json"),
        (sequence, b"{\"note\":\"SECRET\"}\n", "", "not_json"),
        (sequence, b"\x1E{\"note\":1}\n\x1E{\"note\":\"SECRET\"\x1E", "\x1E{\"note\":null}\n\x1E", "unfinished"),
        ("application/json", b"data: {\"note\":\"SECRET\"}\n\n", "", "not_json"),
    ];
    let bytes = cases.iter().map(|(kind, body, ..)| answer_of(kind, body)).collect();
    let sidecar = saying(world, bytes, REDACT);
    let token = world.probe();
    for (number, (_, _, whole, word)) in cases.into_iter().enumerate() {
        for version in VERSIONS {
            let shown = cut(&case(&sidecar, &token, number).argument(version));
            let text = String::from_utf8_lossy(&shown);
            assert!(!text.contains("SECRET"), "{number} {version}: {text:?}");
            // How much more depends on the pieces that it came in; in HTTP/2, what is not sent is dropped.
            let shows = if version == VERSIONS[0] { text.starts_with(whole) } else { true };
            assert!(shows, "{number} {version}: {text:?}");
            let settled = last_settled(&sidecar, "probe.echo");
            assert_eq!(
                (&settled["outcome"], &settled["withheld"]),
                (&json!("cut"), &json!(word)),
                "{number}: {settled}"
            );
            assert_eq!(settled["code"], "response_withheld");
        }
    }
}

#[test]
fn a_stream_is_written_so_that_all_readers_read_the_same_of_it() {
    let Some(world) = world() else { return };
    let cases: Vec<(&str, &[u8], &str)> = vec![
        (
            "TEXT/Event-Stream ; charset=\"utf-8\"",
            b"\xEF\xBB\xBFid: 1\0\r\ndata:{\"note\":1,\"note\":[{}]}\r\r\n{\"note\":\"SECRET\"}\n:SECRET\ndata: [DONE]\n\n",
            "data: {\"note\":null,\"note\":null}\n\n:\ndata: [DONE]\n\n",
        ),
        (EVENTS, b"id: 7\ndata\n\ndata: {\"note\":\"SECRET\"}\n", "id: 7\ndata: \n\ndata: {\"note\":null}\n"),
        ("application/jsonl", b"{\"note\":1}\r\n\n{\"customer\":{\"id\":2}}", "{\"note\":null}\r\n\n{\"customer\":{\"id\":null}}"),
        ("application/json-seq", b"\x1E{\"note\":\n1}\n\x1E[]\n", "\x1E{\"note\":\nnull}\n\x1E[]\n"),
        // What says that it is events, and is none, says nothing.
        (EVENTS, b"{\"note\":\"SECRET\"}", ""),
        (EVENTS, b"", ""),
    ];
    let sidecar = saying(world, cases.iter().map(|(kind, body, _)| answer_of(kind, body)).collect(), REDACT);
    let token = world.probe();
    for (number, (_, _, wanted)) in cases.into_iter().enumerate() {
        for version in VERSIONS {
            let answer = case(&sidecar, &token, number).argument(version).send();
            answer.went(200);
            assert_eq!(answer.text(), wanted, "{number} {version}");
            assert_eq!(answer.header("countersign-obligations"), Some("redact"));
        }
    }
}

#[test]
fn an_event_of_any_size_fills_no_memory_and_no_more_goes_on_than_may() {
    let Some(world) = world() else { return };
    let feed = Feed::start(EVENTS);
    let sidecar = feed.sidecar(world, REDACT);
    let token = world.probe();
    let mebibytes = |of: u8, count: usize| (0..count).for_each(|_| feed.says(vec![of; 1 << 20]));
    let call = || sidecar.get("/orders/v1/stream", &token);
    feed.says("data: 1\n\n");
    let mut warm = Stream::begin(&call());
    warm.event();
    feed.ends();
    assert!(warm.rest().1);
    let memory = sidecar.daemon.peak_memory();
    feed.says("data: {\"note\":\"");
    let large = Stream::begin(&call());
    let reading = std::thread::spawn(move || large.rest());
    mebibytes(b'9', 32);
    feed.says("\",\"x\":\"");
    mebibytes(b'x', 4);
    feed.says("\"}\n\n");
    mebibytes(b'n', 32);
    feed.says("\n:");
    mebibytes(b'c', 4);
    feed.says("\ndata: 2\n\n");
    feed.ends();
    let (shown, ended) = reading.join().unwrap();
    assert!(
        ended && shown.starts_with(b"data: {\"note\":null,\"x\":\"x") && shown.ends_with(b"x\"}\n\n:\ndata: 2\n\n")
    );
    assert_eq!(shown.len(), (4 << 20) + "data: {\"note\":null,\"x\":\"\"}\n\n:\ndata: 2\n\n".len());
    let grown = sidecar.daemon.peak_memory() - memory;
    assert!(grown < 24 << 20, "{} MiB more", grown >> 20);

    let capped = feed.sidecar(world, &format!("{REDACT}\nobligations contains {{\"max_response_bytes\": 60}}"));
    // 29 bytes each, of which less is shown; the third is too much.
    let event = "data: {\"note\":\"0123456789\"}\n\n";
    feed.says(event);
    let mut stream = Stream::begin(&capped.get("/orders/v1/stream", &token));
    assert_eq!(stream.event(), [r#"data: {"note":null}"#]);
    feed.says(event);
    assert_eq!(stream.event(), [r#"data: {"note":null}"#]);
    feed.says(event);
    let id = stream.decision.clone();
    assert_eq!(stream.rest(), (Vec::new(), false));
    let settled = capped.settled(&id);
    assert_eq!((&settled["withheld"], &settled["redactions"]), (&json!("too_large"), &json!(2)), "{settled}");
}

/// A call of a tool of the MCP server, by the revision of the protocol that is named.
fn mcp(sidecar: &Sidecar, token: &str, revision: &str, tool: &str) -> Curl {
    let mut meta = json!({"progressToken": "p1"});
    if revision > "2026" {
        for (name, value) in [
            ("protocolVersion", json!(revision)),
            ("clientInfo", json!({"name": "test", "version": "1"})),
            ("clientCapabilities", json!({})),
        ] {
            meta[format!("io.modelcontextprotocol/{name}")] = value;
        }
    }
    let arguments = if tool == "release" { json!({}) } else { json!({"name": "alice"}) };
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    });
    let call =
        Curl::get(sidecar.url("/orders/mcp")).bearer(token).argument("--data-binary").argument(&body.to_string());
    call.header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", revision)
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", tool)
}

/// The last message of an answer, as JSON or as events.
fn message(answer: &Answer) -> Value {
    answer.went(200);
    if answer.header("content-type") == Some("application/json") {
        return answer.json();
    }
    assert_eq!(answer.header("content-type"), Some(EVENTS));
    let text = answer.text();
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(data.unwrap_or_else(|| panic!("{text}"))).unwrap()
}

#[test]
fn what_a_tool_of_mcp_answers_is_redacted_as_json_and_as_events_and_its_progress_is_not_held_up() {
    let Some(world) = world() else { return };
    let home = root().join("tests/parts/mcp");
    if !home.join("packages/installed").exists() {
        return skipped("mcp", "its Python packages are not installed: run `.ci/run parts`");
    }
    let directory = tempfile::tempdir().unwrap();
    let part = Part::start(Command::new("python3").arg(home.join("server.py")), &directory.path().join("stderr"));
    let places = r#"["/result/structuredContent/ssn", "/result/structuredContent/cards/*/number", "/result/content/*/text", "/params/message"]"#;
    let mut setup = Setup::new(&world.openid, &world.tool).with(|config| {
        let orders = &mut config["tools"]["orders"];
        orders["upstream"] = part.ready["url"].clone();
        orders["actions"]["probe.upload"]["match"] = json!("POST /mcp");
    });
    setup.policy = policy(&format!("obligations contains {{\"code\": \"no_ssn\", \"redact\": {places}}}"));
    let sidecar = setup.start();
    let token = world.probe();
    for revision in ["2025-11-25", "2026-07-28"] {
        let answer = mcp(&sidecar, &token, revision, "find").send();
        let told = message(&answer);
        let found = &told["result"]["structuredContent"];
        let cards = json!([{"number": null}, {"number": null}]);
        assert_eq!((&found["name"], &found["ssn"], &found["cards"]), (&json!("alice"), &Value::Null, &cards), "{told}");
        assert_eq!(told["result"]["content"][0], json!({"type": "text", "text": null}));
        assert!(!answer.text().contains("078-05") && !answer.text().contains("4111"), "{}", answer.text());
        let settled = sidecar.settled(&answer.decision_id());
        let redacted = json!({
            "/result/structuredContent/ssn": 1, "/result/structuredContent/cards/*/number": 2,
            "/result/content/*/text": 1,
        });
        assert_eq!((&settled["redactions"], &settled["redacted"]), (&json!(4), &redacted), "{settled}");
    }
    let mut followed = Stream::begin(&mcp(&sidecar, &token, "2025-11-25", "follow"));
    let progress = followed.message();
    assert_eq!((&progress["method"], &progress["params"]["progress"]), (&json!("notifications/progress"), &json!(1)));
    assert_eq!(progress["params"]["message"], Value::Null, "{progress}");
    // Only now does the server have anything more to say.
    message(&mcp(&sidecar, &token, "2025-11-25", "release").send());
    let result = followed.message();
    assert_eq!((&result["id"], &result["result"]["structuredContent"]["ssn"]), (&json!(1), &Value::Null), "{result}");
    assert_eq!(result["result"]["structuredContent"]["name"], "alice");
    let id = followed.decision.clone();
    assert!(followed.rest().1);
    assert_eq!(sidecar.settled(&id)["redactions"], 5);
}
