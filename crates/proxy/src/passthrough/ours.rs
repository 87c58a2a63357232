//! Whether a request shows a token that is for this sidecar, or carries one elsewhere. Nothing is verified here: what says
//! that it is of an issuer we know has to go the whole way, and be refused there if it is bad.

use std::borrow::Cow;

use audit::record::OwnCredential;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::header;
use model::{Refusal, json::Json};
use percent_encoding::{percent_decode, percent_decode_str};
use token::Verifier;

use crate::{
    accept::{Incoming, malformed},
    headers,
};

/// The field in which a call names its task: whoever does wants a token for it.
const TASK: &str = "countersign-task";

/// What an agent shows of itself.
pub(super) enum Presented {
    /// Something that is for this sidecar, whether it is good or not.
    Ours,
    /// What the agent has today, or nothing.
    TheirOwn(OwnCredential),
}

/// What the request shows in `Authorization`.
///
/// # Errors
/// Where it can be read in two ways, or would sign in a connection that others use too.
pub(super) fn presented(incoming: &Incoming, verifier: &Verifier) -> Result<Presented, Box<Refusal>> {
    if incoming.headers().contains_key(TASK) {
        return Ok(Presented::Ours);
    }
    let Some(value) = incoming.headers().get(header::AUTHORIZATION) else {
        return Ok(Presented::TheirOwn(OwnCredential::None));
    };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed("`Authorization` is not text."))?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is = |known: &str| scheme.eq_ignore_ascii_case(known);
    if is("negotiate") || is("ntlm") {
        return Err(malformed("`Negotiate` and `NTLM` sign in a connection, and this one is not the agent's alone."));
    }
    let ours = |text: &str| has_ours(text, &|issuer| verifier.knows(issuer));
    let inner = is("basic").then(|| decoded(rest.trim())).flatten();
    if ours(text) || inner.is_some_and(|pair| ours(&String::from_utf8_lossy(&pair))) {
        return Ok(Presented::Ours);
    }
    Ok(Presented::TheirOwn(match () {
        () if is("bearer") => OwnCredential::Bearer,
        () if is("basic") => OwnCredential::Basic,
        () => OwnCredential::Other,
    }))
}

/// Where else the request carries a token that is for this sidecar, of what would go to the tool.
pub(super) fn carried<'a>(incoming: &'a Incoming, verifier: &Verifier) -> Option<Cow<'a, str>> {
    let ours = |text: &str| has_ours(text, &|issuer| verifier.knows(issuer));
    let query = incoming.query().map(|query| percent_decode_str(query).decode_utf8_lossy());
    if query.is_some_and(|query| ours(&query)) {
        return Some("the query".into());
    }
    let mut fields = incoming.headers().iter().filter(|(name, _)| !headers::is_kept_from_tool(name));
    let found = fields.find(|(_, value)| {
        let value = value.as_bytes();
        ours(&String::from_utf8_lossy(value)) || ours(&percent_decode(value).decode_utf8_lossy())
    });
    found.map(|(name, _)| format!("the header field `{name}`").into())
}

/// Whether a text has a token in it that is for this sidecar.
fn has_ours(text: &str, knows: &dyn Fn(&str) -> bool) -> bool {
    let other = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    text.split(other).any(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        let alone = parts.len() == 3;
        parts.windows(3).any(|three| matches!(three, [head, claims, _] if is_ours(head, claims, alone, knows)))
    })
}

/// Whether a head and claims are of a signed token (RFC 7515 §7.1) that says it is of an issuer that is known here. Of one
/// that stands alone and cannot be read, whoever can read it may find that.
fn is_ours(head: &str, claims: &str, alone: bool, knows: &dyn Fn(&str) -> bool) -> bool {
    let read = |part: &str| Json::parse(&decoded(part)?).ok();
    if read(head).is_none_or(|head| head.member("alg").is_none()) {
        return false;
    }
    match read(claims) {
        // An issuer that is no text (RFC 7519 §4.1.1) may be ours to who reads it otherwise.
        Some(claims) => claims.member("iss").is_some_and(|issuer| issuer.as_text().is_none_or(knows)),
        None => alone,
    }
}

/// base64 of either alphabet, padded or not.
fn decoded(text: &str) -> Option<Vec<u8>> {
    const READ: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, READ);
    URL_SAFE.decode(text.replace('+', "-").replace('/', "_")).ok()
}

#[cfg(test)]
mod tests;
