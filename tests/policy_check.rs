//! `countersign policy check` and `schema`, and what a team has beside its policies, by the real binary.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    process::{Ran, countersign, run},
    root,
};

/// The starters, which hold a configuration with tools of every kind, in a directory of their own.
fn starters() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(&root().join("policies/starters"), directory.path());
    directory
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            fs::copy(&path, &there).unwrap();
        }
    }
}

fn check(directory: &Path, arguments: &[&str]) -> Ran {
    run(countersign().current_dir(directory).args(["policy", "check"]).args(arguments))
}

/// Adds a rule to the support team's policy, and gives the line it is on.
fn add(directory: &Path, rule: &str) -> usize {
    let path = support(directory);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push('\n');
    let line = text.lines().count() + 1;
    text.push_str(rule);
    text.push('\n');
    fs::write(path, text).unwrap();
    line
}

fn support(directory: &Path) -> PathBuf {
    directory.join("support/support.rego")
}

const MISSPELT: &str = "deny contains {\"code\": \"misspelt\"} if {\n\tinput.action.nam == \"refunds.create\"\n}";

#[test]
fn the_repositorys_own_policies_have_nothing_wrong_with_them() {
    for config in [
        "policies/starters/countersign.yaml",
        "examples/quickstart/countersign.yaml",
        "examples/quickstart/with-authority/countersign.yaml",
        "examples/multi-agent/countersign.yaml",
        "examples/exchanged/countersign.yaml",
    ] {
        let mut command = countersign();
        command.current_dir(root()).args(["policy", "check", "--strict", "--config", config]);
        let text = fs::read_to_string(root().join(config)).unwrap();
        for name in text.split("${").skip(1).filter_map(|rest| rest.split('}').next()) {
            command.env(name, if name.ends_with("PORT") { "1" } else { "https://sso.example" });
        }
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{config}: {}{}", ran.stdout, ran.stderr);
    }
    let ran =
        run(countersign().current_dir(root()).args(["policy", "check", "--strict", "policies/org", "policies/orders"]));
    assert!(ran.well().starts_with("ok: "));
}

#[test]
fn a_person_sees_the_line_a_caret_under_what_is_wrong_and_what_was_meant() {
    let directory = starters();
    let line = add(directory.path(), MISSPELT) + 1;
    let ran = check(directory.path(), &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let margin = " ".repeat(line.to_string().len());
    let expected = format!(
        "error[input]: `input.action` has no `nam`\n\
         {margin}--> support/support.rego:{line}:15\n\
         {margin} |\n\
         {line} |     input.action.nam == \"refunds.create\"\n\
         {margin} |                  ^^^\n\
         {margin} = did you mean `name`?\n"
    );
    assert!(ran.stdout.contains(&expected), "{}\n{expected}", ran.stdout);
    assert!(ran.stdout.trim_end().lines().last().unwrap().starts_with("1 error in "), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "colour is for terminals");
}

#[test]
fn programs_read_every_problem_with_its_place_and_code() {
    let directory = starters();
    let line = add(directory.path(), MISSPELT);
    add(directory.path(), "spare := 4");
    let ran = check(directory.path(), &["--format", "json"]);
    assert_eq!(ran.code, Some(1));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["ok"], &report["errors"], &report["warnings"]), (&false.into(), &1.into(), &1.into()));
    let first = &report["problems"][0];
    assert_eq!(
        *first,
        serde_json::json!({
            "file": "support/support.rego", "line": line + 1, "column": 15, "end": {"line": line + 1, "column": 18},
            "severity": "error", "code": "input", "message": "`input.action` has no `nam`",
            "hint": "did you mean `name`?",
        })
    );
    assert_eq!(report["problems"][1]["code"], "unused");
    let github = check(directory.path(), &["--format", "github"]);
    let expected = format!(
        "::error file=support/support.rego,line={},col=15,endLine={0},endColumn=18,title=policy input::",
        line + 1
    );
    assert!(github.stdout.starts_with(&expected), "{}", github.stdout);
}

#[test]
fn warnings_fail_only_where_they_are_asked_to_and_exit_codes_say_what_went_wrong() {
    let directory = starters();
    assert_eq!(check(directory.path(), &["--strict"]).code, Some(0));
    add(directory.path(), "spare := 4");
    assert_eq!(check(directory.path(), &[]).code, Some(0));
    assert_eq!(check(directory.path(), &["--strict"]).code, Some(1));
    assert_eq!(check(directory.path(), &["--config", "nowhere.yaml"]).code, Some(78));
    assert_eq!(check(directory.path(), &["nowhere"]).code, Some(78));
    assert_eq!(check(directory.path(), &["--format", "xml"]).code, Some(2));
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(check(nothing.path(), &[]).code, Some(2));
    fs::write(support(directory.path()), "package countersign.teams.support\nx := [").unwrap();
    let broken = check(directory.path(), &[]);
    assert_eq!(broken.code, Some(1), "{}{}", broken.stdout, broken.stderr);
    assert!(broken.stdout.contains("error[syntax]"), "{}", broken.stdout);
}

#[test]
fn names_of_the_catalogue_are_checked_where_there_is_one() {
    let directory = starters();
    add(directory.path(), "allow contains {\"code\": \"x\"} if input.action.name == \"refunds.creat\"");
    let with = check(directory.path(), &[]);
    assert!(with.stdout.contains("error[action]") && with.stdout.contains("`refunds.create`"), "{}", with.stdout);
    let without = check(directory.path(), &["org", "support"]);
    assert_eq!(without.code, Some(0), "{}{}", without.stdout, without.stderr);
    assert!(without.stdout.contains("were not checked"), "{}", without.stdout);
    let named = check(directory.path(), &["org", "support=support:orders", "--catalogue", "countersign.yaml"]);
    assert_eq!(named.code, Some(1), "{}{}", named.stdout, named.stderr);
}

#[test]
fn what_loads_and_does_not_mean_what_it_says_is_a_warning_where_the_sidecar_is_configured() {
    let directory = starters();
    let config = directory.path().join("countersign.yaml");
    for path in [config.clone(), directory.path().to_owned()] {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    add(directory.path(), MISSPELT);
    let mut command = countersign();
    command.args(["config", "check", "--json"]).arg(&config);
    for variable in ["LIBRARY_TOKEN", "ORDERS_TOKEN", "TRAVEL_TOKEN", "BILLING_TOKEN", "WAREHOUSE_TOKEN"] {
        command.env(variable, "secret");
    }
    let ran = run(&mut command);
    let findings: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(findings["warnings"].to_string().contains("`input.action` has no `nam`"), "{}{}", ran.stdout, ran.stderr);
    assert!(!findings["problems"].to_string().contains("`nam`"), "{}", ran.stdout);
}

#[test]
fn text_that_would_reach_past_the_terminal_is_shown_as_text() {
    let directory = starters();
    add(directory.path(), "deny contains {\"code\": \"x\"} if input[\"\u{1b}[31m\"] == 1");
    let ran = check(directory.path(), &[]);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{}", ran.stdout.escape_debug());
}

#[test]
fn the_schemas_are_those_that_are_published() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("schemas");
    run(countersign().args(["policy", "schema", "--to"]).arg(&to)).well();
    for name in ["input.json", "exchange.json", "management.json"] {
        let published = fs::read_to_string(root().join("policies/schema").join(name)).unwrap();
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), published, "{name}");
    }
    let printed = run(countersign().args(["policy", "schema", "delegate"])).well();
    assert_eq!(printed, fs::read_to_string(to.join("exchange.json")).unwrap());
}

/// A repository with the starters and the files of the example, whose `countersign` is the one under test.
fn repository() -> (TempDir, String) {
    let directory = starters();
    copy(&root().join("examples/policy-ci"), directory.path());
    let bin = directory.path().join(".git/bin");
    let git = |arguments: &[&str]| run(Command::new("git").current_dir(directory.path()).args(arguments)).well();
    git(&["init", "-q", "-b", "main"]);
    git(&["config", "user.name", "dana"]);
    git(&["config", "user.email", "dana@acme.example"]);
    git(&["config", "core.hooksPath", "hooks"]);
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_countersign"), bin.join("countersign")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    (directory, path)
}

fn commit(directory: &Path, path: &str) -> Ran {
    let mut command = Command::new("git");
    command.current_dir(directory).env("PATH", path).env("GIT_CONFIG_GLOBAL", "/dev/null");
    run(command.args(["commit", "-q", "-m", "policies"]))
}

fn stage(directory: &Path) {
    run(Command::new("git").current_dir(directory).args(["add", "-A"])).well();
}

#[test]
fn the_hook_lets_a_commit_be_made_only_with_policies_that_check_and_pass() {
    let (directory, path) = repository();
    let directory = directory.path();
    stage(directory);
    let first = commit(directory, &path);
    assert_eq!(first.code, Some(0), "{}{}", first.stdout, first.stderr);
    // What is staged counts, not what lies there.
    let good = fs::read_to_string(support(directory)).unwrap();
    add(directory, MISSPELT);
    stage(directory);
    fs::write(support(directory), &good).unwrap();
    let refused = commit(directory, &path);
    assert_ne!(refused.code, Some(0));
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("`input.action` has no `nam`"), "{said}");
    // Policies that mean what they say, and a test that does not pass.
    let tests = directory.join("support/support_test.rego");
    let passing = fs::read_to_string(&tests).unwrap();
    fs::write(&tests, format!("{passing}\ntest_broken if 1 == 2\n")).unwrap();
    stage(directory);
    let broken = commit(directory, &path);
    assert_ne!(broken.code, Some(0), "{}{}", broken.stdout, broken.stderr);
    // A commit of something else is not kept waiting.
    fs::write(&tests, &passing).unwrap();
    fs::write(directory.join("NOTES"), "x").unwrap();
    stage(directory);
    assert_eq!(commit(directory, "/usr/bin:/bin").code, Some(0));
}

#[test]
fn the_workflow_runs_check_and_test_as_they_can_be_run() {
    let (directory, path) = repository();
    let text = fs::read_to_string(directory.path().join(".github/workflows/policy.yml")).unwrap();
    let workflow: Value = serde_saphyr::from_str(&text).unwrap();
    let steps = workflow["jobs"]["policy"]["steps"].as_array().unwrap();
    let hooks: Value =
        serde_saphyr::from_str(&fs::read_to_string(directory.path().join(".pre-commit-config.yaml")).unwrap()).unwrap();
    let of_steps = steps.iter().filter(|step| step["name"] == "Check" || step["name"] == "Test");
    let of_hooks = hooks["repos"][0]["hooks"].as_array().unwrap().iter();
    let commands: Vec<&str> = of_steps
        .map(|step| &step["run"])
        .chain(of_hooks.map(|hook| &hook["entry"]))
        .map(|text| text.as_str().unwrap())
        .collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let mut shell = Command::new("sh");
        shell.current_dir(directory.path()).env("PATH", &path).args(["-ec", command]);
        let ran = run(&mut shell);
        assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.stdout, ran.stderr);
    }
    let results = fs::read_to_string(directory.path().join("policy-tests.xml")).unwrap();
    assert!(results.contains("<testsuite"), "{results}");
}
