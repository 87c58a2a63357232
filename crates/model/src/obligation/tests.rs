//! What is an obligation and what is not, and which of two holds as much.

use serde_json::{Value, json};

use super::*;

fn duty(name: &str, value: Value) -> Duty {
    Duty::read(name, value).unwrap()
}

fn of(name: &str, value: Value) -> Obligation {
    Obligation {
        code: name.to_owned(),
        message: None,
        internal: None,
        source: "countersign.org".to_owned(),
        duty: duty(name, value),
    }
}

#[test]
fn each_duty_is_read_and_written_as_the_same() {
    for (name, value) in [
        ("redact", json!(["/customer/email", "/items/*/card", "/a~1b/~0/0"])),
        ("max_response_bytes", json!(65536)),
        ("max_response_bytes", json!(0)),
        ("require_header", json!({"name": "X-Change-Ticket"})),
        ("require_header", json!({"name": "X-Change-Ticket", "pattern": "CHG-*"})),
        ("limit", json!({"amount": {"max": "50", "currency": "USD"}, "tags": {"one_of": ["a"]}})),
        ("notify", json!({"channel": "alerts", "message": "A refund above 40 USD."})),
    ] {
        let read = duty(name, value.clone());
        assert_eq!(read.name(), name);
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(serde_json::from_value::<Duty>(written).unwrap(), read, "{value}");
    }
}

#[test]
fn what_is_no_obligation_is_said_with_the_name_that_was_meant() {
    for (name, value, said) in [
        ("redcat", json!(["/a"]), "did you mean `redact`"),
        ("mask", json!(["/a"]), "there are redact"),
        ("redact", json!([]), "no place"),
        ("redact", json!(["customer/email"]), "not a JSON pointer"),
        ("redact", json!([""]), "not a JSON pointer"),
        ("redact", json!(["/a~2"]), "not a JSON pointer"),
        ("redact", json!("/a"), "invalid type"),
        ("redact", json!((0..65).map(|n| format!("/{n}")).collect::<Vec<_>>()), "more than 64"),
        ("max_response_bytes", json!(-1), "max_response_bytes"),
        ("max_response_bytes", json!("64k"), "max_response_bytes"),
        ("max_response_bytes", json!(1.5), "max_response_bytes"),
        ("max_response_bytes", json!(9_007_199_254_740_992_u64), "more than 9007199254740991"),
        ("require_header", json!({"name": "a b"}), "not the name"),
        ("require_header", json!({"name": "X-A", "value": "b"}), "unknown field `value`"),
        ("require_header", json!({"pattern": "b"}), "missing field `name`"),
        ("require_header", json!({"name": "X-A", "pattern": ""}), "one line"),
        ("limit", json!({}), "no parameter"),
        ("limit", json!({"amount": {"max": "5", "window": "P1D"}}), "over a window"),
        ("limit", json!({"amount": {"most": "5"}}), "unknown field"),
        ("limit", json!({"amount": {"max": "-5"}}), "negative"),
        ("notify", json!({"channel": "alerts"}), "missing field `message`"),
        ("notify", json!({"channel": "alerts", "message": "two\nlines"}), "one line"),
    ] {
        let error = Duty::read(name, value.clone()).unwrap_err();
        assert!(error.contains(said), "{name} {value}: {error}");
    }
}

#[test]
fn what_is_said_of_a_duty_that_is_none_is_short_and_plain_text_whatever_a_rule_puts_there() {
    let hostile = format!("\u{1b}[2J\n{}", "x".repeat(10_000));
    for value in [json!({ &hostile: 1 }), json!({ "name": &hostile }), json!(hostile)] {
        let error = Duty::read("require_header", value).unwrap_err();
        assert!(error.len() < 1_000 && !error.chars().any(char::is_control), "{}", error.escape_debug());
    }
}

#[test]
fn a_value_has_a_form_from_its_beginning_to_its_end() {
    for (text, pattern, has) in [
        ("CHG-1", "CHG-*", true),
        ("chg-1", "CHG-*", false),
        ("xCHG-1", "CHG-*", false),
        ("CHG-", "CHG-*", true),
        ("a-b-c", "a*c", true),
        ("a-b-c", "a*-*c", true),
        ("ac", "a*-*c", false),
        ("aba", "ab*ba", false),
        ("abba", "ab*ba", true),
        ("ab", "ab", true),
        ("abc", "ab", false),
        ("", "*", true),
        ("x*", "x*", true),
        ("aXbXc", "a*X*X*c", true),
        ("aXc", "a*X*X*c", false),
    ] {
        assert_eq!(has_form(text, pattern), has, "{text} {pattern}");
    }
}

#[test]
fn holding_less_of_one_duty_is_holding_less() {
    let holds = |others: &[Obligation], own: Obligation| holds_as_much(others, &[own]);
    let both = [of("redact", json!(["/a"])), of("redact", json!(["/b"]))];
    assert!(holds(&both, of("redact", json!(["/a", "/b"]))));
    assert!(!holds(&both, of("redact", json!(["/a", "/c"]))));
    assert!(holds(&[of("max_response_bytes", json!(10))], of("max_response_bytes", json!(20))));
    assert!(!holds(&[of("max_response_bytes", json!(20))], of("max_response_bytes", json!(10))));
    let header = |name: &str| of("require_header", json!({ "name": name }));
    assert!(holds(&[header("X-A")], header("X-A")) && !holds(&[header("X-B")], header("X-A")));
    let limit = |most: &str| of("limit", json!({"amount": {"max": most, "currency": "USD"}}));
    assert!(holds(&[limit("5")], limit("6")) && !holds(&[limit("6")], limit("5")));
    assert!(holds(&[], of("notify", json!({"channel": "alerts", "message": "x"}))));
}
