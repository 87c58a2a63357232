//! RFC 8785 canonical JSON, restricted to what it carries exactly: no floats, no integer beyond ±(2^53 - 1).
//!
//! A record that would round a number would explain a decision that was never made, so it is not written.

use model::amount::MAX_SAFE_INTEGER;
use serde::Serialize;
use serde_json::Value;

/// A value that canonical JSON cannot carry exactly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrecordable {
    /// A number that would be rounded.
    #[error("the number {0} cannot be written exactly")]
    Number(serde_json::Number),
    /// A line or a companion row that no reader would take.
    #[error("{bytes} bytes in one line, and at most {limit} are read back")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        limit: usize,
    },
    /// The random generator gave no salt.
    #[error("no random salt for a personal value")]
    Salt,
    /// Not serialisable at all.
    #[error("not serialisable: {0}")]
    Shape(#[from] serde_json::Error),
}

/// The canonical text of `value`.
pub(crate) fn text(value: &impl Serialize) -> Result<String, Unrecordable> {
    let value = serde_json::to_value(value)?;
    exact(&value)?;
    Ok(serde_json_canonicalizer::to_string(&value)?)
}

fn exact(value: &Value) -> Result<(), Unrecordable> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) if integer.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs() => Ok(()),
            _ => Err(Unrecordable::Number(number.clone())),
        },
        Value::Array(items) => items.iter().try_for_each(exact),
        Value::Object(members) => members.values().try_for_each(exact),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_sorted_by_utf16_units_and_strings_escaped_minimally() {
        // RFC 8785 §3.2.3, without its float.
        let value = json!({"\u{20ac}": "Euro", "\r": "CR", "\u{fb33}": "Dalet", "1": 1, "\u{1f600}": "Smile", "\u{80}": "Control", "\u{f6}": "o"});
        let expected = "{\"\\r\":\"CR\",\"1\":1,\"\u{80}\":\"Control\",\"\u{f6}\":\"o\",\"\u{20ac}\":\"Euro\",\"\u{1f600}\":\"Smile\",\"\u{fb33}\":\"Dalet\"}";
        assert_eq!(text(&value).unwrap(), expected);
    }

    #[test]
    fn a_number_that_would_be_rounded_is_refused_wherever_it_stands() {
        for value in [json!(0.1), json!([9_007_199_254_740_992_u64]), json!({"a": {"b": -9_007_199_254_740_992_i64}})] {
            assert!(text(&value).is_err(), "{value}");
        }
        assert_eq!(
            text(&json!([MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER])).unwrap(),
            "[9007199254740991,-9007199254740991]"
        );
    }
}
