//! The life of a sidecar: prepared, opened, serving, drained, closed, in this order and no other.

mod gauges;
mod given;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use audit::{Event, Ledger, record::Component};
use net::{ClientOptions, Desk, Endpoint, HttpClient, LocalAddress, Roots, ServeLimits, Tasks, UnixListener, UrlTrust};
use policy::{Known, PolicySource};
use proxy::{Observations, Parts, Sidecar, Snapshot, SnapshotParts};
use token::{Issuer, KeyClients, SigningKey, TransactionSigner, Verifier, VerifierSettings, config::Role};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    gauges::gauges,
    given::{bundles, with_bundles},
};
use super::{
    Process,
    alerts::{self, Outboxes},
    catalogue, descriptors,
    findings::Findings,
    follow, kept, ledger, limits, listen, modes,
    prepare::{Prepared, prepare},
    reload::{self, Bundles, Contents, Given, InForce, Opened, Pinning, Reloader, Standing, Watched},
    state::{About, Seen},
    stop::StopSignals,
    uplink,
};
use crate::{
    admin::{self, trace::Traces},
    config::{document::Document, files, sidecar::SidecarConfig},
    environment::Environment,
    failure::{Exit, Failure},
    health,
    telemetry::Metrics,
};

/// How long tasks that calls do not depend on may take at the end.
const BACKGROUND: Duration = Duration::from_secs(3);

/// Everything that is wrong with the configuration at `path`.
pub(crate) fn check(path: &Path, environment: &Environment) -> Findings {
    let mut findings = Findings::default();
    match Document::<SidecarConfig>::read(path, environment) {
        Ok(document) => {
            // Whoever checks a file may have it in another place than the sidecar will, and be another user.
            if let Err(open) = files::check_config_private(path) {
                findings.warning(format!("the sidecar would not start: {open}"));
            }
            drop(look(document, environment, None, &Known::default(), &mut findings));
        }
        Err(error) => findings.problems = error.problems(),
    }
    findings
}

/// Prepares everything that `document` names, as start, `config check` and reload do.
pub(super) fn look(
    mut document: Document<SidecarConfig>,
    environment: &Environment,
    fetched: Option<&Opened>,
    known: &Known,
    findings: &mut Findings,
) -> Option<(Document<SidecarConfig>, Prepared)> {
    findings.take(files::check_not_writable(&document.path));
    let directory = document.directory().to_owned();
    document.value.place(&directory);
    let prepared = prepare(&document.value, environment, fetched, known, findings)?;
    Some((document, prepared))
}

/// Runs a sidecar until it is asked to stop.
pub(crate) async fn run(document: Document<SidecarConfig>, process: Process) -> Result<ExitCode, Failure> {
    let no_signals = |error| Failure::because(Exit::Unavailable, "cannot take signals", error);
    let mut signals = StopSignals::new().map_err(no_signals)?;
    // Left alone, this signal would end the process too.
    let hangups = signal(SignalKind::hangup()).map_err(no_signals)?;
    let drain = document.value.shutdown.drain.0;
    let mut running = start(document, &process.environment, process.metrics).await?;
    running.keep_current(hangups);
    tracing::info!(agent = %running.agent, health = %running.health, "ready for agents");
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    running.stop(drain, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// A sidecar that serves.
pub(crate) struct Running {
    /// Where agents reach it.
    pub(crate) agent: LocalAddress,
    /// Where its health listener is.
    pub(crate) health: SocketAddr,
    ledger: Ledger,
    stopping: Arc<AtomicBool>,
    /// Takes changes, where it is asked to.
    pub(super) reloader: Option<Reloader>,
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
    // It is large, and waited for once.
    Box::pin(started(document, environment, metrics)).await
}

async fn started(
    document: Document<SidecarConfig>,
    environment: &Environment,
    metrics: Metrics,
) -> Result<Running, Failure> {
    let path = document.path.clone();
    // Before the files are read, so that a change from now on is one.
    let contents = contents(&document);
    let (bundles, pinning, given) = bundles(&document, environment).await?;
    let (findings, looked, given) = with_bundles(&document, environment, &bundles, given);
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
    let agent = listen::agents(&config.listen.agent, prepared.listener_tls.clone(), &background).await?;
    let (address, tls) = (config.listen.health.tcp, prepared.health_tls.clone());
    let health = listen::tcp("health_listener", address, tls, &background).await?;
    let admin = admin(&config)?;
    let opened = ledger::attempt(config.ledger.clone(), Component::Sidecar, &config.sidecar.name, &background).await;
    if let Err(error) = &opened {
        uplink::not_opened(&config, &prepared, error).await;
    }
    let ledger = opened.map_err(ledger::failure)?;
    let origin = Origin { path, environment: environment.clone(), contents };
    let beginning = Beginning {
        origin,
        config,
        revision,
        prepared,
        bundles,
        pinning,
        given,
        agent,
        health,
        admin,
        connections,
        metrics,
        calls,
        background,
    };
    let begun = Box::pin(begin(beginning, &ledger)).await;
    if begun.is_err() {
        // The ledger says that it started; it has to say that it ended.
        ledger.close().await;
    }
    begun
}

/// What the files of the configuration say; its own text is as `document` was read.
fn contents(document: &Document<SidecarConfig>) -> Contents {
    let mut config = document.value.clone();
    config.place(document.directory());
    Contents { config: document.revision.clone(), ..Watched::of(&document.path, &config).contents() }
}

/// Where a configuration came from.
struct Origin {
    path: PathBuf,
    environment: Environment,
    contents: Contents,
}

/// What there is once everything that can be refused was looked at.
struct Beginning {
    origin: Origin,
    config: SidecarConfig,
    revision: String,
    prepared: Prepared,
    bundles: Arc<Bundles>,
    pinning: Arc<Pinning>,
    /// What the bundles among `prepared` came as.
    given: Given,
    agent: Endpoint,
    health: (Endpoint, SocketAddr),
    admin: Option<UnixListener>,
    /// How many of agents may be open at once.
    connections: usize,
    metrics: Metrics,
    calls: Tasks,
    background: Tasks,
}

/// Who is told of alerts: the webhook, and the authority that the sidecar follows.
fn outboxes(
    config: &SidecarConfig,
    prepared: &mut Prepared,
    client: &HttpClient,
    tasks: &Tasks,
) -> Result<Outboxes, Failure> {
    let authority = match (&config.authority, &prepared.enrolled) {
        (Some(authority), Some(key)) => {
            let base = authority.url.trim_end_matches('/');
            let authorise = follow::assertions(base.to_owned(), authority, Arc::clone(key));
            Some(alerts::authority(base, authorise, client, tasks)?)
        }
        _ => None,
    };
    let channels = std::mem::take(&mut prepared.channels);
    Ok(Outboxes {
        webhook: prepared.webhook.take().map(|webhook| webhook.outbox(client, tasks)),
        authority,
        channels: channels.into_iter().map(|(name, webhook)| (name, webhook.outbox(client, tasks))).collect(),
    })
}

/// Puts on record what decides from now on, and what of it is kept; at the desk where changes of it are kept later.
async fn activated(
    config: &SidecarConfig,
    revision: &str,
    prepared: &Prepared,
    ledger: &Ledger,
    desk: Desk,
) -> Result<Desk, Failure> {
    let (catalogue, policy) = (prepared.tools.catalogue.revision().to_owned(), prepared.policy.revision().to_owned());
    let with_sources = (!config.catalogue.is_empty()).then(|| catalogue.clone());
    let kept = Some(kept::keep(&prepared.kept, &config.ledger.dir, &desk).await);
    let activated = [
        Event::ConfigActivated { revision: revision.to_owned(), catalogue: Some(catalogue) },
        Event::PolicyActivated {
            revision: policy,
            packages: packages(&config.policy),
            kept,
            bundles: reload::activated(&prepared.sources),
            catalogue: with_sources,
        },
    ];
    let modes = modes::changes(&Observations::default(), &prepared.tools.observed, net::clock::now());
    for event in activated.into_iter().chain(modes) {
        ledger.event(event).await.map_err(|error| Failure::because(Exit::Unavailable, "ledger", error))?;
    }
    Ok(desk)
}

async fn begin(beginning: Beginning, ledger: &Ledger) -> Result<Running, Failure> {
    let Beginning { origin, config, revision, mut prepared, bundles, pinning, agent, calls, background, .. } =
        beginning;
    let (clients, client) = (key_clients(&prepared.roots)?, client(&prepared.roots, UrlTrust::Operator)?);
    let settings = verifier_settings(&config, prepared.issuers.clone(), &agent.local());
    let verifier = Verifier::new(settings, &clients, &background).map_err(Failure::configuration)?;
    let desk = activated(&config, &revision, &prepared, ledger, background.desk("changes")).await?;
    // No serial counts before it is on record.
    bundles.keep_first(&beginning.given, net::clock::now());
    let roots = prepared.roots.clone();
    prepared.policy = catalogue::expiring(prepared.policy, &prepared.sources, &bundles.freshness());
    let (sources, tools) = (std::mem::take(&mut prepared.sources), std::mem::take(&mut prepared.described));
    alerts::tell(ledger, outboxes(&config, &mut prepared, &client, &background)?);
    let told = uplink::begin(&config, prepared.enrolled.as_ref(), &client, ledger, &background)?;
    let withdrawals = follow::begin(&config, prepared.enrolled.clone(), (&client, &pinning.pins), &background)?;
    let leased = limits::begin(&config, prepared.enrolled.clone(), &client, &background)?;
    let sidecar = Sidecar::new(Parts {
        snapshot: snapshot(&config, &revision, prepared, verifier),
        ledger: ledger.clone(),
        client: client.clone(),
        tasks: calls.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        withdrawals,
        limits: leased,
        channels: config.notices.keys().cloned().collect(),
    });
    gauges(&sidecar);
    sidecar.watch_credentials(&background);
    let in_force = InForce::new(&revision, &config, &sources, net::clock::now());
    let standing = Standing::new(in_force, Arc::clone(&bundles), Arc::clone(&pinning.pins));
    catalogue::gauge(&sidecar, &standing);
    let stopping = Arc::new(AtomicBool::new(false));
    let ((health, health_address), agent_address) = (beginning.health, agent.local());
    let seen = Seen::new(&sidecar, ledger, &standing, &stopping);
    if let Some(admin) = beginning.admin {
        let about = About::new(&origin.path, &config, &agent_address, health_address, admin.path(), told);
        let (seen, traces) = (seen.clone(), Traces::new(Arc::clone(sidecar.live()), background.clone()));
        admin::serve(admin, &background, traces, move || about.status(&seen));
    }
    health::serve(health, &background, beginning.metrics, move || seen.readiness());
    take_calls(agent, &config, beginning.connections, &sidecar, &calls);
    let reloader = Reloader::new(reload::Parts {
        path: origin.path,
        environment: origin.environment,
        contents: origin.contents,
        config,
        revision,
        sidecar,
        clients,
        client,
        roots,
        ledger: ledger.clone(),
        tasks: background.clone(),
        desk,
        agent: agent_address.clone(),
        standing,
        sources,
        tools,
        bundles,
        pinning,
    });
    Ok(Running {
        agent: agent_address,
        health: health_address,
        ledger: ledger.clone(),
        stopping,
        reloader: Some(reloader),
        calls,
        background,
    })
}

/// Serves agents from here on, `connections` of them at a time at most.
fn take_calls(agent: Endpoint, config: &SidecarConfig, connections: usize, sidecar: &Arc<Sidecar>, calls: &Tasks) {
    let limits = config.listen.agent.serve_limits();
    let max_connections = connections.min(limits.max_connections);
    let limits = ServeLimits { max_connections, census: sidecar.census().clone(), ..limits };
    let served = Arc::clone(sidecar);
    let serving =
        net::serve(agent, limits, calls.clone(), move |peer, request| Arc::clone(&served).handle(peer, request));
    calls.spawn("agent listener", serving);
}

/// What calls see of a configuration.
pub(super) fn snapshot(config: &SidecarConfig, revision: &str, prepared: Prepared, verifier: Verifier) -> Snapshot {
    let Prepared { tools, policy, agents, enrolled, identities, .. } = prepared;
    Snapshot::new(SnapshotParts {
        tools,
        policy: Arc::new(policy),
        verifier: Arc::new(verifier),
        agents,
        tenants: config.sidecar.tenants.clone(),
        listener: config.listen.agent.clone(),
        config_revision: Some(revision.to_owned()),
        following: follow::following(config),
        signer: signer(config, enrolled),
        identities: identities.map(Arc::new),
    })
}

/// What tools with `identity: hybrid` are told is signed with the key that the sidecar enrolled.
fn signer(config: &SidecarConfig, key: Option<Arc<SigningKey>>) -> Option<Arc<TransactionSigner>> {
    let authority = config.authority.as_ref()?;
    let base = authority.url.trim_end_matches('/');
    let signer = TransactionSigner::new(key?, base, authority.credential.id.as_str());
    Some(Arc::new(signer.kept_in(authority.credential.key.clone())))
}

/// What tokens are verified by. `agent` is where agents reach the sidecar.
pub(super) fn verifier_settings(
    config: &SidecarConfig,
    issuers: Vec<Issuer>,
    agent: &LocalAddress,
) -> VerifierSettings {
    VerifierSettings {
        issuers,
        audiences: audiences(&config.sidecar.audience, config.listen.agent.tls.is_some(), agent),
        tenants: config.sidecar.tenants.clone(),
        defaults: config.defaults,
        cache_entries: VerifierSettings::CACHE_ENTRIES,
    }
}

/// The issuers without whose keys no call can be verified.
pub(super) fn needed(config: &SidecarConfig) -> BTreeSet<String> {
    let delegating = config.issuers.iter().filter(|issuer| issuer.role == Role::Delegation);
    delegating.map(|issuer| issuer.issuer.clone()).collect()
}

impl Running {
    /// Takes changes of the configuration and its policies from now on, and whenever `hangups` asks.
    fn keep_current(&mut self, hangups: Signal) {
        if let Some(reloader) = self.reloader.take() {
            self.background.spawn("reload", reloader.keep_current(hangups));
        }
    }

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
        ledger::close(&self.ledger).await;
        self.background.drain(BACKGROUND).await;
        tracing::info!(drained, "stopped");
    }
}

/// The operator's socket. One that nobody asked for, and that cannot be made, keeps nothing from running.
fn admin(config: &SidecarConfig) -> Result<Option<UnixListener>, Failure> {
    match admin::bind(&config.admin_socket()) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.listen.admin.is_some() => Err(Failure::because(Exit::Unavailable, "listen", error)),
        Err(error) => {
            tracing::warn!(%error, "there is no admin socket; `listen.admin.unix` says where it could be");
            Ok(None)
        }
    }
}

pub(super) fn client(roots: &Roots, trust: UrlTrust) -> Result<HttpClient, Failure> {
    let tls = net::client_config(roots.clone()).map_err(Failure::configuration)?;
    Ok(HttpClient::new(ClientOptions::new(tls, trust)))
}

pub(super) fn key_clients(roots: &Roots) -> Result<KeyClients, Failure> {
    Ok(KeyClients { operator: client(roots, UrlTrust::Operator)?, learned: client(roots, UrlTrust::Learned)? })
}

/// The logical audience and, on loopback, the listener's own URLs: only this machine can mean them.
fn audiences(logical: &str, secure: bool, agent: &LocalAddress) -> BTreeSet<String> {
    let mut audiences = BTreeSet::from([logical.to_owned()]);
    let scheme = if secure { "https" } else { "http" };
    if let LocalAddress::Tcp(agent) = agent
        && agent.ip().is_loopback()
    {
        audiences.insert(format!("{scheme}://{agent}"));
        audiences.insert(format!("{scheme}://localhost:{}", agent.port()));
    }
    audiences
}

pub(super) fn packages(sources: &[PolicySource]) -> Vec<String> {
    sources.iter().map(package).collect()
}

/// The package that a source is confined to.
pub(super) fn package(source: &PolicySource) -> String {
    match source.name.as_str() {
        "org" => "countersign.org".to_owned(),
        name => format!("countersign.teams.{name}"),
    }
}

#[cfg(test)]
mod tests;
