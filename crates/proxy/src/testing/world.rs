//! A sidecar with real parts: ledger on disk, policy, keys, and a tool on loopback that remembers what it received.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use audit::{
    Entry, Ledger, LedgerSettings,
    query::{Filter, query},
    record::{Component, Started},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming as HyperBody;
use model::Id;
use net::{Body, ClientOptions, HttpClient, Listener, Peer, Roots, ServeLimits, Tasks, UrlTrust};
use serde_json::{Value, json};
use token::{
    Algorithm, Issuer, IssuerConfig, KeyClients, KeySet, SigningKey, TransactionSigner, Verifier, VerifierSettings,
    mint,
};

use super::{ACTIONS, ISSUER, PROVIDER, agent, tenants};
use crate::{
    Agents, Following, Identities, Parts, ResolvedTools, Sidecar, Snapshot, SnapshotParts, config::AgentListenerConfig,
    resolve_tools,
};

/// What the tool received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct World {
    pub(crate) sidecar: Arc<Sidecar>,
    pub(crate) ledger: Ledger,
    pub(crate) tool: Arc<Mutex<Vec<Received>>>,
    pub(crate) tasks: Tasks,
    pub(crate) key: SigningKey,
    directory: tempfile::TempDir,
}

const POLICY: &str = r#"package countersign.teams.support

default blocked := false
blocked if input.call.headers["x-ticket"] == "blocked"

allow contains {"code": "everything"} if input.action.name != "orders.search"
deny contains {"code": "ticket_blocked", "message": "The ticket is blocked.", "internal": "list 7"} if blocked
approval contains {"code": "tagging"} if input.action.name == "orders.tag"
"#;

pub(crate) fn client() -> HttpClient {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = net::client_config(Roots::Pem(certificate.cert.pem().into_bytes())).unwrap();
    HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator))
}

pub(crate) async fn loopback() -> Listener {
    net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

/// The orders API: `answer` sees each request after it was remembered.
pub(crate) async fn start_tool(tasks: &Tasks) -> (String, Arc<Mutex<Vec<Received>>>) {
    let listener = loopback().await;
    let url = format!("http://{}", listener.local_addr());
    let received = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&received);
    let handler = move |_: Peer, request: Request<HyperBody>| {
        let memory = Arc::clone(&memory);
        async move {
            let (head, body) = request.into_parts();
            let body = net::body::collect(body, 10_000_000).await.unwrap_or_default();
            let target = head.uri.to_string();
            let answer = answer(&target);
            let silent = target == "/v1/orders/silent";
            memory.lock().unwrap().push(Received { method: head.method, target, headers: head.headers, body });
            if silent {
                std::future::pending::<()>().await;
            }
            answer
        }
    };
    tasks.spawn("tool", net::serve(listener, ServeLimits::default(), tasks.clone(), handler));
    (url, received)
}

fn answer(target: &str) -> Response<Body> {
    let order =
        |tenant: &str, customer: Value| json!({ "tenant": tenant, "customer": { "id": customer }, "total": 12.50 });
    let (status, body) = match target {
        "/v1/orders/17" => (200, order("acme", "alice".into())),
        "/v1/orders/18" => (200, order("acme", "bob".into())),
        "/v1/orders/19" => (200, order("globex", "alice".into())),
        "/v1/orders/20" => (200, json!({ "tenant": "acme", "customer": null })),
        "/v1/orders/a%20b%3F" => (200, order("acme", "alice".into())),
        "/v1/orders/500" => (500, json!({})),
        "/v1/orders/302" => (302, json!({})),
        "/v1/orders/nested" => (200, order("acme", json!({ "x": 1 }))),
        "/v1/orders/twice" => return plain(200, r#"{"tenant":"acme","tenant":"acme"}"#.into()),
        "/v1/orders/events" => return events(),
        "/v1/orders/endless" => return endless(),
        "/v1/orders/feed" => return without_end("text/event-stream", b"data: {\"customer\":7}\n\ndata: {\"note\":"),
        "/v1/orders/broken" => return broken(),
        target if target.ends_with("/refunds") || target.ends_with("/file") => (201, json!({ "done": true })),
        _ => (404, json!({})),
    };
    plain(status, body.to_string())
}

fn plain(status: u16, body: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("set-cookie", "session=1")
        .header("www-authenticate", "Basic")
        .header("x-tool", "yes")
        .body(Body::full(body))
        .unwrap()
}

/// A stream that never ends.
fn events() -> Response<Body> {
    without_end("text/event-stream", b"data: 1\n\n")
}

/// A document that stops in the middle of a value, and goes no further.
fn endless() -> Response<Body> {
    without_end("application/json", br#"{"id":17,"customer":"SECRET","note":"SECRET and m"#)
}

fn without_end(kind: &str, first: &'static [u8]) -> Response<Body> {
    let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(first)))]);
    let endless = futures_util::StreamExt::chain(first, stream::pending());
    Response::builder().header("content-type", kind).body(Body::new(StreamBody::new(endless))).unwrap()
}

/// The head and half of the body, then the end of the connection.
fn broken() -> Response<Body> {
    let half = stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]);
    let cut = stream::once(async {
        // The first half is flushed only when there is nothing more to send at once.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Err(std::io::Error::other("wire cut"))
    });
    Response::new(Body::new(StreamBody::new(futures_util::StreamExt::chain(half, cut))))
}

impl World {
    pub(crate) async fn new() -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        Self::with_tool(&super::tool(&url), tool, tasks).await
    }

    /// One that takes on no more than `limits`.
    pub(crate) async fn limited(limits: Value) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        Self::with(&super::tool(&url), tool, tasks, limits, |_| ()).await
    }

    /// One whose tool is told who acts for whom, by `signer`.
    pub(crate) async fn hybrid(signer: Option<TransactionSigner>) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        let mut config = super::tool(&url);
        config["identity"] = json!("hybrid");
        Self::with(&config, tool, tasks, json!({}), |snapshot| snapshot.signer = signer.map(Arc::new)).await
    }

    /// One whose team's policy has these `rules` too.
    pub(crate) async fn ruled(rules: &str) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        let policies = tempfile::tempdir().unwrap();
        std::fs::write(policies.path().join("support.rego"), format!("{POLICY}\n{rules}\n")).unwrap();
        let bound = BTreeSet::from([Id::new("orders").unwrap()]);
        let source = policy::Source::read("support", policies.path(), Some(bound)).unwrap();
        Self::with(&super::tool(&url), tool, tasks, json!({}), |snapshot| {
            snapshot.policy = Arc::new(policy::Engine::load(&[source], snapshot.catalogue()).unwrap());
        })
        .await
    }

    /// One that follows an authority.
    pub(crate) async fn following(following: Following) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        Self::with(&super::tool(&url), tool, tasks, json!({}), |snapshot| snapshot.following = Some(following)).await
    }

    /// One whose tool's calls are passed through by `settings`, where they show no token of ours.
    pub(crate) async fn passing(settings: Value, following: Option<Following>) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        let mut config = super::tool(&url);
        config["passthrough"] = settings;
        Self::with(&config, tool, tasks, json!({}), |snapshot| snapshot.following = following).await
    }

    /// One that holds the identities of agents.
    pub(crate) async fn holding(identities: Identities) -> Self {
        let tasks = Tasks::new();
        let (url, tool) = start_tool(&tasks).await;
        let identities = Some(Arc::new(identities));
        Self::with(&super::tool(&url), tool, tasks, json!({}), |snapshot| snapshot.identities = identities).await
    }

    pub(crate) async fn with_tool(tool: &Value, received: Arc<Mutex<Vec<Received>>>, tasks: Tasks) -> Self {
        Self::with(tool, received, tasks, json!({}), |_| ()).await
    }

    async fn with(
        tool: &Value,
        received: Arc<Mutex<Vec<Received>>>,
        tasks: Tasks,
        limits: Value,
        change: impl FnOnce(&mut Snapshot),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let started = Started { component: Component::Sidecar, name: "support".into(), version: "0.0.0".into() };
        let settings = LedgerSettings::new(directory.path().join("ledger"), started);
        let ledger = Ledger::open(settings, &tasks).await.unwrap();
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let mut snapshot = snapshot(directory.path(), tool, &key, &tasks, &limits);
        change(&mut snapshot);
        let parts = Parts {
            snapshot,
            ledger: ledger.clone(),
            client: client(),
            tasks: tasks.clone(),
            version: "0.0.0".into(),
            withdrawals: Some(Arc::default()),
            channels: ["security".to_owned()].into(),
            limits: None,
        };
        Self { sidecar: Sidecar::new(parts), ledger, tool: received, tasks, key, directory }
    }

    /// The claims of a token for alice through the support agent and its helper.
    pub(crate) fn claims(&self) -> Value {
        let now = net::clock::now().as_second();
        let details = serde_json::to_value(super::authority("20").elements).unwrap();
        let scope = ACTIONS.join(" ");
        let hop = |issuer: &str, id: &str, profile: &str, max: &str| {
            json!({ "iss": issuer, "sub": id, "sub_profile": profile, "scope": scope,
                    "authorization_details": super::authority(max).elements })
        };
        json!({
            "iss": ISSUER, "sub": "alice", "aud": "urn:support", "iat": now - 5, "exp": now + 200, "jti": "j1",
            "tenant": "acme", "run_id": "run-1", "task_id": "task-1", "stage": "supervised", "groups": ["support"],
            "scope": scope, "authorization_details": details,
            "act": { "sub": "helper", "act": { "sub": "support" } },
            "delegation_chain": [
                hop(PROVIDER, "alice", "user", "100"),
                hop(ISSUER, "support", "ai_agent", "50"),
                hop(ISSUER, "helper", "ai_agent", "20"),
            ],
        })
    }

    /// A token with these claims and `changes`; `null` takes a claim away.
    pub(crate) fn token(&self, changes: &Value) -> String {
        let mut claims = self.claims();
        for (name, change) in changes.as_object().unwrap() {
            claims[name] = change.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.key.sign("at+jwt", &claims).unwrap().expose().to_owned()
    }

    /// Sends a request as the agent, with a good token unless `headers` has `authorization`.
    pub(crate) async fn call(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let bearer = format!("Bearer {}", self.token(&json!({})));
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            headers.push(("authorization", &bearer));
        }
        self.send("127.0.0.1:4711", super::request(method, uri, &headers, body)).await
    }

    /// The same without a body, from another address.
    pub(crate) async fn call_from(&self, address: &str, method: &str, uri: &str) -> Response<Body> {
        let bearer = format!("Bearer {}", self.token(&json!({})));
        self.send(address, super::request(method, uri, &[("authorization", &bearer)], "")).await
    }

    async fn send(&self, address: &str, request: Request<Body>) -> Response<Body> {
        Arc::clone(&self.sidecar).answer(Peer::tcp(address.parse().unwrap()), request).await
    }

    /// The same, as status, JSON body and decision id.
    pub(crate) async fn told(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, Value, String) {
        let response = self.call(method, uri, headers, body).await;
        let status = response.status().as_u16();
        let id = response.headers()["countersign-decision-id"].to_str().unwrap().to_owned();
        let bytes = net::body::collect(response.into_body(), 1_000_000).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default(), id)
    }

    /// What the tool received, but for reads of facts.
    pub(crate) fn forwarded(&self) -> Vec<Received> {
        let received = self.tool.lock().unwrap();
        received.iter().filter(|received| received.headers.contains_key("via")).cloned().collect()
    }

    /// Ends all calls, closes the ledger, and reads what it holds.
    pub(crate) async fn records(self, kind: &str) -> Vec<Entry> {
        self.all_records().await.into_iter().filter(|entry| entry.kind == kind).collect()
    }

    /// The same, of every kind.
    pub(crate) async fn all_records(self) -> Vec<Entry> {
        while self.tasks.running() > 0 && self.settling() {
            tokio::task::yield_now().await;
        }
        self.ledger.close().await;
        let dir = self.directory.path().join("ledger");
        audit::verify::verify(&dir, &audit::verify::Options::default(), |_| {}).unwrap();
        query(&dir, Filter::default()).unwrap().map(Result::unwrap).collect()
    }

    /// Whether a permitted call has no `call.settled` yet.
    fn settling(&self) -> bool {
        let dir = self.directory.path().join("ledger");
        let count = |kind: &str, verdict| {
            let filter = Filter { kind: Some(kind.to_owned()), verdict, ..Filter::default() };
            query(&dir, filter).unwrap().count()
        };
        count("call.decided", Some(model::Verdict::Permit)) > count("call.settled", None)
    }
}

fn snapshot(directory: &std::path::Path, tool: &Value, key: &SigningKey, tasks: &Tasks, limits: &Value) -> Snapshot {
    let tools: ResolvedTools = resolve_tools(
        &[(Id::new("orders").unwrap(), serde_json::from_value(tool.clone()).unwrap())].into(),
        &tenants(),
        &|_| Some("tool-secret-1".to_owned()),
    )
    .unwrap();
    let policies = directory.join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("support.rego"), POLICY).unwrap();
    let bound = BTreeSet::from([Id::new("orders").unwrap()]);
    let source = policy::Source::read("support", &policies, Some(bound)).unwrap();
    let policy = policy::Engine::load(&[source], &tools.catalogue).unwrap();
    let settings = VerifierSettings {
        issuers: issuers(key),
        audiences: ["urn:support".to_owned()].into(),
        tenants: tenants(),
        defaults: token::Defaults::default(),
        cache_entries: 100,
    };
    let clients = KeyClients { operator: client(), learned: client() };
    let listener = json!({ "tcp": "127.0.0.1:0", "bearer": "all", "input_headers": ["X-Ticket"], "limits": limits });
    let listener: AgentListenerConfig = serde_json::from_value(listener).unwrap();
    Snapshot::new(SnapshotParts {
        tools,
        policy: Arc::new(policy),
        verifier: Arc::new(Verifier::new(settings, &clients, tasks).unwrap()),
        agents: Agents::new(vec![agent("support"), agent("helper")]).unwrap(),
        tenants: tenants(),
        listener,
        config_revision: None,
        following: None,
        signer: None,
        identities: None,
    })
}

fn issuers(key: &SigningKey) -> Vec<Issuer> {
    let set = serde_json::to_vec(&mint::key_set([key])).unwrap();
    let set = Arc::new(KeySet::parse(&set, &BTreeSet::from([Algorithm::Es256])).unwrap());
    let issuer = |config: Value| {
        serde_json::from_value::<IssuerConfig>(config).unwrap().resolve().unwrap().with_keys(Arc::clone(&set))
    };
    vec![
        issuer(json!({ "issuer": ISSUER, "role": "delegation", "tenants": ["acme"] })),
        issuer(json!({
            "issuer": PROVIDER, "role": "subject", "tenants": ["acme"],
            "entitlements": { "from": "groups", "map": { "support": ACTIONS } }
        })),
    ]
}
