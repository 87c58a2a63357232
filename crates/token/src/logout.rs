//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4): an identity provider says that a session there ended.
//!
//! A logout token is nothing else, and nothing else is one: `events` tells them apart, whatever `typ` says.

use jiff::{SignedDuration, Timestamp};
use model::{Code, Id, Refusal, Target, json::Json};
use serde_json::json;

use crate::{
    Audience, Issuer, Verifier,
    check::{
        audience, kind,
        shape::{self, Header, Unverified},
        signature,
        time::{self, Times},
    },
    read,
    refusal::{Checked, refuse, unverified},
    verifier,
};

/// The member of `events` that makes a token a logout token (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// How long a logout token counts from `iat`, however late it says that it ends.
const MAX_AGE: SignedDuration = SignedDuration::from_mins(5);
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;

/// What a verified logout token says. It is good once: whoever takes it has to remember `jti` until `expires_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Logout {
    /// Who says it.
    pub issuer: String,
    /// The token's own name, unique for the issuer.
    pub jti: String,
    /// What ended: a session of the issuer's where one is named, everything of a user where none is.
    pub target: Target,
    /// Until when `jti` has to be remembered: the end that is accepted, skew included.
    pub expires_at: Timestamp,
}

impl Verifier {
    /// Verifies a logout token of an issuer with `withdrawals: backchannel_logout`, made out to one of its
    /// `logout_clients`.
    ///
    /// # Errors
    /// `invalid_token` before the signature is verified, and for its claims; `expired`; `wrong_audience`;
    /// `keys_unavailable`.
    pub async fn verify_logout(&self, compact: &str, now: Timestamp) -> Result<Logout, Box<Refusal>> {
        let token = shape::parse(compact, None)?;
        let (issuer, keys) = self.issuer(&token)?;
        if issuer.logout_clients.is_empty() {
            return Err(unverified(format!("{} has no `withdrawals: backchannel_logout`", issuer.name)));
        }
        let (key, _) = verifier::key(&token, issuer, keys, now).await?;
        signature::check(&token, &key)?;
        check(&token, issuer, now)
    }
}

/// Refuses a token that tells of events (RFC 8417 §4): it was made to say that something happened, never to be
/// presented by anybody who wants something.
pub(crate) fn none(claims: &Json) -> Checked<()> {
    if claims.member("events").is_none() {
        return Ok(());
    }
    refuse(Code::InvalidToken, "The token tells of an event; it grants nothing.", "`events` is there")
}

/// What is checked of a token whose signature was verified (§2.6).
fn check(token: &Unverified<'_>, issuer: &Issuer, now: Timestamp) -> Checked<Logout> {
    let claims = &token.claims;
    kind_of(&token.header)?;
    let expires_at = end(claims, issuer.skew, now)?;
    audience::exactly_one(&Audience::of(claims), &issuer.logout_clients)?;
    if !matches!(claims.member("events").and_then(|events| events.member(EVENT)), Some(Json::Object(_))) {
        return wrong("`events` has to hold the back-channel logout event, an object.");
    }
    if claims.member("nonce").is_some() {
        return wrong("A logout token has no `nonce`.");
    }
    let jti = match claims.member("jti").and_then(Json::as_text) {
        Some(jti) if (1..=MAX_JTI_BYTES).contains(&jti.len()) => jti.to_owned(),
        _ => return wrong("`jti` has to be there, a string of 1 to 256 bytes."),
    };
    Ok(Logout { issuer: issuer.name.clone(), jti, target: target(claims, issuer)?, expires_at })
}

/// Its own type; or none, which is what `JWT` says too: §2.4 recommends the type and does not require it.
fn kind_of(header: &Header) -> Checked<()> {
    let kind = header.kind.as_deref().map(str::to_ascii_lowercase);
    match kind.as_deref().map(|kind| kind.strip_prefix("application/").unwrap_or(kind)) {
        None | Some("jwt" | "logout+jwt") => kind::critical(header),
        Some(_) => wrong("The token's `typ` is not that of a logout token (`logout+jwt`)."),
    }
}

/// The end that is accepted, skew included, of a token that has not ended.
fn end(claims: &Json, skew: SignedDuration, now: Timestamp) -> Checked<Timestamp> {
    let seconds = |name: &str| match claims.member(name) {
        Some(Json::Number(text)) => text.parse::<i64>().or_else(|_| wrong("The token's times are no times.")),
        _ => wrong("`iat` and `exp` have to be there, numbers."),
    };
    let not_before = claims.member("nbf").map(|_| seconds("nbf")).transpose()?;
    let said = time::read(seconds("iat")?, seconds("exp")?, not_before)?;
    let oldest = said.issued_at.saturating_add(MAX_AGE).unwrap_or(said.issued_at);
    let times = Times { expires_at: said.expires_at.min(oldest), ..said };
    time::check(times, MAX_AGE, skew, now)?;
    Ok(times.expires_at.saturating_add(skew).unwrap_or(times.expires_at))
}

/// The session in `sid`. Without one, the user, by the claim that names them in the issuer's other tokens.
fn target(claims: &Json, issuer: &Issuer) -> Checked<Target> {
    if let Some(sid) = claims.member("sid") {
        let session = json!({ "kind": "session", "issuer": issuer.name, "sid": sid.as_text() });
        return serde_json::from_value(session).or_else(|_| wrong("`sid` is not the name of a session."));
    }
    let Some(id) = read::at(claims, &issuer.claims.id) else {
        return wrong("It has to say whose session ended: neither `sid` nor the claim that names users is there.");
    };
    match id.as_text().map(Id::new) {
        Some(Ok(id)) => Ok(Target::User { issuer: issuer.name.clone(), id }),
        _ => wrong("The claim that names users is not the name of one."),
    }
}

fn wrong<T>(detail: &str) -> Checked<T> {
    refuse(Code::InvalidToken, detail, format!("logout token: {detail}"))
}

#[cfg(test)]
mod tests;
