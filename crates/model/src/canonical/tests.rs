//! The form, against its standard's own example and against sorting after the fact.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn exact(value: &impl Serialize) -> Result<String, Unwritable> {
    let mut out = Vec::new();
    write(value, Form::Exact, &mut out).map(|()| String::from_utf8(out).unwrap())
}

#[test]
fn members_are_sorted_by_utf16_units_and_strings_escaped_minimally() {
    // RFC 8785 §3.2.3, without its float.
    let value = json!({"\u{20ac}": "Euro", "\r": "CR", "\u{fb33}": "Dalet", "1": 1, "\u{1f600}": "Smile", "\u{80}": "Control", "\u{f6}": "o"});
    let expected = "{\"\\r\":\"CR\",\"1\":1,\"\u{80}\":\"Control\",\"\u{f6}\":\"o\",\"\u{20ac}\":\"Euro\",\"\u{1f600}\":\"Smile\",\"\u{fb33}\":\"Dalet\"}";
    assert_eq!(exact(&value).unwrap(), expected);
    let strings = json!("\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}\"\\/\u{2028}é");
    assert_eq!(exact(&strings).unwrap(), "\"\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}\\\"\\\\/\u{2028}é\"");
}

#[test]
fn a_number_that_would_be_rounded_is_refused_wherever_it_stands() {
    for value in [json!(0.1), json!([9_007_199_254_740_992_u64]), json!({"a": {"b": -9_007_199_254_740_992_i64}})] {
        assert!(matches!(exact(&value), Err(Unwritable::Number(_))), "{value}");
    }
    assert_eq!(exact(&[MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER]).unwrap(), "[9007199254740991,-9007199254740991]");
    let mut wide = Vec::new();
    write(&[i64::MAX, i64::MIN], Form::Wide, &mut wide).unwrap();
    assert_eq!(wide, b"[9223372036854775807,-9223372036854775808]");
    assert!(write(&u64::MAX, Form::Wide, &mut wide).is_err());
}

#[test]
fn only_the_part_that_is_meant_is_taken_and_what_is_around_it_stays_an_object() {
    let mut part = Part::default();
    for path in [&["facts", "order", "status"][..], &["name"], &["absent", "deeper"], &["chain", "0"]] {
        part.add(&path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    }
    let value = json!({"name": {"b": 1, "a": 2}, "facts": {"order": {"status": "open", "by": "alice"}, "other": 1}, "absent": {}, "chain": [1, 2], "now": 3});
    let taken = |value: &Value, part: &Part| {
        let (mut out, mut taken) = (Vec::new(), Vec::new());
        write_taking(value, Form::Exact, &mut out, part, &mut taken).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), exact(value).unwrap());
        String::from_utf8(taken).unwrap()
    };
    let expected = r#"{,"absent":{},"chain":[1,2],"facts":{,"order":{,"status":"open"}},"name":{"a":2,"b":1}}"#;
    assert_eq!(taken(&value, &part), expected);
    assert_eq!(taken(&value, &crate::part::WHOLE), exact(&value).unwrap());
    // Where nothing is as it was looked for, what is there tells the values apart.
    let other = json!({"name": null, "facts": "none", "absent": {"deeper": 1}, "chain": {"0": 1, "1": 2}});
    let expected = r#"{,"absent":{,"deeper":1},"chain":{,"0":1},"facts":"none","name":null}"#;
    assert_eq!(taken(&other, &part), expected);
}

#[test]
fn two_members_of_one_name_are_refused() {
    #[derive(Serialize)]
    struct Twice {
        b: u8,
        #[serde(rename = "a")]
        first: u8,
        a: u8,
    }
    assert!(exact(&Twice { b: 0, first: 1, a: 2 }).is_err());
}

#[test]
fn only_text_names_a_member() {
    use std::collections::BTreeMap;
    assert!(exact(&BTreeMap::from([(1, 2)])).is_err());
    assert!(exact(&BTreeMap::from([(None::<String>, 2)])).is_err());
    assert!(exact(&BTreeMap::from([(vec!["a"], 2)])).is_err());
    assert_eq!(exact(&BTreeMap::from([(Some('a'), 2)])).unwrap(), "{\"a\":2}");
}

#[test]
fn wherever_in_a_text_a_byte_stands_that_is_escaped_it_is() {
    for length in 0..20 {
        for place in 0..length {
            for special in ['"', '\\', '\n', '\u{1f}', '\u{7f}', '\u{80}', 'é', ' ', '!', '#', '[', ']', '~'] {
                let text: String = (0..length).map(|at| if at == place { special } else { 'a' }).collect();
                assert_eq!(exact(&text).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_and_is_written_the_same_again(value in document()) {
        for form in [Form::Exact, Form::Wide] {
            let mut out = Vec::new();
            write(&value, form, &mut out).unwrap();
            let read: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&read, &value);
            let mut again = Vec::new();
            write(&read, form, &mut again).unwrap();
            prop_assert_eq!(&out, &again);
            if form == Form::Exact {
                // Another's implementation of the same standard.
                let theirs = serde_json_canonicalizer::to_vec(&value).unwrap();
                prop_assert_eq!(&out, &theirs);
            }
            if form == Form::Wide {
                // serde_json's own map is sorted by bytes.
                prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&value).unwrap());
            }
        }
    }
}
