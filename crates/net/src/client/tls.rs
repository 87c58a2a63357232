//! What one server is shown and held to over TLS: a client certificate, and authorities of its own. Files are looked
//! at again while the client is in use; what cannot be used leaves the last good ones in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::SecretSource;
use crate::tls::files::{self, Pair, TlsFileError, Tried};
use crate::tls::{Roots, TlsError, client_builder, client_config};

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
    /// One of the files cannot be used.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// The authorities' file cannot be used.
    #[error("authorities: {0}")]
    Authorities(#[source] TlsError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Setup(TlsError),
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
    tried: Mutex<Tried>,
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
        let given_key = config.key.as_ref().map(|source| files::given_key(source, env)).transpose()?.flatten();
        let files = Files::read(&config, given_key.as_ref())?;
        let (current, tried) = (ArcSwap::from_pointee(files.build()?), Mutex::new(Tried::new(files.digest())));
        Ok(Self { config, given_key, current, tried })
    }

    /// What connections made now are made with.
    pub(super) fn current(&self) -> Arc<Shown> {
        self.current.load_full()
    }

    /// Takes in what changed of the files, if anything did. Reads them, so it is not for where calls are answered.
    pub fn look(&self) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        tried.look(self.config.paths(), &self.config.place().display(), |tried| {
            let files = Files::read(&self.config, self.given_key.as_ref())?;
            if !tried.is_new(files.digest()) {
                return Ok(false);
            }
            self.current.store(Arc::new(files.build()?));
            tried.used();
            Ok::<_, ClientTlsError>(true)
        });
    }

    /// When the client certificate that is shown now ends, or the first of those that vouch for it.
    pub fn ends(&self) -> Option<Timestamp> {
        self.current.load().certificate.as_ref().and_then(|certificate| certificate.ends)
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
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let key = match &self.key {
            Some(SecretSource::File(path)) => Some(path),
            Some(SecretSource::Env(_)) | None => None,
        };
        [self.authorities.as_ref(), self.certificate.as_ref(), key].into_iter().flatten().map(PathBuf::as_path)
    }

    /// A file of it, for a person.
    fn place(&self) -> &Path {
        self.certificate.as_deref().or(self.authorities.as_deref()).unwrap_or_else(|| Path::new(""))
    }
}

/// What the files held at one moment.
struct Files {
    authorities: Option<Vec<u8>>,
    own: Option<Pair>,
}

impl Files {
    fn read(config: &ClientTlsConfig, given_key: Option<&SecretString>) -> Result<Self, TlsFileError> {
        let own = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => Some(Pair::read(certificate, key, given_key)?),
            _ => None,
        };
        Ok(Self { authorities: config.authorities.as_deref().map(files::read).transpose()?, own })
    }

    fn digest(&self) -> Vec<u8> {
        let own = self.own.iter().flat_map(|pair| [pair.certificate.as_slice(), pair.key.expose_secret().as_bytes()]);
        files::digest(self.authorities.iter().map(Vec::as_slice).chain(own))
    }

    fn build(&self) -> Result<Shown, ClientTlsError> {
        let own = match &self.authorities {
            Some(pem) => Some(client_config(Roots::Pem(pem.clone())).map_err(ClientTlsError::Authorities)?),
            None => None,
        };
        Ok(Shown { own, certificate: self.own.as_ref().map(client_certificate).transpose()? })
    }
}

fn client_certificate(pair: &Pair) -> Result<ClientCertificate, ClientTlsError> {
    let (chain, key) = pair.parse()?;
    let ends = chain.iter().filter_map(files::end).min();
    let config = client_builder()
        .map_err(ClientTlsError::Setup)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map_err(ClientTlsError::Pair)?;
    Ok(ClientCertificate { resolver: config.client_auth_cert_resolver, ends })
}

#[cfg(test)]
mod tests;
