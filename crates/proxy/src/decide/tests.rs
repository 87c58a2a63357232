//! Relations are proved for one element of every authority, before policy is asked.

use model::{FactValue, fact::FactPrincipal};
use serde_json::json;

use super::*;
use crate::testing::{PROVIDER, delegation};

fn facts(owner: Option<&str>) -> Facts {
    let placed_by = owner.map_or(FactValue::Null, |id| {
        FactValue::Principal(FactPrincipal { id: model::Id::new(id).unwrap(), issuer: PROVIDER.into() })
    });
    Facts([("order".to_owned(), [("placed_by".to_owned(), placed_by)].into())].into())
}

fn element(relations: &serde_json::Value, limits: &serde_json::Value) -> Element {
    serde_json::from_value(json!({
        "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
        "where": relations, "limits": limits
    }))
    .unwrap()
}

/// What the delegation's one agent holds.
fn candidates<'d>(delegation: &'d Delegation, elements: &'d [Element]) -> Candidates<'d> {
    Candidates { hop: 1, principal: &delegation.chain.agent().principal, elements: elements.iter().collect() }
}

#[test]
fn a_relation_that_the_facts_do_not_show_refuses_the_call() {
    let delegation = delegation();
    let (own, free) =
        ([element(&json!({ "order.placed_by": "$user" }), &json!({}))], [element(&json!({}), &json!({}))]);
    let (own, free) = (candidates(&delegation, &own), candidates(&delegation, &free));
    let prove =
        |owner| proved(&delegation, &[free.clone(), own.clone()], &facts(owner)).map_err(|refusal| refusal.code);
    assert_eq!(prove(Some("alice")).map(|limits| limits.len()), Ok(0));
    assert_eq!(prove(Some("bob")), Err(Code::RelationUnproven));
    assert_eq!(prove(None), Err(Code::RelationUnproven));
    let refused = proved(&delegation, &[own], &Facts::default()).unwrap_err();
    assert_eq!(refused.limiting_hop.as_deref(), Some("agent:helper"));
    assert!(refused.detail.contains("order.placed_by = $user"));
}

#[test]
fn of_several_elements_one_whole_element_has_to_hold() {
    let delegation = delegation();
    let mixed = [
        element(&json!({ "order.placed_by": "$user", "order.state": "open" }), &json!({})),
        element(&json!({ "order.placed_by": "$agent" }), &json!({})),
    ];
    assert!(proved(&delegation, &[candidates(&delegation, &mixed)], &facts(Some("alice"))).is_err());
}

#[test]
fn the_agent_of_a_relation_is_whoever_holds_the_authority() {
    let mut delegation = delegation();
    let mut hops: Vec<model::Hop> = delegation.chain.hops().cloned().collect();
    let mut sub = hops[1].clone();
    sub.principal.id = model::Id::new("sub-agent").unwrap();
    hops.push(sub);
    delegation.chain = model::Chain::new(hops, 4).unwrap();
    let own = element(&json!({ "order.placed_by": "$agent" }), &json!({}));
    let all: Vec<Candidates<'_>> = delegation
        .chain
        .hops()
        .enumerate()
        .map(|(hop, of)| Candidates { hop, principal: &of.principal, elements: vec![&own] })
        .collect();
    let prove = |id: &str, candidates: &[Candidates<'_>]| {
        let issuer = delegation.chain.agent().principal.issuer.clone();
        let fact = FactValue::Principal(FactPrincipal { id: model::Id::new(id).unwrap(), issuer });
        let facts = Facts([("order".to_owned(), [("placed_by".to_owned(), fact)].into())].into());
        proved(&delegation, candidates, &facts).map(|_| ()).map_err(|refusal| refusal.limiting_hop.unwrap_or_default())
    };
    let (user, parent) = (delegation.chain.user().principal.to_string(), delegation.chain.hops().nth(1).unwrap());
    assert_eq!(prove("sub-agent", &all), Err(user));
    assert_eq!(prove(parent.principal.id.as_str(), &all), Err("agent:helper".to_owned()));
    assert_eq!(prove(parent.principal.id.as_str(), &all[..2]), Ok(()));
}

#[test]
fn a_cumulative_limit_is_charged_unless_another_element_needs_none() {
    let daily = json!({ "daily": { "sum": "amount", "max": "200", "currency": "USD", "window": "P1D" } });
    let delegation = delegation();
    let charged = [element(&json!({}), &daily)];
    let limits = [candidates(&delegation, &charged)];
    let limits = proved(&delegation, &limits, &facts(None)).unwrap();
    let [(1, _, limits)] = limits[..] else { panic!("{limits:?}") };
    assert_eq!(limits.cumulative().map(|(name, _)| name).collect::<Vec<_>>(), ["daily"]);
    let free = [element(&json!({}), &daily), element(&json!({}), &json!({}))];
    assert_eq!(proved(&delegation, &[candidates(&delegation, &free)], &facts(None)).unwrap().len(), 0);
}

#[test]
fn policys_denial_tells_the_agent_only_what_is_meant_for_it() {
    let decision: Decision = serde_json::from_value(json!({
        "verdict": "deny", "code": "policy_denied",
        "reasons": [{ "code": "x", "message": "Ask billing.", "internal": "list 7", "retry": "never", "source": "countersign.teams.a" }]
    }))
    .unwrap();
    let refused = denied(Code::PolicyDenied, &decision);
    assert_eq!((refused.detail.as_str(), refused.retry), ("Ask billing.", model::Retry::Never));
}
