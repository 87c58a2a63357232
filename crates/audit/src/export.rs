//! Records as other systems read events: pure mappings, one file a format. What is exported is a copy; the ledger stays
//! the record, and nothing that was erased comes back.

mod ocsf;
mod opa;
mod otlp;

use serde_json::{Map, Value};

use crate::read::Entry;

/// What events are written as, one JSON object each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OTLP log events, as the OpenTelemetry Collector's `otlpjsonfile` receiver reads them.
    Otlp,
    /// OCSF API Activity (6003).
    Ocsf,
    /// OPA's decision log.
    Opa,
}

/// What belongs to a record and stands in others, or is put together from them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The `token.seen` that a decision cites.
    pub token: Option<&'a Entry>,
    /// The policy input, where it can be put together again.
    pub input: Option<&'a Value>,
}

/// `entry` as an event of `format`; `None` where the format has nothing for its kind.
pub fn event(format: Format, entry: &Entry, beside: Beside<'_>) -> Option<Value> {
    match format {
        Format::Otlp => Some(otlp::event(entry)),
        Format::Ocsf => ocsf::event(entry, beside),
        Format::Opa => opa::event(entry, beside),
    }
}

/// An object that is put together member by member; what is not there is left out.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(name, value),
            None => self,
        }
    }

    /// The same, where the object has any member.
    fn filled(self, name: &str, object: Self) -> Self {
        if object.0.is_empty() { self } else { self.put(name, object) }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

fn member(entry: &Entry, name: &str) -> Option<Value> {
    entry.fields.get(name).cloned()
}
