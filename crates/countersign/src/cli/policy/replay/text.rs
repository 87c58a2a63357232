//! A replay for a person. Names that others chose are written so that they cannot pass for something else.

use std::fmt::Write;

use policy::replay::{Change, Found, Group, Tally};

use super::Asked;
use crate::cli::explain::plain;

/// Names that are shown of a group.
const SHOWN: usize = 5;

/// In the place of a stage, for calls that were not decided at all.
const PASSED: &str = "passthrough";

pub(super) fn for_person(policy: &Asked<'_>, tally: &Tally, failed: &[String]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    writeln!(text, "policy {}", policy.revision).ok();
    for (revision, count) in &tally.revisions {
        let same = if revision == policy.revision { "the same policy" } else { "policy" };
        let named = if revision == policy.revision { "" } else { revision };
        writeln!(text, "  {count} decisions were made by {same} {}", plain(named)).ok();
    }
    let changed = tally.compared.saturating_sub(tally.unchanged);
    writeln!(text, "{} decisions made again: {} as they were, {changed} otherwise", tally.compared, tally.unchanged)
        .ok();
    for (stage, count) in &tally.elsewhere {
        if stage == PASSED {
            writeln!(text, "{count} were passed through, and nothing was decided").ok();
            continue;
        }
        writeln!(text, "{count} were refused at {}, whatever policy says", plain(stage)).ok();
    }
    if tally.not_replayable.decisions > 0 {
        writeln!(text, "{} are not replayable:", tally.not_replayable.decisions).ok();
    }
    for (paths, count) in &tally.not_replayable.by_paths {
        let why = match policy.about {
            _ if paths.is_empty() => "cannot be read".to_owned(),
            "token" => format!("erased, or from before it was recorded: {}", plain(paths)),
            _ => format!("erased: {}", plain(paths)),
        };
        writeln!(text, "  {count} {why}").ok();
    }
    for (group, found) in tally.groups() {
        text.push_str(&change(group, found, policy.about));
    }
    for (kind, count) in &tally.ungrouped {
        writeln!(text, "\n{} of further rules, {count} {}s", title(*kind), policy.about).ok();
    }
    for met in failed {
        writeln!(text, "\nFAILED on {}", plain(met)).ok();
    }
    text
}

const fn title(change: Change) -> &'static str {
    match change {
        Change::NewDenial => "NEW DENIAL",
        Change::NewPermit => "NEW PERMIT",
        Change::NewApproval => "NEW APPROVAL",
        Change::OtherCode => "OTHER CODE",
        Change::OtherObligations => "OTHER OBLIGATIONS",
        Change::OtherReasons => "OTHER REASONS",
    }
}

fn change(group: &Group, found: &Found, about: &str) -> String {
    let mut text = String::new();
    let calls = if found.calls == 1 { format!("1 {about}") } else { format!("{} {about}s", found.calls) };
    writeln!(text, "\n{}  {} at {}, {calls}", title(group.change), group.action, group.tool).ok();
    for (label, answer) in [("then", &group.then), ("now", &group.now)] {
        let code = answer.code.map(|code| format!(" {code}")).unwrap_or_default();
        let rules: Vec<String> =
            answer.rules.iter().map(|rule| format!("{} by {}", plain(&rule.code), plain(&rule.source))).collect();
        let rules = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
        writeln!(text, "  {label:<8} {}{code}: {rules}", answer.decision.to_uppercase()).ok();
        for obligation in &answer.obligations {
            writeln!(text, "           {}", plain(obligation)).ok();
        }
    }
    for (label, names) in [("people", &found.people), ("agents", &found.agents)] {
        let mut counts: Vec<_> = names.counts.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let shown: Vec<String> =
            counts.iter().take(SHOWN).map(|(name, count)| format!("{} ({count})", plain(name))).collect();
        let mut line = shown.join(", ");
        let more = counts.len().saturating_sub(SHOWN);
        if more > 0 {
            line.push_str(&format!(", and {more} more"));
        }
        if names.others > 0 {
            line.push_str(&format!(", and others ({})", names.others));
        }
        writeln!(text, "  {label:<8} {line}").ok();
    }
    for example in &found.examples {
        let said = example.said.as_deref().map(|said| format!("  {}", plain(said))).unwrap_or_default();
        writeln!(text, "  e.g.     {}  {}{said}", example.decision_id, example.time).ok();
    }
    text
}
