//! Sample calls, one for each action of a catalogue: plain, permitted as far as a token goes, and of nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use model::{
    Action, Agent, AgentStatus, Authority, Catalogue, Chain, Delegation, FactValue, Facts, Grant, Hop, Id, Money,
    ParameterKind, ParameterValue, Parameters, Presence, Principal, PrincipalKind, Question, Sensitivity, Stage,
    Tenant, Tool,
    catalogue::ParameterDeclaration,
    chain::{Evidence, MAX_AGENTS},
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
    parameter::ScaledDecimal,
    question::{Call, Protocol, RequestFacts},
};
use policy::{
    Steering,
    input::{
        exchange::Issuance,
        management::{Management, Named, Object},
    },
};

const ISSUER: &str = "https://sample.invalid";
const WORD: &str = "sample";
const TENANT: &str = "sample";

/// A question for each action, with the action's name.
pub(super) fn questions<'a>(
    catalogue: &'a Catalogue,
    tenants: &'a BTreeSet<Id<Tenant>>,
) -> impl Iterator<Item = (&'a Id<Action>, Result<Question, Box<dyn Error>>)> {
    let actions = catalogue.tools().iter().flat_map(|tool| tool.actions.iter().map(move |action| (tool, action)));
    actions.map(move |(tool, action)| (&action.id, question(catalogue, tenants, tool, action)))
}

fn question(
    catalogue: &Catalogue,
    tenants: &BTreeSet<Id<Tenant>>,
    tool: &Tool,
    action: &Action,
) -> Result<Question, Box<dyn Error>> {
    let variables = action.resource.variables().map(|name| (name.to_owned(), WORD.to_owned())).collect();
    let mut parameters = Parameters::default();
    for (name, declaration) in &action.parameters {
        parameters.set(name, declaration.kind, Some(value(declaration)?));
    }
    let facts = tool.facts.iter().map(|(name, fact)| {
        (name.clone(), fact.pick.keys().map(|leaf| (leaf.clone(), FactValue::Text(WORD.to_owned()))).collect())
    });
    let all: BTreeSet<Id<Action>> =
        catalogue.tools().iter().flat_map(|tool| &tool.actions).map(|action| action.id.clone()).collect();
    let tenant = match tenants.first() {
        Some(tenant) => tenant.clone(),
        None => Id::new(TENANT)?,
    };
    Ok(Question {
        id: Id::new(WORD)?,
        now: Timestamp::UNIX_EPOCH,
        request: RequestFacts {
            protocol: Protocol::Http,
            method: action.method.clone(),
            path: tool.at.clone(),
            headers: BTreeMap::new(),
        },
        call: Call {
            tool: tool.id.clone(),
            action: action.id.clone(),
            effect: action.effect,
            resource: action.resource.fill(&variables).unwrap_or_default(),
            parameters,
        },
        agent: registered(Id::new(WORD)?, all.clone(), tenants.clone()).into(),
        delegation: Arc::new(delegation(catalogue, all, tenant)?),
        limits: Vec::new(),
        facts: Facts(facts.collect()),
    })
}

fn value(declaration: &ParameterDeclaration) -> Result<ParameterValue, Box<dyn Error>> {
    Ok(match declaration.kind {
        ParameterKind::String => ParameterValue::String(WORD.to_owned()),
        ParameterKind::Integer => ParameterValue::Integer(1),
        ParameterKind::Decimal => {
            ParameterValue::Decimal(ScaledDecimal { unscaled: 0, scale: declaration.scale, text: "0".to_owned() })
        }
        ParameterKind::Money => ParameterValue::Money(Money::from_minor(100, "USD")?),
        ParameterKind::Time => ParameterValue::Time(Timestamp::UNIX_EPOCH),
        ParameterKind::Id => ParameterValue::Id(WORD.to_owned()),
        ParameterKind::Set => ParameterValue::Set(BTreeSet::from([WORD.to_owned()])),
    })
}

/// A user's agent with one agent between, for everything there is.
fn delegation(
    catalogue: &Catalogue,
    all: BTreeSet<Id<Action>>,
    tenant: Id<Tenant>,
) -> Result<Delegation, Box<dyn Error>> {
    let tools: Vec<&Id<Tool>> = catalogue.tools().iter().map(|tool| &tool.id).collect();
    held_by(&tools, all, tenant)
}

/// The same for `all` on `tools`.
fn held_by(tools: &[&Id<Tool>], all: BTreeSet<Id<Action>>, tenant: Id<Tenant>) -> Result<Delegation, Box<dyn Error>> {
    let authority: Authority = serde_json::from_value(serde_json::json!({
        "scope": all,
        "elements": [{ "type": "urn:countersign:action", "actions": all, "locations": tools }],
    }))?;
    let hop = |kind, name: &str| -> Result<Hop, Box<dyn Error>> {
        Ok(Hop {
            principal: Principal { kind, id: Id::new(name)?, issuer: ISSUER.to_owned(), tenant: Some(tenant.clone()) },
            instance: None,
            jti: None,
            grant: None,
            authority: Some(authority.clone()),
            evidence: Evidence::DelegationChain,
        })
    };
    let hops = vec![
        hop(PrincipalKind::User, "user")?,
        hop(PrincipalKind::Agent, "between")?,
        hop(PrincipalKind::Agent, WORD)?,
    ];
    Ok(Delegation {
        token: TokenFacts {
            digest: WORD.to_owned(),
            issuer: ISSUER.to_owned(),
            jti: None,
            client_id: None,
            key_id: None,
            algorithm: "ES256".to_owned(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_mins(5))?,
        },
        chain: Chain::new(hops, MAX_AGENTS)?,
        authority,
        authority_assumed: false,
        user: UserClaims {
            groups: BTreeSet::from([WORD.to_owned()]),
            roles: BTreeSet::new(),
            acr: None,
            auth_time: None,
            attributes: BTreeMap::new(),
        },
        entitlement: all,
        tenant,
        grant: None,
        run: Id::new(WORD)?,
        run_derived: false,
        task: TaskClaims {
            id: None,
            use_case: None,
            initiated_by: None,
            sensitivity: Sensitivity::High,
            stage: Stage::Supervised,
            presence: Some(Presence::Present),
        },
        session: None,
        position: None,
        sender: Sender::Bearer,
    })
}

/// Asks `steering` about a token for `tools` that an agent hands on, and about something that somebody manages.
pub(super) fn steer(steering: &Steering, mut tools: Vec<Id<Tool>>) -> Result<(), Box<dyn Error>> {
    // One that no team is bound to, so that the platform team's policy is asked whoever else is there.
    tools.push(Id::new(WORD)?);
    let tools: Vec<&Id<Tool>> = tools.iter().collect();
    let delegation = held_by(&tools, [Id::new(WORD)?].into(), Id::new(TENANT)?)?;
    let (user, agent) = (&delegation.chain.user().principal, &delegation.chain.agent().principal);
    let grant = Grant {
        id: Id::new(WORD)?,
        user: user.clone(),
        agent: agent.clone(),
        authority: delegation.authority.clone(),
        stage: Stage::Supervised,
        expires_at: delegation.token.expires_at,
        redelegate: 1,
    };
    steering.delegate(&Issuance {
        chain: delegation.chain.hops().take(2).collect(),
        to: &registered(agent.id.clone(), delegation.entitlement.clone(), [delegation.tenant.clone()].into()),
        requested: &delegation.authority,
        task: &delegation.task,
        run: &delegation.run,
        grant: &grant,
        user: &delegation.user,
        tenant: &delegation.tenant,
        expires_at: delegation.token.expires_at,
        now: delegation.token.issued_at,
    });
    let object =
        Object { kind: "grant", id: Some(WORD.to_owned()), user: Some(Named::from(user)), ..Object::default() };
    steering.manage(&Management {
        caller: user,
        claims: &delegation.user,
        operation: "grants.show",
        object: &object,
        now: delegation.token.issued_at,
    });
    Ok(())
}

/// A registration.
fn registered(id: Id<Principal>, actions: BTreeSet<Id<Action>>, tenants: BTreeSet<Id<Tenant>>) -> Agent {
    let (issuer, owner) = (ISSUER.to_owned(), WORD.to_owned());
    Agent { id, issuer, owner, actions, tenants, status: AgentStatus::Active }
}
