//! The management API: which tokens open it, what each may do, and what is on record before the answer.

use serde_json::{Value, json};

use super::world::{ISSUER, MANAGEMENT, SSO, World, now};

fn withdrawal(target: &str) -> Value {
    json!({ "target": target, "reason": "a test" })
}

#[tokio::test]
async fn nothing_but_a_management_token_opens_anything() {
    let world = World::new().await;
    let delegated = world.first_token().await;
    let handed = world.hand_over("support", &delegated, "researcher").await.token();
    let assertion = world.assertion("support", json!({}));
    let user = world.user_token(json!({}));
    let m = |change: Value| world.management_token(&change);
    let refused = [
        ("the user's own token", user),
        ("a delegated token", delegated),
        ("a handed-over token", handed),
        ("a client assertion", assertion),
        ("another client's", m(json!({ "client_id": "support" }))),
        ("no client", m(json!({ "client_id": null }))),
        ("a listed client that another one asked for", m(json!({ "azp": "support" }))),
        ("one that names an actor", m(json!({ "act": { "sub": "support" } }))),
        ("one that may be acted with", m(json!({ "may_act": { "sub": "support" } }))),
        ("one with a chain", m(json!({ "delegation_chain": [] }))),
        ("one that is good for an exchange too", m(json!({ "aud": [MANAGEMENT, "https://api.example"] }))),
        ("one that is good for the authority too", m(json!({ "aud": [MANAGEMENT, ISSUER] }))),
        ("one that is over", m(json!({ "iat": now() - 600, "exp": now() - 300 }))),
        ("an unknown issuer's", m(json!({ "iss": "https://other.example" }))),
        ("no token", "a.b.c".to_owned()),
    ];
    for (name, token) in &refused {
        for (method, path) in [
            ("GET", "withdrawals"),
            ("POST", "withdrawals"),
            ("GET", "sidecars"),
            ("POST", "sidecars"),
            ("GET", "agents"),
            ("POST", "agents"),
            ("POST", "agents/support/reinstate"),
            ("GET", "grants"),
            ("POST", "grants"),
            ("POST", "grants/grant/change"),
            ("GET", "tasks"),
            ("POST", "tasks"),
            ("POST", "tasks/ticket/stage"),
            ("GET", "changes"),
        ] {
            let answer = world.manage(method, path, token, Value::Null).await;
            assert_eq!(answer.problem(), (401, "invalid_token"), "{name}: {method} {path}");
        }
    }
    assert_eq!(world.manage("GET", "agents", "", Value::Null).await.problem(), (401, "no_credential"));
    // The same with what is right.
    world.manage("GET", "agents", &world.management_token(&json!({})), Value::Null).await.done();
    let azp = world.management_token(&json!({ "client_id": null, "azp": "countersign-cli" }));
    world.manage("GET", "agents", &azp, Value::Null).await.done();
}

#[tokio::test]
async fn a_management_token_is_no_subject_token() {
    let world = World::new().await;
    for audience in [json!(MANAGEMENT), json!([MANAGEMENT, "https://api.example"]), json!([ISSUER, MANAGEMENT])] {
        let token = world.management_token(&json!({ "aud": audience }));
        let answer = world.exchange("support", &[("subject_token", &token), ("task_id", "ticket")]).await;
        assert_eq!(answer.error().0, "invalid_request", "{audience}");
    }
}

#[tokio::test]
async fn a_withdrawal_ends_what_it_is_of_and_is_on_record_with_who_and_why() {
    let world = World::new().await;
    let before = world.first_token().await;
    let token = world.management_token(&json!({}));
    let made = world.manage("POST", "withdrawals", &token, withdrawal("task:ticket")).await;
    assert_eq!(made.status.as_u16(), 201);
    let records = world.records("withdrawal.created");
    let record = records.last().unwrap();
    assert_eq!(record.fields["position"], made.body["position"]);
    assert_eq!(
        (&record.fields["by"], &record.fields["reason"]),
        (&json!(format!("user:alice of {SSO}")), &json!("a test"))
    );
    assert_eq!(record.fields["task_id"], "ticket");

    let pos = super::world::payload(&before)["pos"].as_u64().unwrap();
    assert!(pos < made.body["position"].as_u64().unwrap(), "{pos} {}", made.body);
    let refused = world.first(&[]).await;
    assert!(refused.error().1.contains("ended"), "{}", refused.body);
    // Nor is anything made from what was issued before.
    assert_eq!(world.hand_over("support", &before, "researcher").await.error().0, "invalid_request");
    let listed = world.manage("GET", "withdrawals?target=task:ticket", &token, Value::Null).await.done();
    assert_eq!(listed["withdrawals"].as_array().unwrap().len(), 1);
    assert_eq!(listed["withdrawals"][0]["name"], "task:ticket");
}

#[tokio::test]
async fn users_touch_only_their_own_and_are_not_told_what_else_there_is() {
    let world = World::new().await;
    let alice = world.management_token(&json!({}));
    let bob = world.management_token(&json!({ "sub": "bob", "sid": "session-2" }));
    for target in [
        "task:ticket",
        "grant:grant",
        "run:run-1",
        "user:alice",
        "session:session-1",
        "task:nothing",
        "grant:nothing",
        "run:nothing",
    ] {
        let answer = world.manage("POST", "withdrawals", &bob, withdrawal(target)).await;
        assert_eq!(answer.problem(), (404, "not_found"), "{target}");
    }
    for target in ["agent:support", "tenant:acme", "token:some", "instance:support#one"] {
        let answer = world.manage("POST", "withdrawals", &alice, withdrawal(target)).await;
        assert_eq!(answer.problem(), (403, "forbidden"), "{target}");
    }
    assert_eq!(world.manage("GET", "withdrawals", &alice, Value::Null).await.problem(), (403, "forbidden"));
    for path in ["sidecars", "sidecars/x"] {
        assert_eq!(world.manage("GET", path, &alice, Value::Null).await.problem(), (403, "forbidden"));
    }
    for (path, body) in [
        ("grants/grant/withdraw", json!({ "reason": "mine now" })),
        ("grants/grant/change", json!({ "stage": "observe", "reason": "mine now" })),
        ("tasks/ticket/end", json!({})),
        ("tasks/ticket/stage", json!({ "stage": "observe" })),
        ("tasks", json!({ "grant": "grant", "expires_in": "1h" })),
    ] {
        assert_eq!(world.manage("POST", path, &bob, body).await.problem(), (404, "not_found"), "{path}");
    }
    let grants = world.manage("GET", "grants", &bob, Value::Null).await.done();
    assert_eq!(grants["grants"].as_array().unwrap().len(), 1, "{grants}");
    assert_eq!(world.manage("GET", "grants?user=alice", &bob, Value::Null).await.problem(), (404, "not_found"));
    let tasks = world.manage("GET", "tasks", &bob, Value::Null).await.done();
    assert_eq!(tasks["tasks"][0]["id"], "bobs-ticket", "{tasks}");
    // What is their own, they end.
    world.manage("POST", "withdrawals", &bob, withdrawal("grant:bobs")).await.done();
    world.manage("POST", "withdrawals", &alice, withdrawal("session:session-1")).await.done();
    let refused = world.first(&[]).await;
    assert_eq!(refused.error().0, "invalid_request");
    // A group of another issuer's making administers nothing: here there is one issuer, so its word counts.
    let all = world.manage("GET", "withdrawals?limit=1", &world.admin_token(), Value::Null).await.done();
    assert!(all["next"].is_string(), "{all}");
}

#[tokio::test]
async fn what_widens_needs_a_login_of_just_now() {
    let world = World::new().await;
    let old = world.management_token(&json!({ "auth_time": now() - 600, "groups": ["support", "platform"] }));
    let never = world.management_token(&json!({ "auth_time": null, "groups": ["support", "platform"] }));
    let ahead = world.management_token(&json!({ "auth_time": now() + 600, "groups": ["support", "platform"] }));
    let details = json!([{ "type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"] }]);
    let agent =
        json!({ "id": "new", "owner": "dana", "actions": ["orders.read"], "tenants": ["acme"], "credentials": [] });
    let grant = json!({ "agent": "support", "authorization_details": details, "expires_in": "1h" });
    for token in [&old, &never, &ahead] {
        for (path, body) in [
            ("agents", agent.clone()),
            ("agents/sleeper/reinstate", json!({ "reason": "back" })),
            ("sidecars", json!({ "tenants": ["acme"] })),
            ("grants", grant.clone()),
            ("grants/grant/change", json!({ "redelegate": 5, "reason": "wider" })),
            ("tasks", json!({ "grant": "grant", "stage": "draft", "justification": "why", "expires_in": "1h" })),
        ] {
            let answer = world.manage("POST", path, token, body).await;
            assert_eq!(answer.problem(), (401, "login_too_old"), "{path}");
            assert_eq!(answer.body["max_age"], 300);
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.contains("insufficient_user_authentication"), "{challenge}");
        }
    }
    // What lessens does not wait for a login.
    world.manage("POST", "grants/grant/change", &old, json!({ "stage": "draft", "reason": "less" })).await.done();
    world.manage("POST", "withdrawals", &old, withdrawal("agent:support")).await.done();
}

#[tokio::test]
async fn a_grant_is_clipped_to_its_user_narrowed_and_withdrawn() {
    let world = World::new().await;
    let token = world.management_token(&json!({}));
    let element =
        |actions: Value| json!([{ "type": "urn:countersign:action", "actions": actions, "locations": ["orders"] }]);
    let asked = json!({ "agent": "support", "authorization_details": element(json!(["orders.read", "payroll.read"])), "expires_in": "1h", "stage": "supervised" });
    let made = world.manage("POST", "grants", &token, asked).await.done();
    assert_eq!((&made["scope"], &made["clipped"]), (&json!(["orders.read"]), &json!(["payroll.read"])), "{made}");
    let beyond =
        json!({ "agent": "support", "authorization_details": element(json!(["payroll.read"])), "expires_in": "1h" });
    let refused = world.manage("POST", "grants", &token, beyond).await;
    assert_eq!(refused.problem(), (403, "beyond"));
    assert_eq!(refused.body["limiting_hop"], "user:alice@acme");
    let bobs = json!({ "agent": "support", "user": "bob", "authorization_details": element(json!(["orders.read"])), "expires_in": "1h" });
    assert_eq!(world.manage("POST", "grants", &token, bobs.clone()).await.problem(), (403, "forbidden"));
    let by_admin = json!({ "agent": "support", "user": { "issuer": SSO, "id": "bob" }, "authorization_details": element(json!(["orders.read"])), "expires_in": "1h" });
    let given = world.manage("POST", "grants", &world.admin_token(), by_admin).await.done();
    assert_eq!(given["given_by"], format!("user:root of {SSO}"));

    // A task under it, and what it gives.
    let id = made["id"].as_str().unwrap();
    let start = json!({ "grant": id, "expires_in": "30m", "stage": "supervised", "justification": "a ticket" });
    let task = world.manage("POST", "tasks", &token, start).await.done();
    let task = task["id"].as_str().unwrap();
    let subject = world.user_token(json!({}));
    let parameters = [("subject_token", subject.as_str()), ("task_id", task)];
    let before = world.exchange("support", &parameters).await.token();
    // Narrowed: what was issued before is withdrawn, what is issued after is less.
    let change = json!({ "stage": "observe", "reason": "only looking" });
    world.manage("POST", &format!("grants/{id}/change"), &token, change).await.done();
    let after = world.exchange("support", &parameters).await.token();
    let (before, after) = (super::world::payload(&before), super::world::payload(&after));
    assert_eq!((&before["stage"], &after["stage"]), (&json!("supervised"), &json!("observe")));
    let listed = world.manage("GET", &format!("withdrawals?target=grant:{id}"), &token, Value::Null).await.done();
    let position = listed["withdrawals"][0]["position"].as_u64().unwrap();
    assert!(before["pos"].as_u64().unwrap() < position && position <= after["pos"].as_u64().unwrap(), "{listed}");
    assert_eq!(listed["withdrawals"][0]["cause"], "narrowed");

    world.manage("POST", &format!("grants/{id}/withdraw"), &token, json!({ "reason": "enough" })).await.done();
    assert_eq!(world.exchange("support", &parameters).await.error().0, "invalid_request");
    let shown = world.manage("GET", &format!("tasks/{task}"), &token, Value::Null).await.done();
    assert_eq!(shown["status"], "withdrawn", "{shown}");
}

#[tokio::test]
async fn a_grant_for_somebody_else_is_clipped_to_what_their_last_token_said() {
    let world = World::new().await;
    let admin = world.admin_token();
    let asked = |actions: Value| {
        let element = json!({ "type": "urn:countersign:action", "actions": actions, "locations": ["orders"] });
        json!({ "agent": "support", "user": { "issuer": SSO, "id": "alice" }, "authorization_details": [element], "expires_in": "1h" })
    };
    let unknown = world.manage("POST", "grants", &admin, asked(json!(["orders.read", "payroll.read"]))).await.done();
    assert_eq!((&unknown["scope"], &unknown["clipped"]), (&json!(["orders.read", "payroll.read"]), &Value::Null));
    assert_eq!(unknown["clipped_at_exchange"], true);
    world.first_token().await;
    let known = world.manage("POST", "grants", &admin, asked(json!(["orders.read", "payroll.read"]))).await.done();
    assert_eq!((&known["scope"], &known["clipped"]), (&json!(["orders.read"]), &json!(["payroll.read"])), "{known}");
    assert!(known["entitlement_as_of"].is_string() && known.get("clipped_at_exchange").is_none(), "{known}");
    let beyond = world.manage("POST", "grants", &admin, asked(json!(["payroll.read"]))).await;
    assert_eq!(beyond.problem(), (403, "beyond"));
    assert_eq!(beyond.body["limiting_hop"], "user:alice");
    // Nor is one widened past them.
    let path = format!("grants/{}/change", known["id"].as_str().unwrap());
    let wider = json!({ "authorization_details": asked(json!(["orders.read", "payroll.read"]))["authorization_details"], "reason": "more" });
    let changed = world.manage("POST", &path, &admin, wider).await.done();
    assert_eq!((&changed["scope"], &changed["clipped"]), (&json!(["orders.read"]), &json!(["payroll.read"])));
}

#[tokio::test]
async fn an_agent_is_registered_with_an_owner_and_taken_out_of_service() {
    let world = World::new().await;
    let admin = world.admin_token();
    let key = token::SigningKey::generate(token::Algorithm::Es256).unwrap();
    let jwks = token::mint::key_set([&key]);
    let new = |owner: &str| json!({ "id": "new", "owner": owner, "actions": ["orders.read"], "tenants": ["acme"], "credentials": [{ "jwks": jwks }] });
    assert_eq!(world.manage("POST", "agents", &admin, new(" ")).await.problem().0, 400);
    let mut unknown = new("dana");
    unknown["tenants"] = json!(["elsewhere"]);
    assert_eq!(world.manage("POST", "agents", &admin, unknown).await.problem().0, 400);
    let mut file = new("dana");
    file["credentials"] = json!([{ "jwks_file": "/etc/passwd" }]);
    assert_eq!(world.manage("POST", "agents", &admin, file).await.problem().0, 400);
    let user = world.management_token(&json!({}));
    assert_eq!(world.manage("POST", "agents", &user, new("dana")).await.problem(), (403, "forbidden"));
    let made = world.manage("POST", "agents", &admin, new("dana")).await.done();
    assert_eq!((&made["status"], &made["credentials"][0]["overdue"]), (&json!("active"), &json!(false)), "{made}");
    assert_eq!(world.manage("POST", "agents", &admin, new("dana")).await.problem(), (409, "conflict"));

    let reason = || json!({ "reason": "a test" });
    world.manage("POST", "agents/support/suspend", &admin, reason()).await.done();
    assert!(world.first(&[]).await.error().1.contains("suspended"));
    world.manage("POST", "agents/support/reinstate", &admin, reason()).await.done();
    world.first_token().await;
    world.manage("POST", "agents/support/decommission", &admin, reason()).await.done();
    assert!(world.first(&[]).await.error().1.contains("decommissioned"));
    assert_eq!(world.manage("POST", "agents/support/reinstate", &admin, reason()).await.problem(), (409, "conflict"));
    // Users see who may work for them, and not how it shows itself.
    let seen = world.manage("GET", "agents/new", &user, Value::Null).await.done();
    assert!(seen.get("credentials").is_none() && seen["owner"] == "dana", "{seen}");
}

#[tokio::test]
async fn a_write_with_a_key_is_made_once() {
    let world = World::new().await;
    let token = world.management_token(&json!({}));
    let key = [("idempotency-key", "one")];
    let post = |body: Value| world.manage_with("POST", "withdrawals", &token, body, &key);
    let first = post(withdrawal("task:ticket")).await;
    let again = post(withdrawal("task:ticket")).await;
    assert_eq!(first.body, again.body);
    assert_eq!(
        (first.headers.get("idempotency-replayed"), &again.headers["idempotency-replayed"]),
        (None, &"true".parse().unwrap())
    );
    assert_eq!(post(withdrawal("grant:grant")).await.problem(), (422, "idempotency_key_reused"));
    let other = world.management_token(&json!({ "sub": "bob" }));
    let body = withdrawal("grant:bobs");
    world.manage_with("POST", "withdrawals", &other, body, &key).await.done();
}

#[tokio::test]
async fn what_cannot_be_read_in_one_way_is_refused() {
    let world = World::new().await;
    let token = world.management_token(&json!({}));
    let send = |kind: &'static str, body: &'static str| {
        let request = http::Request::post("/v1/withdrawals")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", kind);
        world.send(request.body(http_body_util::Full::new(body.into())).unwrap())
    };
    let json_type = "application/json";
    for body in [
        "",
        "{",
        "[]",
        r#"{"target":"task:ticket"}"#,
        r#"{"target":"task:ticket","reason":""}"#,
        r#"{"target":"task:ticket","reason":"a","reason":"b"}"#,
        r#"{"target":"task:ticket","reason":"a","more":1}"#,
        r#"{"target":"nonsense","reason":"a"}"#,
        r#"{"target":{"kind":"task"},"reason":"a"}"#,
        "{\"target\":\"task:ticket\",\"reason\":\"a\\u0007\"}",
    ] {
        assert_eq!(send(json_type, body).await.problem(), (400, "invalid"), "{body}");
    }
    let good = r#"{"target":"task:ticket","reason":"a"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(send(kind, good).await.problem(), (415, "not_json"), "{kind}");
    }
    for path in ["agents?limit=0", "agents?limit=1&limit=2", "agents?unknown=1", "agents?cursor=x", "agents?status=odd"]
    {
        assert_eq!(world.manage("GET", path, &token, Value::Null).await.problem(), (400, "invalid"), "{path}");
    }
    assert_eq!(world.manage("DELETE", "agents/support", &token, Value::Null).await.problem().0, 405);
    for path in ["", "/", "agents/", "agents//x", "agents/a/b", "AGENTS", "agents/support/suspend/"] {
        assert_eq!(world.manage("GET", path, &token, Value::Null).await.problem(), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn whoever_floods_the_api_locks_out_nobody_else() {
    let world = World::new().await;
    let (alice, bob) = (world.management_token(&json!({})), world.management_token(&json!({ "sub": "bob" })));
    let mut refused = None;
    for _ in 0..500 {
        let answer = world.manage("GET", "agents?limit=1", &alice, Value::Null).await;
        if answer.status.as_u16() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a flood is not stopped");
    assert_eq!(refused.problem(), (429, "too_many_requests"));
    assert!(refused.headers.contains_key("retry-after"));
    world.manage("GET", "agents?limit=1", &bob, Value::Null).await.done();
}
