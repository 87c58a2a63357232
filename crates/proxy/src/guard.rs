//! guard: the checks that policy cannot switch off (P2). What a call may do is the least of the user's
//! entitlement, every hop's authority, every agent's registration and the task's stage. On success these are the
//! call's [`Bounds`], with what is still to be proved and charged.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use model::{
    Agent, AgentStatus, Amount, Authority, Code, Delegation, Demand, Effect, Element, Id, Limit, Principal, Refusal,
    Retry, Tenant, authority::Shortfall, effect::StageAnswer, question,
};

use crate::{
    admit::Admitted,
    config::Bearer,
    observe::Waiver,
    resolve::Call,
    snapshot::{Agents, Snapshot},
    withdrawals::Look,
};

/// The most a call may do, its relations still to be proved.
#[derive(Debug)]
pub(crate) struct Bounds<'d> {
    agent: Arc<Agent>,
    candidates: Vec<Candidates<'d>>,
    needs_approval: bool,
}

/// The elements of one hop that hold the call each by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidates<'d> {
    /// The hop's place in the chain.
    pub(crate) hop: usize,
    /// Whose authority it is.
    pub(crate) principal: &'d Principal,
    /// Never empty.
    pub(crate) elements: Vec<&'d Element>,
}

impl<'d> Bounds<'d> {
    /// The calling agent's registration.
    pub(crate) fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// For each authority of the chain, the elements that hold the call.
    pub(crate) fn candidates(&self) -> &[Candidates<'d>] {
        &self.candidates
    }

    /// Whether the task's stage asks for a person's yes.
    pub(crate) fn needs_approval(&self) -> bool {
        self.needs_approval
    }
}

/// Bounds the call, or says what was taken back, or which principal's authority falls short.
pub(crate) fn guard<'d>(
    admitted: &'d Admitted,
    call: &Call<'_>,
    snapshot: &Snapshot,
    look: Option<&Look<'_>>,
    now: Timestamp,
    waiver: &mut Waiver,
) -> Result<Bounds<'d>, Box<Refusal>> {
    if let Some(look) = look {
        look.withdrawn(admitted.delegation())?;
    }
    let standing =
        Standing { tenants: &snapshot.tenants, agents: &snapshot.agents, bearer: snapshot.listener.bearer, now };
    let bounds = bounds(admitted.delegation(), &call.facts, &standing, waiver)?;
    // Last: what passes by itself is said only of calls that nothing else is wrong with.
    if let Some(look) = look {
        look.fresh(admitted.delegation(), now)?;
    }
    Ok(bounds)
}

/// What the guards compare a delegation with.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) tenants: &'a BTreeSet<Id<Tenant>>,
    pub(crate) agents: &'a Agents,
    pub(crate) bearer: Bearer,
    pub(crate) now: Timestamp,
}

/// The whole of the guards, on plain data.
pub(crate) fn bounds<'d>(
    delegation: &'d Delegation,
    call: &question::Call,
    standing: &Standing<'_>,
    waiver: &mut Waiver,
) -> Result<Bounds<'d>, Box<Refusal>> {
    if !standing.tenants.contains(&delegation.tenant) {
        return Err(refusal(Code::TenantMismatch, "The token's tenant is not served here."));
    }
    let agent = registrations(delegation, call, standing.agents)?;
    let needs_approval = waiver.or("guard", stage(delegation, call.effect), || false)?;
    if !delegation.entitlement.contains(&call.action) {
        let mut refused = refusal(Code::Entitlement, &format!("The user may not do `{}` themselves.", call.action));
        refused.limiting_hop = Some(delegation.chain.user().principal.to_string());
        return Err(refused);
    }
    let candidates = authorities(delegation, call, waiver)?;
    if delegation.token.expires_at <= standing.now {
        return Err(refusal(Code::Expired, "The token has ended."));
    }
    if !delegation.sender.is_constrained() && !bearer_allows(standing.bearer, call.effect) {
        let detail = "A token that nothing binds to its sender is not enough for this action.";
        return Err(refusal(Code::WrongSender, detail));
    }
    Ok(Bounds { agent, candidates, needs_approval })
}

/// Every agent of the chain is registered, active, and registered for this action and tenant.
fn registrations(delegation: &Delegation, call: &question::Call, agents: &Agents) -> Result<Arc<Agent>, Box<Refusal>> {
    let mut calling = None;
    for hop in delegation.chain.agents() {
        let limited = |code, detail: String| {
            let mut refused = refusal(code, &detail);
            refused.limiting_hop = Some(hop.principal.to_string());
            refused
        };
        let name = &hop.principal;
        let agent = agents
            .find(name)
            .ok_or_else(|| limited(Code::UnknownAgent, format!("`{name}` is not registered here.")))?;
        if agent.status != AgentStatus::Active {
            return Err(limited(Code::AgentSuspended, format!("`{name}` may not act at present.")));
        }
        if !agent.tenants.contains(&delegation.tenant) {
            return Err(limited(Code::UnknownAgent, format!("`{name}` is not registered for this tenant.")));
        }
        if !agent.actions.contains(&call.action) {
            let detail = format!("`{name}` is not registered for `{}`.", call.action);
            return Err(limited(Code::InsufficientScope, detail));
        }
        calling = Some(agent);
    }
    calling.map(Arc::clone).ok_or_else(|| refusal(Code::Impersonation, "The token names no agent."))
}

/// Whether the stage asks for approval; refused where it does not reach the effect.
fn stage(delegation: &Delegation, effect: Effect) -> Result<bool, Box<Refusal>> {
    let stage = delegation.task.stage;
    match stage.answer(effect) {
        StageAnswer::Goes => Ok(false),
        StageAnswer::NeedsApproval => Ok(true),
        StageAnswer::Refused => {
            let detail = format!("The task's stage is `{}`; this action is a `{}`.", stage.as_str(), effect.as_str());
            Err(refusal(Code::Stage, &detail))
        }
    }
}

const fn bearer_allows(bearer: Bearer, effect: Effect) -> bool {
    match bearer {
        Bearer::All => true,
        Bearer::Reads => matches!(effect, Effect::Read),
        Bearer::Refuse => false,
    }
}

/// Each authority of the chain, and the token's own, holds the call with one single element. The user's side is
/// asked first, so that the widest holder that falls short is the one named. Where that is waived, it has no candidates.
fn authorities<'d>(
    delegation: &'d Delegation,
    call: &question::Call,
    waiver: &mut Waiver,
) -> Result<Vec<Candidates<'d>>, Box<Refusal>> {
    let demand =
        Demand { action: &call.action, tool: &call.tool, resource: &call.resource, parameters: &call.parameters };
    let hops = delegation
        .chain
        .hops()
        .enumerate()
        .filter_map(|(place, hop)| hop.authority.as_ref().map(|authority| (place, &hop.principal, authority)));
    let last = delegation.chain.hops().count().saturating_sub(1);
    let own = (last, &delegation.chain.agent().principal, &delegation.authority);
    hops.chain(std::iter::once(own))
        .filter_map(|(place, principal, authority)| {
            let found = candidates(place, principal, authority, &demand).map(Some);
            waiver.or("guard", found, || None).transpose()
        })
        .collect()
}

fn candidates<'d>(
    hop: usize,
    principal: &'d Principal,
    authority: &'d Authority,
    demand: &Demand<'_>,
) -> Result<Candidates<'d>, Box<Refusal>> {
    match authority.covering(demand) {
        Ok(elements) => Ok(Candidates { hop, principal, elements }),
        Err(shortfall) => Err(short(principal, demand, &shortfall)),
    }
}

fn short(principal: &Principal, demand: &Demand<'_>, shortfall: &Shortfall) -> Box<Refusal> {
    let Demand { action, tool, resource, .. } = demand;
    let mut refused = match shortfall {
        Shortfall::Scope => {
            let mut refused = refusal(Code::InsufficientScope, &format!("`{principal}` does not hold `{action}`."));
            refused.missing_scope.insert((*action).clone());
            refused
        }
        Shortfall::Action => {
            refusal(Code::InsufficientScope, &format!("`{principal}` does not hold `{action}` on `{tool}`."))
        }
        Shortfall::Resource => {
            refusal(Code::InsufficientScope, &format!("`{principal}` does not hold `{action}` on `{resource}`."))
        }
        Shortfall::Limit(exceeded) => {
            let detail = format!("`{}` is over the limit that `{principal}` holds.", exceeded.name);
            let mut refused = refusal(Code::LimitExceeded, &detail);
            let allowed = match &exceeded.limit {
                // With the currency's whole fraction, as people write an amount: "50.00".
                Limit::Max(Amount::Money(max)) => serde_json::json!({ "max": max.text(), "currency": max.currency() }),
                limit => limit.allowed(),
            };
            refused.allowed = Some(serde_json::json!({ exceeded.name.as_str(): allowed }));
            refused
        }
    };
    refused.limiting_hop = Some(principal.to_string());
    refused
}

/// A guard's refusal: nothing about it passes by itself.
fn refusal(code: Code, detail: &str) -> Box<Refusal> {
    let mut refused = Refusal::new(code, detail);
    if refused.retry == Retry::After {
        refused.retry = Retry::AfterChange;
    }
    Box::new(refused)
}

#[cfg(test)]
mod tests;
