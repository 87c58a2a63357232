//! TLS for a listener: its certificate, whose client certificates it believes, and how both change while it runs.
//!
//! A change makes a whole new configuration for the handshakes that come after it; connections that are up keep
//! theirs. Files that cannot be used leave the last good ones in force.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{TlsError, authorities};
use crate::peer::{CertificateError, PeerCertificate};
use crate::secret::readable_by_others;
use crate::{SecretError, SecretSource, Tasks};

/// How long a peer may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The largest file of certificates, in bytes. A path to a wrong file fails fast.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// How a listener speaks TLS (1.2 and 1.3). Files are looked at every few seconds; what changed holds for connections
/// that are made from then on, and what cannot be used leaves the last good ones in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// The PEM file of the listener's certificate, with the intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, in PEM. A file may be its owner's alone.
    pub key: SecretSource,
    /// The PEM file of the authorities whose client certificates are believed. Without it no client certificate is
    /// asked for, and no token that is bound to one can be used.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
    /// Whether a client has to have a certificate. Only with `client_authorities`.
    #[serde(default)]
    pub client: Option<ClientCertificates>,
    /// Only client certificates with one of these names: a SPIFFE ID, or a subject as in `CN=support, O=acme`. Without
    /// it every certificate of the authorities is good.
    #[serde(default)]
    pub client_names: Option<BTreeSet<String>>,
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
    /// A file of certificates cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The key cannot be read.
    #[error(transparent)]
    Key(SecretError),
    /// Others than its owner may read the key.
    #[error("{path} holds a private key and others may read it: chmod 600 {path}", path = .0.display())]
    OpenKey(PathBuf),
    /// The key is no PEM text with a private key in it.
    #[error("the key is not a private key in PEM form")]
    NoKey,
    /// The certificate's file cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[source] TlsError),
    /// The authorities' file cannot be used.
    #[error("client_authorities: {0}")]
    Authorities(#[source] TlsError),
    /// The authorities cannot be used to verify clients.
    #[error("client_authorities: {0}")]
    Verifier(#[source] VerifierBuilderError),
    /// Certificate and key do not go together, or cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(#[source] rustls::Error),
    /// A setting about clients whose certificates nobody signs.
    #[error("`client` and `client_names` need `client_authorities`")]
    ClientsWithoutAuthorities,
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
    #[error("the client certificate is of `{0}`, who is not among `client_names`")]
    Name(String),
}

/// A listener's TLS, in its present state.
#[derive(Debug)]
pub struct ServerTls {
    config: ServerTlsConfig,
    /// What the environment held at start; a file is read anew.
    given_key: Option<SecretString>,
    current: ArcSwap<ServerConfig>,
    /// A digest of the files that were tried last, usable or not.
    tried: Mutex<Vec<u8>>,
}

impl ServerTls {
    /// Reads the files. `env` looks up environment variables.
    ///
    /// # Errors
    /// When a file cannot be read, is open to others, or cannot be used.
    pub fn load(config: ServerTlsConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ServerTlsError> {
        if config.client_authorities.is_none() && (config.client.is_some() || config.client_names.is_some()) {
            return Err(ServerTlsError::ClientsWithoutAuthorities);
        }
        let given_key = match &config.key {
            SecretSource::File(_) => None,
            SecretSource::Env(_) => Some(config.key.load(env).map_err(ServerTlsError::Key)?),
        };
        let files = Files::read(&config, given_key.as_ref())?;
        let built = files.build(&config)?;
        let tried = Mutex::new(files.digest());
        Ok(Self { config, given_key, current: ArcSwap::from_pointee(built), tried })
    }

    /// Reads the files again. `true` when they changed, and connections from now on are made with what they hold.
    ///
    /// # Errors
    /// As [`Self::load`]; then the last good ones stay in force.
    pub fn reload(&self) -> Result<bool, ServerTlsError> {
        let files = Files::read(&self.config, self.given_key.as_ref())?;
        let digest = files.digest();
        {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if *tried == digest {
                return Ok(false);
            }
            *tried = digest;
        }
        self.current.store(Arc::new(files.build(&self.config)?));
        Ok(true)
    }

    /// Looks at the files every so often until shutdown begins.
    pub fn watch(self: &Arc<Self>, every: Duration, tasks: &Tasks) {
        let (tls, tasks) = (Arc::clone(self), tasks.clone());
        tasks.clone().spawn("certificates", async move {
            let soft = tasks.shutdown_token();
            let mut told = String::new();
            loop {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    () = soft.cancelled() => return,
                }
                let reading = Arc::clone(&tls);
                let Ok(outcome) = tasks.spawn_blocking("reading certificates", move || reading.reload()).join().await
                else {
                    continue;
                };
                tls.tell(outcome, &mut told);
            }
        });
    }

    /// Says once what became of the files: the same error every few seconds would fill the log.
    fn tell(&self, outcome: Result<bool, ServerTlsError>, told: &mut String) {
        let certificate = self.config.certificate.display();
        match outcome {
            Ok(true) => {
                told.clear();
                tracing::info!(%certificate, "new certificates hold for new connections");
            }
            Ok(false) => {}
            Err(error) => {
                let text = error.to_string();
                if *told != text {
                    tracing::warn!(%certificate, error = text, "the certificates cannot be used, the last ones stay");
                    *told = text;
                }
            }
        }
    }

    /// Shakes hands, and says what the client's certificate says.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<PeerCertificate>), HandshakeError> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| HandshakeError::Slow)?
            .map_err(HandshakeError::Failed)?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.map(PeerCertificate::read).transpose()?;
        if let (Some(names), Some(certificate)) = (&self.config.client_names, &certificate) {
            let name = certificate.identity.to_string();
            if !names.contains(&name) {
                return Err(HandshakeError::Name(name));
            }
        }
        Ok((stream, certificate))
    }
}

/// What the files held at one moment.
struct Files {
    certificate: Vec<u8>,
    key: SecretString,
    authorities: Option<Vec<u8>>,
}

impl Files {
    fn read(config: &ServerTlsConfig, given_key: Option<&SecretString>) -> Result<Self, ServerTlsError> {
        if let SecretSource::File(path) = &config.key {
            let unreadable = |cause| ServerTlsError::Unreadable { path: path.clone(), cause };
            if readable_by_others(path).map_err(unreadable)? {
                return Err(ServerTlsError::OpenKey(path.clone()));
            }
        }
        let key = match given_key {
            Some(key) => key.clone(),
            None => config.key.load(&|_| None).map_err(ServerTlsError::Key)?,
        };
        Ok(Self {
            certificate: read(&config.certificate)?,
            key,
            authorities: config.client_authorities.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        let authorities = self.authorities.as_deref().unwrap_or_default();
        for part in [self.certificate.as_slice(), self.key.expose_secret().as_bytes(), authorities] {
            // Each by itself first, so that no part can run into the next.
            context.update(digest::digest(&digest::SHA256, part).as_ref());
        }
        context.finish().as_ref().to_vec()
    }

    fn build(&self, config: &ServerTlsConfig) -> Result<ServerConfig, ServerTlsError> {
        let crypto = Arc::new(provider::default_provider());
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ServerTlsError::Certificate(TlsError::Pem(error)))?;
        if chain.is_empty() {
            return Err(ServerTlsError::Certificate(TlsError::NoCertificate));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.expose_secret().as_bytes());
        let key = key.map_err(|_| ServerTlsError::NoKey)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto))
            .with_safe_default_protocol_versions()
            .map_err(ServerTlsError::Pair)?;
        let builder = match &self.authorities {
            None => builder.with_no_client_auth(),
            Some(pem) => builder.with_client_cert_verifier(verifier(pem, config.client.unwrap_or_default(), crypto)?),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(ServerTlsError::Pair)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.authorities.is_some() {
            // A resumed session is not verified again, so a certificate would outlive its end.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(server)
    }
}

fn verifier(
    pem: &[u8],
    client: ClientCertificates,
    crypto: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, ServerTlsError> {
    let roots = Arc::new(authorities(pem).map_err(ServerTlsError::Authorities)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, crypto);
    let builder = match client {
        ClientCertificates::Require => builder,
        ClientCertificates::Accept => builder.allow_unauthenticated(),
    };
    builder.build().map_err(ServerTlsError::Verifier)
}

fn read(path: &Path) -> Result<Vec<u8>, ServerTlsError> {
    let unreadable = |cause| ServerTlsError::Unreadable { path: path.to_owned(), cause };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_CERTIFICATES {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for certificates")));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests;
