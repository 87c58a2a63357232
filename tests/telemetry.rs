//! What leaves by OTLP and `/metrics`: from a run its spans and audit events, and never a person in a label.

use serde_json::json;

use crate::support::{eventually, otlp::Otlp, sidecar::Setup, world};

fn exporting(setup: &mut Setup, endpoint: &str) {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ] {
        setup.environment.push((name.to_owned(), value.to_owned()));
    }
}

#[test]
fn spans_and_audit_events_arrive_and_are_joined_by_run_and_decision() {
    let Some(world) = world() else { return };
    let Some(otlp) = Otlp::start() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    exporting(&mut setup, &otlp.endpoint());
    let sidecar = setup.start();
    let token = world.openid.delegated_with("alice", &[("run_id", "run-telemetry")]);
    let permitted = sidecar.get("/orders/v1/orders/17", &token).send();
    permitted.went(200);
    let refused = sidecar.refund("21", &token, r#"{"amount":"20.00","currency":"USD"}"#).send();
    refused.refused(403, "relation_unproven");

    for (answer, decision) in [(&permitted, "permit"), (&refused, "deny")] {
        let id = answer.decision_id();
        let record = sidecar.decided(answer);
        let trace = record["trace_id"].as_str().expect("from a record its trace").to_owned();
        let has = |item: &String| item.contains(&id) && item.contains("run-telemetry");
        let span = eventually("the call's span", || otlp.items("Span #").into_iter().find(has));
        assert!(span.contains("countersign.decision.id") && span.contains("countersign.run.id"), "{span}");
        assert!(span.contains(decision), "{span}");
        assert!(span.contains(&trace), "the span of the record's trace: {trace}\n{span}");
        let event = eventually("the audit event", || otlp.items("LogRecord #").into_iter().find(has));
        assert!(event.contains(&trace), "the event of the record's trace: {trace}\n{event}");
    }
    let received = otlp.received();
    let signature = token.rsplit('.').next().unwrap();
    assert!(
        !received.contains(signature) && !received.contains(crate::support::sidecar::TOOL_SECRET),
        "a credential in telemetry"
    );
}

#[test]
fn the_tool_gets_a_trace_context_of_ours_and_a_claimed_one_is_only_a_claim() {
    let Some(world) = world() else { return };
    let claimed = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mark = crate::support::mark();
    let answer = world
        .sidecar
        .get("/orders/v1/orders/17", &world.openid.delegated("alice"))
        .header("X-Mark", &mark)
        .header("traceparent", &format!("00-{claimed}-00f067aa0ba902b7-01"))
        .send();
    answer.went(200);
    let record = world.sidecar.decided(&answer);
    let trace = record["trace_id"].as_str().unwrap();
    assert_ne!(trace, claimed);
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    let sent = crate::support::tool::values(request, "traceparent");
    assert!(sent.len() == 1 && sent[0].contains(trace), "{sent:?} {trace}");
}

#[test]
fn metrics_have_the_promised_names_and_nobodys_name_in_a_label() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let token = world.openid.delegated("alice");
    sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    sidecar.refund("21", &token, r#"{"amount":"20.00","currency":"USD"}"#).send().refused(403, "relation_unproven");
    let metrics = eventually("the decisions to be counted", || {
        let text = sidecar.metrics();
        text.contains("countersign_decisions_total{").then_some(text)
    });
    for name in [
        "countersign_decisions_total",
        "countersign_overhead_seconds",
        "countersign_stage_seconds",
        "countersign_jwks_age_seconds",
        "countersign_policy_info",
        "countersign_facts_seconds",
        "countersign_ledger_fsync_seconds",
        "countersign_build_info",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("countersign_decisions_total{") && line.contains("relation_unproven"))
        .unwrap();
    for label in ["tool=\"orders\"", "action=\"refunds.create\"", "outcome=\"deny\""] {
        assert!(counted.contains(label), "{label} is not in {counted}");
    }
    for name in ["alice", "support-v1", "run-1", "orders/17"] {
        assert!(!metrics.contains(name), "{name} is in\n{metrics}");
    }
}

#[test]
fn a_path_that_an_agent_makes_up_makes_no_new_metric() {
    let Some(world) = world() else { return };
    let token = world.openid.delegated("alice");
    for n in 0..20 {
        world.sidecar.get(&format!("/made-up-{n}/x"), &token).send().refused(403, "unknown_tool");
    }
    assert!(!world.sidecar.metrics().contains("made-up"));
}

#[test]
fn a_collector_that_is_gone_makes_no_difference_to_calls() {
    let Some(world) = world() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    exporting(&mut setup, &format!("http://127.0.0.1:{}", crate::support::free_port()));
    let mut sidecar = setup.start();
    let token = world.openid.delegated("alice");
    for _ in 0..20 {
        sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    }
    assert_eq!(json!(sidecar.is_ready()), true);
    sidecar.stop();
}
