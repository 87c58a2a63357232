//! The page of telemetry: what is exported where, by which variables, under which names.

/// Every metric, with its labels and meaning.
const METRICS: &[(&str, &str, &str)] = &[
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
         Each decision and each outcome is also an OTLP log event with the trace context of its span. Log lines on \
         standard error are\nnot exported.\n\n\
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
