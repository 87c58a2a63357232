//! Identifiers: one type for each kind of name, so that a task id cannot be passed for a run id.
//!
//! An identifier is text that somebody else chose; the rules here keep it printable on one line, so that a
//! record or a refusal cannot be made to read as something else.

use std::{borrow::Cow, cmp::Ordering, fmt, hash, marker::PhantomData, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest identifier, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// The name of an `Of`, for example `Id<Task>`.
pub struct Id<Of> {
    text: Arc<str>,
    of: PhantomData<fn() -> Of>,
}

/// Marks the identifier of a tenant: the customer organisation whose data a call touches.
pub enum Tenant {}

/// Marks a `run_id`: one agent run, which joins every call, record and trace of it.
pub enum Run {}

/// Marks a `decision_id`: one call's decision, the same in the response, the ledger and the trace.
pub enum DecisionMark {}

/// Why text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidId {
    /// It has no characters.
    #[error("an identifier may not be empty")]
    Empty,
    /// It is longer than [`MAX_ID_BYTES`].
    #[error("an identifier may not be longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// It has white space, a control character, or a character that reorders or hides text.
    #[error("an identifier may not contain white space, control or invisible characters")]
    Unprintable,
}

impl<Of> Id<Of> {
    /// Checks `text` and takes it as an identifier.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > MAX_ID_BYTES {
            return Err(InvalidId::TooLong);
        }
        if text.chars().any(is_unprintable) {
            return Err(InvalidId::Unprintable);
        }
        Ok(Self { text: Arc::from(text), of: PhantomData })
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// White space, controls, and the characters that reorder or hide text (bidirectional controls, zero width).
fn is_unprintable(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
}

impl<Of> Clone for Id<Of> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), of: PhantomData }
    }
}

impl<Of> PartialEq for Id<Of> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<Of> Eq for Id<Of> {}

impl<Of> PartialOrd for Id<Of> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<Of> Ord for Id<Of> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl<Of> hash::Hash for Id<Of> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl<Of> fmt::Debug for Id<Of> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl<Of> fmt::Display for Id<Of> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<Of> std::str::FromStr for Id<Of> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl<Of> Serialize for Id<Of> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, Of> Deserialize<'de> for Id<Of> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(de::Error::custom)
    }
}

impl<Of> JsonSchema for Id<Of> {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_forge_a_line_of_a_record_is_no_identifier() {
        for text in ["", "a b", "a\nb", "a\u{202E}b", "a\u{200B}", &"x".repeat(257)] {
            assert!(Id::<Tenant>::new(text).is_err(), "{text:?}");
        }
        assert_eq!(Id::<Tenant>::new("auth0|42@acme").map(|id| id.to_string()), Ok("auth0|42@acme".to_owned()));
    }
}
