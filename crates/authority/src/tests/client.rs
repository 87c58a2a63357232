//! Who is let in: a registered agent with its own key, and nobody else by whatever means.

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey};

use super::world::{ISSUER, World, now};

/// The refusal of a first hop that is authenticated by `assertion`.
async fn refused(world: &World, assertion: &str) -> (String, String) {
    let answer = world.first(&[("client_assertion", assertion)]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.body);
    assert!(answer.headers.contains_key("www-authenticate"));
    let (error, description) = answer.error();
    (error.to_owned(), description.to_owned())
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let world = World::new().await;
    let assertion = world.assertion("support", json!({}));
    world.first(&[("client_assertion", &assertion)]).await.token();
    let (error, description) = refused(&world, &assertion).await;
    assert!(error == "invalid_client" && description.contains("used before"), "{description}");
    // The same name from another agent is another name.
    let shared = json!({ "jti": "same" });
    world.first(&[("client_assertion", &world.assertion("support", shared.clone()))]).await.token();
    let other = world.first(&[("client_assertion", &world.assertion("writer", shared))]).await;
    assert_eq!(other.error().0, "invalid_request");
}

#[tokio::test]
async fn an_assertion_that_is_not_this_agents_for_this_authority_now_is_refused() {
    let world = World::new().await;
    let cases: [(&str, Value); 14] = [
        ("another audience", json!({ "aud": "https://other.example" })),
        ("two audiences", json!({ "aud": [ISSUER, "https://other.example"] })),
        ("no audience", json!({ "aud": null })),
        ("a sidecar's audience", json!({ "aud": super::world::SIDECAR })),
        ("expired", json!({ "iat": now() - 300, "exp": now() - 60 })),
        ("never ends", json!({ "exp": null })),
        ("lives too long", json!({ "exp": now() + 3600 })),
        ("from the future", json!({ "iat": now() + 60 })),
        ("without a name", json!({ "jti": null })),
        ("with an endless name", json!({ "jti": "x".repeat(300) })),
        ("issued by another", json!({ "iss": "writer" })),
        ("about another", json!({ "sub": "writer" })),
        ("of an agent that is not there", json!({ "iss": "nobody", "sub": "nobody" })),
        ("of a name that is none", json!({ "iss": "a b", "sub": "a b" })),
    ];
    for (what, change) in cases {
        assert_eq!(refused(&world, &world.assertion("support", change)).await.0, "invalid_client", "{what}");
    }
    assert!(world.issued().is_empty());
}

#[tokio::test]
async fn a_key_algorithm_or_form_that_is_not_registered_proves_nothing() {
    let world = World::new().await;
    let good = world.assertion("support", json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let part = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let (_, claims) = signed.split_once('.').unwrap();
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let mine =
        json!({ "iss": "support", "sub": "support", "aud": ISSUER, "jti": "j", "exp": now() + 60, "iat": now() });
    let cases = [
        stranger.sign("JWT", &mine).unwrap().expose().to_owned(),
        world.agents["support"].sign("at+jwt", &mine).unwrap().expose().to_owned(),
        format!("{}.{claims}.", part(r#"{"alg":"none"}"#)),
        format!("{}.{claims}.{}", part(r#"{"alg":"HS256"}"#), part("signature")),
        format!("{signed}."),
        signed.to_owned(),
        format!("{good}.x"),
        "x".repeat(20_000),
    ];
    for assertion in cases {
        let (error, description) = refused(&world, &assertion).await;
        assert_eq!(error, "invalid_client", "{assertion}");
        assert!(!description.contains("key") || description.contains("private_key_jwt"), "{description}");
    }
    refused(&world, "not a token").await;
    refused(&world, "").await;
}

#[tokio::test]
async fn a_missing_agent_and_a_wrong_key_are_told_apart_by_nobody() {
    let world = World::new().await;
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let claims = |id: &str| json!({ "iss": id, "sub": id, "aud": ISSUER, "jti": "j", "exp": now() + 60, "iat": now() });
    let wrong_key = refused(&world, stranger.sign("JWT", &claims("support")).unwrap().expose()).await;
    let no_agent = refused(&world, stranger.sign("JWT", &claims("nobody")).unwrap().expose()).await;
    assert_eq!(wrong_key, no_agent);
}

#[tokio::test]
async fn secrets_headers_and_other_methods_are_not_looked_at() {
    let world = World::new().await;
    let subject = world.user_token(json!({}));
    let usual = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("subject_token", subject.as_str()),
        ("task_id", "ticket"),
    ];
    let nothing = world.post(&usual).await;
    assert_eq!((nothing.status, nothing.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"));
    let secret = world.post(&[&usual[..], &[("client_id", "support"), ("client_secret", "s")]].concat()).await;
    assert_eq!(secret.error().0, "invalid_client");
    let basic = Request::post("/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", "Basic c3VwcG9ydDpz");
    let basic = world.send(basic.body(Full::new("a=b".into())).unwrap()).await;
    assert_eq!((basic.status, basic.error().0), (StatusCode::UNAUTHORIZED, "invalid_client"));
    let other = world.first(&[("client_id", "writer")]).await;
    assert_eq!(other.error().0, "invalid_client");
    world.first(&[("client_id", "support")]).await.token();
}

#[tokio::test]
async fn a_suspended_agent_is_known_and_gets_nothing() {
    let world = World::new().await;
    let subject = world.user_token(json!({}));
    let answer = world.exchange("sleeper", &[("subject_token", &subject), ("task_id", "ticket")]).await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::BAD_REQUEST, "unauthorized_client"));
}

#[tokio::test]
async fn an_agent_may_have_two_keys_while_one_replaces_the_other() {
    let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let jwks = token::mint::key_set([&other]);
    let support = |store: &mut Value| {
        let agents = store["agents"].as_array_mut().unwrap();
        let agent = agents.iter_mut().find(|agent| agent["id"] == "support").unwrap();
        agent["credentials"].as_array_mut().unwrap().insert(0, json!({ "jwks": jwks }));
    };
    let world = World::with(support, |_| ()).await;
    world.first_token().await;
    let claims =
        json!({ "iss": "support", "sub": "support", "aud": ISSUER, "jti": "j", "exp": now() + 60, "iat": now() });
    let assertion = other.sign("JWT", &claims).unwrap();
    world.first(&[("client_assertion", assertion.expose())]).await.token();
}
