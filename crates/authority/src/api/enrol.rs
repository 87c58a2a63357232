//! `/v1/sidecars/enrol`: a sidecar joins. It shows that it may, by a one-time token or by what it is (`enrolment`), and
//! that the key which it will sign with is its own, by a proof that goes with that, to this authority, once.

use jiff::Timestamp;
use net::Peer;
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
use crate::{Authority, enrolment::Joins};

/// A sidecar that joins.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Joining {
    /// The join token. Without it and `service_account_token` the client certificate of the connection says who joins.
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    token: Option<SecretString>,
    /// A projected token of a Kubernetes service account.
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    service_account_token: Option<SecretString>,
    /// What it is called.
    name: String,
    /// Its public key (RFC 7517).
    jwk: Value,
    /// A JWT of the type `countersign-enrolment+jwt`, signed with the private key of `jwk`: `iss` and `sub` its thumbprint
    /// (RFC 9278), `aud` the authority, `jti`, `iat`, `exp` at most a minute later, and `evidence`, the SHA-256, in
    /// base64url, of what it joins by: either token, or the text of the certificate's `x5t#S256`.
    proof: String,
}

impl Authority {
    /// A sidecar joins: its evidence says that it may, its key is what it signs with from now on.
    pub(super) async fn enrol(&self, peer: &Peer, body: &[u8], now: Timestamp) -> Result<Answer, Problem> {
        let Joining { token, service_account_token, name, jwk, proof } = body::parse(body)?;
        let Joins { enrolment, evidence } = match (token, service_account_token) {
            (Some(token), None) => by_token(token)?,
            (None, Some(token)) => self.joins_by_service_account(&token, now).await?,
            (None, None) => self.joins_by_certificate(peer)?,
            (Some(_), Some(_)) => return Err(Problem::invalid("join by one thing: a token, or a service account")),
        };
        let proof = self.possession(&proof, &jwk, &evidence, now)?;
        let writer = Writer { by: format!("sidecar:{name}"), reason: None, now, idempotency: None };
        let enrolled = self.store.enrol(&writer, &enrolment, &name, &jwk).await;
        let committed = enrolled.map_err(|error| match (error, &enrolment) {
            (StoreError::Conflict(_), Enrolment::JoinToken(_)) => not_good(),
            (error, _) => error.into(),
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

fn by_token(token: SecretString) -> Result<Joins, Problem> {
    if !token.expose_secret().starts_with(store::JOIN_TOKEN_PREFIX) {
        return Err(not_good());
    }
    let evidence = token.expose_secret().as_bytes().to_vec();
    Ok(Joins { enrolment: Enrolment::JoinToken(token), evidence })
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

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.map(SecretString::from))
}

/// What the body may be.
pub(super) fn joining_schema(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Joining>()
}
