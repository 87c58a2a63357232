//! Data documents: JSON or YAML that policies read under `data`, confined to their owner's root.

use std::{
    collections::BTreeMap,
    path::Path as FilePath,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::digest::{self, SHA256};
use model::json::Json;
use regorus::{
    Value,
    value::{Array, Object},
};

use super::{MAX_DATA_VALUES, unfit};
use serde::{Deserialize, Serialize};

use crate::{Known, LoadError, roots::dotted};

/// A data document at its place under `data`. It is shared, and not copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Data {
    /// How errors name it.
    pub path: String,
    /// The document, from `data` down.
    document: Value,
    /// What it was read from, where that is known: from the same it need not be read again.
    #[serde(skip)]
    read: Option<TextDigest>,
    /// The hash that a signature says of it, where one was verified.
    #[serde(skip)]
    hash: Option<String>,
    /// What it says.
    #[serde(skip)]
    digest: Arc<OnceLock<Digest>>,
}

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// What a document is read from: a digest over the place of its file in the source, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextDigest(Digest);

impl TextDigest {
    /// The `text` of the file that is called `name` in the directory `below`.
    pub(super) fn of(name: &str, below: &[String], text: &[u8]) -> Self {
        let mut sum = Sum::new();
        for part in below.iter().map(String::as_str).chain([name]) {
            sum.counted(b'/', part.as_bytes());
        }
        sum.counted(b'=', text);
        Self(sum.finish())
    }
}

/// A document of a signed bundle, as far as it was read to hash it.
pub(super) enum Hashed {
    /// From the same bytes it was read before.
    Before(Data),
    /// It was read now.
    Now { value: Result<Value, String>, read: TextDigest, hash: String },
}

impl Hashed {
    /// The document at its place.
    pub(super) fn data(&self, path: &FilePath, below: &[String]) -> Result<Data, LoadError> {
        match self {
            Self::Before(data) => Ok(data.called(path)),
            Self::Now { value, read, hash } => {
                let data = Data::at_place(path, below, value.clone(), *read)?;
                Ok(Data { hash: Some(hash.clone()), ..data })
            }
        }
    }
}

impl Data {
    /// Reads the `text` of `path`, called `name`, in the directory `below`, unless that was read before.
    pub(super) fn parse<T: AsRef<str>>(
        path: &FilePath,
        name: &str,
        below: &[String],
        text: T,
        known: &Known,
    ) -> Result<Self, LoadError> {
        let read = TextDigest::of(name, below, text.as_ref().as_bytes());
        if let Some(data) = known.document(read) {
            return Ok(data.called(path));
        }
        let value = if name.ends_with(".json") {
            let json = json(text.as_ref().as_bytes()).map_err(|error| unfit(path, error))?;
            // It may be large, and what is made of it is too.
            drop(text);
            of_json(json)
        } else {
            let yaml: serde_json::Value = serde_saphyr::from_str(text.as_ref())
                .map_err(|error| unfit(path, format!("not valid YAML: {error}")))?;
            drop(text);
            of_serde(&yaml)
        };
        Self::at_place(path, below, value, read)
    }

    fn at_place(
        path: &FilePath,
        below: &[String],
        value: Result<Value, String>,
        read: TextDigest,
    ) -> Result<Self, LoadError> {
        let value = value.map_err(|error| unfit(path, error))?;
        if !matches!(value, Value::Object(_)) {
            return Err(unfit(path, "a data document is an object"));
        }
        let document = below.iter().rev().fold(value, |inner, name| {
            let mut outer = Object::new();
            outer.insert(Value::from(name.as_str()), inner);
            outer.into_value()
        });
        Ok(Self { path: path.display().to_string(), document, read: Some(read), hash: None, digest: Arc::default() })
    }

    /// The same document, which errors name `path`.
    fn called(&self, path: &FilePath) -> Self {
        Self { path: path.display().to_string(), ..self.clone() }
    }

    /// Whether it was read from `read`.
    pub(crate) fn is_of(&self, read: TextDigest) -> bool {
        self.read == Some(read)
    }

    /// The hash that a signature said of it.
    pub(crate) fn hash(&self) -> Option<&str> {
        self.hash.as_deref()
    }

    /// A digest of what it says, wherever it was read from.
    pub(crate) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| {
            let mut sum = Sum::new();
            sum.value(&self.document);
            sum.finish()
        })
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

/// The value that `json` says. Each part of that is let go once it was read.
pub(super) fn of_json(json: Json) -> Result<Value, String> {
    Names::default().of_json(json)
}

/// Members' names that come again and again share their text: what many of a kind are called.
#[derive(Default)]
struct Names(BTreeMap<String, Value>);

/// So many names are looked for.
const MAX_NAMES: usize = 256;

impl Names {
    fn of_json(&mut self, json: Json) -> Result<Value, String> {
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(text) => of_number(&text)?,
            Json::Text(text) => Value::from(text.as_str()),
            Json::Array(items) => {
                let items: Result<Array, String> = items.into_iter().map(|item| self.of_json(item)).collect();
                items?.into_value()
            }
            Json::Object(members) => {
                let mut object = Object::new();
                for (name, value) in members {
                    object.insert(self.shared(name), self.of_json(value)?);
                }
                object.into_value()
            }
        })
    }

    fn shared(&mut self, name: String) -> Value {
        if let Some(known) = self.0.get(&name) {
            return known.clone();
        }
        let value = Value::from(name.as_str());
        if self.0.len() < MAX_NAMES {
            self.0.insert(name, value.clone());
        }
        value
    }
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

/// A digest that is taken part by part. Each part goes in with its kind and its length, so that no two values read as the
/// same bytes.
struct Sum {
    context: digest::Context,
    /// What is still to go in, as many small parts do.
    gathered: Vec<u8>,
}

/// What is gathered before it goes in, in bytes.
const GATHERED: usize = 16 * 1024;

impl Sum {
    fn new() -> Self {
        Self { context: digest::Context::new(&SHA256), gathered: Vec::with_capacity(GATHERED) }
    }

    fn counted(&mut self, kind: u8, bytes: &[u8]) {
        self.count(kind, bytes.len());
        if bytes.len() < GATHERED {
            self.gathered.extend_from_slice(bytes);
        } else {
            self.flush();
            self.context.update(bytes);
        }
    }

    fn count(&mut self, kind: u8, count: usize) {
        if self.gathered.len() >= GATHERED {
            self.flush();
        }
        self.gathered.push(kind);
        self.gathered.extend_from_slice(&u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.counted(b'"', text.as_bytes()),
            Value::Array(items) => {
                self.count(b'[', items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(members) => {
                self.count(b'{', members.len());
                for (name, value) in members.iter_sorted() {
                    self.value(name);
                    self.value(value);
                }
            }
            // Short, and each with a text of its own.
            other => self.counted(b'.', other.to_string().as_bytes()),
        }
    }

    fn flush(&mut self) {
        self.context.update(&self.gathered);
        self.gathered.clear();
    }

    fn finish(mut self) -> Digest {
        self.flush();
        let mut digest = Digest::default();
        digest.copy_from_slice(self.context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests;
