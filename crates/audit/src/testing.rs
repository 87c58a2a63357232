//! The demo's call, as tests and benches record it: made of `model` data alone.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use model::{
    Agent, CanonicalPath, Delegation, Effect, Facts, Id, Money, ParameterKind, ParameterValue, Parameters, Question,
    question::{Call, Protocol, RequestFacts},
};
use serde_json::json;

/// What the demo's support agent holds for alice.
pub(crate) fn delegation() -> Delegation {
    delegation_of("alice@acme", "https://sso.example/realms/acme")
}

/// The same for another user.
pub(crate) fn delegation_of(user: &str, issuer: &str) -> Delegation {
    let initiated_by = user;
    let mut hasher = DefaultHasher::new();
    (user, issuer).hash(&mut hasher);
    let digest = format!("{:0>43}", hasher.finish());
    let user = json!({"kind": "user", "id": user, "issuer": issuer, "tenant": "acme"});
    let agent = json!({"kind": "agent", "id": "support-v2", "issuer": "https://countersign.example", "tenant": "acme"});
    let authority = json!({"scope": ["customers.read", "orders.read", "refunds.create"], "elements": [{
        "type": "urn:countersign:action",
        "actions": ["orders.read", "refunds.create"],
        "locations": ["orders"],
        "identifier": "orders/*",
        "limits": {"amount": {"max": "50.00", "currency": "USD"}},
        "where": {"order.placed_by": "$user"},
    }]});
    let hop = |principal, evidence: &str| json!({"principal": principal, "instance": null, "jti": null, "grant": null, "authority": authority, "evidence": evidence});
    serde_json::from_value(json!({
        "token": {
            "digest": digest,
            "issuer": "https://countersign.example",
            "jti": "0198c5b2-7d5e-7c30-9f3e-0a1b2c3d4e5f",
            "client_id": "support-v2",
            "key_id": "k1",
            "algorithm": "ES256",
            "issued_at": "2026-03-14T14:30:00Z",
            "expires_at": "2026-03-14T14:35:00Z",
        },
        "chain": [hop(user, "delegation_chain"), hop(agent, "token")],
        "authority": authority,
        "authority_assumed": false,
        "user": {"groups": ["support"], "roles": [], "acr": "urn:mfa", "auth_time": 9_007_199_254_740_993_i64, "attributes": {"region": "eu"}},
        "entitlement": ["orders.read", "refunds.create"],
        "tenant": "acme",
        "grant": "grant-support",
        "run": "0198c5b2-0000-7000-8000-000000000001",
        "run_derived": false,
        "task": {"id": "ticket-12847", "use_case": "refunds", "initiated_by": initiated_by, "sensitivity": "medium", "stage": "supervised", "presence": "present"},
        "session": "s-1",
        "position": u64::MAX,
        "sender": "bearer",
    }))
    .expect("the sample delegation is well formed")
}

/// A refund of 20 dollars on alice's own order.
pub(crate) fn question(id: &str, delegation: Arc<Delegation>) -> Question {
    let mut parameters = Parameters::default();
    let amount = Money::from_major("20.00", "USD").expect("20 dollars are money");
    parameters.set("amount", ParameterKind::Money, Some(ParameterValue::Money(amount)));
    let name = |text: &str| Id::new(text).expect("a sample name is a name");
    let agent: Agent = serde_json::from_value(json!({
        "id": "support-v2",
        "issuer": "https://countersign.example",
        "owner": "bob@acme",
        "actions": ["customers.read", "orders.read", "refunds.create"],
        "tenants": ["acme"],
        "status": "active",
    }))
    .expect("the sample registration is well formed");
    let facts: Facts = serde_json::from_value(json!({"order": {
        "placed_by": {"id": "alice@acme", "issuer": "https://sso.example/realms/acme"},
        "status": "delivered",
        "total": 7900,
    }}))
    .expect("the sample facts are well formed");
    Question {
        id: Id::new(id).expect("a sample id is an id"),
        now: "2026-03-14T14:32:01.123456789Z".parse().expect("a time"),
        request: RequestFacts {
            protocol: Protocol::Http,
            method: "POST".to_owned(),
            path: CanonicalPath::parse("/orders/v1/orders/17/refunds").expect("a path"),
            headers: [("idempotency-key".to_owned(), "refund-17-1".to_owned())].into(),
        },
        call: Call {
            tool: Id::new("orders").expect("a name"),
            action: Id::new("refunds.create").expect("a name"),
            effect: Effect::Write,
            resource: "orders/17".to_owned(),
            parameters,
        },
        delegation,
        agent: Agent { id: name("support-v2"), ..agent }.into(),
        limits: Vec::new(),
        facts,
    }
}
