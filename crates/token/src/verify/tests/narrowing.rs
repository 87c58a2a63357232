//! Leaving something out never yields more: over every member of a valid chain token, one by one and together.

use std::collections::BTreeMap;

use model::{Action, Authority, Delegation, Demand, Id, Money, ParameterKind, ParameterValue, Parameters, Tool};
use proptest::prelude::*;
use serde_json::Value;

use crate::testing::{World, chain_claims};

const ACTIONS: [&str; 3] = ["orders.read", "refunds.create", "customers.read"];
const TOOLS: [&str; 2] = ["orders", "billing"];
const RESOURCES: [&str; 3] = ["orders/1", "orders/2", "customers/1"];
const AMOUNTS: [Option<i64>; 5] = [None, Some(0), Some(2000), Some(2001), Some(6000)];

struct Asked {
    action: Id<Action>,
    tool: Id<Tool>,
    resource: &'static str,
    parameters: Parameters,
}

fn asked(action: &str, tool: &str, resource: &'static str, amount: Option<i64>) -> Asked {
    let mut parameters = Parameters::default();
    let money = amount.map(|minor| ParameterValue::Money(Money::from_minor(minor, "USD").unwrap()));
    parameters.set("amount", ParameterKind::Money, money);
    Asked { action: Id::new(action).unwrap(), tool: Id::new(tool).unwrap(), resource, parameters }
}

fn universe() -> impl Iterator<Item = Asked> {
    ACTIONS.into_iter().flat_map(|action| {
        TOOLS.into_iter().flat_map(move |tool| {
            RESOURCES
                .into_iter()
                .flat_map(move |resource| AMOUNTS.into_iter().map(move |amount| asked(action, tool, resource, amount)))
        })
    })
}

type Relations = BTreeMap<String, String>;

/// What a delegation allows of a call: for every way to cover it at every hop, the relations to be proved.
fn allowed(delegation: &Delegation, asked: &Asked) -> Vec<Relations> {
    if !delegation.entitlement.contains(&asked.action) {
        return Vec::new();
    }
    let demand =
        Demand { action: &asked.action, tool: &asked.tool, resource: asked.resource, parameters: &asked.parameters };
    let authorities = delegation.chain.hops().filter_map(|hop| hop.authority.as_ref()).chain([&delegation.authority]);
    authorities.fold(vec![Relations::new()], |ways, authority: &Authority| {
        let covering = authority.covering(&demand).unwrap_or_default();
        let mut longer = Vec::new();
        for way in &ways {
            for element in &covering {
                let mut way = way.clone();
                way.extend(element.relations.clone());
                longer.push(way);
            }
        }
        longer
    })
}

/// Whether `less` allows nothing that `more` does not, under no fewer relations, and reaches no further.
fn yields_no_more(less: &Delegation, more: &Delegation) -> bool {
    let proves =
        |tight: &Relations, loose: &Relations| loose.iter().all(|(fact, value)| tight.get(fact) == Some(value));
    let within = |asked: Asked| {
        let wide = allowed(more, &asked);
        allowed(less, &asked).iter().all(|tight| wide.iter().any(|loose| proves(tight, loose)))
    };
    less.task.stage <= more.task.stage
        && less.task.sensitivity >= more.task.sensitivity
        && less.token.expires_at <= more.token.expires_at
        && less.chain.user().principal.is(&more.chain.user().principal)
        && less.tenant == more.tenant
        && universe().all(within)
}

/// The pointers of every member of every object, the outermost first.
fn members(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                found.push((at.to_owned(), name.clone()));
                members(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                members(inner, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn without(claims: &Value, (parent, name): &(String, String)) -> Value {
    let mut claims = claims.clone();
    claims.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    claims
}

#[tokio::test]
async fn the_whole_token_allows_something_so_that_less_can_be_told_from_nothing() {
    let whole = World::new().admitted(&chain_claims()).await;
    let allowed = universe().filter(|asked| !allowed(&whole, asked).is_empty()).count();
    // Reads of two orders with any amount; refunds on them of 0 and 20.00.
    assert_eq!(allowed, 2 * 5 + 2 * 2);
}

#[tokio::test]
async fn no_single_member_left_out_yields_more() {
    let world = World::new();
    let whole = world.admitted(&chain_claims()).await;
    let mut all = Vec::new();
    members(&chain_claims(), "", &mut all);
    let mut accepted = Vec::new();
    for member in &all {
        let claims = without(&chain_claims(), member);
        if let Ok(verified) = world.verify(&world.token(&claims)).await {
            accepted.push(member);
            assert!(yields_no_more(verified.delegation(), &whole), "{member:?}");
        }
    }
    // Most are needed; some (session, use case, attributes …) may be left out: both kinds were tried.
    assert!(accepted.len() > 10 && accepted.len() < all.len() / 2, "{} of {}: {accepted:?}", accepted.len(), all.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// The same limit left out of every hop makes a token that consistently delegates more, and its issuer answers
    /// for that. As long as one link keeps it, nothing is gained: here the last.
    #[test]
    fn with_one_link_left_whole_no_members_left_out_together_yield_more(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 2..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let whole = world.admitted(&chain_claims()).await;
            let mut claims = chain_claims();
            for pick in picks {
                let mut all = Vec::new();
                members(&claims, "", &mut all);
                all.retain(|(parent, _)| !parent.starts_with("/delegation_chain/2"));
                claims = without(&claims, pick.get(&all));
            }
            if let Ok(verified) = world.verify(&world.token(&claims)).await {
                prop_assert!(yields_no_more(verified.delegation(), &whole), "{}", claims);
            }
            Ok(())
        })?;
    }
}
