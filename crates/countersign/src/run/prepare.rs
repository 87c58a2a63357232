//! From a sidecar's configuration to everything that it needs to run, short of opening anything: what `config check`
//! looks at and what `sidecar` starts with are the same, so that a checked configuration starts.

mod sources;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use audit::LedgerConfig;
use model::{Catalogue, Id, Tool, catalogue::IdentityMode, duration::ConfigDuration};
use net::{Roots, ServerTls, ServerTlsConfig};
use policy::{Known, Source, bundle::Origin, catalogue::CatalogueSource};
use proxy::{Agents, Identities, ResolvedTools, config::AgentListenerConfig, resolve_tools};
use token::{
    Issuer, KeySet, SigningKey,
    config::{KeysConfig, Role, Withdrawals},
};

pub(super) use self::sources::{read, sources, unsaid};
use self::warnings::{names, warnings};
use super::{
    alerts::{self, Webhook},
    catalogue::{self, Tools},
    findings::Findings,
    identities,
    kept::Kept,
    reload::Opened,
    trial,
};
use crate::{
    config::{files, sidecar::SidecarConfig},
    environment::Environment,
};

/// A sidecar's parts.
pub(crate) struct Prepared {
    /// Whom it believes.
    pub(crate) issuers: Vec<Issuer>,
    /// The tools and how to reach them.
    pub(crate) tools: ResolvedTools,
    /// What decides.
    pub(crate) policy: policy::Engine,
    /// The same as it is kept with the ledger.
    pub(super) kept: Kept,
    /// What it is made of, and where that came from; and what says the actions of tools.
    pub(super) sources: Vec<(Source, Origin)>,
    /// The tools with those.
    pub(super) described: Tools,
    /// Who may act.
    pub(crate) agents: Agents,
    /// Whom it believes at the other end of TLS.
    pub(crate) roots: Roots,
    /// What its agents' listener shows and believes, where it speaks TLS.
    pub(crate) listener_tls: Option<Arc<ServerTls>>,
    /// The same of its health listener.
    pub(crate) health_tls: Option<Arc<ServerTls>>,
    /// What it proves to the authority with who it is, where it follows one.
    pub(crate) enrolled: Option<Arc<SigningKey>>,
    /// The agents whose identities it holds.
    pub(crate) identities: Option<Identities>,
    /// Who is told of alerts, beside the ledger.
    pub(super) webhook: Option<Webhook>,
    /// Who is told of calls, where policy obliges to it.
    pub(super) channels: BTreeMap<String, Webhook>,
}

/// How long a slice of a limit may be used, and how long the authority may take to lease one.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=store::remote::limits::MAX_LEASE;
const LEASE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(30);
/// The shortest age that a view of the authority may be held to: a question and its answer take a part of it.
const SHORTEST_BOUND: Duration = Duration::from_millis(500);

/// Prepares everything, noting every problem on the way; `None` where there was one.
///
/// `fetched` are the bundles that come from servers; `None` where nobody asked those, and everything else is looked at.
pub(crate) fn prepare(
    config: &SidecarConfig,
    environment: &Environment,
    fetched: Option<&Opened>,
    known: &Known,
    findings: &mut Findings,
) -> Option<Prepared> {
    identity(config, findings);
    let issuers = issuers(config, findings);
    let described = described(config, fetched, findings);
    let tools = tools(config, &described.tools, environment, findings);
    let about = tools.as_ref().filter(|_| described.whole).map(|tools| (&described.tools, &tools.catalogue));
    let policy = policy(config, about, fetched, known, findings);
    let agents = findings.take(Agents::new(config.agents.clone()));
    let roots = roots(config.tls.authorities.as_deref(), findings);
    let listener_tls = listener(&config.listen.agent, environment, findings);
    let health_tls = server_tls("listen.health.tls", config.listen.health.tls.as_ref(), environment, findings);
    ledger(&config.ledger, findings);
    if config.ledger.ship.is_some() && config.authority.is_none() {
        findings.problem("ledger.ship: there is no `authority` to ship to");
    }
    if let Some((_, catalogue)) = about {
        names(config, catalogue, findings);
    }
    let enrolled = followed(config, findings).map(Arc::new);
    let webhook = alerts::webhook(&config.alerts, environment, findings);
    let channels = alerts::channels(&config.notices, environment, findings);
    let identities = identities::prepare(config, findings);
    identity_modes(config, findings);
    warnings(config, &described, findings);
    if !findings.problems.is_empty() {
        return None;
    }
    let (tools, (policy, mut sources)) = (tools?, policy?);
    let tenants = &config.sidecar.tenants;
    let policies = catalogue::policies(&sources);
    sources.extend(described.sources);
    Some(Prepared {
        issuers,
        kept: Kept::new(policy.revision(), &tools.catalogue, &described.tools, tenants, policies),
        sources,
        described: described.tools,
        tools,
        policy,
        agents: agents?,
        roots: roots?,
        listener_tls,
        health_tls,
        enrolled,
        identities,
        webhook,
        channels,
    })
}

/// Whom to believe at the other end of TLS.
pub(crate) fn roots(authorities: Option<&Path>, findings: &mut Findings) -> Option<Roots> {
    let roots = match authorities {
        None => Roots::Platform,
        Some(path) => {
            findings.take(files::check_not_writable(path));
            let pem = findings.take(
                std::fs::read(path)
                    .map_err(|error| format!("tls.authorities: cannot read {}: {error}", path.display())),
            )?;
            Roots::Pem(pem)
        }
    };
    let usable = net::client_config(roots.clone()).map(|_| roots).map_err(|error| format!("tls.authorities: {error}"));
    findings.take(usable)
}

/// Where agents connect: settings that go together, and certificates that can be used.
fn listener(
    listener: &AgentListenerConfig,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<Arc<ServerTls>> {
    findings.take(listener.address().map_err(|error| format!("listen.agent: {error}")));
    server_tls("listen.agent.tls", listener.tls.as_ref(), environment, findings)
}

/// What a listener speaks TLS with: nobody else may write whom it believes, nor read its key.
pub(super) fn server_tls(
    name: &str,
    tls: Option<&ServerTlsConfig>,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<Arc<ServerTls>> {
    let tls = tls?;
    for path in tls.certificates().filter(|path| path.exists()) {
        findings.take(files::check_not_writable(path));
    }
    let env = |name: &str| environment.value(name).map(str::to_owned);
    let loaded = ServerTls::load(tls.clone(), &env).map_err(|error| format!("{name}: {error}"));
    findings.take(loaded).map(Arc::new)
}

/// A ledger that was begun earlier, and its key, have to be their owner's alone.
pub(crate) fn ledger(config: &LedgerConfig, findings: &mut Findings) {
    private(&config.dir, findings);
    private(&config.key_file(), findings);
}

/// A private file or directory that is there. One that is missing is made, or missed, by whoever needs it.
pub(crate) fn private(path: &Path, findings: &mut Findings) {
    if path.exists() {
        findings.take(files::check_private(path));
    }
}

/// Checks issuers one by one, so that each mistake is found.
pub(crate) fn resolve_issuers(configs: &[token::IssuerConfig], findings: &mut Findings) -> Vec<Issuer> {
    let mut seen = BTreeSet::new();
    for config in configs {
        if !seen.insert(&config.issuer) {
            findings.problem(format!("issuer {}: is configured twice", config.issuer));
        }
    }
    for config in configs {
        if let KeysConfig::File(path) = &config.keys {
            // Whoever can add a key there signs tokens.
            findings.take(files::check_not_writable(path));
            findings.take(key_file(config, path));
        }
    }
    configs.iter().filter_map(|config| findings.take(config.clone().resolve())).collect()
}

/// A file of keys is the operator's own: what is wrong with it at the start is wrong with the configuration.
fn key_file(config: &token::IssuerConfig, path: &Path) -> Result<(), String> {
    let wrong = |problem: String| format!("issuer {}: keys.file: {}: {problem}", config.issuer, path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let keys = KeySet::parse(&bytes, &config.algorithms).map_err(|error| wrong(error.to_string()))?;
    if keys.is_empty() {
        return Err(wrong(format!("has no key that can be used{}", ignored(&keys))));
    }
    Ok(())
}

fn ignored(keys: &KeySet) -> String {
    if keys.ignored().is_empty() { String::new() } else { format!(" ({})", keys.ignored().join("; ")) }
}

fn identity(config: &SidecarConfig, findings: &mut Findings) {
    if config.sidecar.name.trim().is_empty() {
        findings.problem("sidecar.name: may not be empty");
    }
    if config.sidecar.audience.trim().is_empty() {
        findings.problem("sidecar.audience: may not be empty");
    }
    if config.sidecar.tenants.is_empty() {
        findings.problem("sidecar.tenants: must list at least one tenant");
    }
    let (agent, health) = (config.listen.agent.tcp, config.listen.health.tcp);
    if agent == Some(health) && health.port() != 0 {
        findings.problem(format!("listen: agent and health both have {health}"));
    }
    if let Some(authority) = &config.authority {
        let url = net::check_operator_url(&authority.url, net::Plaintext::LoopbackOnly);
        findings.take(url.map_err(|error| format!("authority.url: {error}")));
    }
}

/// The key that the sidecar shows the authority, and whether what is followed goes together.
fn followed(config: &SidecarConfig, findings: &mut Findings) -> Option<SigningKey> {
    let changes = |issuer: &&token::IssuerConfig| issuer.withdrawals == Withdrawals::Changes;
    let Some(authority) = &config.authority else {
        for issuer in config.issuers.iter().filter(changes) {
            findings.problem(format!(
                "issuer {}: `withdrawals: changes` needs `authority`, which says whose changes are followed",
                issuer.issuer
            ));
        }
        return None;
    };
    for (name, bound) in [("read", authority.staleness.read), ("write", authority.staleness.write)] {
        if bound.0 < SHORTEST_BOUND {
            findings.problem(format!("authority.staleness.{name}: may not be shorter than {SHORTEST_BOUND:?}"));
        }
    }
    let limits = &authority.limits;
    for (name, time, bounds) in [("lease", limits.lease, LEASE), ("timeout", limits.timeout, LEASE_TIMEOUT)] {
        if !bounds.contains(&time.0) {
            let (least, most) = (ConfigDuration(*bounds.start()), ConfigDuration(*bounds.end()));
            findings.problem(format!("authority.limits.{name}: has to be from `{least}` to `{most}`"));
        }
    }
    let (read, write) = (authority.staleness.read, authority.staleness.write);
    for issuer in config.issuers.iter().filter(|issuer| issuer.role == Role::Delegation && !changes(issuer)) {
        findings.warning(format!(
            "issuer {}: has `withdrawals: none`, so its tokens may be {read} old for reads and {write} for anything else",
            issuer.issuer
        ));
    }
    let key = &authority.credential.key;
    findings.take(files::check_not_writable(key));
    findings.take(SigningKey::load(key).map_err(|error| format!("authority.credential.key: {error}")))
}

fn issuers(config: &SidecarConfig, findings: &mut Findings) -> Vec<Issuer> {
    if !config.issuers.iter().any(|issuer| issuer.role == Role::Delegation) {
        findings.problem("issuers: none has `role: delegation`, so no token would be good for a call");
    }
    if !config.issuers.iter().any(|issuer| issuer.entitlements.is_some()) {
        findings.warning("issuers: none maps `entitlements`, so every call is refused `entitlement`");
    }
    for issuer in &config.issuers {
        if issuer.tenants.is_disjoint(&config.sidecar.tenants) {
            findings.warning(format!("issuer {}: shares no tenant with the sidecar", issuer.issuer));
        }
    }
    resolve_issuers(&config.issuers, findings)
}

/// The tools with their actions, from wherever those come.
#[derive(Default)]
struct Described {
    tools: Tools,
    /// The sources of the catalogue.
    sources: Vec<(Source, Origin)>,
    /// Whether every source was looked at, and nothing was wrong with any.
    whole: bool,
}

fn described(config: &SidecarConfig, fetched: Option<&Opened>, findings: &mut Findings) -> Described {
    let configured = || Described { tools: config.tools.clone(), ..Described::default() };
    let problems = catalogue::problems(config);
    if !problems.is_empty() {
        problems.into_iter().for_each(|problem| findings.problem(problem));
        return configured();
    }
    let all: Vec<_> = config.catalogue.iter().map(CatalogueSource::source).collect();
    let Some(sources) = sources::opened(&all, fetched, &Known::default(), findings) else { return configured() };
    match findings.take(catalogue::tools(config, &sources)) {
        Some(mut tools) => {
            let whole = sources.len() == all.len();
            let seen = |tool: &Id<Tool>| {
                sources.iter().any(|(source, _)| source.tools.iter().flatten().any(|one| one == tool))
            };
            for tool in catalogue::owned(config).iter().filter(|tool| !seen(tool)) {
                // Which actions it excepts cannot be held against any.
                tools.get_mut(tool).into_iter().for_each(|tool| tool.passthrough = None);
            }
            Described { tools, whole, sources }
        }
        None => configured(),
    }
}

/// Resolves the tools one by one for their own mistakes, then all together for what does not go together.
fn tools(
    config: &SidecarConfig,
    described: &Tools,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<ResolvedTools> {
    let env = |name: &str| environment.value(name).map(str::to_owned);
    let tenants = &config.sidecar.tenants;
    let before = findings.problems.len();
    for (id, tool) in described {
        // Whoever may change these says which server is the tool.
        let shown = tool.tls.iter().flat_map(|tls| [&tls.authorities, &tls.certificate]).flatten();
        for path in shown.filter(|path| path.exists()) {
            findings.take(files::check_not_writable(path));
        }
        let one = [(id.clone(), tool.clone())].into();
        if let Err(error) = resolve_tools(&one, tenants, &env) {
            findings.problem(error.to_string());
        }
    }
    if config.tools.is_empty() {
        findings.problem("tools: there is none, so there is nothing to call");
    }
    if findings.problems.len() > before {
        return None;
    }
    findings.take(resolve_tools(described, tenants, &env))
}

/// What decides, and the policies that it is made of.
fn policy(
    config: &SidecarConfig,
    about: Option<(&Tools, &Catalogue)>,
    fetched: Option<&Opened>,
    known: &Known,
    findings: &mut Findings,
) -> Option<(policy::Engine, Vec<(Source, Origin)>)> {
    if config.policy.is_empty() {
        findings.problem("policy: there is none, so every call would be refused; name at least one team's directory");
        return None;
    }
    let opened = sources::opened(&config.policy, fetched, known, findings)?;
    let sources = catalogue::policies(&opened);
    // Without a catalogue nothing can be said about tools and actions that policies name.
    let (tools, catalogue) = about?;
    // What the trial read is what is loaded here: the text went there from here.
    let report = findings.take(trial::run(tools, &config.sidecar.tenants, &sources))?;
    for action in report.slow {
        findings.warning(format!(
            "policy: a sample call of `{action}` spends the whole time budget, and would be refused `policy_budget`"
        ));
    }
    let engine = findings.take(policy::Engine::load_knowing(known, &sources, catalogue))?;
    // What the policies do not do is the same with any data, and was said of those that are known.
    if !engine.differs_in_data_alone(known) {
        unsaid(&sources, Some(catalogue), findings);
    }
    Some((engine, opened))
}

/// A tool that is told who acts believes it by the key that the sidecar enrolled.
fn identity_modes(config: &SidecarConfig, findings: &mut Findings) {
    if config.authority.is_some() {
        return;
    }
    for (id, _) in config.tools.iter().filter(|(_, tool)| tool.identity == IdentityMode::Hybrid) {
        findings.problem(format!(
            "tools.{id}.identity: hybrid needs `authority`, with the `credential` that `countersign sidecar enrol` \
             makes: its key signs what the tool is told of each call"
        ));
    }
}

#[cfg(test)]
mod tests;
