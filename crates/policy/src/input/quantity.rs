//! Leaves with a value: parameters, quantities, moments and the state of limits, exact or null.

use std::{borrow::Cow, collections::BTreeSet};

use jiff::Timestamp;
use model::{
    Amount, Decimal, Money, ParameterKind, ParameterValue,
    parameter::{Parameter, ScaledDecimal},
    question,
};
use schemars::JsonSchema;
use serde::Serialize;

/// The value of a parameter.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Leaf<'a> {
    /// A `string` or an `id`.
    Text(Option<&'a str>),
    /// An `integer`.
    Integer(Option<i64>),
    /// A `set`, sorted.
    Set(Option<&'a BTreeSet<String>>),
    /// `money`, never negative.
    Money(Quantity<'a>),
    /// A `decimal`.
    Decimal(Scaled<'a>),
    /// A `time`.
    Time(Moment),
}

/// Money, or a plain number. All null where there is none.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Quantity<'a> {
    /// The ISO 4217 code; null for a plain number.
    currency: Option<Cow<'a, str>>,
    /// The amount in minor units of the currency (cents). Without a currency: the number itself, null where it has
    /// a fraction.
    minor: Option<i64>,
    /// The amount in major units, as people write it: `20.00`.
    text: Option<Cow<'a, str>>,
}

/// An exact decimal: `unscaled / 10^scale`. All null where there is none.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Scaled<'a> {
    /// How many of them are fraction digits.
    scale: Option<u32>,
    /// The number as text.
    text: Option<&'a str>,
    /// The digits without the point.
    unscaled: Option<i64>,
}

/// A moment. All null where there is none.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Moment {
    /// Nanoseconds since 1970.
    ns: Option<i64>,
    /// RFC 3339, in UTC.
    text: Option<String>,
}

/// A cumulative limit and how it stands before this call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LimitState<'a> {
    /// The place in the chain of the hop whose limit it is.
    hop: usize,
    /// The most within a window.
    max: Quantity<'a>,
    /// The limit's name.
    name: &'a str,
    /// What is left of it, never negative; null where nobody can say.
    remaining: Quantity<'a>,
    /// What is used of it; null where nobody can say.
    used: Quantity<'a>,
    /// The window, an ISO 8601 duration.
    window: String,
}

impl<'a> Leaf<'a> {
    pub(super) fn of(parameter: &'a Parameter) -> Self {
        match &parameter.value {
            None => Self::absent(parameter.kind),
            Some(ParameterValue::String(text) | ParameterValue::Id(text)) => Self::Text(Some(text)),
            Some(ParameterValue::Integer(integer)) => Self::Integer(Some(*integer)),
            Some(ParameterValue::Set(members)) => Self::Set(Some(members)),
            Some(ParameterValue::Money(money)) => Self::Money(Quantity::of_money(money)),
            Some(ParameterValue::Decimal(decimal)) => Self::Decimal(Scaled::of(decimal)),
            Some(ParameterValue::Time(time)) => {
                Self::Time(Moment { ns: Some(nanoseconds(*time)), text: Some(moment(*time)) })
            }
        }
    }

    /// The nulls of an optional parameter that the call leaves out.
    const fn absent(kind: ParameterKind) -> Self {
        match kind {
            ParameterKind::String | ParameterKind::Id => Self::Text(None),
            ParameterKind::Integer => Self::Integer(None),
            ParameterKind::Set => Self::Set(None),
            ParameterKind::Money => Self::Money(Quantity::NONE),
            ParameterKind::Decimal => Self::Decimal(Scaled { unscaled: None, scale: None, text: None }),
            ParameterKind::Time => Self::Time(Moment { ns: None, text: None }),
        }
    }
}

impl<'a> Quantity<'a> {
    pub(super) const NONE: Self = Self { minor: None, currency: None, text: None };

    pub(super) fn of(amount: &'a Amount) -> Self {
        match amount {
            Amount::Money(money) => Self::of_money(money),
            Amount::Number(number) => Self::of_number(*number),
        }
    }

    fn of_money(money: &'a Money) -> Self {
        Self { minor: Some(money.minor()), currency: Some(money.currency().into()), text: Some(money.text().into()) }
    }

    fn of_number(number: Decimal) -> Self {
        Self { minor: number.unscaled(0), currency: None, text: Some(number.to_string().into()) }
    }

    /// What is left of `max` after `used`; nothing is known where the two do not compare.
    fn left(max: &Amount, used: &Amount) -> Self {
        let left = match (max, used) {
            (Amount::Money(max), Amount::Money(used)) if max.currency() == used.currency() => {
                let minor = max.minor().saturating_sub(used.minor()).max(0);
                Money::from_minor(minor, max.currency()).ok().map(|money| Self {
                    minor: Some(money.minor()),
                    currency: Some(money.currency().to_owned().into()),
                    text: Some(money.text().to_owned().into()),
                })
            }
            (Amount::Number(max), Amount::Number(used)) => difference(*max, *used).map(Self::of_number),
            (Amount::Money(_), Amount::Money(_) | Amount::Number(_)) | (Amount::Number(_), Amount::Money(_)) => None,
        };
        left.unwrap_or(Self::NONE)
    }
}

/// `max - used`, exact and never below zero.
fn difference(max: Decimal, used: Decimal) -> Option<Decimal> {
    let exact = |decimal: Decimal| rust_decimal::Decimal::from_str_exact(&decimal.to_string()).ok();
    let left = exact(max)?.checked_sub(exact(used)?)?.max(rust_decimal::Decimal::ZERO);
    left.normalize().to_string().parse().ok()
}

impl<'a> Scaled<'a> {
    fn of(decimal: &'a ScaledDecimal) -> Self {
        Self { unscaled: Some(decimal.unscaled), scale: Some(decimal.scale), text: Some(&decimal.text) }
    }
}

impl<'a> LimitState<'a> {
    pub(super) fn of(state: &'a question::LimitState) -> Self {
        Self {
            name: &state.name,
            max: Quantity::of(&state.max),
            used: state.used.as_ref().map_or(Quantity::NONE, Quantity::of),
            remaining: state.used.as_ref().map_or(Quantity::NONE, |used| Quantity::left(&state.max, used)),
            window: state.window.to_string(),
            hop: state.hop,
        }
    }
}

/// The moment as text: RFC 3339, UTC.
pub(super) fn moment(time: Timestamp) -> String {
    time.to_string()
}

/// Nanoseconds since 1970; moments beyond the year 2262 stop there.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    let nanoseconds = time.as_nanosecond();
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}
