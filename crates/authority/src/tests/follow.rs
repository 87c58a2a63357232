//! Sidecars join by a one-time token, follow with their own key, and see only what they serve.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, prove_possession};

use super::world::{ISSUER, SSO, World, now};

async fn join_token(world: &World) -> String {
    let body = json!({ "name": "edge", "tenants": ["acme"] });
    let made = world.manage("POST", "sidecars", &world.admin_token(), body).await.done();
    made["token"].as_str().unwrap().to_owned()
}

/// What a sidecar sends to join.
pub(super) fn joining(token: &str, name: &str, key: &SigningKey) -> Value {
    let proof = prove_possession(key, token.as_bytes(), ISSUER, net::clock::now()).unwrap();
    json!({ "token": token, "name": name, "jwk": key.public_jwk(), "proof": proof.expose() })
}

pub(super) async fn enrolled(world: &World, key: &SigningKey) -> String {
    let body = joining(&join_token(world).await, "edge", key);
    world.manage("POST", "sidecars/enrol", "", body).await.done()["id"].as_str().unwrap().to_owned()
}

pub(super) fn assertion(key: &SigningKey, id: &str, change: &Value) -> String {
    let name = format!("{ISSUER}/sidecars/{id}");
    let mut claims = json!({ "iss": name, "sub": name, "aud": ISSUER, "iat": now(), "exp": now() + 30 });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    key.sign(token::SIDECAR_ASSERTION_TYPE, &claims).unwrap().expose().to_owned()
}

#[tokio::test]
async fn a_join_token_is_good_for_one_sidecar_and_one_key() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let token = join_token(&world).await;
    let join = |token: &str, name: &str, key: &SigningKey| {
        world.manage("POST", "sidecars/enrol", "", joining(token, name, key))
    };
    assert_eq!(join("countersign-join-nothing", "edge", &key).await.problem(), (401, "invalid_token"));
    assert_eq!(join("nothing", "edge", &key).await.problem(), (401, "invalid_token"));
    assert_eq!(join(&token, "other", &key).await.problem(), (401, "invalid_token"), "the token names the sidecar");
    let first = join(&token, "edge", &key).await.done();
    assert_eq!(first["subject"], format!("{ISSUER}/sidecars/{}", first["id"].as_str().unwrap()));
    // It lost the answer and asks again; a stranger who found the token does not get in.
    assert_eq!(join(&token, "edge", &key).await.done()["id"], first["id"]);
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    assert_eq!(join(&token, "edge", &stranger).await.problem(), (401, "invalid_token"));
    assert!(world.records("sidecar.enrolled").len() == 1);
    let all = world.records("join_token.created");
    assert!(!format!("{:?}", all[0].fields).contains(&token), "the secret is on record");
    let listed = world.manage("GET", "sidecars", &world.admin_token(), Value::Null).await.done();
    assert_eq!(listed["sidecars"][0]["tenants"], json!(["acme"]), "{listed}");
    assert!(!listed.to_string().contains(&token));
}

#[tokio::test]
async fn a_key_that_is_not_proved_does_not_join_and_a_proof_is_good_once() {
    let world = World::new().await;
    let token = join_token(&world).await;
    let (key, other) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let join = |body: Value| world.manage("POST", "sidecars/enrol", "", body);
    let with = |name: &str, value: Value| {
        let mut body = joining(&token, "edge", &key);
        body[name] = value;
        body
    };
    let proof = |key: &SigningKey, token: &str, audience: &str| {
        json!(prove_possession(key, token.as_bytes(), audience, net::clock::now()).unwrap().expose())
    };
    // Somebody who saw the token joins with a key that they only saw too, or with a proof made for something else.
    for hostile in [
        with("jwk", other.public_jwk().clone()),
        with("proof", proof(&other, &token, ISSUER)),
        with("proof", proof(&key, "countersign-join-another", ISSUER)),
        with("proof", proof(&key, &token, "https://elsewhere.example")),
        with("proof", json!(assertion(&key, "edge", &json!({})))),
        with("proof", json!("")),
    ] {
        assert_eq!(join(hostile.clone()).await.problem(), (401, "invalid_token"), "{hostile}");
    }
    let missing = json!({ "token": token, "name": "edge", "jwk": key.public_jwk() });
    assert_eq!(join(missing).await.problem(), (400, "invalid"));
    let right = joining(&token, "edge", &key);
    let first = join(right.clone()).await.done();
    assert_eq!(join(right).await.problem(), (401, "invalid_token"), "a proof is good once");
    assert_eq!(join(joining(&token, "edge", &key)).await.done()["id"], first["id"]);
    assert_eq!(world.records("sidecar.enrolled").len(), 1);
}

#[tokio::test]
async fn whoever_floods_the_door_is_told_to_wait() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let body = joining("countersign-join-guess", "edge", &key);
    let mut codes = Vec::new();
    for _ in 0..60 {
        codes.push(world.manage("POST", "sidecars/enrol", "", body.clone()).await.status.as_u16());
    }
    assert!(codes.contains(&429) && codes[0] == 401, "{codes:?}");
}

#[tokio::test]
async fn a_sidecar_whose_ledger_comes_and_goes_without_end_is_told_to_wait_and_fills_no_record() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let id = enrolled(&world, &key).await;
    let mut taken = 0;
    for number in 0..60 {
        let since = format!("2026-11-22T15:00:{number:02}Z");
        let body = json!({ "alert": "ledger_unavailable", "ledger": "l-1", "since": since, "why": "no space" });
        let answer = world.manage("POST", "alerts", &assertion(&key, &id, &json!({})), body).await;
        if answer.status.as_u16() == 429 {
            assert!(taken > 0 && world.records("alert.raised").len() == taken, "{taken}");
            return;
        }
        answer.done();
        taken += 1;
    }
    panic!("{taken} outages were taken one after the other");
}

#[tokio::test]
async fn a_sidecar_hears_of_a_withdrawal_while_it_waits() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let id = enrolled(&world, &key).await;
    let ask = |query: String| {
        let token = assertion(&key, &id, &json!({}));
        let world = &world;
        async move { world.manage("GET", &format!("changes{query}"), &token, Value::Null).await }
    };
    let all = ask(String::new()).await.done();
    let head = all["head"].as_u64().unwrap();
    assert_eq!((all["changes"].as_array().unwrap().len(), all["more"].as_bool()), (0, Some(false)), "{all}");
    let waited = net::clock::monotonic();
    let nothing = ask(format!("?after={head}&wait=0.3")).await.done();
    assert_eq!(nothing["head"], head);
    assert!(waited.elapsed() >= Duration::from_millis(250));

    let withdraw = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let token = world.management_token(&json!({}));
        world.manage("POST", "withdrawals", &token, json!({ "target": "task:ticket", "reason": "a test" })).await.done()
    };
    let (heard, made) = tokio::join!(ask(format!("?after={head}&wait=2")), withdraw);
    let heard = heard.done();
    assert_eq!(heard["changes"][0]["withdrawal"]["id"], made["id"], "{heard}");
    assert_eq!(heard["changes"][0]["position"], made["position"]);
    let again = ask(format!("?after={}", heard["head"])).await.done();
    assert_eq!(again["changes"], json!([]));
}

#[tokio::test]
async fn nobody_follows_with_anything_but_their_own_fresh_assertion() {
    let world = World::new().await;
    let (key, other) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let id = enrolled(&world, &key).await;
    let good = assertion(&key, &id, &json!({}));
    world.manage("GET", "changes", &good, Value::Null).await.done();
    let name = format!("{ISSUER}/sidecars/{id}");
    let wrong_type = key
        .sign("JWT", &json!({ "iss": name, "sub": name, "aud": ISSUER, "iat": now(), "exp": now() + 30 }))
        .unwrap()
        .expose()
        .to_owned();
    for (why, token) in [
        ("another key", assertion(&other, &id, &json!({}))),
        ("another sidecar", assertion(&key, "other", &json!({}))),
        ("over", assertion(&key, &id, &json!({ "iat": now() - 120, "exp": now() - 60 }))),
        ("too long", assertion(&key, &id, &json!({ "exp": now() + 600 }))),
        ("for somebody else", assertion(&key, &id, &json!({ "aud": "https://other.example" }))),
        ("another's subject", assertion(&key, &id, &json!({ "sub": "other" }))),
        ("another type", wrong_type),
        ("a management token", world.admin_token()),
    ] {
        assert_eq!(
            world.manage("GET", "changes", &token, Value::Null).await.problem(),
            (401, "invalid_token"),
            "{why}"
        );
    }
    assert_eq!(world.manage("GET", "agents", &good, Value::Null).await.problem(), (401, "invalid_token"));
    for query in ["?after=x", "?after=1&after=2", "?wait=-1", "?other=1"] {
        let token = assertion(&key, &id, &json!({}));
        let answer = world.manage("GET", &format!("changes{query}"), &token, Value::Null).await;
        assert_eq!(answer.problem(), (400, "invalid"), "{query}");
    }
    let removed = format!("sidecars/{id}/remove");
    world.manage("POST", &removed, &world.admin_token(), json!({ "reason": "gone" })).await.done();
    let answer = world.manage("GET", "changes", &assertion(&key, &id, &json!({})), Value::Null).await;
    assert_eq!(answer.problem(), (401, "invalid_token"));
}

#[tokio::test]
async fn a_sidecar_asks_about_tokens_of_what_it_serves_and_learns_nothing_of_others() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let id = enrolled(&world, &key).await;
    let ask = async |bearer: String, token: &str| {
        let request = Request::post("/oauth2/introspect")
            .header("authorization", format!("Bearer {bearer}"))
            .header("content-type", "application/x-www-form-urlencoded");
        world.send(request.body(Full::new(format!("token={token}").into())).unwrap()).await
    };
    let own = || assertion(&key, &id, &json!({}));
    let token = world.first_token().await;
    let told = ask(own(), &token).await.done();
    assert_eq!((&told["active"], &told["sub"], &told["task_id"]), (&json!(true), &json!("alice"), &json!("ticket")));
    for nothing in ["nonsense".to_owned(), world.user_token(json!({}))] {
        assert_eq!(ask(own(), &nothing).await.done(), json!({ "active": false }));
    }
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    for bearer in [assertion(&stranger, &id, &json!({})), assertion(&key, "nobody", &json!({})), token.clone()] {
        assert_eq!(ask(bearer, &token).await.error().0, "invalid_client");
    }
    // One that serves another tool, or another agent, is told what a stranger to the token is told.
    for serves in [json!({ "tools": ["mail"] }), json!({ "agents": ["writer"] })] {
        let mut body = json!({ "name": "other", "tenants": ["acme"] });
        for (name, value) in serves.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = world.manage("POST", "sidecars", &world.admin_token(), body).await.done();
        let joins = joining(made["token"].as_str().unwrap(), "other", &stranger);
        let other = world.manage("POST", "sidecars/enrol", "", joins).await.done();
        let bearer = assertion(&stranger, other["id"].as_str().unwrap(), &json!({}));
        assert_eq!(ask(bearer, &token).await.done(), json!({ "active": false }), "{serves}");
    }
    let ended = json!({ "target": "task:ticket", "reason": "over" });
    world.manage("POST", "withdrawals", &world.admin_token(), ended).await.done();
    assert_eq!(ask(own(), &token).await.done(), json!({ "active": false }));
    world
        .manage("POST", &format!("sidecars/{id}/remove"), &world.admin_token(), json!({ "reason": "gone" }))
        .await
        .done();
    assert_eq!(ask(own(), &token).await.error().0, "invalid_client");
}

#[tokio::test]
async fn an_agent_is_suspended_by_rule_only_for_what_it_did_itself_at_a_sidecar_that_serves_it() {
    let rule = |config: &mut crate::AuthorityConfig| {
        config.alerts = serde_json::from_value(json!({ "suspend": ["used_after_end"] })).unwrap();
    };
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let alert = |change: Value| {
        let mut alert = json!({
            "kind": "alert.raised", "alert": "used_after_end", "call": "L.1", "proved": true, "tenant": "acme",
            "agent": { "kind": "agent", "issuer": ISSUER, "id": "support" }, "code": "task_ended",
        });
        for (name, value) in change.as_object().unwrap() {
            alert[name] = value.clone();
        }
        alert
    };
    let without = World::new().await;
    let id = enrolled(&without, &key).await;
    let told = without.manage("POST", "alerts", &assertion(&key, &id, &json!({})), alert(json!({}))).await.done();
    assert_eq!(told, json!({ "suspended": false }), "there is no rule");

    let world = World::with(|_| (), rule).await;
    let id = enrolled(&world, &key).await;
    let tell = async |change: Value| {
        world.manage("POST", "alerts", &assertion(&key, &id, &json!({})), alert(change)).await.done()["suspended"]
            == true
    };
    for other in [
        json!({ "proved": false }),
        json!({ "proved": null, "alert": "used_by_another" }),
        json!({ "tenant": "globex" }),
        json!({ "tenant": null }),
        json!({ "agent": { "kind": "agent", "issuer": ISSUER, "id": "nobody" } }),
        json!({ "agent": { "kind": "agent", "issuer": SSO, "id": "support" } }),
        json!({ "alert": "used_by_another" }),
    ] {
        if other["proved"].is_null() && other.get("proved").is_some() {
            let refused = world.manage("POST", "alerts", &assertion(&key, &id, &json!({})), alert(other)).await;
            assert_eq!(refused.problem(), (400, "invalid"));
        } else {
            assert!(!tell(other.clone()).await, "{other}");
        }
    }
    world.first_token().await;
    let admin = world.admin_token();
    assert_eq!(world.manage("POST", "alerts", &admin, alert(json!({}))).await.problem(), (401, "invalid_token"));
    assert!(tell(json!({})).await);
    assert_eq!(world.first(&[]).await.error().0, "unauthorized_client");
    let record = world.records("agent.changed").pop().unwrap();
    assert_eq!(record.fields["by"], format!("sidecar:{id}"));
    assert_eq!(record.fields["reason"], "by rule: used_after_end, call L.1");
    // Whoever lifts it is not overruled by the same call again.
    world.manage("POST", "agents/support/reinstate", &admin, json!({ "reason": "looked at" })).await.done();
    assert!(!tell(json!({})).await);
    world.first_token().await;
    assert!(tell(json!({ "call": "L.2" })).await);
}
