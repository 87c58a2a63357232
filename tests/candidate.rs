//! A policy candidate beside what decides: asked about live calls, never followed, and told of where it would answer
//! otherwise. Whatever it is, no call is the worse for it.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use crate::{
    bundles::{SECRET, Server, Workshop, put_config, status},
    support::{
        Sidecar, World, eventually,
        process::{self, Ran},
        sidecar::{POLICY, Setup, explain},
        world,
    },
};

const ORDER: &str = "/orders/v1/orders/17";
const REFUND: &str = r#"{"amount": "1.00", "currency": "USD"}"#;
/// What the candidates of these tests say of refunds, and of nothing else.
const NO_REFUNDS: &str = r#"deny contains {"code": "no_refunds", "message": "Not on Sundays."} if {
    input.action.name == "refunds.create"
}"#;

fn rules(more: &str) -> String {
    format!("{POLICY}\n{more}\n")
}

/// A sidecar with a candidate that has `rules` besides the policy that decides.
fn setup(world: &World, more: &str) -> Setup {
    let setup = Setup::new(&world.openid, &world.tool);
    write(setup.directory(), &rules(more));
    setup.with(|config| config["policy"][1]["candidate"] = json!({"path": "policies/next"}))
}

fn write(directory: &std::path::Path, text: &str) {
    let next = directory.join("policies/next");
    fs::create_dir_all(&next).unwrap();
    fs::write(directory.join("next.rego"), text).unwrap();
    fs::rename(directory.join("next.rego"), next.join("next.rego")).unwrap();
}

fn candidate(sidecar: &Sidecar) -> Value {
    status(sidecar)["policy"]["candidate"].clone()
}

/// Waits until a candidate is asked; its revision.
fn asked(sidecar: &Sidecar) -> String {
    eventually("the candidate to be asked", || {
        let candidate = candidate(sidecar);
        let is_asked = !candidate["since"].is_null() && candidate["refused"].is_null();
        is_asked.then(|| candidate["revision"].as_str().unwrap().to_owned())
    })
}

/// Waits until it is said why it is not.
fn refused(sidecar: &Sidecar, word: &str) {
    eventually(word, || {
        candidate(sidecar)["refused"]["why"].as_str().is_some_and(|why| why.contains(word)).then_some(())
    });
}

/// Waits until so many calls were compared; how many differ.
fn compared(sidecar: &Sidecar, calls: u64) -> u64 {
    eventually("the calls to be compared", || {
        let candidate = candidate(sidecar);
        (candidate["compared"].as_u64()? >= calls).then(|| candidate["differed"].as_u64().unwrap())
    })
}

fn of(sidecar: &Sidecar, kind: &str) -> Vec<Value> {
    sidecar.query(&["--kind", kind])
}

fn diff(sidecar: &Sidecar, arguments: &[&str]) -> Ran {
    process::run(process::countersign().args(["policy", "diff", "--from"]).arg(sidecar.ledger()).args(arguments))
}

fn one(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_candidate_is_asked_about_live_calls_decides_none_and_its_differences_are_a_table() {
    let Some(world) = world() else { return };
    let mut sidecar = setup(world, NO_REFUNDS).start();
    let revision = asked(&sidecar);
    let alice = world.openid.delegated("alice");
    sidecar.get(ORDER, &alice).send().went(200);
    let refund = sidecar.refund("17", &alice, REFUND).send();
    refund.went(201);
    let id = refund.decision_id();
    // Both deny that one, the candidate for one more reason.
    sidecar.refund("18", &alice, REFUND).send().refused(403, "policy_denied");
    assert_eq!(compared(&sidecar, 3), 2);
    let status = candidate(&sidecar);
    assert_eq!((&status["same"], &status["dropped"], &status["percent"]), (&false.into(), &0.into(), &100.into()));
    assert_eq!(status["bundles"][0]["package"], "countersign.teams.support");
    let metrics = sidecar.metrics();
    for line in [
        "countersign_policy_diff_total{action=\"refunds.create\",from=\"permit\",to=\"policy_denied\"} 1".to_owned(),
        "countersign_policy_compared_total{action=\"orders.read\"} 1".to_owned(),
        format!("countersign_policy_candidate_info{{bundle=\"support\",revision=\"{revision}\"}} 1"),
        "countersign_policy_candidate_refused 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|known| known == line), "{line}");
    }
    sidecar.stop();

    let begun = of(&sidecar, "policy.candidate");
    assert_eq!((&begun[0]["candidate"], &begun[0]["state"]), (&json!(revision), &json!("begun")), "{begun:?}");
    let differed = sidecar.query(&["--kind", "policy.differed", "--user", "alice", "--action", "refunds.create"]);
    assert_eq!(differed.len(), 2, "{differed:?}");
    assert!(differed.iter().any(|record| record["decision_id"] == id.as_str() && record["change"] == "new_denial"));
    let text = diff(&sidecar, &[]).well();
    assert!(text.contains("3 calls compared: 1 alike, 2 otherwise"), "{text}");
    let row = text.lines().find(|line| line.contains("deny policy_denied") && line.contains(" permit ")).unwrap();
    assert!(row.starts_with("refunds.create") && row.contains("no_refunds by countersign.teams.support"), "{text}");
    assert!(row.contains(&id) && !text.contains("alice"), "{text}");
    let report = one(&diff(&sidecar, &["--json"]).well());
    assert_eq!((&report["candidate"], &report["compared"]), (&json!(revision), &json!(3)), "{report:#}");
    let denial = &report["changes"][0];
    assert_eq!((&denial["change"], &denial["examples"][0]["said"]), (&"new_denial".into(), &"Not on Sundays.".into()));
    assert!(denial["people"]["counts"].as_object().unwrap().keys().all(|name| name.contains("alice")), "{denial:#}");
    let text = explain(&sidecar.ledger(), &id, &[]).well();
    assert!(text.contains("would have said DENY policy_denied, no_refunds by") && text.contains("PERMIT"), "{text}");
    assert!(text.contains("Not on Sundays."), "{text}");
}

#[test]
fn a_pipeline_passes_where_a_candidate_was_compared_and_says_the_same() {
    let Some(world) = world() else { return };
    let mut sidecar = setup(world, NO_REFUNDS).start();
    asked(&sidecar);
    let alice = world.openid.delegated("alice");
    sidecar.get(ORDER, &alice).send().went(200);
    sidecar.refund("17", &alice, REFUND).send().went(201);
    compared(&sidecar, 2);
    sidecar.stop();
    for (what, code) in [
        ("new-denials:refunds.create", 1),
        ("new-denials", 1),
        ("any-change:orders.read", 0),
        ("new-permits", 0),
        // Nobody called it: nothing is shown of it.
        ("new-denials:orders.list", 1),
    ] {
        let ran = diff(&sidecar, &["--fail-on", what]);
        assert_eq!(ran.code, Some(code), "{what}: {ran:?}");
    }
    assert_eq!(diff(&sidecar, &["--fail-on", "not-replayable"]).code, Some(2));
    let reads = one(&diff(&sidecar, &["--json", "--action", "orders.read"]).well());
    assert_eq!((&reads["compared"], &reads["changed"]), (&json!(1), &json!(0)), "{reads:#}");
    let nothing = diff(&sidecar, &["--until", "2020-01-01", "--fail-on", "any-change"]);
    assert!(nothing.code == Some(1) && nothing.stdout.contains("No policy candidate is on record"), "{nothing:?}");
    assert_eq!(diff(&sidecar, &["--candidate", "nobody"]).code, Some(1));
}

#[test]
fn a_candidate_that_cannot_be_asked_is_said_to_be_so_and_hurts_nobody() {
    let Some(world) = world() else { return };
    let sidecar = setup(world, "this is no rule").start();
    let alice = world.openid.delegated("alice");
    sidecar.get(ORDER, &alice).send().went(200);
    refused(&sidecar, "next.rego:");
    assert!(sidecar.metrics().lines().any(|line| line == "countersign_policy_candidate_refused 1"));
    assert_eq!(status(&sidecar)["configuration"]["refused"], Value::Null);
    for (more, word) in [
        ("x := strings.repeat(\"a\", 1000000000)", "strings.repeat"),
        ("deny contains {\"code\": \"x\"} if data.countersign.teams.mail.allow", "next.rego:"),
    ] {
        write(sidecar.directory(), &rules(more));
        refused(&sidecar, word);
        sidecar.get(ORDER, &alice).send().went(200);
    }
    // What decides is changed meanwhile as ever.
    let closed = rules("deny contains {\"code\": \"closed_today\"}");
    fs::write(sidecar.directory().join("policies/support/support.rego"), closed).unwrap();
    eventually("what decides to change", || {
        sidecar.get(ORDER, &alice).send().text().contains("closed_today").then_some(())
    });
    fs::remove_dir_all(sidecar.directory().join("policies/next")).unwrap();
    refused(&sidecar, "policies/next");
    assert!(of(&sidecar, "policy.candidate").is_empty());
    // Once it is mended it is asked.
    write(sidecar.directory(), &rules(""));
    asked(&sidecar);
    // Again and again: what decides beside it may only now be what it was made beside, and begins its count anew.
    eventually("a call to be compared", || {
        sidecar.get(ORDER, &alice).send().refused(403, "policy_denied");
        let candidate = candidate(&sidecar);
        (candidate["differed"].as_u64()? >= 1).then_some(())
    });
    let differed = eventually("a difference on record", || of(&sidecar, "policy.differed").into_iter().next());
    assert_eq!(differed["change"], "new_permit");
}

#[test]
fn a_mistake_in_a_candidates_settings_is_one_in_the_configuration() {
    let Some(world) = world() else { return };
    for (settings, word) in [
        (json!({}), "policy.support: candidate: needs `path` or `bundle`"),
        (json!({"path": "policies/next", "percent": 0}), "candidate.percent"),
        (json!({"bundle": {"url": "https://bundles.example/x"}}), "candidate: `bundle` needs `keys`"),
        (
            json!({"bundle": {"url": "https://bundles.example/x", "max_age": "1h"},
                   "keys": {"k": {"algorithm": "EdDSA", "file": "k.pem"}}}),
            "candidate.bundle.max_age",
        ),
        (json!({"path": "policies/next", "candidate": {"path": "x"}}), "candidate"),
    ] {
        let setup = setup(world, "").with(|config| config["policy"][1]["candidate"] = settings);
        let ran = setup.run();
        assert!(ran.code == Some(78) && ran.stderr.contains(word), "{word}: {ran:?}");
    }
}

#[test]
fn a_candidate_that_fails_or_never_ends_keeps_no_call_waiting() {
    let Some(world) = world() else { return };
    let endless = "deny contains {\"code\": \"x\"} if {\n    some a in numbers.range(1, 9000)\n    \
                   some b in numbers.range(1, 9000)\n    a + b < 0\n}";
    let failing = "deny contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.tool) < 5";
    let mut sidecar = setup(world, endless).start();
    let alice = world.openid.delegated("alice");
    asked(&sidecar);
    let bearer = format!("Bearer {alice}");
    for _ in 0..100 {
        sidecar.plain_get(ORDER, &[("authorization", &bearer)]).went(200);
    }
    assert!(compared(&sidecar, 1) >= 1);
    let to = |code: &str| format!("action=\"orders.read\",from=\"permit\",to=\"{code}\"");
    assert!(sidecar.metrics().contains(&to("policy_budget")), "{}", candidate(&sidecar));
    // Those that wait are let go for the next one.
    write(sidecar.directory(), &rules(failing));
    eventually("the other candidate", || {
        sidecar.plain_get(ORDER, &[("authorization", &bearer)]).went(200);
        sidecar.metrics().contains(&to("policy_error")).then_some(())
    });
    assert_eq!(sidecar.daemon.ended(), None, "{}", sidecar.daemon.output());
    sidecar.stop();
}

#[test]
fn a_candidate_is_exchanged_and_taken_away_in_the_middle_of_calls() {
    let Some(world) = world() else { return };
    let sidecar = setup(world, NO_REFUNDS).start();
    let first = asked(&sidecar);
    let alice = world.openid.delegated("alice");
    let (done, bearer) = (AtomicBool::new(false), format!("Bearer {alice}"));
    let second = std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let mut calls = 0_u64;
            while !done.load(Ordering::Relaxed) {
                sidecar.plain_get(ORDER, &[("authorization", &bearer)]).went(200);
                calls += 1;
            }
            calls
        });
        let ended = Ended(&done);
        compared(&sidecar, 5);
        let closed = "deny contains {\"code\": \"closed\"}";
        write(sidecar.directory(), &rules(closed));
        let second = eventually("the other candidate", || Some(asked(&sidecar)).filter(|second| *second != first));
        assert!(compared(&sidecar, 5) >= 5);
        put_config(&sidecar, |config| drop(config["policy"][1].as_object_mut().unwrap().remove("candidate")));
        eventually("the candidate to be gone", || candidate(&sidecar).is_null().then_some(()));
        drop(ended);
        assert!(calls.join().unwrap() > 10);
        second
    });
    let records = eventually("it to be on record", || {
        let records = of(&sidecar, "policy.candidate");
        (records.len() == 3).then_some(records)
    });
    let told: Vec<_> = records.iter().map(|record| (record["candidate"].as_str(), record["state"].as_str())).collect();
    let (first, second) = (Some(first.as_str()), Some(second.as_str()));
    let (begun, ended) = (Some("begun"), Some("ended"));
    assert_eq!(told, [(first, begun), (second, begun), (second, ended)]);
    // What was compared is summed up when it goes, not a minute later.
    for revision in [first, second] {
        eventually("the sum", || {
            of(&sidecar, "policy.compared").iter().any(|record| record["candidate"].as_str() == revision).then_some(())
        });
    }
    let last = one(&diff(&sidecar, &["--json"]).well());
    assert_eq!((last["candidate"].as_str(), &last["other_candidates"]), (second, &json!(1)), "{last:#}");
    assert!(last["changed"].as_u64().unwrap() >= 5, "{last:#}");
    let earlier = one(&diff(&sidecar, &["--json", "--candidate", first.unwrap()]).well());
    assert_eq!((&earlier["changed"], earlier["compared"].as_u64() >= Some(5)), (&json!(0), true), "{earlier:#}");
}

/// Says that it is over, also where a test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_decides_may_take_the_candidates_place_and_then_there_is_nothing_to_compare() {
    let Some(world) = world() else { return };
    let sidecar = setup(world, NO_REFUNDS).start();
    asked(&sidecar);
    let alice = world.openid.delegated("alice");
    sidecar.refund("17", &alice, REFUND).send().went(201);
    compared(&sidecar, 1);
    fs::write(sidecar.directory().join("policies/support/support.rego"), rules(NO_REFUNDS)).unwrap();
    eventually("both to be the same", || (candidate(&sidecar)["same"] == true).then_some(()));
    sidecar.refund("17", &alice, REFUND).send().refused(403, "policy_denied");
    let now = candidate(&sidecar);
    assert_eq!((&now["since"], &now["refused"]), (&Value::Null, &Value::Null), "{now:#}");
    assert_eq!(now["revision"], status(&sidecar)["policy"]["revision"]);
    assert_eq!(of(&sidecar, "policy.candidate").last().unwrap()["state"], "ended");
    // The next change of the candidate is beside what decides now.
    write(sidecar.directory(), &rules("deny contains {\"code\": \"closed\"}"));
    asked(&sidecar);
    sidecar.get(ORDER, &alice).send().went(200);
    assert_eq!(compared(&sidecar, 1), 1);
}

#[test]
fn a_candidate_comes_signed_from_a_server_and_is_changed_without_a_restart() {
    let Some(world) = world() else { return };
    let workshop = Workshop::new();
    let Some(server) = Server::start(&[]) else { return };
    let setup = Setup::new(&world.openid, &world.tool);
    setup.write_secret("bundle-secret", SECRET);
    fs::copy(workshop.path("platform.pub.pem"), setup.directory().join("platform.pub.pem")).unwrap();
    server.offer(&workshop.bundle(NO_REFUNDS, 4, None));
    let sidecar = setup.start();
    let alice = world.openid.delegated("alice");
    assert!(candidate(&sidecar).is_null());
    put_config(&sidecar, |config| {
        config["policy"][1]["candidate"] = json!({
            "bundle": {"url": server.url(), "credential": {"bearer": {"file": "bundle-secret"}}, "poll": "1s"},
            "keys": {"k": {"algorithm": "EdDSA", "file": "platform.pub.pem", "scope": "prod"}},
        });
    });
    let fetched = || candidate(&sidecar)["bundles"][0]["fetched"].clone();
    refused(&sidecar, "no bundle that can be used");
    server.offer(&workshop.bundle(NO_REFUNDS, 4, Some("platform")));
    asked(&sidecar);
    sidecar.refund("17", &alice, REFUND).send().went(201);
    assert_eq!(compared(&sidecar, 1), 1);
    let begun = of(&sidecar, "policy.candidate");
    assert_eq!((&begun[0]["bundles"][0]["serial"], &begun[0]["bundles"][0]["signed_by"]), (&json!(4), &json!("k")));
    // A stranger's word and an earlier serial change nothing of it.
    for (serial, signer, why) in [(5, "stranger", "not its key's"), (3, "platform", "rollback: 3")] {
        server.offer(&workshop.bundle("", serial, Some(signer)));
        eventually(why, || fetched()["refused"]["why"].as_str().is_some_and(|said| said.contains(why)).then_some(()));
    }
    server.offer(&workshop.bundle("deny contains {\"code\": \"closed\"}", 6, Some("platform")));
    eventually("the next one", || (candidate(&sidecar)["bundles"][0]["serial"] == 6).then_some(()));
    sidecar.get(ORDER, &alice).send().went(200);
    assert_eq!(compared(&sidecar, 1), 1);
    assert!(!sidecar.directory().join("ledger-bundles/support.tar.gz").exists(), "nothing of a candidate is kept");
}
