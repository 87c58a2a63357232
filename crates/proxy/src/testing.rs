//! What the tests of this crate share: a catalogue as an operator would write it, requests, delegations.

pub(crate) mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use http::Request;
use model::{
    Agent, AgentStatus, Authority, Chain, Delegation, Element, Hop, Id, Principal, PrincipalKind, Sensitivity, Stage,
    authority::Scope,
    chain::Evidence,
    delegation::{Sender, TaskClaims, TokenFacts, UserClaims},
};
use net::{Body, Peer};
use serde_json::{Value, json};

use crate::{
    accept::{Arrival, Incoming, accept},
    config::{
        AgentListenerConfig, ToolConfig,
        tools::{Base, ResolvedTools, resolve},
    },
};

pub(crate) const NOW: &str = "2026-11-22T10:00:00Z";
pub(crate) const ISSUER: &str = "https://countersign.example";
pub(crate) const PROVIDER: &str = "https://sso.example";

pub(crate) fn listener() -> AgentListenerConfig {
    serde_json::from_value(json!({ "tcp": "127.0.0.1:0", "bearer": "all", "input_headers": ["X-Ticket"] })).unwrap()
}

pub(crate) fn arrival() -> Arrival {
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    Arrival::new("ledger1", peer, NOW.parse().unwrap(), net::clock::monotonic()).unwrap()
}

pub(crate) fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri).header("host", "127.0.0.1:8690");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::full(body.to_owned())).unwrap()
}

pub(crate) fn incoming(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Incoming {
    accept(arrival(), request(method, uri, headers, body), &listener()).unwrap()
}

/// One tool with an action of each kind; `upstream` is its base URL.
pub(crate) fn tool(upstream: &str) -> Value {
    json!({
        "at": "/orders",
        "upstream": upstream,
        "credential": { "bearer": { "env": "TOOL" } },
        "timeout": "5s",
        "facts": {
            "order": {
                "get": "/v1/orders/{order}",
                "ttl": "10s",
                "timeout": "2s",
                "tenant": "/tenant",
                "pick": {
                    "placed_by": { "at": "/customer/id", "principal": PROVIDER },
                    "total": { "at": "/total" }
                }
            },
            "unused": { "get": "/v1/unused/{order}", "pick": { "x": { "at": "/x" } } }
        },
        "actions": {
            "orders.read": { "match": "GET /v1/orders/{order}", "effect": "read", "resource": "orders/{order}" },
            "orders.search": {
                "match": "GET /v1/orders",
                "effect": "read",
                "resource": "orders",
                "parameters": { "limit": { "type": "integer", "value": "query:limit", "optional": true } }
            },
            "orders.upload": {
                "match": "PUT /v1/orders/{order}/file", "effect": "write", "resource": "orders/{order}", "additional": "allow",
            },
            "orders.cancel": { "match": "POST /v1/orders/{order}/cancel", "effect": "write", "resource": "orders/{order}" },
            "refunds.create": {
                "match": "POST /v1/orders/{order}/refunds",
                "effect": "write",
                "resource": "orders/{order}",
                "facts": ["order"],
                "parameters": {
                    "amount": { "type": "money", "value": "body:/amount", "currency": "body:/currency" },
                    "note": { "type": "string", "value": "body:/details/note", "optional": true }
                },
                "idempotency": "header:Idempotency-Key"
            },
            "orders.tag": {
                "match": "POST /v1/orders/{order}/tags",
                "effect": "draft",
                "resource": "orders/{order}",
                "additional": "allow",
                "parameters": {
                    "tags": { "type": "set", "value": "body:/tags" },
                    "weight": { "type": "decimal", "scale": 3, "value": "body:/weight", "optional": true },
                    "due": { "type": "time", "value": "body:/due", "optional": true },
                    "owner": { "type": "id", "value": "header:X-Owner", "optional": true },
                    "count": { "type": "integer", "value": "body:/count", "optional": true },
                    "fee": { "type": "money", "value": "body:/fee", "currency": "EUR", "minor": true, "optional": true }
                }
            }
        }
    })
}

pub(crate) fn tools(upstream: &str) -> ResolvedTools {
    let config: ToolConfig = serde_json::from_value(tool(upstream)).unwrap();
    let tools = BTreeMap::from([(Id::new("orders").unwrap(), config)]);
    resolve(&tools, &tenants(), &|name| (name == "TOOL").then(|| "tool-secret-1".to_owned())).unwrap()
}

pub(crate) fn tenants() -> BTreeSet<Id<model::Tenant>> {
    BTreeSet::from([Id::new("acme").unwrap()])
}

pub(crate) fn base(url: &str) -> Base {
    let mut tools = tools(url);
    tools.upstreams.pop_first().unwrap().1.base
}

pub(crate) fn principal(kind: PrincipalKind, id: &str) -> Principal {
    let issuer = if kind == PrincipalKind::User { PROVIDER } else { ISSUER };
    Principal { kind, id: Id::new(id).unwrap(), issuer: issuer.to_owned(), tenant: Some(Id::new("acme").unwrap()) }
}

pub(crate) const ACTIONS: [&str; 5] = ["orders.read", "orders.search", "orders.upload", "refunds.create", "orders.tag"];

/// Everything at the tool, refunds up to `max` dollars, on orders that the user placed.
pub(crate) fn authority(max: &str) -> Authority {
    let element: Element = serde_json::from_value(json!({
        "type": "urn:countersign:action",
        "actions": ["refunds.create"],
        "locations": ["orders"],
        "identifier": "orders/*",
        "limits": { "amount": { "max": max, "currency": "USD" } },
        "where": { "order.placed_by": "$user" }
    }))
    .unwrap();
    let others: Element = serde_json::from_value(json!({
        "type": "urn:countersign:action",
        "actions": ["orders.read", "orders.search", "orders.upload", "orders.tag"],
        "locations": ["orders"]
    }))
    .unwrap();
    Authority { scope: Scope::parse(&ACTIONS.join(" ")), elements: vec![element, others].into() }
}

fn hop(principal: Principal, authority: Authority) -> Hop {
    Hop {
        principal,
        instance: None,
        jti: None,
        grant: None,
        authority: Some(authority),
        evidence: Evidence::DelegationChain,
    }
}

/// alice, the support agent, and a helper of it that holds less.
pub(crate) fn delegation() -> Delegation {
    let chain = Chain::new(
        vec![
            hop(principal(PrincipalKind::User, "alice"), authority("100")),
            hop(principal(PrincipalKind::Agent, "support"), authority("50")),
            hop(principal(PrincipalKind::Agent, "helper"), authority("20")),
        ],
        4,
    )
    .unwrap();
    Delegation {
        token: TokenFacts {
            digest: "digest".into(),
            issuer: ISSUER.into(),
            jti: Some("j1".into()),
            client_id: None,
            key_id: None,
            algorithm: "ES256".into(),
            issued_at: "2026-11-22T09:59:00Z".parse().unwrap(),
            expires_at: "2026-11-22T10:04:00Z".parse().unwrap(),
        },
        chain,
        authority: authority("20"),
        authority_assumed: false,
        user: UserClaims::default(),
        entitlement: ACTIONS.iter().map(|name| Id::new(name).unwrap()).collect(),
        tenant: Id::new("acme").unwrap(),
        grant: None,
        run: Id::new("run-1").unwrap(),
        run_derived: false,
        task: TaskClaims {
            id: None,
            use_case: None,
            initiated_by: None,
            sensitivity: Sensitivity::High,
            stage: Stage::Supervised,
            presence: None,
        },
        session: None,
        position: None,
        sender: Sender::Bearer,
    }
}

pub(crate) fn agent(id: &str) -> Agent {
    Agent {
        id: Id::new(id).unwrap(),
        issuer: ISSUER.into(),
        owner: "olivia".into(),
        actions: ACTIONS.iter().map(|name| Id::new(name).unwrap()).collect(),
        tenants: tenants(),
        status: AgentStatus::Active,
    }
}

/// A defect, for the test that one call's defect is no other's.
pub(crate) fn fault(incoming: &Incoming) {
    assert!(!incoming.headers().contains_key("x-test-fault"), "on purpose");
}

pub(crate) fn gate(limits: Value) -> crate::overload::Gate {
    crate::overload::Gate::new(
        &serde_json::from_value(limits).unwrap(),
        std::sync::Arc::new(crate::metrics::Metrics::new()),
    )
}
