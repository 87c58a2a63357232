//! Obligations: what policy makes a permit depend on. The answer is redacted or no larger than so much, the request
//! carries a field, the call's own limits are tighter, somebody is told. Of several the strictest holds.

mod pointer;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Amount, Limit, Limits, Question, amount::MAX_SAFE_INTEGER, limits::Exceeded, nearest::nearest};

pub use pointer::{InvalidPointer, Pointer, Segment};

/// The most obligations of one decision.
pub const MAX_OBLIGATIONS: usize = 64;
/// The most places that one decision may have redacted.
pub const MAX_POINTERS: usize = 64;

/// The longest name of a header field, and the longest form of its value, in bytes.
const MAX_FIELD: usize = 256;

/// One obligation, with whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// The rule's own code; without one, the name of the duty.
    pub code: String,
    /// What the agent is told where the call does not meet it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What only the record holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<String>,
    /// The package it comes from: `countersign.org`.
    pub source: String,
    /// What has to be done.
    pub duty: Duty,
}

/// What has to be done, or to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Duty {
    /// These places of the tool's answer are `null` when it reaches the agent. JSON pointers (RFC 6901), in which `*`
    /// stands for every member or item.
    #[serde(deserialize_with = "pointers")]
    Redact(BTreeSet<Pointer>),
    /// The body of the tool's answer is at most so many bytes.
    #[serde(deserialize_with = "bytes")]
    MaxResponseBytes(u64),
    /// The request carries this field.
    RequireHeader(RequiredHeader),
    /// Parameters of this call are within these limits, whatever else the call is within: `max`, or `one_of`.
    #[serde(deserialize_with = "limits")]
    Limit(Limits),
    /// Somebody is told once the call is decided.
    Notify(Notification),
}

/// A field that a request has to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequiredHeader {
    /// Its name. It has to be one of those that policy may see (`input_headers`).
    #[serde(deserialize_with = "field_name")]
    pub name: String,
    /// The form of its value, in which `*` stands for any text; without it, any that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form")]
    pub pattern: Option<String>,
}

/// Who is told, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// The channel: `alerts`, or one that configuration names.
    #[serde(deserialize_with = "line")]
    pub channel: String,
    /// What is said. It stays beside the line in the ledger, and goes to the channel as it is.
    #[serde(deserialize_with = "line")]
    pub message: String,
}

/// How a call falls short of an obligation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// It does not carry the field, or not in its form.
    Header,
    /// A parameter is over a limit.
    Limit(Exceeded),
}

impl Duty {
    /// The names of all of them.
    pub const NAMES: [&'static str; 5] = ["redact", "max_response_bytes", "require_header", "limit", "notify"];

    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Redact(_) => "redact",
            Self::MaxResponseBytes(_) => "max_response_bytes",
            Self::RequireHeader(_) => "require_header",
            Self::Limit(_) => "limit",
            Self::Notify(_) => "notify",
        }
    }

    /// The duty called `name` that `value` describes.
    ///
    /// # Errors
    /// Where there is none of that name, or the value is not what it takes.
    pub fn read(name: &str, value: serde_json::Value) -> Result<Self, String> {
        if !Self::NAMES.contains(&name) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
            let meant = nearest(name, Self::NAMES).map_or_else(
                || format!("there are {}", Self::NAMES.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            return Err(format!("there is no obligation `{shown}`; {meant}"));
        }
        let written = serde_json::Map::from_iter([(name.to_owned(), value)]);
        // It may repeat what a rule took from the call.
        let shown = |error: serde_json::Error| -> String {
            error.to_string().chars().filter(|c| !c.is_control()).take(MAX_FIELD).collect()
        };
        serde_json::from_value(written.into()).map_err(|error| format!("`{name}`: {}", shown(error)))
    }

    /// How `question` falls short of it; `None` where it does not, and for what is met after the call is sent.
    pub fn unmet(&self, question: &Question) -> Option<Unmet> {
        match self {
            Self::RequireHeader(required) => {
                let value = question.request.headers.get(&required.name.to_ascii_lowercase());
                (!value.is_some_and(|value| required.is_met(value))).then_some(Unmet::Header)
            }
            Self::Limit(limits) => limits.exceeded(&question.call.parameters).map(Unmet::Limit),
            Self::Redact(_) | Self::MaxResponseBytes(_) | Self::Notify(_) => None,
        }
    }

    /// Whether whoever has the `others` is held to this one too. Telling somebody holds nobody.
    fn is_among(&self, others: &[Obligation]) -> bool {
        let mut duties = others.iter().map(|other| &other.duty);
        match self {
            Self::Redact(own) => own.iter().all(|pointer| {
                duties.clone().any(|other| matches!(other, Self::Redact(pointers) if pointers.contains(pointer)))
            }),
            Self::MaxResponseBytes(own) => {
                duties.any(|other| matches!(other, Self::MaxResponseBytes(bytes) if bytes <= own))
            }
            Self::RequireHeader(_) => duties.any(|other| other == self),
            Self::Limit(own) => duties.any(|other| matches!(other, Self::Limit(limits) if limits.within(own))),
            Self::Notify(_) => true,
        }
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Redact(pointers) => pointers.iter().enumerate().try_for_each(|(at, pointer)| {
                let before = if at == 0 { " " } else { ", " };
                write!(f, "{before}{pointer}")
            }),
            Self::MaxResponseBytes(bytes) => write!(f, " {bytes}"),
            Self::RequireHeader(RequiredHeader { name, pattern }) => match pattern {
                Some(pattern) => write!(f, " {name}: {pattern}"),
                None => write!(f, " {name}"),
            },
            Self::Limit(limits) => limits.iter().try_for_each(|(name, limit)| write!(f, " {name} {}", limit.allowed())),
            Self::Notify(Notification { channel, message }) => write!(f, " {channel}: {message}"),
        }
    }
}

/// Whether a call under the obligations `others` is held to everything that `own` hold it to.
pub fn holds_as_much(others: &[Obligation], own: &[Obligation]) -> bool {
    own.iter().all(|obligation| obligation.duty.is_among(others))
}

impl Obligation {
    /// What the agent is told where the call falls short of it.
    pub fn told(&self, unmet: &Unmet) -> String {
        if let Some(message) = &self.message {
            return message.clone();
        }
        match (&self.duty, unmet) {
            (Duty::RequireHeader(RequiredHeader { name, pattern: Some(pattern) }), _) => {
                format!("The call has to carry the header field `{name}`, in the form `{pattern}`.")
            }
            (Duty::RequireHeader(RequiredHeader { name, pattern: None }), _) => {
                format!("The call has to carry the header field `{name}`.")
            }
            (_, Unmet::Limit(Exceeded { name, .. })) => {
                format!("`{name}` is over the limit that policy sets for this call.")
            }
            (_, Unmet::Header) => "Policy asks for more than the call carries.".to_owned(),
        }
    }
}

/// What `question` may ask for instead where it is over a limit of `obligations`: `{"amount": {"max": "50.00", …}}`.
pub fn allowed(obligations: &[Obligation], question: &Question) -> Option<serde_json::Value> {
    let exceeded = |one: &Obligation| match one.duty.unmet(question)? {
        Unmet::Limit(Exceeded { name, .. }) => Some(name),
        Unmet::Header => None,
    };
    let exceeded: BTreeSet<String> = obligations.iter().filter_map(exceeded).collect();
    let of_calls = obligations.iter().filter_map(|one| match &one.duty {
        Duty::Limit(limits) => Some(limits),
        _ => None,
    });
    // Also of those that this call is within: what is asked for next has to be within all of them.
    let mut tightest: BTreeMap<&str, Limit> = BTreeMap::new();
    for (name, limit) in of_calls.flat_map(Limits::iter).filter(|(name, _)| exceeded.contains(*name)) {
        let both = tightest.get(name).map_or_else(|| Some(limit.clone()), |other| other.tighter(limit));
        // Where there is none that is within both (two currencies), the first says as much as the other.
        tightest.extend(both.map(|both| (name, both)));
    }
    let shown = |limit: &Limit| match limit {
        // With the currency's whole fraction, as people write an amount.
        Limit::Max(Amount::Money(max)) => serde_json::json!({ "max": max.text(), "currency": max.currency() }),
        limit => limit.allowed(),
    };
    let allowed: serde_json::Map<_, _> =
        tightest.iter().map(|(name, limit)| ((*name).to_owned(), shown(limit))).collect();
    (!allowed.is_empty()).then(|| allowed.into())
}

impl RequiredHeader {
    fn is_met(&self, value: &str) -> bool {
        let value = value.trim();
        !value.is_empty() && self.pattern.as_deref().is_none_or(|pattern| has_form(value, pattern))
    }
}

/// Whether `text` has the form of `pattern`: each part between two `*` is there, in order, the first at the beginning
/// and the last at the end.
fn has_form(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(last)
}

fn pointers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Pointer>, D::Error> {
    let pointers = BTreeSet::deserialize(deserializer)?;
    match pointers.len() {
        0 => Err(de::Error::custom("no place is named")),
        1..=MAX_POINTERS => Ok(pointers),
        _ => Err(de::Error::custom(format!("more than {MAX_POINTERS} places"))),
    }
}

/// A number of bytes that a record can hold: a larger one would be rounded.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    if bytes <= MAX_SAFE_INTEGER.unsigned_abs() {
        Ok(bytes)
    } else {
        Err(de::Error::custom(format!("more than {MAX_SAFE_INTEGER} bytes")))
    }
}

fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let limits = Limits::deserialize(deserializer)?;
    if limits.iter().next().is_none() {
        return Err(de::Error::custom("no parameter is named"));
    }
    let over_a_window = limits.cumulative().next().map(|(name, _)| name.to_owned());
    match over_a_window {
        Some(name) => Err(de::Error::custom(format!("`{name}` is over a window: only this call can be limited"))),
        None => Ok(limits),
    }
}

fn field_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = Cow::<str>::deserialize(deserializer)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_FIELD || !name.bytes().all(is_token) {
        return Err(de::Error::custom("not the name of a header field"));
    }
    Ok(name.into_owned())
}

fn form<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let form = line(deserializer)?;
    if form.len() > MAX_FIELD { Err(de::Error::custom("the form is too long")) } else { Ok(Some(form)) }
}

/// One line of text, which is not empty.
fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const MAX_BYTES: usize = 1_024;
    let text = Cow::<str>::deserialize(deserializer)?;
    if text.trim().is_empty() || text.len() > MAX_BYTES || text.chars().any(char::is_control) {
        return Err(de::Error::custom(format!("text of one line and at most {MAX_BYTES} bytes is asked for")));
    }
    Ok(text.into_owned())
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
