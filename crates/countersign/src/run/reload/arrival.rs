//! A bundle that came from its server: opened, tried beside what decides, put on record, and swapped in; or refused, and
//! everything stays as it was.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use audit::{ActivatedBundle, Event};
use bytes::Bytes;
use model::Catalogue;
use policy::{
    Engine, PolicySource, Source,
    bundle::Origin,
    refresh::{Freshness, rising},
};
use proxy::Snapshot;

use super::{
    Parts, Reloader,
    bundles::{Arrival, Taken, Verdict},
};
use crate::{
    config::sidecar::SidecarConfig,
    run::{
        kept::{self, Kept},
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
    config: SidecarConfig,
    catalogue: Catalogue,
    freshness: BTreeMap<String, Arc<Freshness>>,
}

/// A bundle that may decide.
struct Tried {
    engine: Engine,
    sources: Vec<(Source, Origin)>,
    taken: Taken,
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
        let source = self.parts.config.policy.iter().find(|source| source.name == name).cloned();
        let one = Try {
            source: source.ok_or("nobody asked for it")?,
            archive,
            before: self.parts.sources.clone(),
            taken: self.parts.bundles.taken(name),
            config: self.parts.config.clone(),
            catalogue: self.parts.sidecar.snapshot().catalogue().clone(),
            freshness: self.parts.bundles.freshness(),
        };
        self.parts.tasks.spawn_blocking("policy bundle", move || one.run()).join().await.map_err(|e| e.to_string())
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
        let Tried { engine, sources, taken } = tried;
        let before = self.parts.sidecar.snapshot();
        let changes = engine.revision() != before.policy().revision();
        // A way back is on record also where it changes no rule.
        let back = sources.iter().any(|(source, origin)| source.name == name && origin.rolled_back.is_some());
        if changes || back {
            self.record(engine.revision(), &sources, before.catalogue()).await?;
        }
        let (bundles, tasks) = (Arc::clone(&self.parts.bundles), self.parts.tasks.clone());
        let (named, etag, now) = (name.to_owned(), etag.map(str::to_owned), net::clock::now());
        let keeping =
            tasks.spawn_blocking("policy bundle", move || bundles.keep(&named, &archive, etag.as_deref(), taken, now));
        match keeping.join().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("it cannot be kept: {error}")),
            Err(error) => return Err(error.to_string()),
        }
        let replaced = std::mem::replace(&mut self.parts.sources, sources);
        self.parts.standing.comes_from(&self.parts.config, &self.parts.sources);
        if changes || back {
            let policy = engine.revision().to_owned();
            self.parts.sidecar.swap(before.deciding_by(Arc::new(engine)));
            tracing::info!(bundle = name, policy, "taken");
            self.let_go(before, replaced);
        }
        Ok(Verdict::Decides)
    }

    /// Puts on record that `sources` decide from now on.
    async fn record(&self, revision: &str, sources: &[(Source, Origin)], catalogue: &Catalogue) -> Result<(), String> {
        let Parts { config, ledger, tasks, .. } = &self.parts;
        let texts = sources.iter().map(|(source, _)| source.clone()).collect();
        let policies = Kept::new(revision, catalogue, &config.tools, &config.sidecar.tenants, texts);
        let kept = Some(kept::keep(&policies, &config.ledger.dir, tasks).await);
        let event = Event::PolicyActivated {
            revision: revision.to_owned(),
            packages: packages(&config.policy),
            kept,
            bundles: activated(sources),
        };
        ledger.event(event).await.map_err(|error| format!("the ledger cannot record it: {error}"))
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
        let opened = self.source.opened(&self.archive, keys.as_ref(), Path::new(&url));
        let (source, origin) = opened.map_err(|error| unopened(error.to_string()))?;
        let refused = |why: String| Untaken { origin: Some(Box::new(origin.clone())), why };
        if self.before.iter().any(|(source, before)| source.name == name && before.digest == origin.digest) {
            return Ok(None);
        }
        let rollback = self.source.bundle.as_ref().and_then(|bundle| bundle.rollback);
        let rolled_back =
            rising(&origin.manifest, self.taken.serial, self.taken.is(&origin), rollback).map_err(refused)?;
        let taken = Taken::of(&origin);
        let mut sources = self.before;
        for one in sources.iter_mut().filter(|(before, _)| before.name == name) {
            *one = (source.clone(), Origin { rolled_back, ..origin.clone() });
        }
        let texts: Vec<Source> = sources.iter().map(|(source, _)| source.clone()).collect();
        let report = trial::run(&self.config.tools, &self.config.sidecar.tenants, &texts);
        let report = report.map_err(|error| refused(error.to_string()))?;
        for action in report.slow {
            tracing::warn!(bundle = name, "a sample call of `{action}` spends the whole time budget");
        }
        let engine = Engine::load(&texts, &self.catalogue).map_err(|error| refused(error.to_string()))?;
        Ok(Some(Tried { engine: engine.expiring(&self.freshness), sources, taken }))
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
        })
    };
    sources.iter().filter_map(bundle).collect()
}
