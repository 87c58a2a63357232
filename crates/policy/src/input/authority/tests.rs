//! The library's own word for what is narrower, beside the one that guards and issuers go by: a policy that asks
//! `delegation.narrower` or `resource.within` must not be told yes where they say no.

use model::{Authority, Pattern};
use proptest::prelude::*;
use regorus::Value;
use serde_json::json;

use super::Details;
use crate::library;

const ASKED: &str = "package asked
import data.countersign.lib.delegation
import data.countersign.lib.resource
default matches := false
matches if resource.matches(input.name, input.pattern)
default within := false
within if resource.within(input.pattern, input.wider)
default narrower := false
narrower if delegation.narrower(input.child, input.parent)
";

fn says(rule: &str, input: &serde_json::Value) -> bool {
    thread_local! {
        static ENGINE: regorus::Engine = {
            let mut engine = regorus::Engine::new();
            for file in library::files() {
                engine.add_policy(file.path, file.text).unwrap();
            }
            engine.add_policy("asked.rego".to_owned(), ASKED.to_owned()).unwrap();
            engine.set_strict_builtin_errors(true);
            engine
        };
    }
    let mut engine = ENGINE.with(regorus::Engine::clone);
    engine.set_input(Value::from(input.clone()));
    engine.eval_rule(format!("data.asked.{rule}")).unwrap() == Value::Bool(true)
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(&["a", "b", "*", "**", "", "a*"][..]);
    prop_oneof![
        prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/")),
        prop::collection::vec(prop::sample::select(&["a", "*"][..]), 0..3).prop_map(|mut segments| {
            segments.push("**");
            segments.join("/")
        }),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", ""][..]), 1..4).prop_map(|segments| segments.join("/"))
}

fn limit() -> impl Strategy<Value = serde_json::Value> {
    let most = prop::sample::select(&["0", "5", "5.5", "10.00"][..]);
    let money = (most.clone(), prop::sample::select(&["USD", "EUR"][..]));
    let window = prop::sample::select(&["P1D", "PT1H", "PT24H"][..]);
    prop_oneof![
        most.clone().prop_map(|max| json!({"max": max})),
        money.clone().prop_map(|(max, currency)| json!({"max": max, "currency": currency})),
        prop::collection::btree_set(prop::sample::select(&["x", "y"][..]), 0..3).prop_map(|one| json!({"one_of": one})),
        (most, window.clone()).prop_map(|(max, window)| json!({"max": max, "window": window})),
        (money, window).prop_map(|((max, currency), window)| {
            json!({"max": max, "currency": currency, "sum": "amount", "window": window})
        }),
    ]
}

fn element() -> impl Strategy<Value = serde_json::Value> {
    let names = |from: &'static [&'static str]| prop::collection::btree_set(prop::sample::select(from), 1..3);
    let by_name = |from: &'static [&'static str]| prop::sample::select(from);
    (
        names(&["orders.read", "refunds.create"]),
        names(&["orders", "billing"]),
        pattern().prop_filter("a pattern", |text| text.parse::<Pattern>().is_ok()),
        prop::collection::btree_map(by_name(&["amount", "queue"]), limit(), 0..3),
        prop::collection::btree_map(by_name(&["order.placed_by"]), by_name(&["$user", "$agent"]), 0..2),
    )
        .prop_map(|(actions, locations, identifier, limits, relations)| {
            json!({"type": model::authority::ELEMENT_TYPE, "actions": actions, "locations": locations,
                   "identifier": identifier, "limits": limits, "where": relations})
        })
}

fn authority() -> impl Strategy<Value = Authority> {
    let scope = prop::collection::btree_set(prop::sample::select(&["orders.read", "refunds.create"][..]), 0..3);
    (scope, prop::collection::vec(element(), 0..3))
        .prop_map(|(scope, elements)| serde_json::from_value(json!({"scope": scope, "elements": elements})).unwrap())
}

fn shown(authority: &Authority) -> serde_json::Value {
    json!({"scope": authority.scope, "details": serde_json::to_value(Details(&authority.elements)).unwrap()})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_pattern_matches_for_policy_what_it_matches_for_a_guard(pattern in pattern(), name in name()) {
        let guard = pattern.parse::<Pattern>().is_ok_and(|pattern| pattern.matches(&name));
        prop_assert_eq!(says("matches", &json!({"name": name, "pattern": pattern})), guard);
    }

    #[test]
    fn a_pattern_lies_within_another_for_policy_as_for_a_guard(pattern in pattern(), wider in pattern()) {
        let guard = match (pattern.parse::<Pattern>(), wider.parse::<Pattern>()) {
            (Ok(pattern), Ok(wider)) => pattern.within(&wider),
            _ => false,
        };
        prop_assert_eq!(says("within", &json!({"pattern": pattern, "wider": wider})), guard);
    }

    #[test]
    fn what_policy_calls_narrower_lies_within_for_an_issuer(child in authority(), parent in authority()) {
        let told = says("narrower", &json!({"child": shown(&child), "parent": shown(&parent)}));
        prop_assert!(!told || child.within(&parent), "{child:?} within {parent:?}");
    }

    #[test]
    fn what_is_the_same_is_narrower_unless_a_limit_is_no_whole_number(authority in authority()) {
        let text = shown(&authority);
        let whole = !text.to_string().contains(r#""currency":null,"minor":null,"text":"5.5""#);
        let told = says("narrower", &json!({"child": text, "parent": text}));
        prop_assert!(told || !whole, "{text}");
    }
}
