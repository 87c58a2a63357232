//! What a person sees of the demo, and what a program does (`--json`).
//!
//! Colours only on a terminal, and not where `NO_COLOR` is set (no-color.org).

use std::io::{IsTerminal, Write};

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::agent::Token;
use super::steps::{Step, Surprise};
use super::world::{Answer, Denial};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::{Output, Reader};

/// How the demo is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    manner: Manner,
    colour: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As text, everything.
    Person,
    /// One JSON object a step, nothing else.
    Program,
}

/// One step as a program sees it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    step: &'static str,
    expected: &'static str,
    got: &'static str,
    code: Option<&'a str>,
    expected_code: Option<&'static str>,
    decision_id: Option<&'a str>,
    run_id: Option<&'a str>,
    ms: f64,
    as_expected: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

impl Show {
    /// Text for a person, or JSON for a program.
    pub(super) fn new(json: bool, environment: &Environment) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && environment.filled("NO_COLOR").is_none();
        Self { manner: if json { Manner::Program } else { Manner::Person }, colour }
    }

    /// Says something to a person; nothing to a program.
    pub(super) fn say(self, text: &str) -> Result<(), Failure> {
        match self.manner {
            Manner::Person => write(text),
            Manner::Program => Ok(()),
        }
    }

    /// Says what a person needs who stays: also beside `--json`, but then not among its lines.
    pub(super) fn guide(self, text: &str) -> Result<(), Failure> {
        match self.manner {
            Manner::Person => write(&format!("\n{text}")),
            Manner::Program => {
                // With standard error closed there is nobody left to guide.
                std::io::stderr().lock().write_all(format!("{text}\n").as_bytes()).ok();
                Ok(())
            }
        }
    }

    /// Says a heading.
    pub(super) fn heading(self, text: &str) -> Result<(), Failure> {
        self.say(&format!("\n{}", self.paint(BOLD, text)))
    }

    /// One step and what came of it.
    pub(super) fn step(
        self,
        number: usize,
        step: &Step,
        token: &Token,
        answer: &Answer,
        outcome: &Result<(), Surprise>,
    ) -> Result<(), Failure> {
        match self.manner {
            Manner::Program => program_line(step, token, answer, outcome.is_ok()),
            Manner::Person => write(&self.step_text(number, step, token, answer, outcome)),
        }
    }

    fn step_text(
        self,
        number: usize,
        step: &Step,
        token: &Token,
        answer: &Answer,
        outcome: &Result<(), Surprise>,
    ) -> String {
        let mut text = format!("\n{number:>2}  {}\n", self.paint(BOLD, step.title));
        let body = step.call.body.map(|body| format!(" {body}")).unwrap_or_default();
        text.push_str(&format!("    {}\n", token.names().join(" via ")));
        text.push_str(&format!("    {} {}{body}\n", step.call.method, step.call.path));
        match &answer.denial {
            None => text.push_str(&self.permitted(answer)),
            Some(denial) => text.push_str(&self.denied(answer.status, denial)),
        }
        let id = answer.decision_id.as_deref().unwrap_or("none");
        let milliseconds = milliseconds(answer);
        text.push_str(&self.paint(DIM, &format!("    decision {id}   {milliseconds:.1} ms")));
        if let Err(surprise) = outcome {
            text.push_str(&format!("\n    {}", self.paint(RED, &format!("NOT AS EXPECTED: {}", surprise.what))));
        }
        text
    }

    fn permitted(self, answer: &Answer) -> String {
        format!("    {}  the tool answered {}: {}\n", self.paint(GREEN, "PERMIT"), answer.status.as_u16(), answer.body)
    }

    fn denied(self, status: StatusCode, denial: &Denial) -> String {
        let deny = self.paint(RED, "DENY");
        let mut text =
            format!("    {deny}  {} ({}): {}\n", self.paint(BOLD, &denial.code), status.as_u16(), denial.detail);
        for reason in &denial.reasons {
            let message = reason.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            text.push_str(&format!("    policy says {}{message}\n", reason.code));
        }
        let allowed = denial.allowed.as_ref().map(allowed).unwrap_or_default();
        if let Some(hop) = &denial.limiting_hop {
            text.push_str(&format!("    limited by {hop}{allowed}\n"));
        }
        text
    }

    fn paint(self, style: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn program_line(step: &Step, token: &Token, answer: &Answer, as_expected: bool) -> Result<(), Failure> {
    let denial = answer.denial.as_ref();
    let line = Line {
        step: step.name,
        expected: step.expected.word(),
        got: if denial.is_none() { "permit" } else { "deny" },
        code: denial.map(|denial| denial.code.as_str()),
        expected_code: step.expected.code(),
        decision_id: answer.decision_id.as_deref(),
        run_id: denial.and_then(|denial| denial.run_id.as_deref()).or_else(|| token.run_id()),
        ms: (milliseconds(answer) * 1000.0).round() / 1000.0,
        as_expected,
    };
    // A reader that went away changes nothing: the exit code still says how it went.
    let (Reader::Listens | Reader::Gone) = Output::new().json(&line)?;
    Ok(())
}

fn milliseconds(answer: &Answer) -> f64 {
    answer.took.as_secs_f64() * 1000.0
}

/// `{"amount": {"max": "50.00", "currency": "USD"}}` as `; allowed: amount up to 50.00 USD`.
fn allowed(allowed: &Value) -> String {
    let parts: Vec<String> = allowed.as_object().into_iter().flatten().map(|(name, limit)| one(name, limit)).collect();
    if parts.is_empty() { String::new() } else { format!("; allowed: {}", parts.join(", ")) }
}

fn one(name: &str, limit: &Value) -> String {
    let member = |member: &str| limit.get(member).and_then(Value::as_str);
    match (member("max"), member("currency")) {
        (Some(max), Some(currency)) => format!("{name} up to {max} {currency}"),
        (Some(max), None) => format!("{name} up to {max}"),
        (None, _) => format!("{name} {limit}"),
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let (Reader::Listens | Reader::Gone) = Output::new().line(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_be_allowed_reads_like_a_sentence() {
        assert_eq!(
            allowed(&json!({"amount": {"max": "50.00", "currency": "USD"}})),
            "; allowed: amount up to 50.00 USD"
        );
        assert_eq!(allowed(&json!({"queue": {"one_of": ["a"]}})), r#"; allowed: queue {"one_of":["a"]}"#);
        assert_eq!(allowed(&json!({})), "");
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        let plain = Show { manner: Manner::Person, colour: false };
        assert_eq!(plain.paint(RED, "DENY"), "DENY");
        let coloured = Show { manner: Manner::Person, colour: true };
        assert_eq!(coloured.paint(RED, "DENY"), "\u{1b}[31mDENY\u{1b}[0m");
    }
}
