//! TLS for a listener: its certificate, whose client certificates it believes, and how both change while it runs.
//!
//! A change makes a whole new configuration for the handshakes that come after it; connections that are up keep
//! theirs for as long as their client's certificate is good by the new one. Files that cannot be used leave the last
//! good ones in force.

mod clients;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::clients::Clients;
use super::TlsError;
use super::files::{self, Pair, TlsFileError, Tried};
use crate::changes::keep_looking;
use crate::peer::{CertificateError, PeerCertificate, is_spiffe_id};
use crate::{SecretSource, Tasks};

pub(crate) use standing::Standing;

/// How long a peer may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How a listener speaks TLS (1.2 and 1.3). Files are looked at every few seconds; what changed holds for connections
/// that are made from then on, and what cannot be used leaves the last good ones in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// The PEM file of the listener's certificate, with the intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, in PEM. A file may be its owner's alone.
    pub key: SecretSource,
    /// The PEM file of the authorities whose client certificates are believed, except for SPIFFE IDs. Without it and
    /// `trust_domains` no client certificate is asked for, and no token that is bound to one can be used.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
    /// The PEM file of the authorities of each SPIFFE trust domain, by its name (`example.org`). A client certificate
    /// with a SPIFFE ID is believed if one of the authorities of its own trust domain signed it, and from no other.
    #[serde(default)]
    pub trust_domains: BTreeMap<String, PathBuf>,
    /// Whether a client certificate that signed itself is taken too. It names nobody: what it is good for is to be the
    /// very certificate that an agent registered (`self_signed_tls_client_auth`, RFC 8705 §2.2), or that a token is bound
    /// to.
    #[serde(default)]
    pub self_signed: bool,
    /// Whether a client has to have a certificate. Only with `client_authorities`, `trust_domains` or `self_signed`.
    #[serde(default)]
    pub client: Option<ClientCertificates>,
    /// Only client certificates with one of these names: a SPIFFE ID, or a subject as in `CN=support, O=acme`. Without
    /// it every certificate of the authorities is good.
    #[serde(default)]
    pub client_names: Option<BTreeSet<String>>,
}

impl ServerTlsConfig {
    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.self_signed || self.names_clients()
    }

    /// Whether there are authorities that say who a client is.
    #[must_use]
    pub fn names_clients(&self) -> bool {
        self.client_authorities.is_some() || !self.trust_domains.is_empty()
    }

    /// The files of certificates, which are no secret and decide who is believed.
    pub fn certificates(&self) -> impl Iterator<Item = &Path> {
        let listed = self.client_authorities.iter().chain(self.trust_domains.values());
        [&self.certificate].into_iter().chain(listed).map(PathBuf::as_path)
    }

    /// Places every relative path in it below `base`.
    pub fn place(&mut self, base: &Path) {
        let key = match &mut self.key {
            SecretSource::File(path) => Some(path),
            SecretSource::Env(_) => None,
        };
        let listed = self.client_authorities.iter_mut().chain(self.trust_domains.values_mut());
        for path in [&mut self.certificate].into_iter().chain(key).chain(listed) {
            *path = base.join(&*path);
        }
    }
}

/// Whether a client has to have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// No connection without one.
    #[default]
    Require,
    /// One that is presented is verified; a connection may have none.
    Accept,
}

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// One of its files cannot be used.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// The authorities' file cannot be used.
    #[error("client_authorities: {0}")]
    Authorities(#[source] TlsError),
    /// The authorities cannot be used to verify clients.
    #[error("client_authorities: {0}")]
    Verifier(#[source] VerifierBuilderError),
    /// Certificate and key do not go together, or cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(#[source] rustls::Error),
    /// A setting about clients who are not asked for a certificate.
    #[error("`client` needs `client_authorities`, `trust_domains` or `self_signed`")]
    ClientsNotAsked,
    /// A setting about the names of clients whom nobody names.
    #[error("`client_names` needs `client_authorities` or `trust_domains`")]
    NamesWithoutAuthorities,
    /// No name of a SPIFFE trust domain.
    #[error("trust_domains: `{0}` is not the name of a SPIFFE trust domain")]
    TrustDomain(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the TLS handshake took too long")]
    Slow,
    #[error("the TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A listener's TLS, in its present state.
#[derive(Debug)]
pub struct ServerTls {
    config: ServerTlsConfig,
    /// What the environment held at start; a file is read anew.
    given_key: Option<SecretString>,
    current: ArcSwap<State>,
    /// Told of each new state.
    changes: watch::Sender<()>,
    tried: Mutex<Tried>,
}

/// What handshakes are made with.
#[derive(Debug)]
struct State {
    server: Arc<ServerConfig>,
    /// `None` where clients are not asked who they are.
    clients: Option<Arc<Clients>>,
    expiry: Expiry,
}

/// When certificates end that somebody has to renew before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first of the listener's own.
    pub certificate: Option<Timestamp>,
    /// The first of the authorities that clients are believed by.
    pub authorities: Option<Timestamp>,
}

impl ServerTls {
    /// Reads the files. `env` looks up environment variables.
    ///
    /// # Errors
    /// When a file cannot be read, is open to others, or cannot be used.
    pub fn load(config: ServerTlsConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ServerTlsError> {
        if !config.asks_clients() && config.client.is_some() {
            return Err(ServerTlsError::ClientsNotAsked);
        }
        if !config.names_clients() && config.client_names.is_some() {
            return Err(ServerTlsError::NamesWithoutAuthorities);
        }
        let broken = |name: &&String| name.contains('/') || !is_spiffe_id(&format!("spiffe://{name}/workload"));
        if let Some(name) = config.trust_domains.keys().find(broken) {
            return Err(ServerTlsError::TrustDomain(name.clone()));
        }
        let given_key = files::given_key(&config.key, env)?;
        let files = Files::read(&config, given_key.as_ref())?;
        let built = files.build(&config)?;
        let tried = Mutex::new(Tried::new(files.digest()));
        Ok(Self { config, given_key, current: ArcSwap::from_pointee(built), changes: watch::Sender::new(()), tried })
    }

    /// When what is in force has to be renewed.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.current.load().expiry
    }

    /// Reads the files again. `true` when they changed: connections from now on are made with what they hold, and those
    /// whose client is not believed any more end.
    ///
    /// # Errors
    /// As [`Self::load`]; then the last good ones stay in force.
    pub fn reload(&self) -> Result<bool, ServerTlsError> {
        self.renew(&mut self.tried.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn renew(&self, tried: &mut Tried) -> Result<bool, ServerTlsError> {
        let files = Files::read(&self.config, self.given_key.as_ref())?;
        if !tried.is_new(files.digest()) {
            return Ok(false);
        }
        self.current.store(Arc::new(files.build(&self.config)?));
        tried.used();
        self.changes.send_replace(());
        Ok(true)
    }

    /// Looks at the files every so often until shutdown begins.
    pub fn watch(self: &Arc<Self>, every: Duration, tasks: &Tasks) {
        let tls = Arc::clone(self);
        keep_looking(tasks, "certificates", every, move || tls.look());
    }

    /// Takes in what changed of the files, if anything did.
    fn look(&self) {
        let key = match &self.config.key {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Env(_) => None,
        };
        let paths = self.config.certificates().chain(key);
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.look(paths, &self.config.certificate.display(), |tried| self.renew(tried));
    }

    /// Shakes hands, and says what the client's certificate says and whether it stays good.
    pub(crate) async fn accept(self: Arc<Self>, stream: TcpStream) -> Result<Shaken, HandshakeError> {
        let state = self.current.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&state.server));
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| HandshakeError::Slow)?
            .map_err(HandshakeError::Failed)?;
        let chain: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let client = match (chain.first(), &state.clients) {
            (Some(leaf), Some(clients)) => Some((clients.read(leaf)?, Standing::new(self, state, chain))),
            _ => None,
        };
        Ok(Shaken { stream, client })
    }
}

/// A connection over TLS, and whose it is.
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) client: Option<(PeerCertificate, Standing)>,
}

/// What the files held at one moment.
struct Files {
    own: Pair,
    authorities: Option<Vec<u8>>,
    trust_domains: BTreeMap<String, Vec<u8>>,
}

impl Files {
    fn read(config: &ServerTlsConfig, given_key: Option<&SecretString>) -> Result<Self, TlsFileError> {
        Ok(Self {
            own: Pair::read(&config.certificate, &config.key, given_key)?,
            authorities: config.client_authorities.as_deref().map(files::read).transpose()?,
            trust_domains: config
                .trust_domains
                .iter()
                .map(|(domain, path)| Ok((domain.clone(), files::read(path)?)))
                .collect::<Result<_, TlsFileError>>()?,
        })
    }

    fn digest(&self) -> Vec<u8> {
        let own = [self.own.certificate.as_slice(), self.own.key.expose_secret().as_bytes()];
        let listed = self.authorities.iter().chain(self.trust_domains.values()).map(Vec::as_slice);
        files::digest(own.into_iter().chain(listed))
    }

    fn build(&self, config: &ServerTlsConfig) -> Result<State, ServerTlsError> {
        let crypto = Arc::new(provider::default_provider());
        let (chain, key) = self.own.parse()?;
        let expiry = Expiry {
            certificate: chain.iter().filter_map(files::end).min(),
            authorities: self
                .authorities
                .iter()
                .chain(self.trust_domains.values())
                .filter_map(|pem| first_end(pem))
                .min(),
        };
        let clients = Clients::new(self, config, &crypto)?.map(Arc::new);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto))
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Pair)?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as Arc<_>),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(ServerTlsError::Pair)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if clients.is_some() {
            // A resumed session is not verified again, so a certificate would outlive its end.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(State { server: Arc::new(server), clients, expiry })
    }
}

/// When the first of the certificates in `pem` ends.
fn first_end(pem: &[u8]) -> Option<Timestamp> {
    CertificateDer::pem_slice_iter(pem).flatten().filter_map(|certificate| files::end(&certificate)).min()
}

#[cfg(test)]
mod tests;
