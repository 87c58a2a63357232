//! What changes while a sidecar runs: configuration and policy are prepared beside those in force, with the code that
//! start uses, and taken whole or not at all. What cannot be taken leaves everything as it was, and is said.

mod arrival;
mod beside;
mod bundles;
mod earlier;
mod last_good;
mod obey;
mod pins;
mod standing;
mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use audit::{Event, Ledger};
use net::{Desk, HttpClient, LocalAddress, Roots, Tasks};
use opentelemetry::{KeyValue, metrics::Counter};
use policy::{
    Known, PolicySource, Source,
    bundle::Origin,
    config::{BundleConfig, SourceKind},
};
use proxy::Sidecar;
use token::{KeyClients, Verifier};
use tokio::{signal::unix::Signal, sync::mpsc};

use super::{
    apart,
    catalogue::{self, Tools},
    findings::Findings,
    kept, modes,
    prepare::Prepared,
    reloads,
    sidecar::{look, packages, snapshot, verifier_settings},
};
use crate::{
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
};

pub(super) use arrival::activated;
pub(super) use bundles::{Arrival, Bundles, Given, Opened, Taken, Verdict};
pub(super) use pins::{Pinning, Pins};
pub(super) use standing::{InForce, Standing, bundle as described};
pub(super) use watch::{Contents, Stamps, Watched};

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(2);
/// Until what was refused and did not change is tried again. Twice as long after each time: a try compiles every policy
/// and starts a process for it.
const RETRY: Duration = Duration::from_secs(10);
/// The same for what was good and could not be taken just then.
const RETRY_PASSING: Duration = INTERVAL;
/// The longest wait is so many times the first.
const MOST_PATIENCE: u32 = 30;
/// How long the keys of a new issuer are waited for, so that its first call does not have to.
const KEYS: Duration = Duration::from_secs(5);

/// The settings of the agents' listener that each call reads anew. The others are part of the open socket.
const LIVE_LISTENER_SETTINGS: [&str; 7] =
    ["hosts", "bearer", "entry", "claimed_trace", "max_body_bytes", "body_timeout", "input_headers"];

/// What takes changes.
pub(super) struct Reloader {
    parts: Parts,
    watched: Watched,
    stamps: Stamps,
    /// What was last tried, whatever came of it. `None`: it has to be tried again.
    tried: Option<Contents>,
    /// When what was refused is tried once more.
    again: Option<Instant>,
    /// How long that was put off the last time; zero where something else is on disk since.
    put_off: Duration,
    /// What was last said about it.
    said: Option<String>,
    reloads: Counter<u64>,
}

/// What a reloader works on.
pub(super) struct Parts {
    /// The configuration file.
    pub(super) path: PathBuf,
    /// The environment at start.
    pub(super) environment: Environment,
    /// The configuration in force.
    pub(super) config: SidecarConfig,
    /// Its revision.
    pub(super) revision: String,
    /// What calls see.
    pub(super) sidecar: Arc<Sidecar>,
    /// What keys are fetched with.
    pub(super) clients: KeyClients,
    /// What tools are called with.
    pub(super) client: HttpClient,
    /// Whom all of these believe.
    pub(super) roots: Roots,
    /// Where activations are recorded.
    pub(super) ledger: Ledger,
    /// What runs beside calls.
    pub(super) tasks: Tasks,
    /// Where changes are read, compiled and kept.
    pub(super) desk: Desk,
    /// Where agents reach the sidecar.
    pub(super) agent: LocalAddress,
    /// What others are told of reloads.
    pub(super) standing: Arc<Standing>,
    /// What was on disk before it was read at start.
    pub(super) contents: Contents,
    /// The policies in force and what says the actions of tools, and where they came from.
    pub(super) sources: Vec<(Source, Origin)>,
    /// The tools in force, with their actions.
    pub(super) tools: Tools,
    /// Those that are fetched.
    pub(super) bundles: Arc<Bundles>,
    /// Those that stay at a revision.
    pub(super) pinning: Arc<Pinning>,
}

/// What became of a try that nothing was wrong with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It decides from now on.
    Taken,
    /// It is what decides already.
    Unchanged,
}

/// Why nothing was taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// What is on disk cannot be used: it has to change first.
    Content(String),
    /// It could not be taken now, and may be later.
    Passing(String),
}

/// A configuration that was read and prepared, or what is wrong with it.
struct Candidate {
    /// The files it is made of, where it could be read that far.
    watched: Option<Watched>,
    prepared: Result<(Document<SidecarConfig>, Prepared, Vec<String>), String>,
}

impl Reloader {
    pub(super) fn new(parts: Parts) -> Self {
        let watched = Watched::of(&parts.path, &parts.config);
        let tried = Some(parts.contents.clone());
        let reloads = reloads::counter();
        Self { parts, watched, stamps: Stamps::new(), tried, again: None, put_off: Duration::ZERO, said: None, reloads }
    }

    /// Takes changes as they come, and whenever `hangups` asks, until shutdown.
    pub(super) async fn keep_current(mut self, mut hangups: Signal) {
        let stop = self.parts.tasks.shutdown_token();
        let (sender, mut arrivals) = mpsc::channel(1);
        let Parts { config, environment, client, tasks, .. } = &self.parts;
        drop(self.parts.bundles.follow(&config.sources(), environment, client, &sender, tasks));
        drop(sender);
        let mut pins = self.parts.pinning.pins.told();
        self.keep_earlier().await;
        self.obey().await;
        let basis = self.keep_candidate();
        loop {
            self.tell_candidate(&basis);
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = pins.changed() => {
                    self.obey().await;
                    continue;
                }
                Some(arrival) = arrivals.recv() => {
                    self.arrived(arrival).await;
                    continue;
                }
                Some(()) = hangups.recv() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if asked {
                self.look_at_all();
            }
            self.look_again().await;
            self.obey().await;
        }
    }

    /// Whatever was tried is looked at and tried again.
    fn look_at_all(&mut self) {
        tracing::info!("SIGHUP: reading the configuration again");
        self.stamps.clear();
        self.parts.bundles.ask_again();
        self.tried = None;
        self.said = None;
    }

    /// Tries what is on disk, where that was not tried before.
    pub(super) async fn look_again(&mut self) {
        let (watched, stamps) = (self.watched.clone(), self.stamps.clone());
        // What is wrong may lie in a file that is not looked at: a secret, a key, a certificate half put in place.
        let due = self.again.is_some_and(|again| net::clock::monotonic() >= again);
        let untried = due || self.tried.is_none();
        let looking = self
            .parts
            .desk
            .run("watch", move || watched.changes(&stamps).or_else(|| untried.then(|| (stamps, watched.contents()))));
        let Ok(Some((stamps, contents))) = looking.join().await else { return };
        self.stamps = stamps;
        if !due && self.tried.as_ref() == Some(&contents) {
            return;
        }
        if self.tried.as_ref() != Some(&contents) {
            self.put_off = Duration::ZERO;
        }
        self.tried = Some(contents);
        self.again = None;
        let outcome = self.attempt().await;
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<Outcome, Refused>) {
        let problem = match outcome {
            Ok(outcome) => {
                let name = if outcome == Outcome::Taken { "taken" } else { "unchanged" };
                self.reloads.add(1, &[KeyValue::new("outcome", name)]);
                self.parts.standing.holds();
                self.said = None;
                if outcome == Outcome::Unchanged {
                    tracing::info!("what is on disk is what is in force");
                }
                return;
            }
            Err(Refused::Content(problem)) => {
                self.put_off(RETRY);
                problem
            }
            Err(Refused::Passing(problem)) => {
                self.put_off(RETRY_PASSING);
                problem
            }
        };
        self.parts.standing.refused(&problem, net::clock::now());
        if self.said.as_ref() != Some(&problem) {
            self.reloads.add(1, &[KeyValue::new("outcome", "refused")]);
            tracing::error!(config = self.parts.revision, "not reloaded, what was in force stays in force: {problem}");
            self.said = Some(problem);
        }
    }

    /// Waits twice as long as the last time, and at first for `first`.
    fn put_off(&mut self, first: Duration) {
        self.put_off = (self.put_off * 2).clamp(first, first * MOST_PATIENCE);
        self.again = net::clock::monotonic().checked_add(self.put_off);
    }

    async fn attempt(&mut self) -> Result<Outcome, Refused> {
        let (path, environment) = (self.parts.path.clone(), self.parts.environment.clone());
        let (fetched, known) = (self.fetched(), self.parts.sidecar.snapshot().policy().known());
        let reading = self.parts.desk.run("reload", move || candidate(&path, &environment, &fetched, &known));
        let candidate = reading.join().await.map_err(|error| Refused::Passing(error.to_string()))?;
        if let Some(watched) = candidate.watched {
            self.watched = watched;
        }
        let (document, prepared, warnings) = candidate.prepared.map_err(Refused::Content)?;
        needs_no_restart(&self.parts.config, &document.value).map_err(Refused::Content)?;
        let before = self.parts.sidecar.snapshot();
        let same_config = document.revision == self.parts.revision;
        let same_roots = pem(&prepared.roots) == pem(&self.parts.roots);
        if same_config && same_roots && prepared.policy.revision() == before.policy().revision() {
            // The same rules may be in another bundle now, with another serial or signature.
            self.parts.sources = prepared.sources;
            self.parts.standing.comes_from(&self.parts.config, &self.parts.sources);
            self.keep_earlier().await;
            return Ok(Outcome::Unchanged);
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        self.means_the_same(&document.value, &prepared).await?;
        self.take(document, prepared).await?;
        Ok(Outcome::Taken)
    }

    /// That no source of the catalogue makes something else of what policy says.
    async fn means_the_same(&self, config: &SidecarConfig, prepared: &Prepared) -> Result<(), Refused> {
        let (before, after) = (self.parts.sidecar.snapshot(), prepared.tools.catalogue.clone());
        let owned = catalogue::owned(config);
        if owned.is_empty() || before.catalogue().revision() == after.revision() {
            return Ok(());
        }
        let policies = catalogue::policies(&prepared.sources);
        let holding = self
            .parts
            .desk
            .run("catalogue", move || catalogue::held_against(&policies, before.catalogue(), &after, &owned));
        let held = holding.join().await.map_err(|error| Refused::Passing(error.to_string()))?;
        held.map_err(|why| Refused::Content(format!("catalogue: {why}")))
    }

    /// The bundles in force that came from servers, or that a pin keeps.
    fn fetched(&self) -> Opened {
        let configured = self.parts.config.sources();
        let fetched = |source: &&(Source, Origin)| {
            let fetched = configured.iter().any(|one| one.name == source.0.name && one.bundle.is_some());
            fetched || source.1.pinned.is_some()
        };
        self.parts.sources.iter().filter(fetched).map(|one| (one.0.name.clone(), one.clone())).collect()
    }

    /// The activation is on record before the first call is decided by it.
    async fn take(&mut self, document: Document<SidecarConfig>, mut prepared: Prepared) -> Result<(), Refused> {
        let Document { value: config, revision, .. } = document;
        let before = self.parts.sidecar.snapshot();
        // First of all: no key is fetched by the word of an authority that was just taken away.
        self.believe(prepared.roots.clone())?;
        let settings = verifier_settings(&config, prepared.issuers.clone(), &self.parts.agent);
        let verifier = before
            .verifier()
            .renewed(settings, &self.parts.clients, &self.parts.tasks)
            .map_err(|error| Refused::Content(error.to_string()))?;
        warm_up(&verifier).await;
        let revision_of_tools = prepared.tools.catalogue.revision().to_owned();
        let with_sources = (!config.catalogue.is_empty()).then(|| revision_of_tools.clone());
        let policy = prepared.policy.revision().to_owned();
        let mut events = Vec::new();
        if revision != self.parts.revision {
            events.push(Event::ConfigActivated { revision: revision.clone(), catalogue: Some(revision_of_tools) });
        }
        if policy != before.policy().revision() {
            let kept = Some(kept::keep(&prepared.kept, &config.ledger.dir, &self.parts.desk).await);
            let bundles = activated(&prepared.sources);
            events.push(Event::PolicyActivated {
                revision: policy.clone(),
                packages: packages(&config.policy),
                kept,
                bundles,
                catalogue: with_sources,
            });
        }
        events.extend(modes::changes(before.observed(), &prepared.tools.observed, net::clock::now()));
        for event in events {
            let recorded = self.parts.ledger.event(event).await;
            recorded.map_err(|error| Refused::Passing(format!("the ledger cannot record it: {error}")))?;
        }
        prepared.policy = catalogue::expiring(prepared.policy, &prepared.sources, &self.parts.bundles.freshness());
        arrival::say_what_changed(before.policy(), &prepared.policy);
        let sources = std::mem::take(&mut prepared.sources);
        self.parts.tools = std::mem::take(&mut prepared.described);
        self.parts.sidecar.swap(snapshot(&config, &revision, prepared, verifier));
        self.parts.standing.activated(InForce::new(&revision, &config, &sources, net::clock::now()));
        let replaced = std::mem::replace(&mut self.parts.sources, sources);
        self.let_go(before, replaced);
        self.parts.bundles.held_to(&config);
        if config.sources() != self.parts.config.sources() {
            // What was refused may be taken under other keys, or as a way back.
            self.parts.bundles.ask_again();
            self.parts.pinning.pins.try_again();
        }
        tracing::info!(config = revision, policy, "reloaded");
        self.parts.config = config;
        self.parts.revision = revision;
        self.keep_earlier().await;
        Ok(())
    }

    /// New connections believe `roots`, and old ones are not used again.
    fn believe(&mut self, roots: Roots) -> Result<(), Refused> {
        if pem(&roots) == pem(&self.parts.roots) {
            return Ok(());
        }
        let tls = net::client_config(roots.clone()).map_err(|error| Refused::Content(error.to_string()))?;
        for client in [&self.parts.client, &self.parts.clients.operator, &self.parts.clients.learned] {
            client.believe(tls.clone());
        }
        tracing::info!("other certificate authorities are believed");
        self.parts.roots = roots;
        Ok(())
    }
}

/// The certificates that are believed instead of the system's.
fn pem(roots: &Roots) -> Option<&[u8]> {
    match roots {
        Roots::Platform => None,
        Roots::Pem(pem) => Some(pem),
    }
}

fn candidate(path: &Path, environment: &Environment, fetched: &Opened, known: &Known) -> Candidate {
    let mut document = match Document::<SidecarConfig>::read(path, environment) {
        Ok(document) => document,
        Err(error) => return Candidate { watched: None, prepared: Err(error.problems().join("\n  and: ")) },
    };
    let directory = document.directory().to_owned();
    document.value.place(&directory);
    let watched = Some(Watched::of(path, &document.value));
    let mut findings = Findings::default();
    apart::look(path, &document.value, &mut findings);
    let looked = look(document, environment, Some(fetched), known, &mut findings);
    let prepared = match looked {
        Some((document, prepared)) if findings.problems.is_empty() => Ok((document, prepared, findings.warnings)),
        _ => Err(findings.problems.join("\n  and: ")),
    };
    Candidate { watched, prepared }
}

/// Everything in `after` that only a new process could take.
fn needs_no_restart(before: &SidecarConfig, after: &SidecarConfig) -> Result<(), String> {
    let (old, new) = (fixed(before), fixed(after));
    let names: BTreeSet<&String> =
        old.iter().chain(&new).filter(|one| !(old.contains(one) && new.contains(one))).map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    Err(format!("a change of {} needs a restart; nothing of the new configuration was taken", names.join(", ")))
}

/// The settings that are part of open sockets, the open ledger or the process, with their values.
fn fixed(config: &SidecarConfig) -> Vec<(String, String)> {
    let listener = serde_json::to_value(&config.listen.agent).unwrap_or_default();
    let listener = listener.as_object().into_iter().flatten();
    let listener = listener.filter(|(name, _)| !LIVE_LISTENER_SETTINGS.contains(&name.as_str()));
    let others = [
        ("sidecar.name", config.sidecar.name.clone()),
        ("listen.health", format!("{:?}", config.listen.health)),
        ("listen.admin", format!("{:?}", config.listen.admin)),
        ("ledger", format!("{:?}", config.ledger)),
        ("shutdown", format!("{:?}", config.shutdown)),
        ("authority", followed(config)),
        ("alerts", format!("{:?}", config.alerts)),
        ("notices", format!("{:?}", config.notices)),
        ("policy[].bundle", followed_bundles(config, SourceKind::Policy)),
        ("catalogue[].bundle", followed_bundles(config, SourceKind::Catalogue)),
    ];
    listener
        .map(|(name, value)| (format!("listen.agent.{name}"), value.to_string()))
        .chain(others.map(|(name, value)| (name.to_owned(), value)))
        .collect()
}

/// Waits for the keys of new issuers, but not for long.
async fn warm_up(verifier: &Verifier) {
    if tokio::time::timeout(KEYS, verifier.warm_up()).await.is_err() {
        tracing::warn!("an issuer's keys are not there yet; its tokens are refused until they are");
    }
}

/// Which bundles are fetched, and how. How old they may be, how far back they may go and who signs them may change.
fn followed_bundles(config: &SidecarConfig, kind: SourceKind) -> String {
    let of = |source: &PolicySource| {
        let bundle = source.bundle.as_ref()?;
        let BundleConfig { url, credential, poll, long_poll, max_age: _, rollback: _ } = bundle;
        Some(format!("{} {url} {credential:?} {poll} {long_poll:?}", source.name))
    };
    let sources = config.sources();
    format!("{:?}", sources.iter().filter(|source| source.kind == kind).filter_map(of).collect::<Vec<_>>())
}

/// Which authority is followed, and as whom. How closely may change.
fn followed(config: &SidecarConfig) -> String {
    let of = config.authority.as_ref().map(|authority| (&authority.url, &authority.credential, &authority.limits));
    format!("{of:?}")
}

#[cfg(test)]
mod tests;
