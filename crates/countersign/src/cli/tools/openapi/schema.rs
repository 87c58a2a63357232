//! What a schema says a value is, in the few kinds that a catalogue knows. What has no kind says why.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::Value;

use super::Document;

/// How many schemas, and members of theirs, are looked at for one operation: references may make a small document a
/// large one.
const MOST_STEPS: usize = 50_000;
/// And for all operations together, which may share one large schema.
const MOST_STEPS_OF_ALL: usize = 100_000_000;
/// What of a schema is gone through one by one.
const LISTS: [&str; 6] = ["properties", "required", "enum", "allOf", "oneOf", "anyOf"];
/// How deep schemas are put together of others.
const MOST_DEPTH: usize = 24;

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape<'a> {
    /// Text.
    Text,
    /// The name of something.
    Id,
    /// An RFC 3339 time.
    Time,
    /// A whole number.
    Integer,
    /// A number with fraction digits: how many, where that is said.
    Number(Option<u32>),
    /// An array of strings.
    Set,
    /// Members.
    Object(Members<'a>),
    /// Nothing that a parameter can be.
    Other(Why),
}

/// Why a value has no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Boolean,
    Array,
    Repeated,
    Deep,
    Binary,
    Forms,
    Untyped,
    Reference,
    Size,
}

/// The members of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Members<'a> {
    /// By name.
    pub(crate) declared: BTreeMap<&'a str, &'a Value>,
    /// Those that have to be there.
    pub(crate) required: BTreeSet<&'a str>,
    /// Whether it says that there may be others.
    pub(crate) open: bool,
}

/// A value, described.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described<'a> {
    pub(crate) shape: Shape<'a>,
    /// Whether it may be null.
    pub(crate) nullable: bool,
    /// Whether it is for answers only.
    pub(crate) read_only: bool,
    /// Whether it is a URL, by its format.
    pub(crate) url: bool,
}

/// Reads schemas, within bounds.
#[derive(Debug)]
pub(crate) struct Schemas<'a> {
    document: &'a Document,
    steps: Cell<usize>,
}

/// What schemas that are put together say.
#[derive(Debug, Default)]
struct Flat<'a> {
    types: BTreeSet<&'a str>,
    format: Option<&'a str>,
    members: Members<'a>,
    items: Option<&'a Value>,
    multiple: Option<String>,
    nullable: bool,
    read_only: bool,
    forms: Vec<&'a Value>,
    why: Option<Why>,
}

impl Why {
    /// In words that follow the name of a parameter.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "a boolean, which no parameter is",
            Self::Array => "an array of something else than strings",
            Self::Repeated => "an array beside the body, where no set is read",
            Self::Deep => "an object that is open, empty or too deep in the body",
            Self::Binary => "binary",
            Self::Forms => "of several forms",
            Self::Untyped => "of no type",
            Self::Reference => "described somewhere that cannot be read",
            Self::Size => "described at too great a length",
        }
    }
}

impl<'a> Schemas<'a> {
    pub(crate) const fn new(document: &'a Document) -> Self {
        Self { document, steps: Cell::new(0) }
    }

    /// What a value of `schema` is; its name says whether it is the name of something.
    pub(crate) fn describe(&self, name: &str, schema: &'a Value) -> Described<'a> {
        self.described(name, schema, 0)
    }

    /// What an array of `schema` holds.
    pub(crate) fn items(&self, schema: &'a Value) -> Option<&'a Value> {
        let mut flat = Flat::default();
        self.gather(schema, &mut flat, 0);
        flat.items
    }

    fn described(&self, name: &str, schema: &'a Value, depth: usize) -> Described<'a> {
        let mut flat = Flat::default();
        self.gather(schema, &mut flat, depth);
        let nullable = flat.nullable || flat.types.remove("null");
        let read_only = flat.read_only;
        let url = matches!(flat.format, Some("uri" | "url" | "uri-reference" | "iri"));
        Described { shape: self.shape(name, flat, depth), nullable, read_only, url }
    }

    /// Whether there is still room to look at `schema`.
    fn affords(&self, schema: &Value) -> bool {
        if self.steps.get() > MOST_STEPS || self.document.steps.get() > MOST_STEPS_OF_ALL {
            return false;
        }
        let length = |name: &&str| match schema.get(*name) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(members)) => members.len(),
            _ => 0,
        };
        let cost = LISTS.iter().map(length).sum::<usize>() + 1;
        self.steps.set(self.steps.get() + cost);
        self.document.steps.set(self.document.steps.get() + cost);
        self.steps.get() <= MOST_STEPS
    }

    fn gather(&self, schema: &'a Value, flat: &mut Flat<'a>, depth: usize) {
        let Ok(schema) = self.document.resolve(schema) else {
            flat.why = Some(Why::Reference);
            return;
        };
        if depth > MOST_DEPTH || !self.affords(schema) {
            flat.why = Some(Why::Size);
            return;
        }
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool) == Some(true);
        match schema.get("type") {
            Some(Value::String(kind)) => drop(flat.types.insert(kind)),
            Some(Value::Array(kinds)) => flat.types.extend(kinds.iter().filter_map(Value::as_str)),
            _ => {}
        }
        flat.nullable |= flag("nullable");
        flat.read_only |= flag("readOnly");
        flat.format = schema.get("format").and_then(Value::as_str).or(flat.format);
        flat.items = schema.get("items").or(flat.items);
        flat.multiple = schema.get("multipleOf").map(ToString::to_string).or_else(|| flat.multiple.take());
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        flat.members.declared.extend(properties.map(|(name, value)| (name.as_str(), value)));
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        flat.members.required.extend(required.filter_map(Value::as_str));
        flat.members.open |= schema.get("additionalProperties").is_some_and(|open| open.is_object() || *open == true);
        if flat.types.is_empty() {
            let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
            let mut values = values.peekable();
            if values.peek().is_some() && values.all(Value::is_string) {
                flat.types.insert("string");
            }
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.gather(part, flat, depth + 1);
        }
        let forms = ["oneOf", "anyOf"].into_iter().filter_map(|name| schema.get(name)?.as_array()).flatten();
        self.forms(forms.collect(), flat, depth);
    }

    /// Takes the one form that is left without null, and keeps several for later.
    fn forms(&self, forms: Vec<&'a Value>, flat: &mut Flat<'a>, depth: usize) {
        let null = |form: &&Value| form.get("type").and_then(Value::as_str) == Some("null");
        flat.nullable |= forms.iter().any(null);
        // Forms that only say which members have to be there together change no kind.
        let says_more = |form: &&Value| form.as_object().is_some_and(|form| form.keys().any(|key| key != "required"));
        let forms: Vec<&Value> = forms.into_iter().filter(|form| !null(form) && says_more(form)).collect();
        match forms.as_slice() {
            [] => {}
            [one] => self.gather(one, flat, depth + 1),
            _ => flat.forms.extend(forms),
        }
    }

    fn shape(&self, name: &str, flat: Flat<'a>, depth: usize) -> Shape<'a> {
        if let Some(why) = flat.why {
            return Shape::Other(why);
        }
        if !flat.forms.is_empty() {
            return self.common(name, &flat, depth);
        }
        let object = !flat.members.declared.is_empty() || flat.members.open;
        let kinds: Vec<&str> = flat.types.iter().copied().collect();
        match kinds.as_slice() {
            ["string"] => text(name, flat.format),
            ["integer"] if is_name(name) => Shape::Id,
            ["integer"] => Shape::Integer,
            ["number"] | ["integer", "number"] => Shape::Number(flat.multiple.as_deref().and_then(scale)),
            ["boolean"] => Shape::Other(Why::Boolean),
            ["array"] => self.array(flat.items, depth),
            ["object"] => Shape::Object(flat.members),
            ["integer", "string"] => Shape::Id,
            [] if object => Shape::Object(flat.members),
            [] if flat.items.is_some() => self.array(flat.items, depth),
            [] => Shape::Other(Why::Untyped),
            _ => Shape::Other(Why::Forms),
        }
    }

    fn array(&self, items: Option<&'a Value>, depth: usize) -> Shape<'a> {
        let items = items.map(|items| self.described("", items, depth + 1).shape);
        if matches!(items, Some(Shape::Text | Shape::Id | Shape::Time)) { Shape::Set } else { Shape::Other(Why::Array) }
    }

    /// What all forms are, where that is one thing.
    fn common(&self, name: &str, flat: &Flat<'a>, depth: usize) -> Shape<'a> {
        let mut shapes: Vec<Shape<'a>> = Vec::new();
        for form in &flat.forms {
            let shape = self.described(name, form, depth + 1).shape;
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        match shapes.as_slice() {
            [one] => one.clone(),
            // A name may be counted or spelt.
            [Shape::Text | Shape::Id, Shape::Integer | Shape::Id]
            | [Shape::Integer | Shape::Id, Shape::Text | Shape::Id] => Shape::Id,
            _ => Shape::Other(Why::Forms),
        }
    }
}

fn text<'a>(name: &str, format: Option<&str>) -> Shape<'a> {
    match format {
        Some("date-time") => Shape::Time,
        Some("binary" | "byte" | "base64") => Shape::Other(Why::Binary),
        Some("uuid" | "ulid") => Shape::Id,
        _ if is_name(name) => Shape::Id,
        _ => Shape::Text,
    }
}

/// Whether something called so is the name of something: `id`, `order_id`, `orderId`.
fn is_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(lower.as_str(), "id" | "uuid")
        || lower.ends_with("_id")
        || lower.ends_with("-id")
        || name.ends_with("Id")
        || name.ends_with("ID")
}

/// How many fraction digits a multiple of `text` has: 0.01 has two.
fn scale(text: &str) -> Option<u32> {
    let digits = match text.split_once('.') {
        Some((_, fraction)) => u32::try_from(fraction.trim_end_matches('0').len()).ok()?,
        None => 0,
    };
    (!text.contains(['e', 'E']) && digits <= 12).then_some(digits)
}
