//! One record as one line for a person (DESIGN §5.4). Whatever a value holds, it cannot break or disguise the line.

use jiff::{Timestamp, Unit};
use model::{Principal, Verdict};
use serde_json::Value;

use crate::{
    read::Entry,
    rebuild::{is_passed_through, waived},
    record::kind,
};

/// The most characters that one value takes.
const MAX_CHARACTERS: usize = 120;

/// The line, without a newline.
pub fn for_person(entry: &Entry) -> String {
    let time = seconds(entry.time);
    match entry.kind.as_str() {
        kind::CALL_DECIDED => format!("{time}  {}", decided(entry)),
        kind::CALL_SETTLED => format!("{time}  {}", settled(entry)),
        _ => format!("{time}  {}{}", printable(&entry.kind), members(entry)),
    }
}

fn seconds(time: Timestamp) -> String {
    // Cut, not rounded: a record does not seem to be from the second after it.
    time.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc))
        .unwrap_or(time)
        .to_string()
}

fn decided(entry: &Entry) -> String {
    if is_passed_through(entry) {
        return format!("{}  {}  {}", asserted(entry), what(entry), verdict(entry));
    }
    let mut who = principal(entry, "user", "user:?");
    let agent = principal(entry, "agent", "agent:?");
    match entry.fields.get("agents").and_then(Value::as_array) {
        Some(agents) => {
            for agent in agents.iter().filter_map(Value::as_str) {
                who.push_str(&format!(" via agent:{}", word(agent)));
            }
        }
        None => who.push_str(&format!(" via {agent}")),
    }
    if let Some(task) = entry.text("task_id") {
        who.push_str(&format!(" task:{}", word(task)));
    }
    if let Some(run) = entry.text("run_id") {
        who.push_str(&format!(" run:{}", shortened(run)));
    }
    format!("{who}  {}  {}", what(entry), verdict(entry))
}

/// Whom nobody verified, by what was said of them.
fn asserted(entry: &Entry) -> String {
    let erased = entry.erased.iter().any(|path| path == "/asserted");
    let said = |member: &str| match entry.text_at(&format!("/asserted/{member}")) {
        Some(name) => format!("{member}:{}", word(name)),
        None if erased => format!("{member}:(erased)"),
        None => format!("{member}:?"),
    };
    format!("asserted {} via {}", said("user"), said("agent"))
}

/// The action and its resource, or as much as was known of them.
fn what(entry: &Entry) -> String {
    let path = || match (entry.text("method"), entry.text("path")) {
        (Some(method), Some(path)) => format!("{} {}", word(method), word(path)),
        _ => "-".to_owned(),
    };
    match (entry.text("action"), entry.text("resource")) {
        (Some(action), Some(resource)) => format!("{} {}", word(action), word(resource)),
        (Some(action), None) => word(action),
        (None, _) => path(),
    }
}

fn verdict(entry: &Entry) -> String {
    let word = match entry.text("decision") {
        Some(verdict) if verdict == Verdict::Permit.as_str() => return permitted(entry),
        Some(verdict) if verdict == Verdict::ApprovalRequired.as_str() => "APPROVAL",
        _ => "DENY",
    };
    let mut text = word.to_owned();
    if let Some(code) = entry.text("code") {
        text.push_str(&format!(" {}", printable(code)));
    }
    let reasons = entry.fields.get("reasons").and_then(Value::as_array);
    let codes = reasons.into_iter().flatten().filter_map(|reason| reason.get("code")?.as_str());
    // A guard's reason is its code.
    for reason in codes.filter(|reason| entry.text("code") != Some(reason)) {
        text.push_str(&format!(" {}", printable(reason)));
    }
    if let Some(hop) = entry.text_at("/explanation/limiting_hop") {
        text.push_str(&format!(" (limited by {})", printable(hop)));
    }
    text
}

/// What was only observed says what enforcing would have answered.
fn permitted(entry: &Entry) -> String {
    if is_passed_through(entry) {
        return "PERMIT (passthrough)".to_owned();
    }
    match waived(entry) {
        Some(code) => format!("PERMIT (observed: {})", printable(code)),
        None => "PERMIT".to_owned(),
    }
}

fn settled(entry: &Entry) -> String {
    let mut text = format!("settled {}", printable(entry.text("outcome").unwrap_or("?")));
    if let Some(status) = entry.fields.get("status").and_then(Value::as_u64) {
        text.push_str(&format!(" {status}"));
    }
    if let Some(code) = entry.text("code") {
        text.push_str(&format!(" {}", printable(code)));
    }
    format!("{text}  {}", printable(entry.text("decision_id").unwrap_or("?")))
}

/// The plain members of any other record: `name=value`.
fn members(entry: &Entry) -> String {
    let mut text = String::new();
    for (name, value) in &entry.fields {
        let value = match value {
            Value::String(value) => printable(value),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Object(object) if object.contains_key("kind") && object.contains_key("id") => {
                principal(entry, name, "?")
            }
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        text.push_str(&format!("  {}={value}", printable(name)));
    }
    text
}

fn principal(entry: &Entry, member: &str, unknown: &str) -> String {
    if entry.erased.iter().any(|path| path.strip_prefix('/') == Some(member)) {
        return format!("{member}:(erased)");
    }
    let value = entry.fields.get(member).cloned().unwrap_or_default();
    match serde_json::from_value::<Principal>(value) {
        Ok(principal) => printable(&principal.to_string()),
        Err(_) => unknown.to_owned(),
    }
}

/// A long id by its beginning.
fn shortened(id: &str) -> String {
    const SHOWN: usize = 8;
    let text = printable(id);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) if text.chars().count() > SHOWN + 4 => format!("{}…", text.get(..end).unwrap_or(&text)),
        _ => text,
    }
}

/// [`printable`], with its spaces shown: nothing that a caller chose can look like the words after it.
fn word(text: &str) -> String {
    printable(text).replace(' ', "\u{2423}")
}

/// `text` without anything that ends a line, moves the cursor, or reorders or hides what is around it.
fn printable(text: &str) -> String {
    let shown = |c: char| {
        let hidden = c.is_control()
            || (c.is_whitespace() && c != ' ')
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}');
        if hidden { '\u{FFFD}' } else { c }
    };
    let mut line: String = text.chars().take(MAX_CHARACTERS).map(shown).collect();
    if text.chars().nth(MAX_CHARACTERS).is_some() {
        line.push('…');
    }
    line
}
