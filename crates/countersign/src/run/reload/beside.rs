//! The candidate is told what decides: it is kept by a task of its own, which nothing here waits for.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Parts, Reloader};
use crate::run::{
    candidate::{self, Basis},
    catalogue::Tools,
};

impl Reloader {
    /// Keeps the candidate beside whatever it is told that decides.
    pub(super) fn keep_candidate(&self) -> watch::Sender<Option<Arc<Basis>>> {
        let Parts { environment, client, sidecar, ledger, tasks, standing, .. } = &self.parts;
        let (sender, basis) = watch::channel(None);
        let parts = candidate::Parts {
            environment: environment.clone(),
            client: client.clone(),
            sidecar: Arc::clone(sidecar),
            ledger: ledger.clone(),
            tasks: tasks.clone(),
            desk: tasks.desk("candidate changes"),
            told: Arc::clone(standing.candidate()),
        };
        tasks.spawn("policy candidate", candidate::Keeper::new(parts, basis).keep());
        sender
    }

    /// Tells what decides now, where that is something else than before.
    pub(super) fn tell_candidate(&self, basis: &watch::Sender<Option<Arc<Basis>>>) {
        let Parts { config, revision, sources, tools, sidecar, .. } = &self.parts;
        let snapshot = sidecar.snapshot();
        let active = snapshot.policy().revision();
        let is_known = |basis: &Arc<Basis>| basis.revision == *revision && basis.active == active;
        if basis.borrow().as_ref().is_some_and(is_known) {
            return;
        }
        let any = config.policy.iter().any(|source| source.candidate.is_some());
        basis.send_replace(Some(Arc::new(Basis {
            config: config.clone(),
            revision: revision.clone(),
            sources: if any { sources.clone() } else { Vec::new() },
            tools: if any { tools.clone() } else { Tools::new() },
            catalogue: snapshot.catalogue().clone(),
            active: active.to_owned(),
        })));
    }
}
