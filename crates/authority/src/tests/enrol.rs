//! Sidecars that join by what they are: a SPIFFE ID, a Kubernetes service account. What is configured is who may.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Request;
use http_body_util::Full;
use net::{Peer, PeerIdentity};
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, mint, prove_possession};

use super::{
    mtls::peer,
    world::{Answer, ISSUER, World, now},
};

const WORKLOAD: &str = "spiffe://acme.example/sidecar/support";
const CLUSTER: &str = "https://cluster.example";
const ACCOUNT: &str = "system:serviceaccount:agents:support";

/// An authority that lets one workload and one service account join.
async fn world(cluster: &SigningKey) -> World {
    let jwks = mint::key_set([cluster]).to_string();
    World::with(
        |_| (),
        move |config| {
            let keys = config.keys.dir.with_file_name("cluster.json");
            std::fs::write(&keys, jwks).unwrap();
            config.enrolment = serde_json::from_value(json!({
                "spiffe": { (WORKLOAD): { "tenants": ["acme"], "tools": ["orders"] } },
                "kubernetes": [{
                    "issuer": CLUSTER, "audience": ISSUER, "keys": { "file": keys }, "algorithms": ["ES256"],
                    "service_accounts": { "agents:support": { "tenants": ["acme"], "agents": ["support"] } },
                }],
            }))
            .unwrap();
        },
    )
    .await
}

fn fresh() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa).unwrap()
}

async fn join(world: &World, peer: Peer, body: &Value) -> Answer {
    let request = Request::post("/v1/sidecars/enrol").header("content-type", "application/json");
    world.send_from(peer, request.body(Full::new(body.to_string().into())).unwrap()).await
}

/// What is sent with evidence that is not in the body.
fn joining(key: &SigningKey, name: &str, evidence: &[u8]) -> Value {
    let proof = prove_possession(key, evidence, ISSUER, net::clock::now()).unwrap();
    json!({ "name": name, "jwk": key.public_jwk(), "proof": proof.expose() })
}

fn workload(id: &str) -> Peer {
    peer(PeerIdentity::Spiffe(id.to_owned()), 7)
}

fn thumbprint() -> String {
    URL_SAFE_NO_PAD.encode([7; 32])
}

/// A projected token, `change`d.
fn projected(cluster: &SigningKey, change: &Value) -> String {
    let mut claims = json!({
        "iss": CLUSTER, "sub": ACCOUNT, "aud": [ISSUER], "iat": now(), "nbf": now(), "exp": now() + 3607,
        "jti": "5f3b", "kubernetes.io": { "namespace": "agents", "serviceaccount": { "name": "support", "uid": "1" } },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    cluster.sign("JWT", &claims).unwrap().expose().to_owned()
}

fn by_account(key: &SigningKey, token: &str) -> Value {
    let mut body = joining(key, "support", token.as_bytes());
    body["service_account_token"] = json!(token);
    body
}

fn anybody() -> Peer {
    Peer::tcp(([127, 0, 0, 1], 1).into())
}

#[tokio::test]
async fn a_workload_joins_by_its_svid_as_what_is_configured_and_again_with_the_same_key() {
    let world = world(&fresh()).await;
    let key = fresh();
    let body = || joining(&key, "edge-1", thumbprint().as_bytes());
    let first = join(&world, workload(WORKLOAD), &body()).await.done();
    assert_eq!(first["serves"], json!({ "tenants": ["acme"], "tools": ["orders"], "agents": null }));
    assert_eq!(
        join(&world, workload(WORKLOAD), &body()).await.done()["id"],
        first["id"],
        "the same key is the same sidecar"
    );
    let another = joining(&fresh(), "edge-2", thumbprint().as_bytes());
    assert_ne!(join(&world, workload(WORKLOAD), &another).await.done()["id"], first["id"], "one more copy of it");
    let records = world.records("sidecar.enrolled");
    assert_eq!(records.len(), 2);
    assert!(format!("{:?}", records[0].fields).contains(WORKLOAD));
    // What was removed does not come back with the same key.
    let path = format!("sidecars/{}/remove", first["id"].as_str().unwrap());
    world.manage("POST", &path, &world.admin_token(), json!({ "reason": "gone" })).await.done();
    assert_eq!(join(&world, workload(WORKLOAD), &body()).await.problem(), (409, "conflict"));
}

#[tokio::test]
async fn nobody_joins_by_an_svid_that_is_not_listed_or_without_proof() {
    let world = world(&fresh()).await;
    let key = fresh();
    let body = joining(&key, "edge", thumbprint().as_bytes());
    for other in [
        "spiffe://evil.example/sidecar/support",
        "spiffe://acme.example/sidecar/support/x",
        "spiffe://acme.example/sidecar",
        "spiffe://acme.example/agent/support",
    ] {
        assert_eq!(join(&world, workload(other), &body).await.problem(), (403, "forbidden"), "{other}");
    }
    let subject = peer(PeerIdentity::Subject(WORKLOAD.to_owned()), 7);
    assert_eq!(join(&world, subject, &body).await.problem(), (401, "no_credential"));
    assert_eq!(join(&world, anybody(), &body).await.problem(), (401, "no_credential"));
    // A proof that was made for another certificate, or for a token.
    for evidence in [URL_SAFE_NO_PAD.encode([9; 32]), "countersign-join-x".to_owned()] {
        let body = joining(&key, "edge", evidence.as_bytes());
        assert_eq!(join(&world, workload(WORKLOAD), &body).await.problem(), (401, "invalid_token"));
    }
    assert!(world.records("sidecar.enrolled").is_empty());
}

#[tokio::test]
async fn a_pod_joins_by_its_projected_token_and_the_token_enrols_that_key_alone() {
    let cluster = SigningKey::generate(Algorithm::Es256).unwrap();
    let world = world(&cluster).await;
    let (key, thief) = (fresh(), fresh());
    let token = projected(&cluster, &json!({}));
    let first = join(&world, anybody(), &by_account(&key, &token)).await.done();
    assert_eq!(first["serves"], json!({ "tenants": ["acme"], "tools": null, "agents": ["support"] }));
    assert_eq!(join(&world, anybody(), &by_account(&key, &token)).await.done()["id"], first["id"]);
    let stolen = join(&world, anybody(), &by_account(&thief, &token)).await;
    assert_eq!(stolen.problem(), (409, "conflict"), "the token was seen, and is no use with another key");
    // The kubelet projects another one: the same pod goes on, and another pod joins.
    let next = projected(&cluster, &json!({ "jti": "6a1c" }));
    assert_eq!(join(&world, anybody(), &by_account(&key, &next)).await.done()["id"], first["id"]);
    assert_ne!(join(&world, anybody(), &by_account(&fresh(), &next)).await.done()["id"], first["id"]);
}

#[tokio::test]
async fn every_hostile_service_account_token_is_refused() {
    let cluster = SigningKey::generate(Algorithm::Es256).unwrap();
    let world = world(&cluster).await;
    let key = fresh();
    let own = SigningKey::generate(Algorithm::Es256).unwrap();
    for (why, token, expected) in [
        (
            "another namespace",
            projected(&cluster, &json!({ "sub": "system:serviceaccount:evil:support" })),
            (403, "forbidden"),
        ),
        (
            "another account",
            projected(&cluster, &json!({ "sub": "system:serviceaccount:agents:other" })),
            (403, "forbidden"),
        ),
        ("a user of the cluster", projected(&cluster, &json!({ "sub": "agents:support" })), (403, "forbidden")),
        (
            "the cluster's own audience",
            projected(&cluster, &json!({ "aud": ["https://kubernetes.default.svc"] })),
            (401, "invalid_token"),
        ),
        ("two audiences", projected(&cluster, &json!({ "aud": [ISSUER, "vault"] })), (401, "invalid_token")),
        ("no audience", projected(&cluster, &json!({ "aud": [] })), (401, "invalid_token")),
        (
            "over",
            projected(&cluster, &json!({ "iat": now() - 7200, "nbf": now() - 7200, "exp": now() - 60 })),
            (401, "invalid_token"),
        ),
        ("not yet", projected(&cluster, &json!({ "nbf": now() + 600 })), (401, "invalid_token")),
        ("a year", projected(&cluster, &json!({ "exp": now() + 365 * 86_400 })), (401, "invalid_token")),
        ("another issuer", projected(&cluster, &json!({ "iss": "https://evil.example" })), (401, "invalid_token")),
        ("the identity provider", projected(&cluster, &json!({ "iss": super::world::SSO })), (401, "invalid_token")),
        ("another key", projected(&own, &json!({})), (401, "invalid_token")),
        ("of a user", world.user_token(json!({})), (401, "invalid_token")),
        ("no token", "nothing".to_owned(), (401, "invalid_token")),
    ] {
        assert_eq!(join(&world, anybody(), &by_account(&key, &token)).await.problem(), expected, "{why}");
    }
    let mut both = by_account(&key, &projected(&cluster, &json!({})));
    both["token"] = json!("countersign-join-x");
    assert_eq!(join(&world, anybody(), &both).await.problem(), (400, "invalid"));
    assert!(world.records("sidecar.enrolled").is_empty());
    // And it opens nothing else.
    let token = projected(&cluster, &json!({ "sub": "alice", "aud": ["https://api.example"] }));
    let exchanged = world.exchange("support", &[("subject_token", &token), ("task_id", "ticket")]).await;
    assert!(exchanged.error().1.starts_with("subject_token"), "{}", exchanged.body);
    assert_eq!(world.manage("GET", "sidecars", &token, Value::Null).await.problem(), (401, "invalid_token"));
}
