//! Data documents that change while calls come in: they decide the next call, whatever was remembered, and no policy is
//! parsed again for that; what is no data for a policy changes nothing.

use std::fs;

use serde_json::{Value, json};

use crate::{
    reload::{on_disk, put, reload},
    support::{
        Sidecar, World,
        sidecar::{Setup, explain},
        world,
    },
};

const ORDER: &str = "/orders/v1/orders/17";
const DATA: &str = "policies/support/data.json";
/// Nothing that it reads differs from call to call, so that its decisions are remembered.
const TEAM: &str = "package countersign.teams.support

allow contains {\"code\": \"known_tier\"} if data.countersign.teams.support.tiers[input.user.id] in {\"gold\", \"silver\"}

deny contains {\"code\": \"silver_reads_nothing\"} if data.countersign.teams.support.tiers[input.user.id] == \"silver\"
";

fn document(tiers: &Value) -> String {
    json!({ "countersign": { "teams": { "support": { "tiers": tiers } } } }).to_string()
}

fn start(world: &World) -> Sidecar {
    let mut setup = Setup::new(&world.openid, &world.tool);
    setup.policy = TEAM.to_owned();
    setup.write();
    fs::write(setup.directory().join(DATA), document(&json!({ "alice": "gold" }))).unwrap();
    setup.start()
}

#[test]
fn other_data_decides_the_next_call_also_one_that_was_decided_before_and_is_on_record() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    let before = sidecar.get(ORDER, &token).send();
    before.went(200);
    sidecar.get(ORDER, &token).send().went(200);
    reload(&sidecar, "taken", |sidecar| put(sidecar, DATA, &document(&json!({ "alice": "silver" }))));
    let after = sidecar.get(ORDER, &token).send();
    after.refused(403, "policy_denied");
    assert_eq!(after.json()["reasons"][0]["code"], "silver_reads_nothing", "{}", after.text());
    reload(&sidecar, "taken", |sidecar| put(sidecar, DATA, &document(&json!({ "bob": "gold" }))));
    sidecar.get(ORDER, &token).send().refused(403, "policy_no_allow");
    // And back, to a revision that was there before.
    reload(&sidecar, "taken", |sidecar| put(sidecar, DATA, &document(&json!({ "alice": "gold" }))));
    sidecar.get(ORDER, &token).send().went(200);
    let revision = |record: &Value| record["revisions"]["policy"].as_str().unwrap().to_owned();
    let (old, new) = (revision(&sidecar.decided(&before)), revision(&sidecar.decided(&after)));
    let records = sidecar.query(&[]);
    let activated = records.iter().filter(|record| record["kind"] == "policy.activated");
    let activated: Vec<&str> = activated.map(|record| record["revision"].as_str().unwrap()).collect();
    assert_eq!(
        (activated.len(), activated[0], activated[1], activated[3]),
        (4, old.as_str(), new.as_str(), old.as_str())
    );
    let said = sidecar.daemon.output();
    assert_eq!(said.matches("data alone changed").count(), 3, "{said}");
    // Each decision is made again by the data that it was made by.
    let explained = explain(&sidecar.ledger(), &after.decision_id(), &[]).well();
    assert!(explained.contains("silver_reads_nothing"), "{explained}");
}

#[test]
fn a_policy_that_changes_with_its_data_is_parsed() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    sidecar.get(ORDER, &token).send().went(200);
    reload(&sidecar, "taken", |sidecar| {
        put(
            sidecar,
            "policies/support/support.rego",
            &TEAM.replace("silver_reads_nothing", "not_today").replace("== \"silver\"", "== \"gold\""),
        );
    });
    let after = sidecar.get(ORDER, &token).send();
    after.refused(403, "policy_denied");
    assert_eq!(after.json()["reasons"][0]["code"], "not_today", "{}", after.text());
    let said = sidecar.daemon.output();
    assert!(!said.contains("data alone changed"), "{said}");
}

#[test]
fn data_that_does_not_fit_its_policy_changes_nothing() {
    let Some(world) = world() else { return };
    let sidecar = start(world);
    let token = world.openid.delegated("alice");
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let many = format!("[{}1]", "1,".repeat(1_000_000));
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(33 * 1024 * 1024));
    for (text, why) in [
        (document(&serde_json::from_str(&deep).unwrap()), "nested too deep"),
        (many, "names and values"),
        (large, "larger than"),
        (
            json!({ "countersign": { "org": { "deny": {} } } }).to_string(),
            "lies under `data.countersign.teams.support`",
        ),
        (json!({ "countersign": { "lib": { "money": {} } } }).to_string(), "lies under"),
        (
            json!({ "countersign": { "teams": { "support": { "tiers": {}, "allow": {} } } } }).to_string(),
            "has the rule's name too",
        ),
        (json!({ "countersign": { "teams": { "support": { "levels": {} } } } }).to_string(), "there is no"),
        ("{\"countersign\": ".to_owned(), "data.json"),
    ] {
        reload(&sidecar, "refused", |sidecar| put(sidecar, DATA, &text));
        assert_eq!(on_disk(&sidecar), "refused");
        let said = sidecar.daemon.output();
        assert!(said.contains(why), "no {why:?} in {said}");
        sidecar.get(ORDER, &token).send().went(200);
    }
    reload(&sidecar, "taken", |sidecar| put(sidecar, DATA, &document(&json!({}))));
    sidecar.get(ORDER, &token).send().refused(403, "policy_no_allow");
    assert_eq!(on_disk(&sidecar), "in_force");
}
