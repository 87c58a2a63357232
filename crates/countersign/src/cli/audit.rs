//! `countersign audit`: the ledger for people: its last lines, what matches, and whether it holds together.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use audit::{
    Entry, VerifyingKey,
    line::for_person,
    query::{Filter, query},
    tail::Tail,
    verify::{Options, Progress, Report, VerifyError, verify},
};
use clap::Subcommand;
use jiff::Timestamp;
use model::{Verdict, duration::ConfigDuration};
use serde_json::json;

use super::ledger::{LedgerPlace, unreadable};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::{Output, Reader},
};

/// Between two looks at a ledger that is being written.
const POLL: Duration = Duration::from_millis(250);

/// Read and verify the ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign audit tail -f --config countersign.yaml\n  \
                        countersign audit query --run 0198… --from ./demo/ledger\n  \
                        countersign audit verify --from ./demo/ledger --key ledger.vkey")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the last records.
    #[command(after_help = "Examples:\n  countersign audit tail --from ./demo/ledger\n  \
                            countersign audit tail -f -n 0 --json --config countersign.yaml")]
    Tail(TailArgs),
    /// Show the records that match everything asked for, oldest first.
    #[command(after_help = "Examples:\n  countersign audit query --user alice --since 24h --from ./demo/ledger\n  \
                            countersign audit query --decision deny --code limit_exceeded --json --from ./demo/ledger\n  \
                            countersign audit query --since 2026-11-01 --until 2026-12-01 --config countersign.yaml")]
    Query(QueryArgs),
    /// Check that nothing was changed, cut or added. Exits with 1 where something was, and says where.
    #[command(after_help = "Examples:\n  countersign audit verify --from ./demo/ledger\n  \
                            countersign audit verify --key ledger.vkey --head kept-elsewhere.note --from ./demo/ledger\n\n\
                            Without --key the ledger's own word is taken for its key; without --head, records at the \
                            end may be missing together with the heads that cover them.")]
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct TailArgs {
    /// Go on as records come.
    #[arg(short, long)]
    follow: bool,
    /// How many records to begin with.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// One JSON object a record.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    /// Of this run.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// For this user: `alice`, or as records show it, `user:alice@acme`.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// By this agent, anywhere in the chain.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Of this action.
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// At this tool.
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// Refused with this code.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Decided so: permit, deny or approval_required.
    #[arg(long, value_name = "VERDICT", value_parser = verdict)]
    decision: Option<Verdict>,
    /// Of this kind: `call.decided`, `token.issued`.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Not before this time: `2026-11-22T14:00:00Z`, `2026-11-22`, or `15m` ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Before this time.
    #[arg(long, visible_alias = "to", value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// At most so many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// One JSON object a record.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The key that the ledger has to be signed with: the key's text (`name+…`), or a file that holds it.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A head that was kept outside the ledger (a signed note); may be given several times.
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

/// A time on the command line.
#[derive(Debug, Clone, Copy)]
enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    fn timestamp(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(timestamp) => Some(timestamp),
            Self::Ago(duration) => now.checked_sub(duration).ok(),
        }
    }
}

pub(super) fn run(args: Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Tail(args) => tail(&args, environment),
        Command::Query(args) => search(args, environment),
        Command::Verify(args) => check(&args, environment),
    }
}

fn tail(args: &TailArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let mut tail = Tail::open(&args.place.directory(environment)?, args.lines).map_err(unreadable)?;
    let mut output = Output::new();
    loop {
        match tail.next().map_err(unreadable)? {
            Some(entry) => {
                if print(&mut output, &entry, args.json)? == Reader::Gone {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            None if args.follow => std::thread::sleep(POLL),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn search(args: QueryArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let directory = args.place.directory(environment)?;
    let now = net::clock::now();
    let filter = Filter {
        run: args.run,
        user: args.user,
        agent: args.agent,
        action: args.action,
        tool: args.tool,
        decision: None,
        verdict: args.decision,
        kind: args.kind,
        from: args.since.and_then(|moment| moment.timestamp(now)),
        to: args.until.and_then(|moment| moment.timestamp(now)),
    };
    let mut output = Output::new();
    let mut left = args.limit.unwrap_or(usize::MAX);
    for entry in query(&directory, filter).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if args.code.as_deref().is_some_and(|code| entry.text("code") != Some(code)) {
            continue;
        }
        if left == 0 || print(&mut output, &entry, args.json)? == Reader::Gone {
            break;
        }
        left -= 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(output: &mut Output, entry: &Entry, json: bool) -> Result<Reader, Failure> {
    if json { output.json(&entry.to_json()) } else { output.line(&for_person(entry)) }
}

fn check(args: &VerifyArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let directory = args.place.directory(environment)?;
    let mut options = Options { key: args.key.as_deref().map(key).transpose()?, ..Options::default() };
    for path in &args.head {
        let note = std::fs::read_to_string(path)
            .map_err(|error| Failure::because(Exit::Usage, format!("cannot read {}", path.display()), error))?;
        options.heads.push(note);
    }
    let mut bar = Bar::new();
    let outcome = verify(&directory, &options, |progress| bar.show(progress));
    bar.clear();
    let mut output = Output::new();
    match outcome {
        Ok(report) => {
            let _reader = if args.json {
                output.json(&json!({ "ok": true, "report": report }))?
            } else {
                output.write(&report_text(&report))?
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

fn key(given: &str) -> Result<VerifyingKey, Failure> {
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(_) => given.to_owned(),
    };
    text.trim().parse().map_err(|error| {
        Failure::because(Exit::Usage, "--key is neither a verifying key nor a file that holds one", error)
    })
}

fn report_text(report: &Report) -> String {
    let mut text = format!(
        "ok: {} records in {} segments hold together; {} signed heads and {} values match\n",
        report.records, report.segments, report.heads, report.values
    );
    if report.erased > 0 {
        text.push_str(&format!("{} values were erased\n", report.erased));
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
    match report.lines_after_outside_head {
        Some(lines) => text.push_str(&format!("{lines} records follow the last head from outside\n")),
        None => text.push_str("tail not checked: no head from outside was given\n"),
    }
    text
}

/// How far a verification is, on a terminal that somebody watches.
struct Bar {
    shown: bool,
    percent: u64,
}

impl Bar {
    fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), percent: u64::MAX }
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

fn verdict(text: &str) -> Result<Verdict, String> {
    [Verdict::Permit, Verdict::Deny, Verdict::ApprovalRequired]
        .into_iter()
        .find(|verdict| verdict.as_str() == text)
        .ok_or_else(|| "write permit, deny or approval_required".to_owned())
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(Moment::At(timestamp));
    }
    if let Ok(timestamp) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(Moment::At(timestamp));
    }
    text.parse::<ConfigDuration>()
        .map(|duration| Moment::Ago(duration.0))
        .map_err(|_| "write a time (2026-11-22T14:00:00Z), a day (2026-11-22, UTC) or how long ago (15m)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_days_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T11:00:00Z", "2026-11-22T11:00:00Z"),
            ("2026-11-22T12:00:00+01:00", "2026-11-22T11:00:00Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("15m", "2026-11-22T11:45:00Z"),
        ] {
            assert_eq!(moment(text).unwrap().timestamp(now), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "yesterday", "15", "2026-13-01"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
