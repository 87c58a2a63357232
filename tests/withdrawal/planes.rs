//! Withdrawal with the real authority: sidecars that enrolled follow it, through its end and its return.

use serde_json::{Value, json};

use crate::support::{
    Answer, Sidecar, World,
    authority::{Authority, Client, entitlements},
    eventually,
    joining::JoiningKey,
    openid::{AUDIENCE, claims},
    sidecar::Setup,
    world,
};

/// A sidecar that joins `authority` as `name`, with a key of its own.
pub(crate) fn enrolled(world: &World, authority: &Authority, name: &str) -> Setup {
    let invited =
        authority.manage(&world.openid, &["platform"], "/v1/sidecars", &json!({"name": name, "tenants": ["acme"]}));
    invited.went(201);
    let key = JoiningKey::new();
    let joining = key.joining(&authority.issuer(), invited.json()["token"].as_str().unwrap(), name);
    let joined = authority.post("/v1/sidecars/enrol", &[], &joining);
    joined.went(201);
    let (id, issuer) = (joined.json()["id"].clone(), authority.issuer());
    let setup = Setup::new(&world.openid, &world.tool).with(|config| {
        config["issuers"] = json!([
            {"issuer": issuer, "role": "delegation", "tenants": ["acme"], "withdrawals": "changes"},
            {"issuer": world.openid.issuer(), "role": "subject", "tenants": ["acme"], "claims": {"tenant": "tenant"}, "entitlements": entitlements()},
        ]);
        let actions = ["orders.read", "orders.list", "refunds.create"];
        config["agents"] = json!([{"id": "support-v9", "issuer": issuer, "owner": "ops@acme.example", "actions": actions, "tenants": ["acme"]}]);
        config["authority"] = json!({
            "url": issuer,
            "credential": {"key": "sidecar.pem", "id": id},
            "staleness": {"read": "60s", "write": "3s"},
        });
    });
    setup.write_secret("sidecar.pem", &key.pem());
    setup
}

pub(crate) fn read(sidecar: &Sidecar, token: &str) -> Answer {
    sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &format!("Bearer {token}"))])
}

pub(super) fn refund(sidecar: &Sidecar, token: &str) -> Answer {
    sidecar.refund("17", token, r#"{"amount": "10.00", "currency": "USD"}"#).send()
}

pub(super) fn withdraw(world: &World, authority: &Authority, groups: &[&str], target: &str) -> Value {
    let asked = json!({"target": target, "reason": "the laptop is lost"});
    let answer = authority.manage(&world.openid, groups, "/v1/withdrawals", &asked);
    answer.went(201);
    answer.json()
}

#[test]
fn what_the_authority_takes_back_is_refused_by_every_sidecar_that_enrolled() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let mut authority = Authority::start(&world.openid, &[&agent]);
    let sidecars = ["one", "two"].map(|name| enrolled(world, &authority, name).start());
    let token = authority.first(&agent, &world.openid);
    for sidecar in &sidecars {
        read(sidecar, &token).went(200);
    }
    // A person takes back what is done for them; no administrator has to.
    let withdrawn = withdraw(world, &authority, &["support", "refunds"], "task:ticket-1");
    for sidecar in &sidecars {
        eventually("the task's end to be known", || (read(sidecar, &token).status != 200).then_some(()));
        read(sidecar, &token).refused(401, "withdrawn");
        let alerts = sidecar.query(&["--kind", "alert.raised"]);
        assert!(alerts.iter().any(|alert| alert["withdrawal"] == withdrawn["id"]), "{alerts:?}");
    }
    let asked = [("task_id", "ticket-1"), ("audience", AUDIENCE)];
    assert_ne!(authority.exchange(&agent, &world.openid.user("alice"), &asked).status, 200, "nor is a new one issued");

    // It goes, and comes back with everything it said.
    authority.daemon.kill();
    authority.daemon.wait();
    for sidecar in &sidecars {
        eventually("writes to be refused", || (refund(sidecar, &token).status != 403).then_some(()));
        read(sidecar, &token).refused(401, "withdrawn");
        assert!(sidecar.is_ready());
    }
    authority.restart();
    for sidecar in &sidecars {
        eventually("it to be heard again", || {
            let metrics = sidecar.metrics();
            let age = metrics.lines().find_map(|line| line.strip_prefix("countersign_authority_staleness_seconds "));
            age.and_then(|age| age.parse::<f64>().ok()).filter(|age| *age < 2.5)
        });
        read(sidecar, &token).refused(401, "withdrawn");
    }
}

#[test]
fn a_token_that_is_issued_after_a_withdrawal_is_good_at_once() {
    let Some(world) = world() else { return };
    let agent = Client::new("support-v9");
    let authority = Authority::start(&world.openid, &[&agent]);
    let sidecar = enrolled(world, &authority, "one").start();
    for _ in 0..5 {
        let token = authority.first(&agent, &world.openid);
        read(&sidecar, &token).went(200);
        refund(&sidecar, &token).went(201);
        let itself = format!("token:{}", claims(&token)["jti"].as_str().unwrap());
        withdraw(world, &authority, &["platform"], &itself);
        // Issued after it, whatever the sidecar has heard by now.
        let renewed = authority.first(&agent, &world.openid);
        read(&sidecar, &renewed).went(200);
        eventually("the withdrawal to be known", || (read(&sidecar, &token).status == 401).then_some(()));
        read(&sidecar, &renewed).went(200);
    }
}
