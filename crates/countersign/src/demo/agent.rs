//! The demo's agents: they prove who they are to the authority, exchange for narrow tokens, and call the tool
//! through the sidecar, all over HTTP as an agent in another process would.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use net::{Body, HttpClient, body::collect};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::signer::Signer;
use crate::failure::{Exit, Failure};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What every decision's `type` begins with (DESIGN §5.3).
const DENIAL: &str = "urn:countersign:denial:";

/// How long any answer may take: nothing here is far away.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What an agent knows of the world around it.
#[derive(Clone)]
pub(super) struct World {
    /// Its HTTP client.
    pub(super) client: HttpClient,
    /// The authority's issuer URL.
    pub(super) authority: String,
    /// The logical audience of the sidecar.
    pub(super) audience: String,
    /// Where the sidecar listens.
    pub(super) sidecar: String,
}

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
    #[serde(default)]
    authorization_details: Value,
}

/// RFC 8693 §4.1: the acting party, and inside it the one that acted before.
#[derive(Debug, Clone, Deserialize)]
struct Actor {
    sub: String,
    act: Option<Box<Self>>,
}

/// One call to the tool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Its method.
    pub(super) method: &'static str,
    /// Its path at the sidecar.
    pub(super) path: &'static str,
    /// Its JSON body.
    pub(super) body: Option<&'static str>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// `Countersign-Decision-Id`.
    pub(super) decision_id: Option<String>,
    /// What Countersign refused with; `None` when the answer is the tool's own.
    pub(super) denial: Option<Denial>,
    /// The tool's answer, where there is one.
    pub(super) body: Value,
    /// From sending the request to the last byte of the answer.
    pub(super) took: Duration,
}

/// A refusal as the agent receives it (RFC 9457 problem document).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Denial {
    /// `urn:countersign:denial:<code>`
    #[serde(rename = "type")]
    kind: String,
    /// The stable code.
    pub(super) code: String,
    /// One sentence.
    #[serde(default)]
    pub(super) detail: String,
    /// The run, where the token was good enough to name one.
    pub(super) run_id: Option<String>,
    /// Whether anything was sent to the tool.
    pub(super) sent: Option<bool>,
    /// The principal that the limit comes from.
    pub(super) limiting_hop: Option<String>,
    /// What would be allowed.
    pub(super) allowed: Option<Value>,
    /// Policy's reasons.
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
}

/// One reason of a refusal.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reason {
    /// The rule's code.
    pub(super) code: String,
    /// What it tells the agent.
    pub(super) message: Option<String>,
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
    ) -> Result<Token, Failure> {
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
    ) -> Result<Token, Failure> {
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
    pub(super) async fn take_over(&self, handover: &Token, world: &World) -> Result<Token, Failure> {
        let form = [("subject_token", handover.compact.expose_secret()), ("audience", &world.audience)];
        self.exchange(&form, world).await
    }

    /// RFC 8693, authenticated by a signed assertion (RFC 7523 §2.2). The actor is whoever authenticated.
    async fn exchange(&self, form: &[(&str, &str)], world: &World) -> Result<Token, Failure> {
        let assertion = self.assertion(world, net::clock::now())?;
        let mut fields = vec![
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token_type", ACCESS_TOKEN),
            ("client_id", self.id),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", assertion.expose_secret()),
        ];
        fields.extend_from_slice(form);
        let doing = |cause: String| {
            Failure::new(Exit::Failed, format!("agent {} got no token from the authority: {cause}", self.id))
        };
        let mut request = Request::new(Body::full(encoded(&fields)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}/oauth2/token", world.authority)
            .parse()
            .map_err(|error: http::uri::InvalidUri| doing(error.to_string()))?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);

        let response = world.client.send(request, PATIENCE).await.map_err(|error| doing(error.to_string()))?;
        let status = response.status();
        let body = collect(response.into_body(), MAX_ANSWER_BYTES).await.map_err(|error| doing(error.to_string()))?;
        if status != StatusCode::OK {
            return Err(doing(format!("{status} {}", String::from_utf8_lossy(&body))));
        }
        let granted: Granted = serde_json::from_slice(&body).map_err(|error| doing(error.to_string()))?;
        Token::new(SecretString::from(granted.access_token)).ok_or_else(|| doing("what it sent is not a JWT".to_owned()))
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

    /// The `authorization_details` it was given, which may be less than was asked for.
    pub(super) fn details(&self) -> &Value {
        &self.claims.authorization_details
    }
}

impl World {
    /// Sends `call` to the sidecar with `token`.
    pub(super) async fn call(&self, call: Call, token: &Token, started: Instant) -> Result<Answer, Failure> {
        let url = format!("{}{}", self.sidecar, call.path);
        self.send(&url, call, Some(token), started).await
    }

    /// Sends `call` past the sidecar, to `url`, without any credential.
    pub(super) async fn call_directly(&self, url: &str, call: Call, started: Instant) -> Result<Answer, Failure> {
        self.send(url, call, None, started).await
    }

    async fn send(&self, url: &str, call: Call, token: Option<&Token>, started: Instant) -> Result<Answer, Failure> {
        let failed = |cause: String| Failure::new(Exit::Failed, format!("{} {url}: {cause}", call.method));
        let mut request = Request::builder().method(call.method).uri(url);
        if let Some(token) = token {
            let value = net::secret::header_value("Bearer ", &token.compact).map_err(|error| failed(error.to_string()))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = call.body.map_or_else(Body::empty, Body::full);
        let request = request.body(body).map_err(|error| failed(error.to_string()))?;

        let response = self.client.send(request, PATIENCE).await.map_err(|error| failed(error.to_string()))?;
        let (head, body) = response.into_parts();
        let body = collect(body, MAX_ANSWER_BYTES).await.map_err(|error| failed(error.to_string()))?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let is_problem = text("content-type").is_some_and(|kind| kind.starts_with("application/problem+json"));
        let denial = is_problem.then(|| serde_json::from_slice::<Denial>(&body).ok()).flatten();
        Ok(Answer {
            status: head.status,
            decision_id: text("countersign-decision-id"),
            denial: denial.filter(|denial| denial.kind == format!("{DENIAL}{}", denial.code)),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            took: net::clock::monotonic().saturating_duration_since(started),
        })
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
