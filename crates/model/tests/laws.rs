//! Laws of the plain nouns, on made-up values: what is written reads back, what is exact stays exact, what is narrower
//! is never wider.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to end there")]

use std::cmp::Ordering;

use countersign_model::{
    Amount, CanonicalPath, Decimal, Limits, Money, Pattern,
    amount::MAX_SAFE_INTEGER,
    duration::ConfigDuration,
    json::Json,
    limits::Window,
    template::{Template, Variables},
};
use proptest::prelude::*;

const CURRENCIES: [&str; 4] = ["USD", "EUR", "JPY", "KWD"];

fn currency() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&CURRENCIES[..])
}

fn limits() -> impl Strategy<Value = Limits> {
    let max = (0_i64..200).prop_map(|max| format!(r#"{{"max":"{max}.50"}}"#));
    let money =
        (0_i64..200, currency()).prop_map(|(max, currency)| format!(r#"{{"max":"{max}","currency":"{currency}"}}"#));
    let names = prop::collection::btree_set("[abc]", 0..3).prop_map(|names| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!(r#"{{"one_of":[{}]}}"#, names.join(","))
    });
    let sum = (0_i64..200, 1_u32..4)
        .prop_map(|(max, days)| format!(r#"{{"sum":"amount","max":"{max}","currency":"USD","window":"P{days}D"}}"#));
    let limit = prop_oneof![max, money, names, sum];
    prop::collection::btree_map("[xyz]", limit, 0..3).prop_map(|limits| {
        let members: Vec<String> = limits.iter().map(|(name, limit)| format!("\"{name}\":{limit}")).collect();
        serde_json::from_str(&format!("{{{}}}", members.join(","))).unwrap()
    })
}

proptest! {
    #[test]
    fn money_is_its_text_and_its_minor_units(minor in 0..=MAX_SAFE_INTEGER, currency in currency()) {
        let money = Money::from_minor(minor, currency).unwrap();
        prop_assert_eq!((money.minor(), money.currency()), (minor, currency));
        prop_assert_eq!(Money::from_major(money.text(), currency), Ok(money.clone()));
        let written = serde_json::to_string(&money).unwrap();
        prop_assert_eq!(serde_json::from_str::<Money>(&written).unwrap(), money);
    }

    #[test]
    fn amounts_compare_as_their_minor_units_and_never_across_currencies(
        a in 0..=MAX_SAFE_INTEGER, b in 0..=MAX_SAFE_INTEGER, of_a in currency(), of_b in currency(),
    ) {
        let amount = |minor, currency| Amount::Money(Money::from_minor(minor, currency).unwrap());
        let (one, other) = (amount(a, of_a), amount(b, of_b));
        prop_assert_eq!(one.compare(&other), (of_a == of_b).then(|| a.cmp(&b)));
        prop_assert_eq!(one.at_most(&other), of_a == of_b && a <= b);
        prop_assert_eq!(one.compare(&other), other.compare(&one).map(Ordering::reverse));
        let number = Amount::Number(Decimal::from_integer(a));
        prop_assert!(!number.at_most(&one) && !one.at_most(&number));
    }

    #[test]
    fn a_decimal_reads_back_as_itself_and_has_no_other_spelling_of_its_whole_part(text in "-?[0-9]{1,12}(\\.[0-9]{1,8})?") {
        if let Ok(decimal) = text.parse::<Decimal>() {
            prop_assert_eq!(decimal.to_string().parse::<Decimal>(), Ok(decimal));
            if !decimal.is_negative() && !text.starts_with('-') {
                prop_assert_eq!(decimal.to_string(), text.clone());
            }
            if let Some(unscaled) = decimal.unscaled(8) {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                let exact = digits.parse::<i128>().unwrap() * 10_i128.pow(u32::try_from(8 - fraction).unwrap());
                prop_assert_eq!(i128::from(unscaled.abs()), exact);
            }
        } else {
            let whole = text.trim_start_matches('-').split('.').next().unwrap();
            prop_assert!(whole.len() > 1 && whole.starts_with('0'), "{}", text);
        }
    }

    #[test]
    fn what_is_no_plain_decimal_is_no_quantity(text in "\\PC{0,12}") {
        let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-');
        prop_assert!(plain || text.parse::<Decimal>().is_err());
        prop_assert!(plain || Money::from_major(&text, "USD").is_err());
    }

    #[test]
    fn a_path_made_from_a_template_matches_it_with_the_same_values(
        literals in prop::collection::vec("[a-z]{1,5}", 1..4), values in prop::collection::vec("\\PC{1,12}", 0..4),
    ) {
        let mut text = String::new();
        let mut variables = Variables::new();
        for (place, literal) in literals.iter().enumerate() {
            text.push_str(&format!("/{literal}"));
            if let Some(value) = values.get(place) {
                text.push_str(&format!("/{{v{place}}}"));
                variables.insert(format!("v{place}"), value.clone());
            }
        }
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.to_string(), text);
        if let Some(path) = template.fill_path(&variables) {
            let path = CanonicalPath::parse(&path).unwrap();
            prop_assert_eq!(template.matches(&path), Some(variables.clone()));
        }
        if let Some(name) = template.fill(&variables) {
            prop_assert_eq!(name.split('/').count(), template.to_string().split('/').count());
        }
    }

    #[test]
    fn a_template_matches_only_what_fills_it_again(raw in "/[a-c%/]{0,12}") {
        let template = Template::parse("/a/{x}/b/{y}").unwrap();
        let Ok(path) = CanonicalPath::parse(&raw) else { return Ok(()) };
        if let Some(variables) = template.matches(&path) {
            prop_assert_eq!(template.fill_path(&variables), Some(path.as_str().to_owned()));
        }
    }

    #[test]
    fn limits_together_are_within_each_and_in_either_order_the_same(one in limits(), other in limits()) {
        if let Some(both) = one.intersect(&other) {
            prop_assert!(both.within(&one) && both.within(&other));
            prop_assert_eq!(other.intersect(&one), Some(both.clone()));
            prop_assert_eq!(both.intersect(&one), Some(both));
        }
        prop_assert!(one.within(&one) && one.within(&Limits::default()));
        let written = serde_json::to_string(&one).unwrap();
        prop_assert_eq!(serde_json::from_str::<Limits>(&written).unwrap(), one);
    }

    #[test]
    fn what_is_within_is_within_what_that_is_within(a in limits(), b in limits(), c in limits()) {
        if let Some(narrow) = a.intersect(&b).and_then(|middle| middle.intersect(&c)) {
            prop_assert!(narrow.within(&a) && narrow.within(&b) && narrow.within(&c));
        }
        prop_assert!(!(a.within(&b) && b.within(&c)) || a.within(&c));
    }

    #[test]
    fn a_pattern_reads_back_and_lies_within_itself_and_any(text in "[ab]{1,3}(/[ab*]{1,2}){0,3}(/\\*\\*)?") {
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert_eq!(&pattern.to_string().parse::<Pattern>().unwrap(), &pattern);
            prop_assert!(pattern.within(&pattern) && pattern.within(&Pattern::any()));
        }
    }

    #[test]
    fn a_duration_reads_back_as_it_was_written(number in 0_u64..1_000_000, unit in prop::sample::select(&["ms", "s", "m", "h", "d"][..])) {
        let duration: ConfigDuration = format!("{number}{unit}").parse().unwrap();
        prop_assert_eq!(duration.to_string().parse::<ConfigDuration>(), Ok(duration));
    }

    #[test]
    fn a_window_reads_back_as_it_was_written(days in 0_u32..400, hours in 0_u32..30, seconds in 0_u32..100) {
        let text = format!("P{days}DT{hours}H{seconds}S");
        if let Ok(window) = text.parse::<Window>() {
            prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
        } else {
            prop_assert_eq!((days, hours, seconds), (0, 0, 0));
        }
    }

    #[test]
    fn json_has_one_reading_or_none(text in "[{}\\[\\]\",:a0-9 .eE+-]{0,24}") {
        let strict = Json::parse(text.as_bytes());
        match (&strict, serde_json::from_str::<serde_json::Value>(&text)) {
            (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", text, error),
            // A number that a float rounds is kept as it is written; the rest is the same.
            (Ok(json), Ok(other)) if !text.contains(['.', 'e', 'E']) => prop_assert_eq!(json.to_serde(), other),
            _ => {}
        }
    }
}
