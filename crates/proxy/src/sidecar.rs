//! The sidecar: what all calls share. Everything that a reload may change is in the [`Snapshot`].

use std::{collections::BTreeSet, fmt, sync::Arc};

use arc_swap::ArcSwap;
use net::{Census, HttpClient, Tasks};

use crate::{
    candidate::Beside,
    exchanged::Exchanged,
    facts::Reader,
    fold::{self, Folding},
    live::Live,
    metrics::{self, Metrics},
    obligations::notice::Notices,
    overload::Gate,
    quiet::Quiet,
    record::{self, Unrecorded},
    reserve::Limits,
    snapshot::Snapshot,
    trace::Spans,
    withdrawals::{self, Said, Withdrawals},
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
    pub(crate) folding: Folding,
    pub(crate) gate: Gate,
    pub(crate) quiet: Quiet,
    /// Who listens to calls.
    pub(crate) live: Arc<Live>,
    /// What was withdrawn, where an authority is followed.
    pub(crate) withdrawals: Option<Arc<Withdrawals>>,
    /// Tokens that were used by another than they are bound to.
    pub(crate) by_another: Said,
    /// What was obtained for agents whose identities are held.
    pub(crate) exchanged: Exchanged,
    /// What is held of cumulative limits, where an authority counts them.
    pub(crate) limits: Option<Arc<Limits>>,
    /// The policy candidate that is asked beside what decides.
    pub(crate) beside: Beside,
    /// Who is told of calls, where policy obliges to it.
    pub(crate) notices: Notices,
    census: Census,
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
    /// What was withdrawn, where an authority is followed: whoever follows it tells this.
    pub withdrawals: Option<Arc<Withdrawals>>,
    /// What is held of cumulative limits, where an authority counts them: without it, calls they apply to are refused.
    pub limits: Option<Arc<Limits>>,
    /// The channels that policy may have told of calls, beside `alerts`.
    pub channels: BTreeSet<String>,
}

impl Sidecar {
    /// Puts the parts together and begins to sum up refusals. Metrics and spans go to the providers
    /// that are global now.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { snapshot, ledger, client, tasks, version, withdrawals, limits, channels } = parts;
        let metrics = Arc::new(Metrics::new());
        // A change of these needs a restart: what is under way was counted against the old ones.
        let most = snapshot.listener.limits.clone();
        let sidecar = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            ledger,
            facts: Reader::new(client.clone(), Arc::clone(&metrics)),
            exchanged: Exchanged::new(&client),
            client,
            tasks,
            version,
            spans: Spans::global(),
            unrecorded: Unrecorded::new(),
            folding: Folding::new(most.refusals_per_minute.get()),
            gate: Gate::new(&most, Arc::clone(&metrics)),
            quiet: Quiet::default(),
            live: Arc::default(),
            withdrawals,
            by_another: Said::by_another(&opentelemetry::global::meter("countersign")),
            limits,
            beside: Beside::new(),
            notices: Notices::new(channels),
            census: Census::default(),
            metrics,
        });
        sidecar.ledger.serves(sidecar.gate.calls_told());
        metrics::observe(&sidecar);
        if sidecar.withdrawals.is_some() {
            sidecar.tasks.spawn("age of the view", withdrawals::keep_age(Arc::clone(&sidecar)));
        }
        sidecar.tasks.spawn("folded refusals", fold::summaries(Arc::clone(&sidecar)));
        sidecar.tasks.spawn("refusal summaries", record::summaries(Arc::clone(&sidecar)));
        sidecar
    }

    /// What comes and goes at the agents' listener, for whoever serves it to count.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Where calls can be listened to as they happen.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What was withdrawn, where an authority is followed.
    pub fn withdrawals(&self) -> Option<&Arc<Withdrawals>> {
        self.withdrawals.as_ref()
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
