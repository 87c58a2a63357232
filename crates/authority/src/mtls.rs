//! Clients that TLS knows (RFC 8705): an agent authenticates by the certificate of its connection, which names it by a
//! SPIFFE ID or a subject that is registered for it (§2.1), or is the very certificate in its registered keys (§2.2). What
//! it is issued is bound to that certificate (§3).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use model::{Id, Principal, json::Json};
use net::{PeerCertificate, PeerIdentity};
use store::{Credential, CredentialKind, Registration};

use crate::{
    Authority,
    client::{Client, NOT_ACCEPTED},
    form::Form,
    refused::Refused,
};

impl Authority {
    /// The client that the certificate is of, in whatever status it is.
    pub(crate) async fn certified(
        &self,
        certificate: &PeerCertificate,
        form: &Form,
        now: Timestamp,
    ) -> Result<Client, Refused> {
        // RFC 8705 §2: a certificate does not say which client it is.
        let claimed = form.value("client_id").ok_or_else(|| {
            Refused::client("a client certificate needs `client_id` beside it (RFC 8705), or send a `client_assertion`")
        })?;
        let id: Id<Principal> = Id::new(claimed).map_err(|_| Refused::client(NOT_ACCEPTED))?;
        let registration = self.store.agent(&self.settings.issuer, &id).await;
        let registration = registration.map_err(|error| Refused::unavailable("the store", &error))?;
        let named = registration.as_ref().and_then(|registration| names(registration, &certificate.identity, now));
        let (known, instance) = match (registration, named) {
            (Some(registration), Some(Named { instance })) => (Some(registration), instance),
            // The files of keys are read only for whoever nothing else makes known.
            (Some(registration), None) => {
                let keys = registration.jwks(now).await;
                let keys = keys.map_err(|error| Refused::unavailable("the agent's keys", &error))?;
                (keys.iter().any(|keys| holds(keys, certificate.x5t_s256)).then_some(registration), None)
            }
            (None, _) => (None, None),
        };
        match known {
            Some(registration) => {
                self.agent_seen(&registration, now).await;
                Ok(Client::certified(registration.agent, certificate.x5t_s256, instance))
            }
            None => {
                tracing::info!(client = %id, certificate = %certificate.identity, "a client certificate is not the client's");
                Err(Refused::client(NOT_ACCEPTED))
            }
        }
    }
}

/// An agent that is named by its certificate.
struct Named {
    /// Which running copy of it: the whole SPIFFE ID, where the registration is for several.
    instance: Option<String>,
}

/// Whether one of the credentials that are good at `now` is the name in the certificate: exactly, or with any one segment
/// at the end where it says so.
fn names(registration: &Registration, identity: &PeerIdentity, now: Timestamp) -> Option<Named> {
    let good = |credential: &&Credential| credential.retires.is_none_or(|retires| now < retires);
    let kinds = || registration.credentials.iter().filter(good).map(|credential| &credential.is);
    let exactly = kinds().any(|kind| match (kind, identity) {
        (CredentialKind::Spiffe(registered), PeerIdentity::Spiffe(shown))
        | (CredentialKind::Subject(registered), PeerIdentity::Subject(shown)) => registered == shown,
        _ => false,
    });
    if exactly {
        return Some(Named { instance: None });
    }
    let PeerIdentity::Spiffe(shown) = identity else { return None };
    let (above, _) = shown.rsplit_once('/')?;
    let one_of = |kind: &CredentialKind| match kind {
        CredentialKind::Spiffe(registered) => registered.strip_suffix("/*") == Some(above),
        _ => false,
    };
    kinds().any(one_of).then(|| Named { instance: Some(shown.clone()) })
}

/// Whether a key of `jwks` has the certificate with this SHA-256: the first of its `x5c`, or by its `x5t#S256` (RFC 7517
/// §4.7, §4.9). Whoever signed it, it was registered as it is.
fn holds(jwks: &str, certificate: [u8; 32]) -> bool {
    let Ok(jwks) = Json::parse(jwks.as_bytes()) else { return false };
    let Some(Json::Array(keys)) = jwks.member("keys") else { return false };
    keys.iter().any(|key| {
        let chain = match key.member("x5c") {
            Some(Json::Array(chain)) => chain.first().and_then(Json::as_text),
            _ => None,
        };
        let own = chain.and_then(|own| STANDARD.decode(own).ok()).map(|own| digest(&SHA256, &own));
        let thumbprint = key.member("x5t#S256").and_then(Json::as_text);
        let thumbprint = thumbprint.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        match (own, thumbprint) {
            // Where both are there and differ, nobody can tell which was meant.
            (Some(own), Some(thumbprint)) => own.as_ref() == certificate && thumbprint == certificate,
            (Some(own), None) => own.as_ref() == certificate,
            (None, Some(thumbprint)) => thumbprint == certificate,
            (None, None) => false,
        }
    })
}
