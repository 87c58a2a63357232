//! The policy input, version 1: its shape, its schema, and how a [`Question`] becomes it.
//!
//! A new field is three lines here: the member with its documentation, its value in `of`, and a fresh schema
//! (`UPDATE_SCHEMA=1 cargo test -p countersign-policy schema`). Members stand in the order of their names, which is
//! the order they are written in: nothing has to be sorted for a call. Every object is there down to every declared leaf
//! and only leaves are null, because a rule body that meets an undefined reference says nothing at all. A
//! principal that a fact names is one leaf: null, or `{id, issuer}`. Sets are sorted arrays, so that what a record
//! or a test writes as JSON is the same input. Whole numbers lie within ±(2^53 - 1), but for nanoseconds.

mod authority;
mod engine_value;
pub mod exchange;
pub mod management;
mod quantity;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Action, AgentStatus, Demand, Effect, FactValue, Facts, Id, Part, Presence, Principal, PrincipalKind, Question,
    Sensitivity, Stage, Tenant, Tool,
    canonical::{self, Form},
    chain::Evidence,
    delegation::{TaskClaims, UserClaims},
    fact::Known,
    id::{DecisionMark, Run},
    part::WHOLE,
    question::Protocol,
    registry::{Grant, Task},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;

use self::{
    authority::{Detail, Details, Limit, limits},
    quantity::{Leaf, LimitState, moment, nanoseconds},
};

/// The version of the input's shape. It rises when a member changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// What a policy sees of a call: the document behind `input`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Input<'a> {
    /// What it would do there.
    action: ActionInput<'a>,
    /// The agent that makes it.
    agent: Agent<'a>,
    /// A person's yes to this very call; null where there is none.
    approval: Option<()>,
    /// The request as it came in.
    call: Call<'a>,
    /// Everybody from the user to the calling agent, in that order.
    chain: Vec<Hop<'a>>,
    /// What the token allows now.
    delegation: DelegationInput<'a>,
    /// What the sidecar itself read about the resource, by fact and leaf. Leaves that could not be had are null.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, FactValue>>")]
    facts: &'a Facts,
    /// The cumulative limits that the call would be charged against, as they stand before it.
    limits: Vec<LimitState<'a>>,
    /// The moment of the decision, RFC 3339, in UTC. The only clock there is.
    now: String,
    /// The same in nanoseconds since 1970, to compare with `time.parse_rfc3339_ns`.
    now_ns: i64,
    /// The piece of work it belongs to.
    task: TaskInput<'a>,
    /// The tenant whose data the call touches.
    tenant: &'a Id<Tenant>,
    /// The tool it addresses.
    tool: &'a Id<Tool>,
    /// The person on whose behalf it is made.
    user: User<'a>,
    /// The version of this shape.
    version: u32,
}

/// The request.
#[derive(Debug, Serialize, JsonSchema)]
struct Call<'a> {
    /// The header fields that configuration lists, by lower-case name.
    headers: &'a BTreeMap<String, String>,
    /// The call's id, which is the decision's.
    id: &'a Id<DecisionMark>,
    /// The MCP message, for agents that speak MCP.
    mcp: Mcp<'a>,
    /// The HTTP method.
    method: &'a str,
    /// The canonical path, with the tool's prefix.
    path: &'a str,
    /// The protocol the agent speaks.
    protocol: Protocol,
}

/// The MCP message; all null over plain HTTP.
#[derive(Debug, Serialize, JsonSchema)]
struct Mcp<'a> {
    /// Its method: `tools/call`.
    method: Option<&'a str>,
    /// The name of what it calls.
    name: Option<&'a str>,
}

/// The action.
#[derive(Debug, Serialize, JsonSchema)]
struct ActionInput<'a> {
    /// What it does at the tool.
    effect: Effect,
    /// Its name in the catalogue: `refunds.create`.
    name: &'a Id<Action>,
    /// Its declared parameters, each there, its leaves null where an optional one is left out.
    parameters: BTreeMap<&'a str, Leaf<'a>>,
    /// The name of the resource it touches: `orders/17`.
    resource: &'a str,
}

/// The user.
#[derive(Debug, Serialize, JsonSchema)]
struct User<'a> {
    /// How strongly they were authenticated (RFC 9068 §2.2.1).
    acr: Option<&'a str>,
    /// Further attributes that configuration maps.
    attributes: &'a BTreeMap<String, String>,
    /// Their groups, sorted.
    groups: &'a BTreeSet<String>,
    /// Their name at `issuer`.
    id: &'a Id<Principal>,
    /// Whose name that is.
    issuer: &'a str,
    /// Their roles, sorted.
    roles: &'a BTreeSet<String>,
    /// The tenant they belong to.
    tenant: Option<&'a Id<Tenant>>,
}

/// The calling agent, with its registration.
#[derive(Debug, Serialize, JsonSchema)]
struct Agent<'a> {
    /// What it is registered to do, sorted.
    actions: &'a BTreeSet<Id<Action>>,
    /// Its name at `issuer`.
    id: &'a Id<Principal>,
    /// The running copy.
    instance: Option<&'a str>,
    /// Whose name that is.
    issuer: &'a str,
    /// The accountable person.
    owner: &'a str,
    /// Whether it may act.
    status: AgentStatus,
}

/// One principal of the chain.
#[derive(Debug, Serialize, JsonSchema)]
struct Hop<'a> {
    /// Whether what it held covers this call, relations aside; null for a hop that only nested `act` names.
    covers: Option<bool>,
    /// The elements it held, of which one single one has to hold a call; null for a hop that only nested `act` names.
    #[schemars(with = "Option<Vec<Detail<'a>>>")]
    details: Option<Details<'a>>,
    /// The grant it acted under.
    grant: Option<&'a Id<Grant>>,
    /// Its name at `issuer`.
    id: &'a Id<Principal>,
    /// The running copy.
    instance: Option<&'a str>,
    /// Whose name that is.
    issuer: &'a str,
    /// What it is.
    kind: PrincipalKind,
    /// The actions it held, sorted; null for a hop that only nested `act` names.
    scope: Option<Vec<&'a Id<Action>>>,
    /// What the hop rests on.
    verified: Evidence,
}

/// What the token allows.
#[derive(Debug, Serialize, JsonSchema)]
struct DelegationInput<'a> {
    /// Whether it covers this call, relations aside.
    covers: bool,
    /// When the token ends, RFC 3339, in UTC.
    expires_at: String,
    /// The same in nanoseconds since 1970.
    expires_at_ns: i64,
    /// The grant it was issued under.
    grant_id: Option<&'a Id<Grant>>,
    /// The limits of the element that carries this call; empty where none does.
    limits: BTreeMap<&'a str, Limit<'a>>,
    /// The actions it names, sorted.
    scope: Vec<&'a Id<Action>>,
    /// Whether a proof bound the token to its sender on this call. False for a plain bearer token.
    sender_constrained: bool,
    /// The relations that element asks for; they were proved before policy is asked.
    r#where: BTreeMap<&'a str, &'a str>,
}

/// The task.
#[derive(Debug, Serialize, JsonSchema)]
struct TaskInput<'a> {
    /// Its name.
    id: Option<&'a Id<Task>>,
    /// Who started it.
    initiated_by: Option<&'a str>,
    /// Whether the user is there.
    presence: Option<Presence>,
    /// The run it belongs to.
    run_id: &'a Id<Run>,
    /// How sensitive its data is.
    sensitivity: Sensitivity,
    /// How far it may go.
    stage: Stage,
    /// What it is for.
    use_case: Option<&'a str>,
}

/// Why a question could not be put to the engine.
#[derive(Debug, thiserror::Error)]
#[error("the policy input cannot be made: {0}")]
pub struct InvalidInput(String);

impl<'a> Input<'a> {
    /// The input that `question` is.
    pub fn of(question: &'a Question) -> Self {
        let (call, delegation) = (&question.call, &*question.delegation);
        let demand =
            Demand { action: &call.action, tool: &call.tool, resource: &call.resource, parameters: &call.parameters };
        Self {
            version: VERSION,
            call: Call {
                id: &question.id,
                protocol: question.request.protocol,
                method: &question.request.method,
                path: question.request.path.as_str(),
                headers: &question.request.headers,
                mcp: Mcp { method: None, name: None },
            },
            tool: &call.tool,
            action: ActionInput {
                name: &call.action,
                effect: call.effect,
                resource: &call.resource,
                parameters: call.parameters.iter().map(|(name, parameter)| (name, Leaf::of(parameter))).collect(),
            },
            user: User::of(&delegation.chain.user().principal, &delegation.user),
            agent: Agent::of(question),
            chain: delegation.chain.hops().map(|hop| Hop::of(hop, &demand)).collect(),
            delegation: DelegationInput::of(question, &demand),
            limits: question.limits.iter().map(LimitState::of).collect(),
            task: TaskInput::of(&delegation.task, &delegation.run),
            facts: &question.facts,
            tenant: &delegation.tenant,
            approval: None,
            now: moment(question.now),
            now_ns: nanoseconds(question.now),
        }
    }
}

impl<'a> User<'a> {
    fn of(user: &'a Principal, claims: &'a UserClaims) -> Self {
        Self {
            id: &user.id,
            issuer: &user.issuer,
            tenant: user.tenant.as_ref(),
            groups: &claims.groups,
            roles: &claims.roles,
            acr: claims.acr.as_deref(),
            attributes: &claims.attributes,
        }
    }
}

impl<'a> Agent<'a> {
    fn of(question: &'a Question) -> Self {
        let (hop, agent) = (question.delegation.chain.agent(), &question.agent);
        Self {
            id: &hop.principal.id,
            issuer: &hop.principal.issuer,
            instance: hop.instance.as_deref(),
            owner: &agent.owner,
            status: agent.status,
            actions: &agent.actions,
        }
    }
}

impl<'a> Hop<'a> {
    fn of(hop: &'a model::Hop, demand: &Demand<'_>) -> Self {
        let authority = hop.authority.as_ref();
        Self {
            kind: hop.principal.kind,
            id: &hop.principal.id,
            issuer: &hop.principal.issuer,
            instance: hop.instance.as_deref(),
            scope: authority.map(|held| held.scope.iter().collect()),
            details: authority.map(|held| Details(&held.elements)),
            covers: authority.map(|held| held.covering(demand).is_ok()),
            grant: hop.grant.as_ref(),
            verified: hop.evidence,
        }
    }
}

impl<'a> DelegationInput<'a> {
    fn of(question: &'a Question, demand: &Demand<'_>) -> Self {
        let delegation = &*question.delegation;
        let covering = delegation.authority.covering(demand).unwrap_or_default();
        let known = Known {
            user: &delegation.chain.user().principal,
            agent: &delegation.chain.agent().principal,
            tenant: delegation.tenant.as_str(),
        };
        let proved = |element: &&&model::Element| {
            element.relations.iter().all(|(path, value)| question.facts.prove(path, value, &known))
        };
        let carrying = covering.iter().find(proved).or(covering.first()).copied();
        // `covering` borrows from the demand as well; the same element is taken from the delegation itself.
        let carrying =
            carrying.and_then(|found| delegation.authority.elements.iter().find(|own| std::ptr::eq(*own, found)));
        Self {
            grant_id: delegation.grant.as_ref(),
            scope: delegation.authority.scope.iter().collect(),
            covers: carrying.is_some(),
            limits: carrying.map(|element| limits(&element.limits)).unwrap_or_default(),
            r#where: carrying
                .map(|element| element.relations.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect())
                .unwrap_or_default(),
            expires_at: moment(delegation.token.expires_at),
            expires_at_ns: nanoseconds(delegation.token.expires_at),
            sender_constrained: delegation.sender.is_constrained(),
        }
    }
}

impl<'a> TaskInput<'a> {
    fn of(task: &'a TaskClaims, run: &'a Id<Run>) -> Self {
        Self {
            id: task.id.as_ref(),
            run_id: run,
            use_case: task.use_case.as_deref(),
            initiated_by: task.initiated_by.as_deref(),
            sensitivity: task.sensitivity,
            stage: task.stage,
            presence: task.presence,
        }
    }
}

/// The input that `question` is, as the engine's own value. No text is parsed on the way.
pub fn value(question: &Question) -> Result<regorus::Value, InvalidInput> {
    part(question, &WHOLE)
}

/// The part `wanted` of it.
pub(crate) fn part(question: &Question, wanted: &Part) -> Result<regorus::Value, InvalidInput> {
    Input::of(question).serialize(engine_value::ToEngine(wanted))
}

/// The input that `question` is, as its one sequence of bytes: JSON without white space, members sorted by the
/// bytes of their names, whole numbers only. What a record commits to and a replay has to reproduce.
pub fn canonical_json(question: &Question) -> Result<Vec<u8>, InvalidInput> {
    let mut out = Vec::with_capacity(4096);
    canonical::write(&Input::of(question), Form::Wide, &mut out).map_err(|error| InvalidInput(error.to_string()))?;
    Ok(out)
}

/// The same, and what tells the part `wanted` of it from that of any other question.
pub(crate) fn canonical_taking(question: &Question, wanted: &Part) -> Result<(Vec<u8>, Vec<u8>), InvalidInput> {
    let (mut out, mut taken) = (Vec::with_capacity(4096), Vec::with_capacity(2048));
    canonical::write_taking(&Input::of(question), Form::Wide, &mut out, wanted, &mut taken)
        .map_err(|error| InvalidInput(error.to_string()))?;
    Ok((out, taken))
}

/// The JSON Schema of the input, from the types above.
pub fn schema() -> serde_json::Value {
    schema_of::<Input<'_>>(&format!("Countersign policy input, version {VERSION}"))
}

/// The JSON Schema of an input.
fn schema_of<Of: JsonSchema>(title: &str) -> serde_json::Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.root_schema_for::<Of>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
