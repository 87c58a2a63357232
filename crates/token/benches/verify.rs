//! What admitting a token costs: the first time, by the algorithm it is signed with, and again when it is remembered.
//! Chain, scope and limits are those of a call that alice makes through two agents.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to measure")]

use std::{collections::BTreeSet, hint::black_box, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign_token::{
    Algorithm, Defaults, IssuerConfig, KeyClients, KeySet, Presented, Proof, SigningKey, Verifier, VerifierSettings,
    mint,
};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use model::{Id, Stage};
use serde_json::{Value, json};

const AUTHORITY: &str = "https://countersign.example";
const PEOPLE: &str = "https://sso.example";
const AUDIENCE: &str = "urn:example:countersign:support";
const NOW: i64 = 1_795_000_000;

/// A key of the authority, whatever its kind.
enum Key {
    Ours(SigningKey),
    Rsa(RsaKeyPair),
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rs256 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            other => Self::Ours(SigningKey::generate(other).unwrap()),
        }
    }

    fn set(&self, algorithm: Algorithm) -> Arc<KeySet> {
        let set = match self {
            Self::Ours(key) => mint::key_set([key]),
            Self::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (URL_SAFE_NO_PAD.encode(public.n), URL_SAFE_NO_PAD.encode(public.e));
                json!({ "keys": [{ "kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": n, "e": e }] })
            }
        };
        Arc::new(KeySet::parse(&serde_json::to_vec(&set).unwrap(), &BTreeSet::from([algorithm])).unwrap())
    }

    fn sign(&self, claims: &Value) -> String {
        match self {
            Self::Ours(key) => key.sign("at+jwt", claims).unwrap().expose().to_owned(),
            Self::Rsa(pair) => {
                let header = json!({ "typ": "at+jwt", "alg": "RS256", "kid": "rsa" }).to_string();
                let signed =
                    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
            }
        }
    }
}

fn claims(jti: &str) -> Value {
    let elements = |max: &str| {
        let element = |action: &str, limits: Value, relations: Value| {
            json!({ "type": "urn:countersign:action", "actions": [action], "locations": ["orders"], "identifier": "orders/*",
                    "limits": limits, "where": relations })
        };
        json!([
            element("orders.read", json!({}), json!({})),
            element(
                "refunds.create",
                json!({ "amount": { "max": max, "currency": "USD" } }),
                json!({ "order.placed_by": "$user" })
            ),
        ])
    };
    let scope = "orders.read refunds.create";
    let hop = |issuer: &str, id: &str, profile: &str, max: &str| json!({ "iss": issuer, "sub": id, "sub_profile": profile, "scope": scope, "authorization_details": elements(max) });
    let act = json!({ "iss": AUTHORITY, "sub": "refunds", "sub_profile": "ai_agent",
                      "act": { "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent" } });
    json!({
        "iss": AUTHORITY, "sub": "alice", "aud": AUDIENCE, "iat": NOW - 10, "exp": NOW + 200, "jti": jti,
        "client_id": "refunds", "sub_profile": "user", "act": act,
        "delegation_chain": [
            hop(PEOPLE, "alice", "user", "500.00"),
            hop(AUTHORITY, "support", "ai_agent", "50.00"),
            hop(AUTHORITY, "refunds", "ai_agent", "20.00"),
        ],
        "scope": scope, "authorization_details": elements("20.00"), "groups": ["support"], "acr": "mfa",
        "auth_time": NOW - 600, "sid": "session-1", "tenant": "acme", "grant_id": "grant-1", "task_id": "ticket-1",
        "run_id": "run-1", "use_case": "refunds", "initiated_by": "alice", "stage": "supervised", "sensitivity": "low",
        "user_presence": "present",
    })
}

/// Clients that are never used: the keys are fixed.
fn clients() -> KeyClients {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = net::client_config(net::Roots::Pem(certificate.cert.pem().into_bytes())).unwrap();
    let client = |trust| net::HttpClient::new(net::ClientOptions::new(tls.clone(), trust));
    KeyClients { operator: client(net::UrlTrust::Operator), learned: client(net::UrlTrust::Learned) }
}

fn verifier(key: &Key, algorithm: Algorithm, tasks: &net::Tasks) -> Verifier {
    let issuer = |config: Value| serde_json::from_value::<IssuerConfig>(config).unwrap().resolve().unwrap();
    let authority =
        json!({ "issuer": AUTHORITY, "role": "delegation", "tenants": ["acme"], "algorithms": [algorithm] });
    let people = json!({ "issuer": PEOPLE, "role": "subject", "tenants": ["acme"], "algorithms": [algorithm],
                         "entitlements": { "from": "groups", "map": { "support": ["orders.read", "refunds.create"] } } });
    let keys = key.set(algorithm);
    let settings = VerifierSettings {
        issuers: vec![issuer(authority).with_keys(Arc::clone(&keys)), issuer(people).with_keys(keys)],
        audiences: [AUDIENCE.to_owned()].into(),
        tenants: [Id::new("acme").unwrap()].into(),
        defaults: Defaults { stage: Stage::Observe, ..Defaults::default() },
        cache_entries: VerifierSettings::CACHE_ENTRIES,
    };
    Verifier::new(settings, &clients(), tasks).unwrap()
}

fn verify(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let entered = runtime.enter();
    let (tasks, now) = (net::Tasks::new(), Timestamp::from_second(NOW).unwrap());
    let admit = |verifier: &Verifier, compact: &str| {
        let presented = Presented { compact: black_box(compact), bearer_allowed: true, proof: Proof::None };
        runtime.block_on(verifier.verify(presented, now)).unwrap()
    };
    let mut group = criterion.benchmark_group("admit");
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        let key = Key::new(algorithm);
        let verifier = verifier(&key, algorithm, &tasks);
        let mut number = 0_u64;
        let mut next = || {
            number += 1;
            key.sign(&claims(&format!("token-{number}")))
        };
        group.bench_function(format!("new {}", algorithm.as_str()), |bencher| {
            bencher.iter_batched(&mut next, |compact| admit(&verifier, &compact), BatchSize::SmallInput);
        });
        if algorithm == Algorithm::Es256 {
            let compact = next();
            group.bench_function("remembered", |bencher| bencher.iter(|| admit(&verifier, &compact)));
        }
    }
    group.finish();
    drop(entered);
}

criterion_group!(benches, verify);
criterion_main!(benches);
