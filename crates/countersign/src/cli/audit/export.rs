//! `countersign audit export`: the ledger as other systems read events, one JSON object a line.

use std::{collections::HashMap, process::ExitCode};

use audit::{
    Entry,
    export::{Beside, Format, event},
    query::Filter,
    rebuild,
    record::kind,
};
use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::{SpanArgs, matching};
use crate::{
    cli::ledger::{LedgerPlace, Whence},
    environment::Environment,
    failure::Failure,
    output::{Output, Reader},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to write: `otlp` log events, `ocsf` API Activity (6003), or `opa`'s decision log.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Written,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    place: LedgerPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    Otlp,
    Ocsf,
    Opa,
}

impl From<Written> for Format {
    fn from(written: Written) -> Self {
        match written {
            Written::Otlp => Self::Otlp,
            Written::Ocsf => Self::Ocsf,
            Written::Opa => Self::Opa,
        }
    }
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let whence = args.place.whence(environment)?;
    let now = net::clock::now();
    let (from, to) = (args.span.from(now), args.span.to(now));
    let mut output = Output::new();
    // All of it: a token may have been seen before the time that is asked for. Each ledger has tokens of its own.
    let ledgers: Vec<Box<dyn Iterator<Item = Result<Entry, Failure>>>> = match &whence {
        Whence::Directory(_) => vec![matching(&whence, Filter::default())?],
        Whence::Authority(remote) => {
            remote.ledgers()?.iter().map(|id| Box::new(remote.of(id, &Filter::default(), 0)) as _).collect()
        }
    };
    for entries in ledgers {
        if write(entries, args, (from, to), &mut output)? == Reader::Gone {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what one ledger has of the time.
fn write(
    entries: impl Iterator<Item = Result<Entry, Failure>>,
    args: &Args,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    output: &mut Output,
) -> Result<Reader, Failure> {
    let mut tokens = Tokens::default();
    for entry in entries {
        let entry = entry?;
        let wanted = from.is_none_or(|from| entry.time >= from) && to.is_none_or(|to| entry.time < to);
        let written = if wanted { export(args.format, &entry, &tokens) } else { None };
        if let Some(event) = written
            && output.json(&event)? == Reader::Gone
        {
            return Ok(Reader::Gone);
        }
        tokens.note(entry);
    }
    Ok(Reader::Listens)
}

fn export(format: Written, entry: &Entry, tokens: &Tokens) -> Option<Value> {
    let token = tokens.of(entry);
    // Put together only where it is written: it costs more than all the rest.
    let input = if format == Written::Opa { token.and_then(|token| input(entry, token)) } else { None };
    event(format.into(), entry, Beside { token, input: input.as_ref() })
}

/// The policy input, exactly as it was; `None` where a value of it was erased.
fn input(entry: &Entry, token: &Entry) -> Option<Value> {
    let question = rebuild::question(entry, token).ok()?;
    let input = policy::input::canonical_json(&question).ok()?;
    serde_json::from_slice(&input).ok()
}

/// The tokens of the segment that is being read: each segment has its own.
#[derive(Default)]
struct Tokens {
    segment: u64,
    seen: HashMap<String, Entry>,
}

impl Tokens {
    fn note(&mut self, entry: Entry) {
        if entry.segment != self.segment {
            self.segment = entry.segment;
            self.seen.clear();
        }
        if entry.kind == kind::TOKEN_SEEN
            && let Some(digest) = entry.text_at("/token/digest").map(str::to_owned)
        {
            self.seen.insert(digest, entry);
        }
    }

    fn of(&self, entry: &Entry) -> Option<&Entry> {
        self.seen.get(entry.text("token")?).filter(|_| entry.segment == self.segment)
    }
}
