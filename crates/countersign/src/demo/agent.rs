//! The demo's agents: they prove who they are to the authority and exchange for narrow tokens, over HTTP as an
//! agent in another process would.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use jiff::Timestamp;
use net::{Body, body::collect};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::signer::Signer;
use super::world::{MAX_ANSWER_BYTES, PATIENCE, World};
use crate::failure::{Exit, Failure};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An agent with its own key.
pub(super) struct Agent {
    id: &'static str,
    key: Signer,
}

/// A delegated token, and what it says of itself.
#[derive(Clone)]
pub(super) struct Token {
    compact: SecretString,
    claims: Claims,
}

/// The claims that people are shown. Read without verification: the sidecar verifies, the demo only prints.
#[derive(Debug, Clone, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    tenant: Option<String>,
    act: Option<Actor>,
    run_id: Option<String>,
    #[serde(default)]
    exp: i64,
}

/// RFC 8693 §4.1: the acting party, and inside it the one that acted before.
#[derive(Debug, Clone, Deserialize)]
struct Actor {
    sub: String,
    act: Option<Box<Self>>,
}

/// Why an agent has no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The authority gives none (RFC 6749 §5.2).
    #[error("the authority gave agent {agent} no token: {code}: {description}")]
    Refused {
        /// Who asked.
        agent: &'static str,
        /// `error`
        code: String,
        /// `error_description`
        description: String,
    },
    /// There is no answer that can be read.
    #[error("agent {agent} got no answer from the authority: {cause}")]
    Broken {
        /// Who asked.
        agent: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl Agent {
    /// An agent with a new key.
    pub(super) fn new(id: &'static str) -> Result<Self, Failure> {
        Ok(Self { id, key: Signer::generate()? })
    }

    /// Its client id at the authority.
    pub(super) fn id(&self) -> &'static str {
        self.id
    }

    /// Its public key, for its registration.
    pub(super) fn public_key(&self) -> &jsonwebtoken::jwk::Jwk {
        self.key.public()
    }

    /// The first hop: the user's token becomes a token for this agent, bound to `task`. Without `details`, it is
    /// given all that the user granted.
    pub(super) async fn act_for(
        &self,
        user_token: &SecretString,
        task: &str,
        details: Option<&Value>,
        world: &World,
    ) -> Result<Token, ExchangeError> {
        let details = details.map(ToString::to_string).unwrap_or_default();
        let form = [
            ("subject_token", user_token.expose_secret()),
            ("audience", &world.audience),
            ("task_id", task),
            // A parameter without a value counts as omitted (RFC 6749 §3.2).
            ("authorization_details", &details),
        ];
        self.exchange(&form, world).await
    }

    /// As a parent: a short token that lets `helper`, and nobody else, go on from `own` within `details`.
    pub(super) async fn hand_over(
        &self,
        own: &Token,
        helper: &str,
        details: &Value,
        world: &World,
    ) -> Result<Token, ExchangeError> {
        let details = details.to_string();
        let form = [
            ("subject_token", own.compact.expose_secret()),
            ("audience", &world.authority),
            ("requested_actor", helper),
            ("authorization_details", &details),
        ];
        self.exchange(&form, world).await
    }

    /// As a sub-agent: the parent's `handover` becomes a token of its own.
    pub(super) async fn take_over(&self, handover: &Token, world: &World) -> Result<Token, ExchangeError> {
        let form = [("subject_token", handover.compact.expose_secret()), ("audience", &world.audience)];
        self.exchange(&form, world).await
    }

    /// RFC 8693, authenticated by a signed assertion (RFC 7523 §2.2). The actor is whoever authenticated.
    async fn exchange(&self, form: &[(&str, &str)], world: &World) -> Result<Token, ExchangeError> {
        let broken = |cause: String| ExchangeError::Broken { agent: self.id, cause };
        let assertion = self.assertion(world, net::clock::now()).map_err(|failure| broken(failure.to_string()))?;
        let mut fields = vec![
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token_type", ACCESS_TOKEN),
            ("client_id", self.id),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", assertion.expose_secret()),
        ];
        fields.extend_from_slice(form);
        let url: Uri =
            format!("{}/oauth2/token", world.authority).parse().map_err(|_| broken("no such URL".to_owned()))?;
        let mut request = Request::new(Body::full(encoded(&fields)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);

        let response = world.client.send(request, PATIENCE).await.map_err(|error| broken(error.to_string()))?;
        let status = response.status();
        let body = collect(response.into_body(), MAX_ANSWER_BYTES).await.map_err(|error| broken(error.to_string()))?;
        if status != StatusCode::OK {
            let Refused { error: code, error_description: description } =
                serde_json::from_slice(&body).map_err(|_| broken(format!("{status}, and no reason")))?;
            return Err(ExchangeError::Refused { agent: self.id, code, description });
        }
        let granted: Granted = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
        Token::new(SecretString::from(granted.access_token)).ok_or_else(|| broken("what it sent is no JWT".to_owned()))
    }

    fn assertion(&self, world: &World, now: Timestamp) -> Result<SecretString, Failure> {
        let issued = now.as_second();
        let claims = json!({
            "iss": self.id,
            "sub": self.id,
            "aud": world.authority,
            "iat": issued,
            "exp": issued.saturating_add(60),
            "jti": uuid::Uuid::now_v7().to_string(),
        });
        self.key.sign("JWT", &claims)
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Token {
    /// `None` when it is not a compact JWS with a JSON payload.
    pub(super) fn new(compact: SecretString) -> Option<Self> {
        let payload = compact.expose_secret().split('.').nth(1)?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        Some(Self { compact, claims })
    }

    /// The compact form.
    pub(super) fn compact(&self) -> &SecretString {
        &self.compact
    }

    /// Who it names, as people write it: the user, then every agent down to the one that acts.
    pub(super) fn names(&self) -> Vec<String> {
        let mut agents = Vec::new();
        let mut actor = self.claims.act.as_ref();
        while let Some(current) = actor {
            agents.push(format!("agent:{}", current.sub));
            actor = current.act.as_deref();
        }
        let tenant = self.claims.tenant.as_ref().map(|tenant| format!("@{tenant}")).unwrap_or_default();
        let mut names = vec![format!("user:{}{tenant}", self.claims.sub)];
        match agents.is_empty() {
            true => names.push("nobody".to_owned()),
            false => names.extend(agents.into_iter().rev()),
        }
        names
    }

    /// The run that it belongs to.
    pub(super) fn run_id(&self) -> Option<&str> {
        self.claims.run_id.as_deref()
    }

    /// When it ends, in seconds since 1970.
    pub(super) fn expires_at(&self) -> i64 {
        self.claims.exp
    }
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_survives_what_urls_and_json_hold() {
        let form = encoded(&[("audience", "urn:a:b"), ("authorization_details", r#"[{"a":"b&c=d"}]"#)]);
        assert_eq!(form, "audience=urn%3Aa%3Ab&authorization_details=%5B%7B%22a%22%3A%22b%26c%3Dd%22%7D%5D");
    }

    #[test]
    fn what_is_no_token_is_no_token() {
        for text in ["", "a.b", "a.%%.c", "a.bm90IGpzb24.c"] {
            assert!(Token::new(SecretString::from(text)).is_none(), "{text}");
        }
    }

    #[test]
    fn a_token_names_the_user_first_and_the_acting_agent_last() {
        let token = |claims: &Value| {
            let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
            Token::new(SecretString::from(format!("e30.{payload}.sig"))).unwrap()
        };
        let acting = json!({
            "sub": "alice", "tenant": "acme",
            "act": {"sub": "refunds-helper", "act": {"sub": "support-v2"}},
        });
        assert_eq!(token(&acting).names(), ["user:alice@acme", "agent:support-v2", "agent:refunds-helper"]);
        assert_eq!(token(&json!({"sub": "alice"})).names(), ["user:alice", "nobody"]);
    }
}
