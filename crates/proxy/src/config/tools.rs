//! What the tools' configuration means: the catalogue, and what the sidecar needs to reach each tool.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Uri, uri::PathAndQuery};
use model::{
    Action, CanonicalPath, Catalogue, Id, ParameterKind, Tenant, Tool,
    amount::InvalidAmount,
    catalogue::{CurrencySource, FactDeclaration, InvalidCatalogue, Leaf, ParameterDeclaration, Source},
    path::InvalidPath,
    template::Template,
};
use net::{ClientTls, ClientTlsError, Plaintext, UrlError, check_operator_url};

use super::{
    ActionConfig, Additional, FactConfig, Http2Config, ParameterConfig, PassthroughError, PlaintextConfig, ToolConfig,
};
use crate::{
    credential::{Bare, CredentialError, Credentials},
    headers,
    observe::Observations,
};

/// The tools, ready for use.
#[derive(Debug)]
pub struct ResolvedTools {
    /// What they can do.
    pub catalogue: Catalogue,
    /// How each is reached.
    pub upstreams: BTreeMap<Id<Tool>, Upstream>,
    /// Which actions are only observed, and which tools' calls are passed through.
    pub observed: Observations,
}

/// How a tool is reached.
#[derive(Debug)]
pub struct Upstream {
    /// Its base URL; the path has no trailing slash.
    pub base: Base,
    /// How long it may take until the head of its response.
    pub timeout: std::time::Duration,
    /// How long it may pause in the middle of a response that is no stream of events.
    pub pause: std::time::Duration,
    /// What the sidecar presents to it.
    pub credentials: Credentials,
    /// The way to it for calls that are passed through, which shows it nothing of the sidecar's.
    pub(crate) bare: Bare,
}

/// A tool's base URL, in parts.
#[derive(Debug, Clone)]
pub struct Base {
    uri: Uri,
    path: String,
}

/// Why the tools' configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// The address is no path.
    #[error("tools.{tool}.at: {cause}")]
    Address {
        /// The tool.
        tool: Id<Tool>,
        /// Why.
        cause: InvalidPath,
    },
    /// The base URL is none.
    #[error("tools.{tool}.upstream: {cause}")]
    Upstream {
        /// The tool.
        tool: Id<Tool>,
        /// Why.
        cause: UrlError,
    },
    /// The base URL has a query.
    #[error("tools.{tool}.upstream: a base URL has no query")]
    Query {
        /// The tool.
        tool: Id<Tool>,
    },
    /// Nobody answers for what is only observed.
    #[error("tools.{tool}: `observe.owner` has to name who answers for it")]
    Unowned {
        /// The tool.
        tool: Id<Tool>,
    },
    /// Calls cannot be passed through as it says.
    #[error("tools.{tool}.passthrough: {cause}")]
    Passthrough {
        /// The tool.
        tool: Id<Tool>,
        /// Why.
        cause: PassthroughError,
    },
    /// The credential cannot be used.
    #[error("tools.{tool}.{key}: {cause}")]
    Credential {
        /// The tool.
        tool: Id<Tool>,
        /// Where.
        key: String,
        /// Why.
        cause: CredentialError,
    },
    /// The TLS settings cannot be used.
    #[error("tools.{tool}.tls: {cause}")]
    Tls {
        /// The tool.
        tool: Id<Tool>,
        /// Why.
        cause: ClientTlsError,
    },
    /// TLS settings for a tool that is reached in clear text.
    #[error("tools.{tool}.tls: the upstream is not https")]
    NotTls {
        /// The tool.
        tool: Id<Tool>,
    },
    /// Prior knowledge of what the handshake says.
    #[error("tools.{tool}.http2: `prior_knowledge` is for an upstream over plain http; over TLS the handshake says it")]
    Negotiated {
        /// The tool.
        tool: Id<Tool>,
    },
    /// No credential, and no word that none is needed.
    #[error("tools.{tool}: no `credential` for tenant `{tenant}`; write `credential: none` if the tool asks for none")]
    NoCredential {
        /// The tool.
        tool: Id<Tool>,
        /// The tenant.
        tenant: Id<Tenant>,
    },
    /// A tenant that the sidecar does not serve.
    #[error("tools.{tool}: the sidecar does not serve the tenant `{tenant}`")]
    ForeignTenant {
        /// The tool.
        tool: Id<Tool>,
        /// The tenant.
        tenant: Id<Tenant>,
    },
    /// A fact or action that does not hold together.
    #[error("tools.{tool}.{part}: {cause}")]
    Part {
        /// The tool.
        tool: Id<Tool>,
        /// `facts.<name>` or `actions.<name>`.
        part: String,
        /// Why.
        cause: PartError,
    },
    /// The parts do not go together.
    #[error("tools: {0}")]
    Catalogue(#[from] InvalidCatalogue),
    /// The digest of the configuration could not be made.
    #[error("tools: {0}")]
    Digest(#[from] serde_json::Error),
}

/// Why one fact or action cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// A template or source.
    #[error(transparent)]
    Catalogue(#[from] InvalidCatalogue),
    /// `match` is not `METHOD /path`.
    #[error("match: `{0}` is not `METHOD /path` with GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS")]
    Match(String),
    /// A template that must begin with a slash does not.
    #[error("`{0}` must begin with `/`")]
    Relative(String),
    /// A pointer is none.
    #[error("`{0}` is not a JSON pointer (RFC 6901): it begins with `/`")]
    Pointer(String),
    /// A fixed currency does not exist.
    #[error(transparent)]
    Currency(#[from] InvalidAmount),
    /// A header that never reaches a tool, or holds a credential.
    #[error("the header `{0}` cannot be read: it holds a credential, or is the sidecar's own")]
    Header(String),
    /// A set outside the body.
    #[error("parameters.{0}: a set is read from the body, where its members are told apart")]
    Set(String),
    /// Members that do not go with the type.
    #[error(
        "parameters.{0}: `scale` goes with decimal only, `minor` with money only; a decimal needs `scale` (0 to 12)"
    )]
    Shape(String),
    /// Two parameters with one source.
    #[error("parameters.{0}: its value is also another parameter's, or lies within it")]
    Overlap(String),
    /// A parameter in the body of a method that has none.
    #[error("parameters.{0}: a GET or HEAD has no body to read it from")]
    NoBody(String),
}

/// Checks the tools and reads their secrets once, so that a missing one is an error at start.
/// `tenants` are the sidecar's; `env` looks up environment variables.
///
/// # Errors
/// Names the tool and the key.
pub fn resolve(
    tools: &BTreeMap<Id<Tool>, ToolConfig>,
    tenants: &BTreeSet<Id<Tenant>>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<ResolvedTools, ToolsError> {
    let mut upstreams = BTreeMap::new();
    for (id, config) in tools {
        upstreams.insert(id.clone(), upstream(id, config, tenants, env)?);
    }
    let (catalogue, observed) = describe(tools, tenants)?;
    Ok(ResolvedTools { catalogue, upstreams, observed })
}

/// What the tools can do and which actions are only observed, without reaching for a secret. `tenants` are the
/// sidecar's.
///
/// # Errors
/// Names the tool and the key.
pub fn describe(
    tools: &BTreeMap<Id<Tool>, ToolConfig>,
    tenants: &BTreeSet<Id<Tenant>>,
) -> Result<(Catalogue, Observations), ToolsError> {
    let revision = URL_SAFE_NO_PAD.encode(digest(&SHA256, &serde_json::to_vec(tools)?));
    let resolved = tools.iter().map(|(id, config)| tool(id, config)).collect::<Result<Vec<_>, _>>()?;
    let mut observed = Observations::of(tools);
    let now = net::clock::now();
    for (id, config) in tools {
        let Some(passthrough) = &config.passthrough else { continue };
        let served = config.tenants.as_ref().unwrap_or(tenants).iter();
        let resolved = passthrough.resolve(config, served, now);
        observed.pass(id, resolved.map_err(|cause| ToolsError::Passthrough { tool: id.clone(), cause })?);
    }
    if let Some((_, unowned)) = observed.iter().find(|(_, observation)| observation.owner.trim().is_empty()) {
        return Err(ToolsError::Unowned { tool: unowned.tool.clone() });
    }
    Ok((Catalogue::new(resolved, revision)?, observed))
}

impl Base {
    /// The URL of `path` (which begins with a slash) below the base, with a raw query.
    pub fn url(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let path = match query {
            Some(query) => format!("{}{path}?{query}", self.path),
            None => format!("{}{path}", self.path),
        };
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(path)?);
        Ok(Uri::from_parts(parts)?)
    }

    /// The host that the tool is reached under, with its port where the URL has one.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or("")
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("https")
    }

    /// The path of the base, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The port, given or the scheme's own.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.uri.scheme_str() == Some("http") { 80 } else { 443 })
    }
}

fn upstream(
    id: &Id<Tool>,
    config: &ToolConfig,
    tenants: &BTreeSet<Id<Tenant>>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Upstream, ToolsError> {
    let plaintext = match config.plaintext {
        PlaintextConfig::Loopback => Plaintext::LoopbackOnly,
        PlaintextConfig::Anywhere => Plaintext::Anywhere,
    };
    let uri = check_operator_url(&config.upstream, plaintext)
        .map_err(|cause| ToolsError::Upstream { tool: id.clone(), cause })?;
    if uri.query().is_some() {
        return Err(ToolsError::Query { tool: id.clone() });
    }
    let served = config.tenants.as_ref().unwrap_or(tenants);
    for tenant in served.iter().chain(config.credentials.keys()) {
        if !tenants.contains(tenant) {
            return Err(ToolsError::ForeignTenant { tool: id.clone(), tenant: tenant.clone() });
        }
        if config.credential.is_none() && !config.credentials.contains_key(tenant) {
            return Err(ToolsError::NoCredential { tool: id.clone(), tenant: tenant.clone() });
        }
    }
    let credentials = Credentials::load(config.credential.as_ref(), &config.credentials, env)
        .map_err(|(key, cause)| ToolsError::Credential { tool: id.clone(), key, cause })?;
    if config.tls.is_some() && uri.scheme_str() != Some("https") {
        return Err(ToolsError::NotTls { tool: id.clone() });
    }
    if config.http2 == Http2Config::PriorKnowledge && uri.scheme_str() == Some("https") {
        return Err(ToolsError::Negotiated { tool: id.clone() });
    }
    let unusable = |cause| ToolsError::Tls { tool: id.clone(), cause };
    let tls = config.tls.clone().map(|tls| ClientTls::load(tls, env)).transpose().map_err(unusable)?;
    let bare = Bare::load(config.tls.as_ref(), config.http2).map_err(unusable)?;
    let path = uri.path().trim_end_matches('/').to_owned();
    Ok(Upstream {
        base: Base { uri, path },
        timeout: config.timeout.0,
        pause: config.pause.0,
        credentials: credentials.over(tls, config.http2),
        bare,
    })
}

fn tool(id: &Id<Tool>, config: &ToolConfig) -> Result<Tool, ToolsError> {
    let part = |part: String, cause| ToolsError::Part { tool: id.clone(), part, cause };
    let at = CanonicalPath::parse(config.at.strip_suffix('/').filter(|at| !at.is_empty()).unwrap_or(&config.at))
        .map_err(|cause| ToolsError::Address { tool: id.clone(), cause })?;
    let mut facts = BTreeMap::new();
    for (name, config) in &config.facts {
        facts.insert(name.clone(), fact(config).map_err(|cause| part(format!("facts.{name}"), cause))?);
    }
    let mut actions = Vec::new();
    for (name, config) in &config.actions {
        actions.push(action(name, config).map_err(|cause| part(format!("actions.{name}"), cause))?);
    }
    Ok(Tool {
        id: id.clone(),
        at,
        upstream: config.upstream.trim_end_matches('/').to_owned(),
        tenants: config.tenants.clone(),
        identity: config.identity,
        facts,
        actions,
    })
}

fn fact(config: &FactConfig) -> Result<FactDeclaration, PartError> {
    let pointer = |text: &String| match text.as_str() {
        text if text.is_empty() || text.starts_with('/') => Ok(text.to_owned()),
        text => Err(PartError::Pointer(text.to_owned())),
    };
    let mut pick = BTreeMap::new();
    for (name, leaf) in &config.pick {
        pick.insert(name.clone(), Leaf { at: pointer(&leaf.at)?, principal: leaf.principal.clone() });
    }
    Ok(FactDeclaration {
        template: path_template(&config.get)?,
        ttl: config.ttl.0,
        timeout: config.timeout.0,
        tenant: config.tenant.as_ref().map(pointer).transpose()?,
        pick,
    })
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn action(name: &Id<Action>, config: &ActionConfig) -> Result<Action, PartError> {
    let (method, path) = config
        .r#match
        .split_once(' ')
        .filter(|(method, _)| METHODS.contains(method))
        .ok_or_else(|| PartError::Match(config.r#match.clone()))?;
    let mut parameters = BTreeMap::new();
    for (name, config) in &config.parameters {
        parameters.insert(name.clone(), parameter(name, config)?);
    }
    let idempotency = config.idempotency.as_deref().map(readable).transpose()?;
    let action = Action {
        id: name.clone(),
        method: method.to_owned(),
        template: path_template(path)?,
        effect: config.effect,
        resource: Template::parse(&config.resource)?,
        facts: config.facts.clone(),
        parameters,
        additional: config.additional == Additional::Allow,
        idempotency,
    };
    check_sources(&action)?;
    Ok(action)
}

fn parameter(name: &str, config: &ParameterConfig) -> Result<ParameterDeclaration, PartError> {
    let value = readable(&config.value)?;
    if config.r#type == ParameterKind::Set && !matches!(value, Source::Body(_)) {
        return Err(PartError::Set(name.to_owned()));
    }
    let scale_fits = match config.r#type {
        ParameterKind::Decimal => config.scale.is_some_and(|scale| scale <= 12),
        _ => config.scale.is_none(),
    };
    if !scale_fits || (config.minor && config.r#type != ParameterKind::Money) {
        return Err(PartError::Shape(name.to_owned()));
    }
    let currency: Option<CurrencySource> = config.currency.as_deref().map(str::parse).transpose()?;
    if let Some(CurrencySource::From(Source::Header(header))) = &currency {
        check_header(header)?;
    }
    Ok(ParameterDeclaration {
        kind: config.r#type,
        value,
        currency,
        minor: config.minor,
        scale: config.scale.unwrap_or(0),
        optional: config.optional,
    })
}

/// One value is read once: a pointer that lies within another's, or names the same place, would be read twice.
fn check_sources(action: &Action) -> Result<(), PartError> {
    let mut seen: Vec<&Source> = Vec::new();
    for (name, parameter) in &action.parameters {
        let within = |other: &&&Source| match (&parameter.value, other) {
            (Source::Body(a), Source::Body(b)) => {
                a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"))
            }
            (a, b) => a == **b,
        };
        if seen.iter().any(|other| within(&other)) {
            return Err(PartError::Overlap(name.clone()));
        }
        seen.push(&parameter.value);
        if matches!(parameter.value, Source::Body(_)) && matches!(action.method.as_str(), "GET" | "HEAD") {
            return Err(PartError::NoBody(name.clone()));
        }
    }
    Ok(())
}

fn path_template(text: &str) -> Result<Template, PartError> {
    if text.starts_with('/') { Ok(Template::parse(text)?) } else { Err(PartError::Relative(text.to_owned())) }
}

fn readable(text: &str) -> Result<Source, PartError> {
    let source: Source = text.parse()?;
    if let Source::Header(name) = &source {
        check_header(name)?;
    }
    Ok(source)
}

fn check_header(name: &str) -> Result<(), PartError> {
    let known = http::HeaderName::try_from(name).map_err(|_| PartError::Header(name.to_owned()))?;
    if headers::is_kept_from_tool(&known) { Err(PartError::Header(name.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
