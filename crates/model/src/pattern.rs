//! Resource patterns: `orders/17`, `orders/*` (one segment), `orders/**` (all that follows), `**` (anything).

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most segments of a pattern.
const MAX_SEGMENTS: usize = 32;

/// A pattern over resource names. A segment is a literal, `*`, or (last only) `**`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

/// Why text is not a pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a resource pattern: segments are literals, `*`, or a last `**`")]
pub struct InvalidPattern(String);

impl Pattern {
    /// The pattern that every resource matches.
    pub fn any() -> Self {
        Self(vec![Segment::Rest])
    }

    /// Whether `resource` is one of those this pattern names.
    pub fn matches(&self, resource: &str) -> bool {
        let mut segments = resource.split('/');
        for segment in &self.0 {
            match (segment, segments.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::One, Some(found)) if !found.is_empty() => {}
                (Segment::Literal(literal), Some(found)) if literal == found => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }

    /// Whether every resource that matches this pattern also matches `wider`.
    pub fn within(&self, wider: &Self) -> bool {
        let mut own = self.0.iter();
        for segment in &wider.0 {
            match (own.next(), segment) {
                (Some(_), Segment::Rest) => return true,
                (Some(Segment::Literal(literal)), Segment::One) if !literal.is_empty() => {}
                (Some(Segment::One), Segment::One) => {}
                (Some(Segment::Literal(a)), Segment::Literal(b)) if a == b => {}
                _ => return false,
            }
        }
        own.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern(text.chars().filter(|c| !c.is_control()).take(80).collect());
        let mut segments = Vec::new();
        for part in text.split('/') {
            if matches!(segments.last(), Some(Segment::Rest)) {
                return Err(invalid());
            }
            segments.push(match part {
                "" => return Err(invalid()),
                "*" => Segment::One,
                "**" => Segment::Rest,
                literal if literal.contains('*') || literal.chars().any(char::is_control) => return Err(invalid()),
                literal => Segment::Literal(literal.to_owned()),
            });
        }
        if segments.len() > MAX_SEGMENTS { Err(invalid()) } else { Ok(Self(segments)) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(match segment {
                Segment::Literal(literal) => literal,
                Segment::One => "*",
                Segment::Rest => "**",
            })?;
        }
        Ok(())
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A resource pattern: literal segments, `*` for one, a last `**` for the rest." })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("*".to_owned())]
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        (prop::collection::vec(segment(), 1..4), any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest {
                segments.push("**".to_owned());
            }
            segments.join("/").parse().unwrap()
        })
    }

    #[test]
    fn a_pattern_matches_whole_segments() {
        let matches = |pattern: &str, resource: &str| pattern.parse::<Pattern>().unwrap().matches(resource);
        assert!(
            matches("orders/17", "orders/17") && matches("orders/*", "orders/17") && matches("**", "orders/17/refunds")
        );
        assert!(
            !matches("orders/*", "orders/17/refunds")
                && !matches("orders/1", "orders/17")
                && !matches("orders/*", "orders")
                && !matches("orders/**", "orders")
        );
        assert!(!matches("orders/*", "orders/"));
        for text in ["", "/", "a//b", "**/a", "a*", "a/"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_a_narrower_pattern_matches_the_wider_matches_too(narrow in pattern(), wide in pattern(), resource in prop::collection::vec("[ab]", 1..5)) {
            let resource = resource.join("/");
            if narrow.within(&wide) && narrow.matches(&resource) {
                prop_assert!(wide.matches(&resource));
            }
            prop_assert!(narrow.within(&narrow));
        }
    }
}
