//! `countersign audit`: the ledger for people: its last lines, what matches, whether it holds together, and how a
//! person is erased from it.

mod copies;
mod erase;
mod export;
pub(crate) mod remote;
mod span;
mod verify;

use std::{process::ExitCode, time::Duration};

use audit::{
    Entry,
    line::for_person,
    query::{Filter, query},
    tail::Tail,
};
use clap::Subcommand;
use model::Verdict;

use self::remote::Remote;
pub(crate) use self::span::SpanArgs;
use super::ledger::{LedgerPlace, Whence, unreadable};
use crate::{
    environment::Environment,
    failure::Failure,
    output::{Output, Reader},
};

/// Between two looks at a ledger that is being written.
const POLL: Duration = Duration::from_millis(250);
/// Between two questions to an authority.
const FAR_POLL: Duration = Duration::from_secs(2);

/// Read, verify and export the ledger, and erase people from it.
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
                            countersign audit query --since 2026-11-01 --until 2026-12-01 --config countersign.yaml\n  \
                            countersign audit query --user alice --from authority --authority https://countersign.example")]
    Query(QueryArgs),
    /// Check that nothing was changed, cut or added. Exits with 1 where something was, and says where.
    #[command(after_help = "Examples:\n  countersign audit verify --from ./demo/ledger\n  \
                            countersign audit verify --key ledger.vkey --head kept-elsewhere.note --from ./demo/ledger\n  \
                            countersign audit verify --from authority --authority https://countersign.example --key keys.txt\n\n\
                            Without --key the ledger's own word is taken for its key, which of a copy is the word of \
                            whoever keeps it; without --head, records at the end may be missing together with the heads \
                            that cover them.")]
    Verify(verify::Args),
    /// Erase a person: take the personal values of their records out of the ledger, for good.
    #[command(after_help = "Examples:\n  countersign audit erase --user alice --dry-run --from ./demo/ledger\n  \
                            countersign audit erase --user alice --issuer https://sso.example/realms/acme \\\n    \
                            --by 'data protection officer' --reason 'request 17 of 2026' --config countersign.yaml\n  \
                            countersign audit erase --user alice --reason 'request 17 of 2026' --from authority\n\n\
                            The records stay and the chain still verifies; what they can no longer say is named. Works \
                            beside a running sidecar, which carries it out, and without one. What others were shown of \
                            the ledger, and copies of its files, are not reached.")]
    Erase(erase::Args),
    /// Write the records as other systems read events, one JSON object a line.
    #[command(after_help = "Examples:\n  countersign audit export --format ocsf --since 24h --from ./demo/ledger\n  \
                            countersign audit export --format otlp --config countersign.yaml > events.jsonl\n\n\
                            `otlp` has every record, `ocsf` every decision on a call, `opa` every decision that policy \
                            was asked for, with its input where no value of it was erased. Personal values are in it.")]
    Export(export::Args),
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
    #[command(flatten)]
    span: SpanArgs,
    /// At most so many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// One JSON object a record.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

pub(super) fn run(args: Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Tail(args) => tail(&args, environment),
        Command::Query(args) => search(args, environment),
        Command::Verify(args) => verify::run(&args, environment),
        Command::Erase(args) => erase::run(&args, environment),
        Command::Export(args) => export::run(&args, environment),
    }
}

fn tail(args: &TailArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let directory = match args.place.whence(environment)? {
        Whence::Directory(directory) => directory,
        Whence::Authority(remote) => return tail_of(&remote, args),
    };
    let mut tail = Tail::open(&directory, args.lines).map_err(unreadable)?;
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

/// The same of everything that was shipped to an authority.
fn tail_of(remote: &Remote, args: &TailArgs) -> Result<ExitCode, Failure> {
    let mut output = Output::new();
    let (last, mut next) = remote.last(args.lines)?;
    for entry in last {
        if print(&mut output, &entry, args.json)? == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        std::thread::sleep(FAR_POLL);
        for ledger in remote.ledgers()? {
            let from = next.entry(ledger.clone()).or_default();
            for entry in remote.of(&ledger, &Filter::default(), *from) {
                let entry = entry?;
                *from = entry.seq + 1;
                if print(&mut output, &entry, args.json)? == Reader::Gone {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

fn search(args: QueryArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let whence = args.place.whence(environment)?;
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
        tenants: None,
        from: args.span.from(now),
        to: args.span.to(now),
    };
    let mut output = Output::new();
    let mut left = args.limit.unwrap_or(usize::MAX);
    for entry in matching(&whence, filter)? {
        let entry = entry?;
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

/// What matches, wherever it is read.
pub(super) fn matching<'a>(
    whence: &'a Whence,
    filter: Filter,
) -> Result<Box<dyn Iterator<Item = Result<Entry, Failure>> + 'a>, Failure> {
    Ok(match whence {
        Whence::Directory(directory) => {
            Box::new(query(directory, filter).map_err(unreadable)?.map(|entry| entry.map_err(unreadable)))
        }
        Whence::Authority(remote) => Box::new(remote.query(&filter)?),
    })
}

fn print(output: &mut Output, entry: &Entry, json: bool) -> Result<Reader, Failure> {
    if json { output.json(&entry.to_json()) } else { output.line(&for_person(entry)) }
}

fn verdict(text: &str) -> Result<Verdict, String> {
    [Verdict::Permit, Verdict::Deny, Verdict::ApprovalRequired]
        .into_iter()
        .find(|verdict| verdict.as_str() == text)
        .ok_or_else(|| "write permit, deny or approval_required".to_owned())
}
