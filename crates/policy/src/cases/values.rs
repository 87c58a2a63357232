//! Values as a case writes them, read as the catalogue declares them; where there is none, by how they look.

use model::{
    Amount, FactValue, Money, ParameterKind, ParameterValue, Principal,
    catalogue::{CurrencySource, Leaf, ParameterDeclaration},
    fact::FactPrincipal,
    parameter::ScaledDecimal,
};
use serde_json::Value;

use super::given::principal_id;

/// What a parameter is and has; no value where it is left out.
pub(super) type Typed = (ParameterKind, Option<ParameterValue>);

/// The parameter that `value` says.
pub(super) fn parameter(value: &Value, declared: Option<&ParameterDeclaration>) -> Result<Typed, String> {
    if let Some(members) = value.as_object()
        && members.contains_key("kind")
    {
        return explicit(value);
    }
    let kind = declared.map_or_else(|| looks_like(value), |declared| declared.kind);
    if value.is_null() {
        return Ok((kind, None));
    }
    let text = || scalar(value).ok_or_else(|| format!("`{value}` is not a value of a parameter"));
    let amount = |error: model::amount::InvalidAmount| error.to_string();
    let found = match kind {
        ParameterKind::String => ParameterValue::String(text()?),
        ParameterKind::Id => ParameterValue::Id(text()?),
        ParameterKind::Integer => ParameterValue::integer(&text()?).map_err(amount)?,
        ParameterKind::Decimal => {
            let decimal = text()?.parse().map_err(amount)?;
            let scale = declared.map_or(0, |declared| declared.scale);
            ParameterValue::Decimal(ScaledDecimal::new(decimal, scale).map_err(amount)?)
        }
        ParameterKind::Money => {
            let always = match declared.and_then(|declared| declared.currency.as_ref()) {
                Some(CurrencySource::Always(currency)) => Some(currency.as_str()),
                Some(CurrencySource::From(_)) | None => None,
            };
            ParameterValue::Money(money(&text()?, always)?)
        }
        ParameterKind::Time => {
            let text = text()?;
            ParameterValue::Time(text.parse().map_err(|_| format!("`{text}` is not an RFC 3339 time"))?)
        }
        ParameterKind::Set => {
            let members = value.as_array().ok_or("a set is written as a list")?;
            let member = |value: &Value| scalar(value).ok_or_else(|| format!("`{value}` is not a member of a set"));
            ParameterValue::Set(members.iter().map(member).collect::<Result<_, _>>()?)
        }
    };
    Ok((kind, Some(found)))
}

/// `{kind, value}`, as records have it; without `value` it is left out.
fn explicit(value: &Value) -> Result<Typed, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let kind: ParameterKind = serde_json::from_value(value.get("kind").cloned().unwrap_or_default()).map_err(wrong)?;
    if value.get("value").is_none_or(Value::is_null) {
        return Ok((kind, None));
    }
    let found: ParameterValue = serde_json::from_value(value.clone()).map_err(wrong)?;
    Ok((kind, Some(found)))
}

fn looks_like(value: &Value) -> ParameterKind {
    match value {
        Value::Number(number) if number.is_i64() => ParameterKind::Integer,
        Value::Array(_) => ParameterKind::Set,
        Value::String(text) if money(text, None).is_ok() => ParameterKind::Money,
        _ => ParameterKind::String,
    }
}

/// `20.00 USD`; without the currency where there is only one.
fn money(text: &str, always: Option<&str>) -> Result<Money, String> {
    let (amount, currency) = match (text.split_once(' '), always) {
        (Some((amount, currency)), _) => (amount, currency),
        (None, Some(currency)) => (text, currency),
        (None, None) => return Err(format!("`{text}` is no money: write `20.00 USD`")),
    };
    Money::from_major(amount, currency.trim()).map_err(|error| error.to_string())
}

/// The quantity of a limit.
pub(super) fn amount(value: &Value) -> Result<Amount, String> {
    let text = scalar(value).ok_or_else(|| format!("`{value}` is not a quantity"))?;
    if text.contains(' ') {
        return money(&text, None).map(Amount::Money);
    }
    text.parse().map(Amount::Number).map_err(|error: model::amount::InvalidAmount| error.to_string())
}

/// Whom `$user` and `$agent` stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct People<'a> {
    pub(super) user: &'a Principal,
    pub(super) agent: &'a Principal,
}

/// The leaf of a fact that `value` says.
pub(super) fn leaf(value: &Value, declared: Option<&Leaf>, people: People<'_>) -> Result<FactValue, String> {
    let named = |principal: &Principal| {
        let Principal { id, issuer, .. } = principal.clone();
        FactValue::Principal(FactPrincipal { id, issuer })
    };
    let issuer = declared.and_then(|declared| declared.principal.as_ref());
    match value {
        Value::Null => Ok(FactValue::Null),
        Value::String(text) if text == "$user" => Ok(named(people.user)),
        Value::String(text) if text == "$agent" => Ok(named(people.agent)),
        Value::Object(_) => {
            let principal = serde_json::from_value(value.clone());
            principal.map(FactValue::Principal).map_err(|error| format!("a principal is `{{id, issuer}}`: {error}"))
        }
        Value::Array(_) => Err("a fact has no lists".to_owned()),
        Value::Bool(value) if issuer.is_none() => Ok(FactValue::Bool(*value)),
        Value::Number(number) if issuer.is_none() && number.is_i64() => {
            Ok(number.as_i64().map_or(FactValue::Null, FactValue::Integer))
        }
        value => {
            let text = scalar(value).ok_or_else(|| format!("`{value}` is not a value of a fact"))?;
            match issuer {
                Some(issuer) => {
                    Ok(FactValue::Principal(FactPrincipal { id: principal_id(&text)?, issuer: issuer.clone() }))
                }
                None => Ok(FactValue::Text(text)),
            }
        }
    }
}

/// Text, or a whole number or truth as text. A number with a point was rounded before it came here.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}
