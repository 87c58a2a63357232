//! JWK sets: what is taken, what is passed over, what refuses the whole.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::KeyPair as _;
use serde_json::{Value, json};

use super::*;
use crate::{SigningKey, testing::merge};

fn parse(keys: &[Value], allowed: &[Algorithm]) -> Result<KeySet, InvalidKeySet> {
    KeySet::parse(&serde_json::to_vec(&json!({ "keys": keys })).unwrap(), &allowed.iter().copied().collect())
}

fn both() -> [Algorithm; 2] {
    [Algorithm::Es256, Algorithm::EdDsa]
}

fn jwk(algorithm: Algorithm) -> Value {
    SigningKey::generate(algorithm).unwrap().public_jwk().clone()
}

fn with(mut jwk: Value, changes: Value) -> Value {
    merge(&mut jwk, changes);
    jwk
}

fn rsa_jwk() -> Value {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let octets = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = pair.public_key();
    json!({
        "kty": "RSA", "kid": "rsa",
        "n": octets(public.modulus().big_endian_without_leading_zero()),
        "e": octets(public.exponent().big_endian_without_leading_zero()),
    })
}

#[test]
fn keys_that_are_not_for_us_are_passed_over_with_a_reason() {
    let good = jwk(Algorithm::Es256);
    for (change, why) in [
        (json!({"use": "enc"}), "use"),
        (json!({"use": 1}), "use"),
        (json!({"key_ops": ["sign"]}), "key_ops"),
        (json!({"key_ops": "verify"}), "key_ops"),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), "shared secret"),
        (json!({"crv": "secp256k1"}), "unknown"),
        (json!({"kty": "AKP"}), "unknown"),
        (json!({"alg": "ES512"}), "unknown `alg`"),
        (json!({"alg": "HS256"}), "unknown `alg`"),
        (json!({"d": "AAAA"}), "private"),
    ] {
        let set = parse(&[with(good.clone(), change.clone()), jwk(Algorithm::EdDsa)], &both()).unwrap();
        assert_eq!(set.len(), 1, "{change}");
        assert!(set.ignored()[0].contains(why), "{change}: {:?}", set.ignored());
    }
    let set = parse(std::slice::from_ref(&good), &[Algorithm::EdDsa]).unwrap();
    assert!(set.is_empty() && set.ignored()[0].contains("ES256"));
    let set = parse(&[with(good, json!({"key_ops": ["verify"], "alg": null, "unknown": {"x": 1}}))], &both()).unwrap();
    assert_eq!(set.len(), 1);
}

#[test]
fn a_broken_key_of_a_known_kind_refuses_the_set() {
    let good = jwk(Algorithm::Es256);
    for change in [
        json!({"kty": null}),
        json!({"x": null}),
        json!({"x": "AAAA"}),
        json!({"x": format!("{}=", good["x"].as_str().unwrap())}),
        json!({"y": good["x"]}),
        json!({"kid": 7}),
        json!({"kid": "k".repeat(257)}),
        json!({"alg": "EdDSA"}),
        json!({"alg": "ES384"}),
        json!({"alg": 256}),
    ] {
        let outcome = parse(&[jwk(Algorithm::EdDsa), with(good.clone(), change.clone())], &both());
        assert!(matches!(outcome, Err(InvalidKeySet::Key { index: 1, .. })), "{change}: {outcome:?}");
    }
}

#[test]
fn what_is_no_key_set_is_refused() {
    let whole = |bytes: &[u8]| KeySet::parse(bytes, &both().into());
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        br#"{"keys": {}}"#,
        br#"{"keys": [1]}"#,
        br#"{"keys": [], "keys": []}"#,
        b"{\"keys\": [\"\xff\"]}",
    ] {
        assert!(whole(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(whole(&vec![b' '; MAX_KEY_SET_BYTES + 1]), Err(InvalidKeySet::TooLarge));
    let many: Vec<Value> = (0..=MAX_KEYS).map(|_| json!({"kty": "oct"})).collect();
    assert_eq!(parse(&many, &both()), Err(InvalidKeySet::TooMany));
    // All keys withdrawn is a set like any other.
    assert!(whole(br#"{"keys": []}"#).unwrap().is_empty());
}

#[test]
fn a_key_is_found_by_name_and_algorithm_or_by_being_the_only_one() {
    let (one, two) =
        (with(jwk(Algorithm::Es256), json!({"kid": "a"})), with(jwk(Algorithm::Es256), json!({"kid": "b"})));
    let edwards = with(jwk(Algorithm::EdDsa), json!({"kid": "a"}));
    let set = parse(&[one.clone(), two, edwards, one.clone()], &both()).unwrap();
    assert_eq!(set.len(), 3, "the same key twice is one");
    let found = |kid, algorithm| set.find(kid, algorithm).map(|key| (key.id.clone().unwrap(), key.algorithm));
    assert_eq!(found(Some("a"), Algorithm::Es256), Ok(("a".to_owned(), Algorithm::Es256)));
    assert_eq!(found(Some("a"), Algorithm::EdDsa), Ok(("a".to_owned(), Algorithm::EdDsa)));
    assert_eq!(found(Some("b"), Algorithm::EdDsa), Err(NoKey::OtherAlgorithm));
    assert_eq!(found(Some("c"), Algorithm::Es256), Err(NoKey::Unknown));
    assert_eq!(found(None, Algorithm::Es256), Err(NoKey::Ambiguous));
    assert_eq!(found(None, Algorithm::EdDsa), Ok(("a".to_owned(), Algorithm::EdDsa)));
    let clash = parse(&[one, with(jwk(Algorithm::Es256), json!({"kid": "a"}))], &both()).unwrap();
    assert_eq!(clash.find(Some("a"), Algorithm::Es256), Err(NoKey::Ambiguous));
}

#[test]
fn an_rsa_key_is_good_for_one_algorithm_only() {
    let key = rsa_jwk();
    let only = |algorithm: Option<&str>, allowed: &[Algorithm]| {
        let set = parse(&[with(key.clone(), json!({"alg": algorithm}))], allowed).unwrap();
        set.keys.first().map(|key| key.algorithm)
    };
    assert_eq!(only(None, &[Algorithm::Rs256, Algorithm::Es256]), Some(Algorithm::Rs256));
    assert_eq!(only(None, &[Algorithm::Rs256, Algorithm::Ps256]), None);
    assert_eq!(only(Some("PS256"), &[Algorithm::Rs256, Algorithm::Ps256]), Some(Algorithm::Ps256));
    assert_eq!(only(None, &both()), None);
    for change in [json!({"e": "AQ"}), json!({"e": "AAAABQ"}), json!({"n": "AQAB"}), json!({"alg": "ES256"})] {
        let outcome = parse(&[with(key.clone(), change.clone())], &[Algorithm::Rs256, Algorithm::Es256]);
        // Leading zeros make another text of the same number, which is still an exponent.
        assert_eq!(outcome.is_ok(), change == json!({"e": "AAAABQ"}), "{change}");
    }
}

#[test]
fn a_thumbprint_is_that_of_rfc_7638() {
    // RFC 7638 §3.1.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let set = parse(&[json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256"})], &[Algorithm::Rs256]).unwrap();
    assert_eq!(set.keys[0].thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn a_signature_is_good_for_the_very_algorithm_that_the_key_is_for() {
    use aws_lc_rs::signature::{
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding,
    };
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let (n, e) =
        (public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero());
    let algorithms: [(Algorithm, &'static dyn RsaEncoding); 6] = [
        (Algorithm::Rs256, &RSA_PKCS1_SHA256),
        (Algorithm::Rs384, &RSA_PKCS1_SHA384),
        (Algorithm::Rs512, &RSA_PKCS1_SHA512),
        (Algorithm::Ps256, &RSA_PSS_SHA256),
        (Algorithm::Ps384, &RSA_PSS_SHA384),
        (Algorithm::Ps512, &RSA_PSS_SHA512),
    ];
    for (signed_as, encoding) in algorithms {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &aws_lc_rs::rand::SystemRandom::new(), b"signed", &mut signature).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(signature);
        for (algorithm, _) in algorithms {
            let jwk = json!({ "kty": "RSA", "alg": algorithm.as_str(), "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) });
            let set = json!({ "keys": [jwk] });
            let set = KeySet::parse(&serde_json::to_vec(&set).unwrap(), &[algorithm].into()).unwrap();
            let key = set.find(None, algorithm).unwrap();
            assert_eq!(key.verifies(&signature, "signed"), algorithm == signed_as, "{signed_as} as {algorithm}");
            assert!(!key.verifies(&signature, "other") && !key.verifies("", "signed"));
        }
    }
}
