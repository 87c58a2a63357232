//! Each guard refuses by itself, and nothing that a call or token leaves out ever yields more.

use model::{
    Amount, Authority, Money, ParameterKind, ParameterValue, Parameters, PrincipalKind, Stage, chain::Chain,
    question::Call as Asked,
};
use proptest::prelude::*;

use super::*;
use crate::testing::{ACTIONS, NOW, agent, authority, delegation, principal, tenants};

fn refund(dollars: Option<&str>) -> Asked {
    let mut parameters = Parameters::default();
    let money = dollars.map(|text| ParameterValue::Money(Money::from_major(text, "USD").unwrap()));
    parameters.set("amount", ParameterKind::Money, money);
    asked("refunds.create", Effect::Write, parameters)
}

fn asked(action: &str, effect: Effect, parameters: Parameters) -> Asked {
    Asked {
        tool: Id::new("orders").unwrap(),
        action: Id::new(action).unwrap(),
        effect,
        resource: "orders/17".into(),
        parameters,
    }
}

fn judged<'d>(
    delegation: &'d Delegation,
    call: &Asked,
    agents: Vec<Agent>,
    bearer: Bearer,
) -> Result<Bounds<'d>, Box<Refusal>> {
    let agents = Agents::new(agents).unwrap();
    let (tenants, now) = (tenants(), NOW.parse().unwrap());
    let standing = Standing { tenants: &tenants, agents: &agents, bearer, now };
    bounds(delegation, call, &standing, &mut Waiver::default())
}

fn both() -> Vec<Agent> {
    vec![agent("support"), agent("helper")]
}

fn code(delegation: &Delegation, call: &Asked, agents: Vec<Agent>, bearer: Bearer) -> Option<Code> {
    judged(delegation, call, agents, bearer).err().map(|refusal| refusal.code)
}

#[test]
fn a_call_within_every_authority_passes_with_its_relations_still_to_prove() {
    let delegation = delegation();
    let bounds = judged(&delegation, &refund(Some("20.00")), both(), Bearer::All).unwrap();
    assert_eq!(bounds.agent().id.as_str(), "helper");
    // user, support, helper, and the token's own authority
    assert_eq!(bounds.candidates().iter().map(|candidate| candidate.hop).collect::<Vec<_>>(), [0, 1, 2, 2]);
    assert!(bounds.candidates().iter().all(|candidate| candidate.elements.len() == 1));
    assert!(!bounds.needs_approval());
}

#[test]
fn the_widest_holder_that_falls_short_is_named_with_what_it_allows() {
    for (dollars, hop, max) in
        [("80", "agent:support", "50.00"), ("30", "agent:helper", "20.00"), ("200", "user:alice@acme", "100.00")]
    {
        let refused = judged(&delegation(), &refund(Some(dollars)), both(), Bearer::All).unwrap_err();
        assert_eq!(refused.code, Code::LimitExceeded);
        assert_eq!(refused.limiting_hop.as_deref(), Some(hop));
        let allowed = refused.allowed.unwrap();
        assert_eq!(allowed, serde_json::json!({ "amount": { "max": max, "currency": "USD" } }));
    }
    let refused = judged(&delegation(), &refund(None), both(), Bearer::All).unwrap_err();
    assert_eq!(refused.code, Code::LimitExceeded);
}

#[test]
fn each_guard_refuses_with_its_own_code() {
    let good = delegation();
    let call = refund(Some("5"));
    let mut changed = Vec::new();
    let mut case = |expected: Code, change: fn(&mut Delegation)| {
        let mut other = good.clone();
        change(&mut other);
        changed.push((expected, code(&other, &call, both(), Bearer::All)));
    };
    case(Code::TenantMismatch, |d| d.tenant = Id::new("globex").unwrap());
    case(Code::Entitlement, |d| d.entitlement.clear());
    case(Code::Stage, |d| d.task.stage = Stage::Observe);
    case(Code::Expired, |d| d.token.expires_at = NOW.parse().unwrap());
    case(Code::InsufficientScope, |d| d.authority.scope = model::Scope::default());
    case(Code::InsufficientScope, |d| d.authority.elements.clear());
    for (expected, got) in changed {
        assert_eq!(got, Some(expected));
    }
    assert_eq!(code(&good, &call, vec![agent("helper")], Bearer::All), Some(Code::UnknownAgent));
    let with = |change: fn(&mut Agent)| {
        let mut support = agent("support");
        change(&mut support);
        code(&good, &call, vec![support, agent("helper")], Bearer::All)
    };
    assert_eq!(with(|agent| agent.status = AgentStatus::Suspended), Some(Code::AgentSuspended));
    assert_eq!(with(|agent| agent.status = AgentStatus::Decommissioned), Some(Code::AgentSuspended));
    assert_eq!(with(|agent| agent.issuer = "https://other.example".into()), Some(Code::UnknownAgent));
    assert_eq!(with(|agent| agent.tenants.clear()), Some(Code::UnknownAgent));
    assert_eq!(with(|agent| agent.actions.clear()), Some(Code::InsufficientScope));
}

#[test]
fn plain_bearer_goes_as_far_as_the_listener_says() {
    let read = asked("orders.read", Effect::Read, Parameters::default());
    let draft = asked("orders.tag", Effect::Draft, Parameters::default());
    let write = refund(Some("5"));
    let good = delegation();
    assert_eq!(code(&good, &read, both(), Bearer::Reads), None);
    for call in [&draft, &write] {
        assert_eq!(code(&good, call, both(), Bearer::Reads), Some(Code::WrongSender));
        assert_eq!(code(&good, call, both(), Bearer::All), None);
    }
    assert_eq!(code(&good, &read, both(), Bearer::Refuse), Some(Code::WrongSender));
}

#[test]
fn a_write_at_stage_draft_needs_a_persons_yes() {
    let mut task = delegation();
    task.task.stage = Stage::Draft;
    assert!(judged(&task, &refund(Some("5")), both(), Bearer::All).unwrap().needs_approval());
    let draft = asked("orders.tag", Effect::Draft, Parameters::default());
    assert!(!judged(&task, &draft, both(), Bearer::All).unwrap().needs_approval());
}

/// What may be taken away from a delegation.
#[derive(Debug, Clone, Copy)]
enum Taken {
    Scope(usize),
    Element(usize),
    HopElement(usize, usize),
    HopScope(usize, usize),
    Entitlement(usize),
    Amount,
    Registration(usize),
    RegisteredAction(usize, usize),
    Stage,
}

fn taken() -> impl Strategy<Value = Taken> {
    prop_oneof![
        (0_usize..5).prop_map(Taken::Scope),
        (0_usize..2).prop_map(Taken::Element),
        (0_usize..3, 0_usize..2).prop_map(|(hop, at)| Taken::HopElement(hop, at)),
        (0_usize..3, 0_usize..5).prop_map(|(hop, at)| Taken::HopScope(hop, at)),
        (0_usize..5).prop_map(Taken::Entitlement),
        Just(Taken::Amount),
        (0_usize..2).prop_map(Taken::Registration),
        (0_usize..2, 0_usize..5).prop_map(|(agent, at)| Taken::RegisteredAction(agent, at)),
        Just(Taken::Stage),
    ]
}

fn without_name(scope: &model::Scope, at: usize) -> model::Scope {
    scope.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, name)| name.clone()).collect()
}

fn changed_hop(delegation: &mut Delegation, at: usize, change: impl Fn(&mut Authority)) {
    let mut hops: Vec<model::Hop> = delegation.chain.hops().cloned().collect();
    if let Some(authority) = hops[at].authority.as_mut() {
        change(authority);
    }
    delegation.chain = Chain::new(hops, 4).unwrap();
}

fn take(taken: Taken, delegation: &mut Delegation, call: &mut Asked, agents: &mut Vec<Agent>) {
    match taken {
        Taken::Scope(at) => delegation.authority.scope = without_name(&delegation.authority.scope, at),
        Taken::Element(at) if at < delegation.authority.elements.len() => {
            drop(delegation.authority.elements.remove(at));
        }
        Taken::HopElement(hop, at) => changed_hop(delegation, hop, |authority| {
            if at < authority.elements.len() {
                authority.elements.remove(at);
            }
        }),
        Taken::HopScope(hop, at) => {
            changed_hop(delegation, hop, |authority| authority.scope = without_name(&authority.scope, at));
        }
        Taken::Entitlement(at) => drop(delegation.entitlement.remove(&Id::new(ACTIONS[at]).unwrap())),
        Taken::Amount => call.parameters.set("amount", ParameterKind::Money, None),
        Taken::Registration(at) if at < agents.len() => drop(agents.remove(at)),
        Taken::RegisteredAction(agent, at) if agent < agents.len() => {
            agents[agent].actions.remove(&Id::new(ACTIONS[at]).unwrap());
        }
        Taken::Stage => delegation.task.stage = Stage::Observe,
        Taken::Element(_) | Taken::Registration(_) | Taken::RegisteredAction(..) => {}
    }
}

proptest! {
    #[test]
    fn taking_anything_away_never_turns_a_refusal_into_a_permit(
        first in prop::collection::vec(taken(), 0..4),
        more in prop::collection::vec(taken(), 1..4),
        dollars in prop::sample::select(&["5", "20.00", "20.01", "50", "80", "200"][..]),
        action in prop::sample::select(&ACTIONS[..]),
    ) {
        let effect = if action.ends_with("read") || action.ends_with("search") { Effect::Read } else { Effect::Write };
        let mut call = refund(Some(dollars));
        call.action = Id::new(action).unwrap();
        call.effect = effect;
        let (mut delegation, mut agents) = (delegation(), both());
        for step in first {
            take(step, &mut delegation, &mut call, &mut agents);
        }
        let wider = delegation.clone();
        let before = judged(&wider, &call, agents.clone(), Bearer::All);
        for step in more {
            take(step, &mut delegation, &mut call, &mut agents);
        }
        let after = judged(&delegation, &call, agents, Bearer::All);
        if let Ok(after) = after {
            let before = before.map_err(|refusal| refusal.code);
            prop_assert!(before.is_ok(), "{before:?} became a permit");
            // Nor do fewer relations remain to be proved.
            let before = before.unwrap();
            for (now, then) in after.candidates().iter().zip(before.candidates()) {
                prop_assert!(now.elements.iter().all(|element| then.elements.contains(element)));
            }
        }
    }

    #[test]
    fn no_chain_yields_more_than_any_of_its_hops(limits in prop::collection::vec(1_i64..100, 3), minor in 1_i64..12_000) {
        let mut delegation = delegation();
        let hops: Vec<model::Hop> = delegation.chain.hops().cloned().collect();
        let hops = hops.into_iter().zip(&limits).map(|(mut hop, max)| {
            hop.authority = Some(authority(&max.to_string()));
            hop
        }).collect();
        delegation.chain = Chain::new(hops, 4).unwrap();
        delegation.authority = authority("100");
        let money = Money::from_minor(minor, "USD").unwrap();
        let fits = limits.iter().all(|max| Amount::Money(money.clone()).at_most(&Amount::Money(Money::from_minor(max * 100, "USD").unwrap())));
        let passes = judged(&delegation, &refund(Some(money.text())), both(), Bearer::All).is_ok();
        prop_assert_eq!(passes, fits && minor <= 10_000);
    }
}

#[test]
fn the_same_name_at_another_issuer_is_another_agent() {
    let mut other = principal(PrincipalKind::Agent, "helper");
    other.issuer = "https://other.example".into();
    assert!(Agents::new(both()).unwrap().find(&other).is_none());
}
