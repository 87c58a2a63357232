//! Policy candidates: read, fetched, tried and loaded as policies are that decide, and then asked beside those. In a task of
//! its own: whatever is wrong with a candidate, or takes long about it, holds up no change of what decides.

mod fetching;
mod told;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use audit::{Event, Ledger, record::PolicyCandidate};
use model::Catalogue;
use net::{Desk, HttpClient, Tasks};
use policy::{Engine, Known, PolicySource, Source, bundle::Origin, config::SourceKind};
use proxy::{CandidateParts, Sidecar};
use tokio::sync::watch;

use self::fetching::{Fetching, Untaken};
pub(super) use self::told::Told;
use super::{
    catalogue::Tools,
    findings::Findings,
    prepare,
    reload::{Arrival, Opened, Stamps, Taken, Verdict, Watched, activated},
    sidecar::packages,
    trial,
};
use crate::{config::sidecar::SidecarConfig, environment::Environment};

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(2);
/// Until what was refused and did not change is tried again; twice as long after each time, up to so many times as long.
const RETRY: Duration = Duration::from_secs(10);
const MOST_PATIENCE: u32 = 30;
/// The same for what is good and could not be put on record just then.
const RETRY_PASSING: Duration = INTERVAL;

/// What decides, beside which a candidate is asked.
pub(super) struct Basis {
    pub(super) config: SidecarConfig,
    /// The configuration's revision.
    pub(super) revision: String,
    /// The policies that decide; none where no candidate is configured.
    pub(super) sources: Vec<(Source, Origin)>,
    /// The tools that it decides about; none likewise.
    pub(super) tools: Tools,
    pub(super) catalogue: Catalogue,
    /// The revision of what decides.
    pub(super) active: String,
}

impl Basis {
    /// The candidates that it names.
    fn wanted(&self) -> Vec<PolicySource> {
        self.config.policy.iter().filter_map(PolicySource::beside).collect()
    }

    /// Of a hundred calls, how many they are asked about.
    fn percent(&self) -> u8 {
        let named = self.config.policy.iter().filter_map(|source| Some(source.candidate.as_ref()?.percent));
        named.min().unwrap_or(100)
    }
}

/// What a keeper works with.
pub(super) struct Parts {
    pub(super) environment: Environment,
    pub(super) client: HttpClient,
    pub(super) sidecar: Arc<Sidecar>,
    pub(super) ledger: Ledger,
    pub(super) tasks: Tasks,
    /// Its own: what decides does not wait for it.
    pub(super) desk: Desk,
    pub(super) told: Arc<Told>,
}

/// What keeps the candidate current.
pub(super) struct Keeper {
    parts: Parts,
    basis: watch::Receiver<Option<Arc<Basis>>>,
    fetching: Fetching,
    stamps: Stamps,
    /// What their files say, by digest.
    contents: String,
    tried: Option<Subject>,
    again: Option<Instant>,
    put_off: Duration,
    /// What the candidate before was made of; of the first one, what decides.
    known: Option<Known>,
}

/// What a candidate is made of: the same again is not tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    active: String,
    wanted: Vec<PolicySource>,
    percent: u8,
    contents: String,
    fetched: Vec<(String, Option<String>)>,
}

/// A candidate that loads.
struct Loaded {
    engine: Engine,
    /// Its own policies, without those that decide as well.
    own: Vec<(Source, Origin)>,
}

impl Keeper {
    pub(super) fn new(parts: Parts, basis: watch::Receiver<Option<Arc<Basis>>>) -> Self {
        told::gauges(&parts.told);
        Self {
            parts,
            basis,
            fetching: Fetching::nothing(),
            stamps: Stamps::new(),
            contents: String::new(),
            tried: None,
            again: None,
            put_off: Duration::ZERO,
            known: None,
        }
    }

    /// Takes changes as they come, until shutdown.
    pub(super) async fn keep(mut self) {
        let stop = self.parts.tasks.shutdown_token();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.basis.changed() => if changed.is_err() { return },
                Some(arrival) = self.fetching.arrivals.recv() => self.arrived(arrival).await,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.look().await;
        }
    }

    /// Opens what came from a server. Whether its rules can be asked is seen with all the others.
    async fn arrived(&mut self, arrival: Arrival) {
        let Arrival { name, archive, etag, verdict } = arrival;
        let bundles = Arc::clone(&self.fetching.bundles);
        let (source, taken) = (self.fetching.source(&name).cloned(), bundles.taken(&name));
        let opening = self
            .parts
            .desk
            .run("policy candidate", move || source.map(|source| fetching::open(&source, &archive, &taken)));
        let now = net::clock::now();
        let outcome = match opening.join().await {
            Ok(Some(Ok(Some((source, origin))))) => {
                // It is kept nowhere, so nothing fails.
                bundles.keep(&name, &[], etag.as_deref(), Taken::of(&origin), now).ok();
                self.fetching.opened.insert(name, (source, origin));
                Verdict::Decides
            }
            Ok(Some(Ok(None))) => {
                bundles.is_the_one(&name, etag.as_deref());
                Verdict::Decides
            }
            Ok(Some(Err(Untaken { origin, why }))) => {
                bundles.refused(&name, origin.as_deref(), &why, now);
                tracing::warn!(bundle = name, "not taken as a candidate: {why}");
                Verdict::Refused
            }
            Ok(None) | Err(_) => Verdict::Later,
        };
        // Nobody waits any more where another configuration is in force.
        verdict.send(outcome).ok();
    }

    /// Tries what there is, where that was not tried before.
    async fn look(&mut self) {
        let Some(basis) = self.basis.borrow_and_update().clone() else { return };
        let wanted = basis.wanted();
        if wanted.is_empty() {
            self.fetching = Fetching::nothing();
            self.parts.told.nothing_wanted();
            self.tried = None;
            self.known = None;
            return self.end().await;
        }
        self.fetching.follow(&wanted, &self.parts);
        self.parts.told.follows(&basis, &self.fetching.bundles);
        let (watched, stamps) = (Watched::of_candidates(&wanted), self.stamps.clone());
        let looking = self.parts.desk.run("policy candidate", move || watched.changes(&stamps));
        let Ok(changed) = looking.join().await else { return };
        if let Some((stamps, contents)) = changed {
            (self.stamps, self.contents) = (stamps, contents.policies);
        }
        let subject = Subject {
            active: basis.active.clone(),
            wanted,
            percent: basis.percent(),
            contents: self.contents.clone(),
            fetched: self.fetching.digests(),
        };
        let same = self.tried.as_ref() == Some(&subject);
        if same && self.again.is_none_or(|again| net::clock::monotonic() < again) {
            return;
        }
        if !same {
            self.put_off = Duration::ZERO;
        }
        self.tried = Some(subject.clone());
        self.again = None;
        self.attempt(basis, subject.wanted).await;
    }

    async fn attempt(&mut self, basis: Arc<Basis>, wanted: Vec<PolicySource>) {
        let (of, fetched) = (Arc::clone(&basis), self.fetching.opened.clone());
        let known = self.known.clone().unwrap_or_else(|| self.parts.sidecar.snapshot().policy().known());
        let loading = self.parts.desk.run("policy candidate", move || load(&of, &wanted, &fetched, &known));
        let (why, patience) = match loading.join().await {
            Ok(Ok(loaded)) => {
                self.known = Some(loaded.engine.known());
                match self.take(&basis, loaded).await {
                    Ok(()) => return self.parts.told.holds(),
                    Err(why) => (why, RETRY_PASSING),
                }
            }
            Ok(Err(why)) => (why, RETRY),
            Err(error) => (error.to_string(), RETRY_PASSING),
        };
        self.put_off = (self.put_off * 2).clamp(patience, patience * MOST_PATIENCE);
        self.again = net::clock::monotonic().checked_add(self.put_off);
        if self.parts.told.refused(&why, net::clock::now()) {
            tracing::warn!("the policy candidate is not asked, what decides is as it was: {why}");
        }
        // The one before is still asked, unless something else decides by now.
        if self.parts.told.stood().is_some_and(|stood| stood.active != basis.active) {
            self.end().await;
        }
    }

    /// That it is asked is on record before the first call it is asked about.
    async fn take(&self, basis: &Basis, loaded: Loaded) -> Result<(), String> {
        let Loaded { engine, own } = loaded;
        let revision = engine.revision().to_owned();
        let (percent, told) = (basis.percent(), &self.parts.told);
        if revision == basis.active {
            self.end().await;
            told.is_the_same(&revision, basis, &own);
            return Ok(());
        }
        let stands = PolicyCandidate {
            revision,
            active: basis.active.clone(),
            ended: false,
            packages: packages(&basis.wanted()),
            percent,
            bundles: activated(&own),
        };
        let known = told.stood().is_some_and(|stood| {
            (&stood.revision, &stood.active, stood.percent) == (&stands.revision, &stands.active, percent)
        });
        if !known {
            let event = Event::PolicyCandidate(Box::new(stands.clone()));
            let recorded = self.parts.ledger.event(event).await;
            recorded.map_err(|error| format!("the ledger cannot record it: {error}"))?;
            let parts = CandidateParts { engine, active: basis.active.clone(), percent };
            self.parts.sidecar.compare_with(Some(parts));
            tracing::info!(policy = stands.revision, beside = basis.active, "a policy candidate is asked");
        }
        told.stands(stands, basis, &own, net::clock::now());
        Ok(())
    }

    /// Nothing is asked any more.
    async fn end(&self) {
        let Some(stood) = self.parts.told.ended() else { return };
        self.parts.sidecar.compare_with(None);
        tracing::info!(policy = stood.revision, "the policy candidate is no longer asked");
        let event = Event::PolicyCandidate(Box::new(PolicyCandidate { ended: true, ..stood }));
        if let Err(error) = self.parts.ledger.event(event).await {
            tracing::warn!(%error, "that a policy candidate is no longer asked could not be recorded");
        }
    }
}

/// What decides with the candidates in the place of their namesakes, tried and loaded as what decides is.
fn load(basis: &Basis, wanted: &[PolicySource], fetched: &Opened, known: &Known) -> Result<Loaded, String> {
    let mut own = Vec::new();
    for source in wanted {
        own.push(opened(source, fetched, known)?);
    }
    let instead = |known: &(Source, Origin)| {
        own.iter().map(|(source, _)| source).find(|source| source.name == known.0.name).unwrap_or(&known.0).clone()
    };
    let policies = basis.sources.iter().filter(|(_, origin)| origin.kind == SourceKind::Policy);
    let texts: Vec<Source> = policies.map(instead).collect();
    let report = trial::run(&basis.tools, &basis.config.sidecar.tenants, &texts);
    for action in report.map_err(|error| error.to_string())?.slow {
        tracing::warn!("a sample call of `{action}` spends the whole time budget of the policy candidate");
    }
    let engine = Engine::load_knowing(known, &texts, &basis.catalogue).map_err(|error| error.to_string())?;
    Ok(Loaded { engine, own })
}

fn opened(source: &PolicySource, fetched: &Opened, known: &Known) -> Result<(Source, Origin), String> {
    if source.bundle.is_none() {
        let mut findings = Findings::default();
        return prepare::read(source, known, &mut findings).ok_or_else(|| findings.problems.join("; "));
    }
    let Some((there, origin)) = fetched.get(&source.name).cloned() else {
        return Err(format!("policy.{}.candidate: its server gave no bundle that can be used yet", source.name));
    };
    // Keys count as the configuration has them now.
    source.keys(Path::new("/")).map_err(|error| error.to_string())?;
    Ok((Source { tools: source.tools.clone(), ..there }, origin))
}
