//! Whose client certificates a listener believes. A SPIFFE ID is believed from the authorities of its own trust domain
//! and no others, any other certificate from the listener's client authorities: nobody signs for somebody else's names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};

use super::{ClientCertificates, Files, ServerTlsConfig, ServerTlsError};
use crate::peer::{CertificateError, PeerCertificate, PeerIdentity};
use crate::tls::{authorities, files::validity};

/// Verifies what clients present.
#[derive(Debug)]
pub(super) struct Clients {
    /// For certificates without a SPIFFE ID.
    subjects: Option<Arc<dyn ClientCertVerifier>>,
    /// For those with one, by their trust domain.
    domains: BTreeMap<String, Arc<dyn ClientCertVerifier>>,
    /// Whether those that signed themselves are taken, without a name.
    self_signed: bool,
    names: Option<BTreeSet<String>>,
    mandatory: bool,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a client certificate is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotBelieved {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("there are no authorities for the trust domain of `{0}`")]
    Domain(String),
    #[error("there are no authorities for certificates without a SPIFFE ID, as that of `{0}`")]
    Subject(String),
    #[error("the client certificate is of `{0}`, who is not among `client_names`")]
    Name(String),
    #[error("the client certificate signed itself, and is not good at this time")]
    Time,
    #[error(transparent)]
    Path(#[from] rustls::Error),
}

impl Clients {
    /// `None` where clients are not asked who they are.
    pub(super) fn new(
        files: &Files,
        config: &ServerTlsConfig,
        crypto: &Arc<CryptoProvider>,
    ) -> Result<Option<Self>, ServerTlsError> {
        if !config.asks_clients() {
            return Ok(None);
        }
        let mut hints = Vec::new();
        let mut verifier = |pem: &[u8]| {
            let roots = authorities(pem).map_err(ServerTlsError::Authorities)?;
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(crypto));
            let built = builder.build().map_err(ServerTlsError::Verifier)?;
            hints.extend_from_slice(built.root_hint_subjects());
            Ok::<_, ServerTlsError>(built)
        };
        let subjects = files.authorities.as_deref().map(&mut verifier).transpose()?;
        let mut domains = BTreeMap::new();
        for (domain, pem) in &files.trust_domains {
            domains.insert(domain.clone(), verifier(pem)?);
        }
        if config.self_signed {
            // A client that is told whose certificates are wanted does not offer its own.
            hints.clear();
        }
        Ok(Some(Self {
            subjects,
            domains,
            self_signed: config.self_signed,
            names: config.client_names.clone(),
            mandatory: config.client.unwrap_or_default() == ClientCertificates::Require,
            hints,
            algorithms: crypto.signature_verification_algorithms,
        }))
    }

    /// Whom a certificate names, by the rules of this listener: believed or not.
    pub(super) fn read(&self, leaf: &CertificateDer<'_>) -> Result<PeerCertificate, CertificateError> {
        if self.self_signed { PeerCertificate::read_self_signed(leaf) } else { PeerCertificate::read(leaf) }
    }

    /// Whom a certificate names, if it is good at `now`.
    pub(super) fn believed(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerCertificate, NotBelieved> {
        let certificate = self.read(leaf)?;
        let name = certificate.identity.to_string();
        let verifier = match &certificate.identity {
            PeerIdentity::Spiffe(id) => {
                let domain = trust_domain(id).and_then(|domain| self.domains.get(domain));
                domain.ok_or_else(|| NotBelieved::Domain(name.clone()))?
            }
            PeerIdentity::Subject(_) => self.subjects.as_ref().ok_or_else(|| NotBelieved::Subject(name.clone()))?,
            // There is no path to verify (RFC 8705 §2.2). The handshake proves that the client holds its key.
            PeerIdentity::SelfSigned if self.names.is_some() => return Err(NotBelieved::Name(name)),
            PeerIdentity::SelfSigned if is_of(leaf, now) => return Ok(certificate),
            PeerIdentity::SelfSigned => return Err(NotBelieved::Time),
        };
        verifier.verify_client_cert(leaf, intermediates, now)?;
        match &self.names {
            Some(names) if !names.contains(&name) => Err(NotBelieved::Name(name)),
            _ => Ok(certificate),
        }
    }
}

/// Whether a certificate is good at `now`, by its own word.
fn is_of(leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Some((from, until)) = validity(leaf) else { return false };
    i64::try_from(now.as_secs()).is_ok_and(|now| from.as_second() <= now && now <= until.as_second())
}

/// `example.org` of `spiffe://example.org/agent`
fn trust_domain(id: &str) -> Option<&str> {
    id.strip_prefix("spiffe://")?.split('/').next()
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.believed(leaf, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(NotBelieved::Path(error)) => Err(error),
            Err(error) => Err(rustls::CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
