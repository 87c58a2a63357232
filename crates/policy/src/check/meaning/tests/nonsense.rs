//! Policies that nobody would write: whatever they are, they are judged, and what has no error loads.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::Engine;

const LEAVES: [&str; 24] = [
    "1",
    "\"x\"",
    "null",
    "true",
    "x",
    "y",
    "_",
    "input",
    "input.action",
    "input.action.name",
    "input.chain[_].kind",
    "input.action.parameters.fee",
    "input.facts.order.placed_by",
    "input.call.headers[x]",
    "input[x][y]",
    "r",
    "r.x",
    "s[_]",
    "data.countersign.teams.support.r",
    "\"refunds.create\"",
    "delegation.agents",
    "input.chain[1]",
    "{}",
    "set()",
];

fn expression() -> impl Strategy<Value = String> {
    let leaf = select(LEAVES.as_slice()).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone());
        let operators = ["==", "!=", "<", ">=", "+", "-", "&", "|", "in", "="];
        prop_oneof![
            (pair.clone(), select(operators.to_vec())).prop_map(|((a, b), op)| format!("({a} {op} {b})")),
            pair.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            pair.clone().prop_map(|(a, b)| format!("{{{a}, {b}}}")),
            pair.clone().prop_map(|(a, b)| format!("{{\"code\": {a}, \"minor\": {b}}}")),
            pair.clone().prop_map(|(a, b)| format!("[{a} | some x in {b}]")),
            pair.clone().prop_map(|(a, b)| format!("{{{a}: y | y := {b}}}")),
            (inner.clone(), select(["count", "f", "startswith", "lower", "is_string", "delegation.is_user"].to_vec()))
                .prop_map(|(a, name)| format!("{name}({a})")),
            pair.prop_map(|(a, b)| format!("sprintf({a}, [{b}])")),
            inner.prop_map(|a| format!("{a}.minor")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    (expression(), expression(), 0..6).prop_map(|(a, b, kind)| match kind {
        0 => format!("not {a}"),
        1 => format!("x := {a}"),
        2 => format!("some x in {a}"),
        3 => format!("every y in {a} {{ {b} }}"),
        4 => format!("{a} == {b}"),
        _ => a,
    })
}

fn rule() -> impl Strategy<Value = String> {
    let heads = [
        "deny contains {\"code\": \"x\"}",
        "allow contains {\"code\": \"x\", \"message\": x}",
        "r",
        "r := x",
        "default r := false\nr",
        "s contains x",
        "f(x)",
        "f(x) := y",
        "delegate contains {\"code\": \"x\"}",
        "approval contains x",
        "t[x] := y",
    ];
    (select(heads.to_vec()), vec(statement(), 1..4))
        .prop_map(|(head, body)| format!("{head} if {{ {} }}", body.join("; ")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("COUNTERSIGN_TEST_LONG").is_some() { 20_000 } else { 150 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_somebody_writes_is_judged_and_what_has_no_error_loads(rules in vec(rule(), 1..5)) {
        let source = team(&format!("import data.countersign.lib.delegation\n{}", rules.join("\n")));
        let all = catalogue();
        let checked = check(std::slice::from_ref(&source), Some(&all));
        let loads = Engine::load(&[source], &all).is_ok();
        let has_no_error =
            checked.is_ok_and(|found| found.iter().all(|problem| problem.severity == Severity::Warning));
        // What loads may be wrong all the same.
        prop_assert!(loads || !has_no_error);
    }
}
