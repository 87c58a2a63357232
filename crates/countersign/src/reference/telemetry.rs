//! The page of telemetry: what is exported where, by which variables, under which names.

/// Every metric, with its labels and meaning.
pub(crate) const METRICS: &[(&str, &str, &str)] = &[
    ("countersign_decisions_total", "tool, action, outcome, code, mode", "Calls decided on."),
    ("countersign_calls_in_flight", "", "Calls under way, from their first byte to the last of their answer."),
    (
        "countersign_shed_total",
        "room, full",
        "Calls refused as `overloaded`, by what there was no room for (calls, agent, body_bytes) and by whether all of it (total) or the caller's share was taken.",
    ),
    ("countersign_body_bytes_held", "", "Bytes of request bodies in memory, of those that are read whole."),
    ("countersign_connections_open", "", "Connections of agents."),
    ("countersign_connections_refused_total", "", "Connections that were closed at once because their peer had its share."),
    ("countersign_handshakes_in_progress", "", "TLS handshakes of agents in progress."),
    ("countersign_handshakes_failed_total", "", "TLS handshakes of agents that failed or took too long."),
    ("countersign_streams_stalled_total", "", "Answers over HTTP/2 that were given up because the peer took nothing of them."),
    (
        "countersign_refusals_folded_total",
        "",
        "Refusals of a known principal that are in a summary (`refusals.summary`) instead of a record of their own.",
    ),
    ("countersign_call_panics_total", "", "Calls that ended in a defect of the sidecar. Should be zero."),
    ("countersign_task_panics_total", "", "Tasks of calls and connections that ended in a defect. Should be zero."),
    (
        "countersign_credential_expiry_timestamp_seconds",
        "kind",
        "When the first certificate of a kind ends, in seconds since 1970: of a listener's own (agent_listener, health_listener, authority_listener) and of the authorities that its clients are believed by (the same with _clients).",
    ),
    ("countersign_settled_total", "tool, outcome", "Permitted calls, by how they ended."),
    ("countersign_calls_active", "", "Permitted calls whose response still flows."),
    (
        "countersign_refusals_unrecorded_total",
        "",
        "Refusals of a known principal that the ledger could not take. Should be zero.",
    ),
    (
        "countersign_overhead_seconds",
        "",
        "Time that calls spent in the sidecar before they were sent, facts not counted.",
    ),
    ("countersign_stage_seconds", "stage", "Time that each stage took."),
    ("countersign_facts_seconds", "fact", "Time that reads of facts took; kept answers are not counted."),
    ("countersign_tool_response_seconds", "tool", "Time until the head of the tool's response."),
    ("countersign_jwks_age_seconds", "issuer", "How long ago an issuer's keys were last fetched."),
    ("countersign_policy_info", "revision", "Always 1; which policy decides."),
    (
        "countersign_reload_total",
        "outcome",
        "Changes of configuration and policy on disk, by what became of them: taken, unchanged or refused.",
    ),
    ("countersign_reload_refused", "", "1 while what is on disk was refused and something older decides."),
    ("countersign_ledger_fsync_seconds", "", "Time that fsyncs of the ledger took; many calls share one."),
    ("countersign_ledger_queue", "", "Records that wait to be durable."),
    ("countersign_ledger_records_total", "", "Records written since the start."),
    ("countersign_ledger_failures_total", "", "Writes of the ledger that failed since the start."),
    ("countersign_ledger_disk_free_bytes", "", "Bytes that are free on the ledger's disk."),
    ("countersign_exchange_total", "outcome, error", "Token requests at the authority."),
    ("countersign_build_info", "version", "Always 1; which build runs."),
    (
        "countersign_telemetry_items_total",
        "signal, outcome",
        "Spans and log events that were exported, failed (the collector did not take them) or dropped (the queue was full).",
    ),
];

pub(super) fn document() -> String {
    let mut text = format!(
        "{}# Telemetry\n\n\
         The ledger is the record. Telemetry is beside it: it never decides, never delays a call, and a collector that \
         is down\nchanges nothing but a counter.\n\n\
         ## Variables\n\n\
         | variable | meaning |\n|---|---|\n\
         | `OTEL_EXPORTER_OTLP_ENDPOINT` | The collector, for all signals; `/v1/traces` and so on is added. Unset: nothing is exported. |\n\
         | `OTEL_EXPORTER_OTLP_{{TRACES,LOGS,METRICS}}_ENDPOINT` | The whole URL for one signal. |\n\
         | `OTEL_{{TRACES,LOGS,METRICS}}_EXPORTER` | `otlp` or `none`, for one signal. |\n\
         | `OTEL_EXPORTER_OTLP_PROTOCOL` | Only `http/protobuf`, which is the default here. With another one, a warning is logged and nothing exported. |\n\
         | `OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`, `_COMPRESSION`, `_CERTIFICATE` | As the standard has them, also per signal. |\n\
         | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | Who is telling. Default names: `countersign-sidecar`, `countersign-authority`. |\n\
         | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | Which traces are kept; default `always_on`. The caller's own \"sampled\" flag is never heeded: `parentbased_x` means `x`. |\n\
         | `OTEL_BSP_*`, `OTEL_BLRP_*` | Batches and queues, as the standard has them. A full queue drops and counts. |\n\
         | `OTEL_SDK_DISABLED` | `true`: no spans, no export. `/metrics` stays. |\n\
         | `RUST_LOG` | Which log lines are written, unless `--log` says so. |\n\n\
         ## Log events\n\n\
         Each decision and each outcome is also an OTLP log event, `countersign.call.decided` and \
         `countersign.call.settled`, with the trace\nand span ids of its call and the attributes \
         `countersign.decision.id` and `countersign.run.id`: from a run one finds its events, from\nan event its trace \
         and its record. Log lines on standard error are not exported.\n\n\
         ## Metrics\n\n\
         In Prometheus text format at `/metrics` of the health listener, and over OTLP where a collector is configured. \
         Base units;\nnever a user or an agent.\n\n\
         | metric | labels | meaning |\n|---|---|---|\n",
        super::GENERATED
    );
    for (name, labels, meaning) in METRICS {
        let labels: Vec<String> =
            labels.split(", ").filter(|label| !label.is_empty()).map(|label| format!("`{label}`")).collect();
        text.push_str(&format!("| `{name}` | {} | {meaning} |\n", labels.join(", ")));
    }
    text
}
