//! Exact quantities: decimals and money. Nothing here ever passes through a binary floating-point number.

use std::{borrow::Cow, cmp::Ordering, fmt, str::FromStr};

use iso_currency::Currency;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The largest integer that JSON carries exactly everywhere (RFC 8785 §3.2.2.3, I-JSON): 2^53 - 1.
pub const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// Why text is not an exact quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum InvalidAmount {
    /// Not digits with at most one point: no sign but a leading minus, no exponent, no grouping.
    #[error("`{0}` is not a plain decimal number")]
    NotDecimal(String),
    /// Outside what can be kept exactly.
    #[error("`{0}` is out of range")]
    OutOfRange(String),
    /// Money is never negative.
    #[error("an amount of money may not be negative")]
    Negative,
    /// More fraction digits than the currency has.
    #[error("{currency} has {digits} fraction digits, `{text}` has more")]
    TooPrecise {
        /// The currency's ISO 4217 code.
        currency: String,
        /// How many fraction digits it has.
        digits: u32,
        /// What was written.
        text: String,
    },
    /// Not an ISO 4217 code of a currency with minor units.
    #[error("`{0}` is not an ISO 4217 currency code")]
    UnknownCurrency(String),
}

/// An exact decimal number, at most 28 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(rust_decimal::Decimal);

impl Decimal {
    /// The digits without the point, at `scale` fraction digits; `None` where that would round or overflow
    /// [`MAX_SAFE_INTEGER`].
    pub fn unscaled(&self, scale: u32) -> Option<i64> {
        let normal = self.0.normalize();
        let missing = scale.checked_sub(normal.scale())?;
        let factor = 10_i128.checked_pow(missing)?;
        let unscaled = normal.mantissa().checked_mul(factor)?;
        let unscaled = i64::try_from(unscaled).ok()?;
        (unscaled.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs()).then_some(unscaled)
    }

    /// The digits without the point at `scale` fraction digits, rounded up where there are more; `None` where that
    /// overflows.
    pub(crate) fn scaled_up(&self, scale: u32) -> Option<i128> {
        let down = self.scaled_down(scale)?;
        let exact = self.0.normalize().scale() <= scale;
        if exact { Some(down) } else { down.checked_add(1) }
    }

    /// The same, rounded down.
    pub(crate) fn scaled_down(&self, scale: u32) -> Option<i128> {
        let normal = self.0.normalize();
        match scale.checked_sub(normal.scale()) {
            Some(missing) => normal.mantissa().checked_mul(10_i128.checked_pow(missing)?),
            None => Some(normal.mantissa().div_euclid(10_i128.checked_pow(normal.scale() - scale)?)),
        }
    }

    /// `unscaled / 10^scale`, without zeros at the end.
    pub(crate) fn from_scaled(unscaled: i64, scale: u32) -> Self {
        Self(rust_decimal::Decimal::from_i128_with_scale(i128::from(unscaled), scale).normalize())
    }

    /// A whole number.
    pub fn from_integer(integer: i64) -> Self {
        Self(rust_decimal::Decimal::from(integer))
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.0.is_sign_negative() && !self.0.is_zero()
    }
}

impl FromStr for Decimal {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        if !is_plain(text) {
            return Err(InvalidAmount::NotDecimal(shortened(text)));
        }
        rust_decimal::Decimal::from_str_exact(text).map(Self).map_err(|_| InvalidAmount::OutOfRange(shortened(text)))
    }
}

/// `-?digits(.digits)?`, no leading zeros but a single one, so that one number has one spelling of its whole part.
fn is_plain(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) =
        unsigned.split_once('.').map_or((unsigned, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && (whole.len() == 1 || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

/// At most 40 characters of what somebody else wrote, for an error message.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    /// From a decimal string or a JSON integer; a JSON number with a point is refused, because the parser has
    /// already rounded it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<'a> {
            Integer(i64),
            #[serde(borrow)]
            Text(Cow<'a, str>),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Integer(integer)) => Ok(Self::from_integer(integer)),
            Ok(Written::Text(text)) => text.parse().map_err(de::Error::custom),
            Err(_) => Err(de::Error::custom("a quantity is written as a decimal string, for example \"50.00\"")),
        }
    }
}

impl JsonSchema for Decimal {
    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$" })
    }
}

/// An amount of money: never negative, exact, in the minor units of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenMoney")]
pub struct Money {
    minor: i64,
    currency: String,
    text: String,
}

impl Money {
    /// Reads `text` ("20", "20.00") as an amount in major units of `currency` (an ISO 4217 code).
    pub fn from_major(text: &str, currency: &str) -> Result<Self, InvalidAmount> {
        let (known, digits) = currency_digits(currency)?;
        if text.starts_with('-') {
            return Err(InvalidAmount::Negative);
        }
        let decimal: Decimal = text.parse()?;
        if decimal.0.normalize().scale() > digits {
            return Err(InvalidAmount::TooPrecise { currency: known.code().to_owned(), digits, text: shortened(text) });
        }
        let minor = decimal.unscaled(digits).ok_or_else(|| InvalidAmount::OutOfRange(shortened(text)))?;
        Ok(Self::assemble(minor, known, digits))
    }

    /// `minor` units (cents) of `currency`.
    pub fn from_minor(minor: i64, currency: &str) -> Result<Self, InvalidAmount> {
        let (known, digits) = currency_digits(currency)?;
        if minor < 0 {
            return Err(InvalidAmount::Negative);
        }
        if minor > MAX_SAFE_INTEGER {
            return Err(InvalidAmount::OutOfRange(minor.to_string()));
        }
        Ok(Self::assemble(minor, known, digits))
    }

    fn assemble(minor: i64, currency: Currency, digits: u32) -> Self {
        let text = rust_decimal::Decimal::from_i128_with_scale(i128::from(minor), digits).to_string();
        Self { minor, currency: currency.code().to_owned(), text }
    }

    /// The amount in minor units.
    pub const fn minor(&self) -> i64 {
        self.minor
    }

    /// The ISO 4217 code.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The amount in major units as a decimal string with the currency's full fraction: `"20.00"`.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The currency and its number of fraction digits. Codes are compared as written: `usd` is not `USD`.
fn currency_digits(code: &str) -> Result<(Currency, u32), InvalidAmount> {
    let unknown = || InvalidAmount::UnknownCurrency(shortened(code));
    let currency = Currency::from_code(code).ok_or_else(unknown)?;
    let digits = currency.exponent().ok_or_else(unknown)?;
    Ok((currency, u32::from(digits)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenMoney {
    minor: i64,
    currency: String,
    text: String,
}

impl TryFrom<WrittenMoney> for Money {
    type Error = InvalidAmount;

    fn try_from(written: WrittenMoney) -> Result<Self, InvalidAmount> {
        let money = Self::from_minor(written.minor, &written.currency)?;
        if money.text == written.text { Ok(money) } else { Err(InvalidAmount::NotDecimal(shortened(&written.text))) }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.currency)
    }
}

/// A quantity that a limit caps: money, or a plain number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Amount {
    /// Money of one currency.
    Money(Money),
    /// A number without a unit.
    Number(Decimal),
}

impl Amount {
    /// How the two compare; `None` where they cannot be (money against number, two currencies), which no caller
    /// may take for "within".
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Money(a), Self::Money(b)) if a.currency == b.currency => Some(a.minor.cmp(&b.minor)),
            (Self::Number(a), Self::Number(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Whether this is provably no more than `max`.
    pub fn at_most(&self, max: &Self) -> bool {
        self.compare(max).is_some_and(Ordering::is_le)
    }

    /// The bare decimal text, without the currency.
    pub fn text(&self) -> String {
        match self {
            Self::Money(money) => money.text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    /// The currency, for money.
    pub fn currency(&self) -> Option<&str> {
        match self {
            Self::Money(money) => Some(&money.currency),
            Self::Number(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_and_keeps_the_fraction_of_its_currency() {
        let money = Money::from_major("20", "USD").unwrap();
        assert_eq!((money.minor(), money.text()), (2000, "20.00"));
        assert_eq!(Money::from_major("0.1", "USD").unwrap().minor(), 10);
        assert_eq!(Money::from_major("500", "JPY").unwrap().text(), "500");
        assert_eq!(Money::from_major("1.234", "BHD").unwrap().minor(), 1234);
    }

    #[test]
    fn text_that_two_readers_could_read_differently_is_refused() {
        for text in [
            "",
            "-1",
            "-0",
            "+1",
            "1e3",
            "1_000",
            "1,5",
            ".5",
            "5.",
            "01",
            "0x10",
            "1e400",
            "NaN",
            " 1",
            "1.001",
            "99999999999999999999",
        ] {
            assert!(Money::from_major(text, "USD").is_err(), "{text}");
        }
        for code in ["usd", "US", "XXX", "BTC", ""] {
            assert!(Money::from_major("1", code).is_err(), "{code}");
        }
    }

    #[test]
    fn amounts_of_two_currencies_never_compare() {
        let euros = Amount::Money(Money::from_major("1", "EUR").unwrap());
        let dollars = Amount::Money(Money::from_major("100", "USD").unwrap());
        assert!(!euros.at_most(&dollars) && !dollars.at_most(&euros));
        assert!(!Amount::Number(Decimal::from_integer(1)).at_most(&dollars));
    }

    #[test]
    fn a_json_number_with_a_point_is_no_quantity_but_a_string_or_an_integer_is() {
        assert!(serde_json::from_str::<Decimal>("0.1").is_err());
        assert_eq!(serde_json::from_str::<Decimal>("\"0.10\"").unwrap().to_string(), "0.10");
        assert_eq!(serde_json::from_str::<Decimal>("7").unwrap(), Decimal::from_integer(7));
    }
}
