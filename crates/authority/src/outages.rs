//! Sidecars that cannot write their ledgers: they can record nothing themselves, but they can speak. What they say is an
//! alert here, once as it begins and once when it is over, and a metric for as long as it lasts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use audit::{Event, record::SidecarUnrecorded};
use net::Tasks;
use store::{Outage, Sidecar, Store};

use crate::{Authority, api::problem::Problem};

/// Between two looks at how many there are, at whichever replica they were told.
const EVERY: Duration = Duration::from_secs(5);

impl Authority {
    /// Takes notice that a sidecar's ledger fails, which is put on record once.
    pub(crate) async fn ledger_fails(&self, sidecar: &Sidecar, outage: Outage) -> Result<(), Problem> {
        let known = self.store.ledger_fails(&outage).await?;
        if known.recorded {
            return Ok(());
        }
        tracing::error!(sidecar = %sidecar.id, name = sidecar.name, why = known.why, "a sidecar cannot write its ledger");
        self.alert_of(sidecar, &known, false).await?;
        Ok(self.store.outage_recorded(&sidecar.id, known.since).await?)
    }

    /// Takes notice that it works. Where nobody said that it did not, that is nothing new.
    pub(crate) async fn ledger_works(&self, sidecar: &Sidecar) -> Result<(), Problem> {
        let Some(outage) = self.store.outage(&sidecar.id).await? else { return Ok(()) };
        tracing::info!(sidecar = %sidecar.id, name = sidecar.name, since = %outage.since, "a sidecar can write its ledger again");
        if outage.recorded {
            self.alert_of(sidecar, &outage, true).await?;
        }
        Ok(self.store.outage_over(&sidecar.id, outage.since).await?)
    }

    async fn alert_of(&self, sidecar: &Sidecar, outage: &Outage, over: bool) -> Result<(), Problem> {
        let alert = SidecarUnrecorded {
            sidecar: sidecar.id.to_string(),
            name: sidecar.name.clone(),
            ledger: outage.ledger.clone(),
            since: outage.since,
            over,
            why: outage.why.clone(),
        };
        let recorded = self.ledger.event(Event::SidecarUnrecorded(Box::new(alert))).await;
        recorded.map_err(|error| Problem::unavailable("the ledger", &error))
    }
}

/// Looks at how many there are until the end.
pub(crate) fn watch(store: Store, tasks: &Tasks) {
    let found = Arc::new(AtomicU64::new(0));
    let seen = Arc::downgrade(&found);
    let _gauge = opentelemetry::global::meter("countersign")
        .u64_observable_gauge("countersign_sidecar_ledgers_unavailable")
        .with_description("Enrolled sidecars that said that they cannot write their ledger, and not yet that they can.")
        .with_callback(move |observer| {
            // Meters live as long as the process, and an authority may end before it.
            if let Some(found) = seen.upgrade() {
                observer.observe(found.load(Ordering::Relaxed), &[]);
            }
        })
        .build();
    let stop = tasks.shutdown_token();
    tasks.spawn("sidecars without a ledger", async move {
        let mut next = tokio::time::interval(EVERY);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = next.tick() => {}
            }
            match store.outages().await {
                Ok(outages) => found.store(outages.len() as u64, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "which sidecars have no ledger cannot be read"),
            }
        }
    });
}
