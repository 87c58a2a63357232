//! Sidecars that cannot write their ledgers: they can record nothing themselves, but they can speak. What they say is an
//! alert here, once as it begins and once when it is over, and a metric for as long as it lasts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use audit::{Event, record::SidecarUnrecorded};
use net::Tasks;
use store::{Outage, Sidecar, Store};

use crate::{Authority, api::problem::Problem, watched::counted};

/// Between two looks at how many there are, at whichever replica they were told.
const EVERY: Duration = Duration::from_secs(5);

impl Authority {
    /// Takes notice that a sidecar's ledger fails, which is put on record once. One that cannot start says so at each try:
    /// an outage that is known goes on.
    pub(crate) async fn ledger_fails(&self, sidecar: &Sidecar, outage: Outage, starting: bool) -> Result<(), Problem> {
        let earlier = if starting { self.store.outage(&sidecar.id).await? } else { None };
        let outage = earlier.unwrap_or(outage);
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
    let found = counted(
        "countersign_sidecar_ledgers_unavailable",
        "Enrolled sidecars that said that they cannot write their ledger, and not yet that they can.",
    );
    tasks.repeat("sidecars without a ledger", EVERY, move || {
        let (store, found) = (store.clone(), Arc::clone(&found));
        async move {
            match store.outages().await {
                Ok(outages) => found.store(outages.len() as u64, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "which sidecars have no ledger cannot be read"),
            }
        }
    });
}
