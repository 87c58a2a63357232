//! The control plane: it issues delegated tokens (RFC 8693) to agents that prove who they are, under users' grants
//! and tasks, always narrower than what they rest on.
//!
//! `client` says who asks, `exchange` what they get, `record` writes it down before it is handed out.

mod ages;
mod api;
mod client;
pub mod config;
mod door;
mod enrolment;
mod events;
mod exchange;
mod form;
mod introspect;
mod keys;
mod logout;
mod metadata;
mod mtls;
mod narrow;
mod outages;
mod peek;
mod record;
mod recorder;
mod refused;
mod revoke;
mod watched;
mod withdrawn;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use audit::{Ledger, ship::Shelf};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use model::{Id, Tenant, duration::ConfigDuration};
use net::{Body, BoxError, Peer, Tasks};
use opentelemetry::{KeyValue, metrics::Counter};
use policy::Steering;
use serde_json::json;
use store::Store;
use token::{
    Defaults, Issuer, IssuerConfig, KeyClients, SubjectAudiences, Verifier, VerifierSettings,
    config::{ChainForm, ClaimsConfig, Role, TokenType, Withdrawals},
};

use self::{
    api::{
        Api, shipped,
        tool_keys::{self, ToolKeys},
    },
    config::AuthoritySettings,
    door::Doors,
    exchange::{Moment, Noted},
    keys::KeySets,
    metadata::Endpoint,
    recorder::Recorder,
    refused::{Refused, json_response},
    withdrawn::Withdrawn,
};

pub use config::{AuthorityConfig, ConfigError, EnrolmentConfig, KeysConfig, SidecarGroup, SigningAlgorithm};
pub use keys::{KeysError, SigningKeys};
pub use recorder::NotRecorded;

/// How long keys and metadata may be kept: as long as a verifier may take to notice a new key by itself.
const PUBLIC_MAX_AGE: &str = "public, max-age=60";

/// The control plane's HTTP face.
pub struct Authority {
    settings: AuthoritySettings,
    audiences: SubjectAudiences,
    assertion_audiences: BTreeSet<String>,
    verifier: Verifier,
    store: Store,
    keys: Arc<SigningKeys>,
    ledger: Ledger,
    exchanges: Counter<u64>,
    api: Api,
    recorder: Arc<Recorder>,
    withdrawn: Withdrawn,
    /// Users' tokens that the store has the word of.
    noted: Noted,
    /// Agents' registered keys, ready to verify with.
    key_sets: KeySets,
    tool_keys: ToolKeys,
    /// Copies of sidecars' ledgers.
    shelf: Shelf,
    /// What decides about tokens and about who manages, beside everything else; nothing, where none is configured.
    policy: ArcSwapOption<Steering>,
    /// Of the tokens that workloads of Kubernetes join with.
    clusters: Verifier,
    /// Of security events.
    transmitters: Verifier,
    events: Counter<u64>,
    /// Where anybody may knock.
    doors: Doors,
    tenants: BTreeSet<Id<Tenant>>,
    /// The issuers of users' tokens, by name.
    issuers: BTreeMap<String, Issuer>,
}

/// What an authority is made from.
pub struct Parts {
    /// Its section of the configuration, resolved.
    pub settings: AuthoritySettings,
    /// The issuers of users' tokens.
    pub issuers: Vec<Issuer>,
    /// Agents, grants and tasks.
    pub store: Store,
    /// What it signs with.
    pub keys: SigningKeys,
    /// What decides about tokens and about who manages, where it is configured.
    pub policy: Option<Steering>,
    /// Where issuance and every change are recorded.
    pub ledger: Ledger,
    /// The folder of that.
    pub ledger_dir: PathBuf,
}

/// Why an authority cannot be made from its parts.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Only issuers of users' tokens have a place here: delegated tokens are the authority's own.
    #[error("issuers: {0} has to have role `subject`: delegated tokens are this authority's own")]
    NotSubject(String),
    /// Whose groups make administrators could not be told.
    #[error(
        "authority.management.administrators.issuer: has to be one of the issuers; with several it has to be named"
    )]
    Administrators,
    /// An issuer cannot be used.
    #[error("issuers: {0}")]
    Issuer(#[from] token::ConfigError),
    /// There are no keys to sign with.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// It cannot be told where the ledger stopped.
    #[error("the records of what was changed cannot go on: {0}")]
    NotRecorded(#[from] NotRecorded),
}

impl Authority {
    /// An authority that begins to fetch the keys of its issuers through `clients`. It is made once the ledger is open,
    /// which only one process can have.
    ///
    /// # Errors
    /// When an issuer is not one of users' tokens, or is there twice, or the store does not answer.
    pub async fn new(parts: Parts, clients: &KeyClients, tasks: &Tasks) -> Result<Self, BuildError> {
        let Parts { settings, mut issuers, store, keys, policy, ledger, ledger_dir } = parts;
        if let Some(issuer) = issuers.iter().find(|issuer| issuer.role() != Role::Subject) {
            return Err(BuildError::NotSubject(issuer.name().to_owned()));
        }
        check_administrators(&settings, &issuers)?;
        let tenants: BTreeSet<_> = issuers.iter().flat_map(|issuer| issuer.tenants().iter().cloned()).collect();
        let believed = issuers.iter().map(|issuer| (issuer.name().to_owned(), issuer.clone())).collect();
        let now = net::clock::now();
        keys.join(&store, now).await?;
        let keys = Arc::new(keys);
        keys.keep(store.clone(), ledger.clone(), tasks);
        let published = keys.lately(&store, now).await.map_err(KeysError::Store)?;
        issuers.push(own(&settings, tenants.clone())?.with_keys(Arc::clone(published.set())));
        let longest_life = issuers.iter().map(Issuer::longest_life).max().unwrap_or_default();
        let verifier = VerifierSettings {
            issuers,
            // For calls, which never come here.
            audiences: BTreeSet::new(),
            tenants: tenants.clone(),
            defaults: Defaults::default(),
            cache_entries: 0,
        };
        let issuer = settings.issuer.clone();
        let recorder = Recorder::resume(store.clone(), ledger.clone(), ledger_dir, net::clock::now()).await?;
        let recorder = Arc::new(recorder);
        recorder.follow(tasks);
        store.look_after(longest_life, tasks);
        let shelf = Shelf::new(settings.shipped.clone());
        outages::watch(store.clone(), tasks);
        shipped::retire(shelf.clone(), settings.retention, ledger.clone(), tasks);
        if let Some(management) = &settings.management {
            ages::watch(store.clone(), ledger.clone(), management.credential_max_age, tasks);
        }
        Ok(Self {
            audiences: SubjectAudiences {
                users: settings.subject_audiences.iter().cloned().chain([issuer.clone()]).collect(),
                sidecars: settings.sidecars.iter().cloned().collect(),
                authority: [issuer.clone()].into(),
            },
            assertion_audiences: [issuer, metadata::token_endpoint(&settings)].into(),
            verifier: Verifier::new(verifier, clients, tasks)?,
            exchanges: opentelemetry::global::meter("countersign")
                .u64_counter("countersign_exchange")
                .with_description("Token requests, by outcome and error code.")
                .build(),
            api: Api::new(settings.management.as_ref().map_or(1, |management| management.requests_per_second)),
            withdrawn: Withdrawn::new(longest_life),
            noted: Noted::default(),
            key_sets: KeySets::default(),
            tool_keys: ToolKeys::default(),
            shelf,
            policy: ArcSwapOption::new(policy.map(Arc::new)),
            clusters: enrolment::clusters(&settings.enrolments, clients, tasks)?,
            transmitters: events::transmitters(&settings, clients, tasks)?,
            events: events::counter(),
            doors: Doors::default(),
            recorder,
            tenants,
            issuers: believed,
            settings,
            store,
            keys,
            ledger,
        })
    }

    /// Other policies decide from now on; what is being decided goes on by those that it began with.
    pub fn steer(&self, policy: Steering) {
        self.policy.store(Some(Arc::new(policy)));
    }

    /// What decides now.
    fn policy(&self) -> Option<Arc<Steering>> {
        self.policy.load_full()
    }

    /// Answers one request.
    pub async fn handle<B>(self: Arc<Self>, peer: Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        if let Some(path) = metadata::management(request.uri().path(), &self.settings) {
            let path = path.to_owned();
            return self.manage(&path, &peer, request).await;
        }
        if let Some(tool) = tool_keys::tool(request.uri().path(), &self.settings) {
            return self.tool_keys(&tool, request.method()).await;
        }
        let Some(endpoint) = Endpoint::at(request.uri().path(), &self.settings) else {
            return problem(StatusCode::NOT_FOUND, "There is nothing here.");
        };
        let method = endpoint.method();
        if request.method() != method && !(method == Method::GET && request.method() == Method::HEAD) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed here.");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(endpoint.allow()));
            return response;
        }
        match endpoint {
            Endpoint::Token => self.token(&peer, request).await,
            Endpoint::Revocation => self.revoke(&peer, request).await,
            Endpoint::Introspection => self.introspect(&peer, request).await,
            Endpoint::Logout => self.logout(&peer, request).await,
            Endpoint::Events => self.pushed(&peer, request).await,
            Endpoint::Keys => self.published_keys().await,
            Endpoint::Metadata => public(&metadata::document(&self.settings)),
            Endpoint::Live => json_response(StatusCode::OK, &json!({ "live": true })),
            Endpoint::Ready => self.ready(net::clock::now()).await,
        }
    }

    async fn ready(&self, now: Timestamp) -> Response<Body> {
        let not_ready = |why| problem(StatusCode::SERVICE_UNAVAILABLE, why);
        if !self.ledger.healthy() {
            return not_ready("The ledger cannot be written.");
        }
        if !self.keys.can_sign(now) {
            return not_ready("No key signs yet.");
        }
        let known = match self.withdrawn.head(&self.store, now).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "not ready");
                return not_ready("The database does not answer.");
            }
        };
        // An assertion made now says so in whole seconds.
        match Timestamp::from_second(now.as_second()) {
            Ok(second) if second > known.began => json_response(StatusCode::OK, &json!({ "ready": true })),
            _ => not_ready("Its state began in this very second: what is made in it may have been used before."),
        }
    }

    async fn published_keys(&self) -> Response<Body> {
        match self.keys.lately(&self.store, net::clock::now()).await {
            Ok(keys) => public(keys.jwks()),
            Err(error) => {
                tracing::warn!(%error, "which keys are published cannot be read");
                problem(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer.")
            }
        }
    }

    async fn token<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let outcome = self.issue(peer, request).await;
        let (word, error) = match &outcome {
            Ok(_) => ("issued", ""),
            Err(refused) => ("refused", refused.error.as_str()),
        };
        self.exchanges.add(1, &[KeyValue::new("outcome", word), KeyValue::new("error", error)]);
        outcome.unwrap_or_else(|refused| refused.response())
    }

    async fn issue<B>(&self, peer: &Peer, request: Request<B>) -> Result<Response<Body>, Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (form, client, at) = self.client_request(peer, request).await?;
        // The time anew: to authenticate may take a moment. What is known stays what everything is read after.
        match self.exchange(&form, &client, Moment { now: net::clock::now(), ..at }).await {
            Ok(minted) => record::issued(&self.ledger, &client, minted).await,
            Err(refused) => {
                record::refused(&self.ledger, &client, &refused).await;
                Err(refused)
            }
        }
    }
}

impl Authority {
    /// Now, with the committed head read before anything else is.
    async fn moment(&self) -> Result<Moment, Refused> {
        let now = net::clock::now();
        let unavailable = |error| Refused::unavailable("the store", &error);
        let known = self.withdrawn.head(&self.store, now).await.map_err(unavailable)?;
        self.keys.view(&self.store, (known.began, known.position), now).await.map_err(unavailable)?;
        self.keys.give(|set| self.verifier.replace_keys(&self.settings.issuer, set));
        Ok(Moment { now, known })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

/// The authority as an issuer of delegated tokens, for those that come back to be exchanged.
fn own(settings: &AuthoritySettings, tenants: BTreeSet<Id<Tenant>>) -> Result<Issuer, token::ConfigError> {
    let config = IssuerConfig {
        issuer: settings.issuer.clone(),
        role: Role::Delegation,
        tenants,
        keys: token::config::KeysConfig::Discovery,
        algorithms: client::algorithms(),
        types: [TokenType::AccessToken].into(),
        max_lifetime: ConfigDuration(settings.lifetime),
        // Replicas of the authority may differ a little.
        skew: ConfigDuration(Duration::from_secs(5)),
        chain: ChainForm::Required,
        asserts: None,
        claims: ClaimsConfig::default(),
        entitlements: None,
        assume: None,
        robots: Vec::new(),
        max_agents: settings.max_agents,
        withdrawals: Withdrawals::None,
        logout_clients: BTreeSet::new(),
        refresh: ConfigDuration::seconds(300),
        max_stale: ConfigDuration::seconds(300),
    };
    config.resolve()
}

/// Groups are names that each issuer gives as it likes: whose count has to be known.
fn check_administrators(settings: &AuthoritySettings, issuers: &[Issuer]) -> Result<(), BuildError> {
    let Some(administrators) = settings.management.as_ref().and_then(|it| it.administrators.as_ref()) else {
        return Ok(());
    };
    let known = match &administrators.issuer {
        Some(named) => issuers.iter().any(|issuer| issuer.name() == named),
        None => issuers.len() == 1,
    };
    if known { Ok(()) } else { Err(BuildError::Administrators) }
}

fn public(document: &serde_json::Value) -> Response<Body> {
    let mut response = json_response(StatusCode::OK, document);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PUBLIC_MAX_AGE));
    headers.remove(header::PRAGMA);
    response
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = json_response(status, &body);
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
