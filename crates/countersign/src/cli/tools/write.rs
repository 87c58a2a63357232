//! Proposals as YAML. Whatever stands in a document, a comment stays a comment and a value a value: comments are one line,
//! and values are quoted as JSON strings are, with their dollar signs doubled because a configuration expands them.

use serde_json::Value;

use super::{
    draft::{Draft, DraftParameter, DraftTool},
    openapi::plain,
};

/// How wide comments are.
const WIDTH: usize = 118;
/// The longest comment, in characters.
const LONGEST: usize = 1200;

/// YAML, as it is written.
#[derive(Debug)]
pub(crate) struct Writing(String);

impl Writing {
    /// Begins with a comment.
    pub(crate) fn new(head: &str) -> Self {
        let mut writing = Self(String::new());
        writing.comment("", head);
        writing
    }

    /// `tools:` with one tool.
    pub(crate) fn tool(mut self, tool: &DraftTool) -> String {
        self.0.push_str("tools:\n");
        self.one(tool);
        self.0
    }

    /// `tools:` with several.
    pub(crate) fn tools(mut self, tools: &[DraftTool]) -> String {
        self.0.push_str("tools:\n");
        for tool in tools {
            self.one(tool);
        }
        self.0
    }

    /// `tools:` with none.
    pub(crate) fn nothing(mut self) -> String {
        self.0.push_str("tools: {}\n");
        self.0
    }

    fn one(&mut self, tool: &DraftTool) {
        self.0.push_str(&format!("  {}:\n", key(&tool.name)));
        if let Some(settings) = &tool.settings {
            for review in &settings.review {
                self.comment("    ", &format!("review: {review}"));
            }
            self.0.push_str(&format!("    at: {}\n", scalar(&settings.at)));
            self.0.push_str(&format!("    upstream: {}\n", scalar(&settings.upstream)));
            self.0.push_str("    identity: service_account\n");
            self.0.push_str(&format!("    credential: {}\n", flow(&settings.credential)));
        }
        for note in &tool.notes {
            self.comment("    ", &format!("review: {note}"));
        }
        if tool.actions.is_empty() {
            self.0.push_str("    actions: {}\n");
        } else {
            self.0.push_str("    actions:\n");
        }
        for draft in &tool.actions {
            self.action(draft);
        }
        if !tool.left_out.is_empty() {
            self.comment("    ", "Left out, and so refused:");
            for left in &tool.left_out {
                self.comment("    ", &format!("  {}: {}", left.operation, left.why));
            }
        }
    }

    fn action(&mut self, draft: &Draft) {
        let (name, line) = (key(&draft.name), format!("{} {}", draft.method, draft.template));
        self.0.push_str(&format!("      {name}:\n"));
        if !draft.from.is_empty() && draft.from != line {
            self.comment("        ", &draft.from);
        }
        for review in &draft.review {
            self.comment("        ", &format!("review: {review}"));
        }
        self.0.push_str(&format!("        match: {}\n", scalar(&line)));
        self.0.push_str(&format!("        effect: {}\n", draft.effect.as_str()));
        self.0.push_str(&format!("        resource: {}\n", scalar(&draft.resource)));
        if !draft.parameters.is_empty() {
            self.0.push_str("        parameters:\n");
            for (name, parameter) in &draft.parameters {
                self.0.push_str(&format!("          {}: {}\n", key(name), parameter_line(parameter)));
            }
        }
        if let Some(idempotency) = &draft.idempotency {
            self.0.push_str(&format!("        idempotency: {}\n", scalar(idempotency)));
        }
        if draft.needs_additional {
            self.0.push_str("        # additional: allow\n");
        }
    }

    /// A comment of as many lines as it needs.
    fn comment(&mut self, indent: &str, text: &str) {
        let (lead, text) = text.split_at(text.len() - text.trim_start().len());
        let text = plain(text, LONGEST);
        let mut line = format!("{indent}#{lead}");
        for word in text.split(' ') {
            if line.chars().count() + word.chars().count() >= WIDTH && line.trim_start() != "#" {
                self.0.push_str(line.trim_end());
                self.0.push('\n');
                line = format!("{indent}#{lead}  ");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// `{ type: money, value: "body:/amount", currency: "body:/currency" }`
fn parameter_line(parameter: &DraftParameter) -> String {
    flow(&parameter.to_json())
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            // In the order in which people read it.
            let order = ["type", "name", "value", "currency", "minor", "scale", "optional"];
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by_key(|name| order.iter().position(|known| known == name).unwrap_or(order.len()));
            let written: Vec<String> = names
                .into_iter()
                .filter_map(|name| Some(format!("{}: {}", key(name), flow(members.get(name)?))))
                .collect();
            format!("{{ {} }}", written.join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A key: as it is where that can mean nothing else.
fn key(text: &str) -> String {
    if is_bare(text) { text.to_owned() } else { quoted(text) }
}

/// A value that configuration expands variables in.
fn scalar(text: &str) -> String {
    if is_bare(text) { text.to_owned() } else { quoted(&text.replace('$', "$$")) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{FEFF}') => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether YAML reads `text` as itself and as text, whatever its version.
fn is_bare(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_') && text.chars().all(fits) && !word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_a_value_and_a_comment_one_line() {
        for (text, written) in [
            ("orders", "orders"),
            ("/v1/orders", "/v1/orders"),
            ("GET /v1/{a}", "\"GET /v1/{a}\""),
            ("yes", "\"yes\""),
            ("query:$filter", "\"query:$$filter\""),
            ("${HOME}", "\"$${HOME}\""),
            ("a\nb: c", "\"a\\U0000000Ab: c\""),
            ("a\"\\", "\"a\\\"\\\\\""),
            ("12", "\"12\""),
            ("", "\"\""),
        ] {
            assert_eq!(scalar(text), written);
            let read: String = serde_saphyr::from_str(&scalar(text)).unwrap();
            assert_eq!(read, text.replace('$', "$$"));
        }
        let text = Writing::new("one\ntwo: three\u{2028}four\u{85}five").0;
        assert_eq!(text, "# one two: three four five\n");
        let long = Writing::new(&"word ".repeat(60)).0;
        assert!(long.lines().all(|line| line.starts_with('#') && line.chars().count() <= WIDTH), "{long}");
    }
}
