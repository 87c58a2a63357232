//! Sockets, TLS, the HTTP client, tasks and shutdown, and the only clock.
//!
//! Everything here is mechanism: it knows how bytes travel and when things end, never who may do what.

pub mod body;
pub mod changes;
pub mod client;
pub mod clock;
mod connect;
pub mod fetch;
pub mod listen;
mod outbox;
pub mod peer;
pub mod secret;
pub mod serve;
pub mod share;
pub mod tasks;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod url;

pub use body::Body;
pub use changes::{Stamp, keep_looking};
pub use client::tls::{ClientTls, ClientTlsConfig, ClientTlsError};
pub use client::{Believed, ClientOptions, HttpClient, NotSentReason, SendError};
pub use fetch::{FetchError, FetchRequest, Fetched, fetch};
pub use listen::{Complaints, Endpoint, ListenError, Listener, LocalAddress, UnixListener, bind, bind_unix};
pub use outbox::{Destination, Fields, Outbox};
pub use peer::{Peer, PeerAddress, PeerCertificate, PeerCredentials, PeerIdentity};
pub use secret::{SecretError, SecretSource};
pub use serve::{Census, ServeLimits, serve};
pub use share::{Full, Place, Sharer, Shares};
pub use tasks::{Desk, Task, TaskEnd, Tasks};
pub use tls::files::TlsFileError;
pub use tls::server::{ClientCertificates, Expiry, ServerTls, ServerTlsConfig, ServerTlsError};
pub use tls::{Roots, TlsError, client_config, install_crypto};
pub use url::{Plaintext, UrlError, UrlTrust, check_operator_url};

/// Any error that a body or a connection can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error and its causes as one line for a person: hyper's own `Display` names the stage only.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Several layers repeat the text of the one below.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
