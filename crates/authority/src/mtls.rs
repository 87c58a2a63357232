//! Clients that TLS knows (RFC 8705 §2.1): an agent authenticates by the certificate of its connection, which names it by a
//! SPIFFE ID or a subject that is registered for it. What it is issued is bound to that certificate (§3).

use jiff::Timestamp;
use model::{Id, Principal};
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
        match registration.filter(|registration| names(registration, &certificate.identity, now)) {
            Some(registration) => Ok(Client::certified(registration.agent, certificate.x5t_s256)),
            None => {
                tracing::info!(client = %id, certificate = %certificate.identity, "a client certificate is not the client's");
                Err(Refused::client(NOT_ACCEPTED))
            }
        }
    }
}

/// Whether one of the credentials that are good at `now` is the name in the certificate, exactly.
fn names(registration: &Registration, identity: &PeerIdentity, now: Timestamp) -> bool {
    let good = |credential: &&Credential| credential.retires.is_none_or(|retires| now < retires);
    registration.credentials.iter().filter(good).any(|credential| match (&credential.is, identity) {
        (CredentialKind::Spiffe(registered), PeerIdentity::Spiffe(shown))
        | (CredentialKind::Subject(registered), PeerIdentity::Subject(shown)) => registered == shown,
        _ => false,
    })
}
