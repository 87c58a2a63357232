//! The certificates that peers show, which are read before anything about them is verified.

use net::{PeerCertificate, PeerIdentity, peer::is_spiffe_id};

/// Whoever is named has one name, that cannot be taken for somebody else's or for a line of its own.
pub(super) fn certificate(bytes: &[u8]) {
    let Ok(certificate) = PeerCertificate::read(bytes) else { return };
    let name = certificate.identity.to_string();
    assert!(!name.chars().any(char::is_control), "{name:?}");
    match certificate.identity {
        PeerIdentity::Spiffe(id) => assert!(is_spiffe_id(&id), "{id:?}"),
        PeerIdentity::Subject(subject) => assert!(!subject.starts_with("spiffe:"), "{subject:?}"),
        PeerIdentity::SelfSigned => panic!("it names somebody, unless a listener takes those that signed themselves"),
    }
}
