//! Lists as tables for people: aligned columns, and nothing that a name could do to a terminal.

use serde_json::Value;

/// A column: its heading and where in an entry its value lies (an RFC 6901 pointer).
pub(crate) type Column<'a> = (&'a str, &'a str);

/// A table of `entries`.
pub(crate) fn table(columns: &[Column<'_>], entries: &[Value]) -> String {
    let mut rows = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    rows.extend(entries.iter().map(|entry| columns.iter().map(|(_, at)| cell(entry.pointer(at))).collect()));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One thing, a line for each of its members.
pub(crate) fn lines(columns: &[Column<'_>], entry: &Value) -> String {
    let width = columns.iter().map(|(heading, _)| heading.len()).max().unwrap_or_default();
    columns
        .iter()
        .filter(|(_, at)| entry.pointer(at).is_some_and(|value| !value.is_null()))
        .map(|(heading, at)| format!("{heading:width$}  {}\n", cell(entry.pointer(at))))
        .collect()
}

/// A value as a cell.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => clean(text),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => clean(&other.to_string()),
    }
}

/// `text` without what a terminal would act on.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_no_name_moves_the_cursor() {
        let entries = [json!({"id": "a", "n": {"of": ["x", "y"]}}), json!({"id": "long\u{1b}[2J", "n": {"of": []}})];
        let text = table(&[("ID", "/id"), ("OF", "/n/of"), ("NONE", "/none")], &entries);
        assert_eq!(text, "ID        OF   NONE\na         x,y  -\nlong\u{fffd}[2J  -    -\n");
        assert_eq!(lines(&[("id", "/id"), ("none", "/none")], &entries[0]), "id    a\n");
    }
}
