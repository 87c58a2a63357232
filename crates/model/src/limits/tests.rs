//! What a limit is, what windows are, and that what is charged is never over.

use super::*;
use crate::ParameterKind;

fn limits(json: &str) -> Limits {
    serde_json::from_str(json).unwrap()
}

fn amount(text: &str, currency: &str) -> Parameters {
    let mut parameters = Parameters::default();
    parameters.set(
        "amount",
        ParameterKind::Money,
        Some(ParameterValue::Money(Money::from_major(text, currency).unwrap())),
    );
    parameters
}

#[test]
fn a_call_is_within_a_limit_only_when_that_can_be_shown() {
    let limits = limits(r#"{"amount": {"max": "50.00", "currency": "USD"}}"#);
    assert!(limits.exceeded(&amount("50.00", "USD")).is_none());
    assert!(limits.exceeded(&amount("50.01", "USD")).is_some());
    assert!(limits.exceeded(&amount("1.00", "EUR")).is_some());
    assert!(limits.exceeded(&Parameters::default()).is_some());
}

#[test]
fn a_limit_that_lost_its_currency_or_gained_an_unknown_member_is_no_limit() {
    for json in [
        r#"{"a": {}}"#,
        r#"{"a": {"max": 50.5}}"#,
        r#"{"a": {"max": "-1"}}"#,
        r#"{"a": {"max": "1", "currency": "usd"}}"#,
        r#"{"a": {"max": "1", "currency": "USD", "window": "P1D"}}"#,
        r#"{"a": {"max": "1", "window": "P1M"}}"#,
        r#"{"a": {"max": "1", "window": "P0D"}}"#,
        r#"{"a": {"max": "1", "window": "PT1.5S"}}"#,
        r#"{"a": {"max": "1", "per": "day"}}"#,
        r#"{"a": {"one_of": ["x"], "max": "1"}}"#,
    ] {
        assert!(serde_json::from_str::<Limits>(json).is_err(), "{json}");
    }
}

#[test]
fn narrower_limits_have_every_limit_of_the_wider_no_looser() {
    let wide = limits(
        r#"{"amount": {"max": "50.00", "currency": "USD"}, "daily": {"sum": "amount", "max": "200", "currency": "USD", "window": "P1D"}}"#,
    );
    let narrow = limits(
        r#"{"amount": {"max": "20.00", "currency": "USD"}, "daily": {"sum": "amount", "max": "200", "currency": "USD", "window": "P1D"}, "queue": {"one_of": ["a"]}}"#,
    );
    assert!(narrow.within(&wide) && !wide.within(&narrow) && wide.within(&wide));
    assert!(!limits("{}").within(&wide) && wide.within(&limits("{}")));
    assert!(
        !limits(r#"{"amount": {"max": "5", "currency": "EUR"}}"#)
            .within(&limits(r#"{"amount": {"max": "50", "currency": "USD"}}"#))
    );
    assert_eq!(narrow.intersect(&wide), Some(narrow));
}

#[test]
fn limits_survive_their_wire_form() {
    let all = limits(
        r#"{"amount": {"max": "50.00", "currency": "USD"}, "n": {"max": "3", "window": "PT1H"}, "q": {"one_of": ["a", "b"]}}"#,
    );
    assert_eq!(limits(&serde_json::to_string(&all).unwrap()), all);
}

fn cumulative(json: &str) -> Cumulative {
    let limits = limits(&format!(r#"{{"it": {json}}}"#));
    limits.cumulative().next().unwrap().1.clone()
}

fn number(text: &str) -> Parameters {
    let mut parameters = Parameters::default();
    let value =
        ParameterValue::Decimal(crate::parameter::ScaledDecimal { unscaled: 0, scale: 0, text: text.to_owned() });
    parameters.set("n", ParameterKind::Decimal, Some(value));
    parameters
}

#[test]
fn days_begin_at_midnight_and_weeks_on_monday_in_utc() {
    let at = |window: &str, moment: &str| {
        let period = window.parse::<Window>().unwrap().at(moment.parse().unwrap());
        (period.starts.to_string(), period.ends.to_string())
    };
    let said = |starts: &str, ends: &str| (starts.to_owned(), ends.to_owned());
    assert_eq!(at("P1D", "2026-11-22T23:59:59.999Z"), said("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"));
    assert_eq!(at("P1D", "2026-11-23T00:00:00Z"), said("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"));
    // 2026-11-23 is a Monday.
    assert_eq!(at("P1W", "2026-11-29T12:00:00Z"), said("2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"));
    assert_eq!(at("PT1H", "1969-12-31T23:30:00Z"), said("1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"));
}

#[test]
fn a_call_that_cannot_be_counted_is_over_the_limit() {
    let daily = cumulative(r#"{"sum": "amount", "max": "200", "currency": "USD", "window": "P1D"}"#);
    assert_eq!((daily.charge(&amount("10.50", "USD")), daily.ceiling()), (Some(1050), 20_000));
    assert_eq!(daily.charge(&amount("10.50", "EUR")), None);
    assert_eq!(daily.charge(&Parameters::default()), None);
    let sum = cumulative(r#"{"sum": "n", "max": "2.5", "window": "P1D"}"#);
    assert_eq!((sum.charge(&number("0.25")), sum.ceiling()), (Some(250_000), 2_500_000));
    assert_eq!(sum.charge(&number("0.0000001")), Some(1), "upwards");
    assert_eq!(sum.charge(&number("-1")), None, "nothing is given back");
    assert_eq!(sum.charge(&number("-0.0000001")), Some(0));
    assert_eq!(sum.charge(&number("99999999999999")), None, "more than can be counted");
    let count = cumulative(r#"{"max": "2.9", "window": "PT1H"}"#);
    assert_eq!((count.charge(&Parameters::default()), count.ceiling()), (Some(1), 2));
    let vast = cumulative(r#"{"sum": "n", "max": "99999999999999999999", "window": "P1D"}"#);
    assert_eq!(vast.ceiling(), MAX_UNITS);
    // Alone over the limit: no element with it holds the call.
    let limits = limits(r#"{"daily": {"sum": "amount", "max": "200", "currency": "USD", "window": "P1D"}}"#);
    assert!(limits.exceeded(&amount("200.00", "USD")).is_none());
    assert_eq!(limits.exceeded(&amount("200.01", "USD")).unwrap().name, "daily");
    assert!(limits.exceeded(&amount("1", "EUR")).is_some() && limits.exceeded(&Parameters::default()).is_some());
}

proptest::proptest! {
    #[test]
    fn windows_follow_each_other_without_gap_and_every_moment_is_in_one(
        seconds in 1_i64..4_000_000_000, moment in -62_000_000_000_i64..250_000_000_000, nanos in 0_i32..999_999_999,
    ) {
        let window: Window = format!("PT{seconds}S").parse().unwrap();
        let moment = jiff::Timestamp::new(moment, nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let period = window.at(moment);
        proptest::prop_assert!(period.holds(moment) && !period.holds(period.ends));
        proptest::prop_assert_eq!(window.at(period.starts), period);
        if period.ends < jiff::Timestamp::MAX {
            proptest::prop_assert_eq!(window.at(period.ends).starts, period.ends);
        }
        let length = period.ends.duration_since(period.starts);
        proptest::prop_assert!(length <= window.length());
        proptest::prop_assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
    }

    #[test]
    fn what_is_counted_never_adds_up_to_less_than_was_spent(
        values in proptest::collection::vec((0_u32..5_000, 0_u32..9), 0..40), max in 0_u32..9_000, scale in 0_u32..9,
    ) {
        let decimal = |unscaled: u32, scale| rust_decimal::Decimal::from_i128_with_scale(i128::from(unscaled), scale);
        let limit = cumulative(&format!(r#"{{"sum": "n", "max": "{}", "window": "P1D"}}"#, decimal(max, scale)));
        let (mut counted, mut spent) = (0, rust_decimal::Decimal::ZERO);
        for (unscaled, scale) in values {
            let value = decimal(unscaled, scale);
            let units = limit.charge(&number(&value.to_string())).unwrap();
            if counted + units <= limit.ceiling() {
                counted += units;
                spent += value;
            }
        }
        proptest::prop_assert!(spent <= decimal(max, scale), "{} of {}", spent, decimal(max, scale));
        proptest::prop_assert_eq!(limit.amount(limit.ceiling()).at_most(&limit.max), true);
    }

    #[test]
    fn a_call_within_a_narrower_cumulative_limit_is_within_the_wider(
        narrow in 0_u32..500, more in 0_u32..500, value in 0_u32..1_100,
    ) {
        let limit = |max: u32| limits(&format!(
            r#"{{"daily": {{"sum": "amount", "max": "{max}", "currency": "JPY", "window": "P1D"}}}}"#
        ));
        let (narrow, wide) = (limit(narrow), limit(narrow + more));
        proptest::prop_assert!(narrow.within(&wide));
        let call = amount(&value.to_string(), "JPY");
        proptest::prop_assert!(narrow.exceeded(&call).is_some() || wide.exceeded(&call).is_none());
    }
}
