//! The files that TLS is made of, at either end: read with a bound and whole before any of it is used, a key only where
//! it is private, and looked at again for changes.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::TlsError;
use crate::changes::Stamp;
use crate::{SecretError, SecretSource, clock};

/// The largest file of certificates, in bytes. A path to a wrong file fails fast.
const MAX_CERTIFICATES: u64 = 1024 * 1024;

/// Why a file cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file of certificates cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The key cannot be read, or others may read it.
    #[error("the private key: {0}")]
    Key(#[source] SecretError),
    /// The key is no PEM text with a private key in it.
    #[error("the key is not a private key in PEM form")]
    NoKey,
    /// The certificate's file cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[source] TlsError),
}

/// A certificate and its key, as they were read.
pub(crate) struct Pair {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: SecretString,
}

impl Pair {
    /// Reads both. `given` is a key that the environment held at start; a file is read anew.
    pub(crate) fn read(
        certificate: &Path,
        key: &SecretSource,
        given: Option<&SecretString>,
    ) -> Result<Self, TlsFileError> {
        let key = match given {
            Some(key) => key.clone(),
            None => key.load(&|_| None).map_err(TlsFileError::Key)?,
        };
        Ok(Self { certificate: read(certificate)?, key })
    }

    /// The end's own certificate with those that lead to an authority, and the key.
    pub(crate) fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFileError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsFileError::Certificate(TlsError::Pem(error)))?;
        if chain.is_empty() {
            return Err(TlsFileError::Certificate(TlsError::NoCertificate));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.expose_secret().as_bytes());
        Ok((chain, key.map_err(|_| TlsFileError::NoKey)?))
    }
}

/// The key that the environment holds at start.
pub(crate) fn given_key(
    source: &SecretSource,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<SecretString>, TlsFileError> {
    match source {
        SecretSource::File(_) => Ok(None),
        SecretSource::Env(_) => source.load(env).map(Some).map_err(TlsFileError::Key),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let unreadable = |cause| TlsFileError::Unreadable { path: path.to_owned(), cause };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_CERTIFICATES {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for certificates")));
    }
    fs::read(path).map_err(unreadable)
}

/// The last moment at which a certificate is good: all of the second that it names (RFC 5280 §4.1.2.5).
pub(crate) fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    validity(certificate).map(|(_, until)| until)
}

/// The first and the last moment of which a certificate holds.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let from = Timestamp::from_second(validity.not_before.timestamp()).ok()?;
    Some((from, Timestamp::new(validity.not_after.timestamp(), 999_999_999).ok()?))
}

/// A digest of several texts that tells where one ends.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        // Each by itself first, so that no part can run into the next.
        context.update(digest::digest(&digest::SHA256, part).as_ref());
    }
    context.finish().as_ref().to_vec()
}

/// What was last found of some files, so that only a change makes anything new, and the same error is said once.
#[derive(Debug)]
pub(crate) struct Tried {
    /// `None` where a change could have gone unseen.
    stamps: Option<Vec<Option<Stamp>>>,
    /// Of what they held.
    digest: Vec<u8>,
    /// Whether that could be used.
    usable: bool,
    told: Option<String>,
}

impl Tried {
    /// Of files that hold what `digest` says, which can be used.
    pub(crate) fn new(digest: Vec<u8>) -> Self {
        Self { stamps: None, digest, usable: true, told: None }
    }

    /// Whether content of this digest has not been tried last; it is from now on.
    pub(crate) fn is_new(&mut self, digest: Vec<u8>) -> bool {
        let new = self.digest != digest;
        if new {
            self.digest = digest;
            self.usable = false;
        }
        new
    }

    /// What was tried last can be used.
    pub(crate) fn used(&mut self) {
        self.usable = true;
    }

    /// Takes in what changed of the files at `paths`, and says what came of it. `of` names them for a person.
    pub(crate) fn look<'a, E: Display>(
        &mut self,
        paths: impl Iterator<Item = &'a Path>,
        of: &dyn Display,
        renew: impl FnOnce(&mut Self) -> Result<bool, E>,
    ) {
        // Before they are read, so that a change from now on is one.
        let stamps: Vec<_> = paths.map(Stamp::of).collect();
        if self.told.is_none() && self.stamps.as_ref() == Some(&stamps) {
            return;
        }
        let now = clock::now();
        let settled = stamps.iter().flatten().all(|stamp| stamp.is_settled(now));
        self.stamps = settled.then_some(stamps);
        match renew(self) {
            Ok(true) => {
                self.told = None;
                tracing::info!(files = %of, "new TLS files hold for new connections");
            }
            Ok(false) if self.usable => self.told = None,
            Ok(false) => {}
            Err(error) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    tracing::warn!(files = %of, error = text, "TLS files cannot be used, the last ones stay");
                }
                self.told = Some(text);
            }
        }
    }
}
