//! A sidecar leases slices of cumulative limits: the client of `store` asks for what `proxy` needs.

use std::sync::Arc;

use net::{HttpClient, Plaintext, Tasks};
use proxy::{Leasing, Limits};
use store::remote::{
    charges::CHARGES_PATH,
    limits::{LIMITS_PATH, LimitsClient},
};
use token::SigningKey;

use super::follow;
use crate::{config::sidecar::SidecarConfig, failure::Failure};

/// Begins to hold slices, where there is an authority to lease them from, with the key that the sidecar enrolled. At the
/// end, what is left is given back.
pub(super) fn begin(
    config: &SidecarConfig,
    key: Option<Arc<SigningKey>>,
    client: &HttpClient,
    tasks: &Tasks,
) -> Result<Option<Arc<Limits>>, Failure> {
    let (Some(authority), Some(key)) = (&config.authority, key) else { return Ok(None) };
    let base = authority.url.trim_end_matches('/').to_owned();
    let url = |path| {
        net::check_operator_url(&format!("{base}{path}"), Plaintext::LoopbackOnly).map_err(Failure::configuration)
    };
    let urls = (url(LIMITS_PATH)?, url(CHARGES_PATH)?);
    let authorise = follow::assertions(base.clone(), authority, key);
    let settings = &authority.limits;
    let client = Arc::new(LimitsClient::new(client, urls, authorise, settings.timeout.0));
    let asked = Arc::clone(&client);
    let ask = Box::new(move |question| {
        let client = Arc::clone(&asked);
        Box::pin(async move { client.ask(&question).await }) as proxy::Asking
    });
    let charge = Box::new(move |told| {
        let client = Arc::clone(&client);
        Box::pin(async move { client.charge(&told).await }) as proxy::Charging
    });
    let limits = Arc::new(Limits::new(Leasing {
        authority: base,
        slice: settings.slice.percent(),
        lease: settings.lease.0,
        patience: settings.timeout.0,
        ask,
        charge,
    }));
    let stop = tasks.shutdown_token();
    tasks.spawn("slices of limits", Arc::clone(&limits).keep(async move { stop.cancelled().await }));
    Ok(Some(limits))
}
