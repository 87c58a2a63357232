//! How the HTTP client opens a connection: names to addresses, TCP, TLS, under one deadline.
//!
//! For learned URLs the addresses are checked here, between resolving and connecting, so that a name which
//! resolves differently the second time (DNS rebinding) gains nothing: what was checked is what is dialled.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tower::Service;

use crate::BoxError;
use crate::client::heard::Listening;
use crate::url::{UrlTrust, is_public, literal_address};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Tls = HttpsConnector<HttpConnector<Resolver>>;

/// How long a connection is silent before the system asks whether the other side is still there, and between two
/// such questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection that must not be made.
#[derive(Debug, thiserror::Error)]
#[error("{host} leads to {address}, which is not a public address")]
pub(crate) struct Forbidden {
    host: String,
    address: IpAddr,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
struct TimedOut(Duration);

#[derive(Clone)]
pub(crate) struct Connector {
    tls: Tls,
    trust: UrlTrust,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(tls: rustls::ClientConfig, trust: UrlTrust, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { trust });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A server that is gone without a word would be waited for as long as a stream may be silent.
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(4));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = match trust {
            UrlTrust::Operator => builder.https_or_http(),
            UrlTrust::Learned => builder.https_only(),
        };
        let tls = builder.enable_all_versions().wrap_connector(tcp);
        Self { tls, trust, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Listening<<Tls as Service<Uri>>::Response>>;
    type Error = BoxError;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(context)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        // An address in the URL itself never reaches the resolver.
        let host = url.host().unwrap_or("");
        let checked = literal_address(host).map_or(Ok(()), |address| check(self.trust, host, address));
        if let Err(forbidden) = checked {
            return Box::pin(async { Err(forbidden.into()) });
        }
        let connecting = self.tls.call(url);
        let timeout = self.timeout;
        Box::pin(async move {
            let connection = tokio::time::timeout(timeout, connecting).await.map_err(|_| TimedOut(timeout))??;
            Ok(TokioIo::new(Listening::new(connection)))
        })
    }
}

/// Resolves names by the system's means and, for learned URLs, refuses a name with any special address.
#[derive(Clone)]
pub(crate) struct Resolver {
    trust: UrlTrust,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let trust = self.trust;
        Box::pin(async move {
            let host = name.as_str();
            let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            // One special address among public ones is refused too: an honest public name has none.
            for address in &addresses {
                check(trust, host, address.ip())?;
            }
            Ok(addresses.into_iter())
        })
    }
}

fn check(trust: UrlTrust, host: &str, address: IpAddr) -> Result<(), Forbidden> {
    match trust {
        UrlTrust::Learned if !is_public(address) => Err(Forbidden { host: host.to_owned(), address }),
        UrlTrust::Operator | UrlTrust::Learned => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(trust: UrlTrust, name: &str) -> Result<Vec<SocketAddr>, BoxError> {
        let addresses = Resolver { trust }.call(name.parse()?).await?;
        Ok(addresses.collect())
    }

    #[tokio::test]
    async fn a_learned_name_for_this_machine_is_refused_however_it_is_spelt() {
        for name in ["localhost", "LocalHost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"] {
            let error = resolve(UrlTrust::Learned, name).await.unwrap_err();
            assert!(error.is::<Forbidden>(), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn an_operators_name_may_lead_to_this_machine() {
        let addresses = resolve(UrlTrust::Operator, "localhost").await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
}
