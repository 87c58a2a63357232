//! No record, no token: what is issued is in the ledger before anybody has it.

use audit::{
    Event, Ledger,
    record::{TokenIssued, TokenRefused},
};
use http::{Response, StatusCode};
use net::Body;

use crate::{
    client::Client,
    exchange::{Minted, principal},
    refused::{Refused, json_response},
};

/// Records `minted` and hands it out: the only way from a signed token to a response.
pub(crate) async fn issued(ledger: &Ledger, client: &Client, minted: Minted) -> Result<Response<Body>, Refused> {
    let issuance = &minted.issuance;
    let record = TokenIssued {
        digest: minted.compact.digest(),
        jti: issuance.jti.clone(),
        client_id: client.id().to_owned(),
        audience: minted.audience.clone(),
        user: issuance.chain.user().principal.clone(),
        agents: issuance.chain.agents().map(|hop| hop.principal.clone()).collect(),
        authority: issuance.authority.clone(),
        narrowed: minted.narrowed,
        subject_digest: minted.subject_digest.clone(),
        grant: Some(issuance.grant.clone()),
        task: issuance.task.id.clone(),
        run: issuance.run.clone(),
        tenant: issuance.tenant.clone(),
        expires_at: issuance.expires_at,
        policy: issuance.policy.as_deref().cloned(),
        asked: issuance.asked.clone(),
    };
    let recorded = ledger.event(Event::TokenIssued(Box::new(record))).await;
    recorded.map_err(|error| Refused::unavailable("the ledger", &error))?;
    Ok(json_response(StatusCode::OK, &minted.response()))
}

/// Records that `client` was refused. A record that cannot be written makes a refusal no less of one.
pub(crate) async fn refused(ledger: &Ledger, client: &Client, refused: &Refused) {
    let record = TokenRefused {
        agent: principal(client.agent()),
        error: refused.error.as_str(),
        description: refused.sendable(),
        policy: refused.ruling.as_deref().map(|(ruling, _)| ruling.clone()),
        asked: refused.ruling.as_deref().map(|(_, asked)| Box::new(asked.clone())),
    };
    if let Err(error) = ledger.event(Event::TokenRefused(Box::new(record))).await {
        tracing::error!(%error, client = client.id(), "a refusal could not be recorded");
    }
}
