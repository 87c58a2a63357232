//! The demo's identity provider: an OpenID provider small enough to read, with real keys and real tokens.
//!
//! Over HTTP it serves what verifiers need: the discovery document and its keys. Signing in is a function and
//! not an endpoint, because it stands for a person in front of a browser, and no agent may stand there.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use jiff::Timestamp;
use net::Body;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::signer::Signer;
use crate::failure::Failure;

/// The audience of what opens the authority's management API.
const MANAGEMENT: &str = "urn:example:countersign:management";
/// Where the discovery document is (OpenID Connect Discovery §4).
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where the keys are.
const KEYS: &str = "/jwks.json";

/// Somebody who can sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Person {
    /// The `sub` at the provider.
    pub(super) id: &'static str,
    /// The groups, from which entitlements are mapped.
    pub(super) groups: &'static [&'static str],
}

/// A customer; the one the agents work for.
pub(super) const ALICE: Person = Person { id: "alice", groups: &["customers"] };
/// Another customer, whose order alice's agents must not touch.
pub(super) const BOB: Person = Person { id: "bob", groups: &["customers"] };

/// Of the platform team, who looks after the authority.
pub(super) const DANA: Person = Person { id: "dana", groups: &["platform"] };

/// How long a sign-in at the console is good for.
const AT_THE_CONSOLE: Duration = Duration::from_secs(300);

/// The sample provider. Clones share its key.
#[derive(Clone)]
pub(super) struct IdentityProvider(Arc<Provider>);

struct Provider {
    issuer: String,
    /// Whom the user tokens are for: the authority, which exchanges them.
    audience: String,
    key: Signer,
}

impl IdentityProvider {
    /// A provider with a new key. `issuer` is its URL, `audience` goes into user tokens.
    pub(super) fn new(issuer: String, audience: String) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Provider { issuer, audience, key: Signer::generate()? })))
    }

    /// The session of `person`, the same for every sign-in of this run of the demo.
    pub(super) fn session(person: Person) -> String {
        format!("session-of-{}", person.id)
    }

    /// What `person`'s browser holds after signing in: an access token (RFC 9068) that names them and nobody
    /// acting for them, good for `lifetime`.
    pub(super) fn sign_in(&self, person: Person, lifetime: Duration, now: Timestamp) -> Result<SecretString, Failure> {
        self.token(person, &self.0.audience, "shop-portal", lifetime, now)
    }

    /// What `person` holds after signing in at the authority's console: good for managing, and for nothing else.
    pub(super) fn sign_in_to_manage(&self, person: Person, now: Timestamp) -> Result<SecretString, Failure> {
        self.token(person, MANAGEMENT, "console", AT_THE_CONSOLE, now)
    }

    fn token(
        &self,
        person: Person,
        audience: &str,
        client: &str,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<SecretString, Failure> {
        let issued = now.as_second();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = json!({
            "iss": self.0.issuer,
            "sub": person.id,
            "aud": audience,
            "client_id": client,
            "iat": issued,
            "exp": issued.saturating_add(lifetime),
            "auth_time": issued,
            "jti": uuid::Uuid::now_v7().to_string(),
            "sid": Self::session(person),
            "acr": "urn:example:password",
            "groups": person.groups,
        });
        self.0.key.sign("at+jwt", &claims)
    }

    /// Answers one request.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if request.method() != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET"}));
        }
        match request.uri().path() {
            DISCOVERY => answer(StatusCode::OK, &self.metadata()),
            KEYS => answer(StatusCode::OK, &json!({"keys": [self.0.key.public()]})),
            _ => answer(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
        }
    }

    fn metadata(&self) -> Value {
        json!({
            "issuer": self.0.issuer,
            "jwks_uri": format!("{}{KEYS}", self.0.issuer),
            "authorization_endpoint": format!("{}/authorize", self.0.issuer),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
    use secrecy::ExposeSecret;

    use super::*;

    fn provider() -> IdentityProvider {
        IdentityProvider::new("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()).unwrap()
    }

    async fn document(provider: &IdentityProvider, path: &str) -> Value {
        let response = provider.answer(&Request::get(path).body(()).unwrap());
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&net::body::collect(response.into_body(), 64 * 1024).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_sign_in_verifies_with_the_keys_that_discovery_leads_to() {
        let provider = provider();
        let metadata = document(&provider, DISCOVERY).await;
        let keys_url = metadata["jwks_uri"].as_str().unwrap();
        let keys = document(&provider, keys_url.strip_prefix("http://127.0.0.1:1").unwrap()).await;
        let keys: JwkSet = serde_json::from_value(keys).unwrap();

        let token = provider.sign_in(ALICE, Duration::from_secs(60), net::clock::now()).unwrap();
        let header = decode_header(token.expose_secret()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut expected = Validation::new(Algorithm::ES256);
        expected.set_audience(&["http://127.0.0.1:2"]);
        let claims = decode::<Value>(token.expose_secret(), &key, &expected).unwrap().claims;
        assert_eq!((claims["sub"].as_str(), claims.get("act")), (Some("alice"), None));
    }

    #[test]
    fn there_is_no_endpoint_that_signs_anybody_in() {
        for path in ["/authorize", "/token", "/sign-in"] {
            let get = Request::get(path).body(()).unwrap();
            assert_eq!(provider().answer(&get).status(), StatusCode::NOT_FOUND);
            let post = Request::post(path).body(()).unwrap();
            assert_eq!(provider().answer(&post).status(), StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}
