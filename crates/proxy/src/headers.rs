//! Which header fields never travel on (standards §13): hop by hop, claims about identity, and credentials. One
//! table for each direction, used by `accept` (what may a request say), `forward` and the configuration.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::credential::Secrets;

/// Fields between neighbours only (RFC 9110 §7.6.1), in both directions.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "max-forwards",
];

/// Fields of a request that never reach a tool: the agent's credentials, what only we may claim about a caller or
/// their user (tools behind a sign-in proxy believe such fields), and what would make the tool see another method or
/// path than the one decided on.
const NOT_TO_TOOL: [&str; 32] = [
    "authorization",
    "cookie",
    "cookie2",
    "dpop",
    "txn-token",
    "client-cert",
    "client-cert-chain",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-cluster-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-original-method",
    "x-original-uri",
    "x-user",
    "x-user-id",
    "x-serverless-authorization",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "expect",
    "host",
    "content-length",
    "traceparent",
    "tracestate",
    "baggage",
    "via",
];

const NOT_TO_TOOL_PREFIXES: [&str; 15] = [
    "proxy-",
    "workload-",
    "x-forwarded-",
    "countersign-",
    "x-countersign-",
    "ssl-client-",
    "remote-",
    "x-remote-",
    "x-auth-request-",
    "x-webauth-",
    "x-authenticated-",
    "x-ms-client-principal",
    "x-goog-",
    "x-amzn-oidc-",
    "x-envoy-",
];

/// Fields of a response that never reach an agent: the tool's session and challenges, and what would send the
/// agent past the sidecar.
const NOT_TO_AGENT: [&str; 10] = [
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "authentication-info",
    "dpop-nonce",
    "alt-svc",
    "clear-site-data",
    "strict-transport-security",
    "txn-token",
    "baggage",
];

const NOT_TO_AGENT_PREFIXES: [&str; 4] = ["proxy-", "workload-", "countersign-", "x-countersign-"];

/// Fields that `Connection` may not name: dropping them would change whose call it is, or how it is read.
const NOT_NOMINABLE: [&str; 8] = [
    "authorization",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "cache-control",
    "traceparent",
    "idempotency-key",
];

/// Fields that mean nothing, or something else, after the body (RFC 9110 §6.5.1): they frame, route, qualify or
/// describe the message, and whoever merges trailers into its head would be told something new by them.
const NOT_IN_TRAILERS: [&str; 27] = [
    "accept",
    "age",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "idempotency-key",
    "link",
    "location",
    "pragma",
    "range",
    "refresh",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "x-request-id",
];

const NOT_IN_TRAILERS_PREFIXES: [&str; 3] = ["if-", "accept-", "access-control-"];

/// Whether a field may stand after a body.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    let name = hyphened(name);
    !HOP_BY_HOP.contains(&name.as_ref())
        && !NOT_IN_TRAILERS.contains(&name.as_ref())
        && !NOT_IN_TRAILERS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a request's field stays here. Underscores count as hyphens, because gateways to scripts (CGI, WSGI)
/// cannot tell them apart.
pub(crate) fn is_kept_from_tool(name: &HeaderName) -> bool {
    let name = hyphened(name);
    HOP_BY_HOP.contains(&name.as_ref())
        || NOT_TO_TOOL.contains(&name.as_ref())
        || NOT_TO_TOOL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a field is for neighbours only.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

/// Whether a response's field stays here.
pub(crate) fn is_kept_from_agent(name: &HeaderName) -> bool {
    let name = name.as_str();
    HOP_BY_HOP.contains(&name)
        || NOT_TO_AGENT.contains(&name)
        || NOT_TO_AGENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether `Connection` may not name the field.
pub(crate) fn is_security_field(name: &HeaderName) -> bool {
    let text = hyphened(name);
    NOT_NOMINABLE.contains(&text.as_ref()) || (!HOP_BY_HOP.contains(&text.as_ref()) && is_kept_from_tool(name))
}

fn hyphened(name: &HeaderName) -> Cow<'_, str> {
    if name.as_str().contains('_') { name.as_str().replace('_', "-").into() } else { name.as_str().into() }
}

/// The fields that `Connection` names (RFC 9110 §7.6.1); `None` where it is not a list of names.
pub(crate) fn nominated(fields: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in fields.get_all(header::CONNECTION) {
        for option in value.to_str().ok()?.split(',') {
            let option = option.trim_matches([' ', '\t']);
            if !option.is_empty() {
                names.push(HeaderName::try_from(option).ok()?);
            }
        }
    }
    Some(names)
}

/// A response's fields as the agent may see them. A field whose value holds one of the tool's `secrets` is dropped.
pub(crate) fn for_agent(fields: &HeaderMap, secrets: &Secrets) -> HeaderMap {
    let named = nominated(fields).unwrap_or_default();
    let mut kept = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if !is_kept_from_agent(name) && !named.contains(name) && !secrets.are_in(value) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// Whether `value` has the secret of `credential` in it, whatever scheme stands before either.
pub(crate) fn holds(value: &HeaderValue, credential: &HeaderValue) -> bool {
    let secret = last_word(credential.as_bytes());
    secret.len() >= 8 && value.as_bytes().windows(secret.len()).any(|window| window == secret)
}

/// The credential without its scheme.
fn last_word(value: &[u8]) -> &[u8] {
    value.rsplit(|byte| *byte == b' ').next().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_claims_about_the_caller_never_reach_a_tool() {
        for name in [
            "Authorization",
            "Cookie",
            "DPoP",
            "Txn-Token",
            "txn_token",
            "Workload-Identity-Token",
            "Client-Cert",
            "Client-Cert-Chain",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-Client-Cert",
            "Forwarded",
            "X-Real-IP",
            "Proxy-Authorization",
            "X-HTTP-Method-Override",
            "X_HTTP_Method_Override",
            "X-Original-URL",
            "Expect",
            "Countersign-Decision-Id",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Baggage",
            "Remote-User",
            "X-Remote-User",
            "X-Auth-Request-Email",
            "X-MS-CLIENT-PRINCIPAL-ID",
            "X-Goog-Authenticated-User-Email",
            "X-Amzn-Oidc-Data",
            "X-Envoy-Original-Path",
            "X-Original-Method",
            "Host",
        ] {
            assert!(is_kept_from_tool(&HeaderName::try_from(name).unwrap()), "{name}");
        }
        for name in ["Accept", "Content-Type", "Idempotency-Key", "Range", "If-Match", "X-Request-Id"] {
            assert!(!is_kept_from_tool(&HeaderName::try_from(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn a_tools_session_challenge_and_neighbourhood_never_reach_an_agent() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("www-authenticate", "Basic"),
            ("proxy-authenticate", "Basic"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("countersign-decision-id", "forged"),
            ("x-echo", "you sent Bearer tool-secret-1"),
            ("content-type", "application/json"),
            ("x-ok", "1"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        let credential = HeaderValue::from_static("Bearer tool-secret-1");
        let kept = for_agent(&fields, &credential.into());
        let names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-ok"]);
    }

    #[test]
    fn a_secret_is_found_in_whatever_field_it_hides() {
        let credential = HeaderValue::from_static("Bearer abc.def.ghi");
        for (value, found) in [("abc.def.ghi", true), ("Token abc.def.ghi;x", true), ("abc.def", false), ("", false)] {
            assert_eq!(holds(&HeaderValue::from_static(value), &credential), found, "{value}");
        }
    }

    #[test]
    fn connection_may_name_a_neighbours_field_but_no_security_field() {
        let mut fields = HeaderMap::new();
        fields.append("connection", HeaderValue::from_static("keep-alive, x-trace"));
        assert_eq!(nominated(&fields).unwrap().len(), 2);
        fields.append("connection", HeaderValue::from_static("a b"));
        assert_eq!(nominated(&fields), None);
        for name in ["authorization", "host", "content-type", "txn-token", "x-forwarded-for"] {
            assert!(is_security_field(&HeaderName::try_from(name).unwrap()), "{name}");
        }
        for name in ["close", "keep-alive", "te", "upgrade", "x-trace"] {
            assert!(!is_security_field(&HeaderName::try_from(name).unwrap()), "{name}");
        }
    }
}
