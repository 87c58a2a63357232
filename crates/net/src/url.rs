//! Which URLs may be called.
//!
//! A URL that the operator wrote may point anywhere, in clear text only where nobody can listen. A URL that
//! was learned (from a token, a document, an answer) may only lead over TLS to a public address: otherwise
//! whoever wrote it could make us speak to the machine's own services or to the cloud's metadata address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::Scheme;

/// Who wrote the URLs that a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlTrust {
    /// The operator, in the configuration: any address.
    Operator,
    /// Anyone else: https only, and only to public addresses, whatever the name resolves to.
    Learned,
}

/// Whether the operator accepts http to other machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Only to this machine.
    LoopbackOnly,
    /// Anywhere: the operator says that the network between is theirs.
    Anywhere,
}

/// Why a URL is refused. Texts name the URL without user, password and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute URL of the form `https://host/path`.
    #[error("not an absolute http or https URL")]
    Malformed,
    /// It carries a user or password: secrets have their own place in the configuration.
    #[error("{url}: a URL must not hold a user name or password")]
    Credentials {
        /// The URL without them.
        url: String,
    },
    /// It has a fragment, which is never sent and so never means what it seems to.
    #[error("{url}: a URL must not have a fragment")]
    Fragment {
        /// The URL without it.
        url: String,
    },
    /// http where https is needed.
    #[error("{url}: must be https (http is accepted only to this machine)")]
    NotHttps {
        /// The URL.
        url: String,
    },
    /// A learned URL leads to an address that is not public.
    #[error("{url}: leads to {address}, which is not a public address")]
    NotPublic {
        /// The URL.
        url: String,
        /// The address.
        address: IpAddr,
    },
}

/// Checks a URL from the configuration: absolute, without credentials or fragment, https unless it leads
/// to this machine or `plaintext` says otherwise.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_operator_url(text: &str, plaintext: Plaintext) -> Result<Uri, UrlError> {
    let url: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
    check_shape(&url)?;
    // `Uri` drops a fragment silently, so the text itself has to be asked.
    if text.contains('#') {
        return Err(UrlError::Fragment { url: redacted(&url) });
    }
    let clear_text_is_fine = plaintext == Plaintext::Anywhere || is_loopback(&url);
    if url.scheme() != Some(&Scheme::HTTPS) && !clear_text_is_fine {
        return Err(UrlError::NotHttps { url: redacted(&url) });
    }
    Ok(url)
}

/// Checks what can be known about a learned URL before its name is resolved: absolute, without
/// credentials, https, and not naming a non-public address. The client's resolver checks the rest.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_learned_url(url: &Uri) -> Result<(), UrlError> {
    check_shape(url)?;
    if url.scheme() != Some(&Scheme::HTTPS) {
        return Err(UrlError::NotHttps { url: redacted(url) });
    }
    match url.host().and_then(literal_address) {
        Some(address) if !is_public(address) => Err(UrlError::NotPublic { url: redacted(url), address }),
        _ => Ok(()),
    }
}

/// The URL as it may be logged: scheme, host, port and path, without credentials and query.
#[must_use]
pub fn redacted(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("");
    let host = url.host().unwrap_or("");
    match url.port() {
        Some(port) => format!("{scheme}://{host}:{port}{}", url.path()),
        None => format!("{scheme}://{host}{}", url.path()),
    }
}

/// Whether an address is one of the public internet. Ranges: IANA's special-purpose registries.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The address that a URL's host spells out, if it is not a name.
pub(crate) fn literal_address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn check_shape(url: &Uri) -> Result<(), UrlError> {
    let http_or_https = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    let authority = url.authority().ok_or(UrlError::Malformed)?;
    if !http_or_https || authority.host().is_empty() {
        return Err(UrlError::Malformed);
    }
    if authority.as_str().contains('@') {
        return Err(UrlError::Credentials { url: redacted(url) });
    }
    Ok(())
}

fn is_loopback(url: &Uri) -> bool {
    url.host().is_some_and(|host| {
        host.eq_ignore_ascii_case("localhost") || literal_address(host).is_some_and(|address| address.is_loopback())
    })
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0                                   // this network
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()                         // and most clouds' metadata
        || (a == 100 && (64..128).contains(&b))            // carrier-grade NAT, and one cloud's metadata
        || (a == 192 && b == 0 && c == 0)                  // protocol assignments
        || (a == 192 && b == 88 && c == 99)                // 6to4 relays
        || (a == 198 && (18..20).contains(&b))             // benchmarks
        || address.is_documentation()
        || a >= 224                                        // multicast, reserved, broadcast
        || address == Ipv4Addr::new(168, 63, 129, 16); // a cloud's host agent, at a public-looking address
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, ..] = segments;
    // NAT64 reaches the IPv4 address in its last 32 bits, so that address decides.
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = segments {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        return is_public_v4(Ipv4Addr::new(w, x, y, z));
    }
    let special = match (a, b) {
        (0x2001, 0..0x200) => true,  // protocol assignments, Teredo, ORCHID
        (0x2001, 0xdb8) => true,     // documentation
        (0x3fff, 0..0x1000) => true, // documentation
        (0x2002, _) => true,         // 6to4: carries any IPv4 address
        _ => false,
    };
    // Only 2000::/3 is public: this leaves out loopback, mapped, unique local, link local and multicast.
    (0x2000..0x4000).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_goes_only_to_this_machine_unless_the_operator_says_so() {
        let check = |text| check_operator_url(text, Plaintext::LoopbackOnly);
        for fine in ["https://sso.example/realms/a?x=1", "http://127.0.0.1:80/", "http://LOCALHOST", "http://[::1]:1/"]
        {
            assert!(check(fine).is_ok(), "{fine}");
        }
        for bad in [
            "http://sso.example/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://10.0.0.1/",
        ] {
            assert!(matches!(check(bad), Err(UrlError::NotHttps { .. })), "{bad}");
            assert!(check_operator_url(bad, Plaintext::Anywhere).is_ok(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_a_plain_absolute_url_is_refused() {
        let check = |text| check_operator_url(text, Plaintext::Anywhere);
        for bad in [
            "",
            "/path",
            "sso.example",
            "ftp://a.example/",
            "https://",
            "https:///x",
            "file:///etc/passwd",
            "https://a b/",
        ] {
            assert_eq!(check(bad), Err(UrlError::Malformed), "{bad}");
        }
        assert!(matches!(check("https://a.example/#x"), Err(UrlError::Fragment { .. })));
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let error = check_operator_url("https://me:hunter2@a.example/x?key=hunter3", Plaintext::Anywhere).unwrap_err();
        assert_eq!(error.to_string(), "https://a.example/x: a URL must not hold a user name or password");
    }

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_learned_url_is_https_and_names_no_special_address() {
        let check = |text: &str| check_learned_url(&text.parse().unwrap());
        assert!(check("https://sso.example/keys").is_ok());
        assert!(check("https://8.8.8.8/keys").is_ok());
        assert!(matches!(check("http://sso.example/keys"), Err(UrlError::NotHttps { .. })));
        assert!(matches!(check("https://a@sso.example/"), Err(UrlError::Credentials { .. })));
        for bad in [
            "https://127.0.0.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://[fd00::1]:8/",
        ] {
            assert!(matches!(check(bad), Err(UrlError::NotPublic { .. })), "{bad}");
        }
    }
}
