//! The page of policy's input, from its schema: every path that a rule may name.

use serde_json::Value;

pub(super) fn document() -> String {
    let mut text = format!(
        "{}# Policy input\n\nWhat a rule sees as `input`. Objects are there down to every leaf; only leaves are `null`.\n",
        super::GENERATED
    );
    let parts = [
        ("Of calls: `allow`, `deny`, `approval`", "policy-input", policy::input::schema()),
        ("Where a token is issued: `delegate`", "policy-exchange", policy::input::exchange::schema()),
        ("Where somebody manages: `manage`", "policy-management", policy::input::management::schema()),
    ];
    for (title, name, schema) in &parts {
        text.push_str(&format!(
            "\n## {title}\n\nThe schema is `docs/schema/{name}.json`.\n\n| path | type | meaning |\n|---|---|---|\n"
        ));
        Paths { schema, text: &mut text, within: Vec::new() }.members("input", schema);
    }
    text
}

struct Paths<'a> {
    schema: &'a Value,
    text: &'a mut String,
    /// The definitions being written: one inside itself is named once.
    within: Vec<&'a str>,
}

impl<'a> Paths<'a> {
    fn members(&mut self, path: &str, object: &'a Value) {
        let properties = object.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            self.row(&format!("{path}.{name}"), property, None);
        }
        if let Some(value) = object.get("additionalProperties").filter(|value| value.is_object()) {
            self.row(&format!("{path}[name]"), value, None);
        }
    }

    fn row(&mut self, path: &str, property: &'a Value, meaning: Option<&'a str>) {
        let own = property.get("description").and_then(Value::as_str).or(meaning);
        if let Some(reference) = property.get("$ref").and_then(Value::as_str) {
            if self.within.contains(&reference) {
                return;
            }
            let definition = self.schema.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null);
            self.within.push(reference);
            self.row(path, definition, own.or_else(|| definition.get("description").and_then(Value::as_str)));
            self.within.pop();
            return;
        }
        let several = property.get("anyOf").or_else(|| property.get("oneOf")).and_then(Value::as_array);
        let structured = several.into_iter().flatten().find(|choice| choice.get("$ref").is_some());
        let text = own.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        self.text.push_str(&format!("| `{path}` | {} | {text} |\n", kind(property)));
        if let Some(choice) = structured {
            self.inside(path, choice);
        }
        if let Some(items) = property.get("items") {
            self.inside(&format!("{path}[_]"), items);
        }
        self.members(path, property);
    }

    /// The members of what stands at `path`, without a row of its own.
    fn inside(&mut self, path: &str, value: &'a Value) {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) if self.within.contains(&reference) => {}
            Some(reference) => {
                self.within.push(reference);
                let definition = self.schema.pointer(reference.trim_start_matches('#')).unwrap_or(&Value::Null);
                self.members(path, definition);
                self.within.pop();
            }
            None => self.members(path, value),
        }
    }
}

fn kind(property: &Value) -> String {
    if let Some(words) = property.get("enum").and_then(Value::as_array) {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(word) = property.get("const") {
        return format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned));
    }
    match property.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => {
            let choices = property.get("anyOf").or_else(|| property.get("oneOf")).and_then(Value::as_array);
            let mut kinds: Vec<String> =
                choices.into_iter().flatten().map(kind).filter(|kind| !kind.is_empty()).collect();
            kinds.dedup();
            kinds.join(" or ")
        }
    }
}
