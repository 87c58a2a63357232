//! The token endpoint as its clients meet it: through the HTTP handler, with real keys, files and ledger.

mod ages;
mod client;
mod confusion;
mod enrol;
mod events;
mod first_hop;
mod follow;
mod logout;
mod manage;
mod mtls;
mod next_hop;
mod pins;
mod policy;
mod poll;
mod restart;
mod roles;
mod task;
mod world;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use self::world::{ISSUER, World};

#[tokio::test]
async fn keys_and_metadata_are_public_and_lead_to_each_other() {
    let world = World::new().await;
    let metadata = world.get("/.well-known/oauth-authorization-server").await;
    assert_eq!((metadata.status, metadata.body["issuer"].as_str()), (StatusCode::OK, Some(ISSUER)));
    assert_eq!(metadata.body["jwks_uri"], format!("{ISSUER}/jwks.json"));
    let keys = world.get("/jwks.json").await;
    let key = &keys.body["keys"][0];
    assert_eq!((key["kty"].as_str(), key["use"].as_str(), key.get("d")), (Some("EC"), Some("sig"), None));
    assert_eq!(keys.headers["cache-control"], "public, max-age=60");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_and_not_a_page() {
    let world = World::new().await;
    for path in ["/", "/v1/nothing", "/v1", "/oauth2/token/", "/.well-known/openid-configuration/x"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    let get = world.get("/oauth2/token").await;
    assert_eq!((get.status, &get.headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    for method in [Method::POST, Method::DELETE] {
        let request = Request::builder().method(method).uri("/jwks.json").body(Full::default()).unwrap();
        assert_eq!(world.send(request).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn parameters_in_the_url_are_never_read() {
    let world = World::new().await;
    let request =
        Request::post("/oauth2/token?grant_type=x").header("content-type", "application/x-www-form-urlencoded");
    let answer = world.send(request.body(Full::new("a=b".into())).unwrap()).await;
    assert_eq!(answer.error().0, "invalid_request");
}

#[tokio::test]
async fn without_a_ledger_there_is_no_token() {
    let world = World::new().await;
    assert_eq!(world.get("/readyz").await.status, StatusCode::OK);
    world.ledger.close().await;
    let answer = world.first(&[]).await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
    assert_eq!(world.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn while_the_ledger_cannot_be_written_it_is_not_ready() {
    let world = World::new().await;
    let segment = world.folder.path().join("ledger/log/00000001.jsonl");
    std::fs::rename(&segment, segment.with_extension("away")).unwrap();
    let answer = world.first(&[]).await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body["detail"].as_str().unwrap().contains("ledger"), "{}", ready.body);
    assert_eq!(world.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_issuer_of_delegated_tokens_has_no_place_beside_the_authority() {
    let world = World::new().await;
    let issuer: token::IssuerConfig =
        serde_json::from_value(json!({ "issuer": "https://other.example", "role": "delegation", "tenants": ["acme"] }))
            .unwrap();
    let config = crate::AuthorityConfig {
        issuer: ISSUER.to_owned(),
        keys: crate::KeysConfig::at(world.folder.path().join("keys")),
        token_lifetime: model::duration::ConfigDuration::seconds(300),
        max_agents: 4,
        sidecars: vec![crate::SidecarGroup { audience: world::SIDECAR.to_owned() }],
        subject_audiences: Vec::new(),
        management: None,
        policy: Vec::new(),
        alerts: crate::config::AlertsConfig::default(),
        enrolment: crate::config::EnrolmentConfig::default(),
        events: Vec::new(),
        shipped: crate::config::ShippedConfig::default(),
        store: Some(world.folder.path().join("store.yaml")),
        database: None,
    };
    let parts = crate::Parts {
        settings: config.resolve().unwrap(),
        issuers: vec![issuer.resolve().unwrap()],
        store: world::store(&config, net::clock::now()).await,
        keys: crate::SigningKeys::open(&config.keys, config.token_lifetime.0).unwrap(),
        policy: None,
        ledger: world.ledger.clone(),
        ledger_dir: world.folder.path().join("ledger/log"),
    };
    let error = crate::Authority::new(parts, &world::clients(), &net::Tasks::new()).await.unwrap_err();
    assert!(error.to_string().contains("other.example"), "{error}");
}
