//! What a policy is asked where a token is about to be issued (`delegate`), version 1: who passes what on to whom, under
//! which grant, for which task. Built as the input of calls is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    Action, Agent, AgentStatus, Authority, Hop, Id, Principal, PrincipalKind, Stage, Tenant,
    delegation::{TaskClaims, UserClaims},
    id::Run,
    part::WHOLE,
    registry::Grant,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    InvalidInput, TaskInput, User,
    authority::Detail,
    engine_value,
    quantity::{moment, nanoseconds},
    schema_of,
};

/// The version of the input's shape. It rises when a member changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// A token that is about to be issued.
#[derive(Debug, Clone)]
pub struct Issuance<'a> {
    /// Everybody who holds what is passed on, the user first. Whoever passes it on is the last.
    pub chain: Vec<&'a Hop>,
    /// Whom it is for.
    pub to: &'a Agent,
    /// What it would allow: what was asked for, within everything that limits it.
    pub requested: &'a Authority,
    /// The task.
    pub task: &'a TaskClaims,
    /// The run.
    pub run: &'a Id<Run>,
    /// The grant.
    pub grant: &'a Grant,
    /// What is known of the user.
    pub user: &'a UserClaims,
    /// The tenant.
    pub tenant: &'a Id<Tenant>,
    /// When it would end.
    pub expires_at: Timestamp,
    /// The moment.
    pub now: Timestamp,
}

/// What a policy sees of it: the document behind `input` of `delegate`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Input<'a> {
    /// Everybody who holds what is passed on, in order: the user first, whoever passes it on last.
    chain: Vec<Holder<'a>>,
    /// What is passed on.
    exchange: Exchange<'a>,
    /// The user's grant that it rests on, as it stands now.
    grant: GrantInput<'a>,
    /// The moment, RFC 3339, in UTC. The only clock there is.
    now: String,
    /// The same in nanoseconds since 1970, to compare with `time.parse_rfc3339_ns`.
    now_ns: i64,
    /// The tenant whose data the work touches.
    tenant: &'a Id<Tenant>,
    /// The person on whose behalf it is.
    user: User<'a>,
    /// The version of this shape.
    version: u32,
}

/// What is passed on.
#[derive(Debug, Serialize, JsonSchema)]
struct Exchange<'a> {
    /// When the token would end, RFC 3339, in UTC.
    expires_at: String,
    /// The same in nanoseconds since 1970.
    expires_at_ns: i64,
    /// Who passes it on: the user, or the agent that hands its work on.
    from: Party<'a>,
    /// What the token would allow: what was asked for, within everything that limits it.
    requested: Held<'a>,
    /// The piece of work it is for.
    task: TaskInput<'a>,
    /// The agent that it is for, with its registration.
    to: Recipient<'a>,
}

/// A principal.
#[derive(Debug, Serialize, JsonSchema)]
struct Party<'a> {
    /// Its name at `issuer`.
    id: &'a Id<Principal>,
    /// Whose name that is.
    issuer: &'a str,
    /// What it is.
    kind: PrincipalKind,
}

/// What may be done.
#[derive(Debug, Serialize, JsonSchema)]
struct Held<'a> {
    /// The elements, of which one single one has to hold a call.
    details: Vec<Detail<'a>>,
    /// The actions, sorted.
    scope: Vec<&'a Id<Action>>,
}

/// An agent with its registration.
#[derive(Debug, Serialize, JsonSchema)]
struct Recipient<'a> {
    /// What it is registered to do, sorted.
    actions: &'a BTreeSet<Id<Action>>,
    /// Its name at `issuer`.
    id: &'a Id<Principal>,
    /// Whose name that is.
    issuer: &'a str,
    /// The accountable person.
    owner: &'a str,
    /// Whether it may act.
    status: AgentStatus,
    /// The tenants it may work for, sorted.
    tenants: &'a BTreeSet<Id<Tenant>>,
}

/// The grant.
#[derive(Debug, Serialize, JsonSchema)]
struct GrantInput<'a> {
    /// The agent it was given to.
    agent: Party<'a>,
    /// What it holds.
    authority: Held<'a>,
    /// When it ends, RFC 3339, in UTC.
    expires_at: String,
    /// The same in nanoseconds since 1970.
    expires_at_ns: i64,
    /// Its name.
    id: &'a Id<Grant>,
    /// How many further agents it may be passed on to.
    redelegate: usize,
    /// The furthest stage of a task under it.
    stage: Stage,
}

/// One principal of the chain.
#[derive(Debug, Serialize, JsonSchema)]
struct Holder<'a> {
    /// The elements it holds; null where that is not known.
    details: Option<Vec<Detail<'a>>>,
    /// Its name at `issuer`.
    id: &'a Id<Principal>,
    /// The running copy.
    instance: Option<&'a str>,
    /// Whose name that is.
    issuer: &'a str,
    /// What it is.
    kind: PrincipalKind,
    /// The actions it holds, sorted; null where that is not known.
    scope: Option<Vec<&'a Id<Action>>>,
}

impl<'a> Input<'a> {
    /// The input that `issuance` is. Without a user there is none.
    fn of(issuance: &'a Issuance<'a>) -> Result<Self, InvalidInput> {
        let (Some(first), Some(last)) = (issuance.chain.first(), issuance.chain.last()) else {
            return Err(InvalidInput("nobody passes it on".to_owned()));
        };
        Ok(Self {
            chain: issuance.chain.iter().map(|hop| Holder::of(hop)).collect(),
            exchange: Exchange {
                expires_at: moment(issuance.expires_at),
                expires_at_ns: nanoseconds(issuance.expires_at),
                from: Party::of(&last.principal),
                requested: Held::of(issuance.requested),
                task: TaskInput::of(issuance.task, issuance.run),
                to: Recipient::of(issuance.to),
            },
            grant: GrantInput::of(issuance.grant),
            now: moment(issuance.now),
            now_ns: nanoseconds(issuance.now),
            tenant: issuance.tenant,
            user: User::of(&first.principal, issuance.user),
            version: VERSION,
        })
    }
}

impl<'a> Party<'a> {
    fn of(principal: &'a Principal) -> Self {
        Self { id: &principal.id, issuer: &principal.issuer, kind: principal.kind }
    }
}

impl<'a> Held<'a> {
    fn of(authority: &'a Authority) -> Self {
        Self { details: authority.elements.iter().map(Detail::of).collect(), scope: authority.scope.iter().collect() }
    }
}

impl<'a> Recipient<'a> {
    fn of(agent: &'a Agent) -> Self {
        let Agent { id, issuer, owner, actions, tenants, status } = agent;
        Self { actions, id, issuer, owner, status: *status, tenants }
    }
}

impl<'a> GrantInput<'a> {
    fn of(grant: &'a Grant) -> Self {
        Self {
            agent: Party::of(&grant.agent),
            authority: Held::of(&grant.authority),
            expires_at: moment(grant.expires_at),
            expires_at_ns: nanoseconds(grant.expires_at),
            id: &grant.id,
            redelegate: grant.redelegate,
            stage: grant.stage,
        }
    }
}

impl<'a> Holder<'a> {
    fn of(hop: &'a Hop) -> Self {
        let held = hop.authority.as_ref();
        Self {
            details: held.map(|held| held.elements.iter().map(Detail::of).collect()),
            id: &hop.principal.id,
            instance: hop.instance.as_deref(),
            issuer: &hop.principal.issuer,
            kind: hop.principal.kind,
            scope: held.map(|held| held.scope.iter().collect()),
        }
    }
}

/// The input that `issuance` is, as the engine's own value.
pub(crate) fn value(issuance: &Issuance<'_>) -> Result<regorus::Value, InvalidInput> {
    Input::of(issuance)?.serialize(engine_value::ToEngine(&WHOLE))
}

/// The JSON Schema of the input, from the types above.
pub fn schema() -> serde_json::Value {
    schema_of::<Input<'_>>(&format!("Countersign policy input where a token is issued, version {VERSION}"))
}
