//! What is issued, as plain data, and the bounds that hold for every issuance, whatever hop it is. Pure.

use std::{collections::BTreeSet, time::Duration};

use audit::record::{Issuing, PolicyRuling};
use jiff::{SignedDuration, Timestamp};
use model::{
    Action, Agent, AgentStatus, Authority, Chain, Code, Grant, Hop, Id, Principal, PrincipalKind, Stage, Task, Tenant,
    chain::Evidence,
    delegation::{TaskClaims, UserClaims},
    registry::TaskStatus,
};

use crate::{
    narrow::{Ceiling, Limiting, Most, Requested, narrow},
    refused::Refused,
};

/// What stands registered, as read for this exchange: authority is judged against the present, not against what
/// held when an earlier token was signed.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The task.
    pub(crate) task: Task,
    /// The grant it is under.
    pub(crate) grant: Grant,
    /// Every agent of the chain to be, the one that will act last.
    pub(crate) agents: Vec<Agent>,
}

/// What the client asks for, and what this authority is set to.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Scope and elements.
    pub(crate) requested: Requested,
    /// A stage, to be lowered to.
    pub(crate) stage: Option<Stage>,
    /// The longest the token may last.
    pub(crate) lifetime: Duration,
    /// The most agents in a chain.
    pub(crate) max_agents: usize,
    /// The `jti` of the token to be.
    pub(crate) jti: String,
    /// The moment.
    pub(crate) now: Timestamp,
    /// The last position of the change log that all of this was read after.
    pub(crate) position: u64,
}

/// A token to be: everything it will say but who it is for.
#[derive(Debug, Clone)]
pub(crate) struct Issuance {
    /// Who acts for whom, through whom.
    pub(crate) chain: Chain,
    /// What may be done.
    pub(crate) authority: Authority,
    /// What is known of the user.
    pub(crate) user: UserClaims,
    /// The tenant.
    pub(crate) tenant: Id<Tenant>,
    /// The grant.
    pub(crate) grant: Id<Grant>,
    /// The run.
    pub(crate) run: Id<model::id::Run>,
    /// The task.
    pub(crate) task: TaskClaims,
    /// The user's session.
    pub(crate) session: Option<String>,
    /// Its name.
    pub(crate) jti: String,
    /// When it is issued.
    pub(crate) issued_at: Timestamp,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
    /// The position of the change log that it rests on: whatever is withdrawn after that withdraws it too.
    pub(crate) position: u64,
    /// What policy said of it, once it was asked.
    pub(crate) policy: Option<Box<PolicyRuling>>,
    /// What policy was asked of it, or would have been.
    pub(crate) asked: Option<Box<Issuing>>,
}

impl Issuance {
    /// The same with only what is `left`, in the hop of `to` too, where the chain names it already.
    pub(crate) fn narrowed(self, left: &Authority, to: &Agent, asked: &Asked) -> Result<Self, Refused> {
        let last = |hop: Hop| if to.is(&hop.principal) { Hop { authority: Some(left.clone()), ..hop } } else { hop };
        let hops = self.chain.hops().cloned().map(last).collect();
        Ok(Self { chain: chain(hops, asked.max_agents)?, authority: left.clone(), ..self })
    }
}

impl Registered {
    /// Task, grant and every agent have to stand now, for the tenant of the task.
    pub(crate) fn stands(&self, now: Timestamp) -> Result<(), Refused> {
        let Self { task, grant, agents } = self;
        if task.status != TaskStatus::Active || task.expires_at <= now {
            return Err(Refused::request(format!("the task {} has ended", task.id)).denied(Code::TaskEnded));
        }
        if grant.expires_at <= now {
            return Err(Refused::request(format!("the grant {} has expired", grant.id)));
        }
        for Agent { id, status, tenants, .. } in agents {
            if *status != AgentStatus::Active {
                let why = format!("the agent {id} is {}", status.as_str());
                return Err(Refused::request(why).denied(Code::AgentSuspended));
            }
            if !tenants.contains(&task.tenant) {
                return Err(Refused::request(format!("the agent {id} is not registered for the task's tenant")));
            }
        }
        Ok(())
    }

    /// What limits every issuance besides what is held: the grant, the user, each agent of the chain.
    fn ceilings<'a>(&'a self, entitlement: &'a BTreeSet<Id<Action>>) -> impl Iterator<Item = Ceiling<'a>> {
        let grant = Ceiling { of: Limiting::Grant, is: Most::Authority(&self.grant.authority) };
        let user = Ceiling { of: Limiting::User, is: Most::Actions(entitlement) };
        let agents = self
            .agents
            .iter()
            .map(|agent| Ceiling { of: Limiting::Agent(&agent.id), is: Most::Actions(&agent.actions) });
        [grant, user].into_iter().chain(agents)
    }

    /// `held` under everything that limits it, the request included.
    pub(crate) fn limit(
        &self,
        held: &Authority,
        entitlement: &BTreeSet<Id<Action>>,
        requested: &Requested,
    ) -> Result<Authority, Refused> {
        let ceilings = self.ceilings(entitlement).chain(requested.ceilings());
        narrow(held, ceilings).map_err(Refused::from)
    }

    /// The lowest stage of task, grant, request and what the parent had.
    pub(crate) fn stage(&self, asked: Option<Stage>, parent: Option<Stage>) -> Stage {
        let own = self.task.stage.min(self.grant.stage);
        [asked, parent].into_iter().flatten().fold(own, Stage::min)
    }

    /// What the token will say of the task.
    pub(crate) fn task_claims(&self, stage: Stage) -> TaskClaims {
        TaskClaims {
            id: Some(self.task.id.clone()),
            use_case: self.task.use_case.clone(),
            initiated_by: Some(self.task.initiated_by.clone()),
            sensitivity: self.task.sensitivity,
            stage,
            presence: Some(self.task.presence),
        }
    }

    /// The end of a token: no later than the lifetime, the parent, the task and the grant allow.
    pub(crate) fn expires_at(&self, asked: &Asked, parent: Timestamp) -> Result<Timestamp, Refused> {
        let lifetime = SignedDuration::try_from(asked.lifetime).unwrap_or(SignedDuration::ZERO);
        let longest = asked.now.checked_add(lifetime).unwrap_or(asked.now);
        let end = longest.min(parent).min(self.task.expires_at).min(self.grant.expires_at);
        // Whole seconds, rounded down: a claim of seconds must not say more than what holds.
        let end = Timestamp::from_second(end.as_second()).unwrap_or(asked.now);
        if end > asked.now {
            Ok(end)
        } else {
            Err(Refused::request("the subject token, the task or the grant is about to end"))
        }
    }
}

/// A hop as it will stand in `delegation_chain`.
pub(crate) fn hop(
    (principal, instance): (Principal, Option<&str>),
    jti: Option<String>,
    grant: &Grant,
    authority: Authority,
) -> Hop {
    Hop {
        principal,
        instance: instance.map(str::to_owned),
        jti,
        grant: Some(grant.id.clone()),
        authority: Some(authority),
        evidence: Evidence::DelegationChain,
    }
}

/// The principal that an agent's registration is of.
pub(crate) fn principal(agent: &Agent) -> Principal {
    Principal { kind: PrincipalKind::Agent, id: agent.id.clone(), issuer: agent.issuer.clone(), tenant: None }
}

/// A chain of `hops` that nowhere widens. That it cannot is arithmetic; that it does not is checked all the same,
/// because a signature is about to be put under it.
pub(crate) fn chain(hops: Vec<Hop>, max_agents: usize) -> Result<Chain, Refused> {
    let chain = Chain::new(hops, max_agents).map_err(|error| Refused::request(error.to_string()))?;
    match chain.widening() {
        None => Ok(chain),
        Some(hop) => Err(Refused::request(format!("the hop {hop} of the chain holds more than the one before it"))),
    }
}
