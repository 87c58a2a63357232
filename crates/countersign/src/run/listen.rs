//! The listeners of a process: bound before anything is announced, with TLS where it is configured. The files of their
//! certificates are looked at for as long as they are open, and when those end is a metric.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use net::{Endpoint, Listener, ServerTls, Tasks, bind_unix};
use opentelemetry::{KeyValue, global};
use proxy::config::{AgentListenerConfig, ListenAddress};

use crate::failure::{Exit, Failure};

/// Between two looks at the files of a listener's certificates.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// Binds `address`; `name` says whose listener it is.
pub(super) async fn tcp(
    name: &'static str,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    background: &Tasks,
) -> Result<(Endpoint, SocketAddr), Failure> {
    let bound = bind(address).await?;
    let local = bound.local_addr();
    let Some(tls) = tls else { return Ok((Endpoint::Tcp(bound), local)) };
    tls.watch(CERTIFICATES, background);
    expiry(name, &tls);
    Ok((Endpoint::Tls(bound, tls), local))
}

/// Where agents connect.
pub(super) async fn agents(
    listener: &AgentListenerConfig,
    tls: Option<Arc<ServerTls>>,
    background: &Tasks,
) -> Result<Endpoint, Failure> {
    match listener.address().map_err(Failure::configuration)? {
        ListenAddress::Tcp(address, _) => Ok(tcp("agent_listener", address, tls, background).await?.0),
        ListenAddress::Unix { path, mode, allowed } => bind_unix(path, mode.bits(), allowed.cloned())
            .map(Endpoint::Unix)
            .map_err(|error| Failure::because(Exit::Unavailable, "listen", error)),
    }
}

async fn bind(address: SocketAddr) -> Result<Listener, Failure> {
    net::bind(address).await.map_err(|error| Failure::because(Exit::Unavailable, "listen", error))
}

/// Somebody has to renew these before they end.
fn expiry(name: &'static str, tls: &Arc<ServerTls>) {
    // Meters live as long as the process, and a listener may end before it.
    let seen: Weak<ServerTls> = Arc::downgrade(tls);
    let _expiry = global::meter("countersign")
        .i64_observable_gauge("countersign_credential_expiry_timestamp")
        .with_unit("s")
        .with_description("When the first of these certificates ends, in seconds since 1970")
        .with_callback(move |observer| {
            let Some(expiry) = seen.upgrade().map(|tls| tls.expiry()) else { return };
            let tell = |kind: String, end: Option<Timestamp>| {
                if let Some(end) = end {
                    observer.observe(end.as_second(), &[KeyValue::new("kind", kind)]);
                }
            };
            tell(name.to_owned(), expiry.certificate);
            tell(format!("{name}_clients"), expiry.authorities);
        })
        .build();
}
