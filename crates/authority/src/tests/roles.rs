//! Who manages by the word of policy: roles for some things, what is one's own in any case, and agents never.

use serde_json::{Value, json};

use super::{policy::ruled, world::World};

/// Helpdesk people suspend agents of their tenant and see everybody's grants of it; they end what is withdrawn of users.
const HELPDESK: &str = r#"
manage contains {"code": "helpdesk"} if {
    "helpdesk" in input.caller.groups
    input.operation in {"agents.suspend", "agents.show", "sidecars.invite", "agents.change", "agents.list"}
    count(input.object.tenants) > 0
    every tenant in input.object.tenants { tenant == input.caller.tenant }
}
manage contains {"code": "helpdesk_looks"} if {
    "helpdesk" in input.caller.groups
    input.operation in {"grants.show", "grants.list", "tasks.show", "withdrawals.create"}
    not input.object.user.id == "root"
}"#;

fn helpdesk(world: &World) -> String {
    world.management_token(&json!({ "sub": "hal", "sid": "session-9", "groups": ["helpdesk"] }))
}

fn why() -> Value {
    json!({ "reason": "case 311" })
}

#[tokio::test]
async fn a_role_does_what_policy_says_to_what_policy_says_and_nothing_more() {
    let (world, _folder) = ruled(&[("org", HELPDESK)]).await;
    let hal = helpdesk(&world);
    world.manage("POST", "agents/support/suspend", &hal, why()).await.done();
    world.manage("GET", "grants/grant", &hal, Value::Null).await.done();
    world.manage("GET", "tasks/ticket", &hal, Value::Null).await.done();
    let grants = world.manage("GET", "grants", &hal, Value::Null).await.done();
    assert_eq!(grants["grants"].as_array().unwrap().len(), 3);
    world.manage("POST", "withdrawals", &hal, json!({ "target": "user:alice", "reason": "left" })).await.done();
    let refused = world.manage("POST", "withdrawals", &hal, json!({ "target": "user:root", "reason": "no" })).await;
    assert_eq!(refused.problem(), (404, "not_found"));
    for (path, body) in
        [("agents/support/reinstate", why()), ("agents/support/decommission", why()), ("sidecars/some/remove", why())]
    {
        assert_eq!(world.manage("POST", path, &hal, body).await.problem(), (403, "forbidden"), "{path}");
    }
    assert_eq!(world.manage("POST", "grants/grant/withdraw", &hal, why()).await.problem(), (404, "not_found"));
    assert_eq!(world.manage("POST", "tasks/ticket/end", &hal, json!({})).await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn a_role_for_one_tenant_reaches_no_other_by_adding_it() {
    let (world, _folder) = ruled(&[("org", HELPDESK)]).await;
    let hal = helpdesk(&world);
    let invited = |tenants: Value| json!({ "tenants": tenants });
    world.manage("POST", "sidecars", &hal, invited(json!(["acme"]))).await.done();
    for tenants in [json!(["globex"]), json!(["acme", "globex"])] {
        let refused = world.manage("POST", "sidecars", &hal, invited(tenants.clone())).await;
        assert_eq!(refused.problem(), (403, "forbidden"));
        let change = json!({ "tenants": tenants, "reason": "more" });
        assert_eq!(world.manage("POST", "agents/support/change", &hal, change).await.problem(), (403, "forbidden"));
    }
}

#[tokio::test]
async fn whoever_has_no_role_has_what_is_their_own_and_groups_count_no_more() {
    let (world, _folder) = ruled(&[("org", HELPDESK)]).await;
    let alice = world.management_token(&json!({}));
    world.manage("GET", "grants/grant", &alice, Value::Null).await.done();
    world.manage("POST", "tasks/ticket/end", &alice, json!({})).await.done();
    assert_eq!(world.manage("GET", "grants/bobs", &alice, Value::Null).await.problem(), (404, "not_found"));
    // The group that is configured is for where no policy says who manages.
    let root = world.admin_token();
    assert_eq!(world.manage("POST", "agents/support/suspend", &root, why()).await.problem(), (403, "forbidden"));
    let (world, _folder) = ruled(&[("org", r#"delegate contains {"code": "fine"}"#)]).await;
    world.manage("POST", "agents/support/suspend", &world.admin_token(), why()).await.done();
}

#[tokio::test]
async fn a_policy_that_fails_makes_nobody_an_administrator() {
    let broken = r#"manage contains {"code": "x"} if time.parse_rfc3339_ns(input.operation) > 0"#;
    let (world, _folder) = ruled(&[("org", broken)]).await;
    let root = world.admin_token();
    assert_eq!(world.manage("POST", "agents/support/suspend", &root, why()).await.problem(), (403, "forbidden"));
    world.manage("GET", "grants/grant", &world.management_token(&json!({})), Value::Null).await.done();
}

#[tokio::test]
async fn what_an_agent_holds_manages_nothing_whatever_policy_says() {
    let (world, _folder) =
        ruled(&[("org", "manage contains {\"code\": \"all\"}\ndelegate contains {\"code\": \"all\"}")]).await;
    let anybody = world.management_token(&json!({ "sub": "eve", "groups": [] }));
    world.manage("GET", "grants/grant", &anybody, Value::Null).await.done();
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let held = [parent, handed, world.user_token(json!({})), world.assertion("support", json!({}))];
    for token in &held {
        for path in ["grants", "agents", "sidecars", "withdrawals"] {
            let refused = world.manage("GET", path, token, Value::Null).await;
            assert_eq!(refused.problem(), (401, "invalid_token"), "{path}");
        }
    }
}
