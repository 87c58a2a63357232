//! The bundles that are fetched from servers: what is known of each, the task that asks for it, and what a sidecar
//! begins with. Whether what came may decide is looked at by the reloader, one after the other.

mod first;
mod following;
mod gauges;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use net::{HttpClient, Task, Tasks};
use policy::{
    PolicySource, Source,
    bundle::Origin,
    config::BundleConfig,
    refresh::{Asker, Freshness},
};
use tokio::sync::{Notify, mpsc, oneshot};

use self::{first::first, following::Following};

use super::last_good::{LastGood, Note};
use crate::{
    admin::status::{FollowedBundle, RefusedBundle},
    config::sidecar::SidecarConfig,
    environment::Environment,
    failure::Failure,
};

/// Every bundle that is fetched, by the name of its source.
pub(crate) struct Bundles {
    followed: BTreeMap<String, Arc<Followed>>,
    /// Where the last good ones are kept; nowhere, of candidates, which decide nothing.
    last_good: Option<LastGood>,
}

/// One of them.
struct Followed {
    url: String,
    freshness: Arc<Freshness>,
    /// The server is asked at once, for whatever it has.
    again: Notify,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The ETag of the one that decides.
    etag: Option<String>,
    /// The serial that the next one may not fall below, and the bundle that has it.
    taken: Taken,
    refused: Option<RefusedBundle>,
    last_error: Option<String>,
}

/// A bundle that was taken: no other may have its serial, nor a lower one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) serial: Option<u64>,
    /// The SHA-256 of its archive.
    pub(crate) sha256: Option<String>,
}

impl Taken {
    /// The one that `origin` describes.
    pub(crate) fn of(origin: &Origin) -> Self {
        Self { serial: origin.manifest.serial, sha256: origin.digest.clone() }
    }

    /// Whether it is the one that `origin` describes.
    pub(crate) fn is(&self, origin: &Origin) -> bool {
        self.sha256.is_some() && self.sha256 == origin.digest
    }
}

/// The sources that are fetched, as they were opened.
pub(crate) type Opened = BTreeMap<String, (Source, Origin)>;

/// What a sidecar begins with.
pub(crate) struct Given {
    /// What there is of each, the newest first.
    pub(crate) sources: Opened,
    /// The last good ones, where something newer came from the server.
    earlier: Opened,
    /// The archives of those that came, and what they are called there.
    came: BTreeMap<String, (Bytes, Option<String>)>,
    /// Those that a pin keeps from what lies in their file.
    files: BTreeSet<String>,
}

/// A bundle that came from its server, and whoever waits for what becomes of it.
pub(crate) struct Arrival {
    pub(crate) name: String,
    pub(crate) archive: Bytes,
    pub(crate) etag: Option<String>,
    pub(crate) verdict: oneshot::Sender<Verdict>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It decides.
    Decides,
    /// It may not.
    Refused,
    /// That could not be told, or be put on record, just now.
    Later,
}

impl Bundles {
    /// Gets what `config` follows: from its server, or else the last good one.
    ///
    /// # Errors
    /// Where there is neither: without a bundle nobody knows what it would deny.
    pub(crate) async fn begin(
        config: &SidecarConfig,
        environment: &Environment,
        client: impl FnOnce() -> Result<HttpClient, Failure>,
    ) -> Result<(Arc<Self>, Given), Failure> {
        let last_good = LastGood::of(config);
        let mut followed = BTreeMap::new();
        let mut given =
            Given { sources: Opened::new(), earlier: Opened::new(), came: BTreeMap::new(), files: BTreeSet::new() };
        let sources = config.sources();
        let fetched: Vec<(&PolicySource, &BundleConfig)> =
            sources.iter().filter_map(|source| Some((source, source.bundle.as_ref()?))).collect();
        if !fetched.is_empty() {
            let client = client()?;
            for (source, bundle) in fetched {
                // Everything that is wrong with the settings is said by whoever prepares them.
                if source.problems().is_empty() {
                    let one = first(source, bundle, &last_good, environment, &client, &mut given).await?;
                    followed.insert(source.name.clone(), Arc::new(one));
                }
            }
        }
        let bundles = Arc::new(Self { followed, last_good: Some(last_good) });
        gauges::register(&bundles);
        Ok((bundles, given))
    }

    /// Those of the candidates `sources`, of which nothing is here yet.
    pub(crate) fn of_candidates(sources: &[PolicySource], now: Timestamp) -> Arc<Self> {
        let one = |source: &PolicySource| {
            let followed = Followed::new(source.bundle.as_ref()?, now, Known::default());
            Some((source.name.clone(), Arc::new(followed)))
        };
        Arc::new(Self { followed: sources.iter().filter_map(one).collect(), last_good: None })
    }

    /// How fresh each is, for the engine that decides by them.
    pub(crate) fn freshness(&self) -> BTreeMap<String, Arc<Freshness>> {
        self.followed.iter().map(|(name, one)| (name.clone(), Arc::clone(&one.freshness))).collect()
    }

    /// Keeps what came at the start and decides now, as is on record.
    pub(crate) fn keep_first(&self, given: &Given, now: Timestamp) {
        for (name, (archive, etag)) in &given.came {
            let Some(followed) = self.followed.get(name) else { continue };
            followed.freshness.confirm(now);
            let taken = given.sources.get(name).map(|(_, origin)| Taken::of(origin)).unwrap_or_default();
            if let Err(error) = self.keep(name, archive, etag.as_deref(), taken.clone(), now) {
                tracing::warn!(bundle = name, "not kept for a start without its server: {error}");
                followed.decides(etag.as_deref(), taken);
            }
        }
    }

    /// Keeps the archive of `name`, which may decide from now on, and its serial.
    pub(crate) fn keep(
        &self,
        name: &str,
        archive: &[u8],
        etag: Option<&str>,
        taken: Taken,
        now: Timestamp,
    ) -> std::io::Result<()> {
        let Some(followed) = self.followed.get(name) else { return Ok(()) };
        let Taken { serial, sha256 } = taken.clone();
        if let Some(last_good) = &self.last_good {
            let etag = etag.map(str::to_owned);
            let note = Note { url: followed.url.clone(), etag, serial, sha256, confirmed: now };
            last_good.keep(name, archive, &note)?;
        }
        followed.decides(etag, taken);
        Ok(())
    }

    /// That the bundle of `name` on its server is the one that decides, and what it is called there.
    pub(crate) fn is_the_one(&self, name: &str, etag: Option<&str>) {
        if let Some(followed) = self.followed.get(name) {
            let mut known = followed.known();
            (known.etag, known.refused) = (etag.map(str::to_owned), None);
        }
    }

    /// That the bundle of `name` on its server is asked for whatever it is: what decides is not the last good one.
    pub(super) fn look_anew(&self, name: &str) {
        if let Some(followed) = self.followed.get(name) {
            followed.known().etag = None;
        }
    }

    /// The one of `name` that was taken last.
    pub(crate) fn taken(&self, name: &str) -> Taken {
        self.followed.get(name).map(|followed| followed.known().taken.clone()).unwrap_or_default()
    }

    /// That what came for `name` was refused at `now`.
    pub(crate) fn refused(&self, name: &str, origin: Option<&Origin>, why: &str, now: Timestamp) {
        let Some(followed) = self.followed.get(name) else { return };
        let mut known = followed.known();
        // That nothing changed is said of what was refused from now on, also where a server calls both the same.
        known.etag = None;
        let since = known.refused.as_ref().filter(|refused| refused.why == why).map_or(now, |refused| refused.since);
        known.refused = Some(RefusedBundle {
            since,
            why: why.to_owned(),
            revision: origin.map(|origin| origin.manifest.revision.clone()),
            serial: origin.and_then(|origin| origin.manifest.serial),
            sha256: origin.and_then(|origin| origin.digest.clone()),
        });
    }

    /// Holds each to the age that `config` gives it.
    pub(super) fn held_to(&self, config: &SidecarConfig) {
        for source in &config.sources() {
            if let (Some(followed), Some(bundle)) = (self.followed.get(&source.name), &source.bundle) {
                followed.freshness.hold_to(bundle.max_age.map(|age| age.0));
            }
        }
    }

    /// Asks every server at once, also for what was refused.
    pub(crate) fn ask_again(&self) {
        self.followed.values().for_each(|followed| followed.again.notify_one());
    }

    /// What an operator is told of the bundle `name` at `now`.
    pub(crate) fn state(&self, name: &str, now: Timestamp) -> Option<FollowedBundle> {
        let followed = self.followed.get(name)?;
        let known = followed.known();
        Some(FollowedBundle {
            url: followed.url.clone(),
            confirmed: followed.freshness.confirmed(),
            stale: followed.freshness.is_stale(now),
            refused: known.refused.clone(),
            last_error: known.last_error.clone(),
        })
    }

    /// Asks for each of `sources` that is fetched until shutdown, or until its task is ended, and hands on what comes.
    pub(crate) fn follow(
        self: &Arc<Self>,
        sources: &[PolicySource],
        environment: &Environment,
        client: &HttpClient,
        arrivals: &mpsc::Sender<Arrival>,
        tasks: &Tasks,
    ) -> Vec<Task<()>> {
        let mut following = Vec::new();
        for source in sources {
            let (Some(bundle), Some(followed)) = (&source.bundle, self.followed.get(&source.name)) else { continue };
            let Ok(asker) = Asker::new(client.clone(), bundle) else { continue };
            let one = Following {
                name: source.name.clone(),
                followed: Arc::clone(followed),
                bundles: Arc::clone(self),
                asker,
                environment: environment.clone(),
                arrivals: arrivals.clone(),
                tasks: tasks.clone(),
            };
            following.push(tasks.spawn("policy bundle", one.run()));
        }
        following
    }
}

impl Followed {
    fn new(bundle: &BundleConfig, confirmed: Timestamp, known: Known) -> Self {
        let freshness = Arc::new(Freshness::new(confirmed, bundle.max_age.map(|age| age.0)));
        Self { url: bundle.url.clone(), freshness, again: Notify::new(), known: Mutex::new(known) }
    }

    /// That `taken` decides, which its server calls `etag`.
    fn decides(&self, etag: Option<&str>, taken: Taken) {
        let mut known = self.known();
        (known.etag, known.taken, known.refused) = (etag.map(str::to_owned), taken, None);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    /// The last good ones in the place of what came, where that makes a difference.
    pub(crate) fn earlier(&self) -> Option<Self> {
        let replaced = |(name, opened): (&String, &(Source, Origin))| {
            (name.clone(), self.earlier.get(name).unwrap_or(opened).clone())
        };
        let from_disk = |(name, _): &(&String, &(Source, Origin))| !self.files.contains(*name);
        let sources: Opened = self.sources.iter().filter(from_disk).map(replaced).collect();
        let came = self.came.iter().filter(|(name, _)| !self.earlier.contains_key(*name));
        let came = came.map(|(name, came)| (name.clone(), came.clone())).collect();
        let differs = !self.earlier.is_empty() || !self.files.is_empty();
        differs.then_some(Self { sources, earlier: Opened::new(), came, files: BTreeSet::new() })
    }

    /// The last good one of `name` decides, where there is one.
    pub(super) fn stay(&mut self, name: &str) {
        if let Some(last) = self.earlier.remove(name) {
            self.came.remove(name);
            self.sources.insert(name.to_owned(), last);
        }
    }

    /// Puts `opened`, which a pin names, in the place of what there is of `name`.
    pub(super) fn put(&mut self, name: &str, opened: (Source, Origin)) {
        self.came.remove(name);
        match self.sources.insert(name.to_owned(), opened) {
            Some(before) => drop(self.earlier.insert(name.to_owned(), before)),
            None => drop(self.files.insert(name.to_owned())),
        }
    }

    /// Those that came while there was a good one.
    pub(crate) fn newer(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.earlier.keys().filter_map(|name| Some((name.as_str(), &self.sources.get(name)?.1)))
    }
}

#[cfg(test)]
mod tests;
