//! Bundles that stay at a revision: who says so, what of it sidecars are told, and that it is on record.

use serde_json::{Value, json};
use token::{Algorithm, SigningKey};

use super::{
    follow::{assertion, enrolled},
    policy::ruled,
    world::{World, now},
};

fn pin(bundle: &str, revision: &str) -> Value {
    json!({ "bundle": bundle, "revision": revision, "reason": "case 311" })
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[tokio::test]
async fn a_pin_is_told_to_whom_it_is_for_is_on_record_and_ends_when_it_is_taken_back() {
    let world = World::new().await;
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let id = enrolled(&world, &key).await;
    let told = async || {
        let answer = world.manage("GET", "changes", &assertion(&key, &id, &json!({})), Value::Null).await.done();
        answer["pins"].as_array().unwrap().clone()
    };
    assert_eq!(told().await, Vec::<Value>::new());
    let root = world.admin_token();
    let made = world.manage("POST", "pins", &root, pin("support", "r1")).await.done();
    let of_acme = with(pin("support", "r9"), "tenant", json!("acme"));
    world.manage("POST", "pins", &root, of_acme).await.done();
    let over = format!("{}", net::clock::now() + jiff::SignedDuration::from_hours(1));
    world.manage("POST", "pins", &root, with(pin("org", "r2"), "until", json!(over))).await.done();
    let heard = told().await;
    let revisions: Vec<&Value> = heard.iter().map(|pin| &pin["revision"]).collect();
    assert_eq!(revisions, ["r1", "r9", "r2"]);
    let listed = world.manage("GET", "pins?bundle=support", &root, Value::Null).await.done();
    assert_eq!(listed["pins"].as_array().unwrap().len(), 2, "{listed}");
    let record = &world.records("policy.pinned")[0];
    assert_eq!(
        (record.text("reason"), record.fields["change"]["of"]["revision"].as_str()),
        (Some("case 311"), Some("r1"))
    );
    assert!(record.text("by").unwrap().starts_with("user:"));

    let path = format!("pins/{}/remove", made["id"].as_str().unwrap());
    world.manage("POST", &path, &root, json!({ "reason": "fixed" })).await.done();
    assert_eq!(told().await.len(), 2);
    assert_eq!(world.records("policy.unpinned").len(), 1);
    let gone = world.manage("POST", &path, &root, json!({ "reason": "again" })).await;
    assert_eq!(gone.problem(), (404, "not_found"));
}

#[tokio::test]
async fn nobody_but_an_administrator_who_just_logged_in_pins_and_what_cannot_be_meant_is_refused() {
    let world = World::new().await;
    let root = world.admin_token();
    let made = world.manage("POST", "pins", &root, pin("support", "r1")).await.done();
    let remove = format!("pins/{}/remove", made["id"].as_str().unwrap());
    let alice = world.management_token(&json!({}));
    let stale = world.management_token(&json!({ "groups": ["platform"], "auth_time": now() - 3600 }));
    let agents = world.first_token().await;
    for (token, problem) in [
        (alice, (403, "forbidden")),
        (stale, (401, "login_too_old")),
        (agents, (401, "invalid_token")),
        (world.user_token(json!({})), (401, "invalid_token")),
    ] {
        let refused = world.manage("POST", "pins", &token, pin("support", "r0")).await;
        assert_eq!(refused.problem(), problem);
        let refused = world.manage("POST", &remove, &token, json!({ "reason": "mine" })).await;
        assert_eq!(refused.problem(), problem);
    }
    for wrong in [
        pin("Support", "r1"),
        pin("", "r1"),
        pin("support", ""),
        pin("support", "a\u{7}"),
        with(pin("support", "r1"), "tenant", json!("nobodys")),
        with(pin("support", "r1"), "until", json!("2020-01-01T00:00:00Z")),
        with(pin("support", "r1"), "until", json!("soon")),
        with(pin("support", "r1"), "reason", json!(" ")),
        with(pin("support", "r1"), "serial", json!(4)),
    ] {
        assert_eq!(world.manage("POST", "pins", &root, wrong.clone()).await.problem(), (400, "invalid"), "{wrong}");
    }
    assert_eq!(world.records("policy.pinned").len(), 1);
    assert!(world.records("policy.unpinned").is_empty());
}

#[tokio::test]
async fn whom_policy_makes_an_administrator_of_one_bundle_or_tenant_pins_no_other() {
    let role = r#"
manage contains {"code": "release"} if {
    "release" in input.caller.groups
    input.object.kind == "pin"
    input.object.id == "support"
    every tenant in input.object.tenants { tenant == input.caller.tenant }
}"#;
    let (world, _folder) = ruled(&[("org", role)]).await;
    let world = world
        .believing(|issuer| {
            issuer["tenants"] = json!(["acme", "globex"]);
            issuer["claims"]["tenant"] = json!("tenant");
        })
        .await;
    let rita = world.management_token(&json!({ "groups": ["release"], "tenant": "acme" }));
    let own = with(pin("support", "r1"), "tenant", json!("acme"));
    let made = world.manage("POST", "pins", &rita, own.clone()).await.done();
    for wider in [pin("support", "r1"), with(own.clone(), "tenant", json!("globex")), with(own, "bundle", json!("org"))]
    {
        assert_eq!(world.manage("POST", "pins", &rita, wider).await.problem(), (403, "forbidden"));
    }
    // Of all of them: a rule for every tenant of none would let her see them.
    assert_eq!(world.manage("GET", "pins", &rita, Value::Null).await.problem(), (403, "forbidden"));
    let path = format!("pins/{}/remove", made["id"].as_str().unwrap());
    world.manage("POST", &path, &rita, json!({ "reason": "fixed" })).await.done();
    let gary = world.management_token(&json!({ "groups": ["release"], "tenant": "globex" }));
    let made = world.manage("POST", "pins", &rita, with(pin("support", "r1"), "tenant", json!("acme"))).await.done();
    let path = format!("pins/{}/remove", made["id"].as_str().unwrap());
    assert_eq!(
        world.manage("POST", &path, &gary, json!({ "reason": "theirs" })).await.problem(),
        (403, "forbidden"),
        "another tenant's"
    );
}
