//! The sidecar's metrics (DESIGN §5.7): base units, and never the id of a user, an agent or a run. Names are given
//! without the unit and `_total`, which the Prometheus exporter adds.

use std::{sync::Arc, time::Duration};

use audit::record::{Mode, Timings};
use model::{Code, Verdict};
use net::Full;
use opentelemetry::{
    KeyValue, global,
    metrics::{BoundHistogram, Counter, Histogram, UpDownCounter},
};

use crate::{overload::Room, sidecar::Sidecar};

/// Buckets in seconds: from what a guard takes to what a slow disk takes.
const BUCKETS: [f64; 16] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.5, 2.5,
];

/// The stages of a call, in order. Their histograms are looked up once and not for each call.
pub(crate) const STAGES: [&str; 11] =
    ["accept", "admit", "resolve", "guard", "facts", "decide", "approve", "reserve", "credential", "record", "forward"];

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    decisions: Counter<u64>,
    settled: Counter<u64>,
    unrecorded: Counter<u64>,
    active: UpDownCounter<i64>,
    overhead: BoundHistogram<f64>,
    stages: [(&'static str, BoundHistogram<f64>); STAGES.len()],
    fact: Histogram<f64>,
    tool: Histogram<f64>,
    exchange: Histogram<f64>,
    shed: Counter<u64>,
    folded: Counter<u64>,
    panics: Counter<u64>,
}

/// One decision, as far as metrics tell calls apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label<'a> {
    pub(crate) tool: &'a str,
    pub(crate) action: &'a str,
    pub(crate) verdict: Verdict,
    pub(crate) code: Option<Code>,
    pub(crate) mode: Mode,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = global::meter("countersign");
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(BUCKETS.to_vec())
                .build()
        };
        let stage = seconds("countersign_stage", "Time each stage took");
        Self {
            decisions: meter.u64_counter("countersign_decisions").with_description("Calls decided on").build(),
            settled: meter
                .u64_counter("countersign_settled")
                .with_description("Permitted calls by how they ended")
                .build(),
            unrecorded: meter
                .u64_counter("countersign_refusals_unrecorded")
                .with_description("Refusals of a known principal that the ledger could not take")
                .build(),
            active: meter
                .i64_up_down_counter("countersign_calls_active")
                .with_description("Permitted calls whose response still flows")
                .build(),
            overhead: seconds("countersign_overhead", "Time a call spent here before it was sent, facts not counted")
                .bind(&[]),
            stages: STAGES.map(|name| (name, stage.bind(&[KeyValue::new("stage", name)]))),
            fact: seconds("countersign_facts", "Time a fact's read took, kept answers not counted"),
            tool: seconds("countersign_tool_response", "Time until the head of the tool's response"),
            exchange: seconds(
                "countersign_entry_exchange",
                "Time that exchanges for agents took, kept ones not counted",
            ),
            shed: meter.u64_counter("countersign_shed").with_description("Calls refused for want of room").build(),
            folded: meter
                .u64_counter("countersign_refusals_folded")
                .with_description("Refusals of a known principal that are in a summary instead of a record")
                .build(),
            panics: meter
                .u64_counter("countersign_call_panics")
                .with_description("Calls that ended in a defect of the sidecar")
                .build(),
        }
    }

    pub(crate) fn decision(&self, label: &Label<'_>, timings: &Timings) {
        self.decisions.add(
            1,
            &[
                KeyValue::new("tool", label.tool.to_owned()),
                KeyValue::new("action", label.action.to_owned()),
                KeyValue::new("outcome", label.verdict.as_str()),
                KeyValue::new("code", label.code.map_or("none", Code::as_str)),
                KeyValue::new("mode", label.mode.as_str()),
            ],
        );
        let mut overhead = 0;
        for (stage, microseconds) in timings.iter() {
            if let Some((_, histogram)) = self.stages.iter().find(|(name, _)| *name == stage) {
                histogram.record(seconds(microseconds));
            }
            if stage != "facts" {
                overhead += microseconds;
            }
        }
        self.overhead.record(seconds(overhead));
    }

    pub(crate) fn fact(&self, fact: &str, took: Duration) {
        self.fact.record(took.as_secs_f64(), &[KeyValue::new("fact", fact.to_owned())]);
    }

    pub(crate) fn tool(&self, tool: &str, took: Duration) {
        self.tool.record(took.as_secs_f64(), &[KeyValue::new("tool", tool.to_owned())]);
    }

    pub(crate) fn exchange(&self, renewal: bool, outcome: &'static str, took: Duration) {
        let kind = if renewal { "renewal" } else { "first" };
        self.exchange.record(took.as_secs_f64(), &[KeyValue::new("kind", kind), KeyValue::new("outcome", outcome)]);
    }

    pub(crate) fn sent(&self) {
        self.active.add(1, &[]);
    }

    pub(crate) fn settled(&self, tool: &str, outcome: audit::record::Outcome) {
        self.active.add(-1, &[]);
        self.settled.add(1, &[KeyValue::new("tool", tool.to_owned()), KeyValue::new("outcome", outcome.as_str())]);
    }

    pub(crate) fn shed(&self, room: Room, full: Full) {
        let whose = match full {
            Full::Total => "total",
            Full::Share => "share",
        };
        self.shed.add(1, &[KeyValue::new("room", room.as_str()), KeyValue::new("full", whose)]);
    }

    pub(crate) fn folded(&self) {
        self.folded.add(1, &[]);
    }

    pub(crate) fn panicked(&self) {
        self.panics.add(1, &[]);
    }

    pub(crate) fn unrecorded(&self) {
        self.unrecorded.add(1, &[]);
    }
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

/// What is taken now, and what came and went at the listener, asked for when somebody looks.
pub(crate) fn observe(sidecar: &Arc<Sidecar>) {
    type Ask = fn(&Sidecar) -> u64;
    let meter = global::meter("countersign");
    let gauges: [(&str, &str, Ask); 4] = [
        ("countersign_calls_in_flight", "Calls under way, refused ones included", |sidecar| {
            sidecar.gate.calls() as u64
        }),
        ("countersign_body_bytes_held", "Bytes of request bodies in memory", |sidecar| {
            sidecar.gate.body_bytes() as u64
        }),
        ("countersign_connections_open", "Connections of agents", |sidecar| sidecar.census().connections() as u64),
        ("countersign_handshakes_in_progress", "TLS handshakes of agents in progress", |sidecar| {
            sidecar.census().handshakes() as u64
        }),
    ];
    for (name, description, ask) in gauges {
        // Meters live as long as the process, and a sidecar may end before it.
        let seen = Arc::downgrade(sidecar);
        let _gauge = meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                if let Some(sidecar) = seen.upgrade() {
                    observer.observe(ask(&sidecar), &[]);
                }
            })
            .build();
    }
    let counters: [(&str, &str, Ask); 5] = [
        ("countersign_connections_refused", "Connections closed because their peer had its share", |sidecar| {
            sidecar.census().connections_refused()
        }),
        ("countersign_handshakes_failed", "TLS handshakes that failed or took too long", |sidecar| {
            sidecar.census().handshakes_failed()
        }),
        ("countersign_streams_stalled", "HTTP/2 answers given up because the peer took nothing", |sidecar| {
            sidecar.census().streams_stalled()
        }),
        ("countersign_task_panics", "Tasks of calls and connections that ended in a defect", |sidecar| {
            sidecar.tasks.panics()
        }),
        ("countersign_notices_lost", "Notices of policy that were not told, because too many waited", |sidecar| {
            sidecar.notices.lost()
        }),
    ];
    observe_certificates(sidecar);
    for (name, description, ask) in counters {
        let seen = Arc::downgrade(sidecar);
        let _counter = meter
            .u64_observable_counter(name)
            .with_description(description)
            .with_callback(move |observer| {
                if let Some(sidecar) = seen.upgrade() {
                    observer.observe(ask(&sidecar), &[]);
                }
            })
            .build();
    }
}

/// Somebody has to renew these before they end.
fn observe_certificates(sidecar: &Arc<Sidecar>) {
    let seen = Arc::downgrade(sidecar);
    let _expiry = global::meter("countersign")
        .i64_observable_gauge("countersign_credential_expiry_timestamp")
        .with_unit("s")
        .with_description("When the first of these certificates ends, in seconds since 1970")
        .with_callback(move |observer| {
            let Some(sidecar) = seen.upgrade() else { return };
            for (tool, upstream) in sidecar.snapshot().upstreams.iter() {
                if let Some(ends) = upstream.credentials.certificate_ends() {
                    observer.observe(ends.as_second(), &[KeyValue::new("kind", format!("tool_{tool}"))]);
                }
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_the_line_has_its_histogram() {
        let line = include_str!("handle.rs");
        let entered: Vec<&str> =
            line.split("trail.enter(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(entered, STAGES.iter().skip(1).copied().collect::<Vec<_>>());
    }
}
