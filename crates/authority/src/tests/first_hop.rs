//! The first hop: what a user's token and a task give, and everything that does not bind.

use http::StatusCode;
use serde_json::{Value, json};

use super::world::{ISSUER, SIDECAR, SSO, World, later, now, payload};

#[tokio::test]
async fn a_user_a_task_and_its_agent_make_a_token_that_a_sidecar_takes() {
    let world = World::new().await;
    let subject = world.user_token(json!({ "jti": "the-users-token" }));
    let answer = world.first(&[]).await;
    assert_eq!(
        (&answer.headers["cache-control"], &answer.headers["content-type"]),
        (&"no-store".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert_eq!(answer.body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["scope"], "orders.read refunds.create");

    let compact = world.exchange("support", &[("subject_token", &subject), ("task_id", "ticket")]).await.token();
    let verified = world.verify(&compact).await.unwrap();
    let delegation = verified.delegation();
    assert_eq!(delegation.chain.user().principal.to_string(), "user:alice@acme");
    assert_eq!(delegation.chain.user().jti.as_deref(), Some("the-users-token"));
    assert_eq!(delegation.chain.agent().principal.to_string(), "agent:support");
    assert_eq!(delegation.chain.agent().jti, delegation.token.jti);
    assert_eq!(delegation.chain.widening(), None);
    assert_eq!(delegation.session.as_deref(), Some("session-1"));
    assert_eq!((delegation.run.as_str(), delegation.run_derived), ("run-1", false));
    assert_eq!(delegation.user.groups, ["support".to_owned()].into());
    assert_eq!((delegation.user.acr.as_deref(), delegation.user.auth_time), (Some("urn:mfa"), Some(1_700_000_000)));
    assert_eq!(
        (delegation.task.use_case.as_deref(), delegation.task.stage.as_str()),
        (Some("customer_support"), "supervised")
    );

    let claims = payload(&compact);
    assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some(ISSUER), Some(SIDECAR)));
    assert_eq!(claims["act"], json!({ "iss": ISSUER, "sub": "support", "sub_profile": "ai_agent" }));
    assert_eq!((claims["grant_id"].as_str(), claims["client_id"].as_str()), (Some("grant"), Some("support")));
    assert!(claims.get("may_act").is_none() && claims["exp"].as_i64().unwrap() <= now() + 240);
}

#[tokio::test]
async fn every_token_is_in_the_ledger_before_it_is_out() {
    let world = World::new().await;
    let compact = world.first(&[("scope", "orders.read customers.delete")]).await.token();
    let issued = world.issued();
    let [record] = issued.as_slice() else { panic!("{issued:?}") };
    assert_eq!(record.text("jti"), payload(&compact)["jti"].as_str());
    assert_eq!(record.text("client_id"), Some("support"));
    assert_eq!((record.text_at("/user/id"), record.text("run_id")), (Some("alice"), Some("run-1")));
    assert_eq!(record.fields["narrowed"], true);
    assert_eq!(record.text("token"), Some(world.verify(&compact).await.unwrap().delegation().token.digest.as_str()));
}

#[tokio::test]
async fn a_refusal_of_a_known_client_is_recorded_and_one_of_a_stranger_is_not() {
    let world = World::new().await;
    assert_eq!(world.first(&[("scope", "customers.delete")]).await.error().0, "invalid_scope");
    assert_eq!(world.first(&[("client_assertion", "x.y.z")]).await.error().0, "invalid_client");
    let refused = world.records("token.refused");
    let [record] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((record.text("client_id"), record.text("error")), (Some("support"), Some("invalid_scope")));
    assert_eq!(record.text_at("/agent/issuer"), Some(ISSUER));
}

#[tokio::test]
async fn a_task_binds_one_user_one_session_and_one_agent() {
    let world = World::new().await;
    let try_with = async |agent: &str, subject: Value, task: &str| {
        let subject = world.user_token(subject);
        let answer = world.exchange(agent, &[("subject_token", &subject), ("task_id", task)]).await;
        let (error, description) = answer.error();
        assert_eq!(error, "invalid_request");
        description.to_owned()
    };
    let same = [
        try_with("support", json!({}), "no-such-task").await,
        try_with("support", json!({}), "not a name").await,
        try_with("support", json!({}), "bobs-ticket").await,
        try_with("support", json!({ "sub": "bob" }), "ticket").await,
        try_with("support", json!({ "sid": "session-2" }), "ticket").await,
        try_with("support", json!({ "sid": null }), "ticket").await,
        try_with("writer", json!({}), "ticket").await,
        try_with("support", json!({}), "writers-ticket").await,
    ];
    // One answer for all of them: names of tasks cannot be tried.
    assert!(
        same.iter().all(|description| *description == same[0] && description.starts_with("there is no task")),
        "{same:?}"
    );
    let missing = world.exchange("support", &[("subject_token", &world.user_token(json!({})))]).await;
    assert!(missing.error().1.contains("task_id"));
    assert!(world.issued().is_empty());
}

#[tokio::test]
async fn what_has_ended_gives_nothing() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 5] = [
        ("has ended", |store| store["tasks"][0]["status"] = json!("completed")),
        ("has ended", |store| store["tasks"][0]["status"] = json!("withdrawn")),
        ("has ended", |store| store["tasks"][0]["expires"] = json!(later(-1))),
        ("has expired", |store| store["grants"][0]["expires"] = json!(later(-1))),
        ("tenant", |store| {
            let agents = store["agents"].as_array_mut().unwrap();
            agents.iter_mut().find(|agent| agent["id"] == "support").unwrap()["tenants"] = json!(["other"]);
        }),
    ];
    for (expected, change) in cases {
        let world = World::with(change, |_| ()).await;
        let answer = world.first(&[]).await;
        let (error, description) = answer.error();
        assert!(error == "invalid_request" && description.contains(expected), "{description}");
    }
}

#[tokio::test]
async fn a_subject_token_that_is_not_a_users_own_for_us_is_refused() {
    let world = World::new().await;
    let cases = [
        ("another audience", json!({ "aud": "https://other.example" })),
        ("a sidecar's audience", json!({ "aud": SIDECAR })),
        ("expired", json!({ "iat": now() - 300, "exp": now() - 60 })),
        ("lives too long", json!({ "exp": now() + 3600 })),
        ("an actor", json!({ "act": { "sub": "support", "iss": ISSUER } })),
        ("a chain", json!({ "delegation_chain": [] })),
        ("a stage", json!({ "stage": "supervised" })),
        ("a tenant it may not assert", json!({ "tenant": "other" })),
        ("a may_act", json!({ "may_act": { "sub": "support" } })),
        ("another issuer", json!({ "iss": "https://other.example" })),
        ("our own name", json!({ "iss": ISSUER })),
        ("a client's own token", json!({ "client_id": "alice" })),
        ("bound to a sender", json!({ "cnf": { "jkt": "x" } })),
    ];
    for (what, change) in cases {
        let subject = world.user_token(change);
        let answer = world.exchange("support", &[("subject_token", &subject), ("task_id", "ticket")]).await;
        assert_eq!((answer.status, answer.error().0), (StatusCode::BAD_REQUEST, "invalid_request"), "{what}");
    }
    for (kind, change) in [("JWT", json!({})), ("secevent+jwt", json!({}))] {
        let claims = payload(&world.user_token(change));
        let subject = world.sso.sign(kind, &claims).unwrap();
        let answer = world.exchange("support", &[("subject_token", subject.expose()), ("task_id", "ticket")]).await;
        assert_eq!(answer.error().0, "invalid_request", "{kind}");
    }
}

#[tokio::test]
async fn the_form_of_a_request_is_held_to_the_letter() {
    let world = World::new().await;
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    let cases: [(&str, &[(&str, &str)]); 13] = [
        ("invalid_request", &[("actor_token", "x")]),
        ("invalid_request", &[("actor_token_type", jwt)]),
        ("invalid_request", &[("task_id", "ticket")]),
        ("invalid_request", &[("scope", "orders.read"), ("scope", "refunds.create")]),
        ("invalid_request", &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")]),
        ("invalid_request", &[("requested_token_type", jwt)]),
        ("invalid_request", &[("stage", "everything")]),
        ("invalid_target", &[("resource", "https://orders.example")]),
        ("invalid_target", &[("audience", "urn:example:other")]),
        ("invalid_target", &[("audience", ISSUER)]),
        ("unsupported_grant_type", &[("grant_type", "authorization_code")]),
        ("invalid_request", &[("grant_type", "client_credentials")]),
        ("invalid_request", &[("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")]),
    ];
    for (expected, parameters) in cases {
        let answer = world.first(parameters).await;
        assert_eq!(answer.error().0, expected, "{parameters:?}");
    }
    world.first(&[("audience", SIDECAR), ("resource", ""), ("unknown", "ignored")]).await.token();
}

#[tokio::test]
async fn with_several_groups_of_sidecars_one_has_to_be_named() {
    let second = "urn:example:countersign:second";
    let world =
        World::with(|_| (), |config| config.sidecars.push(crate::SidecarGroup { audience: second.to_owned() })).await;
    assert_eq!(world.first(&[]).await.error().0, "invalid_target");
    assert_eq!(payload(&world.first(&[("audience", second)]).await.token())["aud"], second);
}

/// One element with these members over the usual ones.
fn details(change: &Value) -> String {
    let mut element =
        json!({ "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"] });
    element.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!([element]).to_string()
}

#[tokio::test]
async fn asking_for_too_much_is_narrowed_and_asking_for_less_is_granted() {
    let world = World::new().await;
    let wide = details(
        &json!({ "actions": ["refunds.create", "customers.delete"], "locations": ["orders", "billing"], "limits": { "amount": { "max": "5000", "currency": "USD" } } }),
    );
    let answer = world.first(&[("authorization_details", &wide), ("scope", "refunds.create customers.delete")]).await;
    assert_eq!(answer.body["scope"], "refunds.create");
    assert_eq!(
        answer.body["authorization_details"],
        json!([{
            "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"], "identifier": "**",
            "limits": { "amount": { "max": "50.00", "currency": "USD" } }, "where": { "order.placed_by": "$user" }
        }])
    );
    let narrow = details(
        &json!({ "identifier": "orders/17", "limits": { "amount": { "max": "20", "currency": "USD" }, "n": { "max": 1, "window": "P1D" } } }),
    );
    let answer = world.first(&[("authorization_details", &narrow), ("stage", "draft")]).await;
    let element = &answer.body["authorization_details"][0];
    assert_eq!((&element["identifier"], &element["limits"]["amount"]["max"]), (&json!("orders/17"), &json!("20.00")));
    assert_eq!(element["limits"]["n"]["max"], "1");
    let claims = payload(&answer.token());
    assert_eq!((&claims["stage"], &claims["scope"]), (&json!("draft"), &json!("refunds.create")));
    // The user's hop holds the whole grant; the agent's what it asked for.
    assert_eq!(claims["delegation_chain"][0]["scope"], "orders.read refunds.create");
    assert_eq!(claims["delegation_chain"][1]["scope"], "refunds.create");
    world.verify(&answer.token()).await.unwrap();
}

#[tokio::test]
async fn the_users_own_entitlement_bounds_what_their_grant_gives() {
    let world = World::new().await;
    let ask = async |groups: Value| {
        let subject = world.user_token(json!({ "groups": groups }));
        world.exchange("support", &[("subject_token", &subject), ("task_id", "ticket")]).await
    };
    let reader = ask(json!(["readers"])).await;
    assert_eq!(reader.body["scope"], "orders.read");
    assert_eq!(payload(&reader.token())["delegation_chain"][0]["scope"], "orders.read");
    let nobody = ask(json!(["guests"])).await;
    let (error, description) = nobody.error();
    assert!(error == "invalid_scope" && description.contains("the user"), "{description}");
}

#[tokio::test]
async fn nothing_left_is_invalid_scope_and_says_whose_limit_it_was() {
    let world = World::new().await;
    for parameters in [
        vec![("scope", "customers.delete".to_owned())],
        vec![("authorization_details", details(&json!({ "locations": ["billing"] })))],
        vec![("authorization_details", details(&json!({ "limits": { "amount": { "max": "5", "currency": "EUR" } } })))],
        vec![("authorization_details", details(&json!({ "where": { "order.placed_by": "$agent" } })))],
        vec![("authorization_details", "[]".to_owned())],
        vec![("authorization_details", details(&json!({}))), ("scope", "orders.read".to_owned())],
    ] {
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(world.first(&parameters).await.error().0, "invalid_scope", "{parameters:?}");
    }
    let unregistered = |store: &mut Value| {
        for agent in store["agents"].as_array_mut().unwrap() {
            agent["actions"] = json!([]);
        }
    };
    let answer = World::with(unregistered, |_| ()).await.first(&[]).await;
    assert!(answer.error().1.contains("agent support"), "{}", answer.body);
}

#[tokio::test]
async fn malformed_details_are_named_as_such() {
    let world = World::new().await;
    let many =
        Value::Array(vec![json!({ "type": "urn:countersign:action", "actions": ["a"], "locations": ["b"] }); 17]);
    for text in [
        "{".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        r#"[{"type":"urn:countersign:action","actions":["a"],"actions":["b"],"locations":["b"]}]"#.to_owned(),
        details(&json!({ "type": "other" })),
        details(&json!({ "privileges": ["admin"] })),
        details(&json!({ "limits": { "amount": { "max": 50.5 } } })),
        details(&json!({ "limits": { "amount": { "max": "-1" } } })),
        details(&json!({ "identifier": "a//b" })),
        "[".repeat(100),
        many.to_string(),
    ] {
        let answer = world.first(&[("authorization_details", &text)]).await;
        assert_eq!(
            (answer.status, answer.error().0),
            (StatusCode::BAD_REQUEST, "invalid_authorization_details"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_token_ends_no_later_than_anything_it_rests_on() {
    let lives = async |world: &World, subject: i64| {
        let subject = world.user_token(json!({ "iat": now(), "exp": now() + subject }));
        let answer = world.exchange("support", &[("subject_token", &subject), ("task_id", "ticket")]).await;
        let claims = payload(&answer.token());
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(answer.body["expires_in"], life);
        life
    };
    let world = World::new().await;
    assert!((20..=30).contains(&lives(&world, 30).await));
    let short =
        World::with(|_| (), |config| config.token_lifetime = model::duration::ConfigDuration::seconds(40)).await;
    assert_eq!(lives(&short, 200).await, 40);
    let task = World::with(|store| store["tasks"][0]["expires"] = json!(later(50)), |_| ()).await;
    assert!((40..=50).contains(&lives(&task, 200).await));
    let grant = World::with(|store| store["grants"][0]["expires"] = json!(later(50)), |_| ()).await;
    assert!((40..=50).contains(&lives(&grant, 200).await));
}

#[tokio::test]
async fn a_detached_task_needs_no_session_but_still_its_user() {
    let detached = |store: &mut Value| {
        store["tasks"][0]["session"] = Value::Null;
        store["tasks"][0]["presence"] = json!("detached");
    };
    let world = World::with(detached, |_| ()).await;
    let claims = payload(&world.first_token().await);
    assert_eq!(claims["user_presence"], "detached");
    let bob = world.user_token(json!({ "sub": "bob" }));
    let answer = world.exchange("support", &[("subject_token", &bob), ("task_id", "ticket")]).await;
    assert_eq!(answer.error().0, "invalid_request");
}

#[tokio::test]
async fn the_same_name_at_another_issuer_is_another_user() {
    let elsewhere = |store: &mut Value| store["grants"][0]["user"]["issuer"] = json!(format!("{SSO}/other"));
    let world = World::with(elsewhere, |_| ()).await;
    assert!(world.first(&[]).await.error().1.starts_with("there is no task"));
}
