//! Personal values: on the line a salted commitment, in the companion file the value and its salt, so that
//! erasing a person leaves a chain that still verifies.

use std::{collections::BTreeMap, ops::Range};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::canonical::Unwritable;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    canonical::{self, Unrecordable},
    chain::{Hash, Hashing, hash_parts},
    record::kind,
};

/// The version of the record format, member `v` of each line.
pub(crate) const VERSION: u64 = 1;

/// What says where in the chain a record stands.
const PLACE: [&str; 3] = ["prev", "seq", "time"];

const SALT_BYTES: usize = 16;
/// What stands before a value in its row: its salt, in base64url.
const SALT_MEMBER_BYTES: usize = "{\"salt\":\"0123456789012345678901\",\"value\":".len();

/// A record before it has its place in the chain: its members as canonical text one behind the other, and its
/// companion values likewise.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    text: Vec<u8>,
    members: Vec<(&'static str, Range<usize>)>,
    rows: Vec<u8>,
    values: Vec<(&'static str, Range<usize>)>,
    salts: Salts,
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
        let mut draft = Self {
            text: Vec::with_capacity(2048),
            members: Vec::with_capacity(40),
            rows: Vec::new(),
            values: Vec::new(),
            salts: Salts::default(),
        };
        draft.plain("kind", &kind)?;
        draft.plain("v", &VERSION)?;
        Ok(draft)
    }

    /// A member that stands on the line as it is.
    pub(crate) fn plain(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), Unrecordable> {
        let start = self.text.len();
        canonical::write(value, &mut self.text)?;
        self.members.push((name, start..self.text.len()));
        Ok(())
    }

    /// The same, left out where there is none.
    pub(crate) fn optional(&mut self, name: &'static str, value: Option<&impl Serialize>) -> Result<(), Unrecordable> {
        value.map_or(Ok(()), |value| self.plain(name, value))
    }

    /// A member whose value lies in the companion file; the line holds its commitment.
    pub(crate) fn personal(&mut self, name: &'static str, value: &impl Serialize) -> Result<(), Unrecordable> {
        let salt = self.salts.next()?;
        let start = self.rows.len();
        self.rows.extend_from_slice(b"{\"salt\":\"");
        push_base64(&mut self.rows, &salt);
        self.rows.extend_from_slice(b"\",\"value\":");
        let from = self.rows.len();
        canonical::write(value, &mut self.rows)?;
        let committed = hash_parts(&[&salt, self.rows.get(from..).unwrap_or_default()]);
        self.rows.push(b'}');
        self.values.push((name, start..self.rows.len()));

        let start = self.text.len();
        self.text.extend_from_slice(b"{\"commitment\":\"");
        push_base64(&mut self.text, &committed);
        self.text.extend_from_slice(b"\"}");
        self.members.push((name, start..self.text.len()));
        Ok(())
    }

    /// The hash of what it says, the same for the same members whatever their salts; without the members `apart`.
    pub(crate) fn content(&self, apart: &[&str]) -> Hash {
        let mut hashing = Hashing::new();
        for (name, range) in &self.members {
            if apart.contains(name) {
                continue;
            }
            let personal = self.values.iter().find(|(known, _)| known == name);
            let said = match personal {
                Some((_, range)) => self.rows.get(range.start.saturating_add(SALT_MEMBER_BYTES)..range.end),
                None => self.text.get(range.clone()),
            };
            // Names are our own, and JSON says itself where it ends.
            hashing.update(name.as_bytes());
            hashing.update(said.unwrap_or_default());
        }
        hashing.finish()
    }

    /// What it says, where it is an alert, without anything that is personal.
    pub(crate) fn alert(&self) -> Option<Value> {
        let mut said = serde_json::Map::new();
        for (name, range) in &self.members {
            if self.values.iter().any(|(personal, _)| personal == name) {
                continue;
            }
            let value = serde_json::from_slice(self.text.get(range.clone())?).ok()?;
            said.insert((*name).to_owned(), value);
        }
        (said.get("kind").and_then(Value::as_str) == Some(kind::ALERT_RAISED)).then_some(Value::Object(said))
    }

    /// The line, without its newline.
    pub(crate) fn line(&mut self, seq: u64, time: Timestamp, prev: &Hash) -> Result<String, Unrecordable> {
        let kept = self.text.len();
        // Said again where a record is given another place.
        self.members.retain(|(name, _)| !PLACE.contains(name));
        self.plain("seq", &seq)?;
        self.plain("time", &time)?;
        let start = self.text.len();
        self.text.push(b'"');
        push_base64(&mut self.text, prev);
        self.text.push(b'"');
        self.members.push(("prev", start..self.text.len()));
        // Names are ASCII, so byte order is RFC 8785's order of UTF-16 units.
        self.members.sort_unstable_by_key(|(name, _)| *name);
        let line = object(&self.members, "", &self.text)?;
        self.text.truncate(kept);
        Ok(line)
    }

    /// The companion row, without its newline; `None` where nothing is personal.
    pub(crate) fn row(&self, seq: u64) -> Result<Option<String>, Unrecordable> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let mut values = self.values.clone();
        values.sort_unstable_by_key(|(name, _)| *name);
        let values = object(&values, "/", &self.rows)?;
        Ok(Some(format!("{{\"seq\":{seq},\"values\":{values}}}")))
    }
}

/// The members as a JSON object, each name after `prefix`. Names are our own and need no escaping.
fn object(members: &[(&'static str, Range<usize>)], prefix: &str, text: &[u8]) -> Result<String, Unrecordable> {
    let mut out = Vec::with_capacity(text.len() + 16 * members.len() + 2);
    let mut before = b'{';
    for (name, range) in members {
        out.extend_from_slice(&[before, b'"']);
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(text.get(range.clone()).unwrap_or_default());
        before = b',';
    }
    out.push(b'}');
    String::from_utf8(out).map_err(|error| Unwritable::Shape(error.to_string()).into())
}

/// base64url without padding (RFC 4648 §5).
fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    // Room for the 43 characters of a hash.
    let mut text = [0; 64];
    if let Ok(length) = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text) {
        out.extend_from_slice(text.get(..length).unwrap_or_default());
    }
}

/// Salts, drawn several at once: asking the generator costs more than what it gives.
#[derive(Clone, Default)]
struct Salts {
    drawn: Vec<[u8; SALT_BYTES]>,
}

/// How many salts are drawn at once: as many as a decided call takes.
const SALTS_AT_ONCE: usize = 8;

impl Salts {
    fn next(&mut self) -> Result<[u8; SALT_BYTES], Unrecordable> {
        if self.drawn.is_empty() {
            let mut drawn = [[0; SALT_BYTES]; SALTS_AT_ONCE];
            rand::fill(drawn.as_flattened_mut()).map_err(|_| Unrecordable::Salt)?;
            self.drawn.extend(drawn);
        }
        self.drawn.pop().ok_or(Unrecordable::Salt)
    }
}

/// Never printed: who knows a salt can guess what was committed to.
impl std::fmt::Debug for Salts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salts")
    }
}

/// base64url(SHA-256(salt || canonical value)).
pub(crate) fn commitment(salt: &[u8], canonical_value: &str) -> String {
    URL_SAFE_NO_PAD.encode(hash_parts(&[salt, canonical_value.as_bytes()]))
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
        let row: Row = serde_json::from_str(&draft.row(7).unwrap().unwrap()).unwrap();
        let expected = committed(&fields["path"]).unwrap();
        assert!(row.values["/path"].matches(expected));
        let changed = Salted { value: json!("/customers/9822"), ..row.values["/path"].clone() };
        assert!(!changed.matches(expected));
    }

    #[test]
    fn content_tells_what_is_said_and_not_with_which_salts() {
        let content = |path: &str, tool: &str, owner: &str| {
            let mut draft = Draft::new("test").unwrap();
            draft.plain("tool", &tool).unwrap();
            draft.personal("path", &path).unwrap();
            draft.personal("owner", &owner).unwrap();
            draft.content(&["owner"])
        };
        let one = content("/a", "orders", "dana");
        assert_eq!(one, content("/a", "orders", "erin"));
        assert_ne!(one, content("/b", "orders", "dana"));
        assert_ne!(one, content("/a", "orders2", "dana"));
        assert_ne!(one, content("", "orders", "dana"));
        let row = |value: &str| {
            let mut draft = Draft::new("test").unwrap();
            draft.personal("path", &value).unwrap();
            let start = draft.values[0].1.start + SALT_MEMBER_BYTES;
            String::from_utf8(draft.rows[start..].to_vec()).unwrap()
        };
        assert_eq!(row("/a"), "\"/a\"}", "what is hashed begins with the value");
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
