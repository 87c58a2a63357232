//! A door for the fuzz targets `headers`, `body` and `redact`: the laws of what two readers could take for two things. Only
//! with the feature `fuzz`, and under test, where the seeds are said again.
//!
//! Input is a request without the framing, which is hyper's: a line with method, target and, for HTTP/2, a `2`; fields,
//! one a line; an empty line; the body. For `redact` it is a line of places, and a document; or a stream of them, where
//! the line begins with `events`, `lines` or `sequence`.
#![expect(clippy::expect_used, clippy::panic, reason = "a law that does not hold is told by a panic")]

mod streams;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use model::{
    CanonicalPath, Delegation, Id, ParameterValue, Tenant,
    catalogue::Source,
    obligation::{Pointer, Segment},
};
use net::{Body, Peer};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    accept::{Arrival, Incoming, accept},
    admit::Admitted,
    config::{
        AgentListenerConfig, ToolConfig,
        tools::{ResolvedTools, resolve as resolve_tools},
    },
    headers::{for_agent, holds, is_kept_from_agent, is_kept_from_tool, nominated},
    metrics::Metrics,
    obligations::redact::{Places, Redactor},
    overload::Gate,
    resolve::{Call, CallBody, recognise, resolve},
};

/// A tool's credential, which no answer may carry.
const CREDENTIAL: &str = "Bearer tool-secret-1";

/// Fields that end at this connection, whatever else is said of them.
const NEIGHBOURS: [&str; 5] = ["connection", "transfer-encoding", "keep-alive", "proxy-connection", "http2-settings"];

/// What is accepted is accepted again as the same, holds no field that stays on the connection and none that is read
/// as another; of the same fields as an answer, none reaches the agent that may not. Whether it is accepted.
///
/// # Panics
/// Where that does not hold.
pub fn headers(bytes: &[u8]) -> bool {
    let Some(request) = request(bytes) else { return false };
    answer(request.headers());
    let named = nominated(request.headers()).unwrap_or_default();
    let Ok(incoming) = accept(arrival(), request, &listener()) else { return false };
    let path = incoming.path().as_str().to_owned();
    assert_eq!(CanonicalPath::parse(&path).expect("a path is one again").as_str(), path);
    let fields = incoming.headers().clone();
    for name in fields.keys() {
        let trailing = matches!(*name, header::TE | header::TRAILER);
        assert!(!name.as_str().contains('_'), "{name} is also another field");
        assert!(!NEIGHBOURS.contains(&name.as_str()), "{name} goes on");
        assert!(trailing || !named.contains(name), "{name} was named by `Connection`");
    }
    for name in [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH] {
        assert!(fields.get_all(&name).iter().count() <= 1, "{name} more than once");
    }
    let parts = incoming.into_parts();
    let again = match &parts.query {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    // What came without a `Host` named its host in the target.
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let target: Uri = format!("http://{host}{again}").parse().expect("the accepted target is one again");
    let mut request = Request::new(Body::empty());
    *request.method_mut() = parts.method;
    *request.version_mut() = parts.version;
    *request.uri_mut() = target;
    *request.headers_mut() = fields.clone();
    let again = accept(arrival(), request, &listener()).expect("what was accepted is accepted again");
    assert_eq!((again.path().as_str(), again.headers()), (path.as_str(), &fields));
    true
}

/// In whatever pieces a document or stream comes, the same of it is shown or it is refused; what is shown is JSON to
/// another reader too, in which nothing but `null` is at the places. Whether it is shown.
///
/// # Panics
/// Where that does not hold.
pub fn redact(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (Some(Ok(line)), Some(document)) = (parts.next().map(str::from_utf8), parts.next()) else { return false };
    let pointers: Vec<Pointer> = line.split(' ').take(8).filter_map(|text| text.parse().ok()).collect();
    if let Some(form) = streams::form(line) {
        return streams::law(form, &pointers, document);
    }
    let places = Arc::new(Places::new(&pointers));
    let shown = |size: usize| -> Option<Vec<u8>> {
        let mut redactor = Redactor::new(Arc::clone(&places));
        let mut shown = Vec::new();
        for piece in document.chunks(size) {
            shown.extend_from_slice(&redactor.take(Bytes::copy_from_slice(piece)).ok()?);
        }
        redactor.finish().ok().map(|()| shown)
    };
    let whole = shown(document.len().max(1));
    assert_eq!((shown(1), shown(3)), (whole.clone(), whole.clone()), "in pieces it is another");
    let Some(whole) = whole else { return false };
    if whole.iter().all(u8::is_ascii_whitespace) {
        return true;
    }
    serde_json::from_slice::<IgnoredAny>(document).expect("what is JSON here is JSON to others");
    // The other reader takes no document that is very deep, and no half of a character.
    if let Ok(seen) = serde_json::from_slice::<Value>(&whole) {
        pointers.iter().for_each(|pointer| nothing_at(&seen, pointer.segments()));
    }
    true
}

/// Asserts that there is nothing in `value` at the place.
fn nothing_at(value: &Value, steps: &[Segment]) {
    let Some((step, rest)) = steps.split_first() else {
        assert_eq!(value, &Value::Null, "something is shown");
        return;
    };
    let is = |name: &str| match step {
        Segment::Every => true,
        Segment::Name(wanted) => wanted == name,
    };
    match value {
        Value::Object(members) => {
            members.iter().filter(|(name, _)| is(name)).for_each(|(_, value)| nothing_at(value, rest));
        }
        Value::Array(items) => {
            let items = items.iter().enumerate().filter(|(at, _)| is(&at.to_string()));
            items.for_each(|(_, value)| nothing_at(value, rest));
        }
        _ => {}
    }
}

/// The fields as those of a tool's answer.
fn answer(fields: &HeaderMap) {
    let credential = HeaderValue::from_static(CREDENTIAL);
    let named = nominated(fields).unwrap_or_default();
    let kept = for_agent(fields, &credential.clone().into());
    for (name, value) in &kept {
        assert!(!is_kept_from_agent(name) && !named.contains(name) && !holds(value, &credential), "{name}");
    }
    for name in kept.keys() {
        let (before, after) = (fields.get_all(name), kept.get_all(name));
        let unharmed = before.iter().filter(|value| !holds(value, &credential));
        assert!(unharmed.eq(after.iter()), "{name} reads otherwise");
    }
    // Gateways to scripts take these for one field, so what holds for one holds for the other.
    for name in fields.keys().filter(|name| name.as_str().contains('_')) {
        let other = HeaderName::try_from(name.as_str().replace('_', "-")).expect("a name with hyphens is one");
        assert_eq!(is_kept_from_tool(name), is_kept_from_tool(&other), "{name}");
    }
}

/// What parameters are read is what any other reader of the body finds there, each once, and nothing undeclared; and
/// the bytes that were read are those that are sent. Whether anything is read of it.
///
/// # Panics
/// Where that does not hold.
pub fn body(bytes: &[u8]) -> bool {
    thread_local! {
        static HERE: (Runtime, ResolvedTools, Admitted) = (runtime(), tools(), Admitted::in_test(delegation()));
    }
    let Some(request) = request(bytes) else { return false };
    let sent = bytes.windows(2).position(|pair| pair == b"\n\n").and_then(|at| bytes.get(at + 2..)).unwrap_or_default();
    HERE.with(|(runtime, tools, admitted)| {
        let Ok(incoming) = accept(arrival(), request, &listener()) else { return false };
        let gate = Gate::new(&serde_json::from_value(json!({})).expect("the usual limits"), Arc::new(Metrics::new()));
        let resolving = resolved(incoming, admitted, tools, &gate);
        let Some(call) = runtime.block_on(resolving) else { return false };
        match &call.outgoing.body {
            CallBody::Unseen(_) => {
                assert!(!call.action.reads_body(), "a body with parameters in it was not read");
                false
            }
            CallBody::Read(read) => {
                assert_eq!(read, sent, "what was read is what is sent");
                if !read.is_empty() {
                    as_others_read(&call, read);
                }
                true
            }
        }
    })
}

async fn resolved<'a>(
    incoming: Incoming,
    admitted: &Admitted,
    tools: &'a ResolvedTools,
    gate: &Gate,
) -> Option<Call<'a>> {
    let tenant: Id<Tenant> = Id::new("acme").expect("a name");
    let recognised = recognise(&incoming, &tenant, &tools.catalogue).ok()?;
    resolve(incoming, admitted, recognised, &listener(), gate).await.ok()
}

fn as_others_read(call: &Call<'_>, body: &[u8]) {
    let theirs: Value = match serde_json::from_slice(body) {
        Ok(theirs) => theirs,
        // The one thing that this reader cannot carry.
        Err(error) if error.to_string().starts_with("number out of range") => return,
        Err(error) => panic!("what was accepted is no JSON to others: {error}"),
    };
    let mut pointers = BTreeSet::new();
    for (name, declaration) in &call.action.parameters {
        let Source::Body(pointer) = &declaration.value else { continue };
        pointers.insert(pointer.split('/').nth(1).unwrap_or_default());
        let found = theirs.pointer(pointer).filter(|value| !value.is_null());
        let ours = call.facts.parameters.value(name);
        let same = match (ours, found) {
            (None, None) => true,
            (Some(ours), Some(found)) => is_same(ours, found, declaration.minor),
            _ => false,
        };
        assert!(same, "`{name}` is {ours:?} here and {found:?} to others");
    }
    if !call.action.additional {
        let members = theirs.as_object().expect("a closed body is an object");
        for member in members.keys() {
            assert!(pointers.contains(member.as_str()) || member == "currency", "`{member}` is not declared");
        }
    }
}

fn is_same(ours: &ParameterValue, theirs: &Value, minor: bool) -> bool {
    let number = || theirs.as_f64().or_else(|| theirs.as_str()?.parse().ok());
    let near = |ours: &str| {
        let (Ok(ours), Some(theirs)) = (ours.parse::<f64>(), number()) else { return false };
        (ours - theirs).abs() <= ours.abs() * 1e-12
    };
    match ours {
        ParameterValue::String(text) => theirs.as_str() == Some(text),
        ParameterValue::Id(text) => theirs.as_str() == Some(text) || (theirs.is_number() && near(text)),
        ParameterValue::Integer(integer) => near(&integer.to_string()),
        ParameterValue::Decimal(decimal) => near(&decimal.text),
        ParameterValue::Money(money) if minor => near(&money.minor().to_string()),
        ParameterValue::Money(money) => near(money.text()),
        ParameterValue::Time(time) => theirs.as_str().and_then(|text| text.parse().ok()) == Some(*time),
        ParameterValue::Set(set) => theirs.as_array().is_some_and(|items| {
            items.iter().all(|item| item.as_str().is_some_and(|item| set.contains(item)))
                && set.iter().all(|text| items.iter().any(|item| item.as_str() == Some(text)))
        }),
    }
}

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (bytes.get(..at)?, bytes.get(at + 2..)?),
        None => (bytes, [].as_slice()),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::new(Body::full(Bytes::copy_from_slice(body)));
    *request.method_mut() = Method::from_bytes(first.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(first.next()?).ok()?;
    *request.version_mut() = if first.next() == Some(b"2") { Version::HTTP_2 } else { Version::HTTP_11 };
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = line.get(colon + 1..)?.trim_ascii();
        request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

fn listener() -> AgentListenerConfig {
    let config = json!({"tcp": "127.0.0.1:0", "bearer": "all", "hosts": ["localhost"], "input_headers": ["X-Ticket"]});
    serde_json::from_value(config).expect("a listener")
}

fn arrival() -> Arrival {
    let peer = Peer::tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
    Arrival::new("ledger1", peer, jiff::Timestamp::UNIX_EPOCH, net::clock::monotonic()).expect("an id")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn tools() -> ResolvedTools {
    let config: ToolConfig = serde_json::from_value(json!({
        "at": "/orders",
        "upstream": "http://127.0.0.1:1",
        "credential": "none",
        "actions": {
            "orders.search": {
                "match": "GET /v1/orders", "effect": "read", "resource": "orders",
                "parameters": {"limit": {"type": "integer", "value": "query:limit", "optional": true}},
            },
            "refunds.create": {
                "match": "POST /v1/orders/{order}/refunds", "effect": "write", "resource": "orders/{order}",
                "parameters": {
                    "amount": {"type": "money", "value": "body:/amount", "currency": "body:/currency"},
                    "note": {"type": "string", "value": "body:/details/note", "optional": true},
                },
                "idempotency": "header:Idempotency-Key",
            },
            "orders.tag": {
                "match": "POST /v1/orders/{order}/tags", "effect": "draft", "resource": "orders/{order}",
                "additional": "allow",
                "parameters": {
                    "tags": {"type": "set", "value": "body:/tags", "optional": true},
                    "weight": {"type": "decimal", "scale": 3, "value": "body:/weight", "optional": true},
                    "due": {"type": "time", "value": "body:/due", "optional": true},
                    "owner": {"type": "id", "value": "body:/owner", "optional": true},
                    "count": {"type": "integer", "value": "body:/count", "optional": true},
                    "fee": {"type": "money", "value": "body:/fee", "currency": "EUR", "minor": true, "optional": true},
                },
            },
        },
    }))
    .expect("a tool");
    let tools = BTreeMap::from([(Id::new("orders").expect("a name"), config)]);
    let tenants = BTreeSet::from([Id::new("acme").expect("a name")]);
    resolve_tools(&tools, &tenants, &|_| None).expect("a catalogue")
}

fn delegation() -> Delegation {
    let authority = json!({"scope": [], "elements": []});
    let hop = |kind: &str, id: &str| {
        json!({
            "principal": {"kind": kind, "id": id, "issuer": "https://countersign.example", "tenant": "acme"},
            "instance": null, "jti": null, "grant": null, "authority": authority, "evidence": "delegation_chain",
        })
    };
    serde_json::from_value(json!({
        "token": {
            "digest": "digest", "issuer": "https://countersign.example", "jti": null, "client_id": null,
            "key_id": null, "algorithm": "ES256", "issued_at": "2026-11-22T09:59:00Z",
            "expires_at": "2026-11-22T10:04:00Z",
        },
        "chain": [hop("user", "alice"), hop("agent", "support")],
        "authority": authority,
        "authority_assumed": false,
        "user": {"groups": [], "roles": [], "acr": null, "auth_time": null, "attributes": {}},
        "entitlement": [],
        "tenant": "acme",
        "grant": null,
        "run": "run-1",
        "run_derived": false,
        "task": {
            "id": null, "use_case": null, "initiated_by": null, "sensitivity": "high", "stage": "supervised",
            "presence": null,
        },
        "session": null,
        "position": null,
        "sender": "bearer",
    }))
    .expect("a delegation")
}

#[cfg(test)]
#[path = "../../../fuzz/src/chance.rs"]
mod chance;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The seeds as they are and a little changed.
    fn said_again(target: &str, law: fn(&[u8]) -> bool, accepted: &[&str]) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{} seeds", files.len());
        let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let rounds = if std::env::var_os("COUNTERSIGN_TEST_LONG").is_some() { 2_000 } else { 20 };
        let mut chance = chance::Chance::new();
        for (file, seed) in files.iter().zip(&seeds) {
            assert!(target == "redact" || request(seed).is_some(), "{} is no request", file.display());
            let name = file.file_name().unwrap().to_str().unwrap();
            assert_eq!(law(seed), accepted.contains(&name), "{name}");
            for _ in 0..rounds {
                let other = &seeds[chance.below(seeds.len())];
                let bytes = chance.changed(seed, other);
                let outcome = std::panic::catch_unwind(|| law(&bytes));
                assert!(outcome.is_ok(), "`{target}`: {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_accepted_of_a_head_reads_in_one_way_and_stays_where_it_belongs() {
        let accepted =
            ["absolute", "answer", "bytes", "chunked", "hop", "http2", "plain", "trace", "underscores", "upgrade"];
        said_again("headers", headers, &accepted);
    }

    #[test]
    fn nothing_is_shown_at_the_places_of_a_document_in_whatever_pieces_it_comes() {
        let shown = [
            "deep",
            "empty",
            "escaped",
            "events",
            "events-done",
            "events-ends",
            "events-fields",
            "events-half",
            "events-lines",
            "events-mcp",
            "every",
            "index",
            "lines",
            "members",
            "sequence",
            "surrogates",
            "twice",
        ];
        said_again("redact", redact, &shown);
    }

    #[test]
    fn what_is_read_of_a_body_is_what_every_reader_finds_there() {
        let accepted = [
            "charset",
            "refund",
            "refund-note",
            "refund-number",
            "tags",
            "tags-array",
            "tags-deep",
            "tags-nulls",
            "tags-texts",
        ];
        said_again("body", body, &accepted);
    }
}
