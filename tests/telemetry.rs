//! What leaves by OTLP and `/metrics`: from a run its spans and audit events, and never a person in a label.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    Sidecar, World, eventually, free_port,
    otlp::{Manner, Otlp, Unruly},
    sidecar::Setup,
    world,
};

fn exporting(setup: &mut Setup, endpoint: &str) {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
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
        assert!(span.contains("/orders/v1/orders/{order}"), "a name that says what was called: {span}");
        assert!(span.contains(&trace), "the span of the record's trace: {trace}\n{span}");
        let event = eventually("the audit event", || otlp.items("LogRecord #").into_iter().find(has));
        assert!(event.contains(&trace), "the event of the record's trace: {trace}\n{event}");
    }
    for stage in ["admit", "decide", "record"] {
        let named =
            |item: &String| item.lines().any(|line| line.trim_start().starts_with("Name ") && line.ends_with(stage));
        eventually("the spans of stages", || otlp.items("Span #").into_iter().find(named));
    }
    let settled = |item: &String| item.contains("countersign.call.settled") && item.contains(&permitted.decision_id());
    let event = eventually("the event of the end", || otlp.items("LogRecord #").into_iter().find(settled));
    assert!(event.contains("countersign.outcome: Str(completed)"), "{event}");
    let received = otlp.received();
    for part in
        ["service.name: Str(countersign-sidecar)", "service.version: ", "deployment.environment.name: Str(test)"]
    {
        assert!(received.contains(part), "{part} is not in the resource");
    }
    let signature = token.rsplit('.').next().unwrap();
    for secret in [signature, crate::support::sidecar::TOOL_SECRET, "alice"] {
        assert!(!received.contains(secret), "{secret} in telemetry");
    }
}

#[test]
fn a_call_that_is_not_sampled_has_its_events_and_its_ids_and_no_span() {
    let Some(world) = world() else { return };
    let Some(otlp) = Otlp::start() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    exporting(&mut setup, &otlp.endpoint());
    setup.environment.push(("OTEL_TRACES_SAMPLER".to_owned(), "always_off".to_owned()));
    let mut sidecar = setup.start();
    let mark = crate::support::mark();
    let call = sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).header("X-Mark", &mark);
    let answer = call.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").send();
    answer.went(200);
    let record = sidecar.decided(&answer);
    // What is still queued is sent at the end.
    sidecar.stop();
    let of_the_call = |item: &String| item.contains(&answer.decision_id());
    let event = eventually("the event", || otlp.items("LogRecord #").into_iter().find(of_the_call));
    let trace = record["trace_id"].as_str().unwrap();
    assert!(event.contains(trace), "{event}");
    let [request] = &world.tool.marked(&mark)[..] else { panic!("the tool was called once") };
    let sent = &crate::support::tool::values(request, "traceparent")[0];
    assert!(sent.contains(trace) && sent.ends_with("-00"), "the caller's flag decides nothing: {sent}");
    assert_eq!(otlp.items("Span #"), Vec::<String>::new());
}

#[test]
fn metrics_arrive_at_a_collector_as_they_are_at_the_endpoint() {
    let Some(world) = world() else { return };
    let Some(otlp) = Otlp::start() else { return };
    let mut setup = Setup::new(&world.openid, &world.tool);
    exporting(&mut setup, &otlp.endpoint());
    let sidecar = setup.start();
    let token = world.openid.delegated("alice");
    sidecar.get("/orders/v1/orders/17", &token).send().went(200);
    sidecar.refund("21", &token, r#"{"amount":"20.00","currency":"USD"}"#).send().refused(403, "relation_unproven");

    let named = |name: &str| {
        let line = format!("-> Name: {name}\n");
        otlp.items("Metric #").into_iter().filter(move |item| item.contains(&line)).collect::<Vec<_>>()
    };
    let decisions = eventually("both decisions", || {
        named("countersign_decisions").into_iter().find(|item| item.contains("deny") && item.contains("permit"))
    });
    let attributes =
        ["tool: Str(orders)", "action: Str(refunds.create)", "code: Str(relation_unproven)", "mode: Str(enforce)"];
    for attribute in attributes {
        assert!(decisions.contains(attribute), "{attribute} is not in\n{decisions}");
    }
    for (name, detail) in [
        ("countersign_overhead", "Unit: s\n"),
        ("countersign_stage", "stage: Str(decide)"),
        ("countersign_facts", "fact: Str(order)"),
        ("countersign_jwks_age", "issuer: Str("),
        ("countersign_policy_info", "bundle: Str(support)"),
        ("countersign_ledger_fsync", "Unit: s\n"),
        ("countersign_telemetry_items", "signal: Str(metrics)"),
        ("countersign_build_info", "version: Str("),
    ] {
        eventually(name, || named(name).into_iter().find(|item| item.contains(detail)));
    }
    let metrics = otlp.items("Metric #").concat();
    for name in ["alice", "support-v1", "run-1", "orders/17", "ticket-1"] {
        assert!(!metrics.contains(name), "{name} is in\n{metrics}");
    }
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
    as_documented(&metrics);
}

/// Each series has the name and the labels that the reference gives it.
fn as_documented(metrics: &str) {
    let page = std::fs::read_to_string(crate::support::root().join("docs/reference/telemetry.md")).unwrap();
    let documented: BTreeMap<&str, BTreeSet<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `countersign_").and_then(|_| line.strip_prefix("| `")))
        .filter_map(|line| line.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").next().unwrap().split('`').skip(1).step_by(2).collect()))
        .collect();
    for series in metrics.lines().filter(|line| line.starts_with("countersign_")) {
        let (name, rest) = series.split_once(['{', ' ']).unwrap();
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let name = histogram.filter(|name| documented.contains_key(name)).unwrap_or(name);
        let labels = rest.split_once("\"} ").map_or("", |(labels, _)| labels).split("\",");
        let labels: BTreeSet<&str> = labels
            .filter_map(|label| label.split_once("=\""))
            .map(|(label, _)| label)
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(documented.get(name), Some(&labels), "{series}");
    }
}

#[test]
fn calls_that_were_answered_whole_are_settled_as_completed() {
    let Some(world) = world() else { return };
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    calls(world, &sidecar);
    let settled = "countersign_settled_total{outcome=\"completed\",tool=\"orders\"} 100";
    eventually("all calls to be settled", || sidecar.metrics().contains(settled).then_some(()));
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

/// A sidecar with little room for telemetry, that waits a second for its collector.
fn impatient(world: &World, endpoint: &str) -> Sidecar {
    let mut setup = Setup::new(&world.openid, &world.tool);
    exporting(&mut setup, endpoint);
    for (name, value) in [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "32"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "32"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "16"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
    ] {
        setup.environment.push((name.to_owned(), value.to_owned()));
    }
    setup.start()
}

/// Many calls, each of which goes through.
fn calls(world: &World, sidecar: &Sidecar) {
    let bearer = format!("Bearer {}", world.openid.delegated("alice"));
    for _ in 0..100 {
        sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &bearer)]).went(200);
    }
    assert!(sidecar.is_ready());
}

/// How many items of `signal` came out as `outcome`.
fn items(sidecar: &Sidecar, signal: &str, outcome: &str) -> u64 {
    let wanted = format!("countersign_telemetry_items_total{{outcome=\"{outcome}\",signal=\"{signal}\"}} ");
    let metrics = sidecar.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_else(|| panic!("no {wanted}in {metrics}")).parse().unwrap()
}

/// Nothing arrives, and all that is lost is counted.
fn counted(sidecar: &Sidecar) {
    for signal in ["traces", "logs", "metrics"] {
        eventually("the failures to be counted", || (items(sidecar, signal, "failed") > 0).then_some(()));
        assert_eq!(items(sidecar, signal, "exported"), 0, "{signal}");
    }
}

fn comes_back(world: &World, mut sidecar: Sidecar) {
    for signal in ["traces", "logs", "metrics"] {
        eventually("items to arrive again", || {
            calls(world, &sidecar);
            (items(&sidecar, signal, "exported") > 0).then_some(())
        });
    }
    sidecar.stop();
}

#[test]
fn a_collector_that_is_gone_makes_no_difference_to_calls_and_may_come_back() {
    let Some(world) = world() else { return };
    let port = free_port();
    let sidecar = impatient(world, &format!("http://127.0.0.1:{port}"));
    calls(world, &sidecar);
    counted(&sidecar);
    let _collector = Unruly::start_at(port, Manner::Takes);
    comes_back(world, sidecar);
}

#[test]
fn a_collector_that_never_answers_makes_no_difference_to_calls_and_what_does_not_fit_is_counted() {
    let Some(world) = world() else { return };
    let collector = Unruly::start(Manner::Silent);
    let sidecar = impatient(world, &collector.endpoint());
    for signal in ["traces", "logs"] {
        eventually("the queue to be full", || {
            calls(world, &sidecar);
            (items(&sidecar, signal, "dropped") > 0).then_some(())
        });
    }
    counted(&sidecar);
    collector.now(Manner::Takes);
    comes_back(world, sidecar);
}

#[test]
fn a_sidecar_does_not_wait_long_for_a_collector_that_never_answers_when_it_stops() {
    let Some(world) = world() else { return };
    let collector = Unruly::start(Manner::Silent);
    let mut sidecar = impatient(world, &collector.endpoint());
    calls(world, &sidecar);
    sidecar.stop();
}

#[test]
fn a_collector_that_lies_makes_no_difference_to_calls() {
    let Some(world) = world() else { return };
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let redirects = Manner::Redirects(format!("http://{}/v1/traces", elsewhere.local_addr().unwrap()));
    for manner in [Manner::Fails, Manner::Garbage, Manner::Babbles, redirects] {
        let collector = Unruly::start(manner);
        let sidecar = impatient(world, &collector.endpoint());
        calls(world, &sidecar);
        counted(&sidecar);
        collector.now(Manner::Takes);
        comes_back(world, sidecar);
    }
    assert!(elsewhere.accept().is_err(), "nobody goes where a collector sends them");
}
