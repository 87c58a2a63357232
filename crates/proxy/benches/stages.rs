//! What each stage of a call costs, in a whole sidecar with its ledger on disk, the demo's policies and a tool on
//! loopback: one call after the other, each a refund of another amount with the same token.
//!
//! `record` waits for the disk, and the whole call for the tool too; the other stages are computation alone.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to measure")]

use std::{collections::BTreeSet, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use audit::{
    Ledger, LedgerSettings,
    record::{Component, Started},
};
use countersign_proxy::{
    Agents, Parts, Sidecar, Snapshot, SnapshotParts,
    bench::{NAMES, spent},
    resolve_tools,
};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response, header};
use model::{Agent, AgentStatus, Id};
use net::{Body, ClientOptions, HttpClient, Roots, ServeLimits, Tasks, UrlTrust};
use serde_json::{Value, json};
use token::{Algorithm, Issuer, IssuerConfig, KeyClients, KeySet, SigningKey, Verifier, VerifierSettings, mint};

const AUTHORITY: &str = "https://countersign.example";
const PEOPLE: &str = "https://sso.example/realms/acme";
const AUDIENCE: &str = "urn:example:countersign:support";
const ACTIONS: [&str; 2] = ["orders.read", "refunds.create"];
const ORDER: &str = r#"{"id":"17","customer":{"id":"alice"},"status":"open"}"#;

/// A running sidecar and its agent.
struct World {
    client: HttpClient,
    url: String,
    bearer: String,
    calls: u64,
    // The ledger is written here until the end.
    _directory: tempfile::TempDir,
}

impl World {
    async fn new(tasks: &Tasks) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tool = serve(tasks, |_, _| async { Response::new(Body::full(ORDER)) }).await;
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let started = Started { component: Component::Sidecar, name: "bench".to_owned(), version: "0".to_owned() };
        let settings = LedgerSettings::new(directory.path().join("ledger"), started);
        let parts = Parts {
            snapshot: snapshot(&tool, &key, tasks),
            ledger: Ledger::open(settings, tasks).await.unwrap(),
            client: client(),
            tasks: tasks.clone(),
            version: "0".to_owned(),
            withdrawals: None,
            limits: None,
            channels: BTreeSet::new(),
        };
        let sidecar = Sidecar::new(parts);
        let url = serve(tasks, move |peer, request| Arc::clone(&sidecar).handle(peer, request)).await;
        let bearer = format!("Bearer {}", key.sign("at+jwt", &claims()).unwrap().expose());
        Self { client: client(), url, bearer, calls: 0, _directory: directory }
    }

    async fn refund(&mut self) {
        self.calls += 1;
        let cents = self.calls % 5000 + 1;
        let body = format!(r#"{{"amount":"{}.{:02}","currency":"USD"}}"#, cents / 100, cents % 100);
        let request = Request::post(format!("{}/orders/v1/orders/17/refunds", self.url))
            .header(header::AUTHORIZATION, &self.bearer)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::full(body))
            .unwrap();
        let answer = self.client.send(request, Duration::from_secs(5)).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        net::body::collect(answer.into_body(), 10_000).await.unwrap();
    }
}

async fn serve<H, F>(tasks: &Tasks, handler: H) -> String
where
    H: Fn(net::Peer, Request<hyper::body::Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr());
    tasks.spawn("server", net::serve(listener, ServeLimits::default(), tasks.clone(), handler));
    url
}

fn client() -> HttpClient {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = net::client_config(Roots::Pem(certificate.cert.pem().into_bytes())).unwrap();
    HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator))
}

fn snapshot(tool: &str, key: &SigningKey, tasks: &Tasks) -> Snapshot {
    let tenants = BTreeSet::from([Id::new("acme").unwrap()]);
    let config = serde_json::from_value(orders(tool)).unwrap();
    let secret = |_: &str| Some("the-tools-own-credential".to_owned());
    let tools = resolve_tools(&[(Id::new("orders").unwrap(), config)].into(), &tenants, &secret).unwrap();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let source =
        |name: &str, directory: &str, bound| policy::Source::read(name, &policies.join(directory), bound).unwrap();
    let sources = [source("org", "org", None), source("support", "orders", Some([Id::new("orders").unwrap()].into()))];
    let policy = policy::Engine::load(&sources, &tools.catalogue).unwrap();
    let settings = VerifierSettings {
        issuers: issuers(key),
        audiences: [AUDIENCE.to_owned()].into(),
        tenants: tenants.clone(),
        defaults: token::Defaults::default(),
        cache_entries: VerifierSettings::CACHE_ENTRIES,
    };
    let clients = KeyClients { operator: client(), learned: client() };
    let agent = Agent {
        id: Id::new("support-v2").unwrap(),
        issuer: AUTHORITY.to_owned(),
        owner: "dana@acme.example".to_owned(),
        actions: ACTIONS.iter().map(|name| Id::new(name).unwrap()).collect(),
        tenants: tenants.clone(),
        status: AgentStatus::Active,
    };
    Snapshot::new(SnapshotParts {
        tools,
        policy: Arc::new(policy),
        verifier: Arc::new(Verifier::new(settings, &clients, tasks).unwrap()),
        agents: Agents::new(vec![agent]).unwrap(),
        tenants,
        listener: serde_json::from_value(json!({ "tcp": "127.0.0.1:0", "bearer": "all" })).unwrap(),
        config_revision: None,
        following: None,
        signer: None,
        identities: None,
    })
}

fn orders(tool: &str) -> Value {
    json!({
        "at": "/orders",
        "upstream": tool,
        "credential": { "bearer": { "env": "ORDERS" } },
        "facts": { "order": {
            "get": "/v1/orders/{order}", "ttl": "10s", "timeout": "2s",
            "pick": { "placed_by": { "at": "/customer/id", "principal": PEOPLE }, "status": { "at": "/status" } },
        } },
        "actions": {
            "orders.read": { "match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}" },
            "refunds.create": {
                "match": "POST /v1/orders/{order}/refunds", "effect": "write", "resource": "orders/{order}", "facts": ["order"],
                "parameters": { "amount": { "type": "money", "value": "body:/amount", "currency": "body:/currency" } },
            },
        },
    })
}

fn issuers(key: &SigningKey) -> Vec<Issuer> {
    let set = serde_json::to_vec(&mint::key_set([key])).unwrap();
    let set = Arc::new(KeySet::parse(&set, &BTreeSet::from([Algorithm::Es256])).unwrap());
    let issuer = |config: Value| {
        serde_json::from_value::<IssuerConfig>(config).unwrap().resolve().unwrap().with_keys(Arc::clone(&set))
    };
    vec![
        issuer(json!({ "issuer": AUTHORITY, "role": "delegation", "tenants": ["acme"], "max_lifetime": "1h" })),
        issuer(json!({ "issuer": PEOPLE, "role": "subject", "tenants": ["acme"],
                       "entitlements": { "from": "groups", "map": { "customers": ACTIONS } } })),
    ]
}

/// The demo's: alice, who lets support-v2 refund up to 50 dollars on orders that she placed.
fn claims() -> Value {
    let now = net::clock::now().as_second();
    let element = |action: &str, limits: Value, relations: Value| {
        json!({ "type": "urn:countersign:action", "actions": [action], "locations": ["orders"], "identifier": "**",
                "limits": limits, "where": relations })
    };
    let limits = json!({ "amount": { "max": "50.00", "currency": "USD" } });
    let details = json!([
        element("orders.read", json!({}), json!({})),
        element("refunds.create", limits, json!({ "order.placed_by": "$user" })),
    ]);
    let scope = ACTIONS.join(" ");
    let hop = |issuer: &str, id: &str, profile: &str| json!({ "iss": issuer, "sub": id, "sub_profile": profile, "scope": scope, "authorization_details": details });
    json!({
        "iss": AUTHORITY, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": now + 3000, "jti": "token-1",
        "client_id": "support-v2", "act": { "iss": AUTHORITY, "sub": "support-v2", "sub_profile": "ai_agent" },
        "delegation_chain": [hop(PEOPLE, "alice", "user"), hop(AUTHORITY, "support-v2", "ai_agent")],
        "scope": scope, "authorization_details": details, "groups": ["customers"], "tenant": "acme",
        "grant_id": "alice-support", "task_id": "ticket-12847", "run_id": "run-1", "use_case": "customer_support",
        "initiated_by": "alice", "stage": "supervised", "sensitivity": "low", "user_presence": "present",
    })
}

fn stages(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tasks = Tasks::new();
    let entered = runtime.enter();
    let mut world = runtime.block_on(World::new(&tasks));
    let mut group = criterion.benchmark_group("stage");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for name in NAMES {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| {
                spent(name);
                runtime.block_on(async {
                    for _ in 0..calls {
                        world.refund().await;
                    }
                });
                spent(name)
            });
        });
    }
    group.bench_function("the whole call", |bencher| {
        bencher.iter(|| runtime.block_on(world.refund()));
    });
    group.finish();
    drop(entered);
}

criterion_group!(benches, stages);
criterion_main!(benches);
