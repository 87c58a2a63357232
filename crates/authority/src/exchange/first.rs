//! The first hop: a user's token and a task, for the agent that the task was started for. Pure.
//!
//! The task record is the consent: it has to bind this user, this session and this agent.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{Action, Id, Principal, Tenant, delegation::UserClaims};

use super::issuance::{Asked, Issuance, Registered, chain, hop, principal};
use crate::{
    client::Client,
    narrow::{Ceiling, Limiting, Most, narrow},
    refused::Refused,
};

/// What a user's verified token proves.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The user.
    pub(crate) user: Principal,
    /// What the identity provider says of them.
    pub(crate) claims: UserClaims,
    /// What they may do without any agent.
    pub(crate) entitlement: BTreeSet<Id<Action>>,
    /// Their tenant.
    pub(crate) tenant: Id<Tenant>,
    /// Their session.
    pub(crate) session: Option<String>,
    /// The token's `jti`.
    pub(crate) jti: Option<String>,
    /// When the token ends.
    pub(crate) expires_at: Timestamp,
}

/// The token of the first hop.
pub(crate) fn first(
    subject: &Subject,
    client: &Client,
    registered: &Registered,
    asked: &Asked,
) -> Result<Issuance, Refused> {
    if !binds(registered, subject, client) {
        return Err(no_such_task());
    }
    registered.stands(asked.now)?;
    let Registered { task, grant, .. } = registered;
    let entitlement = Ceiling { of: Limiting::User, is: Most::Actions(&subject.entitlement) };
    let granted = narrow(&grant.authority, [entitlement]).map_err(Refused::from)?;
    let authority = registered.limit(&granted, &subject.entitlement, &asked.requested)?;
    let user = hop((subject.user.clone(), None), subject.jti.clone(), grant, granted);
    let acting = (principal(client.agent()), client.instance());
    let agent = hop(acting, Some(asked.jti.clone()), grant, authority.clone());
    Ok(Issuance {
        chain: chain(vec![user, agent], asked.max_agents)?,
        authority,
        user: subject.claims.clone(),
        tenant: task.tenant.clone(),
        grant: grant.id.clone(),
        run: task.run.clone(),
        task: registered.task_claims(registered.stage(asked.stage, None)),
        session: subject.session.clone(),
        jti: asked.jti.clone(),
        issued_at: asked.now,
        position: asked.position,
        policy: None,
        asked: None,
        expires_at: registered.expires_at(asked, subject.expires_at)?,
    })
}

/// The same answer for a task that is not there and for one of somebody else, so that names cannot be tried.
pub(crate) fn no_such_task() -> Refused {
    Refused::request("there is no task of that name for this user, this session and this agent")
}

fn binds(registered: &Registered, subject: &Subject, client: &Client) -> bool {
    let Registered { task, grant, .. } = registered;
    task.grant == grant.id
        && grant.user.is(&subject.user)
        && client.agent().is(&grant.agent)
        && task.tenant == subject.tenant
        // A task that is bound to a session needs that session; a detached one has none to need.
        && task.session.as_ref().is_none_or(|session| subject.session.as_ref() == Some(session))
}
