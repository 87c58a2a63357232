//! Assertions (RFC 7523 §3): an agent or an enrolled sidecar proves to the authority who it is, with its own key.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{Code, Id, Principal, json::Json};

use crate::{
    Algorithm, Audience, KeySet,
    check::{
        kind,
        shape::{self, Unverified},
        signature, time,
    },
    logout,
    refusal::{Checked, refuse, unverified},
};

/// The longest life of an assertion, counted from now and from `iat`.
pub const MAX_ASSERTION_LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// The `typ` of a sidecar's assertion: an agent's is none, and the reverse.
pub const SIDECAR_ASSERTION_TYPE: &str = "countersign-sidecar+jwt";
/// The longest life of a sidecar's assertion.
pub const MAX_SIDECAR_ASSERTION_LIFETIME: SignedDuration = SignedDuration::from_secs(60);
/// How far the client's clock may be off.
const SKEW: SignedDuration = SignedDuration::from_secs(5);
/// The longest name of an instance, in bytes.
const MAX_INSTANCE_BYTES: usize = 256;
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;

/// A verified client assertion. It is good once: whoever takes it has to remember `jti` until `expires_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientAssertion {
    /// The client.
    pub client: Id<Principal>,
    /// The assertion's own name, unique for the client.
    pub jti: String,
    /// When it was made, at most the skew after now. RFC 7523 §3 makes `iat` optional; whoever cannot remember each
    /// `jti` for as long as it counts has to require it.
    pub issued_at: Option<Timestamp>,
    /// Until when `jti` has to be remembered: the end that is accepted, skew included.
    pub expires_at: Timestamp,
    /// The running copy that the client says it is (`instance`). By its own word: whoever has the key could say another.
    pub instance: Option<String>,
}

/// The client that an assertion claims to be: for finding the keys to verify it with, and for nothing else.
///
/// # Errors
/// `invalid_token` when the assertion has not the shape of a token.
pub fn claimed_client(compact: &str) -> Result<String, Box<model::Refusal>> {
    shape::parse(compact, None).map(|token| token.issuer)
}

/// Verifies that `compact` is `client`'s, for one of `audiences`, and lives at most five minutes.
///
/// # Errors
/// `invalid_token` before the signature is verified, and for its claims; `expired`; `wrong_audience`.
pub fn verify_client_assertion(
    compact: &str,
    keys: &KeySet,
    client: &Id<Principal>,
    audiences: &BTreeSet<String>,
    now: Timestamp,
) -> Result<ClientAssertion, Box<model::Refusal>> {
    let token = signed_by(compact, keys, client.as_str())?;
    kind_of(&token)?;
    logout::none(&token.claims)?;
    let (issued_at, expires_at) = times(&token.claims, MAX_ASSERTION_LIFETIME, now)?;
    check_subject(&token, client.as_str())?;
    check_audience(&token.claims, audiences)?;
    let instance = instance(&token.claims)?;
    match token.claims.member("jti").and_then(Json::as_text) {
        Some(jti) if (1..=MAX_JTI_BYTES).contains(&jti.len()) => {
            Ok(ClientAssertion { client: client.clone(), jti: jti.to_owned(), issued_at, expires_at, instance })
        }
        _ => wrong(format!("`jti` is missing or not a string of 1 to {MAX_JTI_BYTES} bytes")),
    }
}

/// The running copy that an assertion names. One that looks like what only a certificate proves is none.
fn instance(claims: &Json) -> Checked<Option<String>> {
    let Some(named) = claims.member("instance") else { return Ok(None) };
    let plain = |text: &&str| {
        (1..=MAX_INSTANCE_BYTES).contains(&text.len()) && !text.chars().any(char::is_control) && !text.contains("://")
    };
    match named.as_text().filter(plain) {
        Some(text) => Ok(Some(text.to_owned())),
        None => wrong(format!("`instance` is not a name of 1 to {MAX_INSTANCE_BYTES} bytes")),
    }
}

/// Verifies that `compact` is that of the sidecar called `name` (`iss` and `sub`), for `audience`, and lives at most a
/// minute. It may be used until it ends: what it opens tells and changes nothing.
///
/// # Errors
/// `invalid_token` before the signature is verified, and for its claims; `expired`; `wrong_audience`.
pub fn verify_sidecar_assertion(
    compact: &str,
    keys: &KeySet,
    name: &str,
    audience: &str,
    now: Timestamp,
) -> Result<(), Box<model::Refusal>> {
    let token = signed_by(compact, keys, name)?;
    kind::is(&token.header, SIDECAR_ASSERTION_TYPE)?;
    if times(&token.claims, MAX_SIDECAR_ASSERTION_LIFETIME, now)?.0.is_none() {
        return wrong("`iat` is missing");
    }
    check_subject(&token, name)?;
    check_audience(&token.claims, &[audience.to_owned()].into())
}

pub(crate) fn signed_by<'a>(compact: &'a str, keys: &KeySet, name: &str) -> Checked<Unverified<'a>> {
    let token = shape::parse(compact, None)?;
    if token.issuer != name {
        return Err(unverified("`iss` is not the client"));
    }
    let Some(algorithm) = Algorithm::named(&token.header.algorithm) else {
        return Err(unverified(format!("algorithm {:?} is not allowed", token.header.algorithm)));
    };
    let Some(key) = signature::key(&token.header, algorithm, keys)? else {
        return Err(unverified(format!("the client has no key {:?} for {algorithm}", token.header.kid)));
    };
    signature::check(&token, &key)?;
    Ok(token)
}

pub(crate) fn check_subject(token: &Unverified<'_>, name: &str) -> Checked<()> {
    if token.claims.member("sub").and_then(Json::as_text) == Some(name) {
        Ok(())
    } else {
        wrong("`sub` is not the client")
    }
}

fn wrong<T>(internal: impl Into<String>) -> Checked<T> {
    refuse(Code::InvalidToken, "The client assertion is not acceptable.", internal)
}

/// Untyped, `JWT`, or its own type; an access token is none.
fn kind_of(token: &Unverified<'_>) -> Checked<()> {
    let kind = token.header.kind.as_deref().map(str::to_ascii_lowercase);
    match kind.as_deref() {
        None
        | Some("jwt" | "application/jwt" | "client-authentication+jwt" | "application/client-authentication+jwt") => {
            kind::critical(&token.header)
        }
        Some(_) => wrong(format!("`typ` is {:?}", token.header.kind)),
    }
}

/// `exp` is required; `iat` and `nbf` count where they are. Returns `iat`, and the end with the
/// skew included.
pub(crate) fn times(claims: &Json, longest: SignedDuration, now: Timestamp) -> Checked<(Option<Timestamp>, Timestamp)> {
    let seconds = |name: &str| match claims.member(name) {
        None => Ok(None),
        Some(Json::Number(text)) => match text.parse::<i64>() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => wrong(format!("`{name}` is {text}")),
        },
        Some(_) => wrong(format!("`{name}` is not a number")),
    };
    let Some(expires) = seconds("exp")? else { return wrong("`exp` is missing") };
    let issued = seconds("iat")?;
    let times = time::read(issued.unwrap_or(0), expires, seconds("nbf")?)?;
    if times.expires_at.duration_since(now) > longest + SKEW {
        return wrong(format!("`exp` {} is too far away: an assertion lives {longest:#}", times.expires_at));
    }
    let lifetime = if issued.is_some() { longest } else { SignedDuration::MAX };
    time::check(times, lifetime, SKEW, now)?;
    let end = times.expires_at.checked_add(SKEW).or_else(|error| wrong(format!("`exp`: {error}")))?;
    Ok((issued.map(|_| times.issued_at), end))
}

pub(crate) fn check_audience(claims: &Json, ours: &BTreeSet<String>) -> Checked<()> {
    crate::check::audience::exactly_one(&Audience::of(claims), ours).map(|_| ())
}

#[cfg(test)]
mod tests;
