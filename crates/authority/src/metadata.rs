//! What clients may know beforehand: RFC 8414 metadata, and where each endpoint lies.

use http::Method;
use serde_json::{Value, json};

use crate::config::{AuthoritySettings, CertificatesTaken};

/// RFC 8693 §2.1.
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// RFC 6749 §4.4, for a task: the agent asks on its own, for work that was consented to.
pub(crate) const CLIENT_CREDENTIALS: &str = "client_credentials";

/// The endpoints of the authority, all under the path of its issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// RFC 6749 §3.2.
    Token,
    /// RFC 7009 §2.
    Revocation,
    /// RFC 7662 §2.
    Introspection,
    /// OpenID Connect Back-Channel Logout 1.0 §2.5: where identity providers tell of logouts.
    Logout,
    /// RFC 8935 §2: where security events are pushed to.
    Events,
    /// RFC 7517 §5.
    Keys,
    /// RFC 8414 §3.
    Metadata,
    /// The process is there.
    Live,
    /// It can issue tokens.
    Ready,
}

impl Endpoint {
    /// The endpoint that `path` leads to.
    pub(crate) fn at(path: &str, settings: &AuthoritySettings) -> Option<Self> {
        // RFC 8414 §3.1: the well-known part comes between the host and the issuer's path.
        if let Some(rest) = path.strip_prefix("/.well-known/oauth-authorization-server") {
            return (rest == settings.prefix).then_some(Self::Metadata);
        }
        match path {
            "/livez" => return Some(Self::Live),
            "/readyz" => return Some(Self::Ready),
            _ => {}
        }
        match path.strip_prefix(settings.prefix.as_str())? {
            "/oauth2/token" => Some(Self::Token),
            "/oauth2/revoke" => Some(Self::Revocation),
            "/oauth2/introspect" => Some(Self::Introspection),
            "/oidc/backchannel_logout" => Some(Self::Logout),
            "/ssf/events" if !settings.events.is_empty() => Some(Self::Events),
            "/jwks.json" => Some(Self::Keys),
            _ => None,
        }
    }

    /// The only method it answers to.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Token | Self::Revocation | Self::Introspection | Self::Logout | Self::Events => Method::POST,
            Self::Keys | Self::Metadata | Self::Live | Self::Ready => Method::GET,
        }
    }

    /// The same, as a 405 has to list it.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Token | Self::Revocation | Self::Introspection | Self::Logout | Self::Events => "POST",
            Self::Keys | Self::Metadata | Self::Live | Self::Ready => "GET, HEAD",
        }
    }
}

/// What follows `/v1` in `path`, where it leads to the management API.
pub(crate) fn management<'a>(path: &'a str, settings: &AuthoritySettings) -> Option<&'a str> {
    let rest = path.strip_prefix(settings.prefix.as_str())?.strip_prefix("/v1")?;
    rest.starts_with('/').then_some(rest)
}

/// The URL of the token endpoint.
pub(crate) fn token_endpoint(settings: &AuthoritySettings) -> String {
    format!("{}/oauth2/token", settings.issuer)
}

/// How clients authenticate, at every endpoint; and by certificate, where TLS takes theirs.
const KEY: &str = "private_key_jwt";
/// What they sign with.
const ALGORITHMS: [&str; 2] = ["ES256", "EdDSA"];

/// RFC 8414 §2, and where identity providers tell of logouts. `response_types_supported` is required there, and empty here: there is no authorization endpoint.
pub(crate) fn document(settings: &AuthoritySettings) -> Value {
    let CertificatesTaken { signed, self_signed } = settings.client_certificates;
    let by_certificate = [(signed, "tls_client_auth"), (self_signed, "self_signed_tls_client_auth")]
        .into_iter()
        .filter(|(taken, _)| *taken);
    let methods: Vec<_> = [KEY].into_iter().chain(by_certificate.map(|(_, method)| method)).collect();
    json!({
        "issuer": settings.issuer,
        "tls_client_certificate_bound_access_tokens": settings.client_certificates.any(),
        "token_endpoint": token_endpoint(settings),
        "jwks_uri": format!("{}/jwks.json", settings.issuer),
        "response_types_supported": [],
        "grant_types_supported": [TOKEN_EXCHANGE, CLIENT_CREDENTIALS],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "revocation_endpoint": format!("{}/oauth2/revoke", settings.issuer),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_endpoint": format!("{}/oauth2/introspect", settings.issuer),
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "backchannel_logout_uri": format!("{}/oidc/backchannel_logout", settings.issuer),
        "authorization_details_types_supported": [model::authority::ELEMENT_TYPE],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(path: &str) -> AuthoritySettings {
        AuthoritySettings {
            issuer: format!("https://countersign.example{path}"),
            prefix: path.to_owned(),
            lifetime: Duration::from_secs(300),
            max_agents: 4,
            sidecars: vec!["urn:example:support".to_owned()],
            subject_audiences: Vec::new(),
            suspend: std::collections::BTreeSet::new(),
            management: None,
            client_certificates: CertificatesTaken::default(),
            enrolments: crate::config::Enrolments::default(),
            events: Vec::new(),
            shipped: "shipped".into(),
            retention: audit::RetentionConfig::default(),
        }
    }

    #[test]
    fn the_well_known_part_stands_before_the_path_of_the_issuer() {
        let (plain, below) = (settings(""), settings("/acme"));
        let at = |path, settings| Endpoint::at(path, settings);
        assert_eq!(at("/.well-known/oauth-authorization-server", &plain), Some(Endpoint::Metadata));
        assert_eq!(at("/.well-known/oauth-authorization-server/acme", &below), Some(Endpoint::Metadata));
        assert_eq!(at("/.well-known/oauth-authorization-server", &below), None);
        assert_eq!(at("/.well-known/oauth-authorization-serveracme", &below), None);
        assert_eq!(at("/oauth2/token", &plain), Some(Endpoint::Token));
        assert_eq!(at("/oauth2/token", &below), None);
        assert_eq!(at("/acme/oauth2/token", &below), Some(Endpoint::Token));
        for path in ["/", "", "/oauth2/token/", "//oauth2/token", "/oauth2/%74oken", "/OAUTH2/token"] {
            assert_eq!(at(path, &plain), None, "{path}");
        }
    }

    #[test]
    fn client_certificates_are_offered_where_they_are_asked_for() {
        for (signed, self_signed, methods) in [
            (false, false, &[][..]),
            (true, false, &["tls_client_auth"]),
            (false, true, &["self_signed_tls_client_auth"]),
            (true, true, &["tls_client_auth", "self_signed_tls_client_auth"]),
        ] {
            let asked = CertificatesTaken { signed, self_signed };
            let offered = document(&settings("").with_client_certificates(asked));
            let all = [&["private_key_jwt"], methods].concat();
            for endpoint in ["token", "revocation", "introspection"] {
                assert_eq!(offered[format!("{endpoint}_endpoint_auth_methods_supported")], json!(all));
            }
            assert_eq!(offered["tls_client_certificate_bound_access_tokens"], !methods.is_empty());
        }
    }

    #[test]
    fn the_metadata_names_urls_that_lead_to_the_endpoints() {
        let settings = settings("/acme");
        let document = document(&settings);
        for (member, endpoint) in [
            ("token_endpoint", Endpoint::Token),
            ("jwks_uri", Endpoint::Keys),
            ("revocation_endpoint", Endpoint::Revocation),
            ("introspection_endpoint", Endpoint::Introspection),
            ("backchannel_logout_uri", Endpoint::Logout),
        ] {
            let path = document[member].as_str().unwrap().strip_prefix("https://countersign.example").unwrap();
            assert_eq!(Endpoint::at(path, &settings), Some(endpoint));
        }
    }
}
