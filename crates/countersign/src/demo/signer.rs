//! A key that signs for one of the demo's outside parties: the identity provider, or an agent.
//!
//! Made from the JWT library alone and not from `token`: the parties around Countersign share no code with it,
//! so that a mistake in ours is not answered by the same mistake here. Keys never leave memory.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// An ES256 key pair.
pub(super) struct Signer {
    key: EncodingKey,
    public: Jwk,
    key_id: String,
}

impl Signer {
    /// A new key.
    pub(super) fn generate() -> Result<Self, Failure> {
        let unmade = |_| Failure::new(Exit::Failed, "cannot make a signing key");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(unmade)?;
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().map_err(unmade)?.as_ref());
        let unpublished = |error| Failure::because(Exit::Failed, "cannot publish a signing key", error);
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(unpublished)?;
        let key_id = public.thumbprint(ThumbprintHash::SHA256).map_err(unpublished)?;
        public.common.key_id = Some(key_id.clone());
        public.common.key_algorithm = Some(KeyAlgorithm::ES256);
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, public, key_id })
    }

    /// The public half, as a member of a JWK set (RFC 7517 §5).
    pub(super) fn public(&self) -> &Jwk {
        &self.public
    }

    /// Signs `claims` as a compact JWT of type `kind`.
    pub(super) fn sign(&self, kind: &str, claims: &impl Serialize) -> Result<SecretString, Failure> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
            .map(SecretString::from)
            .map_err(|error| Failure::because(Exit::Failed, "cannot sign a token", error))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_signed_verifies_with_the_public_half_and_no_other() {
        let (ours, other) = (Signer::generate().unwrap(), Signer::generate().unwrap());
        let signed = ours.sign("at+jwt", &json!({"sub": "alice", "exp": u32::MAX})).unwrap();
        let verify = |signer: &Signer| {
            let key = DecodingKey::from_jwk(signer.public()).unwrap();
            decode::<Value>(signed.expose_secret(), &key, &Validation::new(Algorithm::ES256))
        };
        let token = verify(&ours).unwrap();
        assert_eq!(token.header.typ.as_deref(), Some("at+jwt"));
        assert_eq!(token.header.kid, ours.public().common.key_id);
        assert!(verify(&other).is_err());
    }

    #[test]
    fn the_published_key_holds_no_private_part() {
        let published = serde_json::to_value(Signer::generate().unwrap().public()).unwrap();
        assert!(published.get("d").is_none() && published.get("x").is_some());
        assert_eq!(published.get("use"), Some(&json!("sig")));
    }
}
