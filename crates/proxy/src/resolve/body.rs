//! The JSON body of an action with parameters in it: read once, whole and bounded, with one reading only.

use bytes::Bytes;
use http::{HeaderMap, header};
use model::{Code, Refusal, json::Json};
use net::{Body, body::CollectError};

use crate::{
    accept::{malformed, sentence},
    config::AgentListenerConfig,
    overload::BodyRoom,
};

/// The bytes, and what they say; no value where there are none.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    listener: &AgentListenerConfig,
    mut room: BodyRoom<'_>,
) -> Result<(Bytes, Option<Json>), Box<Refusal>> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(malformed("An encoded body (`Content-Encoding`) cannot be checked; send it plain."));
    }
    let collecting = net::body::collect_within(body, listener.max_body_bytes, |bytes| room.grow(bytes));
    let bytes = match tokio::time::timeout(listener.body_timeout.0, collecting).await {
        Ok(Ok(Some(bytes))) => room.fill(bytes),
        Ok(Ok(None)) => return Err(room.refusal()),
        Ok(Err(CollectError::TooLarge { limit })) => {
            return Err(Box::new(Refusal::new(
                Code::BodyTooLarge,
                format!("The body is larger than the {limit} bytes that may be read of it."),
            )));
        }
        Ok(Err(CollectError::Broken { cause })) => {
            let refusal = Refusal::new(Code::Malformed, "The body ended early.");
            return Err(Box::new(refusal.internally(cause)));
        }
        Err(_) => return Err(malformed("The body did not arrive in time.")),
    };
    if bytes.is_empty() {
        return Ok((bytes, None));
    }
    content_type(headers)?;
    let json = Json::parse(&bytes).map_err(|error| malformed(&format!("The body cannot be read: {error}.")))?;
    Ok((bytes, Some(json)))
}

/// `application/json` or `application/<something>+json`, in UTF-8 and nothing else.
fn content_type(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    let wrong = || malformed("The body of this action is JSON: send `Content-Type: application/json`.");
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(wrong()) };
    let text = value.to_str().map_err(|_| wrong())?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let subtype = essence.strip_prefix("application/").ok_or_else(wrong)?;
    let suffixed = subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty());
    let utf8 = |part: &str| matches!(part, "charset=utf-8" | "charset=\"utf-8\"");
    if (subtype != "json" && !suffixed) || !parts.all(utf8) {
        return Err(wrong());
    }
    Ok(())
}

/// Checks that `json` holds what is declared at `pointers` and, unless `open`, nothing else. A member that some
/// parsers take for a declared one (other case) is refused in any case.
pub(super) fn closed<'a>(json: &Json, pointers: impl Iterator<Item = &'a str>, open: bool) -> Result<(), Box<Refusal>> {
    let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
    let declared: Vec<Vec<String>> =
        pointers.map(|pointer| pointer.split('/').skip(1).map(unescape).collect()).collect();
    let declared: Vec<&[String]> = declared.iter().map(Vec::as_slice).collect();
    if !matches!(json, Json::Object(_) | Json::Array(_)) {
        return Err(malformed("The body is not a JSON object."));
    }
    walk(json, &declared, open)
}

/// `declared` are the paths from here to each declared value.
fn walk(json: &Json, declared: &[&[String]], open: bool) -> Result<(), Box<Refusal>> {
    if declared.iter().any(|path| path.is_empty()) {
        return Ok(());
    }
    match json {
        Json::Object(members) => {
            for (name, value) in members {
                member(name, value, declared, open)?;
            }
            Ok(())
        }
        Json::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                member(&index.to_string(), value, declared, open)?;
            }
            Ok(())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) if open => Ok(()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {
            Err(malformed("The body has a plain value where an object with parameters belongs."))
        }
    }
}

fn member(name: &str, value: &Json, declared: &[&[String]], open: bool) -> Result<(), Box<Refusal>> {
    let below: Vec<&[String]> = declared
        .iter()
        .filter_map(|path| path.split_first().filter(|(first, _)| *first == name).map(|(_, rest)| rest))
        .collect();
    if !below.is_empty() {
        return walk(value, &below, open);
    }
    let alike =
        declared.iter().any(|path| path.first().is_some_and(|first| first.to_lowercase() == name.to_lowercase()));
    if open && !alike {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(malformed(&sentence(&format!("the body has a member `{shown}` that the action does not declare"))))
}
