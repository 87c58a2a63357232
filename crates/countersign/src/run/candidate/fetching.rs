//! The candidates that come from servers: asked for as policies are that decide, but that nothing of them is kept.

use std::{path::Path, sync::Arc};

use net::Task;
use policy::{PolicySource, Source, bundle::Origin, refresh::rising};
use tokio::sync::mpsc;

use super::Parts;
use crate::run::reload::{Arrival, Bundles, Opened, Taken};

/// What is asked for, and what came.
pub(super) struct Fetching {
    wanted: Vec<PolicySource>,
    pub(super) bundles: Arc<Bundles>,
    pub(super) opened: Opened,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    following: Vec<Task<()>>,
}

impl Fetching {
    /// Of a configuration without any.
    pub(super) fn nothing() -> Self {
        let (_, arrivals) = mpsc::channel(1);
        Self {
            wanted: Vec::new(),
            bundles: Bundles::of_candidates(&[], net::clock::now()),
            opened: Opened::new(),
            arrivals,
            following: Vec::new(),
        }
    }

    /// Asks for those of `wanted` that are fetched, where that is not done already.
    pub(super) fn follow(&mut self, wanted: &[PolicySource], parts: &Parts) {
        let wanted: Vec<PolicySource> = wanted.iter().filter(|source| source.bundle.is_some()).cloned().collect();
        if wanted == self.wanted {
            return;
        }
        let (sender, arrivals) = mpsc::channel(1);
        let bundles = Bundles::of_candidates(&wanted, net::clock::now());
        let following = bundles.follow(&wanted, &parts.environment, &parts.client, &sender, &parts.tasks);
        bundles.ask_again();
        *self = Self { wanted, bundles, opened: Opened::new(), arrivals, following };
    }

    pub(super) fn source(&self, name: &str) -> Option<&PolicySource> {
        self.wanted.iter().find(|source| source.name == name)
    }

    /// What came, by its digests.
    pub(super) fn digests(&self) -> Vec<(String, Option<String>)> {
        self.opened.iter().map(|(name, (_, origin))| (name.clone(), origin.digest.clone())).collect()
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.following.iter().for_each(Task::abort);
    }
}

/// Why what came may not be, and what it says of itself where it could be opened.
pub(super) struct Untaken {
    pub(super) origin: Option<Box<Origin>>,
    pub(super) why: String,
}

/// The bundle in `archive`; `None` where it is the one that was `taken`.
///
/// # Errors
/// Where it may not be.
pub(super) fn open(source: &PolicySource, archive: &[u8], taken: &Taken) -> Result<Option<(Source, Origin)>, Untaken> {
    let unopened = |why: String| Untaken { origin: None, why };
    let keys = source.keys(Path::new("/")).map_err(|error| unopened(error.to_string()))?;
    let url = source.bundle.as_ref().map(|bundle| bundle.url.clone()).unwrap_or_default();
    let opened = source.opened(archive, keys.as_ref(), Path::new(&url));
    let (opened, origin) = opened.map_err(|error| unopened(error.to_string()))?;
    if taken.is(&origin) {
        return Ok(None);
    }
    let rollback = source.bundle.as_ref().and_then(|bundle| bundle.rollback);
    match rising(&origin.manifest, taken.serial, false, rollback) {
        Ok(rolled_back) => Ok(Some((opened, Origin { rolled_back, ..origin }))),
        Err(why) => Err(Untaken { origin: Some(Box::new(origin)), why }),
    }
}
