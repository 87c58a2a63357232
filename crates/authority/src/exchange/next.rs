//! Later hops: a parent hands its authority to one named agent (`requested_actor`), and that agent takes it over.
//! Pure.
//!
//! Holding the parent's token is never enough: that would be splicing. The parent asks with its own key for a
//! token that only names who may act (`may_act`); the agent so named exchanges it with its own key.

use std::time::Duration;

use jiff::Timestamp;
use model::{Agent, Delegation, Principal};

use super::issuance::{Asked, Issuance, Registered, chain, hop, principal};
use crate::{client::Client, refused::Refused};

/// How long a handed-over token may be exchanged.
pub(crate) const HAND_OVER: Duration = Duration::from_secs(60);

/// The token that names `actor`, for the parent to give to it. Its chain is the parent's own.
pub(crate) fn hand_over(
    parent: &Delegation,
    client: &Client,
    actor: &Agent,
    registered: &Registered,
    asked: &Asked,
) -> Result<Issuance, Refused> {
    if !client.agent().is(&parent.chain.agent().principal) {
        return Err(Refused::request("the subject token is not this client's own"));
    }
    may_join(parent, &principal(actor), registered, asked)?;
    let issuance = issue(parent, registered, asked, parent.token.expires_at)?;
    Ok(Issuance { chain: parent.chain.clone(), ..issuance })
}

/// The token of the agent that `may_act` named. `parent` is what was handed over, `parent_ends` when the parent's
/// own token ends.
pub(crate) fn take_over(
    parent: &Delegation,
    may_act: &Principal,
    client: &Client,
    registered: &Registered,
    asked: &Asked,
    parent_ends: Timestamp,
) -> Result<Issuance, Refused> {
    let actor = principal(client.agent());
    if !may_act.is(&actor) {
        return Err(Refused::request("the subject token names another agent in `may_act`"));
    }
    may_join(parent, &actor, registered, asked)?;
    let issuance = issue(parent, registered, asked, parent_ends)?;
    let mut hops: Vec<_> = parent.chain.hops().cloned().collect();
    let acting = (actor, client.instance());
    hops.push(hop(acting, Some(asked.jti.clone()), &registered.grant, issuance.authority.clone()));
    Ok(Issuance { chain: chain(hops, asked.max_agents)?, ..issuance })
}

/// Whether the chain may grow, by this agent: said before anything is handed over, not when it is taken.
fn may_join(parent: &Delegation, actor: &Principal, registered: &Registered, asked: &Asked) -> Result<(), Refused> {
    if parent.chain.hops().any(|hop| hop.principal.is(actor)) {
        return Err(Refused::request("that agent is in the chain already and cannot extend it"));
    }
    let agents = parent.chain.agents().count();
    if agents >= asked.max_agents {
        return Err(Refused::request(format!(
            "the chain has {agents} agents, and no chain of this authority has more than {} (`max_agents`)",
            asked.max_agents
        )));
    }
    if agents > registered.grant.redelegate {
        return Err(Refused::request(format!(
            "the grant {} may be passed on to {} further agents, and was",
            registered.grant.id, registered.grant.redelegate
        )));
    }
    Ok(())
}

fn issue(
    parent: &Delegation,
    registered: &Registered,
    asked: &Asked,
    parent_ends: Timestamp,
) -> Result<Issuance, Refused> {
    still_binds(parent, registered)?;
    registered.stands(asked.now)?;
    let task = registered.task_claims(registered.stage(asked.stage, Some(parent.task.stage)));
    let sensitivity = task.sensitivity.max(parent.task.sensitivity);
    Ok(Issuance {
        chain: parent.chain.clone(),
        authority: registered.limit(&parent.authority, &parent.entitlement, &asked.requested)?,
        user: parent.user.clone(),
        tenant: parent.tenant.clone(),
        grant: registered.grant.id.clone(),
        run: parent.run.clone(),
        task: model::delegation::TaskClaims { sensitivity, ..task },
        session: parent.session.clone(),
        jti: asked.jti.clone(),
        issued_at: asked.now,
        position: asked.position,
        policy: None,
        asked: None,
        expires_at: registered.expires_at(asked, parent_ends)?,
    })
}

/// Whether task and grant, as they stand now, are still those that the parent's token was issued under.
fn still_binds(parent: &Delegation, registered: &Registered) -> Result<(), Refused> {
    let Registered { task, grant, .. } = registered;
    let first = parent.chain.agents().next();
    let same = task.grant == grant.id
        && parent.grant.as_ref() == Some(&grant.id)
        && parent.task.id.as_ref() == Some(&task.id)
        && parent.tenant == task.tenant
        && parent.run == task.run
        && grant.user.is(&parent.chain.user().principal)
        && first.is_some_and(|first| grant.agent.is(&first.principal))
        && task.session.as_ref().is_none_or(|session| parent.session.as_ref() == Some(session));
    if same { Ok(()) } else { Err(Refused::request("the task of the subject token is not the one on record")) }
}
