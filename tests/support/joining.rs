//! A sidecar that joins an authority with a key of its own, made and used without the product.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::mark;

/// The key that a sidecar joins with.
pub(crate) struct JoiningKey {
    document: Vec<u8>,
    /// The public key (RFC 7517).
    pub(crate) jwk: Value,
    /// Its thumbprint (RFC 7638).
    pub(crate) kid: String,
}

impl JoiningKey {
    /// A new one.
    pub(crate) fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
        let kid = hash(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
        Self { document: document.as_ref().to_vec(), jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}), kid }
    }

    /// What is sent to join the authority `issuer` with `token`.
    pub(crate) fn joining(&self, issuer: &str, token: &str, name: &str) -> Value {
        // As a library writes it: with a name of its own, and in use for signatures.
        let mut jwk = self.jwk.clone();
        (jwk["kid"], jwk["alg"], jwk["use"]) = (json!(self.kid), json!("EdDSA"), json!("sig"));
        json!({"token": token, "name": name, "jwk": jwk, "proof": self.proof(issuer, token.as_bytes())})
    }

    /// The proof that the key is held by whoever shows `evidence` to `issuer`.
    pub(crate) fn proof(&self, issuer: &str, evidence: &[u8]) -> String {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let name = format!("urn:ietf:params:oauth:jwk-thumbprint:sha-256:{}", self.kid);
        let claims = json!({
            "iss": name, "sub": name, "aud": issuer, "jti": mark(), "iat": now, "exp": now + 60,
            "evidence": hash(evidence),
        });
        self.sign(&self.kid, "countersign-enrolment+jwt", &claims)
    }

    /// Signs anything, under any key id and type.
    pub(crate) fn sign(&self, kid: &str, kind: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), typ: Some(kind.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&self.document)).unwrap()
    }

    /// The private key as a file has it.
    pub(crate) fn pem(&self) -> String {
        let pem = BASE64_STANDARD.encode(&self.document);
        format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n")
    }
}

fn hash(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}
