//! `countersign audit verify`: whether the ledger holds together, and where not.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use audit::{
    VerifyingKey, heads, ledger_id,
    verify::{Options, Progress, Report, VerifyError, verify},
};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    cli::ledger::{LedgerPlace, unreadable},
    environment::Environment,
    failure::{Exit, Failure},
    management::segment,
    output::Output,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key that the ledger has to be signed with: the key's text (`name+…`), or a file that holds it.
    #[arg(long, visible_alias = "keys", value_name = "KEY")]
    key: Option<String>,
    /// A file of heads that were kept outside the ledger: one signed note, or several with an empty line after each.
    /// May be given several times.
    #[arg(long, visible_alias = "heads", value_name = "FILE")]
    head: Vec<PathBuf>,
    /// Take the key and the heads that are anchored at the authority: what they cover nobody can have rewritten since,
    /// not with the ledger's own key either.
    #[arg(long, value_name = "WHERE", value_enum)]
    heads_from: Option<HeadsFrom>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeadsFrom {
    Authority,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let directory = args.place.directory(environment)?;
    let mut options = Options { key: args.key.as_deref().map(key).transpose()?, ..Options::default() };
    for path in &args.head {
        options.heads.extend(notes(path)?);
    }
    if args.heads_from.is_some() {
        anchored(args, &directory, &mut options, environment)?;
    }
    let mut bar = Bar::new(args.json);
    let outcome = verify(&directory, &options, |progress| bar.show(progress));
    bar.clear();
    let mut output = Output::new();
    match outcome {
        Ok(report) => {
            let _reader = if args.json {
                output.json(&json!({ "ok": true, "report": report }))?
            } else {
                output.write(&text(&report))?
            };
            Ok(ExitCode::SUCCESS)
        }
        Err(VerifyError::Broken(broken)) => {
            let _reader = if args.json {
                output.json(&json!({ "ok": false, "broken": broken }))?
            } else {
                output.line(&format!("BROKEN: {broken}"))?
            };
            Ok(ExitCode::FAILURE)
        }
        Err(VerifyError::Unreadable(error)) => Err(unreadable(error)),
    }
}

/// The key and the heads that the authority has of the ledger in `directory`.
fn anchored(args: &Args, directory: &Path, options: &mut Options, environment: &Environment) -> Result<(), Failure> {
    let id = ledger_id(directory).map_err(unreadable)?;
    let client = args.place.elsewhere.client(environment)?;
    let known = client.get(&format!("/v1/ledgers/{}", segment(&id)))?;
    let strange = |what| Failure::new(Exit::Unavailable, format!("the authority's answer has no {what}"));
    let named = known.get("verifying_key").and_then(Value::as_str).ok_or_else(|| strange("key"))?;
    // Another one that was said is compared with the ledger's own word just the same.
    if options.key.is_none() {
        options.key = Some(key(named)?);
    }
    let heads = known.get("heads").and_then(Value::as_array).ok_or_else(|| strange("heads"))?;
    options.heads.extend(heads.iter().filter_map(Value::as_str).map(str::to_owned));
    Ok(())
}

fn key(given: &str) -> Result<VerifyingKey, Failure> {
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(_) => given.to_owned(),
    };
    text.trim().parse().map_err(|error| {
        Failure::because(Exit::Usage, "--key is neither a verifying key nor a file that holds one", error)
    })
}

/// The notes in the file: a note has one empty line of its own, so more of them separate several.
fn notes(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::because(Exit::Usage, format!("cannot read {}", path.display()), error))?;
    if text.trim_end().matches("\n\n").count() <= 1 {
        return Ok(vec![text]);
    }
    let (notes, _) = heads::notes(&format!("{text}\n"));
    Ok(notes)
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "ok: {} records in {} segments hold together; {} signed heads and {} values match\n",
        report.records, report.segments, report.heads, report.values
    );
    if report.retired_segments > 0 {
        text.push_str(&format!(
            "it begins with record {}: {} segments before it were retired, on record\n",
            report.retired_records, report.retired_segments
        ));
    }
    if report.erased > 0 {
        text.push_str(&format!("{} values were erased, on record\n", report.erased));
    }
    if report.unfinished_erasures > 0 {
        text.push_str(&format!(
            "{} erasures are on record whose values are still there: ask for them again\n",
            report.unfinished_erasures
        ));
    }
    if report.open_calls > 0 {
        text.push_str(&format!("{} permitted calls have not ended\n", report.open_calls));
    }
    if report.torn_bytes > 0 {
        text.push_str(&format!("{} bytes of an unfinished line at the end\n", report.torn_bytes));
    }
    text.push_str(&match report.lines_after_last_head {
        0 => "the last signed head covers every record\n".to_owned(),
        lines => format!("{lines} records follow the last signed head: a change to them would not show\n"),
    });
    if !report.key_pinned {
        text.push_str(&format!("key not pinned: taken from the ledger itself, {}\n", report.verifying_key));
    }
    if report.outside_heads_before_the_first_record > 0 {
        text.push_str(&format!(
            "{} heads from outside cover only what was retired since: nothing is left to compare them with\n",
            report.outside_heads_before_the_first_record
        ));
    }
    match report.lines_after_outside_head {
        Some(lines) => text.push_str(&format!("{lines} records follow the last head from outside\n")),
        None => text.push_str("tail not checked: no head from outside was given that covers what is there\n"),
    }
    text
}

/// How far a verification is, on a terminal that somebody watches.
struct Bar {
    shown: bool,
    percent: u64,
}

impl Bar {
    fn new(json: bool) -> Self {
        Self { shown: !json && std::io::stderr().is_terminal(), percent: u64::MAX }
    }

    fn show(&mut self, progress: Progress) {
        let percent = progress.bytes.saturating_mul(100).checked_div(progress.of).unwrap_or(100);
        if self.shown && percent != self.percent {
            self.percent = percent;
            // A terminal that went away takes nothing from the verification.
            write!(std::io::stderr(), "\rverifying {percent:>3} %  {} records", progress.records).ok();
        }
    }

    fn clear(&self) {
        if self.shown && self.percent != u64::MAX {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}
