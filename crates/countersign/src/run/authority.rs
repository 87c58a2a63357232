//! The life of an authority: prepared, opened, serving, drained, closed.

mod steer;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use audit::{Event, Ledger, record::Component};
use authority::{
    Authority, Parts, SigningKeys,
    config::{AuthorityConfig as AuthoritySection, CertificatesTaken},
};
use net::{Body, Roots, ServeLimits, ServerTls, Tasks, UrlTrust};
use policy::{PolicySource, Steering};
use store::{Declarations, Store, Writer};
use token::{Issuer, config::Role};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Process,
    alerts::{self, Outboxes, Webhook},
    apart, descriptors,
    findings::Findings,
    ledger, listen, prepare,
    sidecar::{client, key_clients, packages},
    stop::StopSignals,
    trial,
};
use crate::{
    config::{authority::AuthorityConfig, document::Document, files},
    environment::Environment,
    failure::{Exit, Failure},
    health::{self, Check, Readiness, hosts::Hosts},
    telemetry::Metrics,
};

/// How long tasks that requests do not depend on may take at the end.
const BACKGROUND: Duration = Duration::from_secs(3);

/// An authority's parts, short of what opening makes.
struct Prepared {
    settings: authority::config::AuthoritySettings,
    issuers: Vec<Issuer>,
    /// What decides about tokens and who manages, where it is configured.
    policy: Option<Steering>,
    /// What was on disk of that before it was read.
    found: steer::Found,
    webhook: Option<Webhook>,
    roots: Roots,
    /// What its listener shows and believes, where it speaks TLS.
    tls: Option<Arc<ServerTls>>,
    /// The same of its health listener.
    health_tls: Option<Arc<ServerTls>>,
}

/// Everything that is wrong with the configuration at `path`.
pub(crate) fn check(path: &Path, environment: &Environment) -> Findings {
    let mut findings = Findings::default();
    let document = match Document::<AuthorityConfig>::read(path, environment) {
        Ok(document) => document,
        Err(error) => {
            findings.problems = error.problems();
            return findings;
        }
    };
    if let Some((document, _)) = look(document, environment, &mut findings) {
        let section = &document.value.authority;
        match tokio::runtime::Builder::new_current_thread().build() {
            Ok(runtime) => drop(findings.take(runtime.block_on(declarations(section)))),
            Err(error) => findings.problem(error.to_string()),
        }
    }
    findings
}

fn look(
    mut document: Document<AuthorityConfig>,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<(Document<AuthorityConfig>, Prepared)> {
    findings.take(files::check_not_writable(&document.path));
    let directory = document.directory().to_owned();
    document.value.place(&directory);
    let config = &document.value;
    let asked = config
        .listen
        .tls
        .as_ref()
        .map(|tls| CertificatesTaken { signed: tls.names_clients(), self_signed: tls.self_signed });
    let settings = findings.take(config.authority.resolve());
    let settings = settings.map(|settings| settings.with_client_certificates(asked.unwrap_or_default()));
    for issuer in config.issuers.iter().filter(|issuer| issuer.role != Role::Subject) {
        findings.problem(format!(
            "issuer {}: has to have role `subject`: delegated tokens are this authority's own",
            issuer.issuer
        ));
    }
    if config.issuers.is_empty() {
        findings.problem("issuers: there is none, so nobody's token could be exchanged");
    }
    let issuers = prepare::resolve_issuers(&config.issuers, findings);
    let roots = prepare::roots(config.tls.authorities.as_deref(), findings);
    if let Some(store) = config.authority.store.as_ref().filter(|path| path.exists()) {
        findings.take(files::check_not_writable(store));
    }
    if let Some(database) = config.authority.database_file() {
        prepare::private(&database, findings);
    }
    prepare::private(&config.authority.keys.dir, findings);
    let found = steer::find(&config.authority.policy);
    let policy = steering(&config.authority.policy, findings);
    let webhook = alerts::webhook(&config.alerts, environment, findings);
    prepare::ledger(&config.ledger, findings);
    if config.ledger.ship.is_some() {
        findings.problem("ledger.ship: is for sidecars; nobody takes what an authority would ship");
    }
    let tls = prepare::server_tls("listen.tls", config.listen.tls.as_ref(), environment, findings);
    let health = config.listen.health.as_ref().and_then(|health| health.tls.as_ref());
    let health_tls = prepare::server_tls("listen.health.tls", health, environment, findings);
    if !findings.problems.is_empty() {
        return None;
    }
    let prepared = Prepared { settings: settings?, issuers, policy, found, webhook, roots: roots?, tls, health_tls };
    Some((document, prepared))
}

/// The configuration and the parts that it names, or everything that is wrong with it beside `findings`.
fn prepared(
    document: Document<AuthorityConfig>,
    environment: &Environment,
    mut findings: Findings,
) -> Result<(Document<AuthorityConfig>, Prepared), Failure> {
    let looked = look(document, environment, &mut findings);
    for warning in &findings.warnings {
        tracing::warn!("{warning}");
    }
    findings.into_failure()?;
    // Without a problem there are parts.
    looked.ok_or_else(|| Failure::new(Exit::Configuration, "the configuration could not be prepared"))
}

/// What is asked before a token is issued, tried in a process of its own first.
fn steering(configured: &[PolicySource], findings: &mut Findings) -> Option<Steering> {
    let sources = prepare::sources(configured, findings)?;
    if sources.is_empty() {
        return None;
    }
    findings.take(trial::run_for_authority(&sources))?;
    let steering = findings.take(Steering::load(&sources))?;
    prepare::unsaid(&sources, None, findings);
    Some(steering)
}

/// That `policy`, of the sources that are `configured`, decides.
fn activated(policy: &Steering, configured: &[PolicySource]) -> Event {
    Event::PolicyActivated {
        revision: policy.revision().to_owned(),
        packages: packages(configured),
        kept: None,
        bundles: Vec::new(),
        catalogue: None,
    }
}

/// What the file of declarations says, if there is one.
async fn declarations(section: &AuthoritySection) -> Result<Declarations, store::OpenError> {
    match &section.store {
        Some(path) => Declarations::read(path, &section.issuer).await,
        None => Ok(Declarations::default()),
    }
}

/// The state, with what is declared applied to it.
async fn store(section: &AuthoritySection, environment: &Environment, background: &Tasks) -> Result<Store, Failure> {
    let declared = declarations(section).await.map_err(Failure::configuration)?;
    let now = net::clock::now();
    let store = opened(section, environment, background).await?;
    let writer = Writer { by: "declarations".to_owned(), reason: None, now, idempotency: None };
    let applied = store.declare(&writer, &declared).await.map_err(Failure::configuration)?;
    tracing::info!(position = applied.position, declared = applied.value, "state opened");
    Ok(store)
}

async fn opened(section: &AuthoritySection, environment: &Environment, tasks: &Tasks) -> Result<Store, Failure> {
    let env = |name: &str| environment.value(name).map(str::to_owned);
    let database = section.database(&env).map_err(Failure::configuration)?;
    Store::open(&database, net::clock::now(), tasks).await.map_err(|error| match error {
        // Whoever starts it again later may find the database there.
        store::OpenError::Unreachable { .. } => Failure::because(Exit::Unavailable, "authority.database", error),
        error => Failure::configuration(error),
    })
}

/// Begins a new generation of the state, which was restored from a backup.
pub(crate) async fn restored(
    document: Document<AuthorityConfig>,
    process: Process,
    by: &str,
    reason: &str,
) -> Result<store::Head, Failure> {
    let (Document { value: config, .. }, _) = prepared(document, &process.environment, Findings::default())?;
    let store = opened(&config.authority, &process.environment, &process.tasks).await?;
    let (by, reason) = (by.to_owned(), Some(reason.to_owned()));
    let writer = Writer { by, reason, now: net::clock::now(), idempotency: None };
    let unavailable = |error| Failure::because(Exit::Unavailable, "the state", error);
    let began = store.begin_generation(&writer).await.map_err(unavailable)?.value;
    process.tasks.drain(BACKGROUND).await;
    store.close().await;
    Ok(began)
}

/// The signing keys of an authority, beside it: it may be running.
pub(crate) struct Keys {
    /// Where they lie.
    pub(crate) signing: SigningKeys,
    /// Which of them signs when.
    pub(crate) store: Store,
    tasks: Tasks,
}

impl Keys {
    /// Opens what the configuration names.
    pub(crate) async fn open(document: Document<AuthorityConfig>, process: Process) -> Result<Self, Failure> {
        let (Document { value: config, .. }, _) = prepared(document, &process.environment, Findings::default())?;
        let section = &config.authority;
        let store = opened(section, &process.environment, &process.tasks).await?;
        let signing = SigningKeys::open(&section.keys, section.token_lifetime.0).map_err(Failure::configuration)?;
        Ok(Self { signing, store, tasks: process.tasks })
    }

    /// Closes it again.
    pub(crate) async fn close(self) {
        self.tasks.drain(BACKGROUND).await;
        self.store.close().await;
    }
}

/// Runs an authority until it is asked to stop.
pub(crate) async fn run(document: Document<AuthorityConfig>, process: Process) -> Result<ExitCode, Failure> {
    let mut signals =
        StopSignals::new().map_err(|error| Failure::because(Exit::Unavailable, "cannot take signals", error))?;
    let hangups = signal(SignalKind::hangup())
        .map_err(|error| Failure::because(Exit::Unavailable, "cannot take signals", error))?;
    let drain = document.value.shutdown.drain.0;
    let mut running = Box::pin(start(document, &process.environment, process.metrics)).await?;
    running.keep_current(hangups);
    tracing::info!(address = %running.address, "ready");
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    let drained = signals.drain(&running.requests, drain).await;
    running.finish(drained).await;
    Ok(ExitCode::SUCCESS)
}

/// An authority that serves.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    ledger: Ledger,
    requests: Tasks,
    background: Tasks,
    /// What takes changes of policy, where there is any.
    reloader: Option<steer::Reloader>,
}

impl Running {
    /// Takes changes of the policies from now on, and whenever `hangups` asks.
    fn keep_current(&mut self, hangups: Signal) {
        if let Some(reloader) = self.reloader.take() {
            self.background.spawn("reload", reloader.keep_current(hangups));
        }
    }

    /// Stops accepting, lets requests end, closes the ledger and ends the rest.
    pub(crate) async fn stop_within(self, deadline: Duration) {
        let drained = self.requests.drain(deadline).await;
        self.finish(drained).await;
    }

    async fn finish(self, drained: bool) {
        ledger::close(&self.ledger).await;
        self.background.drain(BACKGROUND).await;
        tracing::info!(drained, "stopped");
    }
}

/// A listener on loopback may stand behind a server that has the issuer's name.
fn hosts(address: SocketAddr, issuer: &str) -> Hosts {
    let named: Option<http::Uri> = issuer.parse().ok();
    let hosts = Hosts::of(address);
    match named.as_ref().and_then(http::Uri::host) {
        Some(name) => hosts.and(name),
        None => hosts,
    }
}

fn misdirected() -> http::Response<Body> {
    let mut answer = http::Response::new(Body::full("not the host that is served here\n"));
    *answer.status_mut() = http::StatusCode::MISDIRECTED_REQUEST;
    answer
}

/// Opens everything that a configuration names and begins to serve.
pub(crate) async fn start(
    document: Document<AuthorityConfig>,
    environment: &Environment,
    metrics: Metrics,
) -> Result<Running, Failure> {
    let mut findings = Findings::default();
    apart::configuration(&document.path, &mut findings);
    let (Document { value: config, revision, .. }, prepared) = prepared(document, environment, findings)?;
    let (requests, background) = (Tasks::new(), Tasks::new());
    let section = &config.authority;
    let store = store(section, environment, &background).await?;
    let keys = SigningKeys::open(&section.keys, section.token_lifetime.0).map_err(Failure::configuration)?;
    let limits = ServeLimits { max_connections: descriptors::connections()?, ..ServeLimits::default() };
    let (listener, address) = listen::tcp("authority_listener", config.listen.tcp, prepared.tls, &background).await?;
    let health = match &config.listen.health {
        Some(health) => Some(listen::tcp("health_listener", health.tcp, prepared.health_tls, &background).await?.0),
        None => None,
    };
    let ledger = ledger::open(config.ledger.clone(), Component::Authority, &section.issuer, &background).await?;
    let Prepared { settings, issuers, policy, found, webhook, roots, .. } = prepared;
    let standing = policy.as_ref().map(|policy| steer::Standing::new(policy.revision()));
    let ledger_dir = config.ledger.dir.clone();
    let parts = Parts { settings, issuers, store, keys, policy, ledger: ledger.clone(), ledger_dir };
    let begun = async {
        let policy = parts.policy.as_ref().map(|policy| activated(policy, &section.policy));
        for event in [Event::ConfigActivated { revision, catalogue: None }].into_iter().chain(policy) {
            ledger.event(event).await.map_err(|error| Failure::because(Exit::Unavailable, "ledger", error))?;
        }
        let webhook = match webhook {
            Some(webhook) => Some(webhook.outbox(&client(&roots, UrlTrust::Operator)?, &background)),
            None => None,
        };
        alerts::tell(&ledger, Outboxes { webhook, ..Outboxes::default() });
        Authority::new(parts, &key_clients(&roots)?, &background).await.map_err(Failure::configuration)
    };
    let authority = match begun.await {
        Ok(authority) => Arc::new(authority),
        Err(failure) => {
            // The ledger says that it started; it has to say that it ended.
            ledger.close().await;
            return Err(failure);
        }
    };
    authority.ask_transmitters(&key_clients(&roots)?.operator, &background);
    if let Some(health) = health {
        let (seen, policy) = (ledger.clone(), standing.clone());
        health::serve(health, &background, metrics, move || {
            let policy = policy.as_ref().map(|standing| ("policy", standing.check()));
            Readiness::of([("ledger", Check::of(seen.healthy()))].into_iter().chain(policy))
        });
    }
    let reloader = standing.map(|standing| steer::Reloader {
        authority: Arc::clone(&authority),
        configured: section.policy.clone(),
        ledger: ledger.clone(),
        standing,
        tried: Some(found),
        tasks: background.clone(),
        desk: background.desk("changes"),
    });
    let hosts = hosts(address, &section.issuer);
    let serving = net::serve(listener, limits, requests.clone(), move |peer, request| {
        let served = hosts.serve(&request).then(|| Arc::clone(&authority).handle(peer, request));
        async move {
            match served {
                Some(answer) => answer.await,
                None => misdirected(),
            }
        }
    });
    requests.spawn("authority listener", serving);
    Ok(Running { address, ledger, requests, background, reloader })
}
