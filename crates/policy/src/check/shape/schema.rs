//! From the generated JSON Schema of an input to what is known of it. Only what those schemas use is read; anything else
//! is not known.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use serde_json::Value;

use super::{Kinds, Known, Members, Names, Shape, Text};

/// The deepest a schema is followed.
const MAX_DEPTH: usize = 32;

/// What `schema` says of `input`.
pub(super) fn input(schema: &Value) -> Shape {
    let reader = Reader { definitions: schema.get("$defs") };
    reader.shape(schema, 0).placed("input")
}

struct Reader<'a> {
    definitions: Option<&'a Value>,
}

impl Reader<'_> {
    fn shape(&self, schema: &Value, depth: usize) -> Shape {
        if depth > MAX_DEPTH {
            return Shape::Any;
        }
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/")) {
            let defined = self.definitions.and_then(|definitions| definitions.get(name));
            return defined.map_or(Shape::Any, |defined| self.shape(defined, depth + 1));
        }
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
            let shapes = choices.iter().map(|choice| self.shape(choice, depth + 1));
            return shapes.reduce(Shape::or).unwrap_or(Shape::Any);
        }
        if let Some(text) = schema.get("const").and_then(Value::as_str) {
            return one_of([text]);
        }
        if let Some(texts) = schema.get("enum").and_then(Value::as_array) {
            return one_of(texts.iter().filter_map(Value::as_str));
        }
        let Some(kinds) = schema.get("type").and_then(kinds) else { return Shape::Any };
        let members = self.members(schema, depth);
        let items = schema.get("items").map_or(Shape::Any, |items| self.shape(items, depth + 1));
        Shape::from(Known { kinds, at: None, members, items, text: Text::Free })
    }

    fn members(&self, schema: &Value, depth: usize) -> Members {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let mut members: BTreeMap<String, Shape> =
                properties.iter().map(|(name, schema)| (name.clone(), self.shape(schema, depth + 1))).collect();
            texts(&mut members);
            return Members::Closed(members);
        }
        match schema.get("additionalProperties") {
            Some(each @ Value::Object(_)) => Members::Open(self.shape(each, depth + 1)),
            _ => Members::Unknown,
        }
    }
}

/// Texts beside the exact value of what they say: `text` beside `minor`, `unscaled` or `ns`, and `expires_at` beside
/// `expires_at_ns`.
fn texts(members: &mut BTreeMap<String, Shape>) {
    let has = |name: &str| members.contains_key(name);
    let number = has("minor") || has("unscaled");
    let times: Vec<String> = members.keys().filter(|name| has(&format!("{name}_ns"))).cloned().collect();
    let time = has("ns");
    let mut set = |name: &str, text: Text| {
        if let Some(shape) = members.get_mut(name) {
            *shape = std::mem::replace(shape, Shape::Any).changed(|known| known.text = text);
        }
    };
    if number {
        set("text", Text::Number);
    } else if time {
        set("text", Text::Time);
    }
    for name in times {
        set(&name, Text::Time);
    }
}

fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Shape {
    let all: BTreeSet<String> = texts.into_iter().map(str::to_owned).collect();
    Shape::text(Text::OneOf(Names { what: "value", all: Rc::new(all) }))
}

fn kinds(written: &Value) -> Option<Kinds> {
    let one = |name: &Value| {
        Some(match name.as_str()? {
            "null" => Kinds::NULL,
            "boolean" => Kinds::BOOLEAN,
            "integer" | "number" => Kinds::NUMBER,
            "string" => Kinds::STRING,
            "array" => Kinds::ARRAY,
            "object" => Kinds::OBJECT,
            _ => return None,
        })
    };
    match written {
        Value::Array(names) => names.iter().try_fold(Kinds::NONE, |all, name| Some(all.or(one(name)?))),
        name => one(name),
    }
}
