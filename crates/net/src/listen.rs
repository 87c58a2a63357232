//! Listening sockets: TCP, TLS over it, and Unix.
//!
//! A listener is bound before anything is announced ready, so that a taken port is an error at start.

mod complaints;
mod heads;
mod observed;
mod stream;
mod unix;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};

pub use complaints::Complaints;
pub use unix::{UnixListener, bind_unix};

use crate::peer::{Peer, PeerAddress};
use crate::tls::server::{HandshakeError, ServerTls, Shaken, Standing};

pub(crate) use heads::HeadFault;
pub(crate) use observed::Observed;
pub(crate) use stream::Stream;

/// How long to wait when the process is out of file descriptors: trying at once would only burn a core.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ListenError {
    /// The address or path asked for.
    pub address: String,
    /// What the system said.
    #[source]
    pub cause: io::Error,
}

/// A bound TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

/// Binds `address`; port 0 takes a free one (see [`Listener::local_addr`]).
///
/// # Errors
/// When the address is taken, not ours, or not permitted.
pub async fn bind(address: SocketAddr) -> Result<Listener, ListenError> {
    let failed = |cause| ListenError { address: address.to_string(), cause };
    // tokio sets SO_REUSEADDR on Unix: a restart must not wait for old connections to time out.
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let local = socket.local_addr().map_err(failed)?;
    Ok(Listener { socket, local })
}

impl Listener {
    /// The address actually bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.socket.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
        Ok((stream, address))
    }
}

/// Where connections come in, and what they speak before HTTP.
#[derive(Debug)]
pub enum Endpoint {
    /// HTTP in clear text over TCP.
    Tcp(Listener),
    /// HTTP over TLS over TCP.
    Tls(Listener, Arc<ServerTls>),
    /// HTTP in clear text over a Unix socket.
    Unix(UnixListener),
}

/// Where an [`Endpoint`] listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> LocalAddress {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => LocalAddress::Tcp(listener.local),
            Self::Unix(listener) => LocalAddress::Unix(listener.path().to_owned()),
        }
    }

    /// The next connection. Failures of single connections, and of the system to give one, are waited out.
    pub(crate) async fn accept(&self, complaints: &mut Complaints) -> Accepted {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, from)| Accepted::Tcp(stream, from)),
                Self::Tls(listener, tls) => {
                    listener.accept().await.map(|(stream, from)| Accepted::Tls(stream, from, Arc::clone(tls)))
                }
                Self::Unix(listener) => {
                    listener.accept().await.map(|(stream, from)| Accepted::Unix(stream, PeerAddress::Unix(from)))
                }
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if let Some(failures) = complaints.due(crate::clock::monotonic()) {
                        tracing::warn!(address = %self.local(), %error, failures, "cannot accept connections");
                    }
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            }
        }
    }
}

impl From<Listener> for Endpoint {
    fn from(listener: Listener) -> Self {
        Self::Tcp(listener)
    }
}

/// A connection about whose peer nothing is known but where it is.
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, Arc<ServerTls>),
    Unix(UnixStream, PeerAddress),
}

impl Accepted {
    /// Shakes hands where that is to be done. Takes as long as the peer likes, up to a deadline.
    pub(crate) async fn ready(self) -> Result<Ready, (PeerAddress, HandshakeError)> {
        match self {
            Self::Tcp(stream, address) => {
                Ok(Ready { stream: Stream::Tcp(stream), peer: Peer::tcp(address), standing: None })
            }
            Self::Unix(stream, address) => {
                let peer = Peer { address, secure: false, certificate: None };
                Ok(Ready { stream: Stream::Unix(stream), peer, standing: None })
            }
            Self::Tls(stream, address, tls) => {
                let address = PeerAddress::Tcp(address);
                let Shaken { stream, client } = tls.accept(stream).await.map_err(|error| (address, error))?;
                let (certificate, standing) = client.unzip();
                let peer = Peer { address, secure: true, certificate: certificate.map(Arc::new) };
                Ok(Ready { stream: Stream::Tls(Box::new(stream)), peer, standing: standing.map(Arc::new) })
            }
        }
    }
}

/// A connection that is ready for HTTP.
pub(crate) struct Ready {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// Of its client certificate, if it has one.
    pub(crate) standing: Option<Arc<Standing>>,
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_in_the_error() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        assert_ne!(first.local_addr().port(), 0);
        let error = bind(first.local_addr()).await.unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.local_addr().to_string()));
    }
}
