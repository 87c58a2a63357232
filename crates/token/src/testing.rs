//! What the tests of this crate share: a small world of issuers with real keys, and tokens made in it.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::{Code, Delegation, Id};
use serde_json::{Value, json};

use crate::{
    Algorithm, Issuer, IssuerConfig, KeyClients, KeySet, Presented, Proof, Rejection, SigningKey, Verified, Verifier,
    VerifierSettings, mint,
};

/// The moment at which the tests' tokens are presented.
pub(crate) const NOW: i64 = 1_795_000_000;
pub(crate) const AUDIENCE: &str = "urn:example:countersign:support";

pub(crate) fn now() -> Timestamp {
    at(0)
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// Clients that are never used where keys are fixed.
pub(crate) fn clients() -> KeyClients {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = net::client_config(net::Roots::Pem(certificate.cert.pem().into_bytes())).unwrap();
    let client = |trust| net::HttpClient::new(net::ClientOptions::new(tls.clone(), trust));
    KeyClients { operator: client(net::UrlTrust::Operator), learned: client(net::UrlTrust::Learned) }
}

/// An authority, an identity provider, one that sends only `act`, and another whose users have the same names.
pub(crate) struct World {
    pub(crate) authority: SigningKey,
    pub(crate) sso: SigningKey,
    pub(crate) act: SigningKey,
    pub(crate) other: SigningKey,
    pub(crate) verifier: Verifier,
    pub(crate) tasks: net::Tasks,
}

pub(crate) const AUTHORITY: &str = "https://authority.example";
pub(crate) const SSO: &str = "https://sso.example";
pub(crate) const ACT: &str = "https://act.example";
pub(crate) const OTHER: &str = "https://other.example";

pub(crate) fn issuer(yaml: &str) -> Issuer {
    serde_saphyr::from_str::<IssuerConfig>(yaml).unwrap().resolve().unwrap()
}

pub(crate) fn public(keys: &[&SigningKey]) -> Arc<KeySet> {
    let bytes = serde_json::to_vec(&mint::key_set(keys.iter().copied())).unwrap();
    Arc::new(KeySet::parse(&bytes, &BTreeSet::from([Algorithm::Es256, Algorithm::EdDsa])).unwrap())
}

pub(crate) fn settings(issuers: Vec<Issuer>) -> VerifierSettings {
    VerifierSettings {
        issuers,
        audiences: [AUDIENCE.to_owned(), "http://127.0.0.1:8690".to_owned()].into(),
        tenants: [Id::new("acme").unwrap()].into(),
        defaults: crate::Defaults::default(),
        cache_entries: 100,
    }
}

impl World {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new() -> Self {
        let key = |algorithm| SigningKey::generate(algorithm).unwrap();
        let (authority, sso) = (key(Algorithm::Es256), key(Algorithm::EdDsa));
        let (act, other) = (key(Algorithm::EdDsa), key(Algorithm::Es256));
        let map = "{from: groups, map: {support: [orders.read, refunds.create]}}";
        let issuers = vec![
            issuer(&format!("{{issuer: '{AUTHORITY}', role: delegation, tenants: [acme, globex, initech]}}"))
                .with_keys(public(&[&authority])),
            issuer(&format!(
                "{{issuer: '{SSO}', role: subject, tenants: [acme, globex], entitlements: {map}, robots: ['svc-*'], claims: {{tenant: /org/tenant}}}}"
            ))
            .with_keys(public(&[&sso])),
            issuer(&format!(
                "{{issuer: '{ACT}', role: delegation, tenants: [acme], chain: act, max_agents: 2, assume: {{locations: [orders]}}, entitlements: {{from: roles, map: {{agent-user: [orders.read]}}}}, claims: {{id: oid, scope: scp, roles: /realm/roles, attributes: {{region: /region}}}}}}"
            ))
            .with_keys(public(&[&act])),
            issuer(&format!("{{issuer: '{OTHER}', role: subject, tenants: [acme]}}")).with_keys(public(&[&other])),
        ];
        let tasks = net::Tasks::new();
        let verifier = Verifier::new(settings(issuers), &clients(), &tasks).unwrap();
        Self { authority, sso, act, other, verifier, tasks }
    }

    /// The authority's token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        mint(&self.authority, claims)
    }

    pub(crate) async fn verify(&self, compact: &str) -> Result<Verified, Box<Rejection>> {
        self.verify_at(compact, now()).await
    }

    pub(crate) async fn verify_at(&self, compact: &str, now: Timestamp) -> Result<Verified, Box<Rejection>> {
        self.verifier.verify(Presented { compact, bearer_allowed: true, proof: Proof::None }, now).await
    }

    pub(crate) async fn admitted(&self, claims: &Value) -> Delegation {
        Delegation::clone(self.verify(&self.token(claims)).await.unwrap().delegation())
    }

    pub(crate) async fn code(&self, compact: &str) -> Code {
        self.verify(compact).await.unwrap_err().refusal.code
    }
}

/// A token of type `at+jwt`.
pub(crate) fn mint(key: &SigningKey, claims: &Value) -> String {
    key.sign("at+jwt", claims).unwrap().expose().to_owned()
}

/// A token of any bytes, truly signed.
pub(crate) fn forge(key: &SigningKey, header: &[u8], payload: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.signature(signed.as_bytes()).unwrap();
    format!("{signed}.{signature}")
}

/// The header that `key` would write, with changes.
pub(crate) fn header(key: &SigningKey, changes: Value) -> Vec<u8> {
    let mut header = json!({ "alg": key.algorithm().as_str(), "kid": key.id(), "typ": "at+jwt" });
    merge(&mut header, changes);
    serde_json::to_vec(&header).unwrap()
}

/// RFC 7396: `null` removes.
pub(crate) fn merge(into: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        *into = changes;
        return;
    };
    for (name, change) in changes {
        let members = into.as_object_mut().unwrap();
        if change.is_null() {
            members.remove(&name);
        } else if change.is_object() && members.get(&name).is_some_and(Value::is_object) {
            merge(members.get_mut(&name).unwrap(), change);
        } else {
            members.insert(name, change);
        }
    }
}

fn elements(max: &str, relations: &Value) -> Value {
    json!([
        { "type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"], "identifier": "orders/*" },
        { "type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"], "identifier": "orders/*",
          "limits": { "amount": { "max": max, "currency": "USD" } }, "where": relations },
    ])
}

/// A valid token of the authority: alice, through support, through refunds.
pub(crate) fn chain_claims() -> Value {
    let related = json!({ "order.placed_by": "$user" });
    json!({
        "iss": AUTHORITY, "sub": "alice", "aud": AUDIENCE, "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 200,
        "jti": "token-3", "client_id": "refunds", "sub_profile": "user",
        "act": { "iss": AUTHORITY, "sub": "refunds", "sub_profile": "ai_agent", "instance": "r-1",
                 "act": { "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent" } },
        "delegation_chain": [
            { "iss": SSO, "sub": "alice", "sub_profile": "user", "jti": "token-1",
              "scope": "customers.read orders.read refunds.create", "authorization_details": elements("500.00", &json!({})) },
            { "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent", "jti": "token-2", "grant": "grant-1",
              "scope": "orders.read refunds.create", "authorization_details": elements("50.00", &related) },
            { "iss": AUTHORITY, "sub": "refunds", "sub_profile": "ai_agent", "instance": "r-1", "grant": "grant-1",
              "scope": "orders.read refunds.create", "authorization_details": elements("20.00", &related) },
        ],
        "scope": "orders.read refunds.create", "authorization_details": elements("20.00", &related),
        "groups": ["support", "staff"], "roles": ["clerk"], "acr": "mfa", "auth_time": NOW - 600,
        "attributes": { "region": "eu" }, "sid": "session-1", "tenant": "acme",
        "grant_id": "grant-1", "task_id": "ticket-1", "run_id": "run-1", "use_case": "refunds",
        "initiated_by": "alice", "stage": "supervised", "sensitivity": "low", "user_presence": "present", "pos": 17,
    })
}

/// A valid token of the issuer that sends only `act`.
pub(crate) fn act_claims() -> Value {
    json!({
        "iss": ACT, "sub": "opaque", "oid": "alice", "aud": [AUDIENCE], "iat": NOW - 10, "exp": NOW + 200,
        "jti": "token-a", "azp": "refunds", "scp": ["orders.read", "refunds.create"], "realm": { "roles": ["agent-user"] },
        "region": "eu", "act": { "sub": "refunds", "act": { "sub": "support", "iss": AUTHORITY } },
    })
}

/// A valid token of the identity provider, for the authority.
pub(crate) fn user_claims() -> Value {
    json!({
        "iss": SSO, "sub": "alice", "aud": [AUTHORITY, "https://elsewhere.example"], "iat": NOW - 10, "exp": NOW + 200,
        "jti": "token-u", "client_id": "portal", "groups": ["support"], "sid": "session-1", "acr": "mfa",
        "org": { "tenant": "acme" },
    })
}
