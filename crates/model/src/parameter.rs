//! The typed, closed parameters of an action (DESIGN §5.2): how they are declared and the values a call carries.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Amount, Decimal, Money,
    amount::{InvalidAmount, MAX_SAFE_INTEGER},
};

/// The types a parameter may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterKind {
    /// Text.
    String,
    /// A whole number within ±(2^53 - 1).
    Integer,
    /// An exact decimal with a declared number of fraction digits.
    Decimal,
    /// An amount of money in one currency, never negative.
    Money,
    /// An RFC 3339 time.
    Time,
    /// The name of something at the tool.
    Id,
    /// A set of strings; order and repetition carry no meaning.
    Set,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "lowercase")]
pub enum ParameterValue {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// An exact decimal at its declared scale.
    Decimal(ScaledDecimal),
    /// Money.
    Money(Money),
    /// A moment.
    Time(Timestamp),
    /// A name.
    Id(String),
    /// A set of strings.
    Set(BTreeSet<String>),
}

/// A decimal at the scale its parameter declares: `unscaled / 10^scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaledDecimal {
    /// The digits without the point.
    pub unscaled: i64,
    /// How many of them are fraction digits.
    pub scale: u32,
    /// The number as text.
    pub text: String,
}

impl ScaledDecimal {
    /// `decimal` at `scale` fraction digits; refused where that would round.
    pub fn new(decimal: Decimal, scale: u32) -> Result<Self, InvalidAmount> {
        let unscaled = decimal.unscaled(scale).ok_or_else(|| InvalidAmount::OutOfRange(decimal.to_string()))?;
        Ok(Self { unscaled, scale, text: decimal.to_string() })
    }
}

/// What a call carries for one declared parameter: its type, and its value unless it is optional and absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// The declared type, known even when the value is absent.
    pub kind: ParameterKind,
    /// The value.
    pub value: Option<ParameterValue>,
}

/// The parameters of a call: one entry for each that its action declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(BTreeMap<String, Parameter>);

impl Parameters {
    /// Declares `name` and gives its value.
    pub fn set(&mut self, name: &str, kind: ParameterKind, value: Option<ParameterValue>) {
        self.0.insert(name.to_owned(), Parameter { kind, value });
    }

    /// The value of `name`, where the call carries one.
    pub fn value(&self, name: &str) -> Option<&ParameterValue> {
        self.0.get(name)?.value.as_ref()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.0.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }
}

impl ParameterValue {
    /// What kind of value it is.
    pub const fn kind(&self) -> ParameterKind {
        match self {
            Self::String(_) => ParameterKind::String,
            Self::Integer(_) => ParameterKind::Integer,
            Self::Decimal(_) => ParameterKind::Decimal,
            Self::Money(_) => ParameterKind::Money,
            Self::Time(_) => ParameterKind::Time,
            Self::Id(_) => ParameterKind::Id,
            Self::Set(_) => ParameterKind::Set,
        }
    }

    /// The quantity that a limit would cap; `None` for kinds that have none.
    pub fn amount(&self) -> Option<Amount> {
        match self {
            Self::Money(money) => Some(Amount::Money(money.clone())),
            Self::Integer(integer) => Some(Amount::Number(Decimal::from_integer(*integer))),
            Self::Decimal(decimal) => decimal.text.parse().ok().map(Amount::Number),
            Self::String(_) | Self::Time(_) | Self::Id(_) | Self::Set(_) => None,
        }
    }

    /// A whole number that JSON carries exactly.
    pub fn integer(text: &str) -> Result<Self, InvalidAmount> {
        let decimal: Decimal = text.parse()?;
        let integer = decimal
            .unscaled(0)
            .filter(|_| !text.contains('.'))
            .ok_or_else(|| InvalidAmount::OutOfRange(decimal.to_string()))?;
        debug_assert!(integer.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs());
        Ok(Self::Integer(integer))
    }
}
