//! The JSON Schemas of the configuration files, made from the same types that read them.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// The schema of `T`'s file: JSON Schema 2020-12, with the address it is published under.
pub(crate) fn of<T: JsonSchema>(id: &str) -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut value = schema.to_value();
    if let Some(members) = value.as_object_mut() {
        members.insert("$id".to_owned(), id.into());
    }
    value
}
