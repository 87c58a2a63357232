//! The one parser of JSON that an agent, a token or a tool sent: bounded, exact, and with one reading only.
//!
//! Repeated member names, numbers that a binary float would round, invalid UTF-8 and the member names that
//! JSON libraries use for themselves are where two readers of the same bytes disagree; they are refused here.

mod reader;

use serde::{Deserialize, Serialize};

/// The deepest nesting of arrays and objects.
pub const MAX_DEPTH: u32 = 32;
/// The longest number, in characters.
pub const MAX_NUMBER_CHARACTERS: usize = 40;

/// A parsed value. Numbers keep their text; members keep their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string, unescaped.
    Text(String),
    /// An array.
    Array(Vec<Self>),
    /// An object; names are unique.
    Object(Vec<(String, Self)>),
}

/// Why bytes were not taken as JSON.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJson {
    /// Not JSON (RFC 8259), not UTF-8, nested too deep or followed by something else.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// The same member name twice in one object.
    #[error("the member `{0}` is given twice")]
    Repeated(String),
    /// A member name that JSON libraries use internally.
    #[error("the member name `{0}` is reserved")]
    Reserved(String),
    /// A number longer than [`MAX_NUMBER_CHARACTERS`].
    #[error("a number is too long")]
    NumberTooLong,
}

impl Json {
    /// Parses the whole of `bytes`. The caller bounds their number.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidJson> {
        reader::read(bytes)
    }

    /// The member `name` of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value at an RFC 6901 pointer (`/customer/id`); the empty pointer is the whole value.
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match value {
                Self::Object(_) => value.member(&token),
                Self::Array(items) if !token.starts_with('+') => items.get(token.parse::<usize>().ok()?),
                _ => None,
            }
        })
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same as a `serde_json` value, for typed reading. Numbers that are neither a 64-bit integer nor
    /// exactly the decimal that a float prints become strings, never a rounded number.
    pub fn to_serde(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(text) => number(text),
            Self::Text(text) => text.as_str().into(),
            Self::Array(items) => items.iter().map(Self::to_serde).collect(),
            Self::Object(members) => members.iter().map(|(name, value)| (name.clone(), value.to_serde())).collect(),
        }
    }
}

fn number(text: &str) -> serde_json::Value {
    if let Ok(integer) = text.parse::<i64>() {
        return integer.into();
    }
    if let Ok(integer) = text.parse::<u64>() {
        return integer.into();
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() && format!("{float}") == text => float.into(),
        _ => text.into(),
    }
}

fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text_and_members_their_order() {
        let json = Json::parse(br#" {"b": 1.10, "a": [1, "x", null, true]} "#).unwrap();
        assert_eq!(json.pointer("/b"), Some(&Json::Number("1.10".into())));
        assert_eq!(json.pointer("/a/1").and_then(Json::as_text), Some("x"));
        assert_eq!(json.pointer("/a/+1"), None);
        assert_eq!(json.pointer("/missing/x"), None);
    }

    #[test]
    fn bytes_with_two_readings_are_refused() {
        let deep = [b"[".repeat(40), b"]".repeat(40)].concat();
        let long = [b"1".as_slice(), &b"0".repeat(41)].concat();
        let cases: [&[u8]; 14] = [
            br#"{"a":1,"a":2}"#,
            br#"{"a":1,"\u0061":2}"#,
            br#"{"x":{"a":1,"a":2}}"#,
            br#"{"$serde_json::private::Number":"1"}"#,
            br#"{"$serde_json::private::RawValue":"1"}"#,
            b"{\"a\":\"\xff\"}",
            br#"{"a":1} {"a":2}"#,
            br#"{"a":1,}"#,
            br#"{/*c*/"a":1}"#,
            b"NaN",
            b"1e400",
            br#""\ud800""#,
            &deep,
            &long,
        ];
        for case in cases {
            assert!(Json::parse(case).is_err(), "{}", String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn wherever_in_a_string_a_byte_stands_it_is_read_as_what_it_is() {
        for length in 0..20 {
            for place in 0..length {
                for special in ['"', '\\', '\n', '\u{1f}', '\u{7f}', '\u{80}', '\u{a2}', 'é', '\u{ffff}', ' ', '!'] {
                    let text: String = (0..length).map(|at| if at == place { special } else { 'a' }).collect();
                    let written = serde_json::to_vec(&text).unwrap();
                    assert_eq!(Json::parse(&written).unwrap(), Json::Text(text.clone()));
                    let bare = format!("\"{text}\"");
                    let taken = Json::parse(bare.as_bytes()).is_ok();
                    assert_eq!(taken, serde_json::from_str::<String>(&bare).is_ok(), "{bare:?}");
                }
            }
        }
    }

    #[test]
    fn a_number_is_never_rounded_on_its_way_to_serde() {
        for text in ["12345678901234567890123", "0.1000000000000000055511151231257827", "1.10"] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().to_serde(), serde_json::Value::from(text));
        }
        assert_eq!(Json::parse(b"1.5").unwrap().to_serde(), serde_json::json!(1.5));
        assert_eq!(Json::parse(b"-3").unwrap().to_serde(), serde_json::json!(-3));
    }
}
