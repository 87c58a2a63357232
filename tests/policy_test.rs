//! `countersign policy test`, `eval` and `bench`: what people who write policy are told, by the real binary.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{
    eventually, mark,
    process::{self, Daemon, Ran, countersign},
    root, world,
};

const POLICY: &str = "package countersign.teams.support\n\nimport data.countersign.lib.delegation\n\n\
                      allow contains {\"code\": \"covered\"} if delegation.covers(input.action)\n\n\
                      deny contains {\"code\": \"closed\"} if not input.facts.order.status == \"open\"\n";
const HEAD: &str = "package countersign.teams.support_test\n\nimport data.countersign.lib.testing\n\
                    import data.countersign.teams.support\n\n";
const GOOD: &str = "test_open if {\n\tgiven := testing.call(\"refunds.create\", {\"facts\": {\"order\": {\"status\": \"open\"}}})\n\t\
                    count(support.deny) == 0 with input as given\n\tcount(support.allow) == 1 with input as given\n}\n";
const CASE: &str = "cases:\n  - name: open & <shut>\n    call: alice via support-v2 refunds.create orders/17\n    tool: orders\n    \
                    facts: { order: { status: open } }\n    expect: permit\n";

/// A team's directory with these files.
fn team(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn suite(tests: &str, cases: &str) -> tempfile::TempDir {
    team(&[("support.rego", POLICY), ("support_test.rego", &format!("{HEAD}{tests}")), ("support_cases.yaml", cases)])
}

fn policy(command: &str, directory: &Path, arguments: &[&str]) -> Ran {
    let source = format!("support={}:orders", directory.display());
    process::run(countersign().args(["policy", command, &source]).args(arguments))
}

fn starters(command: &str, arguments: &[&str]) -> Ran {
    let config = root().join("policies/starters/countersign.yaml");
    process::run(countersign().args(["policy", command, "--config"]).arg(config).args(arguments))
}

#[test]
fn tests_and_cases_that_pass_are_counted_and_named_where_that_is_asked_for() {
    let suite = suite(GOOD, CASE);
    let said = policy("test", suite.path(), &[]).well();
    assert_eq!(said, "1 tests and 1 cases passed, 0 failed\n");
    let said = policy("test", suite.path(), &["-v"]).well();
    assert!(
        said.contains("ok    countersign.teams.support_test.test_open") && said.contains("open & <shut>"),
        "{said}"
    );
    let said = policy("test", suite.path(), &["--run", "test_open$"]).well();
    assert_eq!(said, "1 tests and 0 cases passed, 0 failed\n");
    assert_eq!(policy("test", suite.path(), &["--run", "nothing"]).code, Some(1));
    assert_eq!(policy("test", suite.path(), &["--run", "("]).code, Some(2));
}

#[test]
fn a_test_that_fails_says_where_and_what_stood_there() {
    let wrong = GOOD.replace("count(support.allow) == 1", "count(support.allow) == 2");
    let suite = suite(&format!("{wrong}todo_test_more if false\n"), CASE);
    let ran = policy("test", suite.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for part in [
        "FAIL  countersign.teams.support_test.test_open",
        "support_test.rego:9: count(support.allow) == 2 with input as given",
        "count(support.allow) gave 1",
        "todo  countersign.teams.support_test.todo_test_more",
        "0 tests and 1 cases passed, 1 failed, 1 still to be written",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    let report: Value = serde_json::from_str(&policy("test", suite.path(), &["--format", "json"]).stdout).unwrap();
    assert_eq!(report["passed"], false);
    assert_eq!(report["tests"][0]["stopped"]["place"]["line"], 9);
    assert_eq!(report["cases"][0]["decision"]["verdict"], "permit");
}

#[test]
fn what_decides_more_permissively_without_a_part_fails_in_tests_and_in_cases() {
    let careless = POLICY.replace("not input.facts.order.status == \"open\"", "input.facts.order.status == \"closed\"");
    let tests = GOOD.replace("\"open\"", "\"closed\"").replace("== 0", "== 1");
    let cases = CASE.replace("status: open", "status: closed").replace("permit", "deny");
    let directory = suite(&tests, &cases);
    fs::write(directory.path().join("support.rego"), careless).unwrap();
    let ran = policy("test", directory.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("an input of it is denied, and permitted without `facts.order.status`"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("without `facts.order.status` it is more permissive: permit: covered"),
        "{}",
        ran.stdout
    );
    // Said to be right, both pass.
    let tests = format!("{HEAD}# more permissive without facts.order.status: it is new\n{tests}");
    fs::write(directory.path().join("support_test.rego"), tests).unwrap();
    let cases = format!("{cases}    more_permissive_without: {{ facts.order.status: it is new }}\n");
    fs::write(directory.path().join("support_cases.yaml"), cases).unwrap();
    policy("test", directory.path(), &[]).well();
}

#[test]
fn a_test_whose_input_cannot_be_looked_at_fails_unless_that_is_said_to_be_right() {
    let tests = format!("print(_, _) := false\n\n{GOOD}");
    let directory = suite(&tests, CASE);
    let ran = policy("test", directory.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("FAIL  countersign.teams.support_test.test_open"), "{}", ran.stdout);
    assert!(ran.stdout.contains("not tried again without parts of its input"), "{}", ran.stdout);
    let report: Value = serde_json::from_str(&policy("test", directory.path(), &["--format", "json"]).stdout).unwrap();
    assert_eq!((&report["passed"], &report["tests"][0]["result"]), (&false.into(), &"fail".into()), "{report:#}");
    let tests = tests.replace("test_open", "# not tried again: it is one of the cases\ntest_open");
    fs::write(directory.path().join("support_test.rego"), format!("{HEAD}{tests}")).unwrap();
    policy("test", directory.path(), &[]).well();
}

#[test]
fn too_little_that_is_covered_fails_and_what_is_not_is_shown() {
    let half = "test_open if count(support.deny) == 1 with input as {}\n";
    let suite = suite(half, "cases: []\n");
    let ran = policy("test", suite.path(), &["--coverage"]);
    let said = ran.well();
    assert!(said.contains("support.rego (") && said.contains("~    5  allow contains"), "{said}");
    let ran = policy("test", suite.path(), &["--threshold", "100"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("FAIL  less than 100 % is covered"), "{}", ran.stdout);
    policy("test", suite.path(), &["--threshold", "50"]).well();
    assert_eq!(policy("test", suite.path(), &["--threshold", "101"]).code, Some(2));
}

#[test]
fn junit_is_well_formed_whatever_names_say() {
    let wrong = CASE.replace("expect: permit", "expect: deny");
    let suite = suite(&format!("{GOOD}todo_test_more if false\n"), &wrong);
    let ran = policy("test", suite.path(), &["--format", "junit", "--threshold", "1"]);
    assert_eq!(ran.code, Some(1));
    let text = ran.stdout;
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "), "{text}");
    assert!(text.contains("name=\"open &amp; &lt;shut&gt;\"") && text.contains("<skipped/>"), "{text}");
    assert!(text.contains("<failure message=\"expected deny, it is permit"), "{text}");
    // Every element is closed by its own name, and no text has a bare mark.
    let mut open = Vec::new();
    for tag in text.split('<').skip(2).map(|rest| rest.split_once('>').unwrap().0) {
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{text}");
        } else if !tag.ends_with(['/', '?']) {
            open.push(tag.split(' ').next().unwrap());
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
    }
    assert!(open.is_empty(), "{text}");
}

#[test]
fn what_is_wrong_with_a_file_of_cases_is_said_with_its_place() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(", ")));
    }
    for (cases, place) in [
        (CASE.replace("expect:", "expcet:"), ":6:5: "),
        (CASE.replace("via", "by"), ":2:5: "),
        (format!("{bomb}cases: []\n"), ":1:1: "),
        (format!("cases: {}{}\n", "[".repeat(5_000), "]".repeat(5_000)), ":1:"),
    ] {
        let suite = suite(GOOD, &cases);
        let ran = policy("test", suite.path(), &[]);
        assert_eq!(ran.code, Some(78), "{}", ran.stdout);
        let said = ran.stderr;
        assert!(said.contains(&format!("support_cases.yaml{place}")), "{place} {said:.600}");
    }
}

#[test]
fn the_shipped_policies_pass_with_their_catalogue() {
    let said = starters("test", &["--coverage"]).well();
    assert!(said.contains("0 failed") && said.contains("%  covered"), "{said}");
    let orders = root().join("policies/orders");
    let said = policy("test", &orders, &["--threshold", "100"]).well();
    assert!(said.contains("7 cases passed, 0 failed"), "{said}");
}

#[test]
fn a_question_is_put_by_options_and_explained() {
    let refund = ["--action", "refunds.create", "--resource", "orders/17", "--parameter", "amount=20.00 USD"];
    let facts = ["--fact", "order.placed_by=$user", "--fact", "order.status=open", "--explain"];
    let said =
        policy("eval", &root().join("policies/orders"), &[&refund[..], &facts, &["--tool", "orders"]].concat()).well();
    assert!(said.starts_with("permit: refund_within_grant (countersign.teams.support)\n"), "{said}");
    for part in [
        "true    countersign.teams.support.allow \"refund_within_grant\"",
        "stopped at line 40: input.facts.order.status == \"closed\"",
        "input.facts.order.status = \"open\"",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let cases = root().join("policies/orders/orders_cases.yaml");
    let case = format!("{}#a closed order is not refunded", cases.display());
    let ran = policy("eval", &root().join("policies/orders"), &["--case", &case, "--json"]);
    let decided = &ran.lines()[0]["decision"];
    assert_eq!((decided["verdict"].as_str(), decided["code"].as_str()), (Some("deny"), Some("policy_denied")));
    let unknown = format!("{}#nothing", cases.display());
    assert_eq!(policy("eval", &root().join("policies/orders"), &["--case", &unknown]).code, Some(2));
    let ran = starters("eval", &["--action", "refunds.creat", "--resource", "orders/17"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stdout);
    assert!(ran.stderr.contains("no tool has an action"), "{}", ran.stderr);
}

#[test]
fn a_whole_input_is_put_as_it_is() {
    let suite = suite(GOOD, CASE);
    let path = suite.path().join("input.json");
    let input = r#"{"tool": "orders", "action": {"name": "a"}, "delegation": {"covers": true}, "chain": [], "facts": {"order": {"status": "open"}}}"#;
    fs::write(&path, input).unwrap();
    let input = path.to_str().unwrap();
    let said = policy("eval", suite.path(), &["--input", input, "--explain"]).well();
    assert!(
        said.starts_with("permit: covered") && said.contains("not     countersign.teams.support.deny \"closed\""),
        "{said}"
    );
    fs::write(&path, "{\"tool\": 7}").unwrap();
    assert_eq!(policy("eval", suite.path(), &["--input", input]).code, Some(2));
    fs::write(&path, "[[[").unwrap();
    assert_eq!(policy("eval", suite.path(), &["--input", input]).code, Some(2));
}

#[test]
fn watched_policies_are_tested_again_when_a_file_changes() {
    let suite = suite(GOOD, CASE);
    let logs = tempfile::tempdir().unwrap();
    let source = format!("support={}:orders", suite.path().display());
    let mut command = countersign();
    let watching = Daemon::start(command.args(["policy", "test", &source, "--watch"]), &logs.path().join("log"));
    let said = |part: &str| watching.output().contains(part).then_some(());
    eventually("the first run", || said("1 cases passed, 0 failed\nwatching\n"));
    fs::write(suite.path().join("support_cases.yaml"), CASE.replace("permit", "deny")).unwrap();
    eventually("the case to fail", || said("expected deny, it is permit"));
    // What cannot be read ends nothing.
    fs::write(suite.path().join("support.rego"), "package").unwrap();
    eventually("the broken file", || said("support.rego:"));
    fs::write(suite.path().join("support.rego"), POLICY).unwrap();
    fs::write(suite.path().join("support_cases.yaml"), CASE).unwrap();
    eventually("everything to pass", || {
        (watching.output().matches("1 cases passed, 0 failed").count() > 1).then_some(())
    });
}

#[test]
fn what_decisions_cost_is_measured_on_the_cases() {
    let suite = suite(GOOD, CASE);
    let ran = policy("bench", suite.path(), &["--rounds", "50", "--json"]);
    let measured = &ran.lines()[0];
    assert_eq!(measured["questions"], 1);
    let rows = measured["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["p50_ns"].as_u64() <= row["p99_ns"].as_u64() && row["rounds"] == 50), "{rows:?}");
    assert_eq!(policy("bench", suite.path(), &["--rounds", "0"]).code, Some(2));
}

#[test]
fn a_recorded_decision_becomes_a_case_that_passes_under_the_same_policy() {
    let Some(world) = world() else { return };
    for (order, amount, status) in [("17", "20.00", 201), ("18", "20.00", 403), ("17", "45.00", 403)] {
        let mark = mark();
        let token = world.openid.delegated("alice");
        let body = format!("{{\"amount\":\"{amount}\",\"currency\":\"USD\"}}");
        let answer = world.sidecar.refund(order, &token, &body).header("X-Mark", &mark).send();
        assert_eq!(answer.status, status, "{}", answer.text());
        let ledger = world.sidecar.ledger();
        let id = answer.decision_id();
        let written =
            process::run(countersign().args(["policy", "test", "--from-decision", &id, "--ledger"]).arg(&ledger))
                .well();
        assert!(written.starts_with("# yaml-language-server: $schema="), "{written}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recorded_cases.yaml");
        fs::write(&path, &written).unwrap();
        let config = world.sidecar.directory().join("countersign.yaml");
        let ran = process::run(
            countersign().args(["policy", "test", "--run", &id, "--config"]).arg(&config).arg("--cases").arg(&path),
        );
        assert!(ran.stdout.contains("1 cases passed, 0 failed"), "{}{}\n{written}", ran.stdout, ran.stderr);
        let other = written.replace("\"decision\":\"", "\"decision\":\"approval_required\",\"was\":\"");
        fs::write(&path, other).unwrap();
        let refused =
            process::run(countersign().args(["policy", "test", "--config"]).arg(&config).arg("--cases").arg(&path));
        assert_eq!(refused.code, Some(78), "an unknown key is refused: {}", refused.stdout);
    }
    let ran = process::run(
        countersign().args(["policy", "test", "--from-decision", "nothing", "--ledger"]).arg(world.sidecar.ledger()),
    );
    assert_eq!(ran.code, Some(1));
}
