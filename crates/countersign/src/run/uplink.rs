//! What a sidecar tells its authority of its ledger: heads, so that they are anchored there, all of it, where it is
//! shipped, and that it cannot be written.

use std::sync::Arc;

use audit::{
    Ledger, LedgerError,
    ship::{Anchoring, Backlog, Shipping, Standing, Uplink},
};
use net::{HttpClient, Tasks, UrlTrust};
use opentelemetry::global;
use token::SigningKey;

use super::{follow, outages, prepare::Prepared, sidecar::client};
use crate::{
    admin::status::{AnchoredStatus, ShippedStatus},
    config::sidecar::SidecarConfig,
    failure::Failure,
};

/// What is known of how far the authority has the ledger.
#[derive(Default)]
pub(super) struct Told {
    anchoring: Option<Arc<Standing>>,
    shipping: Option<Arc<Backlog>>,
}

impl Told {
    pub(super) fn anchored(&self) -> Option<AnchoredStatus> {
        self.anchoring.as_ref().map(|standing| AnchoredStatus {
            size: standing.size(),
            lag_seconds: standing.lag().as_secs_f64(),
            last_error: standing.trouble(),
        })
    }

    pub(super) fn shipped(&self) -> Option<ShippedStatus> {
        self.shipping.as_ref().map(|backlog| ShippedStatus {
            lag_seconds: backlog.lag().as_secs_f64(),
            refuses_writes: backlog.refuses_writes().is_some(),
            last_error: backlog.trouble(),
        })
    }
}

/// Begins to tell, where there is an authority, with the key that the sidecar enrolled.
pub(super) fn begin(
    config: &SidecarConfig,
    key: Option<&Arc<SigningKey>>,
    client: &HttpClient,
    ledger: &Ledger,
    tasks: &Tasks,
) -> Result<Told, Failure> {
    let mut told = Told::default();
    let (Some(authority), Some(key)) = (&config.authority, key) else { return Ok(told) };
    let base = authority.url.trim_end_matches('/');
    let authorise = follow::assertions(base.to_owned(), authority, Arc::clone(key));
    outages::Authority::new(client, base, authorise)?.watch(ledger, tasks);
    let uplink = Uplink {
        client: client.apart(None),
        authority: base.to_owned(),
        authorise: Arc::from(follow::assertions(base.to_owned(), authority, Arc::clone(key))),
        sidecar: format!("{base}/sidecars/{}", authority.credential.id),
    };
    if let Some(ship) = &config.ledger.ship {
        let own = Uplink { client: client.apart(None), ..uplink.clone() };
        let shipping = Shipping::new(ledger.clone(), own, ship);
        observe_backlog(&shipping.backlog());
        told.shipping = Some(shipping.backlog());
        let stop = tasks.shutdown_token();
        tasks.spawn("ship the ledger", shipping.run(async move { stop.cancelled().await }));
    }
    let anchoring = Anchoring::new(ledger.clone(), uplink);
    observe(&anchoring.standing());
    told.anchoring = Some(anchoring.standing());
    let stop = tasks.shutdown_token();
    tasks.spawn("anchor the ledger's heads", anchoring.run(async move { stop.cancelled().await }));
    Ok(told)
}

/// Tells that the ledger could not be opened, once: who starts the sidecar again has it told again.
pub(super) async fn not_opened(config: &SidecarConfig, prepared: &Prepared, error: &LedgerError) {
    let (Some(authority), Some(key)) = (&config.authority, &prepared.enrolled) else { return };
    // One that another process writes can be written.
    if matches!(error, LedgerError::Locked(_)) {
        return;
    }
    let base = authority.url.trim_end_matches('/');
    let authorise = follow::assertions(base.to_owned(), authority, Arc::clone(key));
    let told = match client(&prepared.roots, UrlTrust::Operator)
        .and_then(|client| outages::Authority::new(&client, base, authorise))
    {
        Ok(authority) => authority.not_opened(&config.ledger.dir, error).await,
        Err(failure) => Err(failure.to_string()),
    };
    if let Err(why) = told {
        tracing::warn!(why, "the authority was not told that the ledger cannot be opened");
    }
}

fn observe_backlog(backlog: &Arc<Backlog>) {
    let seen = Arc::downgrade(backlog);
    let _lag = global::meter("countersign")
        .f64_observable_gauge("countersign_ledger_oldest_unshipped")
        .with_unit("s")
        .with_description("The age of the oldest record of the ledger that is not at the authority")
        .with_callback(move |observer| {
            if let Some(backlog) = seen.upgrade() {
                observer.observe(backlog.lag().as_secs_f64(), &[]);
            }
        })
        .build();
}

fn observe(standing: &Arc<Standing>) {
    // Meters live as long as the process, and a sidecar may end before it.
    let seen = Arc::downgrade(standing);
    let _lag = global::meter("countersign")
        .f64_observable_gauge("countersign_ledger_unanchored")
        .with_unit("s")
        .with_description("For how long a signed head of the ledger has not been anchored at the authority")
        .with_callback(move |observer| {
            if let Some(standing) = seen.upgrade() {
                observer.observe(standing.lag().as_secs_f64(), &[]);
            }
        })
        .build();
}
