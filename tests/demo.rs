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
        "withdrawn",
    ] {
        assert!(codes.contains_key(code), "no step shows {code}: {codes:?}");
    }
    assert!(codes["permit"] >= 2 && codes["limit_exceeded"] >= 2, "{codes:?}");
}

#[test]
fn a_task_that_is_taken_back_ends_what_streams_and_what_comes_after_at_once() {
    let demo = demo();
    let step = |name: &str| demo.steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no {name}"));
    let (watched, refused, helper) = (step("watch_order"), step("withdrawn"), step("helper_withdrawn"));
    assert_eq!((watched["got"].as_str(), refused["code"].as_str()), (Some("permit"), Some("withdrawn")));
    assert_eq!(helper["code"], "withdrawn", "the task ends for every agent that works on it");
    assert!(refused["ms"].as_f64().unwrap() < 5000.0, "the bound for writes: {refused}");
    let watched = watched["decision_id"].as_str().unwrap();
    let told = audit(&demo.ledger(), "query", &["--json"]).lines();
    let end = told.iter().find(|it| it["kind"] == "call.settled" && it["decision_id"] == watched).expect("its end");
    assert_eq!((end["outcome"].as_str(), end["code"].as_str()), (Some("cut"), Some("withdrawn")), "{end}");
    // Whoever looks after the authority reads there who took back what, and why.
    let authority = demo.directory.path().join("data/authority/ledger");
    audit(&authority, "verify", &[]).well();
    let kinds: Vec<Value> =
        audit(&authority, "query", &["--json"]).lines().iter().map(|it| it["kind"].clone()).collect();
    for kind in ["sidecar.enrolled", "grant.created", "task.started", "withdrawal.created"] {
        assert!(kinds.iter().any(|it| it == kind), "no {kind} in {kinds:?}");
    }
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
        // One of them streams for minutes, until the task is taken back.
        .filter(|line| line.trim_start().starts_with("curl ") && !line.contains("curl -N"))
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
    take_back(&guide, directory.path());
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", daemon.output());
    audit(&directory.path().join("data/ledger"), "verify", &[]).well();
}

/// Follows the order by the line of `guide`, and is alice by the one after it.
fn take_back(guide: &str, directory: &Path) {
    let line =
        |start: &str| guide.lines().map(str::trim).find(|line| line.starts_with(start)).expect("a line").to_owned();
    let heard = directory.join("heard");
    let mut follow = std::process::Command::new("sh");
    follow.arg("-c").arg(format!("exec {}", line("curl -N"))).stderr(std::process::Stdio::null());
    let mut follow = follow.stdout(std::fs::File::create(&heard).unwrap()).spawn().unwrap();
    eventually("an event", || std::fs::read_to_string(&heard).unwrap().contains("data: ").then_some(()));
    let revoke = line("countersign revoke");
    let revoke = revoke.strip_prefix("countersign").unwrap();
    let done = process::run(
        std::process::Command::new("sh").arg("-c").arg(format!("exec {}{revoke}", env!("CARGO_BIN_EXE_countersign"))),
    );
    assert!(done.well().contains("task:ticket-"));
    let status = eventually("the stream to be cut", || follow.try_wait().unwrap());
    assert!(!status.success(), "curl says that it was broken off");
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
