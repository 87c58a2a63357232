//! The laws of narrowing, over generated authorities and calls.

use proptest::prelude::*;

use super::*;
use crate::{Amount, Limit, Money, ParameterKind, ParameterValue};

fn names<Of: 'static>(from: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<Id<Of>>> {
    prop::collection::btree_set(prop::sample::select(from), 0..=from.len())
        .prop_map(|set| set.into_iter().map(|name| Id::new(name).unwrap()).collect())
}

const ACTIONS: &[&str] = &["orders.read", "refunds.create"];
const TOOLS: &[&str] = &["orders", "billing"];

fn limits() -> impl Strategy<Value = Limits> {
    (prop::option::of(0_i64..4), prop::option::of(prop::sample::select(&["USD", "EUR"][..])), any::<bool>()).prop_map(
        |(max, currency, one_of)| {
            let mut limits = Limits::default();
            if let Some(max) = max {
                limits.set(
                    "amount",
                    Limit::Max(Amount::Money(Money::from_minor(max, currency.unwrap_or("USD")).unwrap())),
                );
            }
            if one_of {
                limits.set("queue", Limit::OneOf(["a".to_owned()].into()));
            }
            limits
        },
    )
}

fn element() -> impl Strategy<Value = Element> {
    let pattern =
        prop::sample::select(&["orders/1", "orders/*", "orders/**", "**"][..]).prop_map(|text| text.parse().unwrap());
    let relations = prop::collection::btree_map(
        prop::sample::select(&["order.placed_by", "order.team"][..]),
        prop::sample::select(&["$user", "$agent"][..]),
        0..2,
    )
    .prop_map(|map| map.into_iter().map(|(fact, value)| (fact.to_owned(), value.to_owned())).collect());
    (names(ACTIONS), names(TOOLS), pattern, limits(), relations).prop_map(
        |(actions, locations, identifier, limits, relations)| Element {
            kind: ElementType::Action,
            actions,
            locations,
            identifier,
            limits,
            relations,
        },
    )
}

fn authority() -> impl Strategy<Value = Authority> {
    (names(ACTIONS), prop::collection::vec(element(), 0..4))
        .prop_map(|(scope, elements)| Authority { scope: Scope(scope), elements: elements.into() })
}

#[derive(Debug, Clone)]
struct Asked {
    action: Id<Action>,
    tool: Id<Tool>,
    resource: &'static str,
    parameters: Parameters,
}

impl Asked {
    fn demand(&self) -> Demand<'_> {
        Demand { action: &self.action, tool: &self.tool, resource: self.resource, parameters: &self.parameters }
    }

    /// What an authority allows of the call: the relations of each element that holds it.
    fn allowed_by(&self, authority: &Authority) -> Option<Vec<BTreeMap<String, String>>> {
        authority
            .covering(&self.demand())
            .ok()
            .map(|elements| elements.into_iter().map(|element| element.relations.clone()).collect())
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        prop::sample::select(ACTIONS),
        prop::sample::select(TOOLS),
        prop::sample::select(&["orders/1", "orders/2", "orders/1/refunds"][..]),
        prop::option::of(0_i64..4),
        any::<bool>(),
    )
        .prop_map(|(action, tool, resource, amount, queue)| {
            let mut parameters = Parameters::default();
            let money = amount.map(|minor| ParameterValue::Money(Money::from_minor(minor, "USD").unwrap()));
            parameters.set("amount", ParameterKind::Money, money);
            parameters.set("queue", ParameterKind::String, queue.then(|| ParameterValue::String("a".to_owned())));
            Asked { action: Id::new(action).unwrap(), tool: Id::new(tool).unwrap(), resource, parameters }
        })
}

/// A call allowed by `narrow` is allowed by `wide`, and under no more relations than one of `narrow`'s elements has.
fn yields_no_more(asked: &Asked, narrow: &Authority, wide: &Authority) -> bool {
    let Some(narrow) = asked.allowed_by(narrow) else { return true };
    let Some(wide) = asked.allowed_by(wide) else { return false };
    narrow.iter().all(|tight| wide.iter().any(|loose| loose.iter().all(|(fact, value)| tight.get(fact) == Some(value))))
}

proptest! {
    #[test]
    fn what_lies_within_an_authority_never_yields_more(narrow in authority(), wide in authority(), asked in asked()) {
        if narrow.within(&wide) {
            prop_assert!(yields_no_more(&asked, &narrow, &wide));
        }
        let copy = Authority { scope: narrow.scope.clone(), elements: narrow.elements.to_vec().into() };
        prop_assert!(narrow.within(&narrow) && narrow.within(&copy) && copy.within(&narrow) && copy == narrow);
    }

    #[test]
    fn a_change_to_shared_elements_leaves_the_other_holder_as_it_was(authority in authority()) {
        let (mut changed, before) = (authority.clone(), authority.elements.to_vec());
        prop_assert!(changed.elements.is_shared_with(&authority.elements));
        for element in &mut changed.elements {
            element.actions.clear();
        }
        changed.elements.pop();
        prop_assert_eq!(&*authority.elements, &before);
    }

    #[test]
    fn no_chain_of_narrowings_yields_more_than_any_link_of_it(links in prop::collection::vec(authority(), 1..5), asked in asked()) {
        let mut held = links[0].clone();
        for link in &links[1..] {
            held = held.intersect(link);
        }
        for link in &links {
            prop_assert!(yields_no_more(&asked, &held, link));
            prop_assert!(held.within(link));
        }
    }

    #[test]
    fn removing_a_parameter_from_a_call_never_yields_more(authority in authority(), asked in asked(), name in prop::sample::select(&["amount", "queue"][..])) {
        let mut without = asked.clone();
        without.parameters.set(name, ParameterKind::String, None);
        if without.allowed_by(&authority).is_some() {
            prop_assert!(asked.allowed_by(&authority).is_some());
        }
    }

    #[test]
    fn removing_an_element_a_name_or_a_place_never_yields_more(authority in authority(), asked in asked(), at in 0_usize..4) {
        let mut fewer = authority.clone();
        if at < fewer.elements.len() {
            fewer.elements.remove(at);
        }
        prop_assert!(yields_no_more(&asked, &fewer, &authority));
        let mut unnamed = authority.clone();
        unnamed.scope.0.pop_first();
        if let Some(element) = unnamed.elements.first_mut() {
            element.locations.pop_first();
            element.actions.pop_last();
        }
        prop_assert!(yields_no_more(&asked, &unnamed, &authority));
    }

    #[test]
    fn an_element_survives_its_wire_form(element in element()) {
        let json = serde_json::to_string(&element).unwrap();
        prop_assert_eq!(serde_json::from_str::<Element>(&json).unwrap(), element);
    }
}

#[test]
fn elements_never_combine() {
    let one = |json: serde_json::Value| serde_json::from_value::<Element>(json).unwrap();
    let authority = Authority {
        scope: Scope::parse("refunds.create"),
        elements: vec![
            one(
                serde_json::json!({"type": ELEMENT_TYPE, "actions": ["refunds.create"], "locations": ["orders"], "identifier": "orders/1", "limits": {"amount": {"max": "5", "currency": "USD"}}}),
            ),
            one(
                serde_json::json!({"type": ELEMENT_TYPE, "actions": ["refunds.create"], "locations": ["orders"], "identifier": "orders/2", "limits": {"amount": {"max": "50", "currency": "USD"}}}),
            ),
        ]
        .into(),
    };
    let mut parameters = Parameters::default();
    parameters.set(
        "amount",
        ParameterKind::Money,
        Some(ParameterValue::Money(Money::from_major("20", "USD").unwrap())),
    );
    let (action, tool) = (Id::new("refunds.create").unwrap(), Id::new("orders").unwrap());
    let ask = |resource| {
        authority
            .covering(&Demand { action: &action, tool: &tool, resource, parameters: &parameters })
            .map(|elements| elements.len())
    };
    assert!(matches!(ask("orders/1"), Err(Shortfall::Limit(_))));
    assert_eq!(ask("orders/2"), Ok(1));
    assert_eq!(ask("orders/3"), Err(Shortfall::Resource));
}

#[test]
fn an_element_with_an_unknown_type_or_member_is_refused() {
    for json in [
        serde_json::json!({"type": "other", "actions": ["a"], "locations": ["b"]}),
        serde_json::json!({"type": ELEMENT_TYPE, "actions": ["a"], "locations": ["b"], "privileges": ["x"]}),
        serde_json::json!({"type": ELEMENT_TYPE, "actions": ["a"]}),
        serde_json::json!({"type": ELEMENT_TYPE, "locations": ["a"]}),
    ] {
        assert!(serde_json::from_value::<Element>(json.clone()).is_err(), "{json}");
    }
}
