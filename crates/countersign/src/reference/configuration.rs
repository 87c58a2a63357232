//! The page of the configuration, from the schemas: one table an object, in the order in which a reader meets them.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use store::StoreFile;

use crate::config::{authority::AuthorityConfig, schema, sidecar::SidecarConfig};

pub(super) fn document() -> String {
    let mut text = format!(
        "{}# Configuration\n\nOne YAML file for a sidecar and one for the authority. Unknown keys are refused with their \
         line and column;\n`countersign config check FILE` says everything that is wrong with a file, its policy and \
         the files it names.\n\n\
         - `${{NAME}}` in text is the value of an environment variable, `$$` one dollar sign; a variable that is not \
         set is an error.\n  A value is text and nothing else: it cannot become YAML. Keys and numbers are not \
         expanded.\n\
         - Relative paths are taken from the file's directory.\n\
         - Secrets are never written here: `{{ file: PATH }}` or `{{ env: NAME }}` says where they are. A file with a \
         secret has to be\n  its owner's alone (mode 0600), and is read again when it changes.\n\
         - Durations are a whole number with its unit: `200ms`, `10s`, `5m`, `1h`, `30d`.\n\
         - For completion in an editor, begin the file with\n  \
         `# yaml-language-server: $schema=…/docs/schema/sidecar.json`.\n",
        super::GENERATED
    );
    for (title, schema) in [
        ("The sidecar", schema::of::<SidecarConfig>("")),
        ("The authority", schema::of::<AuthorityConfig>("")),
        ("Agents, grants and tasks", schema::of::<StoreFile>("")),
    ] {
        text.push_str(&format!("\n## {title}\n"));
        Page { schema: &schema, text: &mut text, waiting: VecDeque::new(), seen: Vec::new() }.write();
    }
    text
}

/// One schema being written as tables.
struct Page<'a> {
    schema: &'a Value,
    text: &'a mut String,
    /// Where each object is met first, and the object.
    waiting: VecDeque<(String, &'a Value)>,
    seen: Vec<&'a str>,
}

impl<'a> Page<'a> {
    fn write(&mut self) {
        self.object("", self.schema);
        while let Some((place, object)) = self.waiting.pop_front() {
            self.text.push_str(&format!("\n### `{place}`\n"));
            self.object(&place, object);
        }
    }

    fn object(&mut self, place: &str, object: &'a Value) {
        if let Some(description) = description(object) {
            self.text.push_str(&format!("\n{description}\n"));
        }
        let empty = Map::new();
        if let Some(properties) = object.get("properties").and_then(Value::as_object) {
            self.text.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
            let required: Vec<&str> = object
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let is_required = |key: &str| required.contains(&key);
            let mut properties: Vec<_> = properties.iter().collect();
            properties.sort_by_key(|(key, _)| !is_required(key));
            for (key, property) in properties {
                let kind = self.kind(&join(place, key), property);
                let default = match property.get("default") {
                    _ if is_required(key) => "required".to_owned(),
                    None | Some(Value::Null) => String::new(),
                    Some(Value::Object(members)) if *members == empty => String::new(),
                    Some(Value::Array(items)) if items.is_empty() => String::new(),
                    Some(value) => format!("`{}`", short(value)),
                };
                let meaning =
                    description(property).or_else(|| description(self.resolved(property))).unwrap_or_default();
                let meaning = format!("{meaning}{}", self.words_explained(property));
                self.text.push_str(&format!("| `{key}` | {kind} | {default} | {} |\n", meaning.replace('|', "\\|")));
            }
        }
        if let Some(choices) = choices(object) {
            self.text.push_str("\nOne of:\n\n");
            for choice in choices {
                let line = self.choice(place, choice);
                self.text.push_str(&line);
            }
        }
    }

    /// What each word of an enum means that has nothing but words.
    fn words_explained(&self, property: &'a Value) -> String {
        let item = property.get("items").unwrap_or(property);
        let definition = self.resolved(item);
        if words(definition).is_none() {
            return String::new();
        }
        let explained = |choice: &Value| {
            let (word, meaning) = (choice.get("const")?.as_str()?, description(choice)?);
            Some(format!(" `{word}`: {meaning}"))
        };
        choices(definition).into_iter().flatten().filter_map(explained).collect()
    }

    /// One arm of an enum with members: `file: …` or a plain word.
    fn choice(&mut self, place: &str, choice: &'a Value) -> String {
        let meaning = description(choice).map(|text| format!(": {text}")).unwrap_or_default();
        if let Some(word) = choice.get("const").and_then(Value::as_str) {
            return format!("- `{word}`{meaning}\n");
        }
        if let Some(words) = choice.get("enum").and_then(Value::as_array) {
            let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
            return format!("- {}{meaning}\n", words.join(", "));
        }
        let Some((name, inner)) =
            choice.get("properties").and_then(Value::as_object).and_then(|properties| properties.iter().next())
        else {
            return String::new();
        };
        let mut line = format!("- `{name}: …` ({}){meaning}\n", self.kind(&join(place, name), inner));
        let inner = inner.get("properties").and_then(Value::as_object);
        for (key, property) in inner.into_iter().flatten() {
            let kind = self.kind(&join(place, key), property);
            let meaning = description(property).unwrap_or_default();
            line.push_str(&format!("  - `{key}` ({kind}): {meaning}\n"));
        }
        line
    }

    /// What may stand there, in words; objects met for the first time are put on the list.
    fn kind(&mut self, place: &str, property: &'a Value) -> String {
        if let Some(members) = property.get("anyOf").and_then(Value::as_array) {
            let something = members.iter().find(|member| member.get("type").and_then(Value::as_str) != Some("null"));
            return something.map(|member| self.kind(place, member)).unwrap_or_default();
        }
        if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
            return self.named(place, reference);
        }
        match types(property).as_slice() {
            ["array"] => {
                let item = property.get("items").map(|item| self.kind(&format!("{place}[]"), item)).unwrap_or_default();
                listed("list", &item)
            }
            ["object"] => match property.get("additionalProperties").filter(|value| value.is_object()) {
                Some(value) => listed("map", &self.kind(&format!("{place}.*"), value)),
                None => "object".to_owned(),
            },
            ["string"]
                if property.get("pattern").and_then(Value::as_str).is_some_and(|text| text.contains("ms|s|m")) =>
            {
                "duration".to_owned()
            }
            ["string"] => "text".to_owned(),
            ["integer"] => "number".to_owned(),
            ["boolean"] => "`true` or `false`".to_owned(),
            _ => "text".to_owned(),
        }
    }

    fn named(&mut self, place: &str, reference: &'a str) -> String {
        let definition = self.definition(reference);
        if let Some(words) = words(definition) {
            return words;
        }
        if !self.seen.contains(&reference) {
            self.seen.push(reference);
            self.waiting.push_back((place.to_owned(), definition));
        }
        match self.waiting.iter().find(|(_, waiting)| std::ptr::eq(*waiting, definition)) {
            Some((place, _)) => format!("see `{place}`"),
            None => format!("see `{}`", reference.rsplit('/').next().unwrap_or(reference)),
        }
    }

    fn resolved(&self, property: &'a Value) -> &'a Value {
        property.get("$ref").and_then(Value::as_str).map_or(property, |reference| self.definition(reference))
    }

    fn definition(&self, reference: &str) -> &'a Value {
        let pointer = reference.trim_start_matches('#');
        self.schema.pointer(pointer).unwrap_or(&Value::Null)
    }
}

/// `list of text`, but `list, see …`.
fn listed(what: &str, item: &str) -> String {
    if item.starts_with("see ") { format!("{what}, {item}") } else { format!("{what} of {item}") }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

fn types(property: &Value) -> Vec<&str> {
    match property.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        _ => Vec::new(),
    }
}

fn choices(definition: &Value) -> Option<&Vec<Value>> {
    definition.get("oneOf").and_then(Value::as_array)
}

/// The words of an enum that has nothing but words.
fn words(definition: &Value) -> Option<String> {
    let plain = |choice: &Value| -> Option<Vec<String>> {
        if let Some(word) = choice.get("const").and_then(Value::as_str) {
            return Some(vec![word.to_owned()]);
        }
        choice.get("enum")?.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let words: Vec<String> = match choices(definition) {
        Some(choices) => choices.iter().map(plain).collect::<Option<Vec<_>>>()?.concat(),
        None => plain(definition)?,
    };
    Some(words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))
}

fn description(value: &Value) -> Option<String> {
    let text = value.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key}: {}", short(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
