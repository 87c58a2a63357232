//! Work that goes on without its user: tokens from agent and task alone, tasks that agents start, and tokens given back
//! and asked about.

use serde_json::{Value, json};

use super::world::{World, payload};

const REISSUE: (&str, &str) = ("grant_type", "client_credentials");

/// A world whose grant permits work without the user.
async fn detached() -> World {
    World::with(
        |store| {
            store["grants"][0]["presence"] = json!(["detached"]);
            store["tasks"][0]["presence"] = json!("detached");
            store["tasks"][0].as_object_mut().unwrap().remove("session");
        },
        |_| (),
    )
    .await
}

async fn reissue(world: &World, agent: &str, parameters: &[(&str, &str)]) -> super::world::Answer {
    let assertion = world.assertion(agent, json!({}));
    let usual = [
        REISSUE,
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", assertion.as_str()),
    ];
    world.post(&[&usual, parameters].concat()).await
}

#[tokio::test]
async fn a_task_goes_on_by_the_agents_own_credential_for_as_long_as_it_lives() {
    let world = detached().await;
    let task = [("task_id", "ticket")];
    let unknown = reissue(&world, "support", &task).await;
    assert!(unknown.error().1.contains("nothing is known"), "{}", unknown.body);
    world.first_token().await;
    let token = reissue(&world, "support", &task).await.token();
    let said = payload(&token);
    assert_eq!(
        (&said["sub"], &said["act"]["sub"], &said["task_id"]),
        (&json!("alice"), &json!("support"), &json!("ticket"))
    );
    assert_eq!((&said["groups"], &said["user_presence"]), (&json!(["support"]), &json!("detached")));
    assert_eq!(said["scope"], "orders.read refunds.create");
    world.verify(&token).await.unwrap();

    // What the user may do is what was last known of them.
    let less = world.user_token(json!({ "groups": ["readers"] }));
    world.exchange("support", &[("subject_token", &less), ("task_id", "ticket")]).await.token();
    let said = payload(&reissue(&world, "support", &task).await.token());
    assert_eq!(said["scope"], "orders.read");

    for (agent, parameters) in [
        ("writer", &[("task_id", "ticket")][..]),
        ("sleeper", &[("task_id", "ticket")]),
        ("support", &[("task_id", "bobs-ticket")]),
        ("support", &[("task_id", "nothing")]),
        ("support", &[]),
        ("support", &[("task_id", "ticket"), ("subject_token", &less)]),
        ("support", &[("task_id", "ticket"), ("requested_actor", "writer")]),
        ("support", &[("task_id", "ticket"), ("scope", "payroll.read")]),
        ("support", &[("task_id", "ticket"), ("audience", "urn:example:other")]),
    ] {
        let refused = reissue(&world, agent, parameters).await;
        assert!(refused.body.get("access_token").is_none(), "{agent} {parameters:?}");
    }
    let token = world.management_token(&json!({}));
    world.manage("POST", "tasks/ticket/end", &token, json!({})).await.done();
    assert!(reissue(&world, "support", &task).await.error().1.contains("ended"));
}

#[tokio::test]
async fn a_task_bound_to_a_session_ends_with_it() {
    let world = World::new().await;
    world.first_token().await;
    reissue(&world, "support", &[("task_id", "ticket")]).await.token();
    let token = world.management_token(&json!({}));
    let body = json!({ "target": "session:session-1", "reason": "logged out" });
    world.manage("POST", "withdrawals", &token, body).await.done();
    assert_eq!(reissue(&world, "support", &[("task_id", "ticket")]).await.error().0, "invalid_request");
    // Nor does another task begin in that session.
    assert_eq!(world.first(&[("task_id", ""), ("grant_id", "grant")]).await.error().0, "invalid_request");
}

#[tokio::test]
async fn an_agent_starts_at_observe_under_its_own_grant_and_no_further() {
    let world = detached().await;
    let subject = world.user_token(json!({}));
    let with = |more: &[(&'static str, &'static str)]| [&[("grant_id", "grant")], more].concat();
    let start = |more: Vec<(&'static str, &'static str)>| {
        let parameters =
            [vec![("subject_token", subject.clone())], more.iter().map(|(n, v)| (*n, (*v).to_owned())).collect()]
                .concat();
        let world = &world;
        async move {
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            world.exchange("support", &parameters).await
        }
    };
    let answer = start(with(&[])).await;
    let said = payload(&answer.token());
    assert_eq!(
        (&said["stage"], &said["user_presence"], &said["initiated_by"]),
        (&json!("observe"), &json!("present"), &json!("support"))
    );
    assert_eq!(answer.body["task_id"], said["task_id"]);
    assert_eq!(world.records("task.started").last().unwrap().fields["task_id"], said["task_id"]);
    for more in [&[("stage", "draft")][..], &[("task_id", "ticket")]] {
        assert_eq!(start(with(more)).await.error().0, "invalid_request", "{more:?}");
    }
    assert_eq!(start(vec![("grant_id", "bobs")]).await.error().0, "invalid_request");
    assert_eq!(start(vec![("grant_id", "writers")]).await.error().0, "invalid_request");
    // Without the user, where the grant permits it.
    let alone = reissue(&world, "support", &[("grant_id", "grant")]).await;
    assert_eq!(payload(&alone.token())["user_presence"], "detached");
    let refused = World::new().await;
    refused.first_token().await;
    assert_eq!(reissue(&refused, "support", &[("grant_id", "grant")]).await.error().0, "unauthorized_client");
}

#[tokio::test]
async fn what_a_person_took_back_no_agent_begins_again_by_itself() {
    for target in ["user:alice", "tenant:acme"] {
        let world = detached().await;
        world.first_token().await;
        let alone = [("grant_id", "grant")];
        reissue(&world, "support", &alone).await.token();
        let body = json!({ "target": target, "reason": "enough" });
        world.manage("POST", "withdrawals", &world.admin_token(), body).await.done();
        assert!(reissue(&world, "support", &alone).await.error().1.contains("a person"), "{target}");
        // Nor by a token that the user had before.
        let before = world.user_token(json!({}));
        let parameters = [("subject_token", before.as_str()), ("grant_id", "grant")];
        assert!(world.exchange("support", &parameters).await.error().1.contains("withdrawn"), "{target}");
        // A person does, who logged in since.
        let token = world.management_token(&json!({}));
        let start = json!({ "grant": "grant", "presence": "detached", "expires_in": "30m" });
        let task = world.manage("POST", "tasks", &token, start).await.done();
        reissue(&world, "support", &[("task_id", task["id"].as_str().unwrap())]).await.token();
    }
}

#[tokio::test]
async fn a_token_that_is_given_back_is_good_for_nothing_any_more() {
    let world = World::new().await;
    let token = world.first_token().await;
    let ask = |path: &'static str, agent: &'static str, token: String| {
        let world = &world;
        async move {
            let assertion = world.assertion(agent, json!({}));
            world
                .post_to(
                    path,
                    &[
                        ("token", &token),
                        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                        ("client_assertion", &assertion),
                    ],
                )
                .await
        }
    };
    let told = ask("/oauth2/introspect", "support", token.clone()).await.done();
    assert_eq!((&told["active"], &told["sub"], &told["client_id"]), (&json!(true), &json!("alice"), &json!("support")));
    assert!(told.get("groups").is_none(), "{told}");
    // Another agent learns nothing of it, and takes nothing back.
    assert_eq!(ask("/oauth2/introspect", "writer", token.clone()).await.done(), json!({ "active": false }));
    assert_eq!(ask("/oauth2/revoke", "writer", token.clone()).await.error().0, "unauthorized_client");
    for nothing in ["nonsense".to_owned(), world.user_token(json!({}))] {
        assert_eq!(ask("/oauth2/introspect", "support", nothing.clone()).await.done(), json!({ "active": false }));
        ask("/oauth2/revoke", "support", nothing).await.done();
    }
    for _ in 0..2 {
        ask("/oauth2/revoke", "support", token.clone()).await.done();
    }
    assert_eq!(world.records("withdrawal.created").len(), 1, "given back twice is given back once");
    assert_eq!(ask("/oauth2/introspect", "support", token.clone()).await.done(), json!({ "active": false }));
    assert_eq!(world.hand_over("support", &token, "researcher").await.error().0, "invalid_request");
    // The task goes on.
    let next = world.first_token().await;
    assert_eq!(ask("/oauth2/introspect", "support", next).await.done()["active"], Value::Bool(true));
}
