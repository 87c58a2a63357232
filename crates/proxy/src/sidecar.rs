//! The sidecar: what all calls share. Everything that a reload may change is in the [`Snapshot`].

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use net::{HttpClient, Tasks};

use crate::{
    facts::Reader,
    metrics::Metrics,
    record::{self, Unrecorded},
    snapshot::Snapshot,
    trace::Spans,
};

/// The data plane of one process.
pub struct Sidecar {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) ledger: audit::Ledger,
    pub(crate) client: HttpClient,
    pub(crate) tasks: Tasks,
    pub(crate) version: String,
    pub(crate) facts: Reader,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) spans: Spans,
    pub(crate) unrecorded: Unrecorded,
}

/// What a sidecar is made of.
pub struct Parts {
    /// What calls are decided by.
    pub snapshot: Snapshot,
    /// Where decisions are recorded.
    pub ledger: audit::Ledger,
    /// For tools: trusted with the operator's URLs.
    pub client: HttpClient,
    /// What shutdown waits for.
    pub tasks: Tasks,
    /// The program's version, for the record.
    pub version: String,
}

impl Sidecar {
    /// Puts the parts together and begins to sum up refusals. Metrics and spans go to the providers
    /// that are global now.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { snapshot, ledger, client, tasks, version } = parts;
        let metrics = Arc::new(Metrics::new());
        let sidecar = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            ledger,
            facts: Reader::new(client.clone(), Arc::clone(&metrics)),
            client,
            tasks,
            version,
            metrics,
            spans: Spans::global(),
            unrecorded: Unrecorded::new(),
        });
        sidecar.tasks.spawn("refusal summaries", record::summaries(Arc::clone(&sidecar)));
        sidecar
    }

    /// Takes a new snapshot. Calls under way keep the one they began with.
    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// The snapshot that the next call will see.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sidecar").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}
