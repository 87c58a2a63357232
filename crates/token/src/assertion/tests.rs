//! Client assertions, valid and hostile.

use serde_json::{Value, json};

use super::*;
use crate::{
    SigningKey,
    testing::{AUTHORITY, NOW, forge, header, merge, now, public},
};

const TOKEN_ENDPOINT: &str = "https://authority.example/oauth2/token";

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "support", "sub": "support", "aud": TOKEN_ENDPOINT, "jti": "once", "iat": NOW, "exp": NOW + 60,
    });
    merge(&mut claims, changes);
    claims
}

fn verify(key: &SigningKey, compact: &str) -> Result<ClientAssertion, Box<model::Refusal>> {
    let audiences = [TOKEN_ENDPOINT.to_owned(), AUTHORITY.to_owned()].into();
    verify_client_assertion(compact, &public(&[key]), &Id::new("support").unwrap(), &audiences, now())
}

fn signed(key: &SigningKey, kind: &Value, changes: Value) -> String {
    forge(key, &header(key, json!({ "typ": kind })), claims(changes).to_string().as_bytes())
}

#[test]
fn an_assertion_names_the_client_once() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    for kind in [json!(null), json!("JWT"), json!("client-authentication+jwt")] {
        let compact = signed(&key, &kind, json!({}));
        assert_eq!(claimed_client(&compact).unwrap(), "support");
        let assertion = verify(&key, &compact).unwrap();
        assert_eq!((assertion.client.as_str(), assertion.jti.as_str()), ("support", "once"));
        assert_eq!((assertion.issued_at, assertion.expires_at.as_second()), (Some(now()), NOW + 65));
    }
    let undated = verify(&key, &signed(&key, &json!("JWT"), json!({"aud": [AUTHORITY], "iat": null}))).unwrap();
    assert_eq!(undated.issued_at, None);
}

#[test]
fn every_hostile_assertion_is_refused() {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    for (changes, code) in [
        (json!({"iss": "refunds"}), Code::InvalidToken),
        (json!({"sub": "refunds"}), Code::InvalidToken),
        (json!({"sub": null}), Code::InvalidToken),
        (json!({"aud": "https://elsewhere.example"}), Code::WrongAudience),
        (json!({"aud": [TOKEN_ENDPOINT, AUTHORITY]}), Code::WrongAudience),
        (json!({"aud": [TOKEN_ENDPOINT, 5]}), Code::WrongAudience),
        (json!({"aud": null}), Code::WrongAudience),
        (json!({"jti": null}), Code::InvalidToken),
        (json!({"jti": ""}), Code::InvalidToken),
        (json!({"jti": "j".repeat(257)}), Code::InvalidToken),
        (json!({"exp": null}), Code::InvalidToken),
        (json!({"exp": "soon"}), Code::InvalidToken),
        (json!({"exp": NOW as f64 + 0.5}), Code::InvalidToken),
        (json!({"exp": NOW + 306}), Code::InvalidToken),
        (json!({"exp": NOW + 306, "iat": null}), Code::InvalidToken),
        (json!({"exp": NOW + 200, "iat": NOW - 200}), Code::InvalidToken),
        (json!({"exp": NOW - 5, "iat": NOW - 60}), Code::Expired),
        (json!({"iat": NOW + 6}), Code::InvalidToken),
        (json!({"nbf": NOW + 6}), Code::InvalidToken),
    ] {
        let refusal = verify(&key, &signed(&key, &json!("JWT"), changes.clone())).unwrap_err();
        assert_eq!(refusal.code, code, "{changes}: {:?}", refusal.internal);
    }
    for compact in [
        signed(&stranger, &json!("JWT"), json!({})),
        signed(&key, &json!("at+jwt"), json!({})),
        forge(&key, &header(&key, json!({"crit": ["b64"]})), claims(json!({})).to_string().as_bytes()),
        forge(&stranger, &header(&key, json!({"typ": "JWT"})), claims(json!({})).to_string().as_bytes()),
        forge(&key, &header(&key, json!({"alg": "none", "typ": "JWT"})), claims(json!({})).to_string().as_bytes()),
    ] {
        assert_eq!(verify(&key, &compact).unwrap_err().code, Code::InvalidToken);
    }
}

#[test]
fn a_sidecar_proves_itself_for_a_minute_and_as_nothing_else() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let name = "https://authority.example/sidecars/1";
    let sidecar = |kind: Value, changes: Value| {
        let mut said = json!({ "iss": name, "sub": name, "aud": AUTHORITY, "iat": NOW, "exp": NOW + 60 });
        merge(&mut said, changes);
        let compact = forge(&key, &header(&key, json!({ "typ": kind })), said.to_string().as_bytes());
        verify_sidecar_assertion(&compact, &public(&[&key]), name, AUTHORITY, now()).map_err(|refusal| refusal.code)
    };
    let kind = || json!(SIDECAR_ASSERTION_TYPE);
    assert_eq!(sidecar(kind(), json!({})), Ok(()));
    for other in [json!("JWT"), json!("at+jwt"), json!("client-authentication+jwt"), json!(null)] {
        assert_eq!(sidecar(other, json!({})), Err(Code::InvalidToken));
    }
    for (changes, code) in [
        (json!({"iss": "https://authority.example/sidecars/2"}), Code::InvalidToken),
        (json!({"sub": "https://authority.example/sidecars/2"}), Code::InvalidToken),
        (json!({"aud": TOKEN_ENDPOINT}), Code::WrongAudience),
        (json!({"aud": [AUTHORITY, TOKEN_ENDPOINT]}), Code::WrongAudience),
        (json!({"exp": NOW + 120}), Code::InvalidToken),
        (json!({"iat": null}), Code::InvalidToken),
        (json!({"exp": NOW - 60, "iat": NOW - 120}), Code::Expired),
    ] {
        assert_eq!(sidecar(kind(), changes.clone()), Err(code), "{changes}");
    }
    let client = signed(&key, &kind(), json!({}));
    assert!(verify(&key, &client).is_err(), "a sidecar's assertion is no client's");
}
