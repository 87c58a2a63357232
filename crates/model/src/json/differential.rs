//! Our reader beside another one that is as strict: what one takes the other takes, and reads the same.

use proptest::prelude::*;
use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings, ValueType};

use super::*;

/// What the other reader makes of `bytes`, held to the same bounds; `None` where it refuses them.
fn other(bytes: &[u8]) -> Option<Json> {
    let settings = ReaderSettings {
        max_nesting_depth: Some(MAX_DEPTH),
        track_path: false,
        restrict_number_values: true,
        ..ReaderSettings::default()
    };
    let mut reader = JsonStreamReader::new_custom(bytes, settings);
    let value = value(&mut reader).ok()?;
    reader.consume_trailing_whitespace().ok()?;
    bounded(&value).then_some(value)
}

fn value(reader: &mut JsonStreamReader<&[u8]>) -> Result<Json, ReaderError> {
    Ok(match reader.peek()? {
        ValueType::Null => {
            reader.next_null()?;
            Json::Null
        }
        ValueType::Boolean => Json::Bool(reader.next_bool()?),
        ValueType::Number => Json::Number(reader.next_number_as_string()?),
        ValueType::String => Json::Text(reader.next_string()?),
        ValueType::Array => {
            let mut items = Vec::new();
            reader.begin_array()?;
            while reader.has_next()? {
                items.push(value(reader)?);
            }
            reader.end_array()?;
            Json::Array(items)
        }
        ValueType::Object => {
            let mut members = Vec::new();
            reader.begin_object()?;
            while reader.has_next()? {
                members.push((reader.next_name_owned()?, value(reader)?));
            }
            reader.end_object()?;
            Json::Object(members)
        }
    })
}

/// What the other reader does not look at.
fn bounded(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(_) | Json::Text(_) => true,
        Json::Number(text) => text.len() <= MAX_NUMBER_CHARACTERS,
        Json::Array(items) => items.iter().all(bounded),
        Json::Object(members) => {
            let names: std::collections::BTreeSet<_> = members.iter().map(|(name, _)| name).collect();
            names.len() == members.len()
                && members.iter().all(|(name, value)| !name.starts_with("$serde_json::") && bounded(value))
        }
    }
}

fn same(bytes: &[u8]) {
    let (ours, theirs) = (Json::parse(bytes), other(bytes));
    assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{:?}: {ours:?}", String::from_utf8_lossy(bytes));
}

/// Pieces of which documents are made, and of which nearly documents are.
const PIECES: [&str; 54] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    " ",
    "\n",
    "\t",
    "\r",
    "\u{b}",
    "\u{a0}",
    "\u{feff}",
    "/",
    "//",
    "/*",
    "*/",
    "\\",
    "\\u",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\ude00",
    "\\u+123",
    "\\u12",
    "\\n",
    "\\/",
    "\\x",
    "\\'",
    "\u{1}",
    "\u{7f}",
    "é",
    "😀",
    "null",
    "true",
    "false",
    "nul",
    "NaN",
    "0",
    "1",
    "-",
    "-0",
    "01",
    "1.",
    ".5",
    "1.50",
    "1e5",
    "1e+05",
    "1E-99",
    "1e100",
    "1e0001",
    "a",
    "'",
];

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => prop::sample::select(&PIECES[..]).prop_map(|piece| piece.as_bytes().to_vec()),
        2 => "\"[a-c]{0,2}\"(:[0-9])?,?".prop_map(String::into_bytes),
        1 => "-?[0-9]{1,45}([.][0-9]{1,4})?([eE][-+]?[0-9]{1,4})?".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ]
}

/// Documents that are right, or nearly: strings and names of any characters, escaped or not.
fn document() -> impl Strategy<Value = String> {
    let quoted = prop_oneof![
        3 => "[a-c]{0,2}".prop_map(|text| format!("\"{text}\"")),
        2 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => "([a-z]|\\\\[\"\\\\/bfnrtx]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude0[0-9]){0,6}".prop_map(|text| format!("\"{text}\"")),
    ];
    let number = "-?(0|[1-9][0-9]{0,20})([.][0-9]{1,3})?([eE][-+]?[0-9]{1,3})?";
    let words = prop::sample::select(&["null", "true", "false"][..]).prop_map(str::to_owned);
    let leaf = prop_oneof![words, number.prop_map(|text| text), quoted.clone()];
    leaf.prop_recursive(5, 60, 20, move |inner| {
        let member = (quoted.clone(), inner.clone()).prop_map(|(name, value)| format!("{name} :{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(member, 0..22).prop_map(|members| format!("{{ {}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn pieces_of_documents_in_any_order_are_read_as_another_strict_reader_does(pieces in prop::collection::vec(piece(), 0..14)) {
        same(&pieces.concat());
    }

    #[test]
    fn documents_are_read_as_another_strict_reader_does(text in document()) {
        same(text.as_bytes());
    }

    #[test]
    fn a_document_with_one_byte_changed_is_read_as_another_strict_reader_does(text in document(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        same(&bytes);
        bytes.truncate(at);
        same(&bytes);
    }
}

#[test]
fn depth_and_length_end_where_the_other_reader_ends() {
    for depth in [31, 32, 33] {
        same([b"[".repeat(depth), b"]".repeat(depth)].concat().as_slice());
        same([br#"{"a":"#.repeat(depth), b"1".to_vec(), b"}".repeat(depth)].concat().as_slice());
    }
    for digits in [39, 40, 41, 99, 101] {
        same(&b"1".repeat(digits));
    }
    for members in [15, 16, 17, 40] {
        let distinct: Vec<String> = (0..members).map(|number| format!("\"{number}\":1")).collect();
        same(format!("{{{}}}", distinct.join(",")).as_bytes());
        same(format!("{{{},{}}}", distinct.join(","), distinct[3]).as_bytes());
    }
    for text in
        ["", " ", "\"", "{", "[", "[1", "{\"a\"", "{\"a\":", "tru", "truey", "1x", "1 2", "[1]]", "{}{}", "-", "\"\\u"]
    {
        same(text.as_bytes());
    }
}
