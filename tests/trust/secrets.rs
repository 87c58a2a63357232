//! Secrets and tokens go where they are meant to and nowhere else: not into the log at any level, not into the ledger,
//! not into traces, metrics, `/status` or answers.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::support::{Answer, eventually, http, otlp::Otlp, process, sidecar::Setup, tool::Tool, world};

const KEY_SECRET: &str = "a-key-that-came-by-the-environment";

#[test]
fn no_secret_and_no_token_is_in_any_log_record_trace_or_answer() {
    let Some(world) = world() else { return };
    let (Some(tool), Some(otlp)) = (Tool::plain(), Otlp::start()) else { return };
    let mut setup = Setup::new(&world.openid, &tool);
    setup.arguments = ["-v", "--log", "trace"].map(str::to_owned).to_vec();
    setup.environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), otlp.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "100".to_owned()),
        ("OTEL_BLRP_SCHEDULE_DELAY".to_owned(), "100".to_owned()),
        ("TOOL_KEY".to_owned(), KEY_SECRET.to_owned()),
    ];
    setup.config["tools"]["orders"]["credential"] =
        json!({"basic": {"user": "support", "password": {"env": "TOOL_KEY"}}});
    let mut sidecar = setup.start();

    let alice = world.openid.delegated("alice");
    let user = world.openid.user("alice");
    let expired = world.openid.sign(&json!({"like": alice, "claims": {"exp": 1_700_000_000, "iat": 1_699_999_900}}));
    let forged = format!("{}A", &alice[..alice.len() - 1]);
    let tokens = [&alice, &user, &expired, &forged];
    let mut answers = Vec::new();
    for token in tokens {
        for http2 in [false, true] {
            let version = if http2 { "--http2-prior-knowledge" } else { "--http1.1" };
            answers.push(sidecar.get("/orders/v1/orders/17", token).argument(version).send());
            let refund = sidecar.refund("17", token, r#"{"amount":"1.00","currency":"USD"}"#);
            answers.push(refund.argument(version).send());
        }
        // Where no token belongs, and some put it all the same.
        answers
            .push(sidecar.plain_get("/orders/v1/orders/17", &[("x-forwarded-access-token", token), ("cookie", token)]));
        answers.push(sidecar.plain_get("/orders/v1/orders/17", &[("authorization", token)]));
        answers.push(sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Basic {token}"))]));
        answers.push(sidecar.plain_get("/nowhere", &[("authorization", &format!("Bearer {token} {token}"))]));
    }
    assert!(answers.iter().any(|answer| answer.status == 200) && answers.iter().any(|answer| answer.status == 401));
    let status = process::run(
        process::countersign().args(["health", "--json", "--admin"]).arg(sidecar.directory().join("admin.sock")),
    );
    let mut places = vec![
        ("answers".to_owned(), answers.iter().map(said).collect()),
        ("metrics".to_owned(), sidecar.metrics()),
        ("readiness".to_owned(), http::get(sidecar.health_port(), "/readyz").text()),
        ("status".to_owned(), status.well()),
    ];
    eventually("traces and events to arrive", || {
        (!otlp.items("Span #").is_empty() && !otlp.items("LogRecord #").is_empty()).then_some(())
    });
    sidecar.stop();
    places.push(("log".to_owned(), sidecar.daemon.output()));
    places.push(("traces".to_owned(), otlp.received()));
    places.extend(files(&sidecar.ledger()));

    let log = sidecar.daemon.output();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "the log is as talkative as it can be");
    let encoded = STANDARD.encode(format!("support:{KEY_SECRET}"));
    let mut secrets = vec![KEY_SECRET, encoded.as_str()];
    // The signature is what makes a token one; its payload is data that records rightly repeat in part.
    secrets.extend(tokens.iter().flat_map(|token| token.split('.').skip(1)));
    let key = fs::read_to_string(sidecar.directory().join("ledger.key")).unwrap();
    secrets.extend(key.lines().filter(|line| !line.starts_with('-')));
    for (place, text) in &places {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
    // It did arrive where it belongs.
    let received = tool.requests();
    assert!(received.iter().any(|request| request.to_string().contains(&encoded)));
}

/// What the sidecar says in an answer. The tests' tool tells in its own what it was sent.
fn said(answer: &Answer) -> String {
    let text = if answer.status < 300 { String::new() } else { answer.text() };
    format!("{:?} {text}", answer.headers)
}

fn files(directory: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| (path.display().to_string(), String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()))
        .collect()
}
