//! Documents in any pieces, against a reader of the whole; and every trick by which a value could be read at a place where
//! none was seen.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn places(pointers: &[&str]) -> Arc<Places> {
    let pointers: Vec<Pointer> = pointers.iter().map(|pointer| pointer.parse().unwrap()).collect();
    Arc::new(Places::new(&pointers))
}

/// `text` in pieces of at most `size` bytes.
fn redacted_in(pointers: &[&str], text: &[u8], size: usize) -> Result<(Vec<u8>, u64), Unreadable> {
    let mut redactor = Redactor::new(places(pointers));
    let mut shown = Vec::new();
    for chunk in text.chunks(size.max(1)) {
        shown.extend_from_slice(&redactor.take(Bytes::copy_from_slice(chunk))?);
    }
    redactor.finish()?;
    Ok((shown, redactor.hidden()))
}

#[track_caller]
fn redacted(pointers: &[&str], text: &str) -> String {
    let whole = redacted_in(pointers, text.as_bytes(), usize::MAX).unwrap();
    for size in 1..8 {
        assert_eq!(redacted_in(pointers, text.as_bytes(), size).unwrap(), whole, "in pieces of {size}");
    }
    String::from_utf8(whole.0).unwrap()
}

#[test]
fn only_what_is_at_a_place_is_hidden_and_every_other_byte_is_as_it_came() {
    for (pointers, text, shown) in [
        (&["/email"][..], r#"{ "id" : 17 ,"email":"a@b.c", "x":1e5 }"#, r#"{ "id" : 17 ,"email":null, "x":1e5 }"#),
        (&["/a/b"], r#"{"a":{"b":{"deep":[1,{"b":2}]},"c":3},"b":4}"#, r#"{"a":{"b":null,"c":3},"b":4}"#),
        (
            &["/items/*/card"],
            r#"{"items":[{"card":1},{"card":[2]},3],"card":4}"#,
            r#"{"items":[{"card":null},{"card":null},3],"card":4}"#,
        ),
        (&["/items/1"], "{\"items\":[1,2,3]}", "{\"items\":[1,null,3]}"),
        (&["/items/1"], "{\"items\":{\"1\":5,\"01\":6}}", "{\"items\":{\"1\":null,\"01\":6}}"),
        (&["/items/01"], "{\"items\":[1,2]}", "{\"items\":[1,2]}"),
        (&["/*"], "[1 , -2.5e+3\t,\"x\",true ]", "[null , null\t,null,null ]"),
        (&["/a", "/a/b"], r#"{"a":{"b":1}}"#, r#"{"a":null}"#),
        (&["/a~1b", "/c~0d", "/"], r#"{"a/b":1,"c~d":2,"":3,"a":4}"#, r#"{"a/b":null,"c~d":null,"":null,"a":4}"#),
        (&["/a"], "17", "17"),
        (&["/a"], "", ""),
        (&["/0"], "[17]\n", "[null]\n"),
        (&["/a"], r#"{"a":null,"b":false}"#, r#"{"a":null,"b":false}"#),
    ] {
        assert_eq!(redacted(pointers, text), shown, "{pointers:?} {text}");
    }
}

#[test]
fn a_name_is_compared_as_it_is_read_however_it_is_written() {
    for name in [r"email", r"\u0065mail", r"\u0065\u006d\u0061\u0069\u006C", r"emai\u006c"] {
        assert_eq!(redacted(&["/email"], &format!(r#"{{"{name}":"x"}}"#)), format!(r#"{{"{name}":null}}"#));
    }
    // Given twice, each is hidden: one reader takes the first, another the last.
    assert_eq!(redacted(&["/e"], r#"{"e":1,"e":{"f":2},"\u0065":3}"#), r#"{"e":null,"e":null,"\u0065":null}"#);
    assert_eq!(
        redacted(&["/é😀"], r#"{"é😀":1,"\u00e9\ud83d\ude00":2,"\u00E9\uD83D":3}"#),
        r#"{"é😀":null,"\u00e9\ud83d\ude00":null,"\u00E9\uD83D":3}"#
    );
    assert_eq!(redacted(&["/a\"b\\"], r#"{"a\"b\\":1,"a\/b":2}"#), r#"{"a\"b\\":null,"a\/b":2}"#);
    assert_eq!(redacted(&["/\u{FFFD}x"], r#"{"\ud800x":1,"\udc00x":2}"#), r#"{"\ud800x":null,"\udc00x":null}"#);
    let long = "e".repeat(100_000);
    assert_eq!(redacted(&["/e"], &format!(r#"{{"{long}":1}}"#)), format!(r#"{{"{long}":1}}"#));
}

#[test]
fn what_is_not_json_is_not_shown() {
    for text in [
        "{",
        "[1,2",
        "{\"a\"",
        "\"a",
        "tru",
        "-",
        "1.",
        "1e",
        "{'email':1}",
        "{email:1}",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "{,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[1 2]",
        "{\"a\":1]",
        "[1}",
        "}",
        "]",
        ",",
        "01",
        "+1",
        ".5",
        "1.e5",
        "NaN",
        "Infinity",
        "nul",
        "nulll",
        "truefalse",
        "1 2",
        "{} {}",
        "{}x",
        "// x\n{}",
        "/* */{}",
        "{\"a\":1}{\"email\":2}",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\0\"",
        "{\"a\":\u{a0}1}",
        "\u{feff}{}",
        "0x10",
        "1_000",
        "\"\\u{65}\"",
        "--1",
        "{\"a\"::1}",
    ] {
        for size in [1, 3, usize::MAX] {
            assert!(redacted_in(&["/email"], text.as_bytes(), size).is_err(), "{text:?}");
        }
    }
    // Bytes that a careless reader takes for other characters: longer forms than needed, halves, past the last, no UTF-8.
    for bytes in [
        &b"{\"\xC1\xA5mail\":1}"[..],
        b"\"\xE0\x80\xA5\"",
        b"\"\xED\xA0\x80\"",
        b"\"\xF4\x90\x80\x80\"",
        b"\"\x80\"",
        b"\"\xFF\"",
        b"\"\xE2\x82\"",
        b"\xFE\xFF\0{\0}",
        b"{\0}\0",
    ] {
        assert!(redacted_in(&["/email"], bytes, 1).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_document_may_be_so_deep_and_no_deeper() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(redacted(&["/a"], &nested(MAX_DEPTH)), nested(MAX_DEPTH));
    assert_eq!(redacted_in(&["/a"], nested(MAX_DEPTH + 1).as_bytes(), 9), Err(Unreadable::TooDeep));
    // Inside of what is hidden too: nothing grows with what nobody is shown.
    let hidden = format!("{{\"a\":{}}}", nested(MAX_DEPTH + 1));
    assert_eq!(redacted_in(&["/a"], hidden.as_bytes(), 9), Err(Unreadable::TooDeep));
}

#[test]
fn what_was_found_is_counted_by_place() {
    let mut redactor = Redactor::new(places(&["/a/*", "/a/x", "/none"]));
    redactor.take(Bytes::from_static(br#"{"a":{"x":1,"y":2}}"#)).unwrap();
    let found: Vec<_> = redactor.found().map(|(pointer, count)| (pointer.as_str().to_owned(), count)).collect();
    assert_eq!((redactor.hidden(), found), (2, vec![("/a/*".to_owned(), 2), ("/a/x".to_owned(), 1)]));
}

/// Writes documents in whatever way JSON may be written, as they are and as they should be shown.
struct Writer<'a> {
    places: &'a [Vec<Option<String>>],
    chance: u64,
    text: String,
    shown: String,
}

impl Writer<'_> {
    fn below(&mut self, most: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % most
    }

    fn put(&mut self, text: &str, hidden: bool) {
        self.text.push_str(text);
        if !hidden {
            self.shown.push_str(text);
        }
    }

    fn space(&mut self, hidden: bool) {
        let space = [" ", "\n", "\t \r", "", "", ""][usize::try_from(self.below(6)).unwrap()];
        self.put(space, hidden);
    }

    fn string(&mut self, text: &str, hidden: bool) {
        self.put("\"", hidden);
        for character in text.chars() {
            if self.below(3) == 0 || matches!(character, '"' | '\\' | '\0'..='\x1f') {
                let mut units = [0; 2];
                let units: String =
                    character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect();
                self.put(&units, hidden);
            } else {
                self.put(&character.to_string(), hidden);
            }
        }
        self.put("\"", hidden);
    }

    fn value(&mut self, value: &Value, path: &mut Vec<String>, hidden: bool) {
        let is_place = |place: &Vec<Option<String>>| {
            place.len() == path.len()
                && place.iter().zip(path.iter()).all(|(step, at)| step.as_ref().is_none_or(|step| step == at))
        };
        let here = !path.is_empty() && self.places.iter().any(is_place);
        if here && !hidden {
            self.shown.push_str("null");
        }
        let hidden = hidden || here;
        match value {
            Value::Array(items) => {
                self.put("[", hidden);
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.put(",", hidden);
                    }
                    self.space(hidden);
                    path.push(at.to_string());
                    self.value(item, path, hidden);
                    path.pop();
                    self.space(hidden);
                }
                self.put("]", hidden);
            }
            Value::Object(members) => {
                self.put("{", hidden);
                self.space(hidden);
                for (at, (name, member)) in members.iter().enumerate() {
                    if at > 0 {
                        self.put(",", hidden);
                    }
                    self.space(hidden);
                    self.string(name, hidden);
                    self.space(hidden);
                    self.put(":", hidden);
                    self.space(hidden);
                    path.push(name.clone());
                    self.value(member, path, hidden);
                    path.pop();
                    self.space(hidden);
                }
                self.put("}", hidden);
            }
            Value::String(text) => self.string(text, hidden),
            other => self.put(&other.to_string(), hidden),
        }
    }
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("0".to_owned()),
        Just("é😀".to_owned()),
        any::<String>()
    ]
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(names(), inner, 0..5).prop_map(|members| json!(members)),
        ]
    })
}

fn steps() -> impl Strategy<Value = Vec<Option<String>>> {
    prop::collection::vec(prop_oneof![Just(None), names().prop_map(Some)], 1..4)
}

/// `*` by itself is every step, whatever it was meant for.
fn pointer(steps: &[Option<String>]) -> String {
    let step = |step: &Option<String>| match step {
        None => "/*".to_owned(),
        Some(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
    };
    steps.iter().map(step).collect()
}

proptest! {
    #[test]
    fn any_document_in_any_pieces_is_shown_without_what_is_at_the_places(
        document in documents(),
        steps in prop::collection::vec(steps(), 1..4),
        chance in any::<u64>(),
        size in 1..40_usize,
    ) {
        let steps: Vec<_> = steps.into_iter().filter(|steps| !steps.iter().flatten().any(|name| name == "*")).collect();
        let pointers: Vec<String> = steps.iter().map(|steps| pointer(steps)).filter(|text| text.len() <= 500).collect();
        prop_assume!(pointers.len() == steps.len() && !pointers.is_empty());
        let mut writer = Writer { places: &steps, chance, text: String::new(), shown: String::new() };
        writer.value(&document, &mut Vec::new(), false);
        let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
        let (shown, _) = redacted_in(&pointers, writer.text.as_bytes(), size).unwrap();
        prop_assert_eq!(String::from_utf8(shown).unwrap(), writer.shown);
        prop_assert_eq!(&serde_json::from_str::<Value>(&writer.text).unwrap(), &document);
    }

    /// What passes is what another reader takes too; what that reader refuses does not pass.
    #[test]
    fn nothing_is_taken_for_json_that_another_reader_refuses(bytes in prop::collection::vec(any::<u8>(), 0..40), size in 1..9_usize) {
        if redacted_in(&["/a"], &bytes, size).is_ok() && !bytes.iter().all(u8::is_ascii_whitespace) {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok(), "{:?}", bytes);
        }
    }

    #[test]
    fn the_same_of_text_that_is_nearly_json(text in r#"[\[\]{},:" \\u0-9ae.+tn-]{0,30}"#, size in 1..9_usize) {
        let ours = redacted_in(&["/a", "/*/*"], text.as_bytes(), size).is_ok();
        let theirs = text.trim().is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }
}
