//! What others are told of reloads: readiness, and the metrics that an alarm is set on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Meter},
};

use crate::health::Check;

/// What is in force, and whether what is on disk is something else.
pub(crate) struct Standing {
    refused: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    revision: String,
    needed: BTreeSet<String>,
}

impl Standing {
    /// Of the configuration at start. `needed` are the issuers without whose keys no call can be verified.
    pub(crate) fn new(revision: &str, needed: BTreeSet<String>) -> Arc<Self> {
        let inner = Mutex::new(Inner { revision: revision.to_owned(), needed });
        let standing = Arc::new(Self { refused: AtomicBool::new(false), inner });
        gauge(&meter(), Arc::downgrade(&standing));
        standing
    }

    /// Another configuration is in force.
    pub(super) fn activated(&self, revision: &str, needed: BTreeSet<String>) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner { revision: revision.to_owned(), needed };
    }

    /// What is on disk is in force.
    pub(super) fn holds(&self) {
        self.refused.store(false, Ordering::Release);
    }

    /// What is on disk was refused.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// Whether calls need the keys of `issuer`.
    pub(crate) fn needs(&self, issuer: &str) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).needed.contains(issuer)
    }

    /// For `/readyz`. A refused change is no reason to take calls away: what was in force still decides them.
    pub(crate) fn check(&self) -> Check {
        let revision = self.inner.lock().unwrap_or_else(PoisonError::into_inner).revision.clone();
        let word = if self.refused.load(Ordering::Acquire) { "refused" } else { "in_force" };
        Check::of(true).with("revision", revision).with("on_disk", word)
    }
}

fn meter() -> Meter {
    global::meter("countersign")
}

fn gauge(meter: &Meter, standing: Weak<Standing>) {
    let _refused = meter
        .u64_observable_gauge("countersign_reload_refused")
        .with_description("1 while what is on disk was refused and something older decides")
        .with_callback(move |observer| {
            if let Some(standing) = standing.upgrade() {
                observer.observe(u64::from(standing.refused.load(Ordering::Acquire)), &[]);
            }
        })
        .build();
}

/// Counts reloads by what became of them; every outcome is there from the start.
pub(super) fn counter() -> Counter<u64> {
    let counter = meter()
        .u64_counter("countersign_reload")
        .with_description("Changes of configuration and policy, by outcome")
        .build();
    for outcome in ["taken", "unchanged", "refused"] {
        counter.add(0, &[KeyValue::new("outcome", outcome)]);
    }
    counter
}
