//! Security Event Tokens (RFC 8417) as the Shared Signals Framework 1.0 sends them: a transmitter says that a session was
//! revoked or an account disabled.
//!
//! A SET is nothing else, and nothing else is one: its `typ` is required, and it has neither `sub` nor `exp`.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use model::{Code, Id, Refusal, Target, json::Json};
use serde_json::json;

use crate::{
    Audience, Issuer, Verifier,
    check::{
        audience, kind,
        shape::{self, Unverified},
        signature,
    },
    refusal::{Checked, refuse},
    verifier,
};

/// The `typ` of a SET (RFC 8417 §2.3).
pub const SECURITY_EVENT_TYPE: &str = "secevent+jwt";
/// How old an event may be, by its `iat`: transmitters deliver late, and whoever takes one remembers it for as long.
pub const MAX_EVENT_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 256;
/// The longest address of a user, in bytes (RFC 5321 §4.5.3.1).
const MAX_EMAIL_BYTES: usize = 320;
/// The most events in one token. The framework has one.
const MAX_EVENTS: usize = 8;

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// What a verified SET says. It counts once: whoever takes it has to remember `jti` until `expires_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecurityEvents {
    /// Who says it.
    pub transmitter: String,
    /// The token's own name, unique for the transmitter.
    pub jti: String,
    /// What happened.
    pub events: Vec<SecurityEvent>,
    /// Until when `jti` has to be remembered.
    pub expires_at: Timestamp,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityEvent {
    /// Something ended that delegations rest on.
    Ended {
        /// The last part of the event's name: `session-revoked`.
        kind: String,
        /// What ended.
        of: Ended,
        /// Why, in the transmitter's words for administrators.
        reason: Option<String>,
    },
    /// The transmitter shows that the stream works.
    Verification,
    /// The transmitter says how the stream stands: `enabled`, `paused` or `disabled`.
    StreamUpdated(String),
    /// Nothing that lessens authority, or nothing that is known here.
    Other(String),
}

/// What ended by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Something that is named as it is here.
    Target(Target),
    /// Everything of the user with this address, whoever that is.
    Email(String),
}

impl SecurityEvent {
    /// What is counted of it: of what is not known here, only that it is not.
    pub fn name(&self) -> &str {
        match self {
            Self::Ended { kind, .. } => kind,
            Self::Verification => "verification",
            Self::StreamUpdated(_) => "stream-updated",
            Self::Other(_) => "other",
        }
    }
}

/// Why a token tells of nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoEvents {
    /// It is not signed with a key of the transmitter's: `invalid_token`, or `keys_unavailable`.
    Key(Box<Refusal>),
    /// What it says: `invalid_token`; `expired` for one that is too old; `wrong_audience`; `insufficient_scope` for a
    /// subject that is not the transmitter's to speak of.
    Claims(Box<Refusal>),
}

impl NoEvents {
    /// What is said of it.
    pub const fn refusal(&self) -> &Refusal {
        match self {
            Self::Key(refusal) | Self::Claims(refusal) => refusal,
        }
    }
}

/// Whom a transmitter may speak of, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct EventRules<'a> {
    /// Our name as an audience of its SETs.
    pub audience: &'a BTreeSet<String>,
    /// The issuers of the users, sessions and tokens that it may speak of.
    pub subjects: &'a BTreeSet<String>,
    /// Whether it may name users by their addresses.
    pub emails: bool,
}

impl Verifier {
    /// Verifies a SET of one of the issuers, which are transmitters here, that is for us.
    ///
    /// # Errors
    /// By what is wrong: its key, or what it says.
    pub async fn verify_events(
        &self,
        compact: &str,
        rules: EventRules<'_>,
        now: Timestamp,
    ) -> Result<SecurityEvents, NoEvents> {
        let token = shape::parse(compact, None).map_err(NoEvents::Claims)?;
        let (issuer, keys) = self.issuer(&token).map_err(NoEvents::Claims)?;
        let (key, _) = verifier::key(&token, issuer, keys, now).await.map_err(NoEvents::Key)?;
        signature::check(&token, &key).map_err(NoEvents::Key)?;
        check(&token, issuer, rules, now).map_err(NoEvents::Claims)
    }
}

/// The transmitter that a SET claims to be from: to find out what holds for it, and for nothing else.
///
/// # Errors
/// `invalid_token` when it has not the shape of a token.
pub fn claimed_transmitter(compact: &str) -> Result<String, Box<Refusal>> {
    shape::parse(compact, None).map(|token| token.issuer)
}

fn check(token: &Unverified<'_>, issuer: &Issuer, rules: EventRules<'_>, now: Timestamp) -> Checked<SecurityEvents> {
    let claims = &token.claims;
    kind::is(&token.header, SECURITY_EVENT_TYPE)?;
    audience::any(&Audience::of(claims), rules.audience)?;
    if ["sub", "exp", "nonce"].iter().any(|name| claims.member(name).is_some()) {
        return wrong("A security event has neither `sub` nor `exp` nor `nonce`.");
    }
    let issued = match claims.member("iat") {
        Some(Json::Number(text)) => text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        _ => None,
    };
    let Some(issued) = issued else { return wrong("`iat` has to be there, a number.") };
    if issued.duration_since(now) > issuer.skew {
        return wrong("It is from the future.");
    }
    let expires_at = issued.saturating_add(MAX_EVENT_AGE).unwrap_or(Timestamp::MAX);
    if expires_at <= now {
        return refuse(Code::Expired, "The event is too old.", format!("`iat` is {issued}"));
    }
    let jti = match claims.member("jti").and_then(Json::as_text) {
        Some(jti) if (1..=MAX_JTI_BYTES).contains(&jti.len()) => jti.to_owned(),
        _ => return wrong("`jti` has to be there, a string of 1 to 256 bytes."),
    };
    let Some(Json::Object(members)) = claims.member("events") else {
        return wrong("`events` has to be there, an object.");
    };
    if members.is_empty() || members.len() > MAX_EVENTS {
        return wrong("`events` has to hold one event.");
    }
    let events = members.iter().map(|(name, event)| read(name, event, claims.member("sub_id"), rules));
    Ok(SecurityEvents { transmitter: issuer.name.clone(), jti, events: events.collect::<Checked<_>>()?, expires_at })
}

fn read(name: &str, event: &Json, subject: Option<&Json>, rules: EventRules<'_>) -> Checked<SecurityEvent> {
    if !matches!(event, Json::Object(_)) {
        return wrong("An event is an object.");
    }
    let text = |member: &str| event.member(member).and_then(Json::as_text);
    let other = || Ok(SecurityEvent::Other(name.chars().filter(|c| !c.is_control()).take(200).collect()));
    let ended = |kind: &str| {
        let reason = event.member("reason_admin").and_then(said).map(str::to_owned);
        Ok(SecurityEvent::Ended { kind: kind.to_owned(), of: target(subject, rules)?, reason })
    };
    if let Some(kind) = name.strip_prefix(SSF) {
        return match kind {
            "verification" => Ok(SecurityEvent::Verification),
            "stream-updated" => Ok(SecurityEvent::StreamUpdated(text("status").unwrap_or_default().to_owned())),
            _ => other(),
        };
    }
    match (name.strip_prefix(CAEP), name.strip_prefix(RISC)) {
        (Some(kind @ "session-revoked"), _) => ended(kind),
        // A new credential lessens nothing.
        (Some(kind @ "credential-change"), _) if text("change_type") != Some("create") => ended(kind),
        (_, Some(kind @ ("account-disabled" | "account-purged" | "sessions-revoked" | "credential-compromise"))) => {
            ended(kind)
        }
        _ => other(),
    }
}

/// A reason in one of its languages.
fn said(reason: &Json) -> Option<&str> {
    match reason {
        Json::Text(text) => Some(text),
        Json::Object(languages) => {
            let english = languages.iter().find(|(language, _)| language.as_str() == "en");
            english.or_else(|| languages.first()).and_then(|(_, text)| text.as_text())
        }
        _ => None,
    }
}

/// Whom or what an event is about (RFC 9493, and the framework's complex subjects): the token it names, or else the
/// session, or else all of the user.
fn target(subject: Option<&Json>, rules: EventRules<'_>) -> Checked<Ended> {
    let Some(subject) = subject else { return wrong("`sub_id` has to say whom the event is about.") };
    let text = |of: &Json, member: &str| of.member(member).and_then(Json::as_text).map(str::to_owned);
    match text(subject, "format").as_deref() {
        Some("iss_sub" | "email") => user(subject, rules),
        Some("jwt_id") => {
            let issuer = spoken_of(text(subject, "iss"), rules)?;
            made(json!({ "kind": "token", "issuer": issuer, "jti": text(subject, "jti") }))
        }
        Some("complex") => {
            let whose = subject.member("user");
            let Some(session) = subject.member("session") else {
                return whose
                    .map_or_else(|| unknown("a complex subject without `user` and `session`"), |it| user(it, rules));
            };
            // A session is its issuer's, whom the user beside it names; or it names its issuer itself.
            let issuer = text(session, "iss").or_else(|| whose.and_then(|user| text(user, "iss")));
            let issuer = match issuer {
                None if rules.subjects.len() == 1 => rules.subjects.first().cloned(),
                issuer => issuer,
            };
            let issuer = spoken_of(issuer, rules)?;
            let sid = match text(session, "format").as_deref() {
                Some("opaque") => text(session, "id"),
                Some("iss_sub") => text(session, "sub"),
                _ => return unknown("a session that is neither `opaque` nor `iss_sub`"),
            };
            made(json!({ "kind": "session", "issuer": issuer, "sid": sid }))
        }
        _ => unknown("its `format` is none that can be mapped"),
    }
}

fn user(subject: &Json, rules: EventRules<'_>) -> Checked<Ended> {
    let text = |member: &str| subject.member(member).and_then(Json::as_text);
    match text("format") {
        Some("iss_sub") => {
            let issuer = spoken_of(text("iss").map(str::to_owned), rules)?;
            match text("sub").map(Id::new) {
                Some(Ok(id)) => Ok(Ended::Target(Target::User { issuer, id })),
                _ => unknown("`sub` is not the name of a user"),
            }
        }
        // RFC 9493 §3.2.2.
        Some("email") if rules.emails => match text("email") {
            Some(email) if is_email(email) => Ok(Ended::Email(email.to_owned())),
            _ => unknown("`email` is no address"),
        },
        Some("email") => unknown("the transmitter is not configured to name users by `email`"),
        _ => unknown("a user that is neither `iss_sub` nor `email`"),
    }
}

/// Whether it may be an address: something on both sides of an `@`, and nothing that separates.
fn is_email(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    text.len() <= MAX_EMAIL_BYTES && text.rsplit_once('@').is_some_and(|(who, at)| plain(who) && plain(at))
}

/// The issuer, if the transmitter may speak of what is its.
fn spoken_of(issuer: Option<String>, rules: EventRules<'_>) -> Checked<String> {
    match issuer {
        Some(issuer) if rules.subjects.contains(&issuer) => Ok(issuer),
        Some(issuer) => {
            let detail = "The transmitter may not speak of subjects of that issuer.";
            refuse(Code::InsufficientScope, detail, format!("a subject of {issuer:?}"))
        }
        None => unknown("it does not say whose the subject is"),
    }
}

fn made(target: serde_json::Value) -> Checked<Ended> {
    serde_json::from_value(target).map(Ended::Target).or_else(|_| unknown("a name is missing or is none"))
}

/// It is said aloud: an event that cannot be mapped is one that does not end anything.
fn unknown<T>(why: &str) -> Checked<T> {
    refuse(
        Code::InvalidToken,
        "The subject of the event cannot be mapped to anything here.",
        format!("`sub_id`: {why}"),
    )
}

fn wrong<T>(detail: &str) -> Checked<T> {
    refuse(Code::InvalidToken, detail, format!("security event: {detail}"))
}

#[cfg(test)]
mod tests;
