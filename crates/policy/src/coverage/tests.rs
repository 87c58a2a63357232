//! Where rules stop, seen on the shipped policies and on every way to write a rule.

use std::path::Path as FilePath;

use model::{Catalogue, FactValue};

use super::*;
use crate::fixture;

fn catalogue() -> Catalogue {
    fixture::catalogue(&["orders"])
}

fn team(text: &str) -> Vec<Source> {
    vec![Source {
        name: "support".to_owned(),
        tools: Some([fixture::id("orders")].into()),
        policies: vec![File {
            path: "support.rego".to_owned(),
            text: format!("package countersign.teams.support\n\nimport data.countersign.lib.delegation\n\n{text}"),
        }],
        tests: Vec::new(),
        data: Vec::new(),
    }]
}

fn traces(text: &str) -> Vec<RuleTrace> {
    explained(&team(text), &catalogue(), &fixture::question()).unwrap()
}

/// Line and text of where the rule `name` stopped; lines count from the first of the rules.
fn stops(text: &str, name: &str) -> Vec<(u32, String)> {
    let traces = traces(text);
    let trace = traces.iter().find(|trace| trace.rule.ends_with(&format!(".{name}"))).unwrap();
    match &trace.outcome {
        Outcome::Stopped(stops) => stops.iter().map(|stop| (stop.place.line - 4, stop.text.clone())).collect(),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn the_shipped_policies_say_which_rule_allowed_and_where_the_others_stopped() {
    let policies = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let read = |name: &str, directory: &str, tools: Option<&str>| {
        Source::read(name, &policies.join(directory), tools.map(|tool| [fixture::id(tool)].into())).unwrap()
    };
    let sources = [read("org", "org", None), read("support", "orders", Some("orders"))];
    let explainer = Explainer::load(&sources, &catalogue()).unwrap();
    let question = fixture::question();
    let traces = explainer.explain(&question).unwrap();
    let by_code = |code: &str| traces.iter().find(|trace| trace.code.as_deref() == Some(code)).unwrap();
    assert_eq!(by_code("refund_within_grant").outcome, Outcome::True);
    for (code, text) in [
        ("not_your_order", "not own_order"),
        ("refund_closed_order", "input.facts.order.status == \"closed\""),
        ("large_refund", "not money.at_most(input.action.parameters.amount, approval_above)"),
        ("chain_too_long", "delegation.depth > max_depth"),
        ("foreign_tenant", "tenant.is_foreign"),
        ("agent_without_owner", "input.task.sensitivity == \"high\""),
        ("note_within_grant", "input.action.name == \"notes.draft\""),
    ] {
        let Outcome::Stopped(stops) = &by_code(code).outcome else { panic!("{code}: {:?}", by_code(code)) };
        assert_eq!(stops.len(), 1, "{code}");
        assert_eq!(stops[0].text, text, "{code}");
        assert!(by_code(code).decides);
    }
    let Outcome::Stopped(stops) = &by_code("chain_too_long").outcome else { panic!() };
    assert_eq!(stops[0].values["delegation.depth"], "1");
    assert_eq!(stops[0].values["max_depth"], "4");
    // The rules that the answers used are there too, and what issuing asks is not.
    assert!(traces.iter().any(|trace| trace.rule == "countersign.lib.delegation.is_user" && !trace.decides));
    assert!(!traces.iter().any(|trace| trace.decides && trace.rule.ends_with("delegate")));
    // Asked again, nothing is left of what was asked before.
    let mut other = question.clone();
    other.facts = fixture::order(FactValue::Null, fixture::open());
    let traces = explainer.explain(&other).unwrap();
    let allowed = traces.iter().find(|trace| trace.code.as_deref() == Some("refund_within_grant")).unwrap();
    assert!(matches!(&allowed.outcome, Outcome::Stopped(stops) if stops[0].text == "own_order"), "{allowed}");
    assert_eq!(explainer.explain(&question).unwrap(), explained(&sources, &catalogue(), &question).unwrap());
}

#[test]
fn expressions_on_one_line_are_told_apart() {
    let text =
        "deny contains {\"code\": \"x\"} if { input.action.effect == \"write\"; input.tenant == \"other\"; true }";
    assert_eq!(stops(text, "deny"), [(1, "input.tenant == \"other\"".to_owned())]);
    assert_eq!(stops("deny contains {\"code\": \"x\"} if input.tenant == \"b\"", "deny")[0].1, "input.tenant == \"b\"");
}

#[test]
fn each_else_has_a_body_of_its_own_and_its_own_value() {
    let text = "level := 1 if {\n\tinput.tenant == \"a\"\n} else := 2 if {\n\tinput.tenant == \"b\"\n} else if input.tenant == \"c\"\n\n\
                deny contains {\"code\": \"x\"} if level == 7";
    let lines: Vec<u32> = stops(text, "level").iter().map(|stop| stop.0).collect();
    assert_eq!(lines, [2, 4, 5]);
    let taken = text.replace("\"b\"", "\"acme\"");
    let level = traces(&taken).into_iter().find(|trace| trace.rule.ends_with("level")).unwrap();
    assert_eq!(level.outcome, Outcome::True);
}

#[test]
fn variables_are_taken_in_the_order_of_the_engine() {
    // What needs no variable is taken first, wherever it stands.
    let text = "deny contains {\"code\": \"x\"} if {\n\tsome hop in input.chain\n\thop.kind == \"agent\"\n\tinput.tenant == \"b\"\n}";
    assert_eq!(stops(text, "deny"), [(4, "input.tenant == \"b\"".to_owned())]);
    let text = "deny contains {\"code\": \"x\"} if {\n\ta := input.facts.order.none\n\tb := input.tenant\n\tb == \"acme\"\n\ta == 1\n}";
    assert_eq!(stops(text, "deny"), [(2, "a := input.facts.order.none".to_owned())]);
    let text = "deny contains {\"code\": \"x\"} if {\n\tb := input.user.nobody\n\ta := input.tenant\n\ta == \"acme\"\n\tb == 1\n}";
    assert_eq!(stops(text, "deny"), [(2, "b := input.user.nobody".to_owned())]);
    let text = "deny contains {\"code\": \"x\"} if {\n\tsome i\n\tinput.chain[i].kind == \"agent\"\n\ti == 7\n}";
    assert_eq!(stops(text, "deny"), [(4, "i == 7".to_owned())]);
    let text = "deny contains {\"code\": \"x\"} if {\n\tevery hop in input.chain {\n\t\thop.kind == \"agent\"\n\t}\n\tinput.tenant == \"acme\"\n}";
    assert_eq!(stops(text, "deny")[0].0, 2);
}

#[test]
fn a_rule_without_a_written_value_and_functions_are_true_when_their_bodies_are() {
    let text = "writes if input.action.effect == \"write\"\n\nat(name) if {\n\tinput.tenant == name\n}\n\nat(\"x\") := false if {\n\tfalse\n}\n\n\
                names := [name | some name in input.user.groups; name != \"x\"]\n\n\
                deny contains {\"code\": \"x\"} if {\n\twrites\n\tat(\"acme\")\n\tcount(names) == 3\n}";
    assert_eq!(stops(text, "deny")[0].1, "count(names) == 3");
    let traces = traces(text);
    for name in ["writes", "at"] {
        let found = traces.iter().find(|trace| trace.rule.ends_with(&format!(".{name}"))).unwrap();
        assert_eq!(found.outcome, Outcome::True, "{name}");
    }
}

#[test]
fn spreading_changes_nothing_that_the_library_and_the_policies_mean() {
    for file in crate::library::files() {
        let mut parser = regorus::Engine::new();
        parser.add_policy(file.path.clone(), file.text.clone()).unwrap();
        let spread = Spread::of(&file, &parser.get_modules()[0].clone());
        let mut again = regorus::Engine::new();
        again.add_policy(spread.path.clone(), spread.text.clone()).unwrap();
        for spot in &spread.spots {
            assert!(spot.lines.end() >= spot.lines.start());
            let line = spread.text.lines().nth(*spot.lines.start() as usize - 1).unwrap();
            let first = spread.written.get(spot.start..spot.end).unwrap().lines().next().unwrap_or("true");
            let first = first.split('|').next().unwrap();
            assert!(line.starts_with(first.trim_end()) || first.starts_with(line.trim_end()), "{line:?} {first:?}");
        }
    }
}
