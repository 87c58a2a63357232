//! Which hosts a request to one of our own listeners may be for. A page that a browser was led to a loopback listener
//! with, by a name of its own (DNS rebinding), names another.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Request, Version, header, uri::Authority};

/// The hosts that a listener answers for.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// Only loopback's names, and this one where there is one. Otherwise any.
    local: bool,
    named: Option<String>,
}

impl Hosts {
    /// On loopback only loopback's own names, elsewhere any.
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self { local: address.ip().is_loopback(), named: None }
    }

    /// Any: no browser reaches a Unix socket.
    pub(crate) fn any() -> Self {
        Self { local: false, named: None }
    }

    /// The same, and `name`.
    pub(crate) fn and(self, name: &str) -> Self {
        Self { named: Some(name.to_owned()), ..self }
    }

    /// Whether `request` is for one host, and that is one of these.
    pub(crate) fn serve<B>(&self, request: &Request<B>) -> bool {
        let Ok(written) = host(request.headers()) else { return false };
        let named = match (request.uri().authority(), written) {
            (Some(target), Some(host)) if *target != host => return false,
            (Some(target), _) => target.clone(),
            (None, Some(host)) => host,
            // Probes of load balancers; a browser always names its host.
            (None, None) => return request.version() < Version::HTTP_11,
        };
        !named.as_str().contains('@') && self.has(named.host())
    }

    fn has(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return false;
        }
        !self.local
            || host.eq_ignore_ascii_case("localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            || self.named.as_ref().is_some_and(|named| named.eq_ignore_ascii_case(host))
    }
}

/// `Host`, where it is given; an error where it is given twice or is no host.
fn host(fields: &HeaderMap) -> Result<Option<Authority>, ()> {
    let mut values = fields.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => read(value).map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn read(value: &HeaderValue) -> Option<Authority> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, target: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(()).unwrap()
    }

    fn served(hosts: &Hosts, host: &str) -> bool {
        hosts.serve(&request(Version::HTTP_11, "/status", &[host]))
    }

    #[test]
    fn on_loopback_only_its_own_names_are_served() {
        let hosts = Hosts::of("127.0.0.1:8692".parse().unwrap());
        for good in ["localhost", "LOCALHOST:8692", "127.0.0.1:8692", "127.9.9.9", "[::1]:1"] {
            assert!(served(&hosts, good), "{good}");
        }
        for bad in ["rebound.example", "localhost.", "127.0.0.1.example", "10.0.0.1", "a@localhost", "", "[::1", "a b"]
        {
            assert!(!served(&hosts, bad), "{bad}");
        }
        assert!(served(&hosts.and("countersign.example"), "Countersign.example:443"));
        assert!(served(&Hosts::of("0.0.0.0:8692".parse().unwrap()), "sidecar.svc:8692"));
    }

    #[test]
    fn a_request_is_for_one_host() {
        let hosts = Hosts::any();
        let serve = |version, target: &str, given: &[&str]| hosts.serve(&request(version, target, given));
        assert!(serve(Version::HTTP_11, "/", &["a.example"]));
        assert!(serve(Version::HTTP_11, "http://a.example/", &["a.example"]));
        assert!(serve(Version::HTTP_2, "http://a.example/", &[]));
        assert!(serve(Version::HTTP_10, "/", &[]), "a probe of the simplest kind");
        assert!(!serve(Version::HTTP_11, "/", &[]));
        assert!(!serve(Version::HTTP_11, "/", &["a.example", "a.example"]));
        assert!(!serve(Version::HTTP_11, "http://a.example/", &["b.example"]));
    }
}
