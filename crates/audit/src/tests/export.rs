//! The exports, byte for byte: `COUNTERSIGN_WRITE_GOLDEN=1` writes what they are now.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::export::{Beside, Format, event};

/// Records as a ledger reads them back: a permit with all its values, the same with the user erased, and others.
fn entry(kind: &str, fields: Value, erased: &[&str]) -> Entry {
    let Value::Object(fields) = fields else { panic!("members") };
    Entry {
        segment: 1,
        seq: 7,
        time: "2026-03-14T14:32:01.123456Z".parse().unwrap(),
        kind: kind.to_owned(),
        fields,
        erased: erased.iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn decided() -> Value {
    json!({
        "decision_id": "8f3a.0198c5b2-7d5e-7c30-9f3e-0a1b2c3d4e5f", "token": "digest",
        "user": {"kind": "user", "id": "alice@acme", "issuer": "https://sso.example", "tenant": "acme"},
        "agent": {"kind": "agent", "id": "support-v2", "issuer": "https://countersign.example", "tenant": "acme"},
        "tenant": "acme", "run_id": "run-1", "task_id": "ticket-12847", "grant_id": "grant-support",
        "protocol": "http", "method": "POST", "path": "/orders/v1/orders/17/refunds", "tool": "orders",
        "action": "refunds.create", "effect": "write", "resource": "orders/17",
        "parameters": {"amount": {"minor": 2000, "currency": "USD"}},
        "decision": "permit", "reasons": [{"code": "refund_within_grant", "source": "countersign.teams.support"}],
        "revisions": {"policy": "p1", "catalogue": "c1", "binary": "0.1.0"}, "entry": "delegated", "mode": "enforce",
        "stage_reached": "record", "timings": {"decide": 22}, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
    })
}

fn denied() -> Value {
    let mut denied = decided();
    denied["decision"] = "deny".into();
    denied["code"] = "limit_exceeded".into();
    denied["explanation"] = json!({"detail": "At most 50.00 USD."});
    denied["method"] = "GET".into();
    denied
}

fn erased() -> Value {
    let mut erased = decided();
    for name in ["user", "path", "resource", "parameters"] {
        erased.as_object_mut().unwrap().remove(name);
    }
    erased
}

fn cases() -> Vec<(&'static str, Entry)> {
    let gone = ["/user", "/path", "/resource", "/parameters"];
    let partial = json!({
        "decision_id": "8f3a.1", "partial": true, "decision": "deny", "code": "expired", "stage_reached": "admit",
    });
    vec![
        ("permitted", entry("call.decided", decided(), &[])),
        ("denied", entry("call.decided", denied(), &[])),
        ("erased", entry("call.decided", erased(), &gone)),
        ("partial", entry("call.decided", partial, &[])),
        (
            "settled",
            entry("call.settled", json!({"decision_id": "8f3a.1", "outcome": "completed", "status": 201}), &[]),
        ),
        ("alert", entry("alert.raised", json!({"alert": "ledger_unavailable", "refused": 2}), &[])),
    ]
}

#[test]
fn each_record_is_exported_as_it_always_was() {
    let token = entry(
        "token.seen",
        json!({"token": {"client_id": "support-client"}, "chain": [{"principal": {"id": "alice@acme"}}]}),
        &[],
    );
    let input = json!({"version": 1, "user": {"id": "alice@acme"}});
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/golden");
    for (name, entry) in cases() {
        let whole = entry.erased.is_empty();
        let beside = Beside { token: whole.then_some(&token), input: whole.then_some(&input) };
        for (ending, format) in [("otlp", Format::Otlp), ("ocsf", Format::Ocsf), ("opa", Format::Opa)] {
            let path = golden.join(format!("{name}.{ending}.json"));
            let Some(event) = event(format, &entry, beside) else {
                assert!(!path.exists(), "{name} was exported to {ending} once");
                continue;
            };
            let text = format!("{}\n", serde_json::to_string_pretty(&event).unwrap());
            if writes_golden() {
                fs::write(&path, &text).unwrap();
            }
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{name}, {ending}");
            assert!(whole || !text.contains("alice"), "{name}, {ending}: what was erased does not come back");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own switch")]
fn writes_golden() -> bool {
    std::env::var("COUNTERSIGN_WRITE_GOLDEN").is_ok()
}
