//! A question as a sidecar asks it: alice's refund of 20.00 USD on her own open order, by support-v2. Shared by
//! the tests and the bench.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use model::{
    Action, Agent, AgentStatus, Authority, CanonicalPath, Catalogue, Chain, Delegation, Effect, FactValue, Facts, Hop,
    Id, Money, ParameterKind, ParameterValue, Parameters, Presence, Principal, PrincipalKind, Question, Sensitivity,
    Stage, Tool,
    catalogue::IdentityMode,
    chain::{Evidence, MAX_AGENTS},
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
    fact::FactPrincipal,
    question::{Call, Protocol, RequestFacts},
    template::Template,
};

pub(crate) const AUTHORITY: &str = "https://countersign.example";
pub(crate) const REALM: &str = "https://sso.example/realms/acme";

pub(crate) fn id<Of>(text: &str) -> Id<Of> {
    Id::new(text).unwrap()
}

pub(crate) fn principal(kind: PrincipalKind, name: &str, issuer: &str) -> Principal {
    Principal { kind, id: id(name), issuer: issuer.to_owned(), tenant: Some(id("acme")) }
}

pub(crate) fn authority() -> Authority {
    serde_json::from_value(serde_json::json!({
        "scope": ["notes.draft", "orders.list", "orders.read", "refunds.create"],
        "elements": [
            {
                "type": "urn:countersign:action",
                "actions": ["refunds.create"],
                "locations": ["orders"],
                "identifier": "orders/*",
                "limits": {
                    "amount": {"max": "50.00", "currency": "USD"},
                    "daily": {"sum": "amount", "max": "200.00", "currency": "USD", "window": "P1D"}
                },
                "where": {"order.placed_by": "$user"}
            },
            {
                "type": "urn:countersign:action",
                "actions": ["notes.draft", "orders.list", "orders.read"],
                "locations": ["orders"]
            }
        ]
    }))
    .unwrap()
}

pub(crate) fn hop(kind: PrincipalKind, name: &str, issuer: &str) -> Hop {
    Hop {
        principal: principal(kind, name, issuer),
        instance: (kind == PrincipalKind::Agent).then(|| "pod-7".to_owned()),
        jti: Some("01J".to_owned()),
        grant: Some(id("grant-support")),
        authority: Some(authority()),
        evidence: Evidence::DelegationChain,
    }
}

/// Alice, of `tenant`, and so many agents, support-v2 last.
pub(crate) fn chain(agents: usize, tenant: Option<&str>) -> Chain {
    let mut user = hop(PrincipalKind::User, "alice", REALM);
    user.principal.tenant = tenant.map(id);
    let between = (1..agents).map(|index| hop(PrincipalKind::Agent, &format!("helper-{index}"), AUTHORITY));
    let last = hop(PrincipalKind::Agent, "support-v2", AUTHORITY);
    Chain::new([user].into_iter().chain(between).chain([last]).collect(), MAX_AGENTS.max(agents)).unwrap()
}

pub(crate) fn delegation() -> Delegation {
    Delegation {
        token: TokenFacts {
            digest: "q0".to_owned(),
            issuer: AUTHORITY.to_owned(),
            jti: Some("01K".to_owned()),
            client_id: Some("support-v2".to_owned()),
            key_id: Some("k1".to_owned()),
            algorithm: "ES256".to_owned(),
            issued_at: "2026-11-22T09:58:00Z".parse().unwrap(),
            expires_at: "2026-11-22T10:03:00Z".parse().unwrap(),
        },
        chain: chain(1, Some("acme")),
        authority: authority(),
        authority_assumed: false,
        user: UserClaims {
            groups: ["support".to_owned(), "emea".to_owned()].into(),
            roles: ["agent".to_owned()].into(),
            acr: None,
            auth_time: Some(1_795_341_000),
            attributes: BTreeMap::new(),
        },
        entitlement: ["orders.read", "refunds.create"].into_iter().map(id).collect(),
        tenant: id("acme"),
        grant: Some(id("grant-support")),
        run: id("0198f3a2-run"),
        run_derived: false,
        task: TaskClaims {
            id: Some(id("ticket-12847")),
            use_case: Some("support".to_owned()),
            initiated_by: Some("alice".to_owned()),
            sensitivity: Sensitivity::Medium,
            stage: Stage::Supervised,
            presence: Some(Presence::Present),
        },
        session: None,
        position: None,
        sender: Sender::Bearer,
    }
}

pub(crate) fn amount(text: &str, currency: &str) -> Parameters {
    let mut parameters = Parameters::default();
    let money = Money::from_major(text, currency).unwrap();
    parameters.set("amount", ParameterKind::Money, Some(ParameterValue::Money(money)));
    parameters.set("reason", ParameterKind::String, None);
    parameters
}

pub(crate) fn order(placed_by: FactValue, status: FactValue) -> Facts {
    let leaves = BTreeMap::from([("placed_by".to_owned(), placed_by), ("status".to_owned(), status)]);
    Facts(BTreeMap::from([("order".to_owned(), leaves)]))
}

pub(crate) fn placed_by(name: &str) -> FactValue {
    FactValue::Principal(FactPrincipal { id: id(name), issuer: REALM.to_owned() })
}

pub(crate) fn open() -> FactValue {
    FactValue::Text("open".to_owned())
}

pub(crate) fn question() -> Question {
    Question {
        id: id("L1.0198f3a2-7d1e-7000-8000-000000000001"),
        now: "2026-11-22T10:00:00Z".parse::<Timestamp>().unwrap(),
        request: RequestFacts {
            protocol: Protocol::Http,
            method: "POST".to_owned(),
            path: CanonicalPath::parse("/orders/v1/orders/17/refunds").unwrap(),
            headers: BTreeMap::from([("x-ticket".to_owned(), "12847".to_owned())]),
        },
        call: Call {
            tool: id("orders"),
            action: id("refunds.create"),
            effect: Effect::Write,
            resource: "orders/17".to_owned(),
            parameters: amount("20.00", "USD"),
        },
        delegation: Arc::new(delegation()),
        agent: Agent {
            id: id("support-v2"),
            issuer: AUTHORITY.to_owned(),
            owner: "dana@acme.example".to_owned(),
            actions: ["notes.draft", "orders.read", "refunds.create"].into_iter().map(id::<Action>).collect(),
            tenants: BTreeSet::from([id("acme")]),
            status: AgentStatus::Active,
        }
        .into(),
        limits: Vec::new(),
        facts: order(placed_by("alice"), open()),
    }
}

/// A catalogue of tools without actions: all that binding policies to tools takes.
pub(crate) fn catalogue(tools: &[&str]) -> Catalogue {
    let tool = |name: &&str| Tool {
        id: id(name),
        at: CanonicalPath::parse(&format!("/{name}")).unwrap(),
        upstream: "http://127.0.0.1:1".to_owned(),
        tenants: None,
        identity: IdentityMode::ServiceAccount,
        facts: BTreeMap::new(),
        actions: vec![Action {
            id: id(&format!("{name}.read")),
            method: "GET".to_owned(),
            template: Template::parse("/v1").unwrap(),
            effect: Effect::Read,
            resource: Template::parse(name).unwrap(),
            facts: Vec::new(),
            parameters: BTreeMap::new(),
            additional: false,
            idempotency: None,
        }],
    };
    Catalogue::new(tools.iter().map(tool).collect(), "catalogue-1".to_owned()).unwrap()
}
