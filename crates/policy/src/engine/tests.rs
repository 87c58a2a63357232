//! Decisions on real questions: the shipped policies, and policies that are wrong, hostile or slow.

use std::{path::Path, sync::Arc, time::Duration};

use model::{FactValue, Stage, Verdict};

use super::*;
use crate::{bundle::File, fixture};

/// A source of one file, `<name>.rego`.
pub(crate) fn source(name: &str, tools: &[&str], text: &str) -> Source {
    Source {
        name: name.to_owned(),
        tools: (name != "org").then(|| tools.iter().map(|tool| fixture::id(tool)).collect()),
        policies: vec![File { path: format!("{name}.rego"), text: text.to_owned() }],
        tests: Vec::new(),
        data: Vec::new(),
    }
}

fn team(body: &str) -> Source {
    source("support", &["orders"], &format!("package countersign.teams.support\n{body}\n"))
}

fn org(body: &str) -> Source {
    source("org", &[], &format!("package countersign.org\n{body}\n"))
}

fn load(sources: &[Source]) -> Engine {
    // The budget is wall clock, and a machine that runs tests may be a busy one.
    let bounds = Bounds { budget: Duration::from_secs(600), remembered: 0, ..Bounds::default() };
    Engine::load_within(sources, &fixture::catalogue(&["orders", "mail"]), bounds).unwrap()
}

fn decide(sources: &[Source]) -> Decision {
    load(sources).decide(&fixture::question())
}

fn codes(decision: &Decision) -> Vec<&str> {
    decision.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

const ALLOW: &str = r#"allow contains {"code": "all"}"#;

fn shipped() -> Engine {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let read = |name: &str, directory: &str, tools| Source::read(name, &policies.join(directory), tools).unwrap();
    load(&[read("org", "org", None), read("support", "orders", Some([fixture::id("orders")].into()))])
}

#[test]
fn the_shipped_policies_decide_the_calls_of_the_demo() {
    let engine = shipped();
    let decision = engine.decide(&fixture::question());
    assert_eq!((decision.verdict, decision.code), (Verdict::Permit, None));
    assert_eq!(codes(&decision), ["refund_within_grant"]);
    assert_eq!(decision.reasons[0].source, "countersign.teams.support");

    let mut closed = fixture::question();
    closed.facts = fixture::order(fixture::placed_by("alice"), FactValue::Text("closed".to_owned()));
    let decision = engine.decide(&closed);
    assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::PolicyDenied)));
    assert_eq!(codes(&decision), ["refund_closed_order"]);
    assert!(decision.reasons[0].message.is_some());

    let mut large = fixture::question();
    let mut delegation = fixture::delegation();
    delegation.authority.elements[0].limits = model::Limits::default();
    large.delegation = Arc::new(delegation);
    large.call.parameters = fixture::amount("100.01", "USD");
    assert_eq!(engine.decide(&large).code, Some(Code::PolicyNoAllow), "the hops' limits still hold");

    let mut unmapped = fixture::question();
    unmapped.call.action = fixture::id("orders.delete");
    assert_eq!(engine.decide(&unmapped).code, Some(Code::PolicyNoAllow));
}

#[test]
fn a_missing_fact_denies() {
    let engine = shipped();
    for facts in [
        fixture::order(FactValue::Null, FactValue::Null),
        fixture::order(fixture::placed_by("bob"), fixture::open()),
        fixture::order(FactValue::Text("alice".to_owned()), fixture::open()),
        model::Facts::default(),
    ] {
        let mut question = fixture::question();
        question.facts = facts;
        let decision = engine.decide(&question);
        assert_eq!(decision.verdict, Verdict::Deny);
        assert_eq!(codes(&decision), ["not_your_order"]);
    }
    let mut no_state = fixture::question();
    no_state.facts = fixture::order(fixture::placed_by("alice"), FactValue::Null);
    assert_eq!(engine.decide(&no_state).code, Some(Code::PolicyNoAllow));
}

#[test]
fn deny_comes_before_no_allow_before_obligations_before_approval_before_permit() {
    let deny = r#"deny contains {"code": "no", "message": "No.", "internal": "x", "retry": "never"}"#;
    let (obligation, approval) = (
        r#"obligations contains {"code": "mask"}"#,
        r#"approval contains {"code": "ask", "approvers": ["user"], "expires": "PT15M"}"#,
    );
    let together = |rules: &[&str]| decide(&[team(&rules.join("\n"))]);
    let cases = [
        (vec![ALLOW, deny, obligation, approval], Verdict::Deny, Some(Code::PolicyDenied), "no"),
        (vec![deny], Verdict::Deny, Some(Code::PolicyDenied), "no"),
        (vec![ALLOW, obligation, approval], Verdict::Deny, Some(Code::ObligationUnknown), "mask"),
        (vec![ALLOW, approval], Verdict::ApprovalRequired, Some(Code::ApprovalRequired), "ask"),
        (vec![ALLOW], Verdict::Permit, None, "all"),
    ];
    for (rules, verdict, code, reason) in cases {
        let decision = together(&rules);
        assert_eq!((decision.verdict, decision.code), (verdict, code), "{rules:?}");
        assert_eq!(codes(&decision), [reason]);
    }
    assert_eq!(together(&[approval, obligation]).code, Some(Code::PolicyNoAllow));
    let denied = together(&[deny]).reasons.remove(0);
    assert_eq!((denied.message.as_deref(), denied.internal.as_deref()), (Some("No."), Some("x")));
    assert_eq!(denied.retry, Some(model::Retry::Never));
    assert_eq!(together(&[ALLOW, approval]).reasons[0].retry, Some(model::Retry::AfterChange));
}

#[test]
fn a_tool_that_no_team_is_bound_to_has_no_policy() {
    assert_eq!(decide(&[]).code, Some(Code::NoPolicy));
    assert_eq!(decide(&[org("")]).code, Some(Code::NoPolicy));
    let elsewhere = source("support", &["mail"], &format!("package countersign.teams.support\n{ALLOW}"));
    assert_eq!(decide(&[elsewhere]).code, Some(Code::NoPolicy));
    assert_eq!(decide(&[team("limit := 3")]).code, Some(Code::PolicyNoAllow));
}

#[test]
fn the_platform_team_denies_for_every_tool_and_reasons_have_one_order() {
    let denies = r#"deny contains {"code": sprintf("r%d", [n])} if some n in [3, 1, 2]"#;
    let decision = decide(&[team(&format!("{ALLOW}\n{denies}")), org(denies)]);
    assert_eq!(codes(&decision), ["r1", "r2", "r3", "r1", "r2", "r3"]);
    assert_eq!(decision.reasons[0].source, "countersign.org");
    assert_eq!(decision.reasons[5].source, "countersign.teams.support");
}

#[test]
fn answers_in_a_package_below_the_teams_count_as_its_own() {
    let mut below = team(ALLOW);
    below.policies.push(File {
        path: "refunds.rego".to_owned(),
        text: "package countersign.teams.support.refunds\ndeny contains {\"code\": \"no\"} if input.tool == \"orders\""
            .to_owned(),
    });
    let decision = decide(&[below]);
    assert_eq!(decision.reasons[0].source, "countersign.teams.support.refunds");
}

/// The bytecode VM lets this call through: it takes the error for a body that is not true.
#[test]
fn a_deny_that_runs_into_an_error_denies() {
    let rule = r#"deny contains {"code": "expired"} if time.parse_rfc3339_ns(input.call.headers["x-ticket"]) < 5"#;
    let decision = decide(&[team(&format!("{ALLOW}\n{rule}"))]);
    assert_eq!((decision.verdict, decision.code), (Verdict::Deny, Some(Code::PolicyError)));
    assert_eq!(decision.reasons[0].source, "countersign.teams.support");
    assert!(decision.reasons[0].message.as_deref().unwrap().contains("countersign.teams.support"));
    assert!(decision.reasons[0].internal.is_some());
    let through_a_function = r#"late(text) if time.parse_rfc3339_ns(text) < 5
deny contains {"code": "expired"} if late(input.call.headers["x-ticket"])
deny contains {"code": "also"} if not late(input.call.headers["x-ticket"])"#;
    assert_eq!(decide(&[team(&format!("{ALLOW}\n{through_a_function}"))]).code, Some(Code::PolicyError));
    let conflict = "x := 1 if input.tool\nx := 2 if input.tenant\ndeny contains {\"code\": \"c\"} if x == 3";
    assert_eq!(decide(&[team(&format!("{ALLOW}\n{conflict}"))]).code, Some(Code::PolicyError));
}

#[test]
fn an_error_of_the_platform_teams_policy_denies_every_call_and_one_of_another_team_none() {
    let error = r#"deny contains {"code": "e"} if startswith(input.approval, "x")"#;
    assert_eq!(decide(&[org(error), team(ALLOW)]).code, Some(Code::PolicyError));
    let other = source("mail", &["mail"], &format!("package countersign.teams.mail\n{error}\n{ALLOW}"));
    let engine = load(&[team(ALLOW), other]);
    assert_eq!(engine.decide(&fixture::question()).verdict, Verdict::Permit);
    let mut to_mail = fixture::question();
    to_mail.call.tool = fixture::id("mail");
    let decision = engine.decide(&to_mail);
    assert_eq!(
        (decision.code, decision.reasons[0].source.as_str()),
        (Some(Code::PolicyError), "countersign.teams.mail")
    );
}

#[test]
fn another_teams_deny_or_allow_is_no_part_of_a_decision() {
    let other = source(
        "mail",
        &["mail"],
        &format!("package countersign.teams.mail\n{ALLOW}\ndeny contains {{\"code\": \"no\"}}"),
    );
    assert_eq!(decide(&[team(""), other.clone()]).code, Some(Code::PolicyNoAllow));
    assert_eq!(decide(&[team(ALLOW), other]).verdict, Verdict::Permit);
}

#[test]
fn a_member_that_is_not_a_reason_is_an_error_of_its_package() {
    for member in [
        r#"x if x := "text""#,
        r#"x if x := {"message": "no code"}"#,
        r#"x if x := {"code": "Not A Code"}"#,
        r#"x if x := {"code": 3}"#,
        r#"x if x := {"code": "ok", "retry": "sometimes"}"#,
        r#"x if x := {"code": "ok", "mesage": "misspelt"}"#,
        r#"x if x := {"code": "ok", "message": null}"#,
        r#"x if x := {"code": "ok", "message": "two\nlines"}"#,
        r#"x if x := {"code": "ok", 3: "x"}"#,
        r#"x if x := {"code": "ok", "approvers": ["user"]}"#,
        r#"x if x := ["code"]"#,
    ] {
        for set in ["allow", "deny"] {
            let decision = decide(&[team(&format!("{ALLOW}\n{set} contains {member}"))]);
            assert_eq!(decision.code, Some(Code::PolicyError), "{set} contains {member}");
        }
    }
    let who = r#"approval contains x if x := {"code": "ok", "approvers": [3]}"#;
    assert_eq!(decide(&[team(&format!("{ALLOW}\n{who}"))]).code, Some(Code::PolicyError));
}

#[test]
fn a_policy_that_takes_too_long_spends_its_budget_and_denies() {
    let slow = r#"deny contains {"code": "slow"} if {
	some a in numbers.range(1, 2000)
	some b in numbers.range(1, 2000)
	some c in numbers.range(1, 2000)
	a + b + c < 0
}"#;
    let bounds = Bounds { budget: Duration::from_millis(20), ..Bounds::default() };
    let sources = [team(&format!("{ALLOW}\n{slow}"))];
    let engine = Engine::load_within(&sources, &fixture::catalogue(&["orders"]), bounds).unwrap();
    let decision = engine.decide(&fixture::question());
    assert_eq!((decision.code, codes(&decision)), (Some(Code::PolicyBudget), vec!["policy_budget"]));
}

#[test]
fn an_input_that_is_too_large_is_refused_before_it_is_looked_at() {
    let mut question = fixture::question();
    question.facts = fixture::order(fixture::placed_by("alice"), FactValue::Text("x".repeat(300 * 1024)));
    let reading = format!("{ALLOW}\ndeny contains {{\"code\": \"closed\"}} if input.facts.order.status == \"closed\"");
    let decision = load(&[team(&reading)]).decide(&question);
    assert_eq!((decision.code, codes(&decision)), (Some(Code::Malformed), vec!["input_too_large"]));
    // What nobody looks at costs nothing.
    assert_eq!(load(&[team(ALLOW)]).decide(&question).verdict, Verdict::Permit);
}

#[test]
fn a_decision_depends_on_the_question_alone_on_any_thread() {
    let engine = shipped();
    let mut observing = fixture::question();
    observing.facts = fixture::order(fixture::placed_by("bob"), fixture::open());
    let questions = [fixture::question(), observing];
    let expected = questions.each_ref().map(|question| engine.decide(question));
    assert_ne!(expected[0], expected[1]);
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let (engine, questions, expected) = (&engine, &questions, &expected);
            scope.spawn(move || {
                for round in 0..100 {
                    let index = (round + offset) % 2;
                    assert_eq!(engine.decide(&questions[index]), expected[index]);
                }
            });
        }
    });
}

#[test]
fn the_revision_changes_with_everything_that_a_decision_depends_on() {
    let catalogue = fixture::catalogue(&["orders", "mail"]);
    let revision = |sources: &[Source]| Engine::load(sources, &catalogue).unwrap().revision().to_owned();
    let base = revision(&[team(ALLOW), org("")]);
    assert_eq!(base, revision(&[org(""), team(ALLOW)]));
    let mut moved = team(ALLOW);
    moved.policies[0].path = "elsewhere.rego".to_owned();
    assert_eq!(base, revision(&[moved, org("")]));
    let mut bound = team(ALLOW);
    bound.tools = Some([fixture::id("mail")].into());
    for other in [vec![team(ALLOW)], vec![team(&format!("{ALLOW} # new")), org("")], vec![bound, org("")]] {
        assert_ne!(base, revision(&other));
    }
    let other_tools = fixture::catalogue(&["orders"]);
    let same_text = Engine::load(&[team(ALLOW), org("")], &other_tools).unwrap();
    assert_eq!(base, same_text.revision(), "what the catalogue is, its own revision says");
}

#[test]
fn the_revision_names_the_engine_that_is_linked() {
    let lock = include_str!("../../../../Cargo.lock");
    let (name, version) = revision::ENGINE.split_once(' ').unwrap();
    assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")));
}

#[test]
fn a_data_document_is_read_and_a_stage_compared() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("data.json"),
        r#"{"countersign": {"teams": {"support": {"most": {"support-v2": 3000}}}}}"#,
    )
    .unwrap();
    let policy = r#"package countersign.teams.support
import data.countersign.lib.stage
allow contains {"code": "small"} if {
	stage.at_least("supervised")
	input.action.parameters.amount.minor <= data.countersign.teams.support.most[input.agent.id]
}"#;
    std::fs::write(directory.path().join("policy.rego"), policy).unwrap();
    let source = Source::read("support", directory.path(), Some([fixture::id("orders")].into())).unwrap();
    let engine = load(&[source]);
    assert_eq!(engine.decide(&fixture::question()).verdict, Verdict::Permit);
    let mut observing = fixture::question();
    let mut delegation = fixture::delegation();
    delegation.task.stage = Stage::Observe;
    observing.delegation = Arc::new(delegation);
    assert_eq!(engine.decide(&observing).code, Some(Code::PolicyNoAllow));
    let mut large = fixture::question();
    large.call.parameters = fixture::amount("31", "USD");
    assert_eq!(engine.decide(&large).code, Some(Code::PolicyNoAllow));
}
