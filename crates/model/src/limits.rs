//! Limits of an `authorization_details` element: caps on one call's parameters, and cumulative ones over a window.
//!
//! `window` is what a window is, `charge` what a call is charged to which sum.

mod charge;
mod window;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

pub use charge::{Claim, Holder, LimitKey, MAX_UNITS, claims};
pub use window::{Period, Window};

use crate::{Amount, Decimal, Money, ParameterValue, Parameters, amount::InvalidAmount};

/// Limits by name. A call is within them when it is within every one.
///
/// The name of a per-call limit is the parameter it caps; the name of a cumulative limit is free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Limits(BTreeMap<String, Limit>);

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenLimit", into = "WrittenLimit")]
pub enum Limit {
    /// The parameter's value may be no more than this, each call.
    Max(Amount),
    /// The parameter's value must be one of these (each member, for a set).
    OneOf(BTreeSet<String>),
    /// Over a window, so many calls, or so much of one parameter.
    Cumulative(Cumulative),
}

/// A limit over a window, across all calls under the element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cumulative {
    /// The parameter that is summed; `None` counts calls.
    pub sum: Option<String>,
    /// The most within one window.
    pub max: Amount,
    /// The window.
    pub window: Window,
}

/// Why a limit is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidLimit {
    /// Members that do not go together, or none that say what is limited.
    #[error("a limit is `max` (with `currency`), `one_of`, or `max` with `window` (and `sum`)")]
    Shape,
    /// `max` is not a quantity.
    #[error(transparent)]
    Amount(#[from] InvalidAmount),
    /// A limit below zero allows nothing and is surely a mistake.
    #[error("a limit may not be negative")]
    Negative,
    /// `window` is not an ISO 8601 duration of fixed length.
    #[error("`{0}` is not an ISO 8601 duration of weeks, days, hours, minutes or seconds")]
    Window(String),
}

/// A limit that a call is over: its name and what would be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit's name.
    pub name: String,
    /// The limit.
    pub limit: Limit,
}

impl Limits {
    /// The first limit that `parameters` are not within. A limit on a value that the call does not carry, or
    /// that cannot be compared with it, counts as exceeded. Of a cumulative limit it is judged whether this one call
    /// alone is within it; how much is left is another question.
    pub fn exceeded(&self, parameters: &Parameters) -> Option<Exceeded> {
        let over = |(name, limit): &(&String, &Limit)| !limit.holds(name, parameters);
        self.0.iter().find(over).map(|(name, limit)| Exceeded { name: name.clone(), limit: limit.clone() })
    }

    /// The cumulative limits, which a call is charged against.
    pub fn cumulative(&self) -> impl Iterator<Item = (&str, &Cumulative)> {
        self.0.iter().filter_map(|(name, limit)| match limit {
            Limit::Cumulative(cumulative) => Some((name.as_str(), cumulative)),
            Limit::Max(_) | Limit::OneOf(_) => None,
        })
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Limit)> {
        self.0.iter().map(|(name, limit)| (name.as_str(), limit))
    }

    /// Adds a limit, or replaces the one of that name.
    pub fn set(&mut self, name: &str, limit: Limit) {
        self.0.insert(name.to_owned(), limit);
    }

    /// Whether everything within these limits is within `wider`: each of `wider`'s is here, no looser.
    pub fn within(&self, wider: &Self) -> bool {
        wider.0.iter().all(|(name, wide)| self.0.get(name).is_some_and(|narrow| narrow.within(wide)))
    }

    /// Both together: the tighter of each pair, the single ones as they are. `None` where a pair has no
    /// tighter one (two currencies, two windows).
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        for (name, limit) in &other.0 {
            let tighter = match self.0.get(name) {
                None => limit.clone(),
                Some(own) => own.tighter(limit)?,
            };
            both.0.insert(name.clone(), tighter);
        }
        Some(both)
    }
}

impl Limit {
    fn holds(&self, name: &str, parameters: &Parameters) -> bool {
        let value = parameters.value(name);
        match self {
            Self::Cumulative(limit) => limit.charge(parameters).is_some_and(|units| units <= limit.ceiling()),
            Self::Max(max) => value.and_then(ParameterValue::amount).is_some_and(|amount| amount.at_most(max)),
            Self::OneOf(allowed) => match value {
                Some(ParameterValue::String(text) | ParameterValue::Id(text)) => allowed.contains(text),
                Some(ParameterValue::Set(members)) => members.is_subset(allowed),
                _ => false,
            },
        }
    }

    fn within(&self, wider: &Self) -> bool {
        match (self, wider) {
            (Self::Max(narrow), Self::Max(wide)) => narrow.at_most(wide),
            (Self::OneOf(narrow), Self::OneOf(wide)) => narrow.is_subset(wide),
            (Self::Cumulative(narrow), Self::Cumulative(wide)) => {
                narrow.sum == wide.sum && narrow.window == wide.window && narrow.max.at_most(&wide.max)
            }
            _ => false,
        }
    }

    pub(crate) fn tighter(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::OneOf(a), Self::OneOf(b)) => Some(Self::OneOf(a & b)),
            _ if self.within(other) => Some(self.clone()),
            _ if other.within(self) => Some(other.clone()),
            _ => None,
        }
    }

    /// What a refusal may tell the agent of this limit: `{"max": "50.00", "currency": "USD"}`.
    pub fn allowed(&self) -> serde_json::Value {
        serde_json::to_value(WrittenLimit::from(self.clone())).unwrap_or_default()
    }
}

/// The wire form of a limit (DESIGN §5.1).
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenLimit {
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_of: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
}

impl TryFrom<WrittenLimit> for Limit {
    type Error = InvalidLimit;

    fn try_from(written: WrittenLimit) -> Result<Self, InvalidLimit> {
        let amount = |max: Decimal, currency: Option<String>| -> Result<Amount, InvalidLimit> {
            match currency {
                _ if max.is_negative() => Err(InvalidLimit::Negative),
                Some(currency) => Ok(Amount::Money(Money::from_major(&max.to_string(), &currency)?)),
                None => Ok(Amount::Number(max)),
            }
        };
        match written {
            WrittenLimit { one_of: Some(allowed), max: None, currency: None, sum: None, window: None } => {
                Ok(Self::OneOf(allowed))
            }
            WrittenLimit { max: Some(max), currency, window: Some(window), sum, one_of: None } => {
                if sum.is_none() && currency.is_some() {
                    return Err(InvalidLimit::Shape);
                }
                Ok(Self::Cumulative(Cumulative { sum, max: amount(max, currency)?, window: window.parse()? }))
            }
            WrittenLimit { max: Some(max), currency, window: None, sum: None, one_of: None } => {
                Ok(Self::Max(amount(max, currency)?))
            }
            _ => Err(InvalidLimit::Shape),
        }
    }
}

impl From<Limit> for WrittenLimit {
    fn from(limit: Limit) -> Self {
        let empty = Self { max: None, currency: None, one_of: None, sum: None, window: None };
        let quantity = |amount: &Amount| (amount.text().parse().ok(), amount.currency().map(str::to_owned));
        match limit {
            Limit::OneOf(allowed) => Self { one_of: Some(allowed), ..empty },
            Limit::Max(amount) => {
                let (max, currency) = quantity(&amount);
                Self { max, currency, ..empty }
            }
            Limit::Cumulative(cumulative) => {
                let (max, currency) = quantity(&cumulative.max);
                Self { max, currency, sum: cumulative.sum, window: Some(cumulative.window.to_string()), one_of: None }
            }
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        WrittenLimit::json_schema(generator)
    }
}

#[cfg(test)]
mod tests;
