//! Who is at the other end of a connection: where it comes from, and what its certificate says.
//!
//! All of it was proved by the kernel or by TLS, never claimed by a request.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::digest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// The longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: PeerAddress,
    /// Whether TLS protects the connection.
    pub secure: bool,
    /// The client certificate that TLS verified, if the peer presented one.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine, by the kernel's word (`SO_PEERCRED`).
    Unix(PeerCredentials),
}

/// The process that opened a connection to a Unix socket, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its number; `None` where it is in a process namespace that we cannot see into.
    pub pid: Option<i32>,
}

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it names.
    pub identity: PeerIdentity,
    /// SHA-256 of the whole certificate (RFC 8705 `x5t#S256`).
    pub x5t_s256: [u8; 32],
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerIdentity {
    /// A workload: the SPIFFE ID of an X.509-SVID. Compared as an exact string.
    Spiffe(String),
    /// The subject's distinguished name, `CN=agent, O=example`.
    Subject(String),
    /// Nobody: it signed itself, so whatever it says of its holder is their own word. That they hold its key was proved,
    /// and which certificate it is says [`PeerCertificate::x5t_s256`].
    SelfSigned,
}

/// Why a certificate, though well signed, names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// It has a SPIFFE ID and breaks a rule of X.509-SVIDs.
    #[error("the client certificate is no X.509-SVID: {0}")]
    NoSvid(&'static str),
}

impl Peer {
    /// A peer that speaks clear text over TCP.
    #[must_use]
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { address: PeerAddress::Tcp(address), secure: false, certificate: None }
    }
}

impl PeerAddress {
    /// The IP address, if it has one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl PeerCertificate {
    /// Reads whom `der` names, believed or not: nothing is verified here.
    ///
    /// # Errors
    /// When it cannot be read, or has a SPIFFE ID and is no valid X.509-SVID.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |error: &dyn fmt::Display| CertificateError::Unreadable(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(Ok(*uri)),
                // A name that cannot be read might be a second URI.
                GeneralName::Invalid(..) => Some(Err(unreadable(&"one of its names is no text"))),
                _ => None,
            })
            .collect::<Result<_, _>>()?;
        let workload = uris.iter().any(|uri| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")));
        let identity = if workload {
            PeerIdentity::Spiffe(svid(&certificate, &uris)?.to_owned())
        } else {
            PeerIdentity::Subject(distinguished(certificate.subject()).ok_or_else(|| unreadable(&"its subject"))?)
        };
        Ok(Self { identity, x5t_s256: thumbprint(der) })
    }

    /// The same, where `der` may have signed itself: then nothing that it says of its holder is read.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_self_signed(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |error: &dyn fmt::Display| CertificateError::Unreadable(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        // Whoever has a certificate from somebody else under their own name gains nothing by it here: they lose the name.
        if certificate.issuer().as_raw() == certificate.subject().as_raw() {
            return Ok(Self { identity: PeerIdentity::SelfSigned, x5t_s256: thumbprint(der) });
        }
        Self::read(der)
    }
}

/// SHA-256 of a whole certificate.
fn thumbprint(der: &[u8]) -> [u8; 32] {
    let mut thumbprint = [0; 32];
    let hash = digest::digest(&digest::SHA256, der);
    for (to, from) in thumbprint.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    thumbprint
}

/// A distinguished name as `CN=agent, O=example`. What separates names and values is escaped where it is part of a
/// value (RFC 4514 §2.4), so that no value reads like several. `None` where a value is no text.
fn distinguished(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for (place, names) in name.iter_rdn().enumerate() {
        for (within, attribute) in names.iter().enumerate() {
            text.push_str(match (place, within) {
                (0, 0) => "",
                (_, 0) => ", ",
                _ => " + ",
            });
            let oid = attribute.attr_type();
            match oid2abbrev(oid, oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            for c in attribute.as_str().ok()?.chars() {
                match c {
                    ',' | '+' | '=' | '\\' | '"' | '<' | '>' | ';' | '#' => text.extend(['\\', c]),
                    c if c.is_control() => return None,
                    c => text.push(c),
                }
            }
        }
    }
    Some(text)
}

/// The one SPIFFE ID of an X.509-SVID (X509-SVID §2, §4, §5.2); a certificate that can sign others names nobody.
fn svid<'a>(certificate: &X509Certificate<'_>, uris: &[&'a str]) -> Result<&'a str, CertificateError> {
    let [id] = uris else {
        return Err(CertificateError::NoSvid("it has more than one URI"));
    };
    if !is_spiffe_id(id) {
        return Err(CertificateError::NoSvid("its SPIFFE ID is not well-formed"));
    }
    if certificate.is_ca() {
        return Err(CertificateError::NoSvid("it is an authority's"));
    }
    let usage = certificate.key_usage().map_err(|error| CertificateError::Unreadable(error.to_string()))?;
    let usage = usage.map(|usage| usage.value);
    if !usage.is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign()) {
        return Err(CertificateError::NoSvid("its key usage is not `digitalSignature` without signing for others"));
    }
    Ok(id)
}

/// Whether `text` is a SPIFFE ID that names a workload: a trust domain and a path that is not the root (SPIFFE-ID §2).
#[must_use]
pub fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let of_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let of_path = |byte: u8| of_domain(byte) || byte.is_ascii_uppercase();
    text.len() <= MAX_SPIFFE_ID
        && !domain.is_empty()
        && domain.bytes().all(of_domain)
        && path.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path))
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(PeerCredentials { uid, pid: Some(pid), .. }) => write!(f, "uid {uid}, pid {pid}"),
            Self::Unix(PeerCredentials { uid, pid: None, .. }) => write!(f, "uid {uid}"),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(name) | Self::Subject(name) => f.write_str(name),
            Self::SelfSigned => f.write_str("(self-signed)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose as Usage, SanType, string::Ia5String};

    use super::*;

    fn read(uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<PeerCertificate, CertificateError> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "agent");
        params.distinguished_name.push(DnType::OrganizationName, "example");
        params.key_usages = vec![Usage::DigitalSignature];
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::read(certificate.der())
    }

    #[test]
    fn a_certificate_names_a_workload_or_its_subject() {
        let workload = read(&["spiffe://example.org/agent/support"], |_| {}).unwrap();
        assert_eq!(workload.identity, PeerIdentity::Spiffe("spiffe://example.org/agent/support".to_owned()));
        let subject = read(&["https://example.org/agent"], |_| {}).unwrap();
        assert_eq!(subject.identity, PeerIdentity::Subject("CN=agent, O=example".to_owned()));
        assert_ne!(workload.x5t_s256, subject.x5t_s256);
    }

    #[test]
    fn one_value_of_a_subject_never_reads_like_several() {
        let named = |name: &str| {
            let mut subject = rcgen::DistinguishedName::new();
            subject.push(DnType::CommonName, name);
            read(&[], |params| params.distinguished_name = subject).map(|certificate| certificate.identity)
        };
        assert_eq!(named("agent, O=example"), Ok(PeerIdentity::Subject(r"CN=agent\, O\=example".to_owned())));
        assert_eq!(named(r"a\"), Ok(PeerIdentity::Subject(r"CN=a\\".to_owned())));
        assert!(named("agent\n").is_err());
    }

    #[test]
    fn a_spiffe_id_in_anything_but_an_svid_names_nobody() {
        let id = "spiffe://example.org/agent";
        for (uris, usages, authority) in [
            (&[id, "spiffe://example.org/other"][..], vec![Usage::DigitalSignature], IsCa::NoCa),
            (&[id, "https://example.org"], vec![Usage::DigitalSignature], IsCa::NoCa),
            (&["SPIFFE://example.org/agent"], vec![Usage::DigitalSignature], IsCa::NoCa),
            (&["spiffe://example.org"], vec![Usage::DigitalSignature], IsCa::NoCa),
            (&[id], vec![Usage::DigitalSignature, Usage::KeyCertSign], IsCa::NoCa),
            (&[id], vec![Usage::KeyEncipherment], IsCa::NoCa),
            (&[id], Vec::new(), IsCa::NoCa),
            (&[id], vec![Usage::DigitalSignature], IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        ] {
            let refused = read(uris, |params| {
                params.key_usages = usages;
                params.is_ca = authority;
            });
            assert!(matches!(refused, Err(CertificateError::NoSvid(_))), "{uris:?}: {refused:?}");
        }
    }

    #[test]
    fn spiffe_ids_are_read_strictly() {
        assert!(is_spiffe_id("spiffe://td-1.example_x/Agent/a.b-c_d"));
        for bad in [
            "spiffe:///agent",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td/a/",
            "spiffe://td//a",
            "spiffe://td/../a",
            "spiffe://td/./a",
            "spiffe://TD/a",
            "spiffe://td:8443/a",
            "spiffe://user@td/a",
            "spiffe://td/a%41",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "Spiffe://td/a",
            "https://td/a",
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
        assert!(!is_spiffe_id(&format!("spiffe://td/{}", "a".repeat(2048))));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for bytes in [&b""[..], b"\x30\x00", b"text", &[0xff; 64]] {
            assert!(PeerCertificate::read(bytes).is_err());
        }
    }
}
