//! Tokens with real signatures, valid and hostile, through the whole line.

use std::collections::BTreeSet;

use model::{Code, Id, PrincipalKind, Stage, chain::Evidence};
use serde_json::{Value, json};

use crate::{
    ActClaims, Algorithm, DelegationClaims, HopClaims, Presented, Proof, SigningKey, SubjectAudiences, VerifiedSubject,
    testing::{
        ACT, AUDIENCE, AUTHORITY, NOW, OTHER, SSO, World, act_claims, at, chain_claims, forge, header, merge, mint,
        now, user_claims,
    },
};

mod hostile;
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
async fn what_was_read_from_a_token_can_be_written_into_the_next() {
    let world = World::new();
    let claims = chain_claims();
    let chain = world.admitted(&claims).await.chain;
    let hops: Option<Vec<_>> = chain.hops().map(HopClaims::of).collect();
    let written: DelegationClaims = serde_json::from_value(claims.clone()).unwrap();
    assert_eq!(hops, written.delegation_chain);
    let act = ActClaims::of(&chain).unwrap();
    assert_eq!(Some(&act), written.act.as_ref());
    let again = serde_json::to_value(&written).unwrap();
    assert_eq!(world.admitted(&again).await.chain, chain);
    // Of an issuer that sends only `act`, there is nothing to hand on.
    let only_act = world.verify(&mint(&world.act, &act_claims())).await.unwrap();
    assert!(HopClaims::of(only_act.delegation().chain.user()).is_none());
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
