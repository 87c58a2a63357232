//! `countersign report unmapped`: calls that no action was found for, grouped by what they have in common, and the actions
//! that a person may want to make of them.

mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use audit::{Entry, query::Filter, record::kind};
use jiff::Timestamp;
use model::{CanonicalPath, Catalogue, Code};
use serde_json::{Value, json};

use self::paths::{Paths, Seen};
use crate::{
    cli::{
        audit::{SpanArgs, matching},
        ledger::LedgerPlace,
        policy::sources::catalogue,
        tools::{
            draft::{Draft, DraftTool},
            names::{Subject, assign, resource},
            trial,
            write::Writing,
        },
    },
    environment::Environment,
    failure::Failure,
    management::table::table,
    output::{Output, Reader},
};

/// Which calls no action was found for, and the actions that could be made of them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign report unmapped --config countersign.yaml --since 7d\n  \
                        countersign report unmapped --config countersign.yaml --since 7d --yaml > suggested.yaml\n  \
                        countersign report unmapped --from authority --json\n\n\
                        What looks like the name of one thing in a path is shown as a variable. With --config, what its \
                        tools have an action for meanwhile is left out.")]
pub(super) struct Args {
    #[command(flatten)]
    span: SpanArgs,
    /// Print actions to review, as a configuration has them.
    #[arg(long, conflicts_with = "json")]
    yaml: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

/// The most agents that are named for one path.
const MOST_NAMED: usize = 20;

/// What is left over from looking at the ledger.
#[derive(Debug, Default)]
struct Report {
    /// By tool; `None` for what addresses none.
    paths: BTreeMap<Option<String>, Paths>,
    /// Those whose path was erased.
    erased: u64,
    /// Those that have an action meanwhile, or one for tenants that theirs is none of.
    mapped: u64,
}

impl Report {
    fn add(&mut self, entry: &Entry, catalogue: Option<&Catalogue>) {
        let method = entry.text("method").unwrap_or("-");
        let Some(path) = entry.text("path").and_then(|path| CanonicalPath::parse(path).ok()) else {
            self.erased += 1;
            return;
        };
        let (tool, rest) = match catalogue {
            Some(catalogue) => match catalogue.tool_at(&path) {
                Some((tool, rest)) if tool.action_for(method, &rest).is_some() => {
                    self.mapped += 1;
                    return;
                }
                Some((tool, rest)) => (Some(tool.id.to_string()), rest),
                None => (None, path),
            },
            // Without a catalogue nobody knows where a tool's address ends.
            None => (None, path),
        };
        let seen = Seen {
            calls: 1,
            // Of what was passed through, the agent that it is said to be.
            agents: entry
                .text_at("/agent/id")
                .or(entry.text_at("/asserted/agent"))
                .map(str::to_owned)
                .into_iter()
                .collect(),
            last: Some(entry.time),
            like: entry.text("decision_id").unwrap_or_default().to_owned(),
        };
        self.paths.entry(tool).or_default().add(method, rest.segments(), seen);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (tool, paths) in &self.paths {
            let shapes = paths.shapes().into_iter();
            rows.extend(shapes.map(|((method, template), seen)| Row { tool: tool.clone(), method, template, seen }));
        }
        rows.sort_by(|a, b| {
            (b.seen.calls, &a.tool, &a.template, &a.method).cmp(&(a.seen.calls, &b.tool, &b.template, &b.method))
        });
        rows
    }

    fn dropped(&self) -> u64 {
        self.paths.values().map(Paths::dropped).sum()
    }
}

/// One kind of call.
struct Row {
    tool: Option<String>,
    method: String,
    /// Below the tool's address, where there is a tool.
    template: String,
    seen: Seen,
}

impl Row {
    fn to_json(&self) -> Value {
        let agents: BTreeSet<&String> = self.seen.agents.iter().take(MOST_NAMED).collect();
        json!({
            "tool": self.tool, "method": self.method, "path": self.template, "calls": self.seen.calls,
            "agents": agents, "last": self.seen.last, "like": self.seen.like,
        })
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let whence = args.place.whence(environment)?;
    let known = args.place.config.as_deref().map(|path| catalogue(path, environment)).transpose()?;
    let now = net::clock::now();
    let filter = Filter {
        kind: Some(kind::CALL_DECIDED.to_owned()),
        from: args.span.from(now),
        to: args.span.to(now),
        ..Filter::default()
    };
    let codes = [Code::UnmappedAction.as_str(), Code::UnknownTool.as_str()];
    let mut report = Report::default();
    for entry in matching(&whence, filter)? {
        let entry = entry?;
        if went_unmapped(&entry) || entry.text("code").is_some_and(|code| codes.contains(&code)) {
            report.add(&entry, known.as_ref());
        }
    }
    let rows = report.rows();
    let mut output = Output::new();
    if args.json {
        for row in &rows {
            if output.json(&row.to_json())? == Reader::Gone {
                break;
            }
        }
    } else if args.yaml {
        let _reader = output.write(&suggested(&rows, known.as_ref(), args.span.from(now)))?;
    } else {
        let _reader = output.write(&text(&rows, &report, known.is_some()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a call that no action was found for was passed through all the same.
fn went_unmapped(entry: &Entry) -> bool {
    entry.fields.get("passthrough").and_then(|passed| passed.get("unmapped")) == Some(&Value::Bool(true))
}

fn text(rows: &[Row], report: &Report, known: bool) -> String {
    let mut text = if rows.is_empty() {
        "No action is missing: there is no such call here.\n".to_owned()
    } else {
        let columns = [
            ("TOOL", "/tool"),
            ("METHOD", "/method"),
            ("PATH", "/path"),
            ("CALLS", "/calls"),
            ("AGENTS", "/agents"),
            ("LAST", "/last"),
            ("FOR EXAMPLE", "/like"),
        ];
        table(&columns, &rows.iter().map(Row::to_json).collect::<Vec<_>>())
    };
    let mut told = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!("\n{count} {what}\n"));
        }
    };
    told(report.mapped, "calls have an action meanwhile, or one for other tenants, and are not shown.");
    told(report.erased, "calls have no path any more: it was erased.");
    told(report.dropped(), "calls are not shown: there are too many different paths.");
    if !rows.is_empty() {
        let how = if known {
            "`--yaml` prints actions to review."
        } else {
            "With --config FILE, paths are shown below their tools, and `--yaml` prints actions to review."
        };
        text.push_str(&format!("\n{how}\n"));
    }
    text
}

/// Actions to review, for each tool.
fn suggested(rows: &[Row], catalogue: Option<&Catalogue>, since: Option<Timestamp>) -> String {
    let mut taken: BTreeSet<String> = catalogue
        .into_iter()
        .flat_map(Catalogue::tools)
        .flat_map(|tool| &tool.actions)
        .map(|action| action.id.to_string())
        .collect();
    let mut tools: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        if let Some(tool) = &row.tool {
            tools.entry(tool).or_default().push(row);
        }
    }
    let mut drafted = Vec::new();
    for (name, mut rows) in tools {
        rows.sort_by(|a, b| (&a.template, &a.method).cmp(&(&b.template, &b.method)));
        let actions = drafts(&rows, &taken);
        taken.extend(actions.iter().map(|draft| draft.name.clone()));
        drafted.push(DraftTool {
            name: name.to_owned(),
            settings: None,
            actions,
            left_out: Vec::new(),
            notes: Vec::new(),
        });
    }
    let span = since.map(|since| format!(" since {since}")).unwrap_or_default();
    let nowhere: Vec<String> =
        rows.iter().filter(|row| row.tool.is_none()).map(|row| format!("{} {}", row.method, row.template)).collect();
    let nowhere = match nowhere.first() {
        None => String::new(),
        Some(first) if catalogue.is_some() => {
            format!(" {} kinds of calls address no tool, such as {first}.", nowhere.len())
        }
        Some(_) => " Say --config FILE: without it nobody knows where a tool's address ends.".to_owned(),
    };
    let head = format!(
        "Suggested by `countersign report unmapped` from calls that were refused or passed through{span}. Whoever called may have been wrong to: \
         lines with `review` say what a person has to look at.{nowhere}"
    );
    let writing = Writing::new(&head);
    if drafted.is_empty() { writing.nothing() } else { writing.tools(&drafted) }
}

fn drafts<'r>(rows: &[&'r Row], taken: &BTreeSet<String>) -> Vec<Draft> {
    let subject =
        |row: &&'r Row| Subject { method: &row.method, template: &row.template, id: None, tag: None, many: false };
    let subjects: Vec<Subject<'_>> = rows.iter().map(subject).collect();
    let names = assign(&subjects, taken);
    let mut drafts = Vec::new();
    for ((row, subject), name) in rows.iter().zip(&subjects).zip(names) {
        let (effect, doubt) = subject.effect();
        let mut draft = Draft {
            name,
            method: row.method.clone(),
            template: row.template.clone(),
            effect,
            resource: resource(&row.template),
            parameters: BTreeMap::new(),
            idempotency: None,
            needs_additional: false,
            review: doubt.into_iter().collect(),
            from: String::new(),
        };
        let agents: Vec<&str> = row.seen.agents.iter().take(3).map(String::as_str).collect();
        draft.review.push(format!(
            "{} calls, by {}; whether anybody should. Nothing is known of its parameters: what a draft or write does not \
             declare is refused",
            row.seen.calls,
            if agents.is_empty() { "unknown agents".to_owned() } else { agents.join(", ") },
        ));
        drafts.push(draft);
    }
    drafts.retain(|draft| trial::load(draft).is_ok());
    drafts.sort_by(|a, b| a.name.cmp(&b.name));
    drafts
}

#[cfg(test)]
mod tests;
