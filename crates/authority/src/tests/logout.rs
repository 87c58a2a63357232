//! Back-channel logout: what a provider's logout token ends, what is on record of it, and what it is not good for.

use http::StatusCode;
use serde_json::{Value, json};

use super::world::{Answer, MANAGEMENT, SSO, World, now};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A world whose identity provider tells of logouts, in tokens of every type.
async fn world() -> World {
    let world = World::new().await;
    let configured = |issuer: &mut Value| {
        issuer["withdrawals"] = json!("backchannel_logout");
        // The worst that can be configured: names that other tokens have too.
        issuer["logout_clients"] = json!(["portal", "https://api.example", MANAGEMENT]);
        issuer["types"] = json!(["at+jwt", "JWT"]);
    };
    world.believing(configured).await
}

fn logout_token(world: &World, kind: &str, change: &Value) -> String {
    let jti = uuid::Uuid::now_v7().to_string();
    let mut claims = json!({
        "iss": SSO, "aud": "portal", "iat": now(), "exp": now() + 120, "jti": jti, "sub": "alice", "sid": "session-1",
        "events": { EVENT: {} },
    });
    for (name, value) in change.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    world.sso.sign(kind, &claims).unwrap().expose().to_owned()
}

async fn told(world: &World, token: &str) -> Answer {
    world.post_to("/oidc/backchannel_logout", &[("logout_token", token)]).await
}

#[track_caller]
fn taken(answer: &Answer) {
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &json!({})));
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[track_caller]
fn not_taken(answer: &Answer) {
    assert_eq!((answer.status, answer.error().0), (StatusCode::BAD_REQUEST, "invalid_request"));
}

async fn in_force(world: &World) -> Vec<Value> {
    let listed = world.manage("GET", "withdrawals", &world.admin_token(), Value::Null).await.done();
    listed["withdrawals"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_logout_ends_the_session_with_its_tasks_and_is_on_record_before_the_answer() {
    let world = world().await;
    world.first_token().await;
    // Of another session: nothing of this one ends.
    taken(&told(&world, &logout_token(&world, "logout+jwt", &json!({ "sid": "session-2" }))).await);
    world.first_token().await;
    let token = logout_token(&world, "logout+jwt", &json!({}));
    taken(&told(&world, &token).await);
    let records = world.records("withdrawal.created");
    let record = serde_json::to_value(&records[1].fields).unwrap();
    assert!(record.to_string().contains(&format!("backchannel_logout of {SSO}")), "{record}");
    assert_eq!(world.first(&[]).await.error().0, "invalid_request");
    let known = in_force(&world).await;
    assert_eq!(known[1]["target"], json!({ "kind": "session", "issuer": SSO, "sid": "session-1" }));

    // Once, also for whoever says it again with what is not the same.
    not_taken(&told(&world, &token).await);
    let jti = json!(super::world::payload(&token)["jti"]);
    not_taken(&told(&world, &logout_token(&world, "logout+jwt", &json!({ "jti": jti, "sid": "session-3" }))).await);
    assert_eq!(in_force(&world).await, known);

    taken(&told(&world, &logout_token(&world, "logout+jwt", &json!({ "sid": null, "sub": "bob" }))).await);
    assert_eq!(in_force(&world).await[2]["target"], json!({ "kind": "user", "issuer": SSO, "id": "bob" }));
}

#[tokio::test]
async fn a_logout_that_cannot_be_recorded_is_not_acknowledged() {
    let world = world().await;
    world.ledger.close().await;
    let answer = told(&world, &logout_token(&world, "logout+jwt", &json!({}))).await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::BAD_REQUEST, "temporarily_unavailable"));
}

#[tokio::test]
async fn nothing_but_a_logout_token_is_one() {
    let world = world().await;
    let delegated = world.first_token().await;
    for (why, token) in [
        ("a user's own token", world.user_token(json!({}))),
        ("a management token", world.management_token(&json!({}))),
        ("a client assertion", world.assertion("support", json!({}))),
        ("a client assertion for it", world.assertion("support", json!({ "aud": "portal", "events": { EVENT: {} } }))),
        ("a delegated token", delegated.clone()),
        ("a handed-over token", world.hand_over("support", &delegated, "researcher").await.token()),
        ("an access token with events", world.user_token(json!({ "events": { EVENT: {} } }))),
        ("an ID token", logout_token(&world, "JWT", &json!({ "events": null, "nonce": "n" }))),
        ("one with a nonce", logout_token(&world, "JWT", &json!({ "nonce": "n" }))),
        ("no token", "a.b.c".to_owned()),
    ] {
        let answer = told(&world, &token).await;
        assert_eq!((answer.status, answer.error().0), (StatusCode::BAD_REQUEST, "invalid_request"), "{why}");
    }
    not_taken(&world.post_to("/oidc/backchannel_logout", &[]).await);
    not_taken(&world.post_to("/oidc/backchannel_logout?logout_token=x", &[]).await);
    let get = world.get("/oidc/backchannel_logout").await;
    assert_eq!((get.status, &get.headers["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    assert_eq!(in_force(&world).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_logout_token_is_good_for_nothing_else() {
    let world = world().await;
    for kind in ["logout+jwt", "JWT", "at+jwt"] {
        let token = |change: Value| logout_token(&world, kind, &change);
        let subject = token(json!({ "aud": "https://api.example", "client_id": "portal", "groups": ["support"] }));
        assert_eq!(world.first(&[("subject_token", &subject)]).await.error().0, "invalid_request", "{kind}");
        let manages =
            json!({ "aud": MANAGEMENT, "client_id": "countersign-cli", "groups": ["platform"], "auth_time": now() });
        let manages = token(manages);
        let answer = world.manage("GET", "withdrawals", &manages, Value::Null).await;
        assert_eq!(answer.problem(), (401, "invalid_token"), "{kind}");
        let answer = world.manage("GET", "changes", &manages, Value::Null).await;
        assert_eq!(answer.problem(), (401, "invalid_token"), "{kind}");
        let assertion = token(json!({ "aud": super::world::ISSUER, "iss": "support", "sub": "support" }));
        assert_eq!(world.first(&[("client_assertion", &assertion)]).await.error().0, "invalid_client", "{kind}");
        assert!(world.verify(&token(json!({ "aud": super::world::SIDECAR }))).await.is_err(), "{kind}");
    }
    // Not even one that the agent's own key signed.
    let assertion = world.assertion("support", json!({ "events": { EVENT: {} } }));
    assert_eq!(world.first(&[("client_assertion", &assertion)]).await.error().0, "invalid_client");
    world.first_token().await;
}

#[tokio::test]
async fn a_provider_that_is_not_configured_to_tell_of_logouts_is_not_heard() {
    let world = World::new().await;
    not_taken(&told(&world, &logout_token(&world, "logout+jwt", &json!({}))).await);
    world.first_token().await;
}

#[tokio::test]
async fn a_flood_of_what_is_no_logout_is_told_to_wait() {
    let world = world().await;
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..600 {
        *codes.entry(told(&world, "nothing").await.status.as_u16()).or_insert(0) += 1;
    }
    assert!(codes[&400] >= 200 && codes.contains_key(&429), "{codes:?}");
}
