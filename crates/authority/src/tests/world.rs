//! A whole authority for the tests: real keys, a real ledger, real files; only the sockets are left out.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use audit::{Entry, Ledger, LedgerSettings, query, record};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use net::{ClientOptions, HttpClient, Peer, Roots, Tasks, UrlTrust, client_config};
use serde_json::{Value, json};
use store::{Declarations, Store, Writer};
use token::{
    Algorithm, Defaults, IssuerConfig, KeyClients, Presented, Proof, Rejection, SigningKey, Verified, Verifier,
    VerifierSettings, mint,
};

use crate::{Authority, AuthorityConfig, KeysConfig, Parts, SidecarGroup, SigningKeys};

pub(super) const ISSUER: &str = "https://countersign.example";
pub(super) const SSO: &str = "https://sso.example";
pub(super) const SIDECAR: &str = "urn:example:countersign:support";
pub(super) const MANAGEMENT: &str = "urn:example:countersign:management";
const AGENTS: &[&str] = &["support", "researcher", "writer", "sleeper"];
/// How long the state of a test has been there, in seconds: longer than anything in it.
const UP: i64 = 60;

pub(super) struct World {
    pub(super) authority: Arc<Authority>,
    pub(super) agents: BTreeMap<&'static str, SigningKey>,
    pub(super) sso: SigningKey,
    pub(super) ledger: Ledger,
    pub(super) folder: tempfile::TempDir,
    config: AuthorityConfig,
    tasks: Tasks,
    clients: KeyClients,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Value,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| (), |_| ()).await
    }

    /// A world whose store or configuration is other than usual.
    pub(super) async fn with(change_store: impl FnOnce(&mut Value), change: impl FnOnce(&mut AuthorityConfig)) -> Self {
        let began = net::clock::now() - SignedDuration::from_secs(UP);
        Self::begun(began, change_store, change).await
    }

    /// A world whose state began at `began`.
    pub(super) async fn begun(
        began: Timestamp,
        change_store: impl FnOnce(&mut Value),
        change: impl FnOnce(&mut AuthorityConfig),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let clients = clients();
        let generate = |algorithm| SigningKey::generate(algorithm).unwrap();
        let sso = generate(Algorithm::Es256);
        let algorithms = [Algorithm::Es256, Algorithm::EdDsa].into_iter().cycle();
        let agents: BTreeMap<_, _> =
            AGENTS.iter().zip(algorithms).map(|(id, algorithm)| (*id, generate(algorithm))).collect();
        let mut store = stored(&agents);
        change_store(&mut store);
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("store.yaml"), store.to_string()).unwrap();
        std::fs::write(path("sso.json"), mint::key_set([&sso]).to_string()).unwrap();

        let mut config = AuthorityConfig {
            issuer: ISSUER.to_owned(),
            keys: KeysConfig::at(path("keys")),
            token_lifetime: model::duration::ConfigDuration::seconds(300),
            max_agents: 4,
            sidecars: vec![SidecarGroup { audience: SIDECAR.to_owned() }],
            subject_audiences: vec!["https://api.example".to_owned()],
            management: Some(
                serde_json::from_value(json!({
                    "audience": MANAGEMENT, "clients": ["countersign-cli"],
                    "administrators": { "groups": ["platform"] },
                }))
                .unwrap(),
            ),
            policy: Vec::new(),
            alerts: crate::config::AlertsConfig::default(),
            enrolment: crate::config::EnrolmentConfig::default(),
            events: Vec::new(),
            shipped: crate::config::ShippedConfig::default(),
            store: Some(path("store.yaml")),
            database: None,
        };
        change(&mut config);
        let started = record::Started {
            component: record::Component::Authority,
            name: "test".to_owned(),
            version: "0".to_owned(),
        };
        std::fs::create_dir(path("ledger")).unwrap();
        let ledger = Ledger::open(LedgerSettings::new(path("ledger").join("log"), started), &tasks).await.unwrap();
        let parts = parts(&config, &ledger, folder.path(), began).await;
        let authority = Arc::new(Authority::new(parts, &clients, &tasks).await.unwrap());
        std::fs::write(path("own.json"), authority.keys.jwks().to_string()).unwrap();
        Self { authority, agents, sso, ledger, folder, config, tasks, clients }
    }

    /// The same world with an authority that started anew.
    pub(super) async fn restarted(mut self) -> Self {
        let parts = parts(&self.config, &self.ledger, self.folder.path(), net::clock::now()).await;
        self.authority = Arc::new(Authority::new(parts, &self.clients, &self.tasks).await.unwrap());
        self
    }

    /// The same with an identity provider that is configured otherwise.
    pub(super) async fn believing(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut parts = parts(&self.config, &self.ledger, self.folder.path(), net::clock::now()).await;
        let mut issuer = serde_json::to_value(subject_issuer(&self.folder.path().join("sso.json"))).unwrap();
        change(&mut issuer);
        parts.issuers = vec![serde_json::from_value::<IssuerConfig>(issuer).unwrap().resolve().unwrap()];
        self.authority = Arc::new(Authority::new(parts, &self.clients, &self.tasks).await.unwrap());
        self
    }

    /// The same with another life of its state, that began at `began`.
    pub(super) async fn restored(mut self, began: Timestamp) -> Self {
        self.config.database = Some(crate::config::DatabaseConfig::Sqlite(self.folder.path().join("restored.db")));
        let parts = parts(&self.config, &self.ledger, self.folder.path(), began).await;
        self.authority = Arc::new(Authority::new(parts, &self.clients, &self.tasks).await.unwrap());
        self
    }

    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.send_from(Peer::tcp(([127, 0, 0, 1], 1).into()), request).await
    }

    /// A request over the connection of `peer`.
    pub(super) async fn send_from(&self, peer: Peer, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = Arc::clone(&self.authority).handle(peer, request).await.into_parts();
        let body = net::body::collect(body, 1 << 20).await.unwrap();
        Answer { status: head.status, headers: head.headers, body: serde_json::from_slice(&body).unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Full::default()).unwrap()).await
    }

    /// A token request with exactly these parameters.
    pub(super) async fn post(&self, parameters: &[(&str, &str)]) -> Answer {
        self.post_to("/oauth2/token", parameters).await
    }

    /// A form for another endpoint.
    pub(super) async fn post_to(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        self.send(form(path, parameters)).await
    }

    /// A token request by `agent`, authenticated, with these parameters besides what every exchange has. A
    /// parameter given here takes the place of the usual one.
    pub(super) async fn exchange(&self, agent: &str, parameters: &[(&str, &str)]) -> Answer {
        let assertion = self.assertion(agent, json!({}));
        let usual = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        let given = |name: &str| parameters.iter().any(|(known, _)| *known == name);
        let usual = usual.into_iter().filter(|(name, _)| !given(name));
        self.post(&usual.chain(parameters.iter().copied()).collect::<Vec<_>>()).await
    }

    /// The first hop for alice's ticket.
    pub(super) async fn first(&self, parameters: &[(&str, &str)]) -> Answer {
        let subject = self.user_token(json!({}));
        let usual = [("subject_token", subject.as_str()), ("task_id", "ticket")];
        self.exchange("support", &[&usual, parameters].concat()).await
    }

    /// The token of the first hop.
    pub(super) async fn first_token(&self) -> String {
        self.first(&[]).await.token()
    }

    /// What `parent`, holding `token`, gets to hand on to `actor`.
    pub(super) async fn hand_over(&self, parent: &str, token: &str, actor: &str) -> Answer {
        self.exchange(parent, &[("subject_token", token), ("requested_actor", actor)]).await
    }

    /// alice's own token, `change`d.
    pub(super) fn user_token(&self, change: Value) -> String {
        let claims = json!({
            "iss": SSO, "sub": "alice", "aud": "https://api.example", "client_id": "portal", "jti": unique(),
            "sid": "session-1", "groups": ["support"], "acr": "urn:mfa", "auth_time": 1_700_000_000,
        });
        self.sso.sign("at+jwt", &changed(claims, change)).unwrap().expose().to_owned()
    }

    /// A management token of alice's, `change`d.
    pub(super) fn management_token(&self, change: &Value) -> String {
        let mut claims = json!({ "aud": MANAGEMENT, "client_id": "countersign-cli", "auth_time": now() });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.user_token(claims)
    }

    /// The same of somebody who administers.
    pub(super) fn admin_token(&self) -> String {
        self.management_token(&json!({ "sub": "root", "groups": ["platform"] }))
    }

    /// A request of the management API.
    pub(super) async fn manage(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        self.manage_with(method, path, token, body, &[]).await
    }

    /// The same with further fields.
    pub(super) async fn manage_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Value,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/v1/{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// A client assertion of `agent`, `change`d.
    pub(super) fn assertion(&self, agent: &str, change: Value) -> String {
        let claims = json!({ "iss": agent, "sub": agent, "aud": ISSUER, "jti": unique() });
        self.agents[agent].sign("JWT", &changed(claims, change)).unwrap().expose().to_owned()
    }

    /// What a sidecar makes of `compact`.
    pub(super) async fn verify(&self, compact: &str) -> Result<Verified, Box<Rejection>> {
        let mut own: IssuerConfig = subject_issuer(&self.folder.path().join("own.json"));
        own.issuer = ISSUER.to_owned();
        own.role = token::config::Role::Delegation;
        own.entitlements = None;
        let settings = VerifierSettings {
            issuers: vec![
                own.resolve().unwrap(),
                subject_issuer(&self.folder.path().join("sso.json")).resolve().unwrap(),
            ],
            audiences: [SIDECAR.to_owned()].into(),
            tenants: [model::Id::new("acme").unwrap()].into(),
            defaults: Defaults::default(),
            cache_entries: 10,
        };
        let verifier = Verifier::new(settings, &self.clients, &self.tasks).unwrap();
        verifier.verify(Presented { compact, bearer_allowed: true, proof: Proof::None }, net::clock::now()).await
    }

    /// The records of issued tokens.
    pub(super) fn issued(&self) -> Vec<Entry> {
        self.records("token.issued")
    }

    /// The records of one kind.
    pub(super) fn records(&self, kind: &str) -> Vec<Entry> {
        let filter = query::Filter { kind: Some(kind.to_owned()), ..query::Filter::default() };
        query::query(&self.folder.path().join("ledger/log"), filter).unwrap().map(Result::unwrap).collect()
    }
}

impl Answer {
    /// The code of a problem, having checked that it is one.
    pub(super) fn problem(&self) -> (u16, &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.body["status"], self.status.as_u16());
        assert!(self.body["detail"].is_string() && self.body["title"].is_string() && self.body["type"].is_string());
        (self.status.as_u16(), self.body["code"].as_str().unwrap())
    }

    /// The body of what was done.
    pub(super) fn done(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }

    /// The token that was issued.
    pub(super) fn token(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body["access_token"].as_str().unwrap().to_owned()
    }

    /// The refusal's code and description.
    pub(super) fn error(&self) -> (&str, &str) {
        assert!(self.body.get("access_token").is_none() && self.status != StatusCode::OK, "{}", self.body);
        assert_eq!(self.headers["cache-control"], "no-store");
        (self.body["error"].as_str().unwrap(), self.body["error_description"].as_str().unwrap())
    }
}

/// A form for `path`.
pub(super) fn form(path: &str, parameters: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let body: Vec<_> = parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    request.body(Full::new(body.join("&").into())).unwrap()
}

/// The payload of a compact token.
pub(super) fn payload(compact: &str) -> Value {
    let part = compact.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub(super) fn now() -> i64 {
    net::clock::now().as_second()
}

fn unique() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// `claims` with times, and with the members of `change` over them; `null` takes a member away.
fn changed(mut claims: Value, change: Value) -> Value {
    claims["iat"] = now().into();
    claims["exp"] = (now() + 240).into();
    let Value::Object(change) = change else { panic!("{change}") };
    for (name, value) in change {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

async fn parts(config: &AuthorityConfig, ledger: &Ledger, folder: &Path, began: Timestamp) -> Parts {
    Parts {
        settings: config.resolve().unwrap(),
        issuers: vec![subject_issuer(&folder.join("sso.json")).resolve().unwrap()],
        store: store(config, began).await,
        keys: SigningKeys::open(&config.keys, config.token_lifetime.0).unwrap(),
        policy: steering(config),
        ledger: ledger.clone(),
        ledger_dir: folder.join("ledger/log"),
    }
}

/// The policy that `config` names.
fn steering(config: &AuthorityConfig) -> Option<policy::Steering> {
    let sources: Vec<_> = config.policy.iter().map(|source| source.read(Path::new("/")).unwrap()).collect();
    (!sources.is_empty()).then(|| policy::Steering::load(&sources).unwrap())
}

/// The state of `config`, its declarations applied.
pub(super) async fn store(config: &AuthorityConfig, now: Timestamp) -> Store {
    let store = Store::open(&config.database(&|_| None).unwrap(), now, &Tasks::new()).await.unwrap();
    let declared = Declarations::read(config.store.as_ref().unwrap(), ISSUER).await.unwrap();
    let writer = Writer { by: "test".to_owned(), reason: None, now, idempotency: None };
    store.declare(&writer, &declared).await.unwrap();
    store
}

fn subject_issuer(keys: &Path) -> IssuerConfig {
    serde_json::from_value(json!({
        "issuer": SSO, "role": "subject", "tenants": ["acme"], "keys": { "file": keys },
        "entitlements": { "from": "groups", "map": {
            "support": ["orders.read", "refunds.create"], "readers": ["orders.read"]
        } },
    }))
    .unwrap()
}

/// Later by so many seconds, as the store's file has it.
pub(super) fn later(seconds: i64) -> String {
    let at: Timestamp = net::clock::now() + SignedDuration::from_secs(seconds);
    at.to_string()
}

fn stored(agents: &BTreeMap<&'static str, SigningKey>) -> Value {
    let registered = |(id, key): (&&str, &SigningKey)| {
        json!({
            "id": id, "owner": "dana@acme.example", "tenants": ["acme"],
            "actions": ["orders.read", "refunds.create"],
            "status": if *id == "sleeper" { "suspended" } else { "active" },
            "credentials": [{ "jwks": mint::key_set([key]) }],
        })
    };
    let grant = |id: &str, user: &str, agent: &str| {
        json!({
            "id": id, "user": { "issuer": SSO, "id": user }, "agent": { "id": agent }, "stage": "supervised",
            "expires": later(3600), "redelegate": 1,
            "authorization_details": [{
                "type": "urn:countersign:action", "actions": ["orders.read", "refunds.create"],
                "locations": ["orders"], "limits": { "amount": { "max": "50.00", "currency": "USD" } },
                "where": { "order.placed_by": "$user" },
            }],
        })
    };
    let task = |id: &str, grant: &str| {
        json!({
            "id": id, "grant": grant, "run": "run-1", "tenant": "acme", "session": "session-1",
            "use_case": "customer_support", "initiated_by": "alice", "sensitivity": "medium", "stage": "supervised",
            "expires": later(1800),
        })
    };
    json!({
        "agents": agents.iter().map(registered).collect::<Vec<_>>(),
        "grants": [grant("grant", "alice", "support"), grant("bobs", "bob", "support"), grant("writers", "alice", "writer")],
        "tasks": [task("ticket", "grant"), task("bobs-ticket", "bobs"), task("writers-ticket", "writers")],
    })
}

pub(super) fn clients() -> KeyClients {
    let certificate = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    let client = |trust| {
        let tls = client_config(Roots::Pem(certificate.clone().into_bytes())).unwrap();
        HttpClient::new(ClientOptions::new(tls, trust))
    };
    KeyClients { operator: client(UrlTrust::Operator), learned: client(UrlTrust::Learned) }
}
