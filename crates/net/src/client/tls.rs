//! What one server is shown and held to over TLS: a client certificate, and authorities of its own. Files are looked
//! at again while the client is in use; what cannot be used leaves the last good ones in force.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::secret::readable_by_others;
use crate::tls::{Roots, TlsError, client_builder, client_config};
use crate::{SecretError, SecretSource, clock};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// The largest file of certificates, in bytes. A path to a wrong file fails fast.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// What a tool is shown and held to over TLS, beside what holds for all. Files are read again when they change; what
/// changed holds for connections made from then on, and what cannot be used leaves the last good ones in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTlsConfig {
    /// The PEM file of the authorities that may vouch for this server, instead of those that hold for all.
    pub authorities: Option<PathBuf>,
    /// The PEM file of the client certificate to show, with the intermediate ones after it. Only with `key`.
    pub certificate: Option<PathBuf>,
    /// The private key of the client certificate, in PEM. A file may be its owner's alone.
    pub key: Option<SecretSource>,
}

/// Why these settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// Nothing is set.
    #[error("needs `authorities`, or `certificate` and `key`")]
    Nothing,
    /// Half of a client certificate.
    #[error("`certificate` and `key` go together")]
    Half,
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
    #[error("authorities: {0}")]
    Authorities(#[source] TlsError),
    /// Certificate and key do not go together, or cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Pair(#[source] rustls::Error),
}

/// The same in its present state.
#[derive(Debug)]
pub struct ClientTls {
    config: ClientTlsConfig,
    /// What the environment held at start; a file is read anew.
    given_key: Option<SecretString>,
    current: ArcSwap<Shown>,
    looked: Mutex<Looked>,
}

/// What new connections are made with.
#[derive(Debug)]
pub(super) struct Shown {
    /// Made of the server's own authorities, where it has some.
    own: Option<ClientConfig>,
    certificate: Option<ClientCertificate>,
}

#[derive(Debug)]
struct ClientCertificate {
    resolver: Arc<dyn ResolvesClientCert>,
    /// When the first certificate of its chain ends.
    ends: Option<Timestamp>,
}

#[derive(Debug)]
struct Looked {
    next: Instant,
    stamps: Vec<Option<Stamp>>,
    /// What was last said about files that cannot be used.
    told: Option<String>,
}

/// What shows that a file changed.
type Stamp = (SystemTime, u64, u64);

impl ClientTls {
    /// Reads the files. `env` looks up environment variables.
    ///
    /// # Errors
    /// When a file cannot be read, is open to others, or cannot be used.
    pub fn load(config: ClientTlsConfig, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ClientTlsError> {
        if config.certificate.is_some() != config.key.is_some() {
            return Err(ClientTlsError::Half);
        }
        if config == ClientTlsConfig::default() {
            return Err(ClientTlsError::Nothing);
        }
        let given_key = match &config.key {
            Some(source @ SecretSource::Env(_)) => Some(source.load(env).map_err(ClientTlsError::Key)?),
            Some(SecretSource::File(_)) | None => None,
        };
        // Before the files are read, so that a change from now on is one.
        let looked = Looked { next: soon(), stamps: config.stamps(), told: None };
        let shown = config.read(given_key.as_ref())?;
        Ok(Self { config, given_key, current: ArcSwap::from_pointee(shown), looked: Mutex::new(looked) })
    }

    /// What connections made now are made with. Looks at the files again, at most once a second.
    pub(super) fn current(&self) -> Arc<Shown> {
        // Whoever finds somebody else looking takes what there is.
        if let Ok(mut looked) = self.looked.try_lock()
            && clock::monotonic() >= looked.next
        {
            looked.next = soon();
            let stamps = self.config.stamps();
            if stamps != looked.stamps {
                looked.stamps = stamps;
                self.reload(&mut looked);
            } else if looked.told.is_some() {
                // Certificate and key are two files: the one may have come while the other was read.
                self.reload(&mut looked);
            }
        }
        self.current.load_full()
    }

    /// When the client certificate that is shown now ends, or the first of those that vouch for it.
    pub fn ends(&self) -> Option<Timestamp> {
        self.current.load().certificate.as_ref().and_then(|certificate| certificate.ends)
    }

    fn reload(&self, looked: &mut Looked) {
        match self.config.read(self.given_key.as_ref()) {
            Ok(shown) => {
                self.current.store(Arc::new(shown));
                looked.told = None;
                tracing::info!(config = %self.config.place(), "new TLS files hold for new connections to a tool");
            }
            Err(error) => {
                let text = error.to_string();
                if looked.told.as_ref() != Some(&text) {
                    let place = self.config.place();
                    tracing::warn!(config = %place, error = text, "TLS files for a tool cannot be used, the last ones stay");
                }
                looked.told = Some(text);
            }
        }
    }

    /// When the files are looked at next: for tests, which do not wait.
    #[cfg(test)]
    pub(super) fn look_now(&self) {
        self.looked.lock().unwrap().next = clock::monotonic();
    }
}

impl Shown {
    /// The configuration for a pool of its own, where `general` holds for all servers.
    pub(super) fn over(&self, general: &ClientConfig) -> ClientConfig {
        let mut config = self.own.as_ref().unwrap_or(general).clone();
        if let Some(certificate) = &self.certificate {
            config.client_auth_cert_resolver = Arc::clone(&certificate.resolver);
        }
        config
    }
}

impl ClientTlsConfig {
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let key = match &self.key {
            Some(SecretSource::File(path)) => Some(path),
            Some(SecretSource::Env(_)) | None => None,
        };
        [self.authorities.as_ref(), self.certificate.as_ref(), key]
            .map(|path| path.and_then(|path| stamp(path)))
            .to_vec()
    }

    fn read(&self, given_key: Option<&SecretString>) -> Result<Shown, ClientTlsError> {
        let own = match &self.authorities {
            Some(path) => Some(client_config(Roots::Pem(read(path)?)).map_err(ClientTlsError::Authorities)?),
            None => None,
        };
        let certificate = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(client_certificate(certificate, key, given_key)?),
            _ => None,
        };
        Ok(Shown { own, certificate })
    }

    /// A file of it, for a person.
    fn place(&self) -> std::path::Display<'_> {
        self.certificate.as_deref().or(self.authorities.as_deref()).unwrap_or_else(|| Path::new("")).display()
    }
}

fn client_certificate(
    certificate: &Path,
    source: &SecretSource,
    given_key: Option<&SecretString>,
) -> Result<ClientCertificate, ClientTlsError> {
    if let SecretSource::File(path) = source {
        let unreadable = |cause| ClientTlsError::Unreadable { path: path.clone(), cause };
        if readable_by_others(path).map_err(unreadable)? {
            return Err(ClientTlsError::OpenKey(path.clone()));
        }
    }
    let key = match given_key {
        Some(key) => key.clone(),
        None => source.load(&|_| None).map_err(ClientTlsError::Key)?,
    };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ClientTlsError::Certificate(TlsError::Pem(error)))?;
    if chain.is_empty() {
        return Err(ClientTlsError::Certificate(TlsError::NoCertificate));
    }
    let ends = chain.iter().filter_map(end).min();
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| ClientTlsError::NoKey)?;
    let config = client_builder()
        .map_err(ClientTlsError::Certificate)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map_err(ClientTlsError::Pair)?;
    Ok(ClientCertificate { resolver: config.client_auth_cert_resolver, ends })
}

fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn read(path: &Path) -> Result<Vec<u8>, ClientTlsError> {
    let unreadable = |cause| ClientTlsError::Unreadable { path: path.to_owned(), cause };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_CERTIFICATES {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for certificates")));
    }
    fs::read(path).map_err(unreadable)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn soon() -> Instant {
    let now = clock::monotonic();
    now.checked_add(LOOK).unwrap_or(now)
}

#[cfg(test)]
mod tests;
