//! One declared parameter: from what the request says to a typed value, exactly or not at all.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    Decimal, Money, ParameterKind, ParameterValue, Refusal, catalogue::ParameterDeclaration, json::Json,
    parameter::ScaledDecimal,
};

use crate::accept::malformed;

/// A value as the request has it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    /// From path, query or header.
    Text(&'a str),
    /// From the body; never null.
    Json(&'a Json),
}

/// Reads a parameter by its declaration. `None` where it is optional and absent.
pub(super) fn read(
    name: &str,
    declaration: &ParameterDeclaration,
    raw: Option<&Raw<'_>>,
    currency: Option<&str>,
) -> Result<Option<ParameterValue>, Box<Refusal>> {
    match raw {
        Some(raw) => value(name, declaration, raw, currency).map(Some),
        None if declaration.optional => Ok(None),
        None => Err(malformed(&format!("The parameter `{name}` is missing."))),
    }
}

/// The currency of a money parameter, where the request has one.
pub(super) fn currency(name: &str, raw: Option<&Raw<'_>>) -> Result<Option<String>, Box<Refusal>> {
    raw.map(|raw| text(raw).map(str::to_owned).ok_or_else(|| wrong(name, "currency must be a string"))).transpose()
}

fn value(
    name: &str,
    declaration: &ParameterDeclaration,
    raw: &Raw<'_>,
    currency: Option<&str>,
) -> Result<ParameterValue, Box<Refusal>> {
    let amount = |error: model::amount::InvalidAmount| wrong(name, &error.to_string());
    match declaration.kind {
        ParameterKind::String => text(raw)
            .map(|text| ParameterValue::String(text.to_owned()))
            .ok_or_else(|| wrong(name, "it must be a string")),
        ParameterKind::Id => {
            id(raw).map(ParameterValue::Id).ok_or_else(|| wrong(name, "it must be a name on one line"))
        }
        ParameterKind::Integer => {
            let digits = match raw {
                Raw::Text(text) => text,
                Raw::Json(Json::Number(text)) => text.as_str(),
                Raw::Json(_) => return Err(wrong(name, "it must be a whole number")),
            };
            ParameterValue::integer(digits).map_err(amount)
        }
        ParameterKind::Decimal => {
            let decimal: Decimal = quantity(name, raw)?.parse().map_err(amount)?;
            ScaledDecimal::new(decimal, declaration.scale).map(ParameterValue::Decimal).map_err(amount)
        }
        ParameterKind::Money => money(name, declaration, raw, currency),
        ParameterKind::Time => {
            time(text(raw)).map(ParameterValue::Time).ok_or_else(|| wrong(name, "it must be an RFC 3339 time"))
        }
        ParameterKind::Set => {
            set(raw).map(ParameterValue::Set).ok_or_else(|| wrong(name, "it must be an array of strings"))
        }
    }
}

fn money(
    name: &str,
    declaration: &ParameterDeclaration,
    raw: &Raw<'_>,
    currency: Option<&str>,
) -> Result<ParameterValue, Box<Refusal>> {
    let currency = currency.ok_or_else(|| wrong(name, "its currency is missing"))?;
    let digits = quantity(name, raw)?;
    let money = if declaration.minor {
        match ParameterValue::integer(digits) {
            Ok(ParameterValue::Integer(minor)) => Money::from_minor(minor, currency),
            Ok(_) => return Err(wrong(name, "it must count minor units")),
            Err(error) => Err(error),
        }
    } else {
        Money::from_major(digits, currency)
    };
    money.map(ParameterValue::Money).map_err(|error| wrong(name, &error.to_string()))
}

/// A number, or a string that holds one: as written.
fn quantity<'a>(name: &str, raw: &Raw<'a>) -> Result<&'a str, Box<Refusal>> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::Json(Json::Number(text) | Json::Text(text)) => Ok(text),
        Raw::Json(_) => Err(wrong(name, "it must be a number, or a number in a string")),
    }
}

fn text<'a>(raw: &Raw<'a>) -> Option<&'a str> {
    match raw {
        Raw::Text(text) => Some(text),
        Raw::Json(json) => json.as_text(),
    }
}

/// A name, where it is one.
pub(super) fn name(raw: &Raw<'_>) -> Option<String> {
    id(raw)
}

/// A name. Tools also count their things, so a whole JSON number is one.
fn id(raw: &Raw<'_>) -> Option<String> {
    let name = match raw {
        Raw::Text(text) => text,
        Raw::Json(Json::Text(text)) => text.as_str(),
        Raw::Json(Json::Number(digits)) => ParameterValue::integer(digits).is_ok().then_some(digits.as_str())?,
        Raw::Json(_) => return None,
    };
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// `2026-11-22T10:00:00Z`, `…+01:00`, with or without a fraction: RFC 3339 §5.6, none of ISO 8601's other forms.
fn time(text: Option<&str>) -> Option<Timestamp> {
    let text = text?;
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let digits = shape.iter().enumerate().all(|(at, expected)| match (expected, bytes.get(at)) {
        (b'0', Some(byte)) => byte.is_ascii_digit(),
        (expected, Some(byte)) => byte == expected,
        (_, None) => false,
    });
    let rest = bytes.get(shape.len()..)?;
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => rest.split_at_checked(rest.iter().take_while(|byte| byte.is_ascii_digit()).count())?,
        None => (b"0".as_slice(), rest),
    };
    let zone_fits = match zone {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    let leap = bytes.get(17..19) == Some(b"60");
    (digits && !leap && (1..=9).contains(&fraction.len()) && zone_fits).then(|| text.parse().ok()).flatten()
}

fn set(raw: &Raw<'_>) -> Option<BTreeSet<String>> {
    match raw {
        Raw::Json(Json::Array(items)) => items.iter().map(|item| item.as_text().map(str::to_owned)).collect(),
        Raw::Json(_) | Raw::Text(_) => None,
    }
}

fn wrong(name: &str, why: &str) -> Box<Refusal> {
    malformed(&format!("The parameter `{name}` is wrong: {why}."))
}
