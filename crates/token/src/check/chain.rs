//! Chain: who delegated to whom, complete and consistent, never deeper than allowed, never wider than before.

use model::{
    Authority, Chain, Code, Element, Hop, Id, Principal, PrincipalKind, Scope, Tenant,
    authority::{ElementType, Elements},
    chain::{Evidence, InvalidChain},
};

use crate::{
    Issuer,
    claims::{ActClaims, HopClaims},
    config::ChainForm,
    read::Read,
    refusal::{Checked, refuse},
    verify::Rules,
};

const DETAIL: &str = "The token's delegation chain loops, widens, runs too deep or contradicts itself.";

fn invalid<T>(internal: impl Into<String>) -> Checked<T> {
    refuse(Code::Chain, DETAIL, internal)
}

/// What the token allows now, and whether its details were assumed.
pub(crate) fn authority(read: &Read, issuer: &Issuer) -> (Authority, bool) {
    let scope = Scope::parse(read.claims.scope.as_deref().unwrap_or_default());
    match (&read.claims.authorization_details, &issuer.assume) {
        (Some(elements), _) => (Authority { scope, elements: elements.clone() }, false),
        (None, Some(locations)) => {
            let element = Element {
                kind: ElementType::Action,
                actions: scope.iter().cloned().collect(),
                locations: locations.clone(),
                identifier: model::Pattern::any(),
                limits: model::Limits::default(),
                relations: std::collections::BTreeMap::default(),
            };
            (Authority { scope, elements: vec![element].into() }, true)
        }
        (None, None) => (Authority { scope, elements: Elements::default() }, false),
    }
}

/// The chain of a token from a delegation issuer. `tenant` is the user's.
pub(crate) fn check(
    read: &Read,
    issuer: &Issuer,
    rules: &Rules,
    authority: &Authority,
    tenant: Option<&Id<Tenant>>,
) -> Checked<Chain> {
    let act = match &read.act {
        Ok(Some(act)) => act,
        Ok(None) => return invalid("there is no `act`"),
        Err(error) => return invalid(format!("`act`: {error}")),
    };
    let actors = actors(act, issuer);
    let hops = match issuer.chain {
        ChainForm::Required => from_chain(read, rules, &actors, authority, tenant)?,
        ChainForm::Act => from_act(read, issuer, &actors, authority, tenant)?,
    };
    let chain = match Chain::new(hops, issuer.max_agents) {
        Ok(chain) => chain,
        Err(error @ InvalidChain::NoActor) => return refuse(Code::Impersonation, DETAIL, error.to_string()),
        Err(error @ InvalidChain::RobotUser) => return refuse(Code::RobotUser, DETAIL, error.to_string()),
        Err(error) => return invalid(error.to_string()),
    };
    match chain.widening() {
        Some(hop) => invalid(format!("hop {hop} holds more than the one before it")),
        None => Ok(chain),
    }
}

/// One principal of nested `act`.
struct Actor<'a> {
    issuer: &'a str,
    claims: &'a ActClaims,
}

/// Nested `act` reversed: the first delegate first, the acting agent last.
fn actors<'a>(act: &'a ActClaims, issuer: &'a Issuer) -> Vec<Actor<'a>> {
    let mut actors: Vec<Actor<'a>> = std::iter::successors(Some(act), |act| act.act.as_deref())
        .map(|claims| Actor { issuer: claims.iss.as_deref().unwrap_or(&issuer.name), claims })
        .collect();
    actors.reverse();
    actors
}

/// The hops of `delegation_chain`, which `sub` and nested `act` must agree with.
fn from_chain(
    read: &Read,
    rules: &Rules,
    actors: &[Actor<'_>],
    authority: &Authority,
    tenant: Option<&Id<Tenant>>,
) -> Checked<Vec<Hop>> {
    let claimed = match &read.chain {
        Ok(Some(hops)) => hops,
        Ok(None) => return invalid("there is no `delegation_chain`"),
        Err(error) => return invalid(format!("`delegation_chain`: {error}")),
    };
    let Some((user, agents)) = claimed.split_first() else { return invalid("`delegation_chain` is empty") };
    if user.sub != read.claims.sub {
        return invalid("`delegation_chain` does not begin with `sub`");
    }
    if !rules.issuers.contains_key(&user.iss) {
        return invalid(format!("`delegation_chain` begins with a user of {}, which is not configured", user.iss));
    }
    if agents.len() != actors.len() || !agents.iter().zip(actors).all(|(hop, actor)| agree(hop, actor)) {
        return invalid("`delegation_chain` and nested `act` name different agents");
    }
    let hops = claimed
        .iter()
        .enumerate()
        .map(|(place, hop)| chain_hop(hop, if place == 0 { tenant } else { None }))
        .collect::<Checked<Vec<Hop>>>()?;
    let held = hops.last().and_then(|hop| hop.authority.as_ref());
    if !held.is_some_and(|held| authority.within(held)) {
        return invalid("the token allows more than its last hop holds");
    }
    Ok(hops)
}

fn agree(hop: &HopClaims, actor: &Actor<'_>) -> bool {
    let same_instance = actor.claims.instance.is_none() || actor.claims.instance == hop.instance;
    let same_kind = actor.claims.sub_profile.is_none() || actor.claims.kind() == hop.sub_profile.into();
    hop.iss == actor.issuer && hop.sub == actor.claims.sub && same_instance && same_kind
}

fn chain_hop(hop: &HopClaims, tenant: Option<&Id<Tenant>>) -> Checked<Hop> {
    let grant = hop.grant.as_deref().map(Id::new).transpose();
    let (Ok(id), Ok(grant)) = (Id::new(&hop.sub), grant) else {
        return invalid("a hop's `sub` or `grant` is no identifier");
    };
    let scope = Scope::parse(&hop.scope);
    Ok(Hop {
        principal: Principal { kind: hop.sub_profile.into(), id, issuer: hop.iss.clone(), tenant: tenant.cloned() },
        instance: hop.instance.clone(),
        jti: hop.jti.clone(),
        grant,
        authority: Some(Authority { scope, elements: hop.authorization_details.clone() }),
        evidence: Evidence::DelegationChain,
    })
}

/// The hops of an issuer that gives only `act`: what the token allows is the acting agent's, those in between are
/// named and hold nothing of their own.
fn from_act(
    read: &Read,
    issuer: &Issuer,
    actors: &[Actor<'_>],
    authority: &Authority,
    tenant: Option<&Id<Tenant>>,
) -> Checked<Vec<Hop>> {
    if !matches!(read.chain, Ok(None)) {
        return invalid("`delegation_chain` from an issuer whose chain is nested `act`");
    }
    let hop = |kind, id: &str, issuer: &str, evidence| match Id::new(id) {
        Ok(id) => Ok(Hop {
            principal: Principal { kind, id, issuer: issuer.to_owned(), tenant: None },
            instance: None,
            jti: None,
            grant: None,
            authority: None,
            evidence,
        }),
        Err(error) => invalid(format!("`sub` of a principal: {error}")),
    };
    let mut user = hop(PrincipalKind::User, &read.claims.sub, &issuer.name, Evidence::Token)?;
    user.principal.tenant = tenant.cloned();
    let mut hops = vec![user];
    for actor in actors {
        let mut inner = hop(actor.claims.kind(), &actor.claims.sub, actor.issuer, Evidence::NestedAct)?;
        inner.instance.clone_from(&actor.claims.instance);
        hops.push(inner);
    }
    if let Some(acting) = hops.last_mut() {
        acting.evidence = Evidence::Token;
        acting.authority = Some(authority.clone());
    }
    Ok(hops)
}
