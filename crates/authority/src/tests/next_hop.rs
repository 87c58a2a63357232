//! Later hops: handing on takes the parent's key and the sub-agent's key, and nothing less.

use serde_json::{Value, json};

use super::world::{ISSUER, SIDECAR, World, now, payload};

/// The grant, with so many further agents allowed.
fn redelegate(times: usize) -> impl FnOnce(&mut Value) {
    move |store| store["grants"][0]["redelegate"] = json!(times)
}

#[tokio::test]
async fn a_parent_hands_on_and_the_named_agent_takes_over() {
    let world = World::new().await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await;
    assert_eq!(
        (&handed.body["token_type"], &handed.body["issued_token_type"]),
        (&json!("N_A"), &json!("urn:ietf:params:oauth:token-type:jwt"))
    );
    assert!(handed.body["expires_in"].as_i64().unwrap() <= 60);
    let claims = payload(&handed.token());
    assert_eq!((&claims["aud"], &claims["may_act"]), (&json!(ISSUER), &json!({ "iss": ISSUER, "sub": "researcher" })));

    let answer = world.exchange("researcher", &[("subject_token", &handed.token()), ("scope", "orders.read")]).await;
    let compact = answer.token();
    let verified = world.verify(&compact).await.unwrap();
    let delegation = verified.delegation();
    let names: Vec<_> = delegation.chain.hops().map(|hop| hop.principal.to_string()).collect();
    assert_eq!(names, ["user:alice@acme", "agent:support", "agent:researcher"]);
    assert_eq!(delegation.authority.scope.to_string(), "orders.read");
    let claims = payload(&compact);
    assert_eq!(claims["act"]["sub"], "researcher");
    assert_eq!(claims["act"]["act"]["sub"], "support");
    assert_eq!((claims.get("may_act"), claims.get("parent_exp")), (None, None));
    assert_eq!(claims["delegation_chain"][1]["jti"], payload(&parent)["jti"]);
    assert_eq!(
        (&claims["task_id"], &claims["run_id"], &claims["sid"]),
        (&json!("ticket"), &json!("run-1"), &json!("session-1"))
    );
    assert_eq!(world.issued().len(), 3);
}

#[tokio::test]
async fn a_sub_agent_may_outlive_the_handing_over_but_never_the_parent() {
    let world = World::new().await;
    let subject = world.user_token(json!({ "exp": now() + 100 }));
    let parent = world.exchange("support", &[("subject_token", &subject), ("task_id", "ticket")]).await.token();
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let claims = payload(&world.exchange("researcher", &[("subject_token", &handed)]).await.token());
    assert_eq!(claims["exp"], payload(&parent)["exp"]);
    assert!(claims["exp"].as_i64() > payload(&handed)["exp"].as_i64());
}

#[tokio::test]
async fn the_parents_token_alone_is_spliced_into_no_chain() {
    let world = World::new().await;
    let parent = world.first_token().await;
    for parameters in
        [vec![("subject_token", parent.as_str())], vec![("subject_token", &parent), ("task_id", "ticket")]]
    {
        let stolen = world.exchange("researcher", &parameters).await;
        let (error, description) = stolen.error();
        assert!(error == "invalid_request" && description.contains("not handed over"), "{description}");
    }
    let stolen = world.hand_over("researcher", &parent, "researcher").await;
    assert!(stolen.error().1.contains("not this client's own"), "{}", stolen.body);
    let stolen = world.hand_over("writer", &parent, "researcher").await;
    assert!(stolen.error().1.contains("not this client's own"), "{}", stolen.body);
    assert_eq!(world.issued().len(), 1);
}

#[tokio::test]
async fn what_was_handed_to_one_agent_is_of_no_use_to_another_nor_to_a_sidecar() {
    let world = World::with(redelegate(3), |_| ()).await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let other = world.exchange("writer", &[("subject_token", &handed)]).await;
    assert!(other.error().1.contains("names another agent"), "{}", other.body);
    let itself = world.exchange("support", &[("subject_token", &handed)]).await;
    assert_eq!(itself.error().0, "invalid_request");
    let rejection = world.verify(&handed).await.unwrap_err();
    assert_eq!(rejection.refusal.code, model::Code::WrongAudience);
    for agent in ["support", "researcher"] {
        let passed_on = world.hand_over(agent, &handed, "writer").await;
        assert!(passed_on.error().1.contains("cannot be handed on"), "{}", passed_on.body);
    }
    // Only who it names may use it, and once.
    world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    let again = world.exchange("researcher", &[("subject_token", &handed)]).await;
    assert!(again.error().1.contains("used before"), "{}", again.body);
}

#[tokio::test]
async fn a_chain_neither_loops_nor_grows_beyond_the_grant() {
    let world = World::with(redelegate(1), |_| ()).await;
    let parent = world.first_token().await;
    let itself = world.hand_over("support", &parent, "support").await;
    assert!(itself.error().1.contains("in the chain already"), "{}", itself.body);
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let second = world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    let back = world.hand_over("researcher", &second, "support").await;
    assert!(back.error().1.contains("in the chain already"), "{}", back.body);
    let third = world.hand_over("researcher", &second, "writer").await;
    assert!(third.error().1.contains("may be passed on to 1"), "{}", third.body);

    let never = World::with(redelegate(0), |_| ()).await;
    let answer = never.hand_over("support", &never.first_token().await, "researcher").await;
    assert!(answer.error().1.contains("may be passed on to 0"), "{}", answer.body);
}

#[tokio::test]
async fn a_chain_that_the_sidecars_would_refuse_is_not_begun() {
    let world = World::with(redelegate(7), |config| config.max_agents = 2).await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let second = world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    world.verify(&second).await.unwrap();
    let third = world.hand_over("researcher", &second, "writer").await;
    let (error, description) = third.error();
    assert!(error == "invalid_request" && description.contains("more than 2 (`max_agents`)"), "{description}");
}

#[tokio::test]
async fn three_hops_narrow_one_after_the_other() {
    let world = World::with(redelegate(2), |_| ()).await;
    let twenty = json!([{ "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
        "limits": { "amount": { "max": "20", "currency": "USD" } } }])
    .to_string();
    let parent = world.first_token().await;
    let handed = world
        .exchange(
            "support",
            &[("subject_token", &parent), ("requested_actor", "researcher"), ("authorization_details", &twenty)],
        )
        .await
        .token();
    let second = world.exchange("researcher", &[("subject_token", &handed), ("stage", "draft")]).await.token();
    let handed = world.hand_over("researcher", &second, "writer").await.token();
    let wide = twenty.replace("\"20\"", "\"40\"");
    let third = world
        .exchange("writer", &[("subject_token", &handed), ("authorization_details", &wide), ("stage", "supervised")])
        .await
        .token();
    let claims = payload(&third);
    let max = |hop: &Value| hop["authorization_details"][0]["limits"]["amount"]["max"].clone();
    let chain = claims["delegation_chain"].as_array().unwrap();
    assert_eq!(
        chain.iter().map(max).collect::<Vec<_>>(),
        [json!("50.00"), json!("50.00"), json!("20.00"), json!("20.00")]
    );
    assert_eq!((max(&claims), &claims["stage"]), (json!("20.00"), &json!("draft")));
    world.verify(&third).await.unwrap();
}

#[tokio::test]
async fn the_agent_named_has_to_be_registered_active_and_for_the_task() {
    let world = World::new().await;
    let parent = world.first_token().await;
    for (actor, expected) in [("nobody", "no agent"), ("not a name", "no agent"), ("sleeper", "suspended")] {
        let answer = world.hand_over("support", &parent, actor).await;
        assert!(answer.error().1.contains(expected), "{}", answer.body);
    }
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let wrong = world.exchange("researcher", &[("subject_token", &handed), ("task_id", "writers-ticket")]).await;
    assert!(wrong.error().1.contains("task_id"), "{}", wrong.body);
    let target = world
        .exchange("support", &[("subject_token", &parent), ("requested_actor", "researcher"), ("audience", SIDECAR)])
        .await;
    assert_eq!(target.error().0, "invalid_target");
}

#[tokio::test]
async fn a_users_own_token_cannot_name_an_actor() {
    let world = World::new().await;
    let answer = world.first(&[("requested_actor", "researcher")]).await;
    assert!(answer.error().1.contains("own delegated token"), "{}", answer.body);
}

#[tokio::test]
async fn an_agent_does_not_renew_its_own_token() {
    let world = World::new().await;
    let parent = world.first_token().await;
    let answer = world.exchange("support", &[("subject_token", &parent)]).await;
    assert!(answer.error().1.contains("requested_actor"), "{}", answer.body);
}

#[tokio::test]
async fn a_token_that_says_it_is_ours_but_was_signed_by_another_is_refused() {
    let world = World::new().await;
    let handed = world.hand_over("support", &world.first_token().await, "researcher").await.token();
    let mut claims = payload(&handed);
    claims["may_act"]["sub"] = json!("writer");
    let forged = world.agents["writer"].sign("at+jwt", &claims).unwrap();
    let answer = world.exchange("writer", &[("subject_token", forged.expose())]).await;
    assert_eq!(answer.error().0, "invalid_request");
    let forged = world.sso.sign("at+jwt", &claims).unwrap();
    let answer = world.exchange("writer", &[("subject_token", forged.expose())]).await;
    assert_eq!(answer.error().0, "invalid_request");
}
