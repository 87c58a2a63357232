//! Remembered tokens: what is looked at again, and when they are forgotten.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use crate::{
    Algorithm, SigningKey,
    refresh::Loaded,
    testing::{
        ACT, AUTHORITY, SSO, World, act_claims, at, chain_claims, clients, forge, header, issuer, merge, mint, now,
        public, settings,
    },
};

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_repeat_call_finds_its_token_remembered() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    let first = world.verify(&compact).await.unwrap();
    let second = world.verify(&compact).await.unwrap();
    assert!(Arc::ptr_eq(first.delegation(), second.delegation()));
    // The same claims signed again are another token.
    let other = world.verify(&world.token(&chain_claims())).await.unwrap();
    assert!(!Arc::ptr_eq(first.delegation(), other.delegation()));
    assert_eq!(world.verifier.remembered_tokens(), 2);
}

#[tokio::test]
async fn a_refused_token_is_not_remembered() {
    let world = World::new();
    let mut claims = chain_claims();
    merge(&mut claims, json!({"aud": "other"}));
    assert!(world.verify(&world.token(&claims)).await.is_err());
    assert_eq!(world.verifier.remembered_tokens(), 0);
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_ends() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    assert!(world.verify(&compact).await.is_ok());
    assert!(world.verify_at(&compact, at(204)).await.is_ok());
    let rejection = world.verify_at(&compact, at(205)).await.unwrap_err();
    assert_eq!(rejection.refusal.code, Code::Expired);
    assert_eq!(rejection.seen.unwrap().agent.unwrap().id.as_str(), "refunds");
    assert_eq!(world.verifier.remembered_tokens(), 0);
    // A clock that was set back does not make an early token good.
    assert!(world.verify(&compact).await.is_ok());
    assert_eq!(world.verify_at(&compact, at(-16)).await.unwrap_err().refusal.code, Code::InvalidToken);
}

#[tokio::test]
async fn a_remembered_token_does_not_outlive_its_key() {
    let (old, new) = (SigningKey::generate(Algorithm::Es256).unwrap(), SigningKey::generate(Algorithm::Es256).unwrap());
    let world = World::new();
    let keys = |keys: &[&SigningKey]| Loaded::new(public(keys), now());
    let delegation = issuer(&format!("{{issuer: '{ACT}', role: delegation, tenants: [acme], chain: act}}"));
    // Never fetched by itself: the file is not there.
    let mut file = delegation.clone();
    file.keys = crate::KeySource::File("/nonexistent/keys".into());
    let verifier = Verifier::new(settings(vec![file]), &clients(), &world.tasks).unwrap();
    let held = &verifier.0.keys[ACT];
    let mut claims = act_claims();
    merge(&mut claims, json!({"scp": null, "scope": "orders.read"}));
    let compact = mint(&old, &claims);
    let verify = || verifier.verify(Presented { compact: &compact, bearer_allowed: true, proof: Proof::None }, now());

    assert_eq!(verify().await.unwrap_err().refusal.code, Code::KeysUnavailable);
    held.put(keys(&[&old]));
    let first = verify().await.unwrap();
    // Another key beside it: the token is still remembered.
    held.put(keys(&[&new, &old]).newer(2));
    assert!(Arc::ptr_eq(first.delegation(), verify().await.unwrap().delegation()));
    // Its key withdrawn: it is refused, although its time is not over.
    held.put(keys(&[&new]).newer(3));
    assert!(verify().await.is_err());
    assert_eq!(verifier.remembered_tokens(), 0);
    // All keys withdrawn is honoured too.
    held.put(keys(&[&old]).newer(4));
    assert!(verify().await.is_ok());
    held.put(keys(&[]).newer(5));
    assert!(verify().await.is_err());
}

#[tokio::test]
async fn keys_serve_until_they_are_too_old_for_remembered_tokens_too() {
    let world = World::new();
    let mut file = issuer(&format!("{{issuer: '{AUTHORITY}', role: delegation, tenants: [acme], max_stale: 100s}}"));
    file.keys = crate::KeySource::File("/nonexistent/keys".into());
    let sso = issuer("{issuer: 'https://sso.example', role: subject, tenants: [acme]}").with_keys(public(&[]));
    let verifier = Verifier::new(settings(vec![file, sso]), &clients(), &world.tasks).unwrap();
    verifier.0.keys[AUTHORITY].put(Loaded::new(public(&[&world.authority]), now()));
    let compact = world.token(&chain_claims());
    let verify = |now| verifier.verify(Presented { compact: &compact, bearer_allowed: true, proof: Proof::None }, now);
    assert!(verify(at(100)).await.is_ok());
    assert_eq!(verify(at(101)).await.unwrap_err().refusal.code, Code::KeysUnavailable);
    // A clock that was set back makes no key younger, and one that was set does not tell how old they are.
    verifier.0.keys[AUTHORITY].put(Loaded::new(public(&[&world.authority]), now()).earlier(Duration::from_secs(3600)));
    assert_eq!(verify(at(-3)).await.unwrap_err().refusal.code, Code::KeysUnavailable);
    let status = verifier.keys_status();
    assert_eq!((status[0].issuer.as_str(), status[0].age.unwrap().as_secs() / 60, status[0].keys), (AUTHORITY, 60, 1));
}

#[tokio::test]
async fn tokens_are_forgotten_on_demand() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    let act = mint(&world.act, &act_claims());
    assert!(world.verify(&compact).await.is_ok() && world.verify(&act).await.is_ok());
    world.verifier.evict(|delegation| delegation.task.id.as_ref().is_some_and(|task| task.as_str() == "ticket-1"));
    assert_eq!(world.verifier.remembered_tokens(), 1);
}

/// A withdrawal evicts while a token is being verified: what comes of that is not remembered.
#[tokio::test]
async fn what_was_verified_while_tokens_were_forgotten_is_not_remembered() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    assert!(world.verify(&compact).await.is_ok());
    let cache = &world.verifier.0.cache;
    let digest = Digest::of(&compact);
    let (before, entry) = (cache.before(), cache.find(&digest).unwrap());
    world.verifier.evict(|delegation| delegation.task.id.is_some());
    cache.keep(digest, entry.clone(), before);
    assert_eq!(cache.len(), 0);
    cache.keep(digest, entry, cache.before());
    assert_eq!(cache.len(), 1);
}

#[test]
fn no_order_of_keeping_and_forgetting_keeps_what_was_to_be_forgotten() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let world = runtime.block_on(async { World::new() });
    let compact = world.token(&chain_claims());
    runtime.block_on(world.verify(&compact)).unwrap();
    let (cache, digest) = (Arc::clone(&world.verifier.0.cache), Digest::of(&compact));
    let entry = cache.find(&digest).unwrap();
    for _ in 0..2_000 {
        let before = cache.before();
        std::thread::scope(|scope| {
            scope.spawn(|| cache.evict(|_| true));
            cache.keep(digest, entry.clone(), before);
        });
        assert_eq!(cache.len(), 0);
    }
}

#[tokio::test]
async fn keys_and_tokens_are_not_kept_when_somebody_else_is_believed() {
    let world = World::new();
    let by_url = issuer(
        "{issuer: 'https://a.example', role: subject, tenants: [acme], keys: {jwks_url: 'https://127.0.0.1:1/jwks'}}",
    );
    let by_file = issuer("{issuer: 'https://b.example', role: subject, tenants: [acme], keys: {file: /nonexistent}}");
    let clients = clients();
    let settings = settings(vec![by_url, by_file]);
    let first = Verifier::new(settings.clone(), &clients, &world.tasks).unwrap();
    let kept = |before: &Verifier, after: &Verifier| {
        let same = |name| Arc::ptr_eq(&before.0.keys[name], &after.0.keys[name]);
        (same("https://a.example"), same("https://b.example"), Arc::ptr_eq(&before.0.cache, &after.0.cache))
    };
    let same = first.renewed(settings.clone(), &clients, &world.tasks).unwrap();
    assert_eq!(kept(&first, &same), (true, true, true));
    clients.operator.believe(net::client_config(net::Roots::Platform).unwrap());
    let other = same.renewed(settings.clone(), &clients, &world.tasks).unwrap();
    assert_eq!(kept(&same, &other), (false, true, false));
    let again = other.renewed(settings, &clients, &world.tasks).unwrap();
    assert_eq!(kept(&other, &again), (true, true, true));
}

#[tokio::test]
async fn the_number_of_remembered_tokens_is_bounded() {
    let world = World::new();
    for number in 0..300 {
        let mut claims = chain_claims();
        merge(&mut claims, json!({ "jti": format!("token-{number}") }));
        assert!(world.verify(&world.token(&claims)).await.is_ok());
    }
    assert!(world.verifier.remembered_tokens() <= 100);
}

#[tokio::test]
async fn a_reload_keeps_keys_and_tokens_only_where_nothing_changed() {
    let world = World::new();
    let compact = world.token(&chain_claims());
    let first = world.verify(&compact).await.unwrap();
    let same = world.verifier.renewed(world.verifier.0.settings.clone(), &clients(), &world.tasks).unwrap();
    assert!(Arc::ptr_eq(&same.0.keys[AUTHORITY], &world.verifier.0.keys[AUTHORITY]));
    let present = Presented { compact: &compact, bearer_allowed: true, proof: Proof::None };
    assert!(Arc::ptr_eq(first.delegation(), same.verify(present, now()).await.unwrap().delegation()));
    let narrower = VerifierSettings { audiences: ["urn:other".to_owned()].into(), ..same.0.settings.clone() };
    let narrower = same.renewed(narrower, &clients(), &world.tasks).unwrap();
    assert_eq!(narrower.verify(present, now()).await.unwrap_err().refusal.code, Code::WrongAudience);
    assert!(Arc::ptr_eq(&narrower.0.keys[AUTHORITY], &same.0.keys[AUTHORITY]));
}

#[tokio::test]
async fn an_issuer_is_configured_once() {
    let world = World::new();
    let one = || issuer("{issuer: 'https://a.example', role: subject, tenants: [acme]}").with_keys(public(&[]));
    let error = Verifier::new(settings(vec![one(), one()]), &clients(), &world.tasks).unwrap_err();
    assert!(error.to_string().contains("twice"));
}

#[tokio::test]
async fn a_token_is_remembered_by_all_of_its_bytes() {
    let world = World::new();
    let claims = serde_json::to_vec(&chain_claims()).unwrap();
    let compact = forge(&world.authority, &header(&world.authority, json!({})), &claims);
    assert!(world.verify(&compact).await.is_ok());
    let (signed, signature) = compact.rsplit_once('.').unwrap();
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let other = stranger.signature(signed.as_bytes()).unwrap();
    assert!(world.verify(&format!("{signed}.{other}")).await.is_err());
    assert!(world.verify(&format!("{signed}.{signature}")).await.is_ok());
}

#[tokio::test]
async fn a_remembered_token_is_of_use_only_with_the_certificate_it_is_bound_to() {
    let world = World::new();
    let mut claims = chain_claims();
    merge(&mut claims, json!({ "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode([1; 32]) } }));
    let compact = world.token(&claims);
    let present = async |proof, bearer_allowed| {
        let verified = world.verifier.verify(Presented { compact: &compact, bearer_allowed, proof }, now()).await;
        verified.map(|verified| Arc::clone(verified.delegation())).map_err(|rejection| rejection.refusal.code)
    };
    // Before it is remembered and after.
    for remembered in [0, 1] {
        assert_eq!(world.verifier.remembered_tokens(), remembered);
        assert_eq!(present(Proof::None, true).await, Err(Code::WrongSender));
        assert_eq!(present(Proof::Certificate([2; 32]), true).await, Err(Code::WrongSender));
        assert_eq!(world.verifier.remembered_tokens(), remembered);
        // A listener that refuses bearer tokens takes it: it is none.
        let delegation = present(Proof::Certificate([1; 32]), false).await.unwrap();
        assert!(delegation.sender.is_constrained());
    }
}

#[tokio::test]
async fn of_a_subject_that_was_verified_only_the_signature_is_remembered_and_only_under_its_issuers_key() {
    let keys = [Algorithm::Es256, Algorithm::Es256].map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let [old, new] = &keys;
    let people = issuer(&format!("{{issuer: '{SSO}', role: subject, tenants: [acme], types: [JWT]}}"));
    let verifier = Verifier::new(settings(vec![people.with_keys(public(&[old]))]), &clients(), &Tasks::new()).unwrap();
    let claims =
        json!({ "iss": SSO, "sub": "alice", "aud": "here", "iat": at(0).as_second(), "exp": at(200).as_second() });
    let compact = forge(old, &header(old, json!({ "typ": "JWT" })), claims.to_string().as_bytes());
    let to = |name: &str| SubjectAudiences { users: [name.to_owned()].into(), ..SubjectAudiences::default() };
    let code = async |compact: &str, audience: &str, second: i64| {
        let verified = verifier.verify_subject(compact, &to(audience), at(second)).await;
        verified.map(drop).map_err(|rejection| rejection.refusal.code)
    };
    for _ in 0..2 {
        assert_eq!(code(&compact, "here", 1).await, Ok(()));
        assert_eq!(code(&compact, "elsewhere", 1).await, Err(Code::WrongAudience));
        assert_eq!(code(&compact, "here", 300).await, Err(Code::Expired));
        // The same with a signature that is none is another token.
        let (signed, signature) = compact.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", "A".repeat(signature.len()));
        assert_eq!(code(&forged, "here", 1).await, Err(Code::InvalidToken));
    }
    let digest = Digest::of(&compact);
    let theirs = async || {
        let token = shape::parse(&compact, None).unwrap();
        let (issuer, keys) = verifier.issuer(&token).unwrap();
        key(&token, issuer, keys, at(1)).await.ok().map(|(key, _)| key)
    };
    assert!(verifier.0.signed.get().unwrap().is_by(&digest, &theirs().await.unwrap()));
    // A key that is read anew is another one, and one that is gone takes what it signed with it.
    verifier.replace_keys(SSO, &public(&[old, new]));
    assert!(!verifier.0.signed.get().unwrap().is_by(&digest, &theirs().await.unwrap()));
    assert_eq!(code(&compact, "here", 1).await, Ok(()));
    verifier.replace_keys(SSO, &public(&[new]));
    assert_eq!(code(&compact, "here", 1).await, Err(Code::InvalidToken));
}
