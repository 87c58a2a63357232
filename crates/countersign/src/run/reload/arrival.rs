//! A bundle that came from its server: opened, tried beside what decides, put on record, and swapped in; or refused, and
//! everything stays as it was.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use audit::{ActivatedBundle, Event};
use bytes::Bytes;
use model::Catalogue;
use policy::{
    Engine, Known, PolicySource, Source,
    bundle::Origin,
    config::SourceKind,
    refresh::{Freshness, back, rising},
};
use proxy::{Observations, Snapshot, describe_tools};
use store::Pin;

use super::{
    Parts, Reloader,
    bundles::{Arrival, Taken, Verdict},
};
use crate::{
    config::sidecar::SidecarConfig,
    run::{
        catalogue::{self, Tools},
        kept::{self, Kept},
        modes,
        sidecar::packages,
        trial,
    },
};

/// Between two looks at whether calls still use what was replaced, and the longest that is waited for them.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 1_200;

/// What a try needs.
struct Try {
    source: PolicySource,
    archive: Bytes,
    /// The sources that decide, in order.
    before: Vec<(Source, Origin)>,
    taken: Taken,
    pin: Option<Pin>,
    trying: Trying,
}

/// What policies are tried with.
pub(super) struct Trying {
    name: String,
    config: SidecarConfig,
    catalogue: Catalogue,
    freshness: BTreeMap<String, Arc<Freshness>>,
    /// What decides, which is not read or parsed again where it is the same.
    known: Known,
}

/// What decides, and what it decides about.
pub(super) struct Compiled {
    engine: Engine,
    catalogue: Catalogue,
    observed: Observations,
    tools: Tools,
}

/// A bundle that may decide.
struct Tried {
    compiled: Compiled,
    sources: Vec<(Source, Origin)>,
    taken: Taken,
    place: Place,
    /// What it says of itself.
    origin: Origin,
}

/// What becomes of a bundle that may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It decides, and none before it may come again.
    Newest,
    /// It decides because a pin names it, and is not the newest.
    Back,
    /// It is the newest, and waits until a pin is over.
    Waits,
}

/// Why it may not, and what it says of itself where it could be opened.
struct Untaken {
    origin: Option<Box<Origin>>,
    why: String,
}

impl Reloader {
    /// Takes what came, or leaves it, and tells whoever fetched it.
    pub(super) async fn arrived(&mut self, arrival: Arrival) {
        let Arrival { name, archive, etag, verdict } = arrival;
        let outcome = match self.tried(&name, archive.clone()).await {
            Ok(Ok(Some(tried))) => self.decide_by(&name, tried, archive, etag.as_deref()).await,
            Ok(Ok(None)) => {
                self.parts.bundles.is_the_one(&name, etag.as_deref());
                Ok(Verdict::Decides)
            }
            Ok(Err(Untaken { origin, why })) => {
                self.parts.bundles.refused(&name, origin.as_deref(), &why, net::clock::now());
                tracing::error!(bundle = name, "not taken, the bundle before it decides: {why}");
                Ok(Verdict::Refused)
            }
            Err(passing) => Err(passing),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::error!(bundle = name, "not taken for now: {error}");
            Verdict::Later
        });
        // Nobody waits any more at shutdown.
        verdict.send(outcome).ok();
    }

    /// `None` where it is the very one that decides.
    async fn tried(&self, name: &str, archive: Bytes) -> Result<Result<Option<Tried>, Untaken>, String> {
        let source = self.parts.config.sources().into_iter().find(|source| source.name == name);
        let tenants = &self.parts.config.sidecar.tenants;
        let one = Try {
            source: source.ok_or("nobody asked for it")?,
            archive,
            before: self.parts.sources.clone(),
            taken: self.parts.bundles.taken(name),
            pin: self.parts.pinning.pins.wanted(name, tenants, net::clock::now()),
            trying: Trying::new(name, &self.parts),
        };
        self.parts.desk.run("policy bundle", move || one.run()).join().await.map_err(|e| e.to_string())
    }

    /// The activation is on record before the first call is decided by it, and before its serial counts: what could not
    /// be recorded may come again.
    async fn decide_by(
        &mut self,
        name: &str,
        tried: Tried,
        archive: Bytes,
        etag: Option<&str>,
    ) -> Result<Verdict, String> {
        let Tried { compiled, sources, taken, place, origin } = tried;
        if place == Place::Waits {
            self.keep(name, archive, etag, taken).await?;
            self.waits(name, &origin);
            return Ok(Verdict::Decides);
        }
        let before = self.parts.sidecar.snapshot();
        let changes = compiled.engine.revision() != before.policy().revision();
        // A way back is on record also where it changes no rule, and so is what a pin does.
        let told = origin.rolled_back.is_some() || origin.pinned.is_some();
        if changes || told {
            self.record(&sources, Some(&compiled)).await?;
        }
        if place == Place::Back {
            self.keep_back(name, archive, &origin).await?;
            self.parts.bundles.is_the_one(name, etag);
        } else {
            self.keep(name, archive, etag, taken).await?;
        }
        if changes || told {
            self.swap_in(compiled, sources);
        } else {
            self.parts.sources = sources;
            self.parts.standing.comes_from(&self.parts.config, &self.parts.sources);
        }
        self.keep_earlier().await;
        self.met(name, &origin);
        Ok(Verdict::Decides)
    }

    /// Says that what `origin` describes was taken, and decides once a pin of `name` is over.
    fn waits(&self, name: &str, origin: &Origin) {
        self.parts.pinning.pins.waits(name, origin);
        tracing::info!(bundle = name, revision = origin.manifest.revision, "taken, and waits until a pin is over");
    }

    /// Says that what `origin` describes decides for `name`, and that a pin is obeyed by that, where one is.
    fn met(&self, name: &str, origin: &Origin) {
        tracing::info!(bundle = name, revision = origin.manifest.revision, "taken");
        let wanted = self.parts.pinning.pins.wanted(name, &self.parts.config.sidecar.tenants, net::clock::now());
        if let Some(pin) = wanted.filter(|pin| origin.pinned.as_deref() == Some(pin.id.as_str())) {
            self.parts.pinning.pins.met(&pin);
        }
    }

    /// Decides as `compiled` from now on, which is made of `sources`: policy and what it is about change at one moment.
    pub(super) fn swap_in(&mut self, compiled: Compiled, sources: Vec<(Source, Origin)>) {
        let Compiled { engine, catalogue, observed, tools } = compiled;
        let before = self.parts.sidecar.snapshot();
        say_what_changed(before.policy(), &engine);
        self.parts.tools = tools;
        let replaced = std::mem::replace(&mut self.parts.sources, sources);
        self.parts.standing.comes_from(&self.parts.config, &self.parts.sources);
        self.parts.sidecar.swap(before.knowing(catalogue, observed, Arc::new(engine)));
        self.let_go(before, replaced);
    }

    /// Keeps what a pin went back to, for a start: it is not the last good one.
    async fn keep_back(&self, name: &str, archive: Bytes, origin: &Origin) -> Result<(), String> {
        let (pinning, name, origin) = (Arc::clone(&self.parts.pinning), name.to_owned(), origin.clone());
        let now = net::clock::now();
        let keeping = self.parts.desk.run("policy bundle", move || {
            let spare = Some(origin.manifest.revision.as_str());
            pinning.earlier.keep(&name, &archive, &origin, spare, now)
        });
        let kept = keeping.join().await.map_err(|error| error.to_string())?;
        kept.map_err(|error| format!("it cannot be kept: {error}"))
    }

    /// Keeps the newest, and its serial.
    async fn keep(&self, name: &str, archive: Bytes, etag: Option<&str>, taken: Taken) -> Result<(), String> {
        let (bundles, desk) = (Arc::clone(&self.parts.bundles), self.parts.desk.clone());
        let (named, etag, now) = (name.to_owned(), etag.map(str::to_owned), net::clock::now());
        let keeping = desk.run("policy bundle", move || bundles.keep(&named, &archive, etag.as_deref(), taken, now));
        match keeping.join().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("it cannot be kept: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts on record that `sources` decide from now on, by what was `compiled` of them; the same as before, where nothing
    /// was.
    pub(super) async fn record(&self, sources: &[(Source, Origin)], compiled: Option<&Compiled>) -> Result<(), String> {
        let Parts { config, ledger, desk, tools, sidecar, .. } = &self.parts;
        let before = sidecar.snapshot();
        let (revision, catalogue, tools) = match compiled {
            Some(Compiled { engine, catalogue, tools, .. }) => (engine.revision(), catalogue, tools),
            None => (before.policy().revision(), before.catalogue(), tools),
        };
        let tenants = &config.sidecar.tenants;
        let policies = Kept::new(revision, catalogue, tools, tenants, catalogue::policies(sources));
        let kept = Some(kept::keep(&policies, &config.ledger.dir, desk).await);
        let event = Event::PolicyActivated {
            revision: revision.to_owned(),
            packages: packages(&config.policy),
            kept,
            bundles: activated(sources),
            catalogue: (!config.catalogue.is_empty()).then(|| catalogue.revision().to_owned()),
        };
        let observed = compiled.map_or(before.observed(), |compiled| &compiled.observed);
        let modes = modes::changes(before.observed(), observed, net::clock::now());
        for event in [event].into_iter().chain(modes) {
            ledger.event(event).await.map_err(|error| format!("the ledger cannot record it: {error}"))?;
        }
        Ok(())
    }

    /// What was replaced is freed where nobody waits: a large data document takes a while, and the last call that uses
    /// it would pay for that.
    pub(super) fn let_go(&self, replaced: Arc<Snapshot>, sources: Vec<(Source, Origin)>) {
        drop(self.parts.tasks.spawn_blocking("policy let go", move || {
            for _ in 0..LOOKS {
                if Arc::strong_count(&replaced) == 1 && Arc::strong_count(replaced.policy()) == 1 {
                    break;
                }
                std::thread::sleep(LOOK);
            }
            drop((replaced, sources));
        }));
    }
}

impl Try {
    fn run(self) -> Result<Option<Tried>, Untaken> {
        let unopened = |why: String| Untaken { origin: None, why };
        let name = self.source.name.as_str();
        let keys = self.source.keys(Path::new("/")).map_err(|error| unopened(error.to_string()))?;
        let url = self.source.bundle.as_ref().map(|bundle| bundle.url.clone()).unwrap_or_default();
        let opened = self.source.opened_knowing(&self.archive, keys.as_ref(), Path::new(&url), &self.trying.known);
        let (source, origin) = opened.map_err(|error| unopened(error.to_string()))?;
        let refused = |why: String| Untaken { origin: Some(Box::new(origin.clone())), why };
        if self.before.iter().any(|(source, before)| source.name == name && before.digest == origin.digest) {
            return Ok(None);
        }
        let (place, rolled_back) = self.place(&origin).map_err(refused)?;
        let pinned = self.pin.as_ref().filter(|_| place != Place::Waits).map(|pin| pin.id.to_string());
        let origin = Origin { rolled_back, pinned, ..origin.clone() };
        let taken = Taken::of(&origin);
        let mut sources = self.before.clone();
        for one in sources.iter_mut().filter(|(before, _)| before.name == name) {
            *one = (source.clone(), origin.clone());
        }
        let compiled = self.trying.compile(&sources).map_err(refused)?;
        Ok(Some(Tried { compiled, sources, taken, place, origin }))
    }

    /// What becomes of the bundle that `origin` describes, and the serial that it goes back from. What a pin names may go
    /// back, and nothing else decides while it holds.
    fn place(&self, origin: &Origin) -> Result<(Place, Option<u64>), String> {
        let (manifest, before) = (&origin.manifest, self.taken.serial);
        let named = self.pin.as_ref().map(|pin| pin.revision == manifest.revision);
        let rollback = self.source.bundle.as_ref().and_then(|bundle| bundle.rollback);
        let described = manifest.serial.is_some() && manifest.roots.is_some();
        match (rising(manifest, before, self.taken.is(origin), rollback), named) {
            (Ok(rolled_back), None | Some(true)) => Ok((Place::Newest, rolled_back)),
            (Ok(_), Some(false)) if self.is_obeyed() => Ok((Place::Waits, None)),
            (Ok(_), Some(false)) => {
                Err("a pin names another revision, which is not here: until it is, nothing else is taken".to_owned())
            }
            (Err(_), Some(true)) if described => Ok((Place::Back, back(manifest, before))),
            (Err(why), _) => Err(why),
        }
    }
}

impl Try {
    /// Whether the pin decides.
    fn is_obeyed(&self) -> bool {
        let decides = self.before.iter().find(|(before, _)| before.name == self.source.name);
        let pinned = decides.and_then(|(_, origin)| origin.pinned.as_deref());
        pinned.is_some() && pinned == self.pin.as_ref().map(|pin| pin.id.as_str())
    }
}

impl Trying {
    /// With what decides beside the source `name`.
    pub(super) fn new(name: &str, parts: &Parts) -> Self {
        Self {
            name: name.to_owned(),
            config: parts.config.clone(),
            catalogue: parts.sidecar.snapshot().catalogue().clone(),
            freshness: parts.bundles.freshness(),
            known: parts.sidecar.snapshot().policy().known(),
        }
    }

    /// Tries `sources` in a process of their own, and compiles them here.
    pub(super) fn compile(&self, sources: &[(Source, Origin)]) -> Result<Compiled, String> {
        let (tools, texts) = (catalogue::tools(&self.config, sources)?, catalogue::policies(sources));
        let report = trial::run(&tools, &self.config.sidecar.tenants, &texts);
        for action in report.map_err(|error| error.to_string())?.slow {
            tracing::warn!(bundle = self.name, "a sample call of `{action}` spends the whole time budget");
        }
        let (catalogue, observed) =
            describe_tools(&tools, &self.config.sidecar.tenants).map_err(|error| error.to_string())?;
        if catalogue.revision() != self.catalogue.revision() {
            catalogue::held_against(&texts, &self.catalogue, &catalogue, &catalogue::owned(&self.config))?;
        }
        let engine = Engine::load_knowing(&self.known, &texts, &catalogue).map_err(|error| error.to_string())?;
        let engine = catalogue::expiring(engine, sources, &self.freshness);
        Ok(Compiled { engine, catalogue, observed, tools })
    }
}

/// Says where nothing but data changed.
pub(super) fn say_what_changed(before: &Engine, after: &Engine) {
    if after.revision() != before.revision() && after.differs_in_data_alone(&before.known()) {
        tracing::info!(policy = after.revision(), "data alone changed: no policy was parsed again");
    }
}

/// The bundles among `sources`, as their coming into force is recorded.
pub(crate) fn activated(sources: &[(Source, Origin)]) -> Vec<ActivatedBundle> {
    let bundle = |(source, origin): &(Source, Origin)| {
        Some(ActivatedBundle {
            name: source.name.clone(),
            sha256: origin.digest.clone()?,
            revision: origin.manifest.revision.clone(),
            serial: origin.manifest.serial,
            signed_by: origin.signer.as_ref().map(|signer| signer.key.clone()),
            rolled_back: origin.rolled_back,
            pin: origin.pinned.clone(),
            catalogue: source.tools.clone().filter(|_| origin.kind == SourceKind::Catalogue),
        })
    };
    sources.iter().filter_map(bundle).collect()
}
