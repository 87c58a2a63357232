//! The life of a sidecar: prepared, opened, serving, drained, closed, in this order and no other.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use audit::{Event, Ledger, record::Component};
use net::{ClientOptions, HttpClient, Listener, Roots, ServeLimits, Tasks, UrlTrust};
use opentelemetry::{KeyValue, global};
use policy::PolicySource;
use proxy::{Parts, Sidecar, Snapshot, SnapshotParts};
use token::{KeyClients, Verifier, VerifierSettings, config::Role};

use super::{
    Process, descriptors,
    findings::Findings,
    ledger,
    prepare::{Prepared, prepare},
    stop::StopSignals,
};
use crate::{
    config::{document::Document, files, sidecar::SidecarConfig},
    environment::Environment,
    failure::{Exit, Failure},
    health::{self, Check, Readiness},
    telemetry::Metrics,
};

/// How long tasks that calls do not depend on may take at the end.
const BACKGROUND: Duration = Duration::from_secs(3);

/// Everything that is wrong with the configuration at `path`.
pub(crate) fn check(path: &Path, environment: &Environment) -> Findings {
    let mut findings = Findings::default();
    match Document::<SidecarConfig>::read(path, environment) {
        Ok(document) => drop(look(document, environment, &mut findings)),
        Err(error) => findings.problems = error.problems(),
    }
    findings
}

fn look(
    mut document: Document<SidecarConfig>,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<(Document<SidecarConfig>, Prepared)> {
    findings.take(files::check_not_writable(&document.path));
    let directory = document.directory().to_owned();
    document.value.place(&directory);
    let prepared = prepare(&document.value, environment, findings)?;
    Some((document, prepared))
}

/// Runs a sidecar until it is asked to stop.
pub(crate) async fn run(document: Document<SidecarConfig>, process: Process) -> Result<ExitCode, Failure> {
    let mut signals =
        StopSignals::new().map_err(|error| Failure::because(Exit::Unavailable, "cannot take signals", error))?;
    let drain = document.value.shutdown.drain.0;
    let running = start(document, &process.environment, process.metrics).await?;
    tracing::info!(agent = %running.agent, health = %running.health, "ready for agents");
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    running.stop(drain, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// A sidecar that serves.
pub(crate) struct Running {
    /// Where agents reach it.
    pub(crate) agent: SocketAddr,
    /// Where its health listener is.
    pub(crate) health: SocketAddr,
    ledger: Ledger,
    stopping: Arc<AtomicBool>,
    /// Calls and connections: they end before the ledger is closed.
    calls: Tasks,
    /// The ledger's writer, the keeping of keys, and health: they end after it.
    background: Tasks,
}

/// Opens the ledger and the listeners of a checked configuration and begins to serve.
pub(crate) async fn start(
    document: Document<SidecarConfig>,
    environment: &Environment,
    metrics: Metrics,
) -> Result<Running, Failure> {
    let mut findings = Findings::default();
    let looked = look(document, environment, &mut findings);
    for warning in &findings.warnings {
        tracing::warn!("{warning}");
    }
    findings.into_failure()?;
    // Without a problem there are parts.
    let Some((document, prepared)) = looked else {
        return Err(Failure::new(Exit::Configuration, "the configuration could not be prepared"));
    };
    let Document { value: config, revision, .. } = document;
    let (calls, background) = (Tasks::new(), Tasks::new());
    let connections = descriptors::connections()?;
    let agent = bind(config.listen.agent.tcp).await?;
    let health = bind(config.listen.health.tcp).await?;
    let ledger = ledger::open(config.ledger.clone(), Component::Sidecar, &config.sidecar.name, &background).await?;
    let begun = begin(
        Beginning { config, revision, prepared, agent, health, connections, metrics, calls, background },
        &ledger,
    )
    .await;
    if begun.is_err() {
        // The ledger says that it started; it has to say that it ended.
        ledger.close().await;
    }
    begun
}

/// What there is once everything that can be refused was looked at.
struct Beginning {
    config: SidecarConfig,
    revision: String,
    prepared: Prepared,
    agent: Listener,
    health: Listener,
    /// How many of agents may be open at once.
    connections: usize,
    metrics: Metrics,
    calls: Tasks,
    background: Tasks,
}

async fn begin(beginning: Beginning, ledger: &Ledger) -> Result<Running, Failure> {
    let Beginning { config, revision, prepared, agent, health, connections, metrics, calls, background } = beginning;
    let Prepared { issuers, tools, policy, agents, roots } = prepared;
    let clients = key_clients(&roots)?;
    let settings = VerifierSettings {
        issuers,
        audiences: audiences(&config.sidecar.audience, agent.local_addr()),
        tenants: config.sidecar.tenants.clone(),
        defaults: config.defaults,
        cache_entries: VerifierSettings::CACHE_ENTRIES,
    };
    let needed = config.issuers.iter().filter(|issuer| issuer.role == Role::Delegation);
    let needed = needed.map(|issuer| issuer.issuer.clone()).collect();
    let verifier = Verifier::new(settings, &clients, &background).map_err(Failure::configuration)?;
    let activated = [
        Event::ConfigActivated { revision: revision.clone(), catalogue: Some(tools.catalogue.revision().to_owned()) },
        Event::PolicyActivated { revision: policy.revision().to_owned(), packages: packages(&config.policy) },
    ];
    for event in activated {
        ledger.event(event).await.map_err(|error| Failure::because(Exit::Unavailable, "ledger", error))?;
    }
    gauges(&verifier, policy.revision());
    let limits = ServeLimits {
        max_connections: connections,
        max_header_bytes: config.listen.agent.max_header_bytes,
        max_headers: config.listen.agent.max_headers,
        ..ServeLimits::default()
    };
    let snapshot = Snapshot::new(SnapshotParts {
        tools,
        policy: Arc::new(policy),
        verifier: Arc::new(verifier.clone()),
        agents,
        tenants: config.sidecar.tenants,
        listener: config.listen.agent,
        config_revision: Some(revision),
    });
    let sidecar = Sidecar::new(Parts {
        snapshot,
        ledger: ledger.clone(),
        client: client(&roots, UrlTrust::Operator)?,
        tasks: calls.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let stopping = Arc::new(AtomicBool::new(false));
    let keys = Keys { verifier, needed, synchronised: AtomicBool::new(false) };
    let ready = readiness(Arc::clone(&sidecar), ledger.clone(), keys, Arc::clone(&stopping));
    let (agent_address, health_address) = (agent.local_addr(), health.local_addr());
    health::serve(health, &background, metrics, ready);
    let served = Arc::clone(&sidecar);
    let serving =
        net::serve(agent, limits, calls.clone(), move |peer, request| Arc::clone(&served).handle(peer, request));
    calls.spawn("agent listener", serving);
    Ok(Running { agent: agent_address, health: health_address, ledger: ledger.clone(), stopping, calls, background })
}

impl Running {
    /// Stops accepting, lets calls end until `deadline` or another signal, closes the ledger, and ends the rest.
    pub(crate) async fn stop(self, deadline: Duration, signals: &mut StopSignals) {
        self.stopping.store(true, Ordering::Release);
        let drained = signals.drain(&self.calls, deadline).await;
        self.finish(drained).await;
    }

    /// The same without signals: for a process that runs several of them.
    pub(crate) async fn stop_within(self, deadline: Duration) {
        self.stopping.store(true, Ordering::Release);
        let drained = self.calls.drain(deadline).await;
        self.finish(drained).await;
    }

    async fn finish(self, drained: bool) {
        self.ledger.close().await;
        self.background.drain(BACKGROUND).await;
        tracing::info!(drained, "stopped");
    }
}

pub(super) async fn bind(address: SocketAddr) -> Result<Listener, Failure> {
    net::bind(address).await.map_err(|error| Failure::because(Exit::Unavailable, "listen", error))
}

pub(super) fn client(roots: &Roots, trust: UrlTrust) -> Result<HttpClient, Failure> {
    let tls = net::client_config(roots.clone()).map_err(Failure::configuration)?;
    Ok(HttpClient::new(ClientOptions::new(tls, trust)))
}

pub(super) fn key_clients(roots: &Roots) -> Result<KeyClients, Failure> {
    Ok(KeyClients { operator: client(roots, UrlTrust::Operator)?, learned: client(roots, UrlTrust::Learned)? })
}

/// The logical audience and, on loopback, the listener's own URLs: only this machine can mean them.
fn audiences(logical: &str, agent: SocketAddr) -> BTreeSet<String> {
    let mut audiences = BTreeSet::from([logical.to_owned()]);
    if agent.ip().is_loopback() {
        audiences.insert(format!("http://{agent}"));
        audiences.insert(format!("http://localhost:{}", agent.port()));
    }
    audiences
}

fn packages(sources: &[PolicySource]) -> Vec<String> {
    let package = |source: &PolicySource| match source.name.as_str() {
        "org" => "countersign.org".to_owned(),
        name => format!("countersign.teams.{name}"),
    };
    sources.iter().map(package).collect()
}

fn gauges(verifier: &Verifier, policy_revision: &str) {
    let meter = global::meter("countersign");
    let verifier = verifier.clone();
    let _age = meter
        .f64_observable_gauge("countersign_jwks_age")
        .with_unit("s")
        .with_description("How long ago an issuer's keys were last fetched")
        .with_callback(move |observer| {
            for status in verifier.keys_status(net::clock::now()) {
                if let Some(age) = status.age {
                    observer.observe(age.as_secs_f64(), &[KeyValue::new("issuer", status.issuer)]);
                }
            }
        })
        .build();
    let revision = policy_revision.to_owned();
    let _policy = meter
        .u64_observable_gauge("countersign_policy_info")
        .with_description("Always 1; the label says which policy decides")
        .with_callback(move |observer| observer.observe(1, &[KeyValue::new("revision", revision.clone())]))
        .build();
}

/// Ready: the ledger can be written, and the keys that calls are verified with were there once.
fn readiness(
    sidecar: Arc<Sidecar>,
    ledger: Ledger,
    keys: Keys,
    stopping: Arc<AtomicBool>,
) -> impl Fn() -> Readiness + Send + Sync + 'static {
    move || {
        let snapshot = sidecar.snapshot();
        Readiness::of([
            ("ledger", Check::of(ledger.healthy())),
            ("keys", keys.check()),
            ("policy", Check::of(true).with("revision", snapshot.policy().revision())),
            ("running", Check::of(!stopping.load(Ordering::Acquire))),
        ])
    }
}

/// Keys that grow old after the start refuse calls by their own code, and do not take every sidecar out of service at
/// the same moment. Those of issuers that only name users are no condition: no call is verified with them.
struct Keys {
    verifier: Verifier,
    needed: BTreeSet<String>,
    synchronised: AtomicBool,
}

impl Keys {
    fn check(&self) -> Check {
        let statuses = self.verifier.keys_status(net::clock::now());
        if statuses.iter().all(|status| status.keys > 0 || !self.needed.contains(&status.issuer)) {
            self.synchronised.store(true, Ordering::Release);
        }
        let issuers: Vec<serde_json::Value> = statuses
            .into_iter()
            .map(|status| {
                let age = status.age.map(|age| age.as_secs());
                serde_json::json!({ "issuer": status.issuer, "keys": status.keys, "age_seconds": age })
            })
            .collect();
        Check::of(self.synchronised.load(Ordering::Acquire)).with("issuers", issuers)
    }
}

#[cfg(test)]
mod tests;
