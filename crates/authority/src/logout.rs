//! `/oidc/backchannel_logout` (OpenID Connect Back-Channel Logout 1.0): a provider says that a session there ended, and
//! what rests on it ends here, on record before the answer.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use model::{Code, Refusal};
use net::{Body, BoxError, Peer};
use store::{NotUsable, StoreError, Writer};

use crate::{
    Authority,
    form::Form,
    refused::{Refused, json_response},
};

/// What is on record as the reason.
const REASON: &str = "the identity provider says that the session ended";

impl Authority {
    /// Answers a provider's logout token.
    pub(crate) async fn logout<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let _room = match self.doors.logouts.enter(peer, net::clock::now()) {
            Ok(room) => room,
            Err(problem) => return problem.response(),
        };
        match self.logged_out(request).await {
            Ok(()) => json_response(StatusCode::OK, &serde_json::json!({})),
            Err(refused) => {
                let mut response = refused.response();
                // §2.8 has one status for everything that is wrong, a logout that failed here too.
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        }
    }

    async fn logged_out<B>(&self, request: Request<B>) -> Result<(), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let form = Form::read(request).await?;
        let now = net::clock::now();
        let logout = self.verifier.verify_logout(form.required("logout_token")?, now).await;
        let logout = logout.map_err(|refusal| refused(&refusal))?;
        let by = format!("backchannel_logout of {}", logout.issuer);
        // Withdrawn first and used up after: what fails half-way is not lost when the provider says it again, and said
        // again it is still one withdrawal.
        let writer =
            Writer { by: by.clone(), reason: Some(REASON.to_owned()), now, idempotency: Some(logout.jti.clone()) };
        let committed = self.store.withdraw(&writer, logout.target).await.map_err(not_withdrawn)?;
        let recorded = self.recorder.up_to(committed.position).await;
        recorded.map_err(|error| Refused::unavailable("the ledger", &error))?;
        self.store.use_once(&by, &logout.jti, logout.expires_at, now).await.map_err(|why| match why {
            NotUsable::Used | NotUsable::Ended => used(),
            NotUsable::Full => Refused::unavailable("room for the provider's logout tokens", &by),
            NotUsable::Unavailable(error) => Refused::unavailable("the store", &error),
        })
    }
}

fn refused(refusal: &Refusal) -> Refused {
    tracing::info!(code = ?refusal.code, internal = refusal.internal, "logout token refused");
    if refusal.code == Code::KeysUnavailable {
        let why = refusal.internal.as_deref().unwrap_or(&refusal.detail);
        return Refused::unavailable("the keys of the token's issuer", &why);
    }
    Refused::request(refusal.detail.clone())
}

fn not_withdrawn(error: StoreError) -> Refused {
    match error {
        // The same `jti` for something else.
        StoreError::OtherRequest => used(),
        error => Refused::unavailable("the store", &error),
    }
}

fn used() -> Refused {
    Refused::request("the `jti` of the logout token has been used before")
}
