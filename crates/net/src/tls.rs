//! TLS: whom we believe at the other end, and with which cryptography.
//!
//! One provider (aws-lc-rs) for the whole process; TLS 1.2 and 1.3 with rustls's own safe choices.

pub mod files;
pub mod server;

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::{BoxError, peer::PeerCertificate};

/// Which certificate authorities a client believes.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Those of the operating system.
    Platform,
    /// Only those in this PEM text (one or more certificates), not the system's.
    Pem(Vec<u8>),
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system's certificate authorities could not be read.
    #[error("cannot read the system's certificate authorities: {0}")]
    Platform(#[source] rustls::Error),
    /// The PEM text is broken.
    #[error("the certificate file is not valid PEM: {0}")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The PEM text holds no certificate.
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    /// A certificate in it cannot be an authority.
    #[error("a certificate in the file cannot be used as an authority: {0}")]
    Certificate(#[source] rustls::Error),
    /// The provider and the TLS versions do not go together.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// Makes aws-lc-rs the process's provider, so that libraries which ask for "the default" agree with us.
/// Call once at start, before anything else; later calls do nothing.
pub fn install_crypto() {
    if CryptoProvider::get_default().is_none() && aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("another thread installed the cryptography provider first");
    }
}

/// A client's TLS configuration, without a client certificate. ALPN is left to the HTTP client. The system's authorities
/// are read once a process.
///
/// # Errors
/// When the authorities cannot be read or used.
pub fn client_config(roots: Roots) -> Result<ClientConfig, TlsError> {
    match roots {
        Roots::Platform => platform(),
        Roots::Pem(pem) => Ok(client_builder()?.with_root_certificates(authorities(&pem)?).with_no_client_auth()),
    }
}

/// Hundreds of files are read and as many certificates kept, so every client shares them.
fn platform() -> Result<ClientConfig, TlsError> {
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(config.clone());
    }
    let builder = client_builder()?.with_platform_verifier().map_err(TlsError::Platform)?;
    Ok(SYSTEM.get_or_init(|| builder.with_no_client_auth()).clone())
}

/// A client's configuration that believes nobody yet.
pub(crate) fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)
}

/// Whom the first certificate in `pem` names, believed or not.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn first_certificate(pem: &[u8]) -> Result<PeerCertificate, BoxError> {
    let first = CertificateDer::pem_slice_iter(pem).next().ok_or(TlsError::NoCertificate)?.map_err(TlsError::Pem)?;
    Ok(PeerCertificate::read(&first)?)
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.map_err(TlsError::Pem)?).map_err(TlsError::Certificate)?;
    }
    if store.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_usable_certificate_is_refused() {
        let refuse = |pem: &str| client_config(Roots::Pem(pem.as_bytes().to_vec())).unwrap_err();
        assert!(matches!(refuse(""), TlsError::NoCertificate));
        assert!(matches!(refuse("just text"), TlsError::NoCertificate));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(refuse(cut), TlsError::Pem(_)));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(refuse(empty), TlsError::Certificate(_)));
    }

    #[test]
    fn the_provider_may_be_installed_twice() {
        install_crypto();
        install_crypto();
        assert!(CryptoProvider::get_default().is_some());
    }
}
