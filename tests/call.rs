//! The way of a call: what reaches the tool, what comes back, and what is written down, with a real provider's token,
//! `curl` as the agent and a tool behind TLS.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::{
    Curl, Sidecar, eventually,
    http::connect,
    mark,
    openid::{claims, usual_details},
    sha256,
    sidecar::{Setup, TOOL_SECRET},
    tool::{Tool, values},
    world,
};

#[test]
fn a_read_goes_through_under_two_names() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let mark = mark();
    let answer = world.sidecar.get("/orders/v1/orders/17", &token).header("X-Mark", &mark).send();
    answer.went(200);
    assert_eq!(answer.json()["customer"]["id"], "alice");

    let record = world.sidecar.decided(&answer);
    assert_eq!(record["decision"], "permit");
    assert_eq!(record["user"]["id"], "alice");
    assert_eq!(record["user"]["issuer"], world.openid.issuer());
    assert_eq!(record["agent"]["id"], "support-v1");
    assert_eq!(record["run_id"], "run-1");
    assert_eq!(record["task_id"], "ticket-1");
    assert_eq!((&record["tool"], &record["action"]), (&json!("orders"), &json!("orders.read")));
    assert_eq!(record["resource"], "orders/17");
    assert_eq!(record["path"], "/orders/v1/orders/17");
    let settled = world.sidecar.settled(&answer.decision_id());
    assert_eq!(settled["status"], 200, "{settled}");

    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(request["url"], "/v1/orders/17");
}

#[test]
fn credentials_never_cross() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let mark = mark();
    let answer = world
        .sidecar
        .get("/orders/v1/orders/17", &token)
        .header("X-Mark", &mark)
        .header("Cookie", "session=the-agents")
        .header("Proxy-Authorization", "Basic YWdlbnQ6c2VjcmV0")
        .send();
    answer.went(200);

    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(values(request, "authorization"), [format!("Bearer {TOOL_SECRET}")]);
    let all = request.to_string();
    let signature = token.rsplit('.').next().unwrap();
    for secret in [signature, "the-agents", "YWdlbnQ6c2VjcmV0"] {
        assert!(!all.contains(secret), "{secret} reached the tool: {all}");
    }
    let told = format!("{:?}{}", answer.headers, answer.text());
    assert!(!told.contains(TOOL_SECRET));
    let ledger = world.sidecar.records(&answer.decision_id());
    assert!(!json!(ledger).to_string().contains(signature), "the token itself is in the ledger");
}

#[test]
fn what_the_tool_sets_for_browsers_and_hops_stays_with_the_sidecar() {
    let Some(world) = world() else { return };
    let answer = world.sidecar.get("/orders/v1/cookie", &world.probe()).send();
    answer.went(200);
    for name in ["set-cookie", "www-authenticate", "proxy-authenticate", "x-private-hop", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name} reached the agent");
    }
}

#[test]
fn what_a_tool_over_plain_http_1_marks_as_hop_by_hop_stays_with_the_sidecar() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    let sidecar = Setup::new(&world.openid, &tool).start();
    let answer = sidecar.get("/orders/v1/cookie", &world.probe()).send();
    answer.went(200);
    for name in ["set-cookie", "www-authenticate", "proxy-authenticate", "x-private-hop", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name} reached the agent");
    }
}

#[test]
fn a_refund_within_the_delegation_reaches_the_tool_byte_for_byte() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let mark = mark();
    // Whitespace, member order, escapes and a redundant zero: nothing of it may be tidied up on the way.
    let body = "{ \"currency\" : \"USD\",\n\t\"reason\":\"gr\\u00fc\\u00dfe \u{1F600}\",  \"amount\":\"20.00\" }\n";
    let answer =
        world.sidecar.refund("17", &token, body).header("X-Mark", &mark).header("Idempotency-Key", "k-1").send();
    answer.went(201);
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    assert_eq!(request["body_sha256"], sha256(body.as_bytes()));
    assert_eq!(request["complete"], true);
    assert_eq!(values(request, "idempotency-key"), ["k-1"]);

    let record = world.sidecar.decided(&answer);
    assert_eq!(record["parameters"]["amount"]["value"]["value"]["minor"], 2000, "{record}");
    assert_eq!(record["facts"]["order"]["placed_by"]["id"], "alice", "{record}");
}

#[test]
fn an_agent_that_speaks_http_2_is_served_alike() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let answer = world.sidecar.get("/orders/v1/orders/17", &token).argument("--http2-prior-knowledge").send();
    answer.went(200);
    assert_eq!(world.sidecar.decided(&answer)["decision"], "permit");
    let refused = world.sidecar.refund("21", &token, r#"{"amount":"20.00","currency":"USD"}"#);
    refused.argument("--http2-prior-knowledge").send().refused(403, "relation_unproven");
}

#[test]
fn each_refusal_says_why_and_what_would_help_and_sends_nothing() {
    let Some(world) = world() else { return };
    let alice = world.openid.delegated("alice");
    let bob = world.openid.delegated("bob");
    let marked = mark();
    let refund = |order: &str, token: &str, amount: &str| {
        let body = json!({"amount": amount, "currency": "USD"}).to_string();
        world.sidecar.refund(order, token, &body).header("X-Mark", &marked).send()
    };

    let limit = refund("17", &alice, "80.00");
    limit.refused(403, "limit_exceeded");
    assert_eq!(limit.json()["allowed"]["amount"]["max"], "50.00", "{}", limit.text());
    assert!(limit.json()["limiting_hop"].as_str().unwrap().contains("support-v1"), "{}", limit.text());
    refund("21", &alice, "20.00").refused(403, "relation_unproven");
    refund("404", &alice, "20.00").refused(403, "relation_unproven");
    refund("17", &bob, "20.00").refused(403, "entitlement");
    let denied = refund("18", &alice, "20.00");
    denied.refused(403, "policy_denied");
    assert_eq!(denied.json()["reasons"][0]["code"], "order_on_hold");
    assert!(!denied.text().contains("4711"), "what only the record holds reached the agent");
    assert!(world.sidecar.decided(&denied).to_string().contains("4711"));
    let approval = refund("17", &alice, "45.00");
    approval.refused(403, "approval_required");
    assert_eq!((&approval.json()["approval"], &approval.json()["retry"]), (&Value::Null, &json!("after_change")));

    let observing = world.openid.delegated_with("alice", &[("stage", "observe")]);
    refund("17", &observing, "20.00").refused(403, "stage");
    let drafting = world.openid.delegated_with("alice", &[("stage", "draft")]);
    refund("17", &drafting, "20.00").refused(403, "approval_required");
    let unsaid = world.openid.sign(&json!({"like": alice, "claims": {"stage": null}}));
    refund("17", &unsaid, "20.00").refused(403, "stage");

    let reading = usual_details().as_array().unwrap()[..1].to_vec();
    let reading = json!(reading).to_string();
    let reading = world
        .openid
        .delegated_with("alice", &[("authorization_details", &reading), ("scope", "orders.read orders.list")]);
    let scope = refund("17", &reading, "20.00");
    scope.refused(403, "insufficient_scope");
    assert!(scope.header("www-authenticate").unwrap().contains("insufficient_scope"), "{:?}", scope.headers);

    world.sidecar.get("/nowhere/v1/orders/17", &alice).send().refused(403, "unknown_tool");
    world.sidecar.get("/orders/v1/secrets", &alice).send().refused(403, "unmapped_action");
    let delete = Curl::get(world.sidecar.url("/orders/v1/orders/17")).argument("--request").argument("DELETE");
    delete.bearer(&alice).header("X-Mark", &marked).send().refused(403, "unmapped_action");

    assert_eq!(world.tool.marked(&marked), Vec::<Value>::new());
    for answer in [&limit, &denied, &approval, &scope] {
        assert_eq!(answer.json()["sent"], false);
        assert_eq!(answer.json()["decision_id"], answer.decision_id());
        let record = world.sidecar.decided(answer);
        assert_eq!(record["code"], answer.code(), "{record}");
        assert_eq!(record["user"]["id"], "alice");
    }
}

#[test]
fn the_tools_own_answer_reaches_the_agent_whatever_it_is() {
    let Some(world) = world() else { return };
    let token = world.probe();
    for status in [200, 202, 400, 401, 404, 409, 418, 429, 500, 503] {
        let answer = world.sidecar.get(&format!("/orders/v1/status/{status}"), &token).send();
        answer.went(status);
        assert_eq!(answer.json()["status"], status, "the tool's body, not ours");
        assert_eq!(world.sidecar.decided(&answer)["decision"], "permit");
        assert_eq!(world.sidecar.settled(&answer.decision_id())["status"], status);
    }
    for status in [204, 304] {
        let answer = world.sidecar.get(&format!("/orders/v1/status/{status}"), &token).send();
        answer.went(status);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn a_fact_that_cannot_be_read_is_never_guessed() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let marked = mark();
    for order in ["500", "garbage", "moved", "huge", "empty"] {
        let answer = world.sidecar.refund(order, &token, body).header("X-Mark", &marked).send();
        answer.refused(503, "facts_unavailable");
    }
    for order in ["gone", "typed", "ownerless"] {
        let answer = world.sidecar.refund(order, &token, body).header("X-Mark", &marked).send();
        answer.refused(403, "relation_unproven");
    }
    assert_eq!(world.tool.marked(&marked), Vec::<Value>::new());
}

#[test]
fn a_path_variable_stays_one_segment_wherever_it_goes() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let answer = world.sidecar.get("/orders/v1/orders/a%20b%3Fx=1&y", &token).header("X-Mark", "encoded").send();
    answer.went(404);
    assert_eq!(world.sidecar.decided(&answer)["resource"], "orders/a b?x=1&y");
    let [request] = &world.tool.marked("encoded")[..] else { panic!("the tool was called once") };
    assert_eq!(request["url"], "/v1/orders/a%20b%3Fx=1&y");
    // The fact about an order of that name is read under the same one segment.
    let before = world.tool.requests().len();
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    world.sidecar.refund("17%3Fas=21", &token, body).send().refused(403, "relation_unproven");
    let read = world.tool.requests().split_off(before);
    assert!(
        read.iter()
            .any(|request| request["url"] == "/v1/orders/17%3Fas%3D21" || request["url"] == "/v1/orders/17%3Fas=21"),
        "{read:?}"
    );
}

#[test]
fn a_credential_that_changes_is_presented_from_then_on_and_one_that_is_gone_refuses() {
    let Some(world) = world() else { return };
    let setup = Setup::new(&world.openid, &world.tool);
    let secret = setup.write_secret("tool-credential", "the-first-secret");
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    let presented = || {
        let mark = mark();
        sidecar.get("/orders/v1/orders/17", &token).header("X-Mark", &mark).send().went(200);
        values(&world.tool.marked(&mark)[0], "authorization")
    };
    assert_eq!(presented(), ["Bearer the-first-secret"]);
    std::fs::write(&secret, "the-second-secret").unwrap();
    eventually("the new secret to be read", || (presented() == ["Bearer the-second-secret"]).then_some(()));
    std::fs::remove_file(&secret).unwrap();
    let refused = eventually("the secret to be missed", || {
        Some(sidecar.get("/orders/v1/orders/17", &token).send()).filter(|answer| answer.status != 200)
    });
    refused.refused(503, "credential_unavailable");
    assert_eq!(sidecar.decided(&refused)["decision"], "deny");
}

#[test]
fn a_redirect_is_handed_on_and_not_followed() {
    let Some(world) = world() else { return };
    let answer = world.sidecar.get("/orders/v1/redirect", &world.probe()).send();
    answer.went(302);
    assert_eq!(answer.header("location"), Some("https://elsewhere.example/v1/orders/17"));
}

/// The memory that a sidecar may take on top of what it had, while far more than that streams through it.
const STREAMING_MEMORY: u64 = 24 << 20;

#[test]
fn large_bodies_stream_both_ways_through_little_memory() {
    const SIZE: usize = 64 << 20;
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let token = world.probe();
    sidecar.get("/orders/v1/echo/warm", &token).send().went(200);
    let before = sidecar.daemon.peak_memory();

    let body: Vec<u8> = (0..SIZE).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let digest = sha256(&body);
    let sent = Curl::post(sidecar.url("/orders/v1/upload"), "application/octet-stream", body).bearer(&token).send();
    sent.went(200);
    assert_eq!((&sent.json()["bytes"], &sent.json()["sha256"]), (&json!(SIZE), &json!(digest)));

    let download = sidecar.get(&format!("/orders/v1/download?bytes={SIZE}"), &token).send();
    download.went(200);
    assert_eq!(download.body.len(), SIZE);
    assert!(download.body.chunks(26 * 2520).all(|block| block.starts_with(b"abcdefghijklm")));

    let grown = sidecar.daemon.peak_memory() - before;
    assert!(grown < STREAMING_MEMORY, "{} MiB more", grown >> 20);
}

#[test]
fn events_arrive_while_the_stream_is_still_open() {
    let Some(world) = world() else { return };
    let token = world.probe();
    // A stream that would take minutes: whoever waits for its end never sees the first event.
    let call = world.sidecar.get("/orders/v1/stream?count=1000&every=250", &token).argument("--no-buffer");
    let mut child = call.command().arg("--include").stdin(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = Instant::now();
    let mut decision_id = None;
    let mut event = None;
    while event.is_none() {
        let line = lines.next().expect("the stream goes on").unwrap();
        if let Some((name, value)) = line.split_once(": ") {
            if name.eq_ignore_ascii_case("countersign-decision-id") {
                decision_id = Some(value.trim().to_owned());
            }
            event = (name == "data").then(|| value.to_owned());
        }
    }
    assert!(begun.elapsed() < crate::support::PATIENCE);
    assert_eq!(serde_json::from_str::<Value>(&event.unwrap()).unwrap()["n"], 1);

    // Then the agent leaves, which is how this call ends.
    child.kill().unwrap();
    child.wait().unwrap();
    let settled = world.sidecar.settled(&decision_id.unwrap());
    assert_eq!(settled["outcome"], "client_gone", "{settled}");
}

#[test]
fn an_agent_that_leaves_before_the_answer_is_on_record() {
    let Some(world) = world() else { return };
    let mark = mark();
    let call = world.sidecar.get("/orders/v1/hang", &world.probe()).header("X-Mark", &mark);
    let mut child = call.command().spawn().unwrap();
    eventually("the call to reach the tool", || (!world.tool.marked(&mark).is_empty()).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let settled = eventually("the call to be settled", || {
        let records = world.sidecar.query(&["--action", "probe.hang"]);
        records.into_iter().find(|record| record["kind"] == "call.settled")
    });
    assert_eq!(settled["outcome"], "client_gone", "{settled}");
}

fn hasty(world: &crate::support::World) -> Sidecar {
    Setup::new(&world.openid, &world.tool).with(|config| config["tools"]["orders"]["timeout"] = json!("300ms")).start()
}

#[test]
fn a_tool_that_never_answers_is_a_timeout_and_one_that_breaks_off_is_unreachable() {
    let Some(world) = world() else { return };
    let sidecar = hasty(world);
    let token = world.probe();
    let answer = sidecar.get("/orders/v1/hang", &token).send();
    answer.refused(504, "tool_timeout");
    let settled = sidecar.settled(&answer.decision_id());
    assert_eq!((&settled["outcome"], &settled["code"]), (&json!("tool_timeout"), &json!("tool_timeout")));
    assert_eq!(sidecar.decided(&answer)["decision"], "permit");

    let answer = sidecar.get("/orders/v1/drop", &token).send();
    answer.refused(502, "tool_unreachable");
    sidecar.settled(&answer.decision_id());
    sidecar.get("/orders/v1/echo/after", &token).send().went(200);
}

#[test]
fn a_tool_that_is_not_there_is_unreachable_and_nothing_was_sent() {
    let Some(world) = world() else { return };
    let port = crate::support::free_port();
    let sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| config["tools"]["orders"]["upstream"] = json!(format!("http://127.0.0.1:{port}")))
        .start();
    let answer = sidecar.get("/orders/v1/echo/x", &world.probe()).send();
    answer.refused(502, "tool_unreachable");
    assert_eq!(answer.json()["sent"], false);
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    sidecar.refund("17", &world.openid.delegated("alice"), body).send().refused(503, "facts_unavailable");
}

#[test]
fn a_tool_whose_certificate_nobody_vouches_for_gets_nothing() {
    let Some(world) = world() else { return };
    let trusting_the_system = |config: &mut Value| drop(config.as_object_mut().unwrap().remove("tls"));
    let sidecar = Setup::new(&world.openid, &world.tool).with(trusting_the_system).start();
    let mark = mark();
    let answer = sidecar.get("/orders/v1/echo/x", &world.probe()).header("X-Mark", &mark).send();
    answer.refused(502, "tool_unreachable");
    assert_eq!(world.tool.marked(&mark), Vec::<Value>::new());
}

#[test]
fn a_cut_response_is_cut_for_the_agent_too() {
    let Some(world) = world() else { return };
    let complaint = world.sidecar.get("/orders/v1/cut", &world.probe()).attempt().unwrap_err();
    assert!(complaint.contains("18"), "curl should miss bytes (18) and says {complaint}");
    let settled = eventually("the call to be settled", || {
        let records = world.sidecar.query(&["--action", "probe.cut"]);
        records.into_iter().find(|record| record["kind"] == "call.settled")
    });
    assert_eq!(settled["outcome"], "tool_broke", "{settled}");
}

#[test]
fn a_plain_bearer_token_is_refused_where_the_listener_does_not_allow_it() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let body = r#"{"amount":"20.00","currency":"USD"}"#;
    let setup = |bearer: &str| {
        Setup::new(&world.openid, &world.tool)
            .with(|config| config["listen"]["agent"]["bearer"] = json!(bearer))
            .start()
    };
    let reads = setup("reads");
    reads.get("/orders/v1/orders/17", &token).send().went(200);
    reads.refund("17", &token, body).send().refused(401, "wrong_sender");
    let none = setup("refuse");
    none.get("/orders/v1/orders/17", &token).send().refused(401, "wrong_sender");
}

#[test]
fn many_calls_on_one_connection_each_have_their_own_decision() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    let mut stream = connect(world.sidecar.port());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let request =
            format!("GET /orders/v1/orders/17 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let answer = crate::support::Answer::new(&String::from_utf8(head).unwrap(), Vec::new());
        answer.went(200);
        let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        assert!(seen.insert(answer.decision_id()));
    }
    assert_eq!(claims(&token)["sub"], "alice");
}
