//! One sequence of bytes for one engine value: JSON, members sorted, nothing that two writers could write apart.

use regorus::Value;
use serde::{Serialize, Serializer, ser::Error};

use super::InvalidInput;

/// The canonical JSON of `value`.
pub(super) fn bytes(value: &Value) -> Result<Vec<u8>, InvalidInput> {
    serde_json::to_vec(&Canonical(value)).map_err(|error| InvalidInput(error.to_string()))
}

struct Canonical<'a>(&'a Value);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::String(text) => serializer.serialize_str(text),
            Value::Number(_) => match self.0.as_i64() {
                Ok(integer) => serializer.serialize_i64(integer),
                Err(_) => Err(S::Error::custom("a number that is not whole")),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Canonical)),
            Value::Object(members) => {
                serializer.collect_map(members.iter_sorted().map(|(name, value)| (Canonical(name), Canonical(value))))
            }
            Value::Set(_) | Value::Undefined => Err(S::Error::custom("a value that JSON does not have")),
        }
    }
}
