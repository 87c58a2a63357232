//! Tokens with real signatures, valid and hostile, through the whole line.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Code, Id, PrincipalKind, Stage, chain::Evidence};
use serde_json::{Value, json};

use crate::{
    Algorithm, Presented, Proof, SigningKey, SubjectAudiences, VerifiedSubject,
    testing::{
        ACT, AUDIENCE, AUTHORITY, NOW, OTHER, SSO, World, act_claims, at, chain_claims, forge, header, merge, mint,
        now, user_claims,
    },
};

mod narrowing;

fn with(mut claims: Value, changes: Value) -> Value {
    merge(&mut claims, changes);
    claims
}

fn put(mut claims: Value, pointer: &str, value: Value) -> Value {
    *claims.pointer_mut(pointer).unwrap() = value;
    claims
}

fn take(mut claims: Value, parent: &str, member: &str) -> Value {
    claims.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member).unwrap();
    claims
}

#[tokio::test]
async fn a_valid_chain_token_proves_everything_it_says() {
    let world = World::new();
    let delegation = world.admitted(&chain_claims()).await;
    let names: Vec<_> = delegation.chain.hops().map(|hop| hop.principal.id.as_str()).collect();
    assert_eq!(names, ["alice", "support", "refunds"]);
    let user = &delegation.chain.user().principal;
    assert_eq!((user.issuer.as_str(), user.kind), (SSO, PrincipalKind::User));
    assert_eq!(user.tenant.as_ref().unwrap().as_str(), "acme");
    assert!(delegation.chain.hops().all(|hop| hop.authority.is_some() && hop.evidence == Evidence::DelegationChain));
    assert_eq!(delegation.chain.agent().instance.as_deref(), Some("r-1"));
    let entitlement: Vec<_> = delegation.entitlement.iter().map(Id::as_str).collect();
    assert_eq!(entitlement, ["orders.read", "refunds.create"]);
    assert_eq!(delegation.user.groups, BTreeSet::from(["staff".to_owned(), "support".to_owned()]));
    assert_eq!(delegation.user.attributes["region"], "eu");
    assert_eq!((delegation.run.as_str(), delegation.run_derived, delegation.position), ("run-1", false, Some(17)));
    assert_eq!((delegation.task.stage, delegation.session.as_deref()), (Stage::Supervised, Some("session-1")));
    assert_eq!(delegation.token.key_id.as_deref(), Some(world.authority.id()));
    assert!(!delegation.authority_assumed);
}

#[tokio::test]
async fn an_act_only_token_names_inner_actors_without_authority() {
    let world = World::new();
    let verified = world.verify(&mint(&world.act, &act_claims())).await.unwrap();
    let delegation = verified.delegation();
    let hops: Vec<_> = delegation.chain.hops().collect();
    let shown: Vec<_> = hops.iter().map(|hop| (hop.principal.id.as_str(), hop.principal.issuer.as_str())).collect();
    assert_eq!(shown, [("alice", ACT), ("support", AUTHORITY), ("refunds", ACT)]);
    let evidence: Vec<_> = hops.iter().map(|hop| (hop.evidence, hop.authority.is_some())).collect();
    assert_eq!(evidence, [(Evidence::Token, false), (Evidence::NestedAct, false), (Evidence::Token, true)]);
    assert!(delegation.authority_assumed && delegation.run_derived);
    assert_eq!(delegation.authority.elements.len(), 1);
    assert_eq!(delegation.tenant.as_str(), "acme");
    assert_eq!(delegation.entitlement.iter().map(Id::as_str).collect::<Vec<_>>(), ["orders.read"]);
    assert_eq!(delegation.task.stage, Stage::Observe);
    assert!(delegation.run.as_str().starts_with("run_"));
    let again = world.verify_at(&mint(&world.act, &act_claims()), at(1)).await.unwrap();
    assert_eq!(again.delegation().run, delegation.run);
}

/// Every change to a valid chain token, and the code it is refused with.
fn hostile_claims() -> Vec<(&'static str, Value, Code)> {
    use Code::{Chain, Expired, Impersonation, InvalidToken, RobotUser, TenantMismatch, WrongAudience, WrongSender};
    let base = chain_claims;
    let change = |changes| with(base(), changes);
    let support = json!({ "iss": AUTHORITY, "sub": "support", "sub_profile": "ai_agent" });
    vec![
        ("unknown issuer", change(json!({"iss": "https://evil.example"})), InvalidToken),
        ("issuer with a slash more", change(json!({"iss": format!("{AUTHORITY}/")})), InvalidToken),
        ("issuer is no string", change(json!({"iss": 5})), InvalidToken),
        ("other issuer, our key", change(json!({"iss": ACT})), InvalidToken),
        ("no exp", change(json!({"exp": null})), InvalidToken),
        ("exp as text", change(json!({"exp": (NOW + 200).to_string()})), InvalidToken),
        ("exp as a fraction", change(json!({"exp": NOW as f64 + 200.5})), InvalidToken),
        ("exp huge", change(json!({"exp": 1e18})), InvalidToken),
        ("exp beyond time", change(json!({"exp": i64::MAX})), InvalidToken),
        ("exp negative", change(json!({"exp": -1})), InvalidToken),
        ("no iat", change(json!({"iat": null})), InvalidToken),
        ("iat in the future", change(json!({"iat": NOW + 6})), InvalidToken),
        ("lifetime too long", change(json!({"exp": NOW - 10 + 301})), InvalidToken),
        ("ends before it begins", change(json!({"iat": NOW, "exp": NOW})), InvalidToken),
        ("early", change(json!({"nbf": NOW + 6})), InvalidToken),
        ("nbf is null", put(base(), "/nbf", Value::Null), InvalidToken),
        ("expired", change(json!({"iat": NOW - 200, "nbf": NOW - 200, "exp": NOW - 5})), Expired),
        ("no sub", change(json!({"sub": null})), InvalidToken),
        ("sub is a number", change(json!({"sub": 17})), InvalidToken),
        ("no aud", change(json!({"aud": null})), WrongAudience),
        ("other aud", change(json!({"aud": "urn:example:other"})), WrongAudience),
        ("two aud", change(json!({"aud": [AUDIENCE, "urn:example:other"]})), WrongAudience),
        ("aud twice", change(json!({"aud": [AUDIENCE, AUDIENCE]})), WrongAudience),
        ("aud is a number", change(json!({"aud": 5})), InvalidToken),
        ("bound to a key", change(json!({"cnf": {"jkt": "x"}})), WrongSender),
        ("bound in an unknown way", change(json!({"cnf": {"new": "x"}})), WrongSender),
        ("bound to null", put(change(json!({"cnf": 1})), "/cnf", Value::Null), WrongSender),
        ("no actor", change(json!({"act": null})), Impersonation),
        ("no actor and no chain", change(json!({"act": null, "delegation_chain": null})), Impersonation),
        ("no chain", change(json!({"delegation_chain": null})), Chain),
        ("act is null", put(base(), "/act", Value::Null), Chain),
        ("act without sub", take(base(), "/act", "sub"), Chain),
        ("inner act without sub", take(base(), "/act/act", "sub"), Chain),
        ("act is another", change(json!({"act": {"sub": "mallory"}})), Chain),
        ("act of another issuer", change(json!({"act": {"iss": SSO}})), Chain),
        ("inner act left out", take(base(), "/act", "act"), Chain),
        ("other instance", change(json!({"act": {"instance": "r-2"}})), Chain),
        ("chain is null", put(base(), "/delegation_chain", Value::Null), Chain),
        ("chain is empty", change(json!({"delegation_chain": []})), Chain),
        ("chain begins with another", put(base(), "/delegation_chain/0/sub", json!("bob")), Chain),
        ("sub is not who the chain begins with", change(json!({"sub": "bob"})), Chain),
        ("user of an unknown issuer", put(base(), "/delegation_chain/0/iss", json!("https://evil.example")), Chain),
        (
            "hop with an unknown member",
            put(base(), "/delegation_chain/1", with(base()["delegation_chain"][1].clone(), json!({"admin": true}))),
            Chain,
        ),
        ("hop without scope", take(base(), "/delegation_chain/1", "scope"), Chain),
        ("hop without details", take(base(), "/delegation_chain/1", "authorization_details"), Chain),
        (
            "hop with an element of another type",
            put(base(), "/delegation_chain/1/authorization_details/0/type", json!("other")),
            Chain,
        ),
        (
            "hop that widens its scope",
            put(base(), "/delegation_chain/2/scope", json!("orders.read refunds.create customers.read")),
            Chain,
        ),
        (
            "hop that widens a limit",
            put(base(), "/delegation_chain/2/authorization_details/1/limits/amount/max", json!("50.01")),
            Chain,
        ),
        (
            "hop that drops a relation",
            put(base(), "/delegation_chain/2/authorization_details/1/where", json!({})),
            Chain,
        ),
        ("token above its last hop", put(base(), "/authorization_details/1/limits/amount/max", json!("20.01")), Chain),
        ("token without the last hop's limit", take(base(), "/authorization_details/1", "limits"), Chain),
        (
            "token with more scope than its last hop",
            change(json!({"scope": "orders.read refunds.create customers.read"})),
            Chain,
        ),
        (
            "element with an unknown member",
            put(
                base(),
                "/authorization_details/0",
                json!({"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"], "privileges": ["x"]}),
            ),
            InvalidToken,
        ),
        (
            "two users",
            put(put(base(), "/delegation_chain/1/sub_profile", json!("user")), "/act/act/sub_profile", json!("user")),
            Chain,
        ),
        (
            "first of the chain is a service",
            put(base(), "/delegation_chain/0/sub_profile", json!("service")),
            RobotUser,
        ),
        ("says it is a service", change(json!({"sub_profile": "service"})), RobotUser),
        ("says it is an agent", change(json!({"sub_profile": "ai_agent other"})), RobotUser),
        ("the client itself", change(json!({"client_id": "alice"})), RobotUser),
        (
            "a listed robot",
            put(change(json!({"sub": "svc-night"})), "/delegation_chain/0/sub", json!("svc-night")),
            RobotUser,
        ),
        (
            "loops",
            put(
                with(base(), json!({"act": {"sub": "support", "instance": null}})),
                "/delegation_chain/2",
                with(base()["delegation_chain"][1].clone(), json!({"iss": AUTHORITY})),
            ),
            Chain,
        ),
        (
            "acts for itself",
            put(
                put(change(json!({"act": {"iss": SSO, "sub": "alice"}})), "/delegation_chain/2/iss", json!(SSO)),
                "/delegation_chain/2/sub",
                json!("alice"),
            ),
            Impersonation,
        ),
        ("too deep", deep(5), Chain),
        ("deeper than anything", deep(12), Chain),
        ("tenant of nobody here", change(json!({"tenant": "globex"})), TenantMismatch),
        ("tenant its user's issuer does not have", change(json!({"tenant": "initech"})), TenantMismatch),
        ("tenant its issuer does not have", change(json!({"tenant": "umbrella"})), TenantMismatch),
        ("no tenant where there are several", change(json!({"tenant": null})), TenantMismatch),
        ("tenant that forges a line", change(json!({"tenant": "acme\nx"})), InvalidToken),
        ("unknown stage", change(json!({"stage": "unlimited"})), InvalidToken),
        ("neither run nor jti", change(json!({"run_id": null, "jti": null})), InvalidToken),
        ("run that forges a line", change(json!({"run_id": "a b"})), InvalidToken),
        (
            "chain with one agent only, act with two",
            put(base(), "/delegation_chain", json!([base()["delegation_chain"][0], base()["delegation_chain"][2]])),
            Chain,
        ),
        (
            "actors in the wrong order",
            with(base(), json!({"act": with(support, json!({"act": {"iss": AUTHORITY, "sub": "refunds"}}))})),
            Chain,
        ),
    ]
}

/// A consistent token with so many agents.
fn deep(agents: usize) -> Value {
    let mut claims = chain_claims();
    let hop = claims["delegation_chain"][1].clone();
    let mut hops = vec![claims["delegation_chain"][0].clone()];
    let mut act: Option<Value> = None;
    for number in 0..agents {
        let name = format!("agent-{number}");
        hops.push(with(hop.clone(), json!({ "sub": name })));
        let mut next = json!({ "iss": AUTHORITY, "sub": name });
        if let Some(inner) = act.take() {
            next["act"] = inner;
        }
        act = Some(next);
    }
    claims["delegation_chain"] = Value::Array(hops);
    claims["act"] = act.unwrap();
    claims
}

#[tokio::test]
async fn a_chain_is_as_deep_as_the_issuer_may_make_it() {
    let world = World::new();
    assert_eq!(world.admitted(&deep(4)).await.chain.agents().count(), 4);
}

#[tokio::test]
async fn every_hostile_change_to_the_claims_is_refused_with_its_code() {
    let world = World::new();
    for (name, claims, expected) in hostile_claims() {
        let rejection = world.verify(&world.token(&claims)).await.expect_err(name);
        assert_eq!(rejection.refusal.code, expected, "{name}: {:?}", rejection.refusal.internal);
        assert!(rejection.refusal.internal.is_some(), "{name}: the operator is told nothing");
    }
    assert!(world.verify(&world.token(&chain_claims())).await.is_ok());
}

#[tokio::test]
async fn every_hostile_header_and_encoding_is_refused() {
    let world = World::new();
    let key = &world.authority;
    let claims = serde_json::to_vec(&chain_claims()).unwrap();
    let text = String::from_utf8(claims.clone()).unwrap();
    let head = |changes| header(key, changes);
    let plain = || head(json!({}));
    let valid = forge(key, &plain(), &claims);
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let edwards = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (signed, signature) = valid.rsplit_once('.').unwrap();
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, &serde_json::to_vec(key.public_jwk()).unwrap());
    let hs256 =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(head(json!({"alg": "HS256"}))), URL_SAFE_NO_PAD.encode(&claims));
    let hs256 = format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&hmac_key, hs256.as_bytes())));
    let none = format!("{}.{}", URL_SAFE_NO_PAD.encode(head(json!({"alg": "none"}))), URL_SAFE_NO_PAD.encode(&claims));
    let nested =
        format!("{}{}{}", text.trim_end_matches('}'), ",\"x\":".to_owned() + &"[".repeat(40), "]".repeat(40) + "}");
    let cases: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{valid}.")),
        ("five parts", format!("{valid}.a.b")),
        ("padded", format!("{valid}=")),
        ("white space", format!("{valid} ")),
        ("no signature", format!("{signed}.")),
        ("not base64url", format!("{signed}.+{}", &signature[1..])),
        ("another's signature, same kid", forge(&stranger, &plain(), &claims)),
        (
            "another's signature and key in the header",
            forge(&stranger, &head(json!({"jwk": stranger.public_jwk()})), &claims),
        ),
        ("key address in the header", forge(&stranger, &head(json!({"jku": "https://evil.example/jwks"})), &claims)),
        ("none", format!("{none}.")),
        ("none with a signature", format!("{none}.{signature}")),
        ("NONE", forge(key, &head(json!({"alg": "NONE"})), &claims)),
        ("HMAC with the public key", hs256),
        ("another algorithm", forge(&edwards, &head(json!({"alg": "EdDSA"})), &claims)),
        ("algorithm that is not allowed", forge(key, &head(json!({"alg": "RS256"})), &claims)),
        ("algorithm in lower case", forge(key, &head(json!({"alg": "es256"})), &claims)),
        ("no algorithm", forge(key, &head(json!({"alg": null})), &claims)),
        ("unknown kid", forge(key, &head(json!({"kid": "other"})), &claims)),
        ("kid is a number", forge(key, &head(json!({"kid": 1})), &claims)),
        ("kid too long", forge(key, &head(json!({"kid": "k".repeat(257)})), &claims)),
        ("typ JWT", forge(key, &head(json!({"typ": "JWT"})), &claims)),
        ("no typ", forge(key, &head(json!({"typ": null})), &claims)),
        ("crit", forge(key, &head(json!({"crit": ["exp"]})), &claims)),
        ("empty crit", forge(key, &head(json!({"crit": []})), &claims)),
        ("header is an array", forge(key, b"[]", &claims)),
        (
            "header with a repeated member",
            forge(
                key,
                format!(r#"{{"alg":"ES256","alg":"ES256","kid":"{}","typ":"at+jwt"}}"#, key.id()).as_bytes(),
                &claims,
            ),
        ),
        ("payload is text", forge(key, &plain(), b"\"x\"")),
        ("payload is nothing", forge(key, &plain(), b"")),
        (
            "repeated claim",
            forge(key, &plain(), format!("{},\"sub\":\"alice\"}}", text.strip_suffix('}').unwrap()).as_bytes()),
        ),
        (
            "repeated claim, escaped",
            forge(key, &plain(), format!("{},\"s\\u0075b\":\"alice\"}}", text.strip_suffix('}').unwrap()).as_bytes()),
        ),
        (
            "engine-internal member",
            forge(
                key,
                &plain(),
                text.replace("\"pos\":17", r#""pos":{"$serde_json::private::Number":"17"}"#).as_bytes(),
            ),
        ),
        (
            "not UTF-8",
            forge(key, &plain(), &[claims.strip_suffix(b"}").unwrap(), b",\"x\":\"\xff\"}".as_slice()].concat()),
        ),
        ("deeply nested", forge(key, &plain(), nested.as_bytes())),
        ("number beyond all", forge(key, &plain(), text.replace("\"pos\":17", "\"pos\":1e400").as_bytes())),
        ("trailing bytes", forge(key, &plain(), format!("{text} x").as_bytes())),
        (
            "oversized",
            forge(key, &plain(), with(chain_claims(), json!({"x": "y".repeat(13_000)})).to_string().as_bytes()),
        ),
    ];
    for (name, compact) in cases {
        assert_eq!(world.code(&compact).await, Code::InvalidToken, "{name}");
    }
    assert!(world.verify(&valid).await.is_ok());
    for kind in ["AT+JWT", "application/at+jwt"] {
        assert!(world.verify(&forge(key, &head(json!({"typ": kind})), &claims)).await.is_ok(), "{kind}");
    }
    assert!(world.verify(&forge(key, &head(json!({"kid": null})), &claims)).await.is_ok());
}

#[tokio::test]
async fn before_the_signature_is_verified_every_refusal_reads_the_same() {
    let world = World::new();
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let claims = serde_json::to_vec(&with(chain_claims(), json!({"exp": NOW - 100, "aud": "other"}))).unwrap();
    let mut details = BTreeSet::new();
    for compact in [
        "x".to_owned(),
        forge(&stranger, &header(&world.authority, json!({})), &claims),
        forge(&stranger, &header(&stranger, json!({})), &claims),
        forge(&stranger, &header(&stranger, json!({"alg": "none"})), &claims),
        mint(&stranger, &json!({"iss": "https://nobody.example"})),
    ] {
        let rejection = world.verify(&compact).await.unwrap_err();
        assert!(rejection.seen.is_none());
        details.insert((rejection.refusal.code, rejection.refusal.detail));
    }
    assert_eq!(details.len(), 1, "{details:?}");
}

#[tokio::test]
async fn a_refusal_after_the_signature_says_whom_it_concerns() {
    let world = World::new();
    let expired = with(chain_claims(), json!({"iat": NOW - 200, "nbf": NOW - 200, "exp": NOW - 5}));
    let seen = world.verify(&world.token(&expired)).await.unwrap_err().seen.unwrap();
    assert_eq!(seen.issuer, AUTHORITY);
    assert_eq!(seen.user.unwrap().issuer, SSO);
    assert_eq!(seen.agent.unwrap().id.as_str(), "refunds");
    assert_eq!((seen.run.unwrap().as_str(), seen.task.unwrap().as_str()), ("run-1", "ticket-1"));
    let alone = world.verify(&mint(&world.sso, &with(user_claims(), json!({"aud": AUDIENCE})))).await.unwrap_err();
    assert_eq!(alone.refusal.code, Code::Impersonation);
    let seen = alone.seen.unwrap();
    assert_eq!((seen.user.unwrap().id.as_str(), seen.agent), ("alice", None));
}

#[tokio::test]
async fn a_subject_issuer_cannot_speak_of_agents_tenants_or_tasks() {
    let world = World::new();
    let own = with(user_claims(), json!({"aud": AUDIENCE}));
    let hops = chain_claims()["delegation_chain"].clone();
    for (name, value) in [
        ("act", json!({"sub": "support"})),
        ("delegation_chain", hops),
        ("tenant", json!("acme")),
        ("stage", json!("supervised")),
        ("grant_id", json!("g")),
        ("task_id", json!("t")),
        ("run_id", json!("r")),
        ("authorization_details", json!([])),
        ("may_act", json!({"sub": "support"})),
        ("pos", json!(1)),
    ] {
        // The provider at SSO has its tenant mapped from elsewhere, so it is not this one that is believed.
        let expected = if name == "tenant" { Code::Impersonation } else { Code::InvalidToken };
        let code = world.code(&mint(&world.sso, &with(own.clone(), json!({ name: value })))).await;
        assert_eq!(code, expected, "{name}");
    }
    let other = with(own, json!({"iss": OTHER, "tenant": "acme"}));
    assert_eq!(world.code(&mint(&world.other, &other)).await, Code::InvalidToken);
    assert_eq!(
        world.code(&mint(&world.sso, &with(user_claims(), json!({"client_id": "alice"})))).await,
        Code::RobotUser
    );
    assert_eq!(world.code(&mint(&world.sso, &with(user_claims(), json!({"sub": "svc-1"})))).await, Code::RobotUser);
}

#[tokio::test]
async fn two_issuers_with_the_same_user_name_mean_two_users() {
    let world = World::new();
    let first = world.admitted(&chain_claims()).await;
    let second = world.admitted(&put(chain_claims(), "/delegation_chain/0/iss", json!(OTHER))).await;
    assert!(!first.chain.user().principal.is(&second.chain.user().principal));
    // The second issuer maps no entitlements: groups of the same name give nothing.
    assert!(!first.entitlement.is_empty() && second.entitlement.is_empty());
    // And the key of one never signs for the other.
    let swapped = with(user_claims(), json!({"iss": OTHER}));
    let compact =
        forge(&world.sso, &header(&world.other, json!({"alg": "EdDSA"})), &serde_json::to_vec(&swapped).unwrap());
    assert_eq!(world.code(&compact).await, Code::InvalidToken);
}

#[tokio::test]
async fn hostile_changes_to_an_act_only_token_are_refused() {
    let world = World::new();
    for (name, claims, expected) in [
        ("no actor", with(act_claims(), json!({"act": null})), Code::Impersonation),
        ("acts for itself", with(act_claims(), json!({"act": {"sub": "alice"}})), Code::Impersonation),
        ("too deep", with(act_claims(), json!({"act": {"act": {"act": {"sub": "third"}}}})), Code::Chain),
        ("loops", with(act_claims(), json!({"act": {"act": {"sub": "refunds", "iss": ACT}}})), Code::Chain),
        ("a user in between", with(act_claims(), json!({"act": {"act": {"sub_profile": "user"}}})), Code::Chain),
        ("a chain it may not send", with(act_claims(), json!({"delegation_chain": []})), Code::Chain),
        (
            "details although they are assumed",
            with(act_claims(), json!({"authorization_details": []})),
            Code::InvalidToken,
        ),
        (
            "scope that would become two",
            with(act_claims(), json!({"scp": ["orders.read refunds.create"]})),
            Code::InvalidToken,
        ),
        ("mapped id missing", with(act_claims(), json!({"oid": null})), Code::InvalidToken),
        ("jti missing", with(act_claims(), json!({"jti": null})), Code::InvalidToken),
        ("other tenant", with(act_claims(), json!({"tenant": "globex"})), Code::TenantMismatch),
    ] {
        let rejection = world.verify(&mint(&world.act, &claims)).await.expect_err(name);
        assert_eq!(rejection.refusal.code, expected, "{name}: {:?}", rejection.refusal.internal);
    }
    // An array of groups or one string, mapped by pointer; our own names left by chance do not count.
    let claims = with(act_claims(), json!({"realm": {"roles": "agent-user"}, "roles": ["admin"]}));
    let verified = world.verify(&mint(&world.act, &claims)).await.unwrap();
    assert_eq!(verified.delegation().user.roles, BTreeSet::from(["agent-user".to_owned()]));
}

#[tokio::test]
async fn a_bearer_token_needs_a_listener_that_takes_it() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    let present = |bearer_allowed| {
        world.verifier.verify(Presented { compact: &compact, bearer_allowed, proof: Proof::None }, now())
    };
    assert_eq!(present(false).await.unwrap_err().refusal.code, Code::WrongSender);
    assert!(present(true).await.is_ok());
    // Also when the token is remembered.
    assert_eq!(present(false).await.unwrap_err().refusal.code, Code::WrongSender);
}

fn audiences() -> SubjectAudiences {
    SubjectAudiences {
        users: [AUTHORITY.to_owned()].into(),
        sidecars: [AUDIENCE.to_owned()].into(),
        authority: [AUTHORITY.to_owned()].into(),
    }
}

#[tokio::test]
async fn a_users_token_is_a_subject_and_nothing_else() {
    let world = World::new();
    let subject = |claims: Value| {
        let compact = mint(&world.sso, &claims);
        let verifier = world.verifier.clone();
        async move { verifier.verify_subject(&compact, &audiences(), now()).await }
    };
    let VerifiedSubject::User(user) = subject(user_claims()).await.unwrap() else { panic!() };
    assert_eq!((user.user.id.as_str(), user.user.issuer.as_str(), user.tenant.as_str()), ("alice", SSO, "acme"));
    assert_eq!((user.session.as_deref(), user.claims.acr.as_deref()), (Some("session-1"), Some("mfa")));
    assert_eq!(user.entitlement.len(), 2);
    for (changes, expected) in [
        (json!({"aud": AUDIENCE}), Code::WrongAudience),
        (json!({"aud": []}), Code::WrongAudience),
        (json!({"act": {"sub": "support"}}), Code::InvalidToken),
        (json!({"cnf": {"jkt": "x"}}), Code::WrongSender),
        (json!({"client_id": "alice"}), Code::RobotUser),
        (json!({"org": {"tenant": "umbrella"}}), Code::TenantMismatch),
        (json!({"org": null}), Code::TenantMismatch),
        (json!({"exp": NOW - 5, "iat": NOW - 100}), Code::Expired),
    ] {
        let code = subject(with(user_claims(), changes.clone())).await.unwrap_err().refusal.code;
        assert_eq!(code, expected, "{changes}");
    }
}

#[tokio::test]
async fn a_delegated_subject_for_the_authority_must_name_who_may_act() {
    let world = World::new();
    let subject = |changes: Value| {
        let compact = world.token(&with(chain_claims(), changes));
        let verifier = world.verifier.clone();
        async move { verifier.verify_subject(&compact, &audiences(), now()).await }
    };
    let VerifiedSubject::Delegated(own) = subject(json!({})).await.unwrap() else { panic!() };
    assert_eq!((own.audience.as_str(), own.may_act), (AUDIENCE, None));
    let handed = subject(json!({"aud": AUTHORITY, "may_act": {"sub": "next"}})).await.unwrap();
    let VerifiedSubject::Delegated(handed) = handed else { panic!() };
    let next = handed.may_act.unwrap();
    assert_eq!((next.id.as_str(), next.issuer.as_str()), ("next", AUTHORITY));
    assert_eq!(handed.delegation.chain.agents().count(), 2);
    for (changes, expected) in [
        (json!({"aud": AUTHORITY}), Code::WrongAudience),
        (json!({"aud": [AUTHORITY, AUDIENCE]}), Code::WrongAudience),
        (json!({"may_act": {"iss": AUTHORITY}}), Code::InvalidToken),
        (json!({"act": null}), Code::Impersonation),
    ] {
        assert_eq!(subject(changes.clone()).await.unwrap_err().refusal.code, expected, "{changes}");
    }
    // What is for the authority is not for a call.
    let compact = world.token(&with(chain_claims(), json!({"aud": AUTHORITY, "may_act": {"sub": "next"}})));
    assert_eq!(world.code(&compact).await, Code::WrongAudience);
}
