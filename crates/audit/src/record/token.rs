//! `token.seen`: what stays the same from call to call under one token, so that a call need only cite its digest:
//! the whole delegation, and the calling agent's registration. Written again when either has changed.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Action, Agent, Authority, Chain, Delegation, Id, Presence, Principal, Sensitivity, Stage, Tenant,
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
    id::Run,
    registry::{AgentStatus, Grant, Task},
};
use serde::{Deserialize, Serialize};

use super::kind;
use crate::{canonical::Unrecordable, chain::Hash, values::Draft};

/// What the user is, beside their place in the chain. Personal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUser {
    groups: BTreeSet<String>,
    roles: BTreeSet<String>,
    acr: Option<String>,
    /// Text, because an issuer may send what JSON cannot carry exactly.
    auth_time: Option<String>,
    attributes: BTreeMap<String, String>,
    entitlement: BTreeSet<Id<Action>>,
    session: Option<String>,
    initiated_by: Option<String>,
}

/// The task without who started it, which is a person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTask {
    id: Option<Id<Task>>,
    use_case: Option<String>,
    sensitivity: Sensitivity,
    stage: Stage,
    presence: Option<Presence>,
}

/// A registration without its owner, who is a person.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRegistration {
    id: Id<Principal>,
    issuer: String,
    actions: BTreeSet<Id<Action>>,
    tenants: BTreeSet<Id<Tenant>>,
    status: AgentStatus,
}

impl From<&Agent> for WrittenRegistration {
    fn from(agent: &Agent) -> Self {
        Self {
            id: agent.id.clone(),
            issuer: agent.issuer.clone(),
            actions: agent.actions.clone(),
            tenants: agent.tenants.clone(),
            status: agent.status,
        }
    }
}

/// What [`delegation`] reads back; the member names of the record.
#[derive(Debug, Deserialize)]
struct WrittenDelegation {
    token: TokenFacts,
    chain: Chain,
    authority: Authority,
    authority_assumed: bool,
    user: WrittenUser,
    tenant: Id<Tenant>,
    grant_id: Option<Id<Grant>>,
    run_id: Id<Run>,
    run_derived: bool,
    task: WrittenTask,
    position: Option<String>,
    sender: Sender,
}

/// The record. The chain and the authority are personal whole: they name the user and single resources. The
/// agents stand on the line, so that who acted survives the erasure of for whom.
pub(crate) fn token_seen(delegation: &Delegation, agent: Option<&Agent>) -> Result<Draft, Unrecordable> {
    let mut draft = Draft::new(kind::TOKEN_SEEN)?;
    let user = &delegation.user;
    draft.plain("token", &delegation.token)?;
    draft.personal("chain", &delegation.chain)?;
    draft.personal("authority", &delegation.authority)?;
    draft.plain("authority_assumed", &delegation.authority_assumed)?;
    draft.personal(
        "user",
        &WrittenUser {
            groups: user.groups.clone(),
            roles: user.roles.clone(),
            acr: user.acr.clone(),
            auth_time: user.auth_time.map(|seconds| seconds.to_string()),
            attributes: user.attributes.clone(),
            entitlement: delegation.entitlement.clone(),
            session: delegation.session.clone(),
            initiated_by: delegation.task.initiated_by.clone(),
        },
    )?;
    let agents: Vec<_> = delegation.chain.agents().map(|hop| &hop.principal).collect();
    draft.plain("agents", &agents)?;
    draft.plain("tenant", &delegation.tenant)?;
    draft.optional("grant_id", delegation.grant.as_ref())?;
    draft.plain("run_id", &delegation.run)?;
    draft.plain("run_derived", &delegation.run_derived)?;
    let task = &delegation.task;
    draft.plain(
        "task",
        &WrittenTask {
            id: task.id.clone(),
            use_case: task.use_case.clone(),
            sensitivity: task.sensitivity,
            stage: task.stage,
            presence: task.presence,
        },
    )?;
    draft.optional("position", delegation.position.map(|position| position.to_string()).as_ref())?;
    draft.plain("sender", &delegation.sender)?;
    if let Some(agent) = agent {
        draft.personal("owner", &agent.owner)?;
        draft.plain("registration", &WrittenRegistration::from(agent))?;
    }
    Ok(draft)
}

/// The hash of what a `token.seen` record says of the delegation, whoever was calling under it.
pub(crate) fn delegation_content(token_seen: &Draft) -> Hash {
    token_seen.content(&["owner", "registration"])
}

/// The delegation that a `token.seen` record was made from, given its members with their companion values.
pub(crate) fn delegation(fields: &serde_json::Map<String, serde_json::Value>) -> Result<Delegation, String> {
    let fields = serde_json::Value::Object(fields.clone());
    let written: WrittenDelegation = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    let user = written.user;
    let auth_time = user.auth_time.map(|text| text.parse::<i64>()).transpose().map_err(|error| error.to_string())?;
    let position = written.position.map(|text| text.parse::<u64>()).transpose().map_err(|error| error.to_string())?;
    Ok(Delegation {
        token: written.token,
        chain: written.chain,
        authority: written.authority,
        authority_assumed: written.authority_assumed,
        user: UserClaims {
            groups: user.groups,
            roles: user.roles,
            acr: user.acr,
            auth_time,
            attributes: user.attributes,
        },
        entitlement: user.entitlement,
        tenant: written.tenant,
        grant: written.grant_id,
        run: written.run_id,
        run_derived: written.run_derived,
        task: TaskClaims {
            id: written.task.id,
            use_case: written.task.use_case,
            initiated_by: user.initiated_by,
            sensitivity: written.task.sensitivity,
            stage: written.task.stage,
            presence: written.task.presence,
        },
        session: user.session,
        position,
        sender: written.sender,
    })
}

/// The registration that a `token.seen` record holds.
pub(crate) fn registration(fields: &serde_json::Map<String, serde_json::Value>) -> Result<Agent, String> {
    #[derive(Deserialize)]
    struct Written {
        owner: String,
        registration: WrittenRegistration,
    }
    let fields = serde_json::Value::Object(fields.clone());
    let Written { owner, registration } = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    let WrittenRegistration { id, issuer, actions, tenants, status } = registration;
    Ok(Agent { id, issuer, owner, actions, tenants, status })
}
