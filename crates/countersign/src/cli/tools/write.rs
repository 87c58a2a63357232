//! Proposals as YAML. Whatever stands in a document, a comment stays a comment and a value a value: comments are one line,
//! and values are quoted as JSON strings are, with their dollar signs doubled where a configuration expands them.

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
pub(crate) struct Writing {
    text: String,
    /// Whose it will be, which says what a dollar sign is.
    dollars: Dollars,
}

/// What a dollar sign in a value becomes.
#[derive(Debug, Clone, Copy)]
enum Dollars {
    /// Two, which a configuration reads as one.
    Doubled,
    /// Itself.
    Plain,
}

impl Writing {
    /// Begins with a comment.
    pub(crate) fn new(head: &str) -> Self {
        let mut writing = Self { text: String::new(), dollars: Dollars::Doubled };
        writing.comment("", head);
        writing
    }

    /// The actions of one tool, as a document of the catalogue that no configuration is.
    pub(crate) fn catalogue(mut self, tool: &DraftTool) -> String {
        self.dollars = Dollars::Plain;
        self.text.push_str(&format!("catalogue:\n  {}:\n", key(&tool.name)));
        self.actions(tool);
        self.text
    }

    /// What stands in a configuration of a tool whose actions the source `name` of the catalogue says, which lies at `path`.
    pub(crate) fn beside(mut self, tool: &DraftTool, name: &str, path: &str) -> String {
        if tool.settings.is_some() {
            self.text.push_str(&format!("tools:\n  {}:\n", key(&tool.name)));
            self.settings(tool);
        }
        let (name, path) = (self.scalar(name), self.scalar(path));
        self.text.push_str(&format!("catalogue:\n  - {{ name: {name}, for: [{}], path: {path} }}\n", key(&tool.name)));
        self.text
    }

    /// `tools:` with one tool.
    pub(crate) fn tool(mut self, tool: &DraftTool) -> String {
        self.text.push_str("tools:\n");
        self.one(tool);
        self.text
    }

    /// `tools:` with several.
    pub(crate) fn tools(mut self, tools: &[DraftTool]) -> String {
        self.text.push_str("tools:\n");
        for tool in tools {
            self.one(tool);
        }
        self.text
    }

    /// `tools:` with none.
    pub(crate) fn nothing(mut self) -> String {
        self.text.push_str("tools: {}\n");
        self.text
    }

    fn one(&mut self, tool: &DraftTool) {
        self.text.push_str(&format!("  {}:\n", key(&tool.name)));
        self.settings(tool);
        self.actions(tool);
    }

    fn settings(&mut self, tool: &DraftTool) {
        if let Some(settings) = &tool.settings {
            for review in &settings.review {
                self.comment("    ", &format!("review: {review}"));
            }
            let line = format!("    at: {}\n", self.scalar(&settings.at));
            self.text.push_str(&line);
            let line = format!("    upstream: {}\n", self.scalar(&settings.upstream));
            self.text.push_str(&line);
            self.text.push_str("    identity: service_account\n");
            let line = format!("    credential: {}\n", flow(&settings.credential, self.dollars));
            self.text.push_str(&line);
        }
    }

    fn actions(&mut self, tool: &DraftTool) {
        for note in &tool.notes {
            self.comment("    ", &format!("review: {note}"));
        }
        if tool.actions.is_empty() {
            self.text.push_str("    actions: {}\n");
        } else {
            self.text.push_str("    actions:\n");
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
        self.text.push_str(&format!("      {name}:\n"));
        if !draft.from.is_empty() && draft.from != line {
            self.comment("        ", &draft.from);
        }
        for review in &draft.review {
            self.comment("        ", &format!("review: {review}"));
        }
        let line = format!("        match: {}\n", self.scalar(&line));
        self.text.push_str(&line);
        self.text.push_str(&format!("        effect: {}\n", draft.effect.as_str()));
        let line = format!("        resource: {}\n", self.scalar(&draft.resource));
        self.text.push_str(&line);
        if !draft.parameters.is_empty() {
            self.text.push_str("        parameters:\n");
            for (name, parameter) in &draft.parameters {
                let line = format!("          {}: {}\n", key(name), parameter_line(parameter, self.dollars));
                self.text.push_str(&line);
            }
        }
        if let Some(idempotency) = &draft.idempotency {
            let line = format!("        idempotency: {}\n", self.scalar(idempotency));
            self.text.push_str(&line);
        }
        if draft.needs_additional {
            self.text.push_str("        # additional: allow\n");
        }
    }

    fn scalar(&self, text: &str) -> String {
        scalar(text, self.dollars)
    }

    /// A comment of as many lines as it needs.
    fn comment(&mut self, indent: &str, text: &str) {
        let (lead, text) = text.split_at(text.len() - text.trim_start().len());
        let text = plain(text, LONGEST);
        let mut line = format!("{indent}#{lead}");
        for word in text.split(' ') {
            if line.chars().count() + word.chars().count() >= WIDTH && line.trim_start() != "#" {
                self.text.push_str(line.trim_end());
                self.text.push('\n');
                line = format!("{indent}#{lead}  ");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// `{ type: money, value: "body:/amount", currency: "body:/currency" }`
fn parameter_line(parameter: &DraftParameter, dollars: Dollars) -> String {
    flow(&parameter.to_json(), dollars)
}

/// A value in one line.
fn flow(value: &Value, dollars: Dollars) -> String {
    match value {
        Value::Object(members) => {
            // In the order in which people read it.
            let order = ["type", "name", "value", "currency", "minor", "scale", "optional"];
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by_key(|name| order.iter().position(|known| known == name).unwrap_or(order.len()));
            let written: Vec<String> = names
                .into_iter()
                .filter_map(|name| Some(format!("{}: {}", key(name), flow(members.get(name)?, dollars))))
                .collect();
            format!("{{ {} }}", written.join(", "))
        }
        Value::String(text) => scalar(text, dollars),
        other => other.to_string(),
    }
}

/// A key: as it is where that can mean nothing else.
fn key(text: &str) -> String {
    if is_bare(text) { text.to_owned() } else { quoted(text) }
}

/// A value, which may be one that configuration expands variables in.
fn scalar(text: &str, dollars: Dollars) -> String {
    match dollars {
        _ if is_bare(text) => text.to_owned(),
        Dollars::Doubled => quoted(&text.replace('$', "$$")),
        Dollars::Plain => quoted(text),
    }
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
            assert_eq!(scalar(text, Dollars::Doubled), written);
            let read: String = serde_saphyr::from_str(&scalar(text, Dollars::Doubled)).unwrap();
            assert_eq!(read, text.replace('$', "$$"));
            let read: String = serde_saphyr::from_str(&scalar(text, Dollars::Plain)).unwrap();
            assert_eq!(read, text);
        }
        let text = Writing::new("one\ntwo: three\u{2028}four\u{85}five").text;
        assert_eq!(text, "# one two: three four five\n");
        let long = Writing::new(&"word ".repeat(60)).text;
        assert!(long.lines().all(|line| line.starts_with('#') && line.chars().count() <= WIDTH), "{long}");
    }
}
