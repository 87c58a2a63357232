//! A ledger that grows old: its segments are compressed and retired while calls go on, and a person is erased from it,
//! beside a running sidecar and without one. Whatever is missing without a record of it is missed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::support::{
    Sidecar, World, eventually,
    process::Ran,
    sidecar::{Setup, audit, explain},
    world,
};

fn names(ledger: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(ledger).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

/// What `audit verify` says of a ledger that holds together.
#[track_caller]
fn report(ledger: &Path) -> Value {
    let told: Value = serde_json::from_str(&audit(ledger, "verify", &["--json"]).well()).unwrap();
    told["report"].clone()
}

/// What it says of one that does not.
#[track_caller]
fn complaint(ledger: &Path) -> Value {
    let ran = audit(ledger, "verify", &["--json"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    told["broken"].clone()
}

const ASKED: [&str; 4] = ["--by", "the data protection officer", "--reason", "request 17 of 2026"];

fn erase(ledger: &Path, arguments: &[&str]) -> Ran {
    audit(ledger, "erase", &[&ASKED, arguments].concat())
}

/// A running sidecar that made calls for two people; a decision for each of them.
fn of_two(world: &World) -> (Sidecar, String, String) {
    let sidecar = Setup::new(&world.openid, &world.tool).start();
    let (alice, bob) = (world.openid.delegated("alice"), world.openid.delegated("bob"));
    let of_alice = sidecar.refund("17", &alice, r#"{"amount":"20.00","currency":"USD"}"#).send().decision_id();
    let of_bob = sidecar.get("/orders/v1/orders/17", &bob).send().went(200).decision_id();
    sidecar.get("/orders/v1/orders/17", &alice).send().went(200);
    sidecar.settled(&of_alice);
    (sidecar, of_alice, of_bob)
}

fn replay(ledger: &Path, decision: &str) -> Value {
    explain(ledger, decision, &["--json"]).lines().remove(0)["replay"].clone()
}

#[test]
fn old_segments_are_compressed_and_retired_while_calls_go_on_and_the_rest_still_proves_itself() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool)
        .with(|config| {
            config["ledger"]["segment_max_bytes"] = json!(8 << 10);
            config["ledger"]["compress_after"] = json!("0s");
            config["ledger"]["retention"] = json!({"max_bytes": 40 << 10});
        })
        .start();
    let ledger = sidecar.ledger();
    let authorization = format!("Bearer {}", world.openid.delegated("alice"));
    let first = sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &authorization)]).went(200).decision_id();
    let retired = eventually("a segment to be retired", || {
        for _ in 0..10 {
            sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &authorization)]).went(200);
        }
        sidecar.query(&["--kind", "segment.retired"]).pop()
    });
    assert_eq!(retired["because"], "max_bytes");
    eventually("a segment to be compressed", || names(&ledger, ".jsonl.gz").pop());
    let last = sidecar.plain_get("/orders/v1/orders/17", &[("authorization", &authorization)]).went(200).decision_id();
    sidecar.settled(&last);
    sidecar.stop();

    let found = report(&ledger);
    assert!(found["retired_segments"].as_u64() > Some(0) && found["retired_records"].as_u64() > Some(0), "{found}");
    assert_eq!(found["lines_after_last_head"], 0);
    let text = audit(&ledger, "verify", &[]).well();
    assert!(text.contains("were retired, on record"), "{text}");
    explain(&ledger, &last, &[]).well();
    assert_ne!(explain(&ledger, &first, &[]).code, Some(0), "it was retired");

    sidecar.restart();
    sidecar.stop();
    report(&ledger);
    // One segment more is gone than is on record.
    let oldest = [names(&ledger, ".jsonl"), names(&ledger, ".jsonl.gz")].concat().into_iter().min().unwrap();
    fs::remove_file(oldest).unwrap();
    let broken = complaint(&ledger);
    assert!(broken["why"].as_str().unwrap().contains("missing"), "{broken}");
}

#[test]
fn a_person_is_erased_beside_a_running_sidecar_and_calls_go_on() {
    let Some(world) = world() else { return };
    let (mut sidecar, of_alice, of_bob) = of_two(world);
    let ledger = sidecar.ledger();
    assert_eq!(replay(&ledger, &of_alice)["rebuilt"], true);

    let found = erase(&ledger, &["--user", "alice", "--dry-run", "--json"]).lines().remove(0);
    assert!(found["records_in_the_segment_that_is_being_written"].as_u64() > Some(0), "{found}");
    assert!(report(&ledger)["erased"] == 0 && names(&ledger, ".seal").is_empty(), "nothing was changed");

    let told = erase(&ledger, &["--user", "alice", "--json"]).lines().remove(0);
    let erased = &told["erased"];
    assert!(erased["records"].as_u64() > Some(2) && erased["still_being_written"] == 0, "{told}");
    assert_eq!(erased["principal"]["id"], "alice");
    assert!(sidecar.query(&["--user", "alice"]).is_empty());
    assert!(!sidecar.query(&["--user", "bob"]).is_empty());
    let replayed = replay(&ledger, &of_alice);
    let paths = replayed["not_replayable"].as_array().unwrap_or_else(|| panic!("{replayed}"));
    assert!(paths.contains(&json!("/parameters")) && paths.contains(&json!("token.seen/chain")), "{replayed}");
    assert_eq!(replay(&ledger, &of_bob)["rebuilt"], true);
    let text = explain(&ledger, &of_alice, &[]).well();
    assert!(!text.contains("alice") && text.contains("erased"), "{text}");

    // It is on record who asked and why, and not whom it was about.
    let record = sidecar.query(&["--kind", "values.erased"]).remove(0);
    assert_eq!((&record["by"], &record["reason"]), (&json!(ASKED[1]), &json!(ASKED[3])));
    assert_eq!(record["erasure"], erased["erasure"]);
    assert!(!record.to_string().contains("alice"));
    let found = report(&ledger);
    assert_eq!((&found["erased"], &found["unfinished_erasures"]), (&erased["values"], &json!(0)));

    // The same person calls again: that is a new record, and nothing of the old is back.
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().went(200);
    assert!(!sidecar.query(&["--user", "alice"]).is_empty());
    sidecar.stop();
    report(&ledger);
    assert_eq!(fs::read_dir(ledger.join("requests")).unwrap().count(), 0, "no request lies about");
}

#[test]
fn a_person_is_erased_from_the_ledger_of_a_sidecar_that_does_not_run() {
    let Some(world) = world() else { return };
    let (mut sidecar, of_alice, of_bob) = of_two(world);
    let ledger = sidecar.ledger();
    sidecar.stop();
    let text = erase(&ledger, &["--user", "alice"]).well();
    assert!(text.contains("erased: ") && text.contains("salt"), "{text}");
    assert!(sidecar.query(&["--user", "alice"]).is_empty());
    assert!(replay(&ledger, &of_alice)["not_replayable"].is_array());
    assert_eq!(replay(&ledger, &of_bob)["rebuilt"], true);
    assert!(erase(&ledger, &["--user", "alice"]).well().contains("nothing was erased"));
    report(&ledger);
    sidecar.restart();
    sidecar.get("/orders/v1/orders/17", &world.openid.delegated("bob")).send().went(200);
    sidecar.stop();
    let kinds: Vec<_> = sidecar.query(&[]).into_iter().map(|record| record["kind"].clone()).collect();
    assert!(
        kinds.contains(&json!("maintenance.started")) && kinds.contains(&json!("maintenance.stopped")),
        "{kinds:?}"
    );
    report(&ledger);
}

#[test]
fn an_erasure_says_what_it_wants_before_it_touches_anything() {
    let Some(world) = world() else { return };
    let (mut sidecar, ..) = of_two(world);
    let ledger = sidecar.ledger();
    sidecar.stop();
    for (arguments, part) in [
        (&["--user", "alice"][..], "--by"),
        (&["--user", "alice", "--by", "dpo"], "--reason"),
        (&["--user", "alice", "--by", "dpo", "--reason", "alice asked"], "say it without"),
        (&["--user", "alice", "--by", "dpo", "--reason", "17", "--signing-key", "/nowhere"], "--signing-key"),
    ] {
        let ran = audit(&ledger, "erase", arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let other = tempfile::tempdir().unwrap();
    let ran = erase(other.path(), &["--user", "alice"]);
    assert_eq!(ran.code, Some(69), "{}", ran.stderr);
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0, "no ledger is begun where there is none");
    assert_eq!(report(&ledger)["erased"], 0);
}

#[test]
fn the_ledger_is_exported_as_other_systems_read_it_and_what_was_erased_is_not() {
    let Some(world) = world() else { return };
    let (mut sidecar, of_alice, of_bob) = of_two(world);
    let ledger = sidecar.ledger();
    sidecar.stop();
    let export = |format: &str| audit(&ledger, "export", &["--format", format]).lines();
    let of = |events: &[Value], id: &str| -> Value {
        let found = events.iter().find(|event| event["decision_id"] == id || event["metadata"]["uid"] == id);
        found.unwrap_or_else(|| panic!("{id} is not in {events:?}")).clone()
    };
    let before = of(&export("opa"), &of_alice);
    assert_eq!((&before["input"]["user"]["id"], &before["result"]["decision"]), (&json!("alice"), &json!("permit")));
    let event = of(&export("ocsf"), &of_alice);
    assert_eq!((&event["class_uid"], &event["actor"]["user"]["uid"]), (&json!(6003), &json!("alice")));
    assert_eq!(event["unmapped"]["delegation_chain"][0]["principal"]["id"], "alice");
    let events = export("otlp");
    assert_eq!(events.len(), sidecar.query(&[]).len(), "every record is an event");

    erase(&ledger, &["--user", "alice"]).well();
    let after = of(&export("opa"), &of_alice);
    assert_eq!((&after["input"], &after["erased"]), (&Value::Null, &json!(["/input"])));
    assert_eq!(of(&export("opa"), &of_bob)["input"]["user"]["id"], "bob");
    let event = of(&export("ocsf"), &of_alice);
    assert!(!event.to_string().contains("\"alice\""), "{event}");
}

#[test]
fn a_value_that_is_gone_without_an_erasure_on_record_is_missed_and_named() {
    let Some(world) = world() else { return };
    let (mut sidecar, ..) = of_two(world);
    let ledger = sidecar.ledger();
    sidecar.stop();
    let values = names(&ledger, ".values").remove(0);
    let text = fs::read_to_string(&values).unwrap();
    let fewer: String = text.split_inclusive('\n').filter(|row| !row.contains("\"/parameters\"")).collect();
    assert_ne!(text, fewer);
    fs::write(&values, fewer).unwrap();
    let broken = complaint(&ledger);
    assert_eq!((&broken["segment"], &broken["file"]), (&json!(1), &json!("00000001.values")), "{broken}");
    assert!(broken["line"].is_u64() && broken["seq"].is_u64(), "{broken}");
    assert!(broken["why"].as_str().unwrap().contains("no erasure on record"), "{broken}");
}

#[test]
fn a_segment_of_another_ledger_does_not_pass_and_heads_kept_elsewhere_prove_the_end() {
    let Some(world) = world() else { return };
    let ((mut one, ..), (mut other, ..)) = (of_two(world), of_two(world));
    one.stop();
    other.stop();
    let heads = one.directory().join("kept-elsewhere.notes");
    fs::copy(names(&one.ledger(), ".heads").remove(0), &heads).unwrap();
    let heads = heads.to_str().unwrap().to_owned();
    let checked = audit(&one.ledger(), "verify", &["--heads", &heads, "--json"]).lines().remove(0);
    assert_eq!(
        (&checked["report"]["tail_checked"], &checked["report"]["lines_after_outside_head"]),
        (&json!(true), &json!(0))
    );
    let unchecked = audit(&one.ledger(), "verify", &[]).well();
    assert!(unchecked.contains("tail not checked"), "{unchecked}");
    let ran = audit(&other.ledger(), "verify", &["--heads", &heads]);
    assert_eq!(ran.code, Some(1), "the heads of another ledger: {}", ran.stdout);

    for ending in [".jsonl", ".values", ".heads", ".seal"] {
        fs::copy(names(&other.ledger(), ending).remove(0), names(&one.ledger(), ending).remove(0)).unwrap();
    }
    let broken = complaint(&one.ledger());
    assert_eq!(broken["segment"], 1, "{broken}");
}
