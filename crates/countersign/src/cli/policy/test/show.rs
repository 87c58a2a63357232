//! Results for people, and as JSON.

use std::fmt::Write;

use policy::{
    cases::said,
    test::{Failure as Failed, FileCoverage, Outcome, Passed, Untried, Without},
};
use serde_json::{Value, json};

use super::suite::{Suite, percent};
use crate::failure::{Exit, Failure};

/// What failed, and with `verbose` everything, then the counts.
pub(super) fn pretty(suite: &Suite, verbose: bool, coverage: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for test in &suite.tests {
        let word = word(&test.result);
        if word != "ok" || verbose {
            writeln!(text, "{word:<5} {}  {}:{}", test.name, test.place.file, test.place.line).ok();
        }
        for line in why(test) {
            writeln!(text, "      {line}").ok();
        }
        if verbose || matches!(test.result, Passed::No(_)) {
            for line in &test.printed {
                writeln!(text, "      printed: {line}").ok();
            }
        }
    }
    for (case, outcome) in &suite.cases {
        let word = if outcome.failures.is_empty() { "ok" } else { "FAIL" };
        if word != "ok" || verbose {
            writeln!(text, "{word:<5} {}  {}:{}", case.name, case.file, case.line).ok();
        }
        for line in &outcome.failures {
            writeln!(text, "      {line}").ok();
        }
        if verbose {
            writeln!(text, "      {}", said(&outcome.decision)).ok();
            for one in &outcome.loosened {
                let why = one.acknowledged.as_deref().unwrap_or_default();
                writeln!(text, "      without `{}`: {} ({why})", one.without, said(&one.decision)).ok();
            }
        }
    }
    if coverage {
        covered(suite, &mut text);
    }
    text.push_str(&counts(suite));
    text
}

fn covered(suite: &Suite, text: &mut String) {
    for file in &suite.coverage {
        let FileCoverage { file: name, covered, expressions, .. } = file;
        let share = percent(*covered, *expressions);
        writeln!(text, "{share:>5.1} %  {name} ({covered} of {expressions} expressions)").ok();
        if covered < expressions {
            text.push_str(&file.annotated());
        }
    }
    writeln!(text, "{:>5.1} %  covered", suite.percent()).ok();
    if let Some(threshold) = suite.threshold.filter(|_| suite.is_short()) {
        writeln!(text, "FAIL  less than {threshold} % is covered").ok();
    }
}

fn counts(suite: &Suite) -> String {
    let of = |wanted: &str| suite.tests.iter().filter(|test| word(&test.result) == wanted).count();
    let failed = suite.cases.iter().filter(|(_, outcome)| !outcome.failures.is_empty()).count();
    let mut text =
        format!("{} tests and {} cases passed, {} failed", of("ok"), suite.cases.len() - failed, of("FAIL") + failed);
    if of("todo") > 0 {
        text.push_str(&format!(", {} still to be written", of("todo")));
    }
    text.push('\n');
    text
}

pub(super) const fn word(result: &Passed) -> &'static str {
    match result {
        Passed::Yes => "ok",
        Passed::Skipped => "todo",
        Passed::No(_) | Passed::Careless(_) | Passed::Untried(_) => "FAIL",
    }
}

/// Why a test did not pass.
pub(super) fn why(test: &Outcome) -> Vec<String> {
    match &test.result {
        Passed::Yes | Passed::Skipped => Vec::new(),
        Passed::Careless(parts) => parts.iter().map(careless).collect(),
        Passed::Untried(untried) => vec![not_tried(untried)],
        Passed::No(Failed { gave, stopped }) => {
            let mut lines = vec![gave.clone()];
            if let Some(stopped) = stopped {
                lines.push(format!("stopped at {}:{}: {}", stopped.place.file, stopped.place.line, stopped.text));
                lines.extend(stopped.sides.iter().map(|(text, value)| format!("    {text} gave {value}")));
            }
            lines
        }
    }
}

fn careless(Without { part, with, without }: &Without) -> String {
    format!(
        "an input of it is {with}, and {without} without `{part}`. Guard the rule, or write above the test why that is \
         right: `# more permissive without {part}: …`"
    )
}

fn not_tried(Untried { place, why }: &Untried) -> String {
    format!(
        "not tried again without parts of its input, which cannot be looked at ({place}): {why}. Put the input in \
         otherwise, or write above the test why that is right: `# not tried again: …`"
    )
}

/// Everything as one line of JSON.
pub(super) fn json(suite: &Suite) -> Result<String, Failure> {
    let tests: Vec<Value> = suite
        .tests
        .iter()
        .map(|test| {
            let stopped = match &test.result {
                Passed::No(Failed { stopped: Some(stopped), .. }) => Some(json!({
                    "place": stopped.place,
                    "text": stopped.text,
                    "sides": stopped.sides.iter().map(|(text, gave)| json!({"text": text, "gave": gave})).collect::<Vec<_>>(),
                })),
                _ => None,
            };
            json!({
                "name": test.name,
                "place": test.place,
                "result": word(&test.result).to_lowercase(),
                "why": why(test),
                "stopped": stopped,
                "printed": test.printed,
            })
        })
        .collect();
    let cases: Vec<Value> = suite
        .cases
        .iter()
        .map(|(case, outcome)| {
            let loosened: Vec<Value> = outcome
                .loosened
                .iter()
                .map(|one| json!({"without": one.without, "decision": one.decision, "acknowledged": one.acknowledged}))
                .collect();
            json!({
                "name": case.name,
                "file": case.file,
                "line": case.line,
                "result": if outcome.failures.is_empty() { "ok" } else { "fail" },
                "why": outcome.failures,
                "decision": outcome.decision,
                "more_permissive": loosened,
            })
        })
        .collect();
    let report = json!({
        "passed": suite.passed(),
        "tests": tests,
        "cases": cases,
        "coverage": { "percent": suite.percent(), "threshold": suite.threshold, "files": suite.coverage },
    });
    let text = serde_json::to_string(&report);
    text.map(|text| format!("{text}\n")).map_err(|error| Failure::because(Exit::Failed, "cannot write JSON", error))
}
