//! Every version of HTTP on either side, in clear text and over TLS: what an agent sees of an answer is the same.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{
    agent::{Caller, agent},
    odd, settled,
};
use crate::support::{Sidecar, World, eventually, sha256, sidecar::Setup, tool::Tool, world};

/// One call, what the agent should see of it, and how it should be settled.
struct Case {
    request: Value,
    expected: fn(&Value, &Behind),
    outcome: &'static str,
}

/// What the expectations may depend on.
struct Behind {
    /// The version of HTTP that the agent speaks.
    agent: &'static str,
    /// The one that the tool speaks.
    tool: &'static str,
}

const LARGE: usize = 3_000_000;

fn letters(count: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(count).collect()
}

#[track_caller]
fn whole(answer: &Value, bytes: usize) {
    assert_eq!((&answer["status"], &answer["complete"]), (&json!(200), &json!(true)), "{answer}");
    assert_eq!((&answer["bytes"], &answer["sha256"]), (&json!(bytes), &json!(sha256(&letters(bytes)))));
}

fn cases(caller: &Caller<'_>) -> Vec<Case> {
    [bodies(caller), uploads(caller), extras(caller), breaks(caller)].into_iter().flatten().collect()
}

/// A call that is completed.
fn call(caller: &Caller<'_>, method: &str, name: &str, more: &Value, expected: fn(&Value, &Behind)) -> Case {
    Case { request: caller.odd(method, name, more), expected, outcome: "completed" }
}

/// Answers with a body, and without one.
fn bodies(caller: &Caller<'_>) -> Vec<Case> {
    let call =
        |method: &str, name: &str, expected: fn(&Value, &Behind)| call(caller, method, name, &Value::Null, expected);
    vec![
        call("GET", "plain?bytes=100000", |answer, _| {
            whole(answer, 100_000);
            assert_eq!(answer["headers"]["content-length"], "100000");
        }),
        call("GET", "plain?bytes=0", |answer, _| whole(answer, 0)),
        call("GET", "chunks?bytes=3000000", |answer, _| whole(answer, LARGE)),
        call("GET", "chunks?bytes=0", |answer, _| whole(answer, 0)),
        call("HEAD", "plain?bytes=77", |answer, _| {
            assert_eq!((&answer["status"], &answer["bytes"]), (&json!(200), &json!(0)), "{answer}");
            assert_eq!((&answer["complete"], &answer["headers"]["content-length"]), (&json!(true), &json!("77")));
        }),
        call("HEAD", "chunks", |answer, _| {
            assert_eq!(
                (&answer["status"], &answer["bytes"], &answer["complete"]),
                (&json!(200), &json!(0), &json!(true))
            );
        }),
        call("GET", "status?code=204", |answer, _| empty(answer, 204)),
        call("GET", "status?code=304", |answer, _| {
            empty(answer, 304);
            assert_eq!(answer["headers"]["etag"], "\"1\"");
        }),
        call("GET", "status?code=503", |answer, _| {
            assert_eq!((&answer["status"], &answer["text"]), (&json!(503), &json!(r#"{"code":503}"#)));
        }),
    ]
}

/// Requests with a body, and without one.
fn uploads(caller: &Caller<'_>) -> Vec<Case> {
    let call = |method: &str, name: &str, more: Value, expected: fn(&Value, &Behind)| {
        call(caller, method, name, &more, expected)
    };
    vec![
        call("POST", "echo", json!({"body": {"bytes": LARGE, "pieces": 7}}), |answer, behind| {
            let seen = echoed(answer, behind);
            assert_eq!((&seen["body_bytes"], &seen["body_sha256"]), (&json!(LARGE), &json!(sha256(&letters(LARGE)))));
        }),
        call("POST", "echo", json!({"body": {"text": "{}"}, "headers": {"content-length": "2"}}), |answer, behind| {
            assert_eq!(echoed(answer, behind)["body_bytes"], 2);
        }),
        call("POST", "echo", json!({"body": {"text": ""}}), |answer, behind| {
            assert_eq!(echoed(answer, behind)["body_bytes"], 0);
        }),
    ]
}

/// What may come before the answer and after its body.
fn extras(caller: &Caller<'_>) -> Vec<Case> {
    let call = |method: &str, name: &str, more: Value, expected: fn(&Value, &Behind)| {
        call(caller, method, name, &more, expected)
    };
    vec![
        call("GET", "trailers", Value::Null, |answer, _| {
            assert_eq!((&answer["text"], &answer["trailers"]), (&json!("firstsecond"), &json!({})), "{answer}");
            assert_eq!(answer["headers"].get("trailer"), None);
        }),
        call("GET", "trailers", json!({"headers": {"te": "trailers"}}), |answer, behind| {
            assert_eq!((&answer["text"], &answer["headers"]["trailer"]), (&json!("firstsecond"), &json!("x-checksum")));
            // HTTP/1.1 sends what was announced; HTTP/2 needs no announcement.
            let expected = match behind.agent {
                "1" => json!({"x-checksum": "abc"}),
                _ => json!({"x-checksum": "abc", "x-unannounced": "1"}),
            };
            assert_eq!(answer["trailers"], expected, "{answer}");
        }),
        call(
            "POST",
            "echo",
            json!({"body": {"bytes": 10, "trailers": {"X-Sum": "1", "X-Forwarded-For": "1.2.3.4", "Authorization": "x"}}}),
            |answer, behind| {
                let seen = echoed(answer, behind);
                let names: Vec<String> = seen["trailers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|pair| pair[0].as_str().unwrap().to_ascii_lowercase())
                    .collect();
                assert_eq!(names, ["x-sum"], "{seen}");
                assert!(!answer.to_string().contains("1.2.3.4"));
            },
        ),
        call("GET", "interim", Value::Null, |answer, _| {
            assert_eq!((&answer["status"], &answer["text"]), (&json!(200), &json!("final")), "{answer}");
            assert_eq!((&answer["interim"], answer["headers"].get("link")), (&json!([]), None));
        }),
    ]
}

/// An answer that breaks off, one that comes early, and what comes after them on the same connections.
fn breaks(caller: &Caller<'_>) -> Vec<Case> {
    let call = |method: &str, name: &str, more: Value, expected: fn(&Value, &Behind)| {
        call(caller, method, name, &more, expected)
    };
    vec![
        Case {
            outcome: "tool_broke",
            ..call("GET", "reset", Value::Null, |answer, _| {
                assert_eq!(answer["complete"], false, "a cut answer looked whole: {answer}");
                assert_ne!(answer["error"], Value::Null);
            })
        },
        // What comes next on the same connections is not touched by it.
        call("GET", "plain?bytes=5", Value::Null, |answer, _| whole(answer, 5)),
        call("POST", "early", json!({"body": {"bytes": LARGE, "pieces": 3}}), |answer, _| {
            assert_eq!(
                (&answer["status"], &answer["text"]),
                (&json!(409), &json!(r#"{"error":"not now"}"#)),
                "{answer}"
            );
        }),
        call("GET", "plain?bytes=6", Value::Null, |answer, _| whole(answer, 6)),
    ]
}

#[track_caller]
fn empty(answer: &Value, status: u16) {
    assert_eq!((&answer["status"], &answer["bytes"]), (&json!(status), &json!(0)), "{answer}");
    assert_eq!(answer["complete"], true, "{answer}");
}

/// What the tool received.
#[track_caller]
fn echoed(answer: &Value, behind: &Behind) -> Value {
    assert_eq!(answer["status"], 200, "{answer}");
    let seen: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
    assert_eq!(seen["http"], if behind.tool == "1" { "1.1" } else { "2.0" }, "{seen}");
    seen
}

/// A sidecar in front of `tool`, in clear text or with a certificate whose authority's file comes with it.
fn listening(world: &World, tool: &Tool, secure: bool, http2: &str) -> (Sidecar, Option<String>) {
    let mut setup = Setup::new(&world.openid, tool).with(odd);
    setup.config["tools"]["orders"]["http2"] = json!(http2);
    if !secure {
        return (setup.start(), None);
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // The name that it has by itself is the one that every certificate gets.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = setup.write_secret("authority.pem", &params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    setup.write_secret("listener.pem", &certificate.pem());
    setup.write_secret("listener-key.pem", &key.serialize_pem());
    setup.config["listen"]["agent"]["tls"] =
        json!({"certificate": "listener.pem", "key": {"file": "listener-key.pem"}});
    (setup.start(), Some(authority.to_str().unwrap().to_owned()))
}

fn all(world: &World, tool: &Tool, tool_http: &'static str) {
    all_with(world, tool, tool_http, "negotiated");
}

/// The same, with what is known of the tool's HTTP/2.
fn all_with(world: &World, tool: &Tool, tool_http: &'static str, http2: &str) {
    let token = world.probe();
    for secure in [false, true] {
        let (sidecar, authority) = listening(world, tool, secure, http2);
        let origin = format!("{}://127.0.0.1:{}", if secure { "https" } else { "http" }, sidecar.port());
        for http in ["1", "2"] {
            let caller = Caller { origin: &origin, http, authority: authority.as_deref(), token: &token };
            let cases = cases(&caller);
            let requests: Vec<Value> = cases.iter().map(|case| case.request.clone()).collect();
            let answers = agent(&requests);
            let behind = Behind { agent: http, tool: tool_http };
            for (case, answer) in cases.iter().zip(&answers) {
                (case.expected)(answer, &behind);
            }
            on_record(&sidecar, &cases, &answers);
        }
    }
}

/// Every call is settled as it ended, with the bytes that flowed.
fn on_record(sidecar: &Sidecar, cases: &[Case], answers: &[Value]) {
    let records = eventually("every call to be settled", || {
        let records = sidecar.query(&[]);
        let id = |answer: &Value| answer["headers"]["countersign-decision-id"].as_str().unwrap().to_owned();
        answers.iter().all(|answer| settled(&records, &id(answer)).is_some()).then_some(records)
    });
    for (case, answer) in cases.iter().zip(answers) {
        let id = answer["headers"]["countersign-decision-id"].as_str().unwrap();
        let record = settled(&records, id).unwrap();
        assert_eq!((&record["outcome"], &record["status"]), (&json!(case.outcome), &answer["status"]), "{record}");
        assert_eq!(record["response_bytes"], answer["bytes"], "{record}");
    }
}

#[test]
fn a_tool_in_clear_text_is_the_same_for_every_agent() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain() else { return };
    all(world, &tool, "1");
}

#[test]
fn a_tool_over_http_1_and_tls_is_the_same_for_every_agent() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::secured(&["--http", "1"]) else { return };
    all(world, &tool, "1");
}

#[test]
fn a_tool_over_http_2_is_the_same_for_every_agent() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::secured(&["--http", "2"]) else { return };
    all(world, &tool, "2");
}

#[test]
fn a_tool_over_http_2_in_clear_text_is_the_same_for_every_agent() {
    let Some(world) = world() else { return };
    let Some(tool) = Tool::plain_http2() else { return };
    all_with(world, &tool, "2", "prior_knowledge");
}
