//! A problem with the line it is in, for people; and as an annotation, for the page where a change is reviewed.

use std::collections::BTreeMap;

use policy::{Problem, Severity};

const BOLD: &str = "1";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
/// How many columns a tab takes.
const TAB: usize = 4;
/// The most characters of a line that are shown.
const WIDEST: usize = 160;

/// Shows problems with their lines.
pub(super) struct Excerpts<'a> {
    /// The text of each file.
    pub(super) texts: &'a BTreeMap<&'a str, &'a str>,
    /// Whether to use colour.
    pub(super) colour: bool,
}

impl Excerpts<'_> {
    /// The problem, its line, a caret under what is wrong, and what to do about it.
    pub(super) fn of(&self, problem: &Problem) -> String {
        let (word, colour) = match problem.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = self.painted(colour, &format!("{word}[{}]", problem.code));
        let message = self.painted(BOLD, &format!(": {}", printable(&problem.message)));
        let number = problem.line.to_string();
        let margin = " ".repeat(number.len());
        let bar = self.painted(BLUE, "|");
        let arrow = self.painted(BLUE, "-->");
        let place = format!("{}:{}:{}", printable(&problem.file), problem.line, problem.column);
        let mut text = format!("{head}{message}\n{margin}{arrow} {place}\n");
        if let Some(line) = self.line(problem) {
            let (shown, before, wide) = marked(line, problem);
            let carets = self.painted(colour, &"^".repeat(wide));
            text.push_str(&format!("{margin} {bar}\n{} {bar} {shown}\n", self.painted(BLUE, &number)));
            text.push_str(&format!("{margin} {bar} {}{carets}\n", " ".repeat(before)));
        }
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("{margin} {} {}\n", self.painted(BLUE, "="), printable(hint)));
        }
        text.push('\n');
        text
    }

    fn line(&self, problem: &Problem) -> Option<&str> {
        let index = usize::try_from(problem.line).ok()?.checked_sub(1)?;
        self.texts.get(problem.file.as_str())?.lines().nth(index)
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The line as it is shown, how far in what is wrong begins, and how wide it is.
fn marked(line: &str, problem: &Problem) -> (String, usize, usize) {
    let from = usize::try_from(problem.column).unwrap_or(usize::MAX).saturating_sub(1);
    let to = if problem.end.line == problem.line {
        usize::try_from(problem.end.column).unwrap_or(usize::MAX).saturating_sub(1)
    } else {
        usize::MAX
    };
    let (mut shown, mut before, mut wide) = (String::new(), 0, 0);
    for (place, c) in line.trim_end().chars().enumerate().take(WIDEST) {
        let columns = if c == '\t' { TAB } else { 1 };
        match c {
            '\t' => shown.push_str(&" ".repeat(TAB)),
            c if c.is_control() => shown.push('\u{fffd}'),
            c => shown.push(c),
        }
        if place < from {
            before += columns;
        } else if place < to {
            wide += columns;
        }
    }
    (shown, before, wide.max(1))
}

/// The text without what a terminal would take for more than text.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The problem as an annotation of a GitHub workflow.
pub(super) fn annotation(problem: &Problem) -> String {
    let word = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let message = escaped(&format!("{}{hint}", problem.message));
    let file = escaped(&problem.file).replace(':', "%3A").replace(',', "%2C");
    format!(
        "::{word} file={file},line={},col={},endLine={},endColumn={},title=policy {}::{message}",
        problem.line, problem.column, problem.end.line, problem.end.column, problem.code
    )
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
