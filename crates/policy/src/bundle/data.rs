//! Data documents: JSON or YAML that policies read under `data`, confined to their owner's root.

use std::path::Path as FilePath;

use model::json::Json;
use regorus::{
    Value,
    value::{Array, Object},
};

use super::{MAX_DATA_VALUES, unfit};
use serde::{Deserialize, Serialize};

use crate::{LoadError, roots::dotted};

/// A data document at its place under `data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Data {
    /// How errors name it.
    pub path: String,
    /// The document, from `data` down.
    document: Value,
}

impl Data {
    /// Reads the text of `path`, called `name`, in the directory `below`.
    pub(super) fn parse(path: &FilePath, name: &str, below: &[String], text: &str) -> Result<Self, LoadError> {
        if name.ends_with(".json") {
            return Self::of(path, below, &json(text.as_bytes()).map_err(|error| unfit(path, error))?);
        }
        let yaml: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| unfit(path, format!("not valid YAML: {error}")))?;
        Self::at_place(path, below, of_serde(&yaml))
    }

    /// The document `json`, which `path` holds, in the directory `below`.
    pub(super) fn of(path: &FilePath, below: &[String], json: &Json) -> Result<Self, LoadError> {
        Self::at_place(path, below, of_json(json))
    }

    fn at_place(path: &FilePath, below: &[String], value: Result<Value, String>) -> Result<Self, LoadError> {
        let value = value.map_err(|error| unfit(path, error))?;
        if !matches!(value, Value::Object(_)) {
            return Err(unfit(path, "a data document is an object"));
        }
        let document = below.iter().rev().fold(value, |inner, name| {
            let mut outer = Object::new();
            outer.insert(Value::from(name.as_str()), inner);
            outer.into_value()
        });
        Ok(Self { path: path.display().to_string(), document })
    }

    /// The document, from `data` down.
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }

    /// The first path at which the document holds something outside `root`, as people write it.
    pub(crate) fn outside(&self, root: &[String]) -> Option<String> {
        let mut value = &self.document;
        let mut path = vec!["data".to_owned()];
        for part in root {
            let Ok(members) = value.as_object() else { return Some(dotted(&path)) };
            if let Some(other) = members.keys_sorted().find(|name| !is_name(name, part)) {
                path.push(other.as_string().map_or_else(|_| other.to_string(), |name| name.to_string()));
                return Some(dotted(&path));
            }
            path.push(part.clone());
            value = members.get(&Value::from(part.as_str()))?;
        }
        (!matches!(value, Value::Object(_))).then(|| dotted(&path))
    }

    /// What the document says at `path`.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.document, |value, part| value.as_object().ok()?.get(&Value::from(part.as_str())))
    }
}

/// Reads a document of JSON, which may hold no more than a data document may.
pub(super) fn json(text: &[u8]) -> Result<Json, String> {
    if values(text) > MAX_DATA_VALUES {
        return Err(format!("more than {MAX_DATA_VALUES} names and values"));
    }
    Json::parse(text).map_err(|error| error.to_string())
}

fn is_name(value: &Value, name: &str) -> bool {
    value.as_string().is_ok_and(|text| **text == *name)
}

/// The most names and values that `text` can have as JSON, told before it is read: each takes many times its text. The
/// YAML parser has such a limit of its own.
fn values(text: &[u8]) -> usize {
    let mut within = false;
    let mut escaped = false;
    let mut count = 1;
    for &byte in text {
        match byte {
            b'"' if !escaped => within = !within,
            b',' | b':' | b'[' | b'{' if !within => count += 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    count
}

fn of_json(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(text) => of_number(text)?,
        Json::Text(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(of_json).collect::<Result<Array, _>>()?.into_value(),
        Json::Object(members) => {
            let mut object = Object::new();
            for (name, value) in members {
                object.insert(Value::from(name.as_str()), of_json(value)?);
            }
            object.into_value()
        }
    })
}

fn of_serde(value: &serde_json::Value) -> Result<Value, String> {
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => of_number(&number.to_string())?,
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(of_serde).collect::<Result<Array, _>>()?.into_value(),
        serde_json::Value::Object(members) => {
            let mut object = Object::new();
            for (name, value) in members {
                object.insert(Value::from(name.as_str()), of_serde(value)?);
            }
            object.into_value()
        }
    })
}

fn of_number(text: &str) -> Result<Value, String> {
    match text.parse::<i64>() {
        Ok(integer) => Ok(Value::from(integer)),
        Err(_) => Value::from_numeric_string(text).map_err(|_| format!("`{text}` is not a number the engine reads")),
    }
}
