//! accept: is this a request that everybody reads the same way? What is not, is refused before anything is
//! looked at. On success the request is an [`Incoming`]: canonical path, no field that is for neighbours only.

use std::time::Instant;

use http::{HeaderMap, HeaderName, Method, Request, Uri, Version, header, uri::Authority};
use http_body::Body as _;
use jiff::Timestamp;
use model::{CanonicalPath, Code, Id, Refusal, id::DecisionMark};
use net::{Body, Peer};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use uuid::Uuid;

use crate::{config::AgentListenerConfig, headers};

/// A well-formed request.
#[derive(Debug)]
pub(crate) struct Incoming {
    arrival: Arrival,
    method: Method,
    version: Version,
    path: CanonicalPath,
    query: Option<String>,
    headers: HeaderMap,
    claimed_trace: Option<SpanContext>,
    body: Body,
}

/// What is known of a request before anything it says is believed.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The id of the decision that will be made, which is also the call's.
    pub(crate) id: Id<DecisionMark>,
    /// Who sent it.
    pub(crate) peer: Peer,
    /// When: for the record and for comparing with a token's claims.
    pub(crate) time: Timestamp,
    /// When: for measuring.
    pub(crate) instant: Instant,
}

impl Arrival {
    /// Mints the decision id: the ledger's id and a UUIDv7 of the moment.
    pub(crate) fn new(
        ledger: &str,
        peer: Peer,
        time: Timestamp,
        instant: Instant,
    ) -> Result<Self, model::id::InvalidId> {
        let seconds = u64::try_from(time.as_second()).unwrap_or_default();
        let nanoseconds = u32::try_from(time.subsec_nanosecond()).unwrap_or_default();
        let uuid = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds));
        Ok(Self { id: Id::new(&format!("{ledger}.{uuid}"))?, peer, time, instant })
    }
}

/// The parts of an [`Incoming`] that the call takes over.
pub(crate) struct Parts {
    pub(crate) arrival: Arrival,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) path: CanonicalPath,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// The longest path, in bytes: it is recorded whole.
const MAX_PATH_BYTES: usize = 2048;

/// Refuses as `malformed` what two servers could read in two ways.
pub(crate) fn accept(
    arrival: Arrival,
    request: Request<Body>,
    listener: &AgentListenerConfig,
) -> Result<Incoming, Box<Refusal>> {
    let (head, body) = request.into_parts();
    bounds(&head.headers, listener)?;
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(malformed("CONNECT and TRACE are not served."));
    }
    target(&head.uri, head.version, &head.headers, listener)?;
    if head.uri.path().len() > MAX_PATH_BYTES {
        return Err(malformed("The path is too long."));
    }
    let path = CanonicalPath::parse(head.uri.path()).map_err(|error| malformed(&sentence(&error)))?;
    query_form(head.uri.query())?;
    framing(&head.headers)?;
    single(&head.headers, &header::AUTHORIZATION)?;
    if matches!(head.method, Method::GET | Method::HEAD) && !body.is_end_stream() {
        return Err(malformed("A GET or HEAD request has no body."));
    }
    let claimed_trace = claimed_trace(&head.headers);
    let query = head.uri.query().map(str::to_owned);
    let mut kept = head.headers;
    for name in removals(&kept)? {
        kept.remove(&name);
    }
    Ok(Incoming {
        arrival,
        method: head.method,
        version: head.version,
        path,
        query,
        headers: kept,
        claimed_trace,
        body,
    })
}

impl Incoming {
    /// When it came, from whom, and its id.
    pub(crate) fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// The HTTP method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// The whole canonical path.
    pub(crate) fn path(&self) -> &CanonicalPath {
        &self.path
    }

    /// The fields, without those between neighbours.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The query, as written.
    pub(crate) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The trace that the request claims to belong to.
    pub(crate) fn claimed_trace(&self) -> Option<&SpanContext> {
        self.claimed_trace.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn in_test(parts: Parts) -> Self {
        let Parts { arrival, method, version, path, query, headers, body } = parts;
        Self { arrival, method, version, path, query, headers, claimed_trace: None, body }
    }

    pub(crate) fn into_parts(self) -> Parts {
        let Self { arrival, method, version, path, query, headers, claimed_trace: _, body } = self;
        Parts { arrival, method, version, path, query, headers, body }
    }
}

/// A refusal of what cannot be read in exactly one way.
pub(crate) fn malformed(detail: &str) -> Box<Refusal> {
    Box::new(Refusal::new(Code::Malformed, detail))
}

/// An error's text as a sentence.
pub(crate) fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => text,
    }
}

fn bounds(fields: &HeaderMap, listener: &AgentListenerConfig) -> Result<(), Box<Refusal>> {
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if fields.len() > listener.max_headers || bytes > listener.max_header_bytes {
        return Err(malformed("The request has too many header fields, or they are too large."));
    }
    Ok(())
}

/// One request, one host: `Host` exactly once (HTTP/1), the same as the target's or `:authority`, and one that is
/// served here. A page that a browser was led here with by a name of its own (DNS rebinding) names another.
fn target(uri: &Uri, version: Version, fields: &HeaderMap, listener: &AgentListenerConfig) -> Result<(), Box<Refusal>> {
    if uri.scheme().is_some() && !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(malformed("The request's target has another scheme than http or https."));
    }
    single(fields, &header::HOST)?;
    let written = fields.get(header::HOST).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let host: Option<Authority> = match written {
        Some(None) => return Err(malformed("`Host` is not a host.")),
        Some(Some(host)) => Some(host),
        None => None,
    };
    if host.is_none() && version < Version::HTTP_2 {
        return Err(malformed("The request has no `Host`."));
    }
    for authority in host.iter().chain(uri.authority()) {
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(malformed("The request's host is not a host."));
        }
    }
    match (uri.authority(), &host) {
        (Some(target), Some(host)) if target != host => Err(malformed("`Host` and the request's target disagree.")),
        (None, None) => Err(malformed("The request names no host.")),
        (Some(named), _) | (None, Some(named)) if !listener.serves(named.host()) => {
            Err(malformed("The request is for a host that is not served here."))
        }
        _ => Ok(()),
    }
}

fn query_form(query: Option<&str>) -> Result<(), Box<Refusal>> {
    let bytes = query.unwrap_or_default().as_bytes();
    let broken = bytes.iter().enumerate().any(|(at, byte)| match byte {
        b'%' => !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        byte => !byte.is_ascii_graphic() || *byte == b'\\',
    });
    if broken { Err(malformed("The query is not percent-encoded text.")) } else { Ok(()) }
}

/// How long the body is must have one answer (RFC 9112 §6.3). hyper already refused what it could not read; where
/// a request had both lengths it took the chunked one, dropped the other and will close the connection.
fn framing(fields: &HeaderMap) -> Result<(), Box<Refusal>> {
    let transfer = fields.contains_key(header::TRANSFER_ENCODING);
    if transfer && fields.contains_key(header::CONTENT_LENGTH) {
        return Err(malformed("The request has both `Transfer-Encoding` and `Content-Length`."));
    }
    single(fields, &header::CONTENT_LENGTH)?;
    single(fields, &header::TRANSFER_ENCODING)?;
    let chunked = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if fields.get(header::TRANSFER_ENCODING).is_some_and(|value| !chunked(value)) {
        return Err(malformed("The only `Transfer-Encoding` served is `chunked`."));
    }
    // An offer of HTTP/2 may be passed over (RFC 9110 §7.8), and clients make it unasked; whoever wants another
    // protocol would wait for it in vain.
    let offer = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
    if !fields.get_all(header::UPGRADE).iter().all(offer) {
        return Err(malformed("Upgrades are not served."));
    }
    let continues = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if fields.get_all(header::EXPECT).iter().any(|value| !continues(value)) {
        return Err(malformed("The only expectation served is `100-continue`."));
    }
    Ok(())
}

fn single(fields: &HeaderMap, name: &HeaderName) -> Result<(), Box<Refusal>> {
    match fields.get_all(name).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(malformed(&format!("The header field `{name}` is given more than once."))),
    }
}

/// The fields that stay on this connection: the known ones, those that `Connection` names, and those whose names
/// servers confuse with others.
fn removals(fields: &HeaderMap) -> Result<Vec<HeaderName>, Box<Refusal>> {
    let mut names = headers::nominated(fields).ok_or_else(|| malformed("`Connection` is not a list of names."))?;
    if let Some(name) = names.iter().find(|name| headers::is_security_field(name)) {
        return Err(malformed(&format!("`Connection` may not name `{name}`.")));
    }
    // `x_key` and `x-key` are one variable to some servers (CGI, WSGI); what is checked under one name must not
    // come back under the other.
    names.extend(fields.keys().filter(|name| name.as_str().contains('_')).cloned());
    // These two stay here too; `forward` looks at them first.
    names.retain(|name| !matches!(*name, header::TE | header::TRAILER));
    names.extend([
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ]);
    Ok(names)
}

/// `traceparent` (W3C Trace Context): a claim. What is not exactly one well-formed value is no claim at all.
fn claimed_trace(fields: &HeaderMap) -> Option<SpanContext> {
    let mut values = fields.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = version == "00";
    let lower_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed =
        lower_hex(version, 2) && version != "ff" && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    if !well_formed || (known && parts.next().is_some()) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 0x01),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests;
