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
    (
        "countersign_connections_refused_total",
        "",
        "Connections that were closed at once because their peer had its share.",
    ),
    ("countersign_handshakes_in_progress", "", "TLS handshakes of agents in progress."),
    ("countersign_handshakes_failed_total", "", "TLS handshakes of agents that failed or took too long."),
    (
        "countersign_streams_stalled_total",
        "",
        "Answers over HTTP/2 that were given up because the peer took nothing of them.",
    ),
    (
        "countersign_refusals_folded_total",
        "",
        "Refusals of a known principal that are in a summary (`refusals.summary`) instead of a record of their own.",
    ),
    ("countersign_call_panics_total", "", "Calls that ended in a defect of the sidecar. Should be zero."),
    ("countersign_task_panics_total", "", "Tasks of calls and connections that ended in a defect. Should be zero."),
    (
        "countersign_security_events_total",
        "event, outcome",
        "Security events that transmitters told the authority of, by what they are and what became of them.",
    ),
    (
        "countersign_event_stream_age_seconds",
        "transmitter",
        "How long ago a transmitter of security events that the authority asks was last heard.",
    ),
    (
        "countersign_credential_expiry_timestamp_seconds",
        "kind",
        "When the first certificate of a kind ends, in seconds since 1970: of a listener's own (agent_listener, health_listener, authority_listener) and of the authorities that its clients are believed by (the same with _clients), of the client certificate that a tool is shown (tool_ and its name), and eight days after the key that signs tokens should be replaced (signing_key).",
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
    (
        "countersign_entry_exchange_seconds",
        "kind, outcome",
        "Time that exchanges for agents whose identities are held took, by whether a call waited (first) or had a token that still held (renewal), and by what came of them: issued, refused or unavailable (the authority could not be asked).",
    ),
    (
        "countersign_authority_staleness_seconds",
        "",
        "How old the view of what the authority withdrew is. Absent before it was whole once. Near one second while all is well.",
    ),
    (
        "countersign_withdrawals_applied_total",
        "kind",
        "Withdrawals that the authority told of, by what they take back.",
    ),
    (
        "countersign_used_after_end_total",
        "code",
        "Calls with a verified token that had been taken back, or whose task had ended, by what they were refused with.",
    ),
    (
        "countersign_used_by_another_total",
        "code",
        "Calls with a verified token that is bound to another certificate than the connection's, by what they were refused with.",
    ),
    (
        "countersign_alerts_untold_total",
        "",
        "Alerts that are on record and could not be told to the webhook, or by a sidecar to its authority.",
    ),
    (
        "countersign_notices_lost_total",
        "",
        "Notices that policy obliged to (`notify`) and that were neither told nor put on record by themselves, because too many waited.",
    ),
    (
        "countersign_limit_lease_failures_total",
        "",
        "Calls that needed a slice of a cumulative limit and could not have one, because the authority gave no answer or refused.",
    ),
    (
        "countersign_charges_untold_total",
        "",
        "Calls under an idempotency key that were charged without the authority being told, so that they may be charged again by another sidecar.",
    ),
    ("countersign_jwks_age_seconds", "issuer", "How long ago an issuer's keys were last fetched."),
    (
        "countersign_policy_info",
        "bundle, revision",
        "Always 1; one series for each bundle in force, with the revision of the whole policy, as records have it.",
    ),
    (
        "countersign_catalogue_info",
        "bundle, revision",
        "Always 1; one series for each source of the catalogue, with the revision of the whole catalogue, as records have it.",
    ),
    (
        "countersign_policy_compared_total",
        "action",
        "Calls that a policy candidate was asked about, beside what decided them.",
    ),
    (
        "countersign_policy_diff_total",
        "action, from, to",
        "Of those, calls that it would have answered otherwise, by what was answered and what it would have been: `permit`, or the code of a refusal. The same on both sides where only the rules or obligations are others.",
    ),
    (
        "countersign_policy_compare_dropped_total",
        "why",
        "Calls that a policy candidate was not asked about: it was too slow for them (full), or something else decided by then (replaced).",
    ),
    (
        "countersign_policy_candidate_info",
        "bundle, revision",
        "Always 1; one series for each bundle of the policy candidate that is asked, with the revision that everything would come to.",
    ),
    (
        "countersign_policy_candidate_refused",
        "",
        "1 while the policy candidate that is configured is not asked; `/status` says why.",
    ),
    (
        "countersign_policy_bundle_refused",
        "bundle",
        "1 while what a bundle's server has was refused and an earlier one decides; `/status` says why.",
    ),
    (
        "countersign_policy_bundle_serial",
        "bundle",
        "The serial of the fetched bundle that was taken last: the one that decides, unless a pin holds.",
    ),
    (
        "countersign_policy_bundle_age_seconds",
        "bundle",
        "How long ago its server last confirmed the fetched bundle that decides.",
    ),
    ("countersign_policy_pinned", "bundle", "1 while a bundle stays at the revision that a pin names."),
    (
        "countersign_policy_pin_unmet",
        "bundle",
        "1 while a bundle should stay at a revision that this sidecar has not got; `/status` says why.",
    ),
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
    (
        "countersign_ledger_unanchored_seconds",
        "",
        "For how long a signed head of the ledger has not been anchored at the authority. Zero while all is well.",
    ),
    (
        "countersign_ledger_oldest_unshipped_seconds",
        "",
        "The age of the oldest record of the ledger that is not at the authority, where it is shipped (`ledger.ship`). A second or two while all is well.",
    ),
    (
        "countersign_ledger_forks_total",
        "",
        "Heads of sidecars' ledgers that contradict the one that is anchored, at the authority. Should be zero.",
    ),
    ("countersign_exchange_total", "outcome, error", "Token requests at the authority."),
    (
        "countersign_management_total",
        "route, code",
        "Requests of the authority's management API, `ok` where it did as asked.",
    ),
    ("countersign_agent_credentials_overdue", "", "Credentials of agents that are older than they may be."),
    (
        "countersign_sidecar_ledgers_unavailable",
        "",
        "At the authority: enrolled sidecars that said that they cannot write their ledger, and not yet that they can.",
    ),
    ("countersign_build_info", "version", "Always 1; which build runs."),
    (
        "countersign_telemetry_items_total",
        "signal, outcome",
        "Spans, log events and exports of metrics that were exported, failed (the collector did not take them) or dropped (the queue was full).",
    ),
];

/// Every attribute of a span: which spans have it, and what it is.
const SPANS: &[(&str, &str, &str)] = &[
    ("http.request.method", "call, tool", "The method."),
    ("http.route", "call", "The template of the action that the request was recognised as, below the tool's prefix."),
    ("http.response.status_code", "call, tool", "What was answered; by the tool, on its own span."),
    ("url.scheme", "call", "`http` or `https`, as the agent connected."),
    ("url.path", "call", "The canonical path. Never the query."),
    ("url.full", "tool", "The URL at the tool, without its query."),
    ("network.protocol.version", "call", "`1.0`, `1.1` or `2`."),
    ("client.address", "call", "Where the agent connected from."),
    ("server.address", "tool", "The tool's host."),
    ("server.port", "tool", "The tool's port."),
    ("error.type", "call, tool", "The status, or the denial code where there was no answer."),
    ("gen_ai.operation.name", "call", "Always `execute_tool`."),
    ("gen_ai.tool.name", "call", "The action."),
    ("gen_ai.agent.id", "call", "The agent that acts, once its token was verified."),
    ("countersign.decision.id", "call", "The decision's id: the answer's `Countersign-Decision-Id`, and the record's."),
    ("countersign.run.id", "call", "The run that the call belongs to."),
    ("countersign.task.id", "call", "The task, where the token names one."),
    ("countersign.decision", "call", "`permit`, `deny` or `approval_required`."),
    ("countersign.denial.code", "call", "Why not, by its code."),
];

/// Every attribute of a log event.
const EVENTS: &[(&str, &str, &str)] = &[
    ("countersign.decision.id", "decided, settled", "The decision's id."),
    ("countersign.run.id", "decided, settled", "The run."),
    ("countersign.task.id", "decided", "The task."),
    ("countersign.decision", "decided", "`permit`, `deny` or `approval_required`."),
    ("countersign.denial.code", "decided", "Why not, by its code; of what is only observed, why it would not."),
    (
        "countersign.mode",
        "decided",
        "`enforce`; `observe` where refusals are written down and not followed; `passthrough` where nothing was evaluated.",
    ),
    ("countersign.stage", "decided", "The stage that the call reached."),
    ("countersign.tool", "decided", "The tool; `none` for what was not recognised."),
    ("gen_ai.tool.name", "decided", "The action; `none` likewise."),
    ("gen_ai.agent.id", "decided", "The agent that acts, once its token was verified."),
    ("countersign.outcome", "settled", "How the call ended: `completed`, `client_gone`, `tool_timeout` and so on."),
    ("http.response.status_code", "settled", "What the tool answered."),
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
    text.push_str(
        "\n## Spans\n\n\
         A call that is sampled has a SERVER span named `METHOD route`; below it, one for each stage that took some time \
         (`admit`,\n`facts`, `decide`, `record`) and a CLIENT span for the request to the tool. No span names the user.\n\n\
         | attribute | spans | meaning |\n|---|---|---|\n",
    );
    rows(&mut text, SPANS);
    text.push_str(
        "\n## Log events\n\n\
         Over OTLP, whether or not the call was sampled: `countersign.call.decided` for each decision, \
         `countersign.call.settled` for the\nend of each permitted call, with the trace and span ids of the call. Log lines \
         on standard error are not exported.\n\n\
         | attribute | events | meaning |\n|---|---|---|\n",
    );
    rows(&mut text, EVENTS);
    text
}

fn rows(text: &mut String, rows: &[(&str, &str, &str)]) {
    for (name, of, meaning) in rows {
        text.push_str(&format!("| `{name}` | {of} | {meaning} |\n"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use super::*;

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// The code of every crate, without this page's own.
    fn code() -> String {
        let mut text = String::new();
        let mut directories: Vec<PathBuf> = std::fs::read_dir(repository().join("crates"))
            .unwrap()
            .map(|krate| krate.unwrap().path().join("src"))
            .collect();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("reference/telemetry.rs")
                {
                    text.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        text
    }

    /// The texts between each `before` and the next `after`.
    fn between(text: &str, before: &str, after: char) -> BTreeSet<String> {
        text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).map(str::to_owned).collect()
    }

    fn named(rows: &[(&str, &str, &str)]) -> BTreeSet<String> {
        rows.iter().map(|(name, ..)| (*name).to_owned()).collect()
    }

    #[test]
    fn every_metric_of_the_code_is_in_the_reference_and_no_other() {
        // The exporter adds the unit and `_total`.
        let plain = |name: &str| {
            let name = name.strip_prefix("countersign_").unwrap_or(name);
            name.trim_end_matches("_total").trim_end_matches("_seconds").to_owned()
        };
        let code: BTreeSet<String> = between(&code(), "\"countersign_", '"')
            .iter()
            .filter(|name| !name.contains(['{', ' ']))
            .map(|name| plain(name))
            .collect();
        let reference: BTreeSet<String> = METRICS.iter().map(|(name, ..)| plain(name)).collect();
        assert_eq!(code, reference);
    }

    #[test]
    fn every_attribute_of_a_span_is_in_the_reference_and_no_other() {
        let code = std::fs::read_to_string(repository().join("crates/proxy/src/trace.rs")).unwrap();
        assert_eq!(between(&code, "KeyValue::new(\"", '"'), named(SPANS));
    }

    #[test]
    fn every_attribute_of_a_log_event_is_in_the_reference_and_no_other() {
        let mut attributes = BTreeSet::new();
        for file in ["handle.rs", "settle.rs"] {
            let code = std::fs::read_to_string(repository().join("crates/proxy/src").join(file)).unwrap();
            for event in between(&code, "tracing::event!(", ';') {
                let fields =
                    event.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(name, _)| name.to_owned());
                attributes.extend(fields.filter(|name| name.contains('.')));
            }
        }
        assert_eq!(attributes, named(EVENTS));
    }

    #[test]
    fn the_guide_speaks_of_every_metric() {
        let guide = std::fs::read_to_string(repository().join("docs/telemetry.md")).unwrap();
        for (name, ..) in METRICS {
            assert!(guide.contains(&format!("`{name}`")), "docs/telemetry.md says nothing of {name}");
        }
    }
}
