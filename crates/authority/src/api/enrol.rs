//! `/v1/sidecars/enrol`: a sidecar joins. It shows that it may, by a one-time token, and that the key which it will sign
//! with is its own, by a proof that goes with that token, to this authority, once.

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use store::{Enrolment, NotUsable, StoreError, Writer};
use token::{Possession, verify_possession};

use super::{
    Answer, body,
    problem::{Code, Problem},
};
use crate::Authority;

/// A sidecar that joins.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Joining {
    /// The join token.
    #[serde(deserialize_with = "secret")]
    #[schemars(with = "String")]
    token: SecretString,
    /// What it is called.
    name: String,
    /// Its public key (RFC 7517).
    jwk: Value,
    /// A JWT of the type `countersign-enrolment+jwt`, signed with the private key of `jwk`: `iss` and `sub` its thumbprint
    /// (RFC 9278), `aud` the authority, `jti`, `iat`, `exp` at most a minute later, and `evidence`, the SHA-256 of the
    /// join token in base64url.
    proof: String,
}

impl Authority {
    /// A sidecar joins: its evidence says that it may, its key is what it signs with from now on.
    pub(super) async fn enrol(&self, body: &[u8], now: Timestamp) -> Result<Answer, Problem> {
        let Joining { token, name, jwk, proof } = body::parse(body)?;
        if !token.expose_secret().starts_with(store::JOIN_TOKEN_PREFIX) {
            return Err(not_good());
        }
        let proof = self.possession(&proof, &jwk, token.expose_secret().as_bytes(), now)?;
        let writer = Writer { by: format!("sidecar:{name}"), reason: None, now, idempotency: None };
        let enrolled = self.store.enrol(&writer, &Enrolment::JoinToken(token), &name, &jwk).await;
        let committed = enrolled.map_err(|error| match error {
            StoreError::Conflict(_) => not_good(),
            error => error.into(),
        })?;
        self.recorded(committed.position).await?;
        let sidecar = &committed.value;
        // Used up after: only who may join has their proofs remembered, and the same join again is the same sidecar.
        let space = format!("enrolment of {}", sidecar.id);
        self.store.use_once(&space, &proof.jti, proof.expires_at, now).await.map_err(|why| match why {
            NotUsable::Used | NotUsable::Ended => not_proved("it was used before"),
            NotUsable::Full => Problem::new(Code::TooMany, "This sidecar joins too often.").after(60),
            NotUsable::Unavailable(error) => error.into(),
        })?;
        let body = json!({
            "id": sidecar.id,
            "name": sidecar.name,
            "subject": format!("{}{}", self.sidecar_prefix(), sidecar.id),
            "authority": self.settings.issuer,
            "serves": sidecar.serves,
        });
        Ok(Answer::created(body).replayed(committed.replayed))
    }

    fn possession(&self, proof: &str, jwk: &Value, evidence: &[u8], now: Timestamp) -> Result<Possession, Problem> {
        verify_possession(proof, jwk, evidence, &self.settings.issuer, now)
            .map_err(|refusal| not_proved(refusal.internal.as_deref().unwrap_or(&refusal.detail)))
    }
}

/// One answer for all that is wrong with a join token: whoever tries some learns nothing.
fn not_good() -> Problem {
    Problem::new(Code::InvalidToken, "The join token is not good: unknown, used, taken back or ended.")
}

/// Why goes to the log.
fn not_proved(why: &str) -> Problem {
    tracing::info!(why, "a sidecar does not prove its key");
    let detail = "The proof of the key is not good: it has to be signed with the private key of `jwk`, for this join \
                  token and this authority (its issuer), a minute ago at most, and anew for each attempt.";
    Problem::new(Code::InvalidToken, detail)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// What the body may be.
pub(super) fn joining_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Joining>()
}
