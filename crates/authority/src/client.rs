//! Who asks: a registered agent, known by a signature of its own key (RFC 7523 `private_key_jwt`), or by the client
//! certificate of its connection (`mtls`).
//!
//! There is no other way in: a secret that an agent holds is one that it can be talked out of.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use jiff::Timestamp;
use model::{Agent, AgentStatus, Code, Id, Refusal};
use net::{BoxError, Peer};
use store::{NotUsable, Registration};
use token::{Algorithm, ClientAssertion, KeySet, Proof, claimed_client, verify_client_assertion};

use crate::{
    Authority,
    exchange::Moment,
    form::Form,
    refused::{Error, Refused},
};

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What is said of an assertion that proves nothing: the same for a client that is not there.
pub(crate) const NOT_ACCEPTED: &str = "the client's credential is not accepted";

/// A registered agent whose key signed this request. Only [`Authority::authenticate`] makes one.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    /// SHA-256 of the client certificate that showed who it is, where one did.
    certificate: Option<[u8; 32]>,
    /// Which running copy of it, where that is known: proved by the certificate, or else by its own word.
    instance: Option<String>,
}

impl Client {
    /// The agent whose certificate this is the thumbprint of.
    pub(crate) const fn certified(agent: Agent, certificate: [u8; 32], instance: Option<String>) -> Self {
        Self { agent, certificate: Some(certificate), instance }
    }

    /// Which running copy of the agent it is, where that is known.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The certificate that what it is issued is bound to (RFC 8705 §3).
    pub(crate) const fn certificate(&self) -> Option<[u8; 32]> {
        self.certificate
    }

    /// What its request proves of whoever presents a token with it.
    pub(crate) const fn proof(&self) -> Proof {
        match self.certificate {
            Some(certificate) => Proof::Certificate(certificate),
            None => Proof::None,
        }
    }

    /// The agent.
    pub(crate) const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its `client_id`.
    pub(crate) fn id(&self) -> &str {
        self.agent.id.as_str()
    }

    /// Whether it may ask for anything at all.
    pub(crate) fn may_act(&self) -> Result<(), Refused> {
        match self.agent.status {
            AgentStatus::Active => Ok(()),
            status @ (AgentStatus::Suspended | AgentStatus::Decommissioned) => {
                let why = format!("the agent is {}", status.as_str());
                Err(Refused::new(Error::UnauthorizedClient, why).denied(Code::AgentSuspended))
            }
        }
    }

    /// For the tests of what comes after.
    #[cfg(test)]
    pub(crate) const fn known(agent: Agent) -> Self {
        Self { agent, certificate: None, instance: None }
    }
}

impl Authority {
    /// What a client asks for in a form, and which client, in whatever status it is; with the moment that everything is
    /// read after.
    pub(crate) async fn client_request<B>(
        &self,
        peer: &Peer,
        request: Request<B>,
    ) -> Result<(Form, Client, Moment), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let headers = request.headers().clone();
        let form = Form::read(request).await?;
        let at = self.moment().await?;
        let client = self.authenticate(peer, &headers, &form, at).await?;
        Ok((form, client, at))
    }

    /// Notes that the agent showed who it is. That this cannot be noted stops nothing.
    pub(crate) async fn agent_seen(&self, registration: &Registration, now: Timestamp) {
        if let Err(error) = self.store.agent_seen(registration, now).await {
            tracing::warn!(agent = %registration.agent.id, %error, "when an agent was seen could not be noted");
        }
    }

    /// The client that signed this request, in whatever status it is.
    async fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        form: &Form,
        Moment { now, known }: Moment,
    ) -> Result<Client, Refused> {
        let assertion = match (presented(headers, form)?, &peer.certificate) {
            (Some(assertion), _) => assertion,
            (None, Some(certificate)) => return self.certified(certificate, form, now).await,
            (None, None) => return Err(missing()),
        };
        let claimed = claimed_client(assertion).map_err(|refusal| refused(&refusal))?;
        if form.value("client_id").is_some_and(|id| id != claimed) {
            return Err(Refused::client("`client_id` is not the client of the assertion"));
        }
        let id = Id::new(&claimed).map_err(|_| Refused::client(NOT_ACCEPTED))?;
        let registration = self.store.known_agent(&self.settings.issuer, &id).await;
        let registration = registration.map_err(|error| Refused::unavailable("the store", &error))?;
        let Some(registration) = registration else { return Err(Refused::client(NOT_ACCEPTED)) };
        let jwks = registration.jwks(now).await.map_err(|error| Refused::unavailable("the agent's keys", &error))?;
        let keys = jwks.iter().filter_map(|document| self.key_sets.of(&registration.agent, document));
        let assertion = verify(assertion, &registration.agent, keys, (&self.assertion_audiences, now))?;
        let made = made_since(known.began, &assertion)?;
        match self.store.use_once(&claimed, &assertion.jti, assertion.expires_at, now).await {
            Ok(()) => {
                // Nothing is let in before it was made by its own word: so whatever was used before a restore was
                // made before it too, even by a clock that runs ahead.
                tokio::time::sleep(made.duration_since(now).try_into().unwrap_or_default()).await;
                self.agent_seen(&registration, now).await;
                Ok(Client { agent: registration.agent.clone(), certificate: None, instance: assertion.instance })
            }
            Err(NotUsable::Full) => Err(Refused::unavailable("room for the client's assertions", &claimed)),
            Err(NotUsable::Unavailable(error)) => Err(Refused::unavailable("the store", &error)),
            Err(why @ (NotUsable::Used | NotUsable::Ended)) => {
                Err(Refused::client(format!("the `jti` of the client assertion: {why}")))
            }
        }
    }
}

/// When the assertion was made, if that was since the database began to remember what was used.
fn made_since(began: Timestamp, assertion: &ClientAssertion) -> Result<Timestamp, Refused> {
    match assertion.issued_at {
        Some(made) if made > began => Ok(made),
        Some(_) => Err(Refused::client(
            "the client assertion was made before this authority's state began, so it may have been used before: make \
             a new one",
        )),
        None => Err(Refused::client("the client assertion has no `iat`: it has to say when it was made")),
    }
}

/// The assertion, if there is one; with nothing else in the request that authenticates (RFC 6749 §2.3).
fn presented<'a>(headers: &HeaderMap, form: &'a Form) -> Result<Option<&'a str>, Refused> {
    if headers.contains_key(header::AUTHORIZATION) || form.value("client_secret").is_some() {
        return Err(Refused::client(
            "clients authenticate by private_key_jwt (RFC 7523) or tls_client_auth (RFC 8705)",
        ));
    }
    match (form.value("client_assertion_type"), form.value("client_assertion")) {
        (Some(ASSERTION_TYPE), Some(assertion)) => Ok(Some(assertion)),
        (None, None) => Ok(None),
        _ => Err(missing()),
    }
}

fn missing() -> Refused {
    Refused::client(format!(
        "`client_assertion` with `client_assertion_type` {ASSERTION_TYPE} is missing (private_key_jwt, RFC 7523), and \
         the connection has no client certificate (RFC 8705)"
    ))
}

/// The assertion under any of the agent's keys: several overlap while one replaces the other.
fn verify(
    assertion: &str,
    agent: &Agent,
    key_sets: impl Iterator<Item = Arc<KeySet>>,
    (audiences, now): (&BTreeSet<String>, Timestamp),
) -> Result<ClientAssertion, Refused> {
    let mut reason = Refused::client(NOT_ACCEPTED);
    for keys in key_sets {
        match verify_client_assertion(assertion, &keys, &agent.id, audiences, now) {
            Ok(assertion) => return Ok(assertion),
            Err(refusal) => reason = refused(&refusal),
        }
    }
    Err(reason)
}

/// The algorithms that agents sign with.
pub(crate) fn algorithms() -> BTreeSet<Algorithm> {
    [Algorithm::Es256, Algorithm::EdDsa].into()
}

fn refused(refusal: &Refusal) -> Refused {
    tracing::info!(code = ?refusal.code, internal = refusal.internal, "client assertion refused");
    match refusal.code {
        Code::Expired => Refused::client("the client assertion has expired"),
        Code::WrongAudience => {
            Refused::client("the `aud` of the client assertion has to be this authority's issuer, alone")
        }
        _ => Refused::client(NOT_ACCEPTED),
    }
}
