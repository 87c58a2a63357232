//! Durations as configuration writes them: `200ms`, `10s`, `5m`, `1h`, `30d`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration with its unit, so that no reader has to guess between seconds and milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigDuration(pub Duration);

/// Text that is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a duration: write a whole number and `ms`, `s`, `m`, `h` or `d`")]
pub struct InvalidDuration(String);

impl ConfigDuration {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl FromStr for ConfigDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = || InvalidDuration(text.chars().take(40).collect());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, unit) = text.split_at_checked(digits).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let duration = match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3_600),
            "d" => seconds(86_400),
            _ => None,
        };
        duration.map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            0 => f.write_str("0s"),
            _ if milliseconds.is_multiple_of(86_400_000) => write!(f, "{}d", milliseconds / 86_400_000),
            _ if milliseconds.is_multiple_of(3_600_000) => write!(f, "{}h", milliseconds / 3_600_000),
            _ if milliseconds.is_multiple_of(60_000) => write!(f, "{}m", milliseconds / 60_000),
            _ if milliseconds.is_multiple_of(1_000) => write!(f, "{}s", milliseconds / 1_000),
            _ => write!(f, "{milliseconds}ms"),
        }
    }
}

impl Serialize for ConfigDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ConfigDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for text in ["200ms", "10s", "5m", "1h", "30d", "0s"] {
            assert_eq!(text.parse::<ConfigDuration>().unwrap().to_string(), text);
        }
        for text in
            ["", "5", "s", "5 s", "-1s", "1.5s", "5min", "99999999999999999999s", "999999999999999999d", "5\u{e9}"]
        {
            assert!(text.parse::<ConfigDuration>().is_err(), "{text}");
        }
    }
}
