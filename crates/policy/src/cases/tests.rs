//! Cases as people write them, against the shipped policies and hostile files.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use model::{
    Catalogue, FactValue, ParameterKind, ParameterValue,
    catalogue::{CurrencySource, FactDeclaration, Leaf, ParameterDeclaration, Source as Place},
    template::Template,
};

use super::*;
use crate::{Engine, Source, bundle::File, fixture};

const HEAD: &str = "cases:\n  - name: refund\n    call: alice via support-v2 refunds.create orders/17\n    \
                    parameters: { amount: 20.00 USD }\n    facts: { order: { placed_by: alice, status: open } }\n";

/// The demo's tool, as its configuration declares it.
fn catalogue() -> Catalogue {
    let bare = fixture::catalogue(&["orders"]);
    let mut tool = bare.tools()[0].clone();
    let leaf = |at: &str, principal: Option<&str>| Leaf { at: at.to_owned(), principal: principal.map(str::to_owned) };
    let pick = BTreeMap::from([
        ("placed_by".to_owned(), leaf("/customer/id", Some(fixture::REALM))),
        ("status".to_owned(), leaf("/status", None)),
    ]);
    let template = Template::parse("/v1/orders/{order}").unwrap();
    let timeout = Duration::from_secs(1);
    tool.facts = [("order".to_owned(), FactDeclaration { template, ttl: timeout, timeout, tenant: None, pick })].into();
    let mut refund = tool.actions[0].clone();
    refund.id = fixture::id("refunds.create");
    refund.method = "POST".to_owned();
    refund.template = Template::parse("/v1/orders/{order}/refunds").unwrap();
    refund.resource = Template::parse("orders/{order}").unwrap();
    refund.effect = model::Effect::Write;
    let of = |kind, optional| ParameterDeclaration {
        kind,
        value: Place::Body("/amount".to_owned()),
        currency: (kind == ParameterKind::Money).then(|| CurrencySource::Always("USD".to_owned())),
        minor: false,
        scale: 2,
        optional,
    };
    refund.parameters = BTreeMap::from([
        ("amount".to_owned(), of(ParameterKind::Money, false)),
        ("reason".to_owned(), of(ParameterKind::String, true)),
    ]);
    tool.actions.push(refund);
    Catalogue::new(vec![tool], "cases".to_owned()).unwrap()
}

fn built(text: &str) -> Vec<Built> {
    parse("a_cases.yaml", text, Some(&catalogue())).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> CaseError {
    parse("a_cases.yaml", text, Some(&catalogue())).unwrap_err()
}

fn engine() -> Engine {
    let policies = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let read = |name: &str, directory: &str, tools: Option<&str>| {
        Source::read(name, &policies.join(directory), tools.map(|tool| [fixture::id(tool)].into())).unwrap()
    };
    Engine::load(&[read("org", "org", None), read("support", "orders", Some("orders"))], &catalogue()).unwrap()
}

fn team(rules: &str) -> Engine {
    let text = format!("package countersign.teams.support\n\n{rules}");
    let source = Source {
        name: "support".to_owned(),
        tools: Some([fixture::id("orders")].into()),
        policies: vec![File { path: "support.rego".to_owned(), text }],
        tests: Vec::new(),
        data: Vec::new(),
    };
    Engine::load(&[source], &catalogue()).unwrap()
}

#[test]
fn five_lines_say_who_may_do_what() {
    let case = &built(&format!("{HEAD}    expect: permit\n"))[0];
    let outcome = run(&engine(), case);
    assert_eq!(outcome.failures, Vec::<String>::new());
    let question = &case.question;
    assert_eq!(question.request.path.as_str(), "/orders/v1/orders/17/refunds");
    assert_eq!(question.call.parameters.value("reason"), None);
    let Some(FactValue::Principal(placed_by)) = question.facts.leaf("order.placed_by") else { panic!() };
    assert_eq!(placed_by.issuer, question.delegation.chain.user().principal.issuer);
    assert_eq!(case.line, 2);
}

#[test]
fn the_decision_its_code_and_its_reasons_are_compared() {
    let fails = |expect: &str| run(&engine(), &built(&format!("{HEAD}    expect: {expect}\n"))[0]).failures;
    assert!(fails("{ decision: permit, reasons: [refund_within_grant] }").is_empty());
    assert_eq!(
        fails("deny"),
        ["expected deny, it is permit: refund_within_grant (countersign.teams.support)".to_owned()]
    );
    assert!(fails("{ decision: permit, reasons: [other] }")[0].contains("because of other"));
    let bobs = HEAD.replace("placed_by: alice", "placed_by: bob");
    let denied = |expect: &str| run(&engine(), &built(&format!("{bobs}    expect: {expect}\n"))[0]).failures;
    assert!(denied("{ decision: deny, code: policy_denied, reasons: [not_your_order] }").is_empty());
    assert_eq!(denied("{ decision: deny, code: policy_no_allow }").len(), 1);
    let large = HEAD.replace("20.00", "150.00");
    assert!(run(&engine(), &built(&format!("{large}    expect: approval_required\n"))[0]).failures.is_empty());
}

#[test]
fn what_is_left_out_comes_from_the_defaults_and_facts_are_put_together() {
    let text = "defaults:\n  call: alice via planner via support-v2 refunds.create orders/17\n  parameters: { amount: 20 }\n  \
                facts: { order: { placed_by: $user, status: open } }\n  expect: permit\n\
                cases:\n  - name: open\n  - name: closed\n    facts: { order: { status: closed } }\n    expect: deny\n";
    let cases = built(text);
    assert_eq!(cases.len(), 2);
    assert!(cases.iter().all(|case| run(&engine(), case).failures.is_empty()));
    assert_eq!(cases[0].question.delegation.chain.hops().count(), 3);
}

#[test]
fn every_type_of_parameter_reads_back_as_it_was() {
    let question = fixture::question();
    let mut other = question.clone();
    let values = [
        ParameterValue::Id("7".to_owned()),
        ParameterValue::String("20.00 USD".to_owned()),
        ParameterValue::Integer(-3),
        ParameterValue::Set(["a".to_owned(), "b".to_owned()].into()),
        ParameterValue::Time("2026-01-05T12:00:00Z".parse().unwrap()),
    ];
    for (index, value) in values.into_iter().enumerate() {
        other.call.parameters.set(&format!("p{index}"), value.kind(), Some(value));
    }
    for question in [question, other] {
        let decision = engine().decide(&question);
        let text = written("one: \"two\"\n", &question, &decision);
        let cases = parse("a_cases.yaml", &text, None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(cases[0].question, question, "{text}");
        assert_eq!(cases[0].differs(&decision), None);
    }
}

#[test]
fn a_decision_that_something_missing_makes_more_permissive_fails_and_names_it() {
    let careless = "allow contains {\"code\": \"x\"}\n\ndeny contains {\"code\": \"closed\"} if input.facts.order.status == \"closed\"\n";
    let closed = HEAD.replace("status: open", "status: closed");
    let text = format!("{closed}    expect: deny\n");
    let outcome = run(&team(careless), &built(&text)[0]);
    assert_eq!(outcome.failures.len(), 1, "{:?}", outcome.failures);
    assert!(outcome.failures[0].starts_with("without `facts.order.status` it is more permissive: permit: x"));
    // Said to be right, it passes; said without being so, it does not.
    let acknowledged = format!("{text}    more_permissive_without: {{ facts.order.status: an unread order is new }}\n");
    let outcome = run(&team(careless), &built(&acknowledged)[0]);
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert_eq!(outcome.loosened[0].acknowledged.as_deref(), Some("an unread order is new"));
    let careful =
        careless.replace("input.facts.order.status == \"closed\"", "not input.facts.order.status == \"open\"");
    assert!(run(&team(&careful), &built(&text)[0]).failures.is_empty());
    assert_eq!(run(&team(&careful), &built(&acknowledged)[0]).failures.len(), 1);
}

#[test]
fn every_optional_part_is_taken_away() {
    let text = "cases:\n  - name: all\n    call: alice via support-v2 refunds.create orders/17\n    \
                user: { acr: high, groups: [a, b], roles: [r], attributes: { k: v } }\n    agent: { instance: pod }\n    \
                parameters: { amount: 20, reason: why }\n    facts: { order: { placed_by: $user, status: open } }\n    \
                limits: [{ name: daily, max: 200.00 USD, used: 10.00 USD, window: P1D }]\n    \
                task: { id: t, use_case: u, initiated_by: alice, presence: present, sensitivity: low }\n    \
                delegation: { grant: g }\n    request: { headers: { x-a: b } }\n    expect: deny\n";
    let case = &built(text)[0];
    let names: Vec<String> =
        without::each(&case.question, case.action.as_ref()).into_iter().map(|(name, _)| name).collect();
    for name in [
        "user.acr",
        "user.tenant",
        "user.groups.a",
        "user.groups.b",
        "user.roles.r",
        "user.attributes.k",
        "agent.instance",
        "delegation.grant_id",
        "task.id",
        "task.initiated_by",
        "task.presence",
        "task.use_case",
        "task.sensitivity",
        "task.stage",
        "facts.order.placed_by",
        "facts.order.status",
        "action.parameters.reason",
        "call.headers.x-a",
        "limits.daily.used",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
    // What is required is there, or the call is refused before policy is asked.
    assert!(!names.iter().any(|name| name == "action.parameters.amount"));
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_line_and_column() {
    let text = format!("{HEAD}    expcet: permit\n");
    let error = refused(&text);
    assert_eq!((error.line, error.column), (6, 5), "{error}");
    assert!(error.message.contains("expcet"), "{error}");
    let error = refused(&format!("{HEAD}    user: {{ id: alice, nmae: x }}\n    expect: deny\n"));
    assert_eq!(error.line, 6, "{error}");
    assert!(error.message.contains("nmae"), "{error}");
    for (from, to, says) in [
        ("refunds.create", "refunds.creat", "no tool has an action `refunds.creat`"),
        ("amount: 20.00 USD", "amuont: 20.00 USD", "has no parameter `amuont`"),
        ("amount: 20.00 USD", "reason: x", "`amount`: it is required"),
        ("amount: 20.00 USD", "amount: 20.001 USD", "fraction digits"),
        ("amount: 20.00 USD", "amount: 20.5", "is not a value of a parameter"),
        ("order: {", "oder: {", "has no fact `oder`"),
        ("status: open", "state: open", "has no `state`"),
        ("orders/17", "customers/17", "not the name of a resource"),
        ("alice via support-v2", "alice", "USER via AGENT"),
        ("name: refund", "name: refund\n    now: yesterday", "now"),
    ] {
        let error = refused(&format!("{}    expect: permit\n", HEAD.replace(from, to)));
        assert!(error.message.contains(says) || error.line == 3, "{from}: {error}");
        assert!((2..=5).contains(&error.line), "{error}");
    }
    assert!(refused(HEAD).message.contains("expect"));
    assert!(refused(&format!("{HEAD}    expect: maybe\n")).message.contains("permit"));
    let twice = format!("{HEAD}    expect: permit\n{}    expect: permit\n", HEAD.trim_start_matches("cases:\n"));
    assert!(refused(&twice).message.contains("a second case"));
}

#[test]
fn hostile_files_are_refused_soon() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(", ")));
    }
    refused(&format!("{bomb}cases: []\n"));
    let deep = format!("cases: {}{}\n", "[".repeat(50_000), "]".repeat(50_000));
    refused(&deep);
    refused("cases: [{name: a, name: b, expect: permit}]\n");
    refused("--- \ncases: []\n--- \ncases: []\n");
    refused("cases: !!binary aGk=\n");
    assert!(built("cases: []\n").is_empty());
}

/// `UPDATE_SCHEMA=1 cargo test -p countersign-policy schema` writes it anew.
#[test]
fn the_committed_schema_of_cases_is_the_generated_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../policies/schema/cases.json");
    let generated = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap_or_default() == generated, "policies/schema/cases.json is stale");
}
