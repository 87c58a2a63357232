//! `countersign demo`: the first thing a person tries has to work anywhere, and its ledger has to keep every promise.

use std::{collections::BTreeMap, path::Path, sync::OnceLock};

use serde_json::Value;

use crate::support::{
    eventually,
    process::{self, Daemon, Ran},
    sidecar::{audit, explain},
};

/// The demo, run once for all tests: in an environment with nothing in it, in a directory that does not exist yet.
struct Demo {
    directory: tempfile::TempDir,
    steps: Vec<Value>,
}

impl Demo {
    fn ledger(&self) -> std::path::PathBuf {
        self.directory.path().join("data/ledger")
    }
}

fn run(data: &Path, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    process::run(command.env_clear().current_dir("/").arg("demo").arg("--data").arg(data).args(arguments))
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let steps = run(&directory.path().join("data"), &["--json"]).lines();
        Demo { directory, steps }
    })
}

#[test]
fn every_step_comes_out_as_expected() {
    let demo = demo();
    let steps: Vec<&Value> = demo.steps.iter().filter(|step| step["step"].is_string()).collect();
    assert!(steps.len() >= 10, "{steps:?}");
    let mut codes = BTreeMap::new();
    for step in steps {
        assert_eq!(step["expected"], step["got"], "{step}");
        assert!(["permit", "deny"].contains(&step["got"].as_str().unwrap()), "{step}");
        assert!(step["ms"].is_number(), "{step}");
        *codes.entry(step["code"].as_str().unwrap_or("permit").to_owned()).or_insert(0) += 1;
    }
    for code in [
        "permit",
        "limit_exceeded",
        "relation_unproven",
        "policy_denied",
        "impersonation",
        "expired",
        "unmapped_action",
        "malformed",
    ] {
        assert!(codes.contains_key(code), "no step shows {code}: {codes:?}");
    }
    assert!(codes["permit"] >= 2 && codes["limit_exceeded"] >= 2, "{codes:?}");
}

#[test]
fn its_ledger_verifies_tells_a_person_and_explains_each_step() {
    let demo = demo();
    audit(&demo.ledger(), "verify", &[]).well();
    let tail = audit(&demo.ledger(), "tail", &[]).well();
    assert!(tail.contains("user:alice") && tail.contains("PERMIT") && tail.contains("DENY"), "{tail}");
    for step in recorded(demo) {
        let id = step["decision_id"].as_str().unwrap();
        let text = explain(&demo.ledger(), id, &[]).well();
        assert!(text.contains("alice"), "{step}: {text}");
        if let Some(code) = step["code"].as_str() {
            assert!(text.contains(code), "{step}: {text}");
        }
    }
}

/// The steps whose decision is in the ledger: all but those refused before any principal was known.
fn recorded(demo: &Demo) -> Vec<&Value> {
    let records = audit(&demo.ledger(), "query", &["--json"]).lines();
    let steps: Vec<_> = demo
        .steps
        .iter()
        .filter(|step| {
            step["decision_id"].is_string() && records.iter().any(|record| record["decision_id"] == step["decision_id"])
        })
        .collect();
    assert!(steps.len() >= 9, "{steps:?}");
    steps
}

#[test]
fn the_policy_input_of_every_step_is_rebuilt_byte_for_byte_from_the_ledger() {
    let demo = demo();
    let mut rebuilt = 0;
    for step in recorded(demo) {
        let id = step["decision_id"].as_str().unwrap();
        let found = ::audit::query::find(&demo.ledger(), id).unwrap().expect("a record");
        let Some(digest) = ::audit::rebuild::input_digest(&found.decided) else {
            // Refused before policy was asked: then there is no question either, and the ledger says so.
            assert_ne!(step["got"], "permit", "{step}");
            continue;
        };
        let question =
            ::audit::rebuild::question(&found.decided, found.token_seen.as_ref().expect("its token")).unwrap();
        let input = policy::input::canonical_json(&question).unwrap();
        assert_eq!(::audit::record::Digest::of(&input).text(), digest, "{step}: {}", String::from_utf8_lossy(&input));
        rebuilt += 1;
    }
    assert!(rebuilt >= 3, "policy was asked for the permitted steps and those it denies");
}

#[test]
fn serving_a_person_can_be_the_agent_with_the_lines_it_prints() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("demo.log");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.env_clear().args(["demo", "--serve", "--data"]).arg(directory.path().join("data"));
    let mut daemon = Daemon::start(&mut command, &log);
    let guide = eventually("the curl lines", || {
        assert!(daemon.ended().is_none(), "{}", daemon.output());
        let output = daemon.output();
        output.contains("Ctrl-C").then_some(output)
    });
    // Each line that begins with curl, with the one it continues on, exactly as a person would paste it.
    let commands: Vec<String> = guide
        .replace("\\\n", " ")
        .lines()
        .filter(|line| line.trim_start().starts_with("curl "))
        .map(str::to_owned)
        .collect();
    assert!(commands.len() >= 4, "{guide}");
    let answers: Vec<String> = commands
        .iter()
        .map(|command| process::run(std::process::Command::new("sh").args(["-c", command])).well())
        .collect();
    assert!(answers[0].contains("200 OK"), "{}", answers[0]);
    for code in ["limit_exceeded", "relation_unproven", "impersonation"] {
        assert!(answers.iter().any(|answer| answer.contains(code)), "no line shows {code}: {answers:?}");
    }
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", daemon.output());
    audit(&directory.path().join("data/ledger"), "verify", &[]).well();
}

#[test]
fn it_starts_again_where_it_left_off() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for _ in 0..2 {
        run(&data, &["--json"]).well();
    }
    audit(&data.join("ledger"), "verify", &[]).well();
}

#[test]
fn a_person_sees_what_happened_and_where_everything_is() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let text = run(&data, &[]).well();
    for part in ["alice", "PERMIT", "DENY", "limit_exceeded", "ledger", "countersign explain"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.contains(data.to_str().unwrap()), "{text}");
    assert!(!text.contains("panicked"));
}
