//! Listening sockets.
//!
//! A listener is bound before anything is announced ready, so that a taken port is an error at start.

mod complaints;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

pub(crate) use complaints::Complaints;

/// How long to wait when the process is out of file descriptors: trying at once would only burn a core.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the connection came from.
    pub address: SocketAddr,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
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
    let failed = |cause| ListenError { address, cause };
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

    /// The next connection. Failures of single connections, and of the system to give one, are waited out.
    pub(crate) async fn accept(&self, complaints: &mut Complaints) -> (TcpStream, Peer) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY refused");
                    }
                    return (stream, Peer { address });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if let Some(failures) = complaints.due(crate::clock::monotonic()) {
                        tracing::warn!(address = %self.local, %error, failures, "cannot accept connections");
                    }
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
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
