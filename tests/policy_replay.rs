//! Past decisions under other policies: `countersign policy replay`, on ledgers that the running sidecar wrote.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{
    Sidecar, World,
    process::{self, Ran},
    sidecar::{POLICY, Setup, audit, explain},
    world,
};

/// A sidecar that has decided on a read and a refund of alice, a refund that policy denies, one that needs a person, and
/// one that no policy could have let go, and stopped.
fn worked(world: &World) -> (Sidecar, Vec<String>) {
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let alice = world.openid.delegated("alice");
    let body = |amount: &str| format!(r#"{{"amount":"{amount}","currency":"USD"}}"#);
    let ids: Vec<_> = [
        sidecar.get("/orders/v1/orders/17", &alice).send(),
        sidecar.refund("17", &alice, &body("20.00")).send(),
        sidecar.refund("18", &alice, &body("20.00")).send(),
        sidecar.refund("17", &alice, &body("45.00")).send(),
        sidecar.refund("17", &alice, &body("99.00")).send(),
    ]
    .iter()
    .map(crate::support::Answer::decision_id)
    .collect();
    sidecar.settled(&ids[1]);
    sidecar.stop();
    (sidecar, ids)
}

fn config(sidecar: &Sidecar) -> PathBuf {
    sidecar.directory().join("countersign.yaml")
}

/// `countersign policy replay` of the sidecar's ledger by the team's policy `text` instead of its own.
fn candidate(sidecar: &Sidecar, text: &str, arguments: &[&str]) -> Ran {
    let team = sidecar.directory().join("candidate");
    fs::create_dir_all(&team).unwrap();
    fs::write(team.join("support.rego"), text).unwrap();
    let org = sidecar.directory().join("policies/org");
    let mut command = process::countersign();
    command.args(["policy", "replay"]);
    command.arg(format!("org={}", org.display())).arg(format!("support={}:orders", team.display()));
    command.arg("--catalogue").arg(config(sidecar)).arg("--from").arg(sidecar.ledger());
    process::run(command.args(arguments))
}

/// The same by its own policy.
fn own(sidecar: &Sidecar, arguments: &[&str]) -> Ran {
    let mut command = process::countersign();
    process::run(command.args(["policy", "replay", "--config"]).arg(config(sidecar)).args(arguments))
}

fn one(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn unchanged(report: &Value) -> bool {
    report["changed"] == 0 && report["compared"] == report["unchanged"] && report["changes"] == Value::Array(vec![])
}

#[test]
fn by_the_policy_that_decided_every_decision_comes_out_as_it_was() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let report = one(&own(&sidecar, &["--json", "--fail-on", "any-change", "--fail-on", "not-replayable"]).well());
    assert!(unchanged(&report), "{report:#}");
    // The read, the refund, the denied one and the large one; the one beyond the grant's limit policy never saw.
    assert_eq!(report["compared"], 4, "{report:#}");
    assert_eq!(report["elsewhere"], serde_json::json!({"guard": 1}), "{report:#}");
    let revisions = report["revisions"].as_object().unwrap();
    assert_eq!(revisions.keys().collect::<Vec<_>>(), [report["policy"]["revision"].as_str().unwrap()]);
    let text = own(&sidecar, &[]).well();
    assert!(text.contains("4 decisions made again: 4 as they were, 0 otherwise"), "{text}");
    assert!(!text.contains("\u{1b}["), "no bar where nobody watches: {text}");
}

#[test]
fn what_a_candidate_would_deny_is_found_by_rule_and_action_and_stops_a_pipeline() {
    let Some(world) = world() else { return };
    let (sidecar, ids) = worked(world);
    let policy = format!(
        "{POLICY}\ndeny contains {{\"code\": \"no_refunds\", \"message\": \"Not on Sundays.\"}} if input.action.name == \"refunds.create\"\n"
    );
    let ran = candidate(&sidecar, &policy, &["--json", "--fail-on", "new-denials:refunds.create"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = one(&ran.stdout);
    assert_eq!(report["failed_on"], serde_json::json!(["new-denials:refunds.create: 2"]));
    let changes = report["changes"].as_array().unwrap();
    let denials: Vec<_> = changes.iter().filter(|change| change["change"] == "new_denial").collect();
    assert_eq!(denials.len(), 2, "one that went, one that a person was asked about: {report:#}");
    for denial in &denials {
        assert_eq!((&denial["action"], &denial["tool"]), (&"refunds.create".into(), &"orders".into()));
        assert_eq!(denial["now"]["rules"][0]["code"], "no_refunds");
        assert_eq!(denial["now"]["rules"][0]["source"], "countersign.teams.support");
        let people = denial["people"]["counts"].as_object().unwrap();
        assert!(people.len() == 1 && people.keys().all(|name| name.contains("alice")), "{denial:#}");
        let agents = denial["agents"]["counts"].as_object().unwrap();
        assert!(agents.keys().all(|name| name.contains("support-v1")), "{denial:#}");
        assert!(ids.contains(&denial["examples"][0]["decision_id"].as_str().unwrap().to_owned()), "{denial:#}");
        assert_eq!(denial["examples"][0]["said"], "Not on Sundays.");
    }
    // What was denied before is denied for more reasons now, and nothing of the sort for anybody else.
    assert!(changes.iter().any(|change| change["change"] == "other_reasons"), "{report:#}");

    let reads = candidate(&sidecar, &policy, &["--fail-on", "new-denials:orders.read"]);
    assert_eq!(reads.code, Some(0), "{reads:?}");
    assert!(reads.stdout.contains("NEW DENIAL  refunds.create at orders"), "{reads:?}");
    let only = one(&candidate(&sidecar, &policy, &["--json", "--action", "orders.read"]).well());
    assert!(unchanged(&only) && only["compared"] == 1, "{only:#}");
    let none = one(&candidate(&sidecar, &policy, &["--json", "--until", "2020-01-01"]).well());
    assert_eq!(none["compared"], 0, "{none:#}");
}

#[test]
fn a_pipeline_that_looks_at_nothing_does_not_pass() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    for what in ["any-change", "not-replayable"] {
        let nothing = own(&sidecar, &["--until", "2020-01-01", "--fail-on", what]);
        assert_eq!(nothing.code, Some(1), "{nothing:?}");
        assert!(nothing.stdout.contains("FAILED on no decision was made again, so nothing is shown"), "{nothing:?}");
    }
    let misspelt = own(&sidecar, &["--fail-on", "new-denials:refund.create"]);
    assert_eq!(misspelt.code, Some(2), "a pipeline that could never fail: {misspelt:?}");
    let misspelt = own(&sidecar, &["--action", "orders.reed", "--fail-on", "any-change"]);
    assert_eq!(misspelt.code, Some(2), "{misspelt:?}");
    assert!(misspelt.stderr.contains("--action: no tool has the action `orders.reed`"), "{misspelt:?}");
}

#[test]
fn however_many_threads_make_decisions_again_the_same_comes_out() {
    let Some(world) = world() else { return };
    let mut sidecar = Setup::new(&world.openid, &world.tool).start();
    let alice = world.openid.delegated("alice");
    for number in 0..300 {
        sidecar.get(&format!("/orders/v1/orders/{number}"), &alice).send();
    }
    sidecar.stop();
    // Most calls change, by one rule or another; of a person and examples only some are kept.
    let policy = format!(
        "{POLICY}\ndeny contains {{\"code\": \"odd\"}} if endswith(input.action.resource, \"7\")\n\n\
         approval contains {{\"code\": \"of_the_tens\", \"approvers\": [\"user\"]}} if endswith(input.action.resource, \"0\")\n"
    );
    let with = |threads: &str| candidate(&sidecar, &policy, &["--json", "--limit", "7", "--threads", threads]).well();
    let one_thread = with("1");
    let report = one(&one_thread);
    assert_eq!(report["compared"], 300, "{report:#}");
    assert_eq!(report["changed"], 60, "{report:#}");
    for threads in ["2", "3", "16"] {
        assert_eq!(with(threads), one_thread, "{threads} threads");
    }
    assert_eq!(candidate(&sidecar, &policy, &["--threads", "0"]).code, Some(2));
}

#[test]
fn an_obligation_that_the_sidecar_could_not_meet_is_the_denial_that_it_would_be() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let telling = |duty: &str| {
        let policy = format!(
            "{POLICY}\nobligations contains {{\"code\": \"watched\", {duty}}} if input.action.effect == \"read\"\n"
        );
        let report = one(&candidate(&sidecar, &policy, &["--json", "--action", "orders.read"]).well());
        let changes = report["changes"].as_array().unwrap().clone();
        assert_eq!(changes.len(), 1, "{report:#}");
        (changes[0]["change"].clone(), changes[0]["now"]["code"].clone())
    };
    let notify = |channel: &str| format!(r#""notify": {{"channel": "{channel}", "message": "a read"}}"#);
    assert_eq!(telling(&notify("alerts")), ("other_obligations".into(), Value::Null));
    let denied = ("new_denial".into(), Value::from("obligation_unknown"));
    assert_eq!(telling(&notify("nobody")), denied);
    assert_eq!(telling(r#""require_header": {"name": "x-ticket"}"#), denied);
}

#[test]
fn what_a_candidate_would_newly_permit_is_a_change_too() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let open = "package countersign.teams.support\n\nallow contains {\"code\": \"everything\"}\n";
    let ran = candidate(&sidecar, open, &["--json", "--fail-on", "new-permits"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = one(&ran.stdout);
    let permits = report["changes"].as_array().unwrap().iter().filter(|change| change["change"] == "new_permit");
    assert_eq!(permits.map(|change| change["calls"].as_u64().unwrap()).sum::<u64>(), 2, "{report:#}");
    assert_eq!(report["elsewhere"]["guard"], 1, "what the grant does not hold stays refused: {report:#}");
    assert_eq!(candidate(&sidecar, open, &["--fail-on", "new-denials"]).code, Some(0));
}

#[test]
fn what_was_erased_is_counted_and_not_guessed() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let erased = ["--user", "alice", "--by", "data protection", "--reason", "request 17"];
    audit(&sidecar.ledger(), "erase", &erased).well();
    let ran = own(&sidecar, &["--json", "--fail-on", "not-replayable"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = one(&ran.stdout);
    assert_eq!((&report["compared"], &report["not_replayable"]["decisions"]), (&0.into(), &4.into()), "{report:#}");
    let paths = report["not_replayable"]["by_paths"].as_object().unwrap();
    assert!(paths.keys().all(|paths| paths.contains("token.seen/chain") && paths.contains("/resource")), "{paths:?}");
    let text = own(&sidecar, &[]).well();
    assert!(text.contains("4 are not replayable:") && text.contains("erased: "), "{text}");
    assert!(!text.contains("alice"), "{text}");
}

#[test]
fn a_candidate_that_does_not_load_or_a_ledger_that_is_not_there_is_said() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let broken = candidate(&sidecar, "package countersign.teams.support\n\nallow contains {\n", &[]);
    assert_eq!(broken.code, Some(78), "{broken:?}");
    assert!(broken.stderr.contains("support.rego"), "{broken:?}");
    let nowhere = own(&sidecar, &["--from", "/nowhere"]);
    assert_eq!(nowhere.code, Some(69), "{nowhere:?}");
    let damaged = damaged(&sidecar.ledger());
    let ran = own(&sidecar, &["--from", damaged.path().to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.is_empty() && ran.stderr.contains("00000001"), "{ran:?}");
}

/// A copy of the ledger with half a record in it.
fn damaged(ledger: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(ledger).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let mut text = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            text.truncate(text.len() / 2);
            text.push(b'\n');
        }
        fs::write(copy.path().join(path.file_name().unwrap()), text).unwrap();
    }
    copy
}

/// The files in which the ledger keeps policies.
fn kept(ledger: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(ledger.join("policies")).unwrap();
    let mut found: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn a_decision_is_made_again_by_the_very_policy_that_made_it_from_the_ledger_alone() {
    let Some(world) = world() else { return };
    let (mut sidecar, ids) = worked(world);
    // Another policy comes into force, and what the first one was is nowhere but in the ledger.
    let changed = format!("{POLICY}\ndeny contains {{\"code\": \"nothing\"}} if input.action.effect == \"read\"\n");
    fs::write(sidecar.directory().join("policies/support/support.rego"), &changed).unwrap();
    let mut setup = sidecar.into_setup();
    setup.policy = changed;
    sidecar = setup.start();
    let denied = sidecar.get("/orders/v1/orders/17", &world.openid.delegated("alice")).send().decision_id();
    sidecar.stop();
    let alone = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(sidecar.ledger()).arg(alone.path()).status().unwrap();
    assert!(status.success());
    let ledger = alone.path().join("ledger");
    drop(sidecar);

    for (id, verdict) in [(&ids[0], "PERMIT"), (&ids[2], "DENY policy_denied"), (&denied, "DENY policy_denied")] {
        let text = explain(&ledger, id, &[]).well();
        assert!(text.contains(&format!("{verdict} by the same policy: the same")), "{text}");
        assert!(text.contains("policy from        the ledger"), "{text}");
    }
    let text = explain(&ledger, &denied, &[]).well();
    assert!(text.contains("true               countersign.teams.support.deny nothing"), "{text}");
    let text = explain(&ledger, &ids[0], &[]).well();
    assert!(!text.contains("deny nothing"), "a rule of another time: {text}");
    assert!(text.contains("true               countersign.teams.support.allow covered"), "{text}");
    assert!(text.contains("not true           countersign.teams.support.deny order_on_hold"), "{text}");
    assert!(text.contains("input.action.name == \"refunds.create\""), "what it stopped at: {text}");
    assert!(text.contains("input.action.name = \"orders.read\"") || text.contains("orders.read"), "{text}");
    let [told] = &explain(&ledger, &ids[2], &["--json"]).lines()[..] else { panic!("one object") };
    let again = &told["replay"]["again"];
    assert_eq!((&again["same"], &again["same_policy"]), (&true.into(), &true.into()), "{told:#}");
    assert!(
        again["rules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|rule| rule["code"] == "order_on_hold" && rule["outcome"] == "true")
    );

    // By another policy than the one that decided, it says so.
    let other = alone.path().join("other/support");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("support.rego"), "package countersign.teams.support\n\nallow contains {\"code\": \"all\"}\n")
        .unwrap();
    let text = explain(&ledger, &ids[2], &["--policy", alone.path().join("other").to_str().unwrap()]).well();
    assert!(text.contains("PERMIT by another policy revision: DIFFERENT"), "{text}");

    // They are kept privately, the ledger still verifies, and it is on record that they are kept.
    assert_eq!(kept(&ledger).len(), 2);
    for path in kept(&ledger) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(fs::metadata(ledger.join("policies")).unwrap().permissions().mode() & 0o777, 0o700);
    audit(&ledger, "verify", &[]).well();
    let activated = audit(&ledger, "query", &["--kind", "policy.activated", "--json"]).lines();
    assert!(activated.len() == 2 && activated.iter().all(|record| record["kept"] == true), "{activated:?}");
}

#[test]
fn policies_that_are_gone_or_were_changed_do_not_pass_for_those_that_decided() {
    let Some(world) = world() else { return };
    let (sidecar, ids) = worked(world);
    let ledger = sidecar.ledger();
    let kept = kept(&ledger).remove(0);
    let unpacked = |bytes: &[u8]| {
        let mut child = std::process::Command::new("gzip")
            .args(["-dc"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let text = unpacked(&fs::read(&kept).unwrap());
    assert!(text.contains("order_on_hold") && !text.contains("tool-credential"), "{text}");
    let plain = ledger.join("changed");
    fs::write(&plain, text.replace("orders/18", "orders/19")).unwrap();
    let packed = std::process::Command::new("gzip").arg("-c").arg(&plain).output().unwrap().stdout;
    fs::write(&kept, packed).unwrap();
    let text = explain(&ledger, &ids[2], &[]).well();
    assert!(text.contains("by another policy revision: DIFFERENT"), "{text}");

    fs::write(&kept, "no archive").unwrap();
    let text = explain(&ledger, &ids[2], &[]).well();
    assert!(text.contains("decided            not again: ") && text.contains("cannot be read"), "{text}");
    fs::remove_file(&kept).unwrap();
    let text = explain(&ledger, &ids[2], &[]).well();
    assert!(text.contains("not again: the policies that decided are not kept with the ledger"), "{text}");
}

#[test]
fn a_candidate_of_bare_directories_is_bound_as_the_ledgers_policies_were() {
    let Some(world) = world() else { return };
    let (sidecar, _) = worked(world);
    let mut command = process::countersign();
    command.args(["policy", "replay", "--json", "--from"]).arg(sidecar.ledger());
    let report = one(&process::run(command.arg(sidecar.directory().join("policies"))).well());
    assert!(unchanged(&report) && report["compared"] == 4, "{report:#}");
    assert!(report["revisions"].as_object().unwrap().contains_key(report["policy"]["revision"].as_str().unwrap()));
}
