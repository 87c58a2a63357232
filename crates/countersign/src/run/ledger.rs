//! The ledger of a running process: opened first, closed last, and seen in the metrics.

use std::{sync::Arc, time::Duration};

use audit::{
    Ledger, LedgerConfig, LedgerError,
    record::{Component, Started},
};
use net::Tasks;
use opentelemetry::global;

use crate::failure::{Exit, Failure};

/// How long the last records and the seal may take.
const CLOSING: Duration = Duration::from_secs(10);

/// The buckets of an fsync, in seconds: from a local disk's to a failing one's.
const FSYNC_SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Opens the ledger of `component`, which is called `name`.
pub(super) async fn open(
    config: LedgerConfig,
    component: Component,
    name: &str,
    tasks: &Tasks,
) -> Result<Ledger, Failure> {
    attempt(config, component, name, tasks).await.map_err(failure)
}

/// The same, for whoever does something about it where it cannot be opened, before that is a [`failure`].
pub(super) async fn attempt(
    config: LedgerConfig,
    component: Component,
    name: &str,
    tasks: &Tasks,
) -> Result<Ledger, LedgerError> {
    let started = Started { component, name: name.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let mut settings = config.resolve(started);
    let seconds = global::meter("countersign")
        .f64_histogram("countersign_ledger_fsync")
        .with_unit("s")
        .with_description("Time one fsync of the ledger took; many calls share one")
        .with_boundaries(FSYNC_SECONDS.to_vec())
        .build();
    settings.fsync_observer = Some(Arc::new(move |took: Duration| seconds.record(took.as_secs_f64(), &[])));
    let ledger = Ledger::open(settings, tasks).await?;
    watch(&ledger);
    Ok(ledger)
}

/// A ledger that could not be opened, as the end of the process.
pub(super) fn failure(error: LedgerError) -> Failure {
    let exit = match error {
        LedgerError::Permissions { .. } | LedgerError::Key { .. } => Exit::Configuration,
        _ => Exit::Unavailable,
    };
    Failure::because(exit, "ledger", error)
}

/// Closes it. A disk that does not answer keeps no process alive: the next start mends what it finds.
pub(super) async fn close(ledger: &Ledger) {
    if tokio::time::timeout(CLOSING, ledger.close()).await.is_err() {
        tracing::error!(seconds = CLOSING.as_secs(), "the disk does not answer, and the ledger is not closed");
    }
}

fn watch(ledger: &Ledger) {
    let meter = global::meter("countersign");
    let seen = ledger.clone();
    let _free = meter
        .u64_observable_gauge("countersign_ledger_disk_free_bytes")
        .with_description("Bytes that are free on the ledger's disk")
        .with_callback(move |observer| {
            if let Some(free) = seen.stats().disk_free_bytes {
                observer.observe(free, &[]);
            }
        })
        .build();
    let seen = ledger.clone();
    let _records = meter
        .u64_observable_counter("countersign_ledger_records")
        .with_description("Records written since the start")
        .with_callback(move |observer| observer.observe(seen.stats().records, &[]))
        .build();
    let seen = ledger.clone();
    let _failures = meter
        .u64_observable_counter("countersign_ledger_failures")
        .with_description("Writes of the ledger that failed since the start")
        .with_callback(move |observer| observer.observe(seen.stats().failures, &[]))
        .build();
    let seen = ledger.clone();
    let _queue = meter
        .u64_observable_gauge("countersign_ledger_queue")
        .with_description("Records that wait to be durable")
        .with_callback(move |observer| observer.observe(seen.stats().queue as u64, &[]))
        .build();
}
