//! Places in a JSON document: JSON pointers (RFC 6901), in which a `*` between two slashes stands for every member or
//! item there.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// The longest pointer, in bytes.
const MAX_BYTES: usize = 512;
/// The most segments of one.
const MAX_SEGMENTS: usize = 32;

/// A place, or several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    text: String,
    segments: Vec<Segment>,
}

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// The member of this name, or the item at this index.
    Name(String),
    /// Every member, and every item.
    Every,
}

/// Why text is not a pointer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a JSON pointer: it begins with `/`, has `~0` for `~` and `~1` for `/`, and names at most {MAX_SEGMENTS} steps"
)]
pub struct InvalidPointer(String);

impl Pointer {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its steps, at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let invalid = || InvalidPointer(text.chars().filter(|c| !c.is_control()).take(80).collect());
        // The whole document has no name here: an answer that nobody may see is not asked for.
        let steps = text.strip_prefix('/').filter(|_| text.len() <= MAX_BYTES).ok_or_else(invalid)?;
        let mut segments = Vec::new();
        for step in steps.split('/') {
            let well = step.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
            if !well || segments.len() == MAX_SEGMENTS {
                return Err(invalid());
            }
            segments.push(match step {
                "*" => Segment::Every,
                step => Segment::Name(step.replace("~1", "/").replace("~0", "~")),
            });
        }
        Ok(Self { text: text.to_owned(), segments })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Pointer {
    fn schema_name() -> Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^/",
            "description": "A JSON pointer (RFC 6901); `*` stands for every member or item.",
        })
    }
}
