//! Members of tokens that were verified, beyond what the verifier hands out. Nothing here proves anything by itself.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::json::Json;

/// The payload of a compact token; of one that was not verified it says nothing.
pub(crate) fn payload(compact: &str) -> Option<Json> {
    let payload = URL_SAFE_NO_PAD.decode(compact.split('.').nth(1)?).ok()?;
    Json::parse(&payload).ok()
}

/// Every name in `aud` (RFC 7519 §4.1.3).
pub(crate) fn audiences(payload: &Json) -> Vec<&str> {
    match payload.member("aud") {
        Some(Json::Text(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_text).collect(),
        _ => Vec::new(),
    }
}
