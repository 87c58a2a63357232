//! Obligations in the running sidecar: what is redacted on its way, what is kept back and cut, what a call has to bring
//! along, who is told; in the answer, on record and to whoever asks afterwards.

mod streams;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Curl, PATIENCE, Sidecar, World, eventually, mark, process,
    sidecar::{Setup, explain},
    tool::{Tool, values},
    webhook::{Posted, webhook},
    world,
};

const HEAD: &str = "package countersign.teams.support\n\nallow contains {\"code\": \"x\"}\n\n";
const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];
const REFUND: &str = r#"{"amount":"20.00","currency":"USD"}"#;
const REDACT: &str = r#"obligations contains {"code": "customer_hidden", "redact": ["/customer/id", "/note"]}"#;

fn policy(rules: &str) -> String {
    format!("{HEAD}{rules}\n")
}

/// A sidecar before the usual tool, under other rules of the team.
fn with(world: &World, rules: &str) -> Sidecar {
    before(world, &world.tool, rules)
}

fn before(world: &World, tool: &Tool, rules: &str) -> Sidecar {
    let mut setup = Setup::new(&world.openid, tool);
    setup.policy = policy(rules);
    setup.start()
}

/// A tool that answers a request for `?case=N` with exactly those bytes and hangs up. The sidecar before it.
fn saying(world: &World, cases: Vec<Vec<u8>>, rules: &str) -> Sidecar {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cases = Arc::new(cases);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let cases = Arc::clone(&cases);
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let number = head.split_once("?case=").unwrap().1.split(' ').next().unwrap();
                let number: usize = number.parse().unwrap();
                stream.write_all(&cases[number]).ok();
                stream.flush().ok();
                // Until the other side has it.
                stream.shutdown(std::net::Shutdown::Write).ok();
                stream.read_exact(&mut [0]).ok();
            });
        }
    });
    let upstream = json!(format!("http://127.0.0.1:{port}"));
    let mut setup =
        Setup::new(&world.openid, &world.tool).with(|config| config["tools"]["orders"]["upstream"] = upstream);
    setup.policy = policy(rules);
    setup.start()
}

fn case(sidecar: &Sidecar, token: &str, number: usize) -> Curl {
    sidecar.get(&format!("/orders/v1/echo/x?case={number}"), token)
}

fn json_answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What of a body came before the connection broke, which it has to.
#[track_caller]
fn cut(call: &Curl) -> Vec<u8> {
    let output = call.command().output().unwrap();
    assert!(!output.status.success(), "a whole answer: {}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

#[track_caller]
fn last_settled(sidecar: &Sidecar, action: &str) -> Value {
    eventually("the call to be settled", || {
        let records = sidecar.query(&["--action", action]);
        let decided = records.iter().rev().find(|record| record["kind"] == "call.decided")?["decision_id"].clone();
        records.into_iter().find(|record| record["kind"] == "call.settled" && record["decision_id"] == decided)
    })
}

#[test]
fn what_is_redacted_is_null_in_the_answer_and_named_on_record_and_explained() {
    let Some(world) = world() else { return };
    let Some(two) = Tool::secured(&["--http", "2"]) else { return };
    for tool in [&world.tool, &two] {
        let sidecar = before(world, tool, REDACT);
        let token = world.openid.delegated("alice");
        for version in VERSIONS {
            let mark = mark();
            let call = sidecar.get("/orders/v1/orders/17", &token).argument(version).header("X-Mark", &mark);
            let call = call.header("Accept-Encoding", "gzip").header("Range", "bytes=0-3");
            let answer = call.header("If-None-Match", "\"x\"").send();
            answer.went(200);
            let body = answer.json();
            assert_eq!(
                (&body["customer"]["id"], &body["id"], &body["total"]),
                (&Value::Null, &json!("17"), &json!("120.00"))
            );
            assert!(!answer.text().contains("alice"), "{}", answer.text());
            assert_eq!((answer.header("content-length"), answer.header("etag")), (None, None));
            assert_eq!(answer.header("countersign-obligations"), Some("redact"));
            let asked = &tool.marked(&mark)[0];
            assert_eq!(values(asked, "accept-encoding"), ["identity"]);
            assert!(values(asked, "range").is_empty() && values(asked, "if-none-match").is_empty());

            let id = answer.decision_id();
            let decided = sidecar.decided(&answer);
            let obligation =
                json!([{"code": "customer_hidden", "duty": "redact", "source": "countersign.teams.support"}]);
            assert_eq!(decided["obligations"], obligation, "{decided}");
            let settled = sidecar.settled(&id);
            assert_eq!((&settled["altered"], &settled["redactions"]), (&json!(true), &json!(1)), "{settled}");
            assert_eq!((&settled["redacted"], &settled["outcome"]), (&json!({"/customer/id": 1}), &json!("completed")));
            assert_eq!(settled["response_bytes"], answer.body.len());
            let text = explain(&sidecar.ledger(), &id, &[]).well();
            assert!(
                text.contains("redact /customer/id, /note (customer_hidden by countersign.teams.support)"),
                "{text}"
            );
            assert!(
                text.contains("/customer/id made null, 1 times") && text.contains("by the same policy: the same"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_large_answer_is_redacted_as_it_flows_and_fills_no_memory() {
    let Some(world) = world() else { return };
    let sidecar = with(world, REDACT);
    let token = world.openid.delegated("alice");
    let get = |bytes: usize, version: &str| {
        let path = format!("/orders/v1/orders/huge?bytes={bytes}");
        sidecar.get(&path, &token).argument(version).send()
    };
    get(1_000, VERSIONS[0]).went(200);
    let memory = sidecar.daemon.peak_memory();
    for version in VERSIONS {
        let answer = get(64 << 20, version);
        answer.went(200);
        assert_eq!((&answer.json()["note"], &answer.json()["id"]), (&Value::Null, &json!("huge")));
        assert!(answer.body.len() < 1_000, "{}", answer.body.len());
        let settled = sidecar.settled(&answer.decision_id());
        assert_eq!((&settled["redactions"], &settled["response_bytes"]), (&json!(2), &json!(answer.body.len())));
    }
    let grown = sidecar.daemon.peak_memory() - memory;
    assert!(grown < 24 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn what_cannot_be_redacted_is_kept_back_and_nothing_of_it_is_told() {
    let Some(world) = world() else { return };
    let secret = r#"{"customer":{"id":"SECRET"}}"#;
    let with_head = |head: &str| {
        format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: {}\r\n\r\n{secret}", secret.len()).into_bytes()
    };
    let cases = vec![
        ("content_type", with_head("content-type: text/html")),
        ("content_type", with_head("x-none: 1")),
        ("content_type", with_head("content-type: application/json\r\ncontent-type: text/plain")),
        ("content_type", with_head("content-type: application/json; charset=utf-7")),
        ("content_type", with_head("content-type: text/event-stream; charset=utf-16")),
        ("content_type", with_head("content-type: multipart/mixed; boundary=x")),
        ("content_encoding", with_head("content-type: text/event-stream\r\ncontent-encoding: br")),
        ("partial", with_head("content-type: text/event-stream\r\ncontent-range: bytes 0-3/9")),
        ("content_encoding", with_head("content-type: application/json\r\ncontent-encoding: gzip")),
        ("partial", with_head("content-type: application/json\r\ncontent-range: bytes 0-3/9")),
        (
            "partial",
            b"HTTP/1.1 206 Partial Content\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        ),
        (
            "content_type",
            b"HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\ncontent-length: 16\r\n\r\nSECRET at line 3".to_vec(),
        ),
    ];
    let (words, bytes): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let sidecar = saying(world, bytes, REDACT);
    let token = world.probe();
    for (number, word) in words.into_iter().enumerate() {
        for version in VERSIONS {
            let answer = case(&sidecar, &token, number).argument(version).send();
            answer.refused(502, "response_withheld");
            assert!(!answer.text().contains("SECRET"), "{number}: {}", answer.text());
            assert_eq!((&answer.json()["sent"], &answer.json()["retry"]), (&json!(true), &json!("after_change")));
            assert_eq!(answer.json()["reasons"][0]["code"], "customer_hidden", "{}", answer.text());
            let settled = sidecar.settled(&answer.decision_id());
            assert_eq!((&settled["outcome"], &settled["code"]), (&json!("cut"), &json!("response_withheld")));
            assert_eq!((&settled["withheld"], &settled["altered"]), (&json!(word), &Value::Null), "{settled}");
        }
    }
}

#[test]
fn what_turns_out_not_to_be_json_is_cut_and_never_shown_as_it_is() {
    let Some(world) = world() else { return };
    let deep = format!("{{\"a\":{}\"SECRET\"", "[".repeat(300));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("not_json", br#"{"customer":{"id":"SECRET"}"#.iter().chain(b"}}").copied().collect()),
        ("not_json", br#"{"x":1,}{"customer":{"id":"SECRET"}}"#.to_vec()),
        ("not_json", br#"{'customer':{'id':'SECRET'}}"#.to_vec()),
        ("not_json", b"{\"c\xC1\xB5stomer\":{\"id\":\"SECRET\"}}".to_vec()),
        ("not_json", b"\xEF\xBB\xBF{\"customer\":{\"id\":\"SECRET\"}}".to_vec()),
        ("not_json", b"\x1f\x8bSECRET".to_vec()),
        ("not_json", br#"{"x":1}{"customer":{"id":"SECRET"}}"#.to_vec()),
        ("too_deep", deep.into_bytes()),
        ("unfinished", br#"{"customer":{"id":"SECRET"#.to_vec()),
    ];
    let (words, bodies): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let sidecar = saying(world, bodies.iter().map(|body| json_answer(body)).collect(), REDACT);
    let token = world.probe();
    for (number, word) in words.into_iter().enumerate() {
        for version in VERSIONS {
            let shown = cut(&case(&sidecar, &token, number).argument(version));
            assert!(!shown.windows(6).any(|window| window == b"SECRET"), "{number} {version}");
            let settled = last_settled(&sidecar, "probe.echo");
            assert_eq!(
                (&settled["outcome"], &settled["code"]),
                (&json!("cut"), &json!("response_withheld")),
                "{settled}"
            );
            assert_eq!(settled["withheld"], word, "{number} {version}: {settled}");
        }
    }
}

#[test]
fn names_are_found_however_they_are_written_and_however_often() {
    let Some(world) = world() else { return };
    let body = br#"{"customer":{"id":"SECRET","\u0069d":"SECRET","i\u0064":["SECRET"]},"\u006eote":"SECRET","x":"ok"}"#;
    // In pieces, and without a length.
    let pieces: Vec<u8> = body.iter().flat_map(|byte| [b"1\r\n", &[*byte][..], b"\r\n"].concat()).collect();
    let chunked = [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.acme+json\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n",
        pieces.as_slice(),
        b"0\r\nx-sum: SECRET\r\n\r\n",
    ]
    .concat();
    let empty = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n".to_vec();
    let sidecar = saying(world, vec![json_answer(body), chunked, empty], REDACT);
    let token = world.probe();
    for version in VERSIONS {
        for number in [0, 1] {
            let answer = case(&sidecar, &token, number).argument(version).header("TE", "trailers").send();
            answer.went(200);
            assert!(!answer.text().contains("SECRET"), "{}", answer.text());
            assert_eq!((&answer.json()["x"], &answer.json()["note"]), (&json!("ok"), &Value::Null));
            assert_eq!(sidecar.settled(&answer.decision_id())["redactions"], 4);
        }
        let nothing = case(&sidecar, &token, 2).argument(version).send();
        nothing.went(200);
        assert_eq!(sidecar.settled(&nothing.decision_id())["altered"], Value::Null);
    }
}

#[test]
fn an_answer_that_is_too_large_is_refused_where_that_is_known_and_cut_where_it_shows() {
    let Some(world) = world() else { return };
    let unknown = [b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n".to_vec(), vec![b'a'; 200_000]].concat();
    let known = |bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'a'; bytes]].concat()
    };
    let encoded = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b".to_vec();
    let rules = "obligations contains {\"code\": \"small\", \"max_response_bytes\": 65536}\n\
                 obligations contains {\"max_response_bytes\": 1000000}";
    let sidecar = saying(world, vec![known(65_536), known(65_537), unknown, encoded], rules);
    let token = world.probe();
    for version in VERSIONS {
        let call = |number: usize| case(&sidecar, &token, number).argument(version);
        let whole = call(0).send();
        whole.went(200);
        assert_eq!((whole.body.len(), whole.header("content-length")), (65_536, Some("65536")));
        let refused = call(1).send();
        refused.refused(502, "response_withheld");
        assert_eq!(sidecar.settled(&refused.decision_id())["withheld"], "too_large");
        let shown = cut(&call(2));
        assert!(shown.len() <= 65_536 && shown.iter().all(|byte| *byte == b'a'), "{}", shown.len());
        let settled = last_settled(&sidecar, "probe.echo");
        assert_eq!((&settled["outcome"], &settled["withheld"]), (&json!("cut"), &json!("too_large")), "{settled}");
        call(3).send().refused(502, "response_withheld");
    }
}

#[test]
fn a_call_without_the_field_that_it_has_to_carry_does_not_go() {
    let Some(world) = world() else { return };
    let rules = r#"obligations contains {"code": "change_ticket", "require_header": {"name": "X-Change-Ticket", "pattern": "CHG-*"}} if
    input.action.effect == "write""#;
    let listing = |names: Value| move |config: &mut Value| config["listen"]["agent"]["input_headers"] = names;
    let mut setup = Setup::new(&world.openid, &world.tool).with(listing(json!(["X-Change-Ticket"])));
    setup.policy = policy(rules);
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let refund = |sidecar: &Sidecar, ticket: Option<&str>| -> Answer {
        let mark = mark();
        let call = sidecar.refund("17", &token, REFUND).header("X-Mark", &mark);
        let answer = match ticket {
            Some(ticket) => call.header("X-Change-Ticket", ticket).send(),
            None => call.send(),
        };
        assert_eq!(world.tool.marked(&mark).len(), usize::from(answer.status == 201));
        answer
    };
    let good = refund(&sidecar, Some("CHG-4711"));
    good.went(201);
    assert_eq!(sidecar.decided(&good)["headers"], json!({"x-change-ticket": "CHG-4711"}));
    for ticket in [None, Some("4711"), Some("none CHG-1")] {
        let answer = refund(&sidecar, ticket);
        answer.refused(403, "policy_denied");
        let reason = &answer.json()["reasons"][0];
        assert_eq!(
            (&reason["code"], &reason["source"]),
            (&json!("change_ticket"), &json!("countersign.teams.support"))
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains("`X-Change-Ticket`, in the form `CHG-*`"));
        assert_eq!(sidecar.decided(&answer)["obligations"][0]["duty"], "require_header");
        let text = explain(&sidecar.ledger(), &answer.decision_id(), &[]).well();
        assert!(text.contains("by the same policy: the same"), "{text}");
    }
    sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    // Where policy may not see the field, nobody can say whether it is there.
    let mut blind = Setup::new(&world.openid, &world.tool);
    blind.policy = policy(rules);
    let blind = blind.start();
    let answer = refund(&blind, Some("CHG-4711"));
    answer.refused(403, "obligation_unknown");
    assert!(!answer.text().contains("input_headers"), "{}", answer.text());
    let text = explain(&blind.ledger(), &answer.decision_id(), &[]).well();
    assert!(text.contains("not among `listen.agent.input_headers`"), "{text}");
}

#[test]
fn a_limit_of_policy_is_tighter_than_the_grants_and_says_what_is_allowed() {
    let Some(world) = world() else { return };
    let rules = r#"obligations contains {"code": "at_night", "message": "At most 15 USD now.", "limit": {"amount": {"max": "15", "currency": "USD"}}}"#;
    let sidecar = with(world, rules);
    let token = world.openid.delegated("alice");
    let refund =
        |amount: &str| sidecar.refund("17", &token, &json!({"amount": amount, "currency": "USD"}).to_string()).send();
    refund("15.00").went(201);
    let answer = refund("15.01");
    answer.refused(403, "limit_exceeded");
    let problem = answer.json();
    assert_eq!(problem["allowed"], json!({"amount": {"max": "15.00", "currency": "USD"}}), "{problem}");
    assert_eq!(
        (&problem["detail"], &problem["reasons"][0]["code"]),
        (&json!("At most 15 USD now."), &json!("at_night"))
    );
    refund("15.00").went(201);
}

#[test]
fn an_obligation_that_is_none_denies_and_the_record_says_whose_it_is() {
    let Some(world) = world() else { return };
    for (rule, why) in [
        ("obligations contains {\"code\": \"mask\", \"redcat\": [\"/a\"]}", "did you mean `redact`?"),
        ("obligations contains {\"code\": \"mask\", \"redact\": [input.action.name]}", "not a JSON pointer"),
        (
            "obligations contains {\"code\": \"mask\", \"notify\": {\"channel\": \"nobody\", \"message\": \"x\"}}",
            "no channel `nobody`",
        ),
    ] {
        let mut setup = Setup::new(&world.openid, &world.tool);
        setup.policy = policy("");
        setup.platform = format!("package countersign.org\n\n{rule}\n");
        let sidecar = setup.start();
        let mark = mark();
        let call = sidecar.refund("17", &world.openid.delegated("alice"), REFUND).header("X-Mark", &mark);
        let answer = call.send();
        answer.refused(403, "obligation_unknown");
        assert!(world.tool.marked(&mark).is_empty());
        let reason = &answer.json()["reasons"][0];
        assert_eq!((&reason["code"], &reason["source"]), (&json!("mask"), &json!("countersign.org")));
        assert!(!answer.text().contains(why), "the agent learns how the rule is written: {}", answer.text());
        let text = explain(&sidecar.ledger(), &answer.decision_id(), &[]).well();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_is_only_observed_is_held_to_nothing_and_the_record_says_to_what_it_would_be() {
    let Some(world) = world() else { return };
    let until = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24)).unwrap().to_string();
    let observe = json!({"owner": "dana@acme.example", "until": until});
    let mut setup = Setup::new(&world.openid, &world.tool)
        .with(|config| config["tools"]["orders"]["actions"]["orders.read"]["observe"] = observe);
    setup.policy = policy(&format!(
        "{REDACT}\nobligations contains {{\"limit\": {{\"amount\": {{\"max\": 1}}}}}} if input.user.id == \"bob\"\n\
         obligations contains {{\"notify\": {{\"channel\": \"alerts\", \"message\": \"read\"}}}}"
    ));
    let sidecar = setup.start();
    let answer = sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send();
    answer.went(200);
    assert_eq!(answer.json()["customer"]["id"], "alice");
    assert_eq!(answer.header("countersign-obligations"), None);
    let record = sidecar.decided(&answer);
    assert_eq!((&record["mode"], record["obligations"].as_array().unwrap().len()), (&json!("observe"), 2), "{record}");
    assert_eq!(sidecar.settled(&answer.decision_id())["altered"], Value::Null);
    let text = explain(&sidecar.ledger(), &answer.decision_id(), &[]).well();
    assert!(text.contains("only observed"), "{text}");
    // What the call would have fallen short of is waived, on record.
    let bob = sidecar.get("/orders/v1/orders/21", &world.openid.delegated("bob")).send();
    bob.went(200);
    assert_eq!(sidecar.decided(&bob)["observed"]["waived"][0]["code"], "limit_exceeded");
    assert!(sidecar.query(&["--kind", "alert.raised"]).is_empty(), "somebody was told of what is only observed");
}

#[test]
fn whoever_has_to_be_told_is_told_on_the_channel_and_it_is_on_record() {
    let Some(world) = world() else { return };
    let (url, told) = webhook();
    let rules = r#"obligations contains {"code": "large", "notify": {"channel": "security", "message": sprintf("%s: %s", [input.user.id, input.action.name])}} if
    input.action.effect == "write""#;
    let mut setup = Setup::new(&world.openid, &world.tool)
        .with(|config| config["notices"] = json!({"security": {"url": url, "secret": {"file": "webhook.secret"}}}));
    setup.write_secret("webhook.secret", "whsec");
    setup.policy = policy(rules);
    let sidecar = setup.start();
    let answer = sidecar.refund("17", &world.openid.delegated("alice"), REFUND).send();
    answer.went(201);
    let Posted { head, body } = told.recv_timeout(PATIENCE).unwrap();
    assert!(head.to_ascii_lowercase().contains("countersign-signature: t="), "{head}");
    assert_eq!((&body["alert"], &body["channel"]), (&json!("policy_notice"), &json!("security")), "{body}");
    assert_eq!((&body["message"], &body["call"]), (&json!("alice: refunds.create"), &json!(answer.decision_id())));
    assert!(body.get("user").is_none(), "{body}");
    let record = eventually("the notice to be on record", || sidecar.query(&["--kind", "alert.raised"]).pop());
    assert_eq!((&record["alert"], &record["code"]), (&json!("policy_notice"), &json!("large")), "{record}");
    assert_eq!(
        (&record["message"], &record["source"]),
        (&json!("alice: refunds.create"), &json!("countersign.teams.support"))
    );
    // Nothing else is told.
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
    assert_eq!(sidecar.query(&["--kind", "alert.raised"]).len(), 1);
}

#[test]
fn a_replay_names_calls_that_would_be_held_to_something_else() {
    let Some(world) = world() else { return };
    let sidecar = with(world, REDACT);
    let answer = sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send();
    answer.went(200);
    sidecar.settled(&answer.decision_id());
    let team = sidecar.directory().join("candidate");
    let replayed = |rules: &str| -> Value {
        std::fs::create_dir_all(&team).unwrap();
        std::fs::write(team.join("support.rego"), policy(rules)).unwrap();
        let mut run = process::countersign();
        run.args(["policy", "replay", "--json"]).arg(format!("support={}:orders", team.display()));
        run.arg("--catalogue").arg(sidecar.directory().join("countersign.yaml")).arg("--from").arg(sidecar.ledger());
        let ran = process::run(&mut run);
        serde_json::from_str(ran.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {} {}", ran.stdout, ran.stderr))
    };
    assert_eq!(replayed(REDACT)["unchanged"], 1, "{}", replayed(REDACT));
    let changed = replayed("");
    assert_eq!(changed["changes"][0]["change"], "other_obligations", "{changed}");
}
