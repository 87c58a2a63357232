//! The one form of a request path: what is decided on, recorded and forwarded. A path that two servers could
//! read differently has no canonical form and is refused (standards: RFC 3986 §6.2.2, RFC 9110 §4.2.3).

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Like [`RESERVED`], but sub-delimiters that servers agree on stay as they are.
const SEGMENT: &AsciiSet = &RESERVED
    .remove(b'!')
    .remove(b'$')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'&');

/// An absolute path in canonical form, by construction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CanonicalPath {
    encoded: String,
    segments: Vec<String>,
}

/// Why a path has no canonical form.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidPath {
    /// It does not begin with a slash.
    #[error("the path must begin with `/`")]
    NotAbsolute,
    /// `.` or `..`, plain or encoded.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// An encoded slash, backslash, percent sign or NUL, a bare backslash, a control character, `;` or `#`.
    #[error("the path has a character that servers read differently")]
    Ambiguous,
    /// A `%` not followed by two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// Not UTF-8 once decoded.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

impl CanonicalPath {
    /// The canonical form of `raw`, the path of a request target without its query.
    pub fn parse(raw: &str) -> Result<Self, InvalidPath> {
        let rest = raw.strip_prefix('/').ok_or(InvalidPath::NotAbsolute)?;
        if rest.is_empty() {
            return Ok(Self { encoded: "/".to_owned(), segments: Vec::new() });
        }
        let mut segments = rest.split('/').map(decode_segment).collect::<Result<Vec<_>, _>>()?;
        let trailing_slash = segments.last().is_some_and(String::is_empty);
        if trailing_slash {
            segments.pop();
        }
        if segments.iter().any(String::is_empty) {
            return Err(InvalidPath::EmptySegment);
        }
        let mut encoded: String =
            segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect();
        if trailing_slash {
            encoded.push('/');
            segments.push(String::new());
        }
        Ok(Self { encoded, segments })
    }

    /// The path as it is forwarded and recorded.
    pub fn as_str(&self) -> &str {
        &self.encoded
    }

    /// The decoded segments. A trailing slash shows as a last, empty one: `/a/` is not `/a`.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// What follows `prefix`, where `prefix` is a whole number of this path's first segments.
    pub fn strip_prefix(&self, prefix: &Self) -> Option<Self> {
        let rest = self.segments.strip_prefix(prefix.segments.as_slice())?;
        let encoded = self.encoded.strip_prefix(prefix.encoded.trim_end_matches('/'))?;
        let encoded = if encoded.is_empty() { "/" } else { encoded };
        Some(Self { encoded: encoded.to_owned(), segments: rest.to_vec() })
    }
}

fn decode_segment(raw: &str) -> Result<String, InvalidPath> {
    let bytes = raw.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let hex = bytes
                    .get(at + 1..at + 3)
                    .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
                    .ok_or(InvalidPath::BrokenEncoding)?;
                let upper = hex.to_ascii_uppercase();
                if matches!(upper.as_slice(), b"2F" | b"5C" | b"25" | b"3B" | b"23" | b"7F")
                    || upper.first().is_some_and(|&high| high == b'0' || high == b'1')
                {
                    return Err(InvalidPath::Ambiguous);
                }
                at += 3;
            }
            b'\\' | b';' | b'#' | b'?' | 0..=0x20 | 0x7F..=0xFF => return Err(InvalidPath::Ambiguous),
            _ => at += 1,
        }
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| InvalidPath::NotUtf8)?;
    if matches!(decoded.as_ref(), "." | "..") {
        return Err(InvalidPath::DotSegment);
    }
    if decoded.chars().any(char::is_control) {
        return Err(InvalidPath::Ambiguous);
    }
    Ok(decoded.into_owned())
}

/// Encodes a value so that it stays one path segment, whatever it holds. A value that no encoding makes safe
/// (empty, `.`, `..`, with a slash, backslash or control character) gives `None`.
pub fn encode_segment(value: &str) -> Option<String> {
    let unsafe_value = matches!(value, "" | "." | "..")
        || value.chars().any(|c| matches!(c, '/' | '\\' | '%' | ';' | '#') || c.is_control());
    (!unsafe_value).then(|| utf8_percent_encode(value, RESERVED).to_string())
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encoded)
    }
}

impl TryFrom<String> for CanonicalPath {
    type Error = InvalidPath;

    fn try_from(raw: String) -> Result<Self, InvalidPath> {
        Self::parse(&raw)
    }
}

impl From<CanonicalPath> for String {
    fn from(path: CanonicalPath) -> Self {
        path.encoded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_path_has_one_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/v1/orders/17", "/v1/orders/17"),
            ("/%76%31/a%20b", "/v1/a%20b"),
            ("/a/", "/a/"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a:b@c", "/a:b@c"),
        ] {
            assert_eq!(CanonicalPath::parse(raw).unwrap().as_str(), canonical);
        }
        assert_ne!(CanonicalPath::parse("/a/").unwrap().segments(), CanonicalPath::parse("/a").unwrap().segments());
    }

    #[test]
    fn paths_that_servers_read_differently_are_refused() {
        for raw in [
            "",
            "a",
            "*",
            "//",
            "/a//b",
            "/a/../b",
            "/a/%2e%2e/b",
            "/./a",
            "/%2E",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/a;x=1/b",
            "/a%3bx",
            "/a%00",
            "/a%0d%0a",
            "/a%252fb",
            "/%",
            "/%4",
            "/%zz",
            "/a b",
            "/a#b",
            "/caf\u{e9}",
            "/%ff",
            "/%c0%af",
            "/a%7f",
            "/%C2%85",
        ] {
            assert!(CanonicalPath::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let prefix = CanonicalPath::parse("/orders").unwrap();
        let strip =
            |raw: &str| CanonicalPath::parse(raw).unwrap().strip_prefix(&prefix).map(|path| path.as_str().to_owned());
        assert_eq!(strip("/orders/v1/x"), Some("/v1/x".to_owned()));
        assert_eq!(strip("/orders"), Some("/".to_owned()));
        assert_eq!(strip("/ordersx/v1"), None);
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_its_own_canonical_form(raw in "/[ -~]{0,40}") {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path.clone()));
                prop_assert!(!path.segments().iter().any(|segment| segment == ".." || segment == "."));
            }
        }

        #[test]
        fn an_encoded_value_is_one_segment_that_decodes_to_itself(value in "\\PC{1,20}") {
            if let Some(encoded) = encode_segment(&value) {
                let path = CanonicalPath::parse(&format!("/x/{encoded}")).unwrap();
                prop_assert_eq!(path.segments(), &["x".to_owned(), value]);
            }
        }
    }
}
