//! JSON: what our parser takes, every other takes too, and reads the same.

use model::json::Json;
use serde_json::Value;

/// Parsing never panics; a value that is taken is what serde_json reads, member for member.
pub(super) fn json(bytes: &[u8]) {
    let Ok(json) = Json::parse(bytes) else { return };
    let other: Value = serde_json::from_slice(bytes).expect("what is JSON here is JSON to others");
    same(&json, &other);
    if let Json::Object(members) = &json {
        for (name, value) in members {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            assert_eq!(json.pointer(&pointer), Some(value), "{pointer}");
        }
    }
    let written = json.to_serde().to_string();
    Json::parse(written.as_bytes()).expect("what was read can be written and read again");
}

fn same(json: &Json, other: &Value) {
    match (json, other) {
        (Json::Null, Value::Null) => {}
        (Json::Bool(a), Value::Bool(b)) => assert_eq!(a, b),
        (Json::Text(a), Value::String(b)) => assert_eq!(a, b),
        (Json::Number(text), Value::Number(number)) => {
            let (a, b) = (text.parse::<f64>().unwrap(), number.as_f64().unwrap());
            // The other reader may be off by the last bit of a float.
            assert!((a - b).abs() <= a.abs() * 1e-15, "{text} and {number}");
            if let (Ok(a), Some(b)) = (text.parse::<i64>(), number.as_i64()) {
                assert_eq!(a, b);
            }
        }
        (Json::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| same(a, b));
        }
        // The other keeps the last of two members: as many members means that none was given twice.
        (Json::Object(a), Value::Object(b)) => {
            assert_eq!(a.len(), b.len(), "a member twice");
            a.iter().for_each(|(name, value)| same(value, b.get(name).expect("the same members")));
        }
        other => panic!("two readings: {other:?}"),
    }
}
