//! Personal values: on the line a salted commitment, in the companion file the value and its salt, so that
//! erasing a person leaves a chain that still verifies.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    canonical::{self, Unrecordable},
    chain::{Hash, sha256},
};

/// The version of the record format, member `v` of each line.
pub(crate) const VERSION: u64 = 1;

const SALT_BYTES: usize = 16;

/// A record before it has its place in the chain: its members as canonical text, and its companion values.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    members: BTreeMap<&'static str, String>,
    values: BTreeMap<String, String>,
}

/// One row of a companion file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// The record it belongs to.
    pub(crate) seq: u64,
    /// The values, by JSON pointer into the record.
    pub(crate) values: BTreeMap<String, Salted>,
}

/// A personal value with the salt of its commitment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Salted {
    /// base64url, 16 random bytes.
    pub(crate) salt: String,
    /// The value.
    pub(crate) value: Value,
}

impl Draft {
    pub(crate) fn new(kind: &str) -> Result<Self, Unrecordable> {
        let mut draft = Self { members: BTreeMap::new(), values: BTreeMap::new() };
        draft.plain("kind", &kind)?;
        draft.plain("v", &VERSION)?;
        Ok(draft)
    }

    /// A member that stands on the line as it is.
    pub(crate) fn plain(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), Unrecordable> {
        self.members.insert(name, canonical::text(value)?);
        Ok(())
    }

    /// The same, left out where there is none.
    pub(crate) fn optional(&mut self, name: &'static str, value: Option<&impl Serialize>) -> Result<(), Unrecordable> {
        value.map_or(Ok(()), |value| self.plain(name, value))
    }

    /// A member whose value lies in the companion file; the line holds its commitment.
    pub(crate) fn personal(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), Unrecordable> {
        let value = canonical::text(value)?;
        let salt = salt()?;
        let commitment = commitment(&salt, &value);
        self.members.insert(name, format!("{{\"commitment\":\"{commitment}\"}}"));
        let salt = URL_SAFE_NO_PAD.encode(salt);
        self.values.insert(format!("/{name}"), format!("{{\"salt\":\"{salt}\",\"value\":{value}}}"));
        Ok(())
    }

    /// The line, without its newline.
    pub(crate) fn line(&mut self, seq: u64, time: Timestamp, prev: &Hash) -> Result<String, Unrecordable> {
        self.plain("seq", &seq)?;
        self.plain("time", &time)?;
        self.plain("prev", &URL_SAFE_NO_PAD.encode(prev))?;
        // Names are ASCII, so byte order is RFC 8785's order of UTF-16 units.
        Ok(object(self.members.iter().map(|(name, value)| (*name, value.as_str()))))
    }

    /// The companion row, without its newline; `None` where nothing is personal.
    pub(crate) fn row(&self, seq: u64) -> Option<String> {
        if self.values.is_empty() {
            return None;
        }
        let values = object(self.values.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Some(format!("{{\"seq\":{seq},\"values\":{values}}}"))
    }
}

/// The members in their order as a JSON object. Names are our own and need no escaping.
fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::with_capacity(2048);
    text.push('{');
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push('"');
        text.push_str(name);
        text.push_str("\":");
        text.push_str(value);
    }
    text.push('}');
    text
}

fn salt() -> Result<[u8; SALT_BYTES], Unrecordable> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| Unrecordable::Salt)?;
    Ok(salt)
}

/// base64url(SHA-256(salt || canonical value)).
pub(crate) fn commitment(salt: &[u8], canonical_value: &str) -> String {
    let mut bytes = Vec::with_capacity(salt.len() + canonical_value.len());
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(canonical_value.as_bytes());
    URL_SAFE_NO_PAD.encode(sha256(&bytes))
}

/// The commitment that stands in place of a personal value.
pub(crate) fn committed(member: &Value) -> Option<&str> {
    let object = member.as_object().filter(|object| object.len() == 1)?;
    object.get("commitment")?.as_str()
}

impl Salted {
    /// Whether this is what was committed to.
    pub(crate) fn matches(&self, expected: &str) -> bool {
        let Ok(salt) = URL_SAFE_NO_PAD.decode(&self.salt) else { return false };
        canonical::text(&self.value).is_ok_and(|text| commitment(&salt, &text) == expected)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_personal_value_is_on_the_line_only_as_a_commitment_that_its_row_opens() {
        let mut draft = Draft::new("test").unwrap();
        draft.personal("path", &"/customers/9821").unwrap();
        draft.plain("tool", &"customers").unwrap();
        let line = draft.line(7, Timestamp::UNIX_EPOCH, &[0; 32]).unwrap();
        assert!(!line.contains("9821") && line.contains("\"tool\":\"customers\""));
        let fields: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(canonical::text(&fields).unwrap(), line, "a line is canonical");
        let row: Row = serde_json::from_str(&draft.row(7).unwrap()).unwrap();
        let expected = committed(&fields["path"]).unwrap();
        assert!(row.values["/path"].matches(expected));
        let changed = Salted { value: json!("/customers/9822"), ..row.values["/path"].clone() };
        assert!(!changed.matches(expected));
    }

    #[test]
    fn equal_values_have_different_commitments() {
        let line = || {
            let mut draft = Draft::new("test").unwrap();
            draft.personal("path", &"/a").unwrap();
            draft.line(0, Timestamp::UNIX_EPOCH, &[0; 32]).unwrap()
        };
        assert_ne!(line(), line());
    }
}
