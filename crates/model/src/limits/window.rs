//! Windows of cumulative limits: fixed ones, one after the other, the same for everybody who has a clock.
//!
//! Not sliding ones: what was charged to a window is one sum that several sidecars can share, it is exactly never over,
//! and whoever is refused can be told when there is room again.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidLimit;

/// Where every window has a boundary: the first Monday after 1970 began, in UTC. So days begin at midnight, and weeks
/// on Monday.
const ORIGIN: i64 = 4 * 86_400;

/// An ISO 8601 duration of fixed length, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(SignedDuration);

/// One window: from its start on, up to its end and not including it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    /// Its first moment.
    pub starts: Timestamp,
    /// The first moment after it.
    pub ends: Timestamp,
}

impl Window {
    /// Its length.
    pub const fn length(self) -> SignedDuration {
        self.0
    }

    /// The one that `moment` lies in. Those at the two ends of time may be shorter.
    pub fn at(self, moment: Timestamp) -> Period {
        let length = self.0.as_secs();
        let since = moment.as_second().saturating_sub(ORIGIN);
        let starts = since.div_euclid(length).saturating_mul(length).saturating_add(ORIGIN);
        let clamped = |second: i64, otherwise| Timestamp::from_second(second).unwrap_or(otherwise);
        Period { starts: clamped(starts, Timestamp::MIN), ends: clamped(starts.saturating_add(length), Timestamp::MAX) }
    }
}

impl Period {
    /// Whether `moment` lies in it.
    pub fn holds(&self, moment: Timestamp) -> bool {
        self.starts <= moment && moment < self.ends
    }
}

impl FromStr for Window {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit::Window(text.chars().take(40).collect());
        let span: Span = text.parse().map_err(|_| invalid())?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(invalid());
        }
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| invalid())?;
        // Whole seconds only: that is all `Display` writes, and what is written must read back.
        if length.is_positive() && length.subsec_nanos() == 0 { Ok(Self(length)) } else { Err(invalid()) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds % 86_400 == 0 { write!(f, "P{}D", seconds / 86_400) } else { write!(f, "PT{seconds}S") }
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Window {
    fn schema_name() -> Cow<'static, str> {
        "Window".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^P" })
    }
}
