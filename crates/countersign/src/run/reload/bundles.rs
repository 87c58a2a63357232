//! The bundles that are fetched from servers: what is known of each, the task that asks for it, and what a sidecar
//! begins with. Whether what came may decide is looked at by the reloader, one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use net::{HttpClient, Tasks};
use opentelemetry::{KeyValue, global};
use policy::{
    PolicySource, Source,
    bundle::Origin,
    config::BundleConfig,
    refresh::{Answer, AskError, Asker, Freshness, rising},
};
use tokio::sync::{Notify, mpsc, oneshot};

use super::last_good::{LastGood, Note};
use crate::{
    admin::status::{FollowedBundle, RefusedBundle},
    config::sidecar::SidecarConfig,
    environment::Environment,
    failure::{Exit, Failure},
};

/// How long a server is waited for at the start.
const FIRST: Duration = Duration::from_secs(10);

/// Every bundle that is fetched, by the name of its source.
pub(crate) struct Bundles {
    followed: BTreeMap<String, Arc<Followed>>,
    last_good: LastGood,
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
pub(super) struct Taken {
    pub(super) serial: Option<u64>,
    /// The SHA-256 of its archive.
    pub(super) sha256: Option<String>,
}

impl Taken {
    /// The one that `origin` describes.
    pub(super) fn of(origin: &Origin) -> Self {
        Self { serial: origin.manifest.serial, sha256: origin.digest.clone() }
    }

    /// Whether it is the one that `origin` describes.
    pub(super) fn is(&self, origin: &Origin) -> bool {
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
pub(super) struct Arrival {
    pub(super) name: String,
    pub(super) archive: Bytes,
    pub(super) etag: Option<String>,
    pub(super) verdict: oneshot::Sender<Verdict>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
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
        let mut bundles = Self { followed: BTreeMap::new(), last_good: LastGood::of(config) };
        let mut given = Given { sources: Opened::new(), earlier: Opened::new(), came: BTreeMap::new(), files: BTreeSet::new() };
        let fetched: Vec<(&PolicySource, &BundleConfig)> =
            config.policy.iter().filter_map(|source| Some((source, source.bundle.as_ref()?))).collect();
        if !fetched.is_empty() {
            let client = client()?;
            for (source, bundle) in fetched {
                // Everything that is wrong with the settings is said by whoever prepares them.
                if source.problems().is_empty() {
                    let followed = first(source, bundle, &bundles.last_good, environment, &client, &mut given).await?;
                    bundles.followed.insert(source.name.clone(), Arc::new(followed));
                }
            }
        }
        let bundles = Arc::new(bundles);
        gauges(&bundles);
        Ok((bundles, given))
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
    pub(super) fn keep(
        &self,
        name: &str,
        archive: &[u8],
        etag: Option<&str>,
        taken: Taken,
        now: Timestamp,
    ) -> std::io::Result<()> {
        let Some(followed) = self.followed.get(name) else { return Ok(()) };
        let Taken { serial, sha256 } = taken.clone();
        let note = Note { url: followed.url.clone(), etag: etag.map(str::to_owned), serial, sha256, confirmed: now };
        self.last_good.keep(name, archive, &note)?;
        followed.decides(etag, taken);
        Ok(())
    }

    /// That the bundle of `name` on its server is the one that decides, and what it is called there.
    pub(super) fn is_the_one(&self, name: &str, etag: Option<&str>) {
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
    pub(super) fn taken(&self, name: &str) -> Taken {
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
        for source in &config.policy {
            if let (Some(followed), Some(bundle)) = (self.followed.get(&source.name), &source.bundle) {
                followed.freshness.hold_to(bundle.max_age.map(|age| age.0));
            }
        }
    }

    /// Asks every server at once, also for what was refused.
    pub(super) fn ask_again(&self) {
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

    /// Asks for each of them until shutdown, and hands on what comes.
    pub(super) fn follow(
        self: &Arc<Self>,
        config: &SidecarConfig,
        environment: &Environment,
        client: &HttpClient,
        arrivals: &mpsc::Sender<Arrival>,
        tasks: &Tasks,
    ) {
        for source in &config.policy {
            let (Some(bundle), Some(followed)) = (&source.bundle, self.followed.get(&source.name)) else { continue };
            let Ok(asker) = Asker::new(client.clone(), bundle) else { continue };
            let following = Following {
                name: source.name.clone(),
                followed: Arc::clone(followed),
                bundles: Arc::clone(self),
                asker,
                environment: environment.clone(),
                arrivals: arrivals.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn("policy bundle", following.run());
        }
    }
}

impl Followed {
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

/// What is here of a bundle from before.
struct Last {
    taken: Taken,
    kept: Option<((Source, Origin), Note)>,
    /// Its archive is none any more.
    gone: bool,
}

impl Last {
    fn of(
        name: &str,
        url: &str,
        last_good: &LastGood,
        open: impl Fn(&[u8]) -> Result<(Source, Origin), String>,
    ) -> Self {
        let note = last_good.note(name);
        // A serial means the same wherever the bundle lies; what a server calls it does not.
        let mut taken = note.as_ref().map(Note::taken).unwrap_or_default();
        let note = note.filter(|note| note.url == url);
        let opened = note.as_ref().and_then(|_| last_good.archive(name)).map(|archive| open(&archive));
        if let Some(Err(error)) = &opened {
            tracing::warn!(bundle = name, "the last good bundle is none any more: {error}");
        }
        let gone = matches!(opened, Some(Err(_)));
        let kept = opened.and_then(Result::ok).zip(note);
        if let (Some(((_, origin), _)), None) = (&kept, &taken.sha256) {
            taken.sha256.clone_from(&origin.digest);
        }
        Self { taken, kept, gone }
    }

    /// Whether `origin` describes what was taken, as far as anybody knows. Where the archive is none any more, that may
    /// have been signed anew.
    fn may_be(&self, origin: &Origin) -> bool {
        self.gone || self.taken.sha256.is_none() || self.taken.is(origin)
    }
}

/// What there is of one bundle at the start.
async fn first(
    source: &PolicySource,
    bundle: &BundleConfig,
    last_good: &LastGood,
    environment: &Environment,
    client: &HttpClient,
    given: &mut Given,
) -> Result<Followed, Failure> {
    let name = source.name.as_str();
    let unusable = |error: String| Failure::new(Exit::Configuration, format!("policy.{name}: {error}"));
    let keys = source.keys(Path::new("/")).map_err(|error| unusable(error.to_string()))?;
    let open = |archive: &[u8]| {
        source.opened(archive, keys.as_ref(), Path::new(&bundle.url)).map_err(|error| error.to_string())
    };
    let last = Last::of(name, &bundle.url, last_good, open);
    let mut known = Known { taken: last.taken.clone(), ..Known::default() };
    let mut asker = Asker::new(client.clone(), bundle).map_err(|error| unusable(error.to_string()))?;
    let etag = last.kept.as_ref().and_then(|(_, note)| note.etag.clone());
    let now = net::clock::now();
    let answer = ask(&mut asker, etag.as_deref(), environment).await;
    let answered = answer.is_ok();
    let came = match answer {
        Ok(Answer::Same) => Ok(None),
        Ok(Answer::Bundle { archive, etag }) => open(&archive).and_then(|(opened, origin)| {
            let rolled_back = rising(&origin.manifest, last.taken.serial, last.may_be(&origin), bundle.rollback)?;
            Ok(Some((opened, Origin { rolled_back, ..origin }, archive, etag)))
        }),
        Err(error) => Err(error),
    };
    let mut confirmed = now;
    match (came, last.kept) {
        (Ok(Some((opened, origin, archive, etag))), kept) => {
            given.sources.insert(name.to_owned(), (opened, origin));
            given.came.insert(name.to_owned(), (archive, etag));
            if let Some((kept, note)) = kept {
                // Until what came may decide.
                confirmed = note.confirmed;
                given.earlier.insert(name.to_owned(), kept);
            }
        }
        (came, Some((kept, note))) => {
            known.etag = note.etag;
            if let Err(error) = came {
                tracing::warn!(bundle = name, "the last good bundle decides, its server gave none: {error}");
                known.last_error = Some(error);
                confirmed = note.confirmed;
                // What cannot be taken is asked for and looked at again.
                known.etag = known.etag.filter(|_| !answered);
            }
            given.sources.insert(name.to_owned(), kept);
        }
        (came, None) => {
            let why =
                came.err().unwrap_or_else(|| "the server says that nothing changed, and nothing is here".to_owned());
            let line = format!("policy.{name}: there is no bundle, neither on its server nor from before: {why}");
            return Err(Failure::new(Exit::Unavailable, line));
        }
    }
    let freshness = Arc::new(Freshness::new(confirmed, bundle.max_age.map(|age| age.0)));
    Ok(Followed { url: bundle.url.clone(), freshness, again: Notify::new(), known: Mutex::new(known) })
}

async fn ask(asker: &mut Asker, etag: Option<&str>, environment: &Environment) -> Result<Answer, String> {
    let env = |name: &str| environment.value(name).map(str::to_owned);
    match tokio::time::timeout(FIRST, asker.ask_now(etag, &env)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", FIRST.as_secs())),
    }
}

/// The task that asks for one bundle.
struct Following {
    name: String,
    followed: Arc<Followed>,
    bundles: Arc<Bundles>,
    asker: Asker,
    environment: Environment,
    arrivals: mpsc::Sender<Arrival>,
    tasks: Tasks,
}

impl Following {
    async fn run(mut self) {
        let stop = self.tasks.shutdown_token();
        let followed = Arc::clone(&self.followed);
        let mut seen = followed.known().etag.clone();
        let (mut failures, mut refused) = (0_u32, false);
        loop {
            let pause = self.asker.pause(failures, refused);
            let anew = tokio::select! {
                () = stop.cancelled() => return,
                () = followed.again.notified() => true,
                () = tokio::time::sleep(pause) => false,
            };
            if anew {
                // Whatever was refused may be taken now.
                seen = None;
            }
            let asked_at = net::clock::now();
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = self.ask(seen.as_deref()) => answer,
                () = followed.again.notified() => {
                    // It is asked at once, and held back no longer.
                    followed.again.notify_one();
                    continue;
                }
            };
            (failures, refused) = match answer {
                Ok(Answer::Same) => {
                    self.heard(None);
                    if seen == followed.known().etag {
                        self.confirm(asked_at).await;
                    }
                    (0, false)
                }
                Ok(Answer::Bundle { archive, etag }) => {
                    self.heard(None);
                    match self.hand_on(archive, etag.clone()).await {
                        Verdict::Decides => {
                            followed.freshness.confirm(asked_at);
                            seen = etag;
                            (0, false)
                        }
                        Verdict::Refused => {
                            seen = etag;
                            (failures.saturating_add(1), true)
                        }
                        Verdict::Later => (failures.saturating_add(1), false),
                    }
                }
                Err(error) => {
                    self.heard(Some(error.to_string()));
                    (failures.saturating_add(1), false)
                }
            };
        }
    }

    async fn ask(&mut self, etag: Option<&str>) -> Result<Answer, AskError> {
        let environment = &self.environment;
        self.asker.ask(etag, &|name: &str| environment.value(name).map(str::to_owned)).await
    }

    /// What the last question came to, which is said where it is new.
    fn heard(&self, error: Option<String>) {
        let mut known = self.followed.known();
        if known.last_error != error {
            match &error {
                Some(error) => tracing::warn!(bundle = self.name, "the bundle's server gives none: {error}"),
                None => tracing::info!(bundle = self.name, "the bundle's server answers again"),
            }
            known.last_error = error;
        }
    }

    /// The server says that what decides is the one.
    async fn confirm(&self, at: Timestamp) {
        self.followed.freshness.confirm(at);
        let note = {
            let known = self.followed.known();
            let Taken { serial, sha256 } = known.taken.clone();
            Note { url: self.followed.url.clone(), etag: known.etag.clone(), serial, sha256, confirmed: at }
        };
        let (name, bundles) = (self.name.clone(), Arc::clone(&self.bundles));
        let keeping = self.tasks.spawn_blocking("policy bundle", move || bundles.last_good.confirm(&name, &note));
        if let Ok(Err(error)) = keeping.join().await {
            tracing::warn!(bundle = self.name, "that it is the newest bundle is not kept: {error}");
        }
    }

    async fn hand_on(&self, archive: Bytes, etag: Option<String>) -> Verdict {
        let (verdict, answer) = oneshot::channel();
        let arrival = Arrival { name: self.name.clone(), archive, etag, verdict };
        if self.arrivals.send(arrival).await.is_err() {
            return Verdict::Later;
        }
        answer.await.unwrap_or(Verdict::Later)
    }
}

fn gauges(bundles: &Arc<Bundles>) {
    if bundles.followed.is_empty() {
        return;
    }
    let meter = global::meter("countersign");
    let label = |name: &str| [KeyValue::new("bundle", name.to_owned())];
    let seen: Weak<Bundles> = Arc::downgrade(bundles);
    let _refused = meter
        .u64_observable_gauge("countersign_policy_bundle_refused")
        .with_description("1 while what a bundle's server has was refused and an earlier one decides")
        .with_callback(move |observer| {
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                observer.observe(u64::from(followed.known().refused.is_some()), &label(name));
            }
        })
        .build();
    let seen = Arc::downgrade(bundles);
    let _serial = meter
        .u64_observable_gauge("countersign_policy_bundle_serial")
        .with_description("The serial of the bundle that decides")
        .with_callback(move |observer| {
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                if let Some(serial) = followed.known().taken.serial {
                    observer.observe(serial, &label(name));
                }
            }
        })
        .build();
    let seen = Arc::downgrade(bundles);
    let _age = meter
        .f64_observable_gauge("countersign_policy_bundle_age")
        .with_unit("s")
        .with_description("How long ago its server last confirmed the bundle that decides")
        .with_callback(move |observer| {
            let now = net::clock::now();
            for (name, followed) in seen.upgrade().iter().flat_map(|bundles| &bundles.followed) {
                let age = now.duration_since(followed.freshness.confirmed()).as_secs_f64();
                observer.observe(age.max(0.0), &label(name));
            }
        })
        .build();
}

#[cfg(test)]
mod tests;
