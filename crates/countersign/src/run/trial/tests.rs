//! The trial as the child makes it, and what is said of a child that ended.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use super::*;
use crate::run::testing::Folder;

/// The report on the published shape's configuration with another policy of the team.
fn report(team: &str) -> Result<Report, TrialError> {
    let folder = Folder::new(|config| config);
    folder.write("policies/support/support.rego", &format!("package countersign.teams.support\n\n{team}\n"), 0o644);
    let mut config = folder.document().value;
    config.place(&folder.path(""));
    let sources: Vec<Source> = config.policy.iter().map(|source| source.read(Path::new("/")).unwrap()).collect();
    run(&config.tools, &config.sidecar.tenants, &sources)
}

#[test]
fn a_policy_that_answers_passes_whatever_it_answers() {
    for team in [
        "allow contains {\"code\": \"all\"}",
        "deny contains {\"code\": \"none\"}",
        "allow contains {\"code\": \"x\"} if input.action.parameters.amount.minor > 5",
        // An error in a rule denies its calls, and ends nothing.
        "allow contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.facts.order.placed_by) > 0",
    ] {
        assert_eq!(report(team).unwrap(), Report::default(), "{team}");
    }
}

#[test]
fn a_policy_that_does_not_load_does_not_pass_and_its_place_is_named() {
    let error = report("allow contains {").unwrap_err();
    assert!(matches!(&error, TrialError::Wrong(said) if said.contains("support.rego:")), "{error}");
}

#[test]
fn a_policy_that_spends_its_budget_is_named_by_its_actions() {
    let report = report(
        "allow contains {\"code\": \"slow\"} if {\n    input.action.effect == \"write\"\n    \
         some a in numbers.range(1, 5000)\n    some b in numbers.range(1, 5000)\n    a + b < 0\n}",
    );
    assert_eq!(report.unwrap().slow, ["refunds.create"]);
}

#[test]
fn an_authoritys_policy_is_asked_what_an_authority_asks() {
    let sources = |org: &str| {
        let folder = Folder::new(|config| config);
        folder.write("policies/org/org.rego", &format!("package countersign.org\n\n{org}\n"), 0o644);
        vec![Source::read("org", &folder.path("policies/org"), None).unwrap()]
    };
    for org in [
        "delegate contains {\"code\": \"x\"} if input.exchange.to.id == \"sample\"",
        "manage contains {\"code\": \"x\"} if time.parse_rfc3339_ns(input.operation) > 0",
    ] {
        run_for_authority(&sources(org)).unwrap();
    }
    let error = run_for_authority(&sources("delegate := true")).unwrap_err();
    assert!(matches!(&error, TrialError::Wrong(said) if said.contains("org.rego:")), "{error}");
}

#[test]
fn the_child_is_given_no_secret_and_no_name_of_one() {
    let folder = Folder::new(|config| config);
    let config = folder.document().value;
    let tools: Vec<ToolConfig> = config.tools.values().map(without_credentials).collect();
    let text = serde_json::to_string(&tools).unwrap();
    assert!(text.contains("refunds.create") && !text.contains("secrets/orders"), "{text}");
}

#[test]
fn what_is_no_subject_is_a_problem_and_no_panic() {
    for text in ["", "{}", "[]", "{\"tools\":{},\"tenants\":[],\"sources\":[{}]}"] {
        assert!(examine(text.as_bytes().to_vec()).problem.is_some(), "{text}");
    }
}

#[test]
fn how_the_child_ended_is_said_in_words() {
    let said = |raw: i32, complained: &str| ended(ExitStatus::from_raw(raw), complained);
    assert_eq!(
        said(6, "\nmemory allocation of 9 bytes failed\nmore\n"),
        "aborted (memory allocation of 9 bytes failed)"
    );
    assert!(said(9, "").contains("processor time"));
    assert_eq!(said(11, ""), "was ended by signal 11");
    assert_eq!(said(2 << 8, "\u{1b}[31mno"), "ended with exit code 2 ([31mno)");
}
