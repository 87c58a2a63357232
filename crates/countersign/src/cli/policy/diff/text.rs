//! The differences of a candidate for a person: a table, and the sum it is of.

use std::{collections::BTreeSet, fmt::Write};

use policy::replay::{Answer, Found, Group, Names};
use serde_json::{Value, json};

use super::{super::replay::ALL, read::OfCandidate};
use crate::{cli::explain::plain, management::table::table};

const COLUMNS: [(&str, &str); 9] = [
    ("ACTION", "/action"),
    ("TOOL", "/tool"),
    ("DECIDED", "/then"),
    ("CANDIDATE", "/now"),
    ("BY", "/by"),
    ("CALLS", "/calls"),
    ("PEOPLE", "/people"),
    ("AGENTS", "/agents"),
    ("FOR EXAMPLE", "/like"),
];

pub(super) fn for_person(found: Option<&OfCandidate>, others: usize, failed: &[String]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    match found {
        Some(found) => text.push_str(&of(found)),
        None => text.push_str("No policy candidate is on record in that time.\n"),
    }
    if others > 0 {
        writeln!(text, "\n{others} earlier candidates are on record in that time: --candidate REVISION").ok();
    }
    for met in failed {
        writeln!(text, "\nFAILED on {}", plain(met)).ok();
    }
    text
}

fn of(found: &OfCandidate) -> String {
    let mut text = String::new();
    writeln!(text, "candidate {}", plain(&found.revision)).ok();
    for active in &found.active {
        writeln!(text, "  beside  {}", plain(active)).ok();
    }
    if let (Some(from), Some(to)) = (found.from, found.to) {
        writeln!(text, "  from    {from} to {to}").ok();
    }
    let changed = found.tally.changed(&ALL, &BTreeSet::new());
    let all = found.tally.compared;
    writeln!(text, "{all} calls compared: {} alike, {changed} otherwise", all.saturating_sub(changed)).ok();
    if found.dropped > 0 {
        writeln!(text, "{} were not compared: the candidate was too slow for them", found.dropped).ok();
    }
    if found.unrecorded > 0 {
        writeln!(text, "{} further differences were counted and are not in the table", found.unrecorded).ok();
    }
    let groups = found.tally.groups();
    if !groups.is_empty() {
        let rows: Vec<Value> = groups.into_iter().map(|(group, calls)| row(group, calls)).collect();
        write!(text, "\n{}", table(&COLUMNS, &rows)).ok();
        text.push_str("\n`countersign explain ID` says what both rested on.\n");
    }
    for (change, calls) in &found.tally.ungrouped {
        writeln!(text, "{} of further rules, {calls} calls", change.as_str()).ok();
    }
    text
}

fn row(group: &Group, found: &Found) -> Value {
    let rules: Vec<String> =
        group.now.rules.iter().map(|rule| format!("{} by {}", plain(&rule.code), plain(&rule.source))).collect();
    let rules = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
    let mut obliged = group.now.obligations.iter().map(|one| plain(one)).collect::<Vec<_>>();
    obliged.insert(0, rules);
    json!({
        "action": group.action,
        "tool": group.tool,
        "then": answer(&group.then),
        "now": answer(&group.now),
        "by": obliged.join("; "),
        "calls": found.calls,
        "people": count(&found.people),
        "agents": count(&found.agents),
        "like": found.examples.first().map(|example| &example.decision_id),
    })
}

fn answer(answer: &Answer) -> String {
    match answer.code {
        Some(code) if code.as_str() != answer.decision => format!("{} {code}", answer.decision),
        _ => answer.decision.to_owned(),
    }
}

/// How many there are; where some are not named, at least so many.
fn count(names: &Names) -> String {
    let more = if names.others > 0 { "+" } else { "" };
    format!("{}{more}", names.counts.len())
}
