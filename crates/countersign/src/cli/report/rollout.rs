//! `countersign report rollout`: how far each action has come from being passed through to being observed to being
//! enforced, and what enforcing it now would refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use audit::{Entry, query::Filter, rebuild, record::kind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cli::{
        audit::{SpanArgs, matching},
        ledger::LedgerPlace,
    },
    environment::Environment,
    failure::Failure,
    management::table::table,
    output::{Output, Reader},
};

/// Which actions are passed through or only observed, and what enforcing them would refuse
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    span: SpanArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

/// The kind of record by which a change of mode is told.
const MODE_CHANGED: &str = "mode.changed";
/// The most agents that are named for one code.
const MOST_NAMED: usize = 20;

/// What was decided about one action.
#[derive(Debug, Default)]
struct Calls {
    enforced: u64,
    observed: u64,
    passed: u64,
    /// Until when calls without a token of ours are passed through.
    passed_until: Option<Timestamp>,
    /// Of those that were observed, what enforcing would have refused, by the code of the first refusal.
    refused: BTreeMap<String, Refused>,
    until: Option<Timestamp>,
    last: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Refused {
    calls: u64,
    agents: BTreeSet<String>,
    like: String,
}

impl Calls {
    fn add(&mut self, entry: &Entry) {
        self.last = self.last.max(Some(entry.time));
        if rebuild::is_passed_through(entry) {
            self.passed += 1;
            self.passed_until = entry.text_at("/passthrough/until").and_then(|text| text.parse().ok());
            return;
        }
        if entry.text("mode") != Some("observe") {
            self.enforced += 1;
            // What is never waived is refused in either mode; what goes by enforcing shows that observing ended.
            if entry.text("decision") == Some("permit") {
                self.until = None;
            }
            return;
        }
        self.observed += 1;
        let until = entry.text_at("/observed/until").and_then(|text| text.parse().ok());
        self.until = until.or(self.until);
        let Some(code) = rebuild::waived(entry) else { return };
        let refused = self.refused.entry(code.to_owned()).or_default();
        refused.calls += 1;
        if let Some(agent) = entry.text_at("/agent/id")
            && refused.agents.len() < MOST_NAMED
        {
            refused.agents.insert(agent.to_owned());
        }
        entry.text("decision_id").unwrap_or_default().clone_into(&mut refused.like);
    }

    /// The rung of the ladder that it stands on, by the last of its calls: the lowest, where some show a token and some
    /// do not.
    fn rung(&self, now: Timestamp) -> u8 {
        if self.passed_until.is_some_and(|until| now < until) {
            return 0;
        }
        if self.until.is_some_and(|until| now < until) { 4 } else { 5 }
    }

    fn to_json(&self, tool: &str, action: Option<&str>, now: Timestamp) -> Value {
        let refused = self.refused.iter().map(|(code, refused)| {
            json!({ "code": code, "calls": refused.calls, "agents": refused.agents, "like": refused.like })
        });
        let would: u64 = self.refused.values().map(|refused| refused.calls).sum();
        json!({
            "tool": tool,
            "action": action,
            "rung": self.rung(now),
            "until": self.passed_until.filter(|until| now < *until).or(self.until),
            "enforced": self.enforced,
            "observed": self.observed,
            "passed": self.passed,
            "would_refuse": would,
            "refused": refused.collect::<Vec<_>>(),
            "last": self.last,
        })
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let whence = args.place.whence(environment)?;
    let now = net::clock::now();
    let filter = Filter {
        kind: Some(kind::CALL_DECIDED.to_owned()),
        from: args.span.from(now),
        to: args.span.to(now),
        ..Filter::default()
    };
    let mut actions: BTreeMap<(String, Option<String>), Calls> = BTreeMap::new();
    for entry in matching(&whence, filter.clone())? {
        let entry = entry?;
        let (tool, action) = (entry.text("tool"), entry.text("action"));
        // A call that was refused before it was known for anything is no action's; one that was passed through went.
        if let Some(tool) = tool.filter(|_| action.is_some() || rebuild::is_passed_through(&entry)) {
            actions.entry((tool.to_owned(), action.map(str::to_owned))).or_default().add(&entry);
        }
    }
    for entry in matching(&whence, Filter { kind: Some(MODE_CHANGED.to_owned()), ..filter })? {
        changed(&entry?, &mut actions);
    }
    let rows: Vec<Value> =
        actions.iter().map(|((tool, action), calls)| calls.to_json(tool, action.as_deref(), now)).collect();
    let mut output = Output::new();
    if args.json {
        for row in &rows {
            if output.json(row)? == Reader::Gone {
                break;
            }
        }
    } else {
        let _reader = output.write(&text(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of passing a tool's calls through: it goes on until another date, or no longer.
fn changed(entry: &Entry, actions: &mut BTreeMap<(String, Option<String>), Calls>) {
    let (Some(tool), None) = (entry.text("tool"), entry.text("action")) else { return };
    let until = entry.text("until").and_then(|text| text.parse().ok());
    let except = entry.fields.get("except").and_then(Value::as_array);
    let excepted = |action: &Option<String>| {
        let mut except = except.into_iter().flatten().filter_map(Value::as_str);
        action.as_deref().is_some_and(|action| except.any(|name| name == action))
    };
    let of_it = actions.iter_mut().filter(|((of, _), calls)| of == tool && calls.passed > 0);
    for ((_, action), calls) in of_it {
        calls.passed_until = if excepted(action) { None } else { until };
    }
}

fn text(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "There is no decision on any action here.\n".to_owned();
    }
    let columns = [
        ("TOOL", "/tool"),
        ("ACTION", "/action"),
        ("RUNG", "/rung"),
        ("UNTIL", "/until"),
        ("PASSED", "/passed"),
        ("ENFORCED", "/enforced"),
        ("OBSERVED", "/observed"),
        ("WOULD REFUSE", "/would_refuse"),
    ];
    let mut text = table(&columns, rows);
    let would: Vec<Value> = rows.iter().flat_map(refusals).collect();
    if !would.is_empty() {
        let columns = [
            ("ACTION", "/action"),
            ("CODE", "/code"),
            ("CALLS", "/calls"),
            ("AGENTS", "/agents"),
            ("FOR EXAMPLE", "/like"),
        ];
        text.push_str("\nEnforcing would have refused:\n\n");
        text.push_str(&table(&columns, &would));
        text.push_str("\n`countersign explain ID` says why.\n");
    }
    text
}

fn refusals(row: &Value) -> Vec<Value> {
    let action = row.get("action").cloned().unwrap_or_default();
    let refused = row.get("refused").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |mut refused: Value| {
        if let Some(members) = refused.as_object_mut() {
            members.insert("action".to_owned(), action.clone());
        }
        refused
    };
    refused.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: &str, code: Option<&str>) -> Entry {
        let waived: Vec<_> = code.iter().map(|code| json!({"stage": "decide", "code": code})).collect();
        let fields = json!({
            "mode": mode, "decision": "permit", "decision_id": "L.1", "agent": {"kind": "agent", "id": "support-v2"}, "tool": "orders",
            "action": "refunds.create",
            "observed": {"rung": 4, "until": "2026-12-01T00:00:00Z", "waived": waived},
        });
        Entry {
            segment: 1,
            seq: 1,
            time: "2026-11-22T10:00:00Z".parse().unwrap(),
            kind: kind::CALL_DECIDED.to_owned(),
            fields: fields.as_object().unwrap().clone(),
            erased: Vec::new(),
        }
    }

    #[test]
    fn an_action_counts_what_enforcing_would_refuse_and_stands_on_a_rung() {
        let mut calls = Calls::default();
        calls.add(&entry("enforce", None));
        calls.add(&entry("observe", None));
        calls.add(&entry("observe", Some("policy_denied")));
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        let row = calls.to_json("orders", Some("refunds.create"), now);
        assert_eq!((&row["enforced"], &row["observed"], &row["would_refuse"]), (&json!(1), &json!(2), &json!(1)));
        assert_eq!((&row["rung"], &row["refused"][0]["agents"]), (&json!(4), &json!(["support-v2"])));
        assert!(text(&[row]).contains("refunds.create  policy_denied"));
        assert_eq!(calls.rung("2026-12-01T00:00:00Z".parse().unwrap()), 5);
        calls.add(&entry("enforce", None));
        assert_eq!(calls.rung(now), 5, "its last call was enforced");
    }

    #[test]
    fn a_call_that_was_passed_through_puts_its_action_on_the_lowest_rung_until_that_is_changed() {
        let passed = |entry: Entry| {
            let mut entry = entry;
            entry.fields.insert("passthrough".to_owned(), json!({ "until": "2026-12-01T00:00:00Z" }));
            entry.fields.insert("mode".to_owned(), json!("passthrough"));
            entry
        };
        let mut actions = BTreeMap::new();
        for action in ["refunds.create", "orders.read"] {
            let calls: &mut Calls = actions.entry(("orders".to_owned(), Some(action.to_owned()))).or_default();
            calls.add(&passed(entry("passthrough", None)));
            calls.add(&entry("enforce", None));
        }
        let rungs = |actions: &BTreeMap<_, Calls>, now: &str| -> Vec<u8> {
            actions.values().map(|calls| calls.rung(now.parse().unwrap())).collect()
        };
        let (before, after) = ("2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z");
        assert_eq!((rungs(&actions, before), rungs(&actions, after)), (vec![0, 0], vec![5, 5]));
        let mut change = entry("passthrough", None);
        change.fields = json!({ "tool": "orders", "mode": "passthrough", "until": after, "except": ["orders.read"] })
            .as_object()
            .unwrap()
            .clone();
        changed(&change, &mut actions);
        assert_eq!(rungs(&actions, before), [5, 0], "by name: orders.read, refunds.create");
        change.fields = json!({ "tool": "orders", "mode": "enforce" }).as_object().unwrap().clone();
        changed(&change, &mut actions);
        assert_eq!(rungs(&actions, before), [5, 5]);
    }
}
