//! `/oauth2/revoke` (RFC 7009): an agent gives back a token of its own, and with it all that was made from it.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use model::Target;
use net::{Body, BoxError, Peer};
use store::Writer;
use token::VerifiedSubject;

use crate::{
    Authority,
    exchange::Moment,
    refused::{Error, Refused, json_response},
};

impl Authority {
    pub(crate) async fn revoke<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        match self.revoked(peer, request).await {
            // RFC 7009 §2.2: the body is nobody's to look at.
            Ok(()) => json_response(StatusCode::OK, &serde_json::json!({})),
            Err(refused) => refused.response(),
        }
    }

    async fn revoked<B>(&self, peer: &Peer, request: Request<B>) -> Result<(), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (form, client, at) = self.client_request(peer, request).await?;
        let token = form.required("token")?;
        let Moment { known, .. } = at;
        let now = net::clock::now();
        // One that is not ours, or is good no more, is revoked already (RFC 7009 §2.2).
        let Ok(VerifiedSubject::Delegated(held)) =
            self.verifier.verify_subject_of(token, &self.audiences, client.proof(), now).await
        else {
            return Ok(());
        };
        let held = held.delegation;
        if held.token.issued_at <= known.began {
            return Ok(());
        }
        // Whoever was given it, whatever has become of them since.
        if held.token.client_id.as_deref() != Some(client.id()) {
            return Err(Refused::new(Error::UnauthorizedClient, "the token was issued to another client"));
        }
        let Some(jti) = held.token.jti else { return Ok(()) };
        let agent = client.agent();
        let writer = Writer {
            by: format!("agent:{} of {}", agent.id, agent.issuer),
            reason: Some("given back (RFC 7009)".to_owned()),
            now,
            // Given back twice is given back once.
            idempotency: Some(jti.clone()),
        };
        let target = Target::Token { issuer: self.settings.issuer.clone(), jti };
        let committed = self.store.withdraw(&writer, target).await;
        let committed = committed.map_err(|error| Refused::unavailable("the store", &error))?;
        let recorded = self.recorder.up_to(committed.position).await;
        recorded.map_err(|error| Refused::unavailable("the ledger", &error))
    }
}
