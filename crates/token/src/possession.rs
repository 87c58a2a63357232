//! Proof of possession: whoever joins with a public key shows that the private one is theirs, for this one attempt.
//!
//! A key that somebody only saw, and evidence that somebody only saw, are worth nothing apart and nothing elsewhere:
//! the proof names the evidence that it goes with, the authority, and itself.

use std::collections::BTreeSet;

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use model::{Code, Refusal, json::Json};
use serde_json::{Value, json};

use crate::{
    Algorithm, Compact, KeySet, MintError, SigningKey,
    assertion::{check_audience, check_subject, signed_by, times},
    check::kind,
    logout,
    refusal::{Checked, refuse, unverified},
};

/// The `typ` of a proof of possession: no other token's.
pub const POSSESSION_TYPE: &str = "countersign-enrolment+jwt";
/// The longest life of a proof.
pub const MAX_POSSESSION_LIFETIME: SignedDuration = SignedDuration::from_secs(60);
/// What `iss` and `sub` begin with (RFC 9278): the key speaks for itself.
const THUMBPRINT: &str = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:";
/// The claim with the hash of the evidence.
const EVIDENCE: &str = "evidence";
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;

/// A verified proof. It is good once: whoever takes it has to remember `jti` until `expires_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Possession {
    /// The proof's own name.
    pub jti: String,
    /// Until when `jti` has to be remembered: the end that is accepted, skew included.
    pub expires_at: Timestamp,
}

/// Proves to `audience` that `key` is held by whoever shows `evidence`, for a minute from `now`.
///
/// # Errors
/// When the cryptography fails.
pub fn prove_possession(
    key: &SigningKey,
    evidence: &[u8],
    audience: &str,
    now: Timestamp,
) -> Result<Compact, MintError> {
    let mut unique = [0; 16];
    rand::fill(&mut unique).map_err(|_| MintError::Cryptography)?;
    let name = format!("{THUMBPRINT}{}", key.id());
    key.sign(
        POSSESSION_TYPE,
        &json!({
            "iss": name, "sub": name, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(unique),
            "iat": now.as_second(), "exp": (now + MAX_POSSESSION_LIFETIME).as_second(), EVIDENCE: hash(evidence),
        }),
    )
}

/// Verifies that `compact` was signed by the private part of `jwk`, to go with `evidence` to `audience`, and lives at
/// most a minute.
///
/// # Errors
/// `invalid_token` before the signature is verified, and for its claims; `expired`; `wrong_audience`.
pub fn verify_possession(
    compact: &str,
    jwk: &Value,
    evidence: &[u8],
    audience: &str,
    now: Timestamp,
) -> Result<Possession, Box<Refusal>> {
    let keys = json!({ "keys": [jwk] }).to_string();
    let keys = KeySet::parse(keys.as_bytes(), &BTreeSet::from([Algorithm::Es256, Algorithm::EdDsa]))
        .map_err(|error| unverified(error.to_string()))?;
    let name = keys.only().map(|key| format!("{THUMBPRINT}{}", key.thumbprint));
    let name = name.ok_or_else(|| unverified("the key to join with is no public key for ES256 or EdDSA"))?;
    let token = signed_by(compact, &keys, &name)?;
    kind::is(&token.header, POSSESSION_TYPE)?;
    logout::none(&token.claims)?;
    let (issued_at, expires_at) = times(&token.claims, MAX_POSSESSION_LIFETIME, now)?;
    if issued_at.is_none() {
        return wrong("`iat` is missing");
    }
    check_subject(&token, &name)?;
    check_audience(&token.claims, &[audience.to_owned()].into())?;
    let text = |name: &str| token.claims.member(name).and_then(Json::as_text);
    if text(EVIDENCE) != Some(&hash(evidence)) {
        return wrong("it goes with other evidence");
    }
    match text("jti") {
        Some(jti) if (1..=MAX_JTI_BYTES).contains(&jti.len()) => Ok(Possession { jti: jti.to_owned(), expires_at }),
        _ => wrong("`jti` is missing or not a string of 1 to 256 bytes"),
    }
}

fn hash(evidence: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, evidence))
}

fn wrong<T>(internal: &str) -> Checked<T> {
    refuse(Code::InvalidToken, "The proof of possession is not acceptable.", internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, forge, header, merge, now};

    const HERE: &str = "https://countersign.example";
    const JOIN: &[u8] = b"countersign-join-secret";

    fn claims(key: &SigningKey, changes: Value) -> Value {
        let name = format!("{THUMBPRINT}{}", key.id());
        let mut claims = json!({
            "iss": name, "sub": name, "aud": HERE, "jti": "once", "iat": NOW, "exp": NOW + 60, "evidence": hash(JOIN),
        });
        merge(&mut claims, changes);
        claims
    }

    fn code(compact: &str, jwk: &Value) -> Code {
        verify_possession(compact, jwk, JOIN, HERE, now()).unwrap_err().code
    }

    #[test]
    fn whoever_holds_the_key_proves_it_for_one_attempt() {
        for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
            let key = SigningKey::generate(algorithm).unwrap();
            let made = || prove_possession(&key, JOIN, HERE, now()).unwrap();
            let proof = verify_possession(made().expose(), key.public_jwk(), JOIN, HERE, now()).unwrap();
            assert_eq!(proof.expires_at.as_second(), NOW + 65);
            let other = verify_possession(made().expose(), key.public_jwk(), JOIN, HERE, now()).unwrap();
            assert_ne!(proof.jti, other.jti);
            let elsewhere = |jwk, evidence, audience| {
                verify_possession(made().expose(), jwk, evidence, audience, now()).unwrap_err().code
            };
            let stranger = SigningKey::generate(algorithm).unwrap();
            assert_eq!(elsewhere(stranger.public_jwk(), JOIN, HERE), Code::InvalidToken);
            assert_eq!(elsewhere(key.public_jwk(), b"another token", HERE), Code::InvalidToken);
            assert_eq!(elsewhere(key.public_jwk(), JOIN, "https://elsewhere.example"), Code::WrongAudience);
        }
    }

    #[test]
    fn every_hostile_proof_is_refused() {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
        let token = |head: Value, changes: Value| {
            let mut kind = json!({ "typ": POSSESSION_TYPE });
            merge(&mut kind, head);
            forge(&key, &header(&key, kind), claims(&key, changes).to_string().as_bytes())
        };
        assert!(verify_possession(&token(json!({}), json!({})), key.public_jwk(), JOIN, HERE, now()).is_ok());
        for (head, changes, expected) in [
            (json!({ "typ": "JWT" }), json!({}), Code::InvalidToken),
            (json!({ "typ": null }), json!({}), Code::InvalidToken),
            (json!({ "typ": "countersign-sidecar+jwt" }), json!({}), Code::InvalidToken),
            (json!({ "crit": ["b64"] }), json!({}), Code::InvalidToken),
            (json!({ "alg": "none" }), json!({}), Code::InvalidToken),
            (json!({ "kid": stranger.id() }), json!({}), Code::InvalidToken),
            (json!({}), json!({ "iss": "edge" }), Code::InvalidToken),
            (json!({}), json!({ "sub": "edge" }), Code::InvalidToken),
            (json!({}), json!({ "aud": [HERE, "https://elsewhere.example"] }), Code::WrongAudience),
            (json!({}), json!({ "aud": null }), Code::WrongAudience),
            (json!({}), json!({ "evidence": null }), Code::InvalidToken),
            (json!({}), json!({ "evidence": hash(b"") }), Code::InvalidToken),
            (json!({}), json!({ "jti": null }), Code::InvalidToken),
            (json!({}), json!({ "jti": "j".repeat(257) }), Code::InvalidToken),
            (json!({}), json!({ "iat": null }), Code::InvalidToken),
            (json!({}), json!({ "exp": null }), Code::InvalidToken),
            (json!({}), json!({ "exp": NOW + 66 }), Code::InvalidToken),
            (json!({}), json!({ "iat": NOW - 61 }), Code::InvalidToken),
            (json!({}), json!({ "iat": NOW - 100, "exp": NOW - 50 }), Code::Expired),
            (json!({}), json!({ "events": {} }), Code::InvalidToken),
        ] {
            assert_eq!(code(&token(head.clone(), changes.clone()), key.public_jwk()), expected, "{head} {changes}");
        }
        // A key of one's own in the place of the key that joins, and a private key, which nobody may send.
        let forged = forge(
            &stranger,
            &header(&key, json!({ "typ": POSSESSION_TYPE })),
            claims(&key, json!({})).to_string().as_bytes(),
        );
        assert_eq!(code(&forged, key.public_jwk()), Code::InvalidToken);
        let mut private = key.public_jwk().clone();
        merge(&mut private, json!({ "d": "AA" }));
        for jwk in [private, json!({}), json!(null), json!({ "kty": "oct", "k": "AA" })] {
            assert_eq!(code(&token(json!({}), json!({})), &jwk), Code::InvalidToken, "{jwk}");
        }
    }
}
