//! The whole line with real parts: what the agent is told, what the tool received, and what the ledger holds.

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};

use crate::testing::world::{World, client, loopback};

const JSON: (&str, &str) = ("content-type", "application/json");
const REFUNDS: &str = "/orders/v1/orders/17/refunds";

/// Method, target, body, header fields; the code and the stage it is refused with.
type Case = (&'static str, &'static str, String, Vec<(&'static str, String)>, &'static str, &'static str);

fn refund(amount: &str) -> String {
    format!(r#"{{"amount": "{amount}", "currency": "USD"}}"#)
}

#[tokio::test]
async fn a_permitted_call_reaches_the_tool_as_it_was_decided_and_comes_back_clean() {
    let world = World::new().await;
    let headers = [
        JSON,
        ("x-forwarded-for", "1.2.3.4"),
        ("cookie", "a=b"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("baggage", "user=alice"),
        ("idempotency-key", "k1"),
        ("x-http-method-override", "DELETE"),
    ];
    let response = world.call("POST", "/orders/v1/orders/%31%37/refunds", &headers, &refund("20.00")).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-tool"], "yes");
    for name in ["set-cookie", "www-authenticate"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let id = response.headers()["countersign-decision-id"].to_str().unwrap().to_owned();
    let body = net::body::collect(response.into_body(), 1_000).await.unwrap();
    assert_eq!(body, r#"{"done":true}"#);

    let received = world.forwarded().pop().unwrap();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/v1/orders/17/refunds"));
    assert_eq!(received.body, refund("20.00"));
    assert_eq!(received.headers["authorization"], "Bearer tool-secret-1");
    assert_eq!(received.headers["via"], "1.1 countersign");
    assert_eq!(received.headers["idempotency-key"], "k1");
    for name in ["x-forwarded-for", "cookie", "baggage", "x-http-method-override", "transfer-encoding"] {
        assert!(!received.headers.contains_key(name), "{name}");
    }
    let traceparent = received.headers["traceparent"].to_str().unwrap().to_owned();
    assert!(!traceparent.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "a claimed trace is only linked");

    let decided = world.records("call.decided").await;
    let [decided] = decided.as_slice() else { panic!("{decided:?}") };
    assert_eq!(decided.text("decision_id"), Some(id.as_str()));
    assert_eq!((decided.text("run_id"), decided.text("tool")), (Some("run-1"), Some("orders")));
    assert_eq!(decided.text("trace_id"), traceparent.split('-').nth(1));
    assert_eq!(decided.text("stage_reached"), Some("record"));
}

#[tokio::test]
async fn every_permitted_call_is_settled_with_what_flowed() {
    let world = World::new().await;
    let streamed = world.told("PUT", "/orders/v1/orders/17/file", &[], "0123456789").await;
    assert_eq!(streamed.0, 201);
    let settled = world.records("call.settled").await;
    let [settled] = settled.as_slice() else { panic!("{settled:?}") };
    assert_eq!(settled.text("decision_id"), Some(streamed.2.as_str()));
    assert_eq!((settled.text("outcome"), &settled.fields["status"]), (Some("completed"), &json!(201)));
    assert_eq!((&settled.fields["request_bytes"], &settled.fields["response_bytes"]), (&json!(10), &json!(13)));
    assert!(settled.to_json().to_string().contains(&audit::record::Digest::of(b"0123456789").text()), "{settled:?}");
}

#[tokio::test]
async fn each_refusal_has_its_code_its_record_and_nothing_forwarded() {
    let world = World::new().await;
    let bearer = |changes: Value| format!("Bearer {}", world.token(&changes));
    let expired = net::clock::now().as_second() - 100;
    let cases: Vec<Case> = vec![
        ("POST", REFUNDS, refund("80"), vec![], "limit_exceeded", "guard"),
        ("POST", "/orders/v1/orders/18/refunds", refund("5"), vec![], "relation_unproven", "decide"),
        ("POST", "/orders/v1/orders/19/refunds", refund("5"), vec![], "relation_unproven", "decide"),
        ("POST", "/orders/v1/orders/20/refunds", refund("5"), vec![], "relation_unproven", "decide"),
        ("POST", "/orders/v1/orders/404/refunds", refund("5"), vec![], "relation_unproven", "decide"),
        ("POST", "/orders/v1/orders/500/refunds", refund("5"), vec![], "facts_unavailable", "facts"),
        ("POST", "/orders/v1/orders/302/refunds", refund("5"), vec![], "facts_unavailable", "facts"),
        ("POST", REFUNDS, r#"{"currency":"USD"}"#.into(), vec![], "malformed", "resolve"),
        ("POST", REFUNDS, refund("5"), vec![("x-ticket", "blocked".into())], "policy_denied", "decide"),
        ("GET", "/orders/v1/orders", String::new(), vec![], "policy_no_allow", "decide"),
        ("POST", "/orders/v1/orders/17/tags", r#"{"tags":[]}"#.into(), vec![], "approval_required", "approve"),
        ("DELETE", "/orders/v1/orders/17", String::new(), vec![], "unmapped_action", "resolve"),
        ("GET", "/billing/v1", String::new(), vec![], "unknown_tool", "resolve"),
        (
            "GET",
            "/orders/v1/orders/17",
            String::new(),
            vec![("authorization", bearer(json!({ "iat": expired - 100, "exp": expired })))],
            "expired",
            "admit",
        ),
        (
            "POST",
            REFUNDS,
            refund("5"),
            vec![("authorization", bearer(json!({ "stage": "observe" })))],
            "stage",
            "guard",
        ),
        (
            "POST",
            REFUNDS,
            refund("5"),
            vec![("authorization", bearer(json!({ "groups": [] })))],
            "entitlement",
            "guard",
        ),
    ];
    let mut expected = Vec::new();
    for (method, uri, body, headers, code, stage) in &cases {
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(JSON);
        let (status, told, id) = world.told(method, uri, &headers, body).await;
        assert_eq!(
            (told["code"].as_str(), told["sent"].as_bool()),
            (Some(*code), Some(false)),
            "{method} {uri}: {told}"
        );
        assert_eq!(
            (told["status"].as_u64(), told["decision_id"].as_str()),
            (Some(u64::from(status)), Some(id.as_str()))
        );
        assert!(!told.to_string().contains("list 7"), "{told}");
        expected.push((id, (*code).to_owned(), (*stage).to_owned()));
    }
    assert!(world.forwarded().is_empty(), "{:?}", world.forwarded());
    let records = world.records("call.decided").await;
    let recorded: Vec<(String, String, String)> = records
        .iter()
        .map(|entry| {
            let text = |name| entry.text(name).unwrap_or_default().to_owned();
            (text("decision_id"), text("code"), text("stage_reached"))
        })
        .collect();
    assert_eq!(recorded, expected);
}

#[tokio::test]
async fn refusals_of_nobody_known_are_counted_not_recorded() {
    let world = World::new().await;
    for headers in [[("authorization", "Bearer a.b.c")], [("authorization", "Basic eA==")]] {
        assert_eq!(world.told("GET", "/orders/v1/orders/17", &headers, "").await.0, 401);
    }
    assert_eq!(world.told("GET", "/orders/../x", &[], "").await.1["code"], "malformed");
    let from = net::clock::now();
    crate::record::summary(&world.sidecar, from, from).await;
    assert!(world.forwarded().is_empty());
    let dir = world.records("refusals.summary").await;
    assert_eq!(dir.len(), 1);
    assert_eq!(dir[0].fields["counts"], json!({ "no_credential": 1, "invalid_token": 1, "malformed": 1 }));
}

#[tokio::test]
async fn without_a_ledger_nothing_is_forwarded() {
    let world = World::new().await;
    world.ledger.close().await;
    let (status, told, _) = world.told("GET", "/orders/v1/orders/17", &[], "").await;
    assert_eq!((status, told["code"].as_str()), (503, Some("ledger_unavailable")));
    let (_, told, _) = world.told("GET", "/billing", &[], "").await;
    assert_eq!(told["code"], "unknown_tool", "a refusal stands without a ledger");
    assert!(world.tool.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_flows_as_it_comes_and_its_end_is_recorded_when_the_agent_leaves() {
    let world = World::new().await;
    let response = world.call("GET", "/orders/v1/orders/events", &[], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "data: 1\n\n");
    drop(body);
    let settled = world.records("call.settled").await;
    assert_eq!((settled[0].text("outcome"), &settled[0].fields["response_bytes"]), (Some("client_gone"), &json!(9)));
}

#[tokio::test]
async fn what_was_redacted_is_on_record_also_when_the_agent_leaves_in_the_middle_of_it() {
    let world = World::ruled(r#"obligations contains {"redact": ["/customer", "/note"]}"#).await;
    let response = world.call("GET", "/orders/v1/orders/endless", &[], "").await;
    let (mut body, mut shown) = (response.into_body(), Vec::new());
    while !shown.ends_with(b"\"note\":null") {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        shown.extend_from_slice(&frame.into_data().unwrap());
    }
    assert_eq!(shown, br#"{"id":17,"customer":null,"note":null"#);
    drop(body);
    let records = world.all_records().await;
    let of = |kind: &str| records.iter().find(|record| record.kind == kind).unwrap();
    let (decided, settled) = (of("call.decided"), of("call.settled"));
    assert_eq!(decided.fields["obligations"][0]["duty"], "redact");
    assert_eq!(
        (settled.text("outcome"), &settled.fields["altered"], &settled.fields["redactions"]),
        (Some("client_gone"), &json!(true), &json!(2))
    );
    assert_eq!(settled.fields["redacted"], json!({ "/customer": 1, "/note": 1 }));
}

#[tokio::test]
async fn events_are_redacted_as_they_come_and_counted_also_when_the_agent_leaves() {
    let world = World::ruled(r#"obligations contains {"redact": ["/customer", "/note"]}"#).await;
    let response = world.call("GET", "/orders/v1/orders/feed", &[], "").await;
    assert_eq!(response.headers()["countersign-obligations"], "redact");
    let mut body = response.into_body();
    let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "data: {\"customer\":null}\n\ndata: {\"note\":");
    drop(body);
    let settled = world.records("call.settled").await;
    assert_eq!((settled[0].text("outcome"), &settled[0].fields["redactions"]), (Some("client_gone"), &json!(1)));
    assert!(!settled[0].fields.contains_key("withheld"));
}

#[tokio::test]
async fn a_tool_that_breaks_off_breaks_the_stream_and_is_recorded() {
    let world = World::new().await;
    let response = world.call("GET", "/orders/v1/orders/broken", &[], "").await;
    assert!(net::body::collect(response.into_body(), 1_000).await.is_err());
    let settled = world.records("call.settled").await;
    assert_eq!(settled[0].text("outcome"), Some("tool_broke"));
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_unreachable_and_the_call_was_not_sent() {
    let tasks = net::Tasks::new();
    let gone = loopback().await.local_addr();
    let tool = crate::testing::tool(&format!("http://{gone}"));
    let world = World::with_tool(&tool, std::sync::Arc::default(), tasks).await;
    let (status, told, id) = world.told("GET", "/orders/v1/orders/17", &[], "").await;
    assert_eq!((status, told["code"].as_str(), told["sent"].as_bool()), (502, Some("tool_unreachable"), Some(false)));
    let settled = world.records("call.settled").await;
    assert_eq!(
        (settled[0].text("decision_id"), settled[0].text("outcome")),
        (Some(id.as_str()), Some("tool_unreachable"))
    );
    assert_eq!((&settled[0].fields["sent"], settled[0].text("code")), (&json!(false), Some("tool_unreachable")));
}

#[tokio::test]
async fn a_tool_that_does_not_answer_in_time_may_have_acted() {
    let tasks = net::Tasks::new();
    let listener = loopback().await;
    let mut tool = crate::testing::tool(&format!("http://{}", listener.local_addr()));
    tool["timeout"] = json!("50ms");
    // Bound and never accepted: the connection opens, and nothing comes back.
    let world = World::with_tool(&tool, std::sync::Arc::default(), tasks).await;
    let (status, told, _) = world.told("PUT", "/orders/v1/orders/17/file", &[], "x").await;
    assert_eq!((status, told["code"].as_str(), told["sent"].as_bool()), (504, Some("tool_timeout"), Some(true)));
    assert_eq!(told["retry"], "after_change", "a write that may have happened is not simply repeated");
    drop(listener);
    assert_eq!(world.records("call.settled").await[0].text("outcome"), Some("tool_timeout"));
}

#[tokio::test]
async fn an_agent_that_leaves_before_the_answer_takes_the_call_with_it_and_it_is_settled() {
    let world = World::new().await;
    let call = world.call("GET", "/orders/v1/orders/silent", &[], "");
    let mut call = Box::pin(call);
    while world.forwarded().is_empty() {
        tokio::select! {
            biased;
            response = &mut call => panic!("{response:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(call);
    let settled = world.records("call.settled").await;
    assert_eq!((settled[0].text("outcome"), &settled[0].fields["sent"]), (Some("client_gone"), &json!(true)));
}

#[tokio::test]
async fn no_claim_that_is_left_out_turns_a_refusal_into_a_permit() {
    let world = World::new().await;
    let claims = world.claims();
    let mut tokens: Vec<(String, Value)> =
        claims.as_object().unwrap().keys().map(|name| (name.clone(), json!({ name.as_str(): null }))).collect();
    for hop in 0..3 {
        for name in ["scope", "authorization_details", "sub_profile", "iss", "sub"] {
            let mut chain = claims["delegation_chain"].clone();
            chain[hop].as_object_mut().unwrap().remove(name);
            tokens.push((format!("hop {hop} {name}"), json!({ "delegation_chain": chain })));
        }
        let mut chain = claims["delegation_chain"].clone();
        chain.as_array_mut().unwrap().remove(hop);
        tokens.push((format!("hop {hop}"), json!({ "delegation_chain": chain })));
    }
    for (name, changes) in &tokens {
        let bearer = format!("Bearer {}", world.token(changes));
        for (uri, amount) in [(REFUNDS, "80"), (REFUNDS, "20.01"), ("/orders/v1/orders/18/refunds", "5")] {
            let (status, told, _) = world.told("POST", uri, &[JSON, ("authorization", &bearer)], &refund(amount)).await;
            assert!((400..500).contains(&status), "without {name}: {status} {told}");
        }
    }
    assert!(world.forwarded().is_empty());
}

#[tokio::test]
async fn of_a_body_nothing_can_be_left_out_to_get_through() {
    let world = World::new().await;
    for body in [r#"{"currency":"USD"}"#, r#"{"amount":"80"}"#, "{}", "", r#"{"amount":null,"currency":null}"#] {
        let (status, told, _) = world.told("POST", REFUNDS, &[JSON], body).await;
        assert_eq!((status, told["code"].as_str()), (400, Some("malformed")), "{body}");
    }
    assert!(world.forwarded().is_empty());
}

#[tokio::test]
async fn over_a_real_connection_a_large_body_streams_and_arrives_whole() {
    let world = World::new().await;
    let listener = loopback().await;
    let address = listener.local_addr();
    let sidecar = std::sync::Arc::clone(&world.sidecar);
    let limits = sidecar.snapshot().listener.serve_limits();
    let handler = move |peer, request| std::sync::Arc::clone(&sidecar).handle(peer, request);
    world.tasks.spawn("front", net::serve(listener, limits, world.tasks.clone(), handler));

    let pieces = (0..64).map(|n: u8| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![n; 32 * 1024]))));
    let request = http::Request::put(format!("http://{address}/orders/v1/orders/17/file"))
        .header("authorization", format!("Bearer {}", world.token(&json!({}))))
        .header("content-type", "application/octet-stream")
        .body(net::Body::new(StreamBody::new(stream::iter(pieces))))
        .unwrap();
    let response = client().send(request, std::time::Duration::from_secs(30)).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.headers().contains_key("countersign-decision-id"));
    let answer = net::body::collect(response.into_body(), 1_000).await.unwrap();
    assert_eq!(answer, r#"{"done":true}"#);
    let received = world.forwarded().pop().unwrap();
    assert_eq!(received.body.len(), 64 * 32 * 1024);
    assert!(received.body.chunks(32 * 1024).zip(0_u8..).all(|(piece, n)| piece.iter().all(|byte| *byte == n)));
    let settled = world.records("call.settled").await;
    assert_eq!(
        (settled[0].text("outcome"), &settled[0].fields["request_bytes"]),
        (Some("completed"), &json!(64 * 32 * 1024))
    );
}

#[tokio::test]
async fn a_defect_ends_the_call_that_met_it_with_500_and_no_other() {
    let world = World::new().await;
    let response = world.call("GET", "/orders/v1/orders/17", &[("x-test-fault", "1")], "").await;
    assert_eq!(response.status(), 500);
    let id = response.headers()["countersign-decision-id"].to_str().unwrap().to_owned();
    let body = net::body::collect(response.into_body(), 10_000).await.unwrap();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&problem["status"], problem["decision_id"].as_str()), (&json!(500), Some(id.as_str())));
    assert!(!problem.to_string().contains("on purpose"), "what failed is for the log: {problem}");
    assert!(world.forwarded().is_empty());
    assert_eq!(world.sidecar.gate.calls(), 0, "its room is free again");
    assert_eq!(world.told("GET", "/orders/v1/orders/17", &[], "").await.0, 200);
}

#[tokio::test]
async fn a_call_beyond_the_room_is_refused_before_anything_is_done_for_it() {
    let world = World::limited(json!({ "calls": 1, "peer_share": 100 })).await;
    let open = world.call("GET", "/orders/v1/orders/events", &[], "").await;
    assert_eq!(open.status(), 200);
    let refused = world.call("GET", "/orders/v1/orders/17", &[], "").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(refused.headers().contains_key("countersign-decision-id"));
    let (_, told, _) = world.told("GET", "/orders/v1/orders/17", &[("authorization", "Bearer x")], "").await;
    assert_eq!((&told["code"], &told["retry"]), (&json!("overloaded"), &json!("after")));
    assert_eq!(world.forwarded().len(), 1);
    drop(open);
    let freed = async {
        while world.sidecar.gate.calls() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), freed).await.unwrap();
    assert_eq!(world.told("GET", "/orders/v1/orders/17", &[], "").await.0, 200);
    let from = net::clock::now();
    crate::record::summary(&world.sidecar, from, from).await;
    let summaries = world.records("refusals.summary").await;
    assert_eq!(summaries[0].fields["counts"], json!({ "overloaded": 2 }));
}

#[tokio::test]
async fn one_agent_cannot_have_all_the_room_and_the_refusal_names_it() {
    let world = World::limited(json!({ "calls": 2, "peer_share": 50 })).await;
    // Of another address each time, as many agents behind one gateway are of one.
    let open = world.call_from("10.0.0.1:1", "GET", "/orders/v1/orders/events").await;
    let refused = world.call_from("10.0.0.2:1", "GET", "/orders/v1/orders/17").await;
    assert_eq!((open.status().as_u16(), refused.status().as_u16()), (200, 503));
    drop(open);
    let decided = world.records("call.decided").await;
    assert_eq!(decided[1].text("code"), Some("overloaded"));
    assert_eq!(decided[1].fields["agent"]["id"], json!("helper"), "{:?}", decided[1]);
}

#[tokio::test]
async fn bodies_without_room_are_refused_and_room_comes_back() {
    let world = World::limited(json!({ "body_bytes": 60, "peer_share": 100 })).await;
    let (status, told, _) = world.told("POST", REFUNDS, &[JSON], &refund(&"1".repeat(60))).await;
    assert_eq!((status, told["code"].as_str()), (503, Some("overloaded")));
    assert_eq!(world.told("POST", REFUNDS, &[JSON], &refund("5")).await.0, 201);
    let freed = async {
        while world.sidecar.gate.body_bytes() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), freed).await.unwrap();
    assert_eq!(world.told("POST", REFUNDS, &[JSON], &refund("5")).await.0, 201);
}

#[tokio::test]
async fn a_loop_of_one_refusal_is_a_few_records_and_a_summary() {
    let world = World::limited(json!({ "refusals_per_minute": 3 })).await;
    for _ in 0..20 {
        let (status, told, id) = world.told("POST", REFUNDS, &[JSON], &refund("80")).await;
        assert_eq!(
            (status, told["code"].as_str(), told["decision_id"].as_str()),
            (403, Some("limit_exceeded"), Some(&*id))
        );
    }
    // What goes is never folded.
    for _ in 0..5 {
        assert_eq!(world.told("GET", "/orders/v1/orders/17", &[], "").await.0, 200);
    }
    crate::fold::summary(&world.sidecar, net::clock::monotonic()).await;
    let records = world.all_records().await;
    let of = |kind: &str| records.iter().filter(|entry| entry.kind == kind).collect::<Vec<_>>();
    let (decided, summaries) = (of("call.decided"), of("refusals.summary"));
    assert_eq!(decided.len(), 3 + 5);
    let [summary] = summaries.as_slice() else { panic!("{summaries:?}") };
    assert_eq!(summary.fields["counts"], json!({ "limit_exceeded": 17 }));
    assert_eq!((summary.text("tool"), summary.text("action")), (Some("orders"), Some("refunds.create")));
    assert_eq!(summary.text("like"), decided[2].text("decision_id"));
    assert!(!summary.fields.contains_key("decision_id"), "it is no decision of its own");
}
