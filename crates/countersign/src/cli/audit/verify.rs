//! `countersign audit verify`: whether the ledger holds together, and where not; in a directory, or in the copies that an
//! authority keeps.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use audit::{
    Head, VerifyingKey, heads, ledger_id,
    verify::{Amended, Broken, Options, Progress, Report, VerifyError, verify, verify_files},
};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::{copies::CopyOf, remote::Remote};
use crate::{
    cli::{
        ledger::{LedgerPlace, Whence, unreadable},
        progress::Bar,
    },
    environment::Environment,
    failure::{Exit, Failure},
    management::segment,
    output::Output,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key that the ledger has to be signed with: the key's text (`name+…`), or a file that holds it. Of an
    /// authority's copies, a file of the keys of all that are verified, one a line.
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
    /// The directory is an authority's copy: what that authority took away at its own word (its retention, an erasure)
    /// may be missing, and is said to be.
    #[arg(long)]
    copy: bool,
    /// Of an authority's copies, only that of this ledger. May be given several times.
    #[arg(long, value_name = "LEDGER")]
    only: Vec<String>,
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
    let mut heads = Vec::new();
    for path in &args.head {
        heads.extend(notes(path)?);
    }
    let directory = match args.place.whence(environment)? {
        Whence::Directory(directory) => directory,
        Whence::Authority(remote) => return copies(args, &remote, &heads),
    };
    if !args.only.is_empty() {
        return Err(Failure::new(Exit::Usage, "--only is for an authority's copies (--from authority)"));
    }
    let key = args.key.as_deref().map(key).transpose()?;
    let amended = if args.copy { Amended::read(&directory).map_err(unreadable)? } else { Amended::default() };
    let mut options = Options { key, heads, amended };
    if args.heads_from.is_some() {
        anchored(args, &directory, &mut options, environment)?;
    }
    let mut bar = Bar::new("verifying", args.json);
    let outcome = verify(&directory, &options, |progress| show(&mut bar, progress));
    bar.clear();
    let whole = say(args.json, None, outcome)?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Verifies the copies that an authority keeps, each by itself.
fn copies(args: &Args, remote: &Remote, heads: &[String]) -> Result<ExitCode, Failure> {
    let usage = |line: &str| Err(Failure::new(Exit::Usage, line));
    if args.heads_from.is_some() {
        return usage(
            "--heads-from authority is for a ledger that lies elsewhere: of its own copies it proves nothing",
        );
    }
    let keys = args.key.as_deref().map(keys).transpose()?;
    let heads = of_those(&args.only, heads)?;
    let shown = remote.ledgers()?;
    let ledgers = if args.only.is_empty() { &shown } else { &args.only };
    if ledgers.is_empty() {
        return Err(Failure::new(Exit::Unavailable, "the authority shows you no ledger"));
    }
    // An authority that shows less than there is shall not look whole.
    let mut named = keys.iter().flatten().map(VerifyingKey::name).chain(heads.iter().map(|(name, _)| name.as_str()));
    let missing = named.find(|name| args.only.is_empty() && !shown.iter().any(|ledger| origin(ledger) == *name));
    if let Some(name) = missing {
        let line = format!("the authority shows you no copy of {name}, of which a key or a head was given");
        return Err(Failure::new(Exit::Failed, line));
    }
    let mut whole = true;
    for ledger in ledgers {
        let key = match &keys {
            None => None,
            Some(keys) => Some(keys.iter().find(|key| key.name() == origin(ledger)).cloned().ok_or_else(|| {
                Failure::new(Exit::Usage, format!("no key of the ledger {ledger} was given: say which with --only"))
            })?),
        };
        let own = heads.iter().filter(|(name, _)| *name == origin(ledger));
        let heads = own.map(|(_, note)| (*note).to_owned()).collect();
        whole &= copy(args, remote, ledger, Options { key, heads, amended: Amended::default() })?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the copy of `ledger` holds together.
fn copy(args: &Args, remote: &Remote, ledger: &str, options: Options) -> Result<bool, Failure> {
    let copy = CopyOf::new(remote.client(), ledger)?;
    if copy.is_empty() {
        let line = format!("nothing of the ledger {ledger} was shipped");
        if !args.only.is_empty() || options.key.is_some() || !options.heads.is_empty() {
            return Err(Failure::new(Exit::Failed, line));
        }
        let mut output = Output::new();
        let _reader = if args.json {
            output.json(&json!({ "ledger": ledger, "ok": true, "shipped": false }))?
        } else {
            output.line(&line)?
        };
        return Ok(true);
    }
    let options = Options { amended: copy.amended()?, ..options };
    let mut bar = Bar::new("verifying", args.json);
    let outcome = verify_files(&copy, &options, |progress| show(&mut bar, progress));
    bar.clear();
    if let Some(failure) = copy.failed() {
        return Err(failure);
    }
    // A copy of another ledger may be as whole as can be.
    let outcome = outcome.and_then(|report| match report.verifying_key.strip_prefix(&origin(ledger)) {
        Some(rest) if rest.starts_with('+') => Ok(report),
        _ => Err(VerifyError::Broken(Broken::new(format!("it is the ledger of {}", report.verifying_key)))),
    });
    say(args.json, Some(ledger), outcome)
}

/// What the heads of `ledger` are signed under.
fn origin(ledger: &str) -> String {
    format!("countersign/ledger/{ledger}")
}

/// Each of `notes`, and whose head it is, all of the ledgers of `only` where some are named: nobody shall take for
/// compared what is left out.
fn of_those<'a>(only: &[String], notes: &'a [String]) -> Result<Vec<(String, &'a str)>, Failure> {
    let heads = notes.iter().map(|note| of(note)).collect::<Result<Vec<_>, _>>()?;
    let left_out = |name: &str| !only.is_empty() && !only.iter().any(|ledger| origin(ledger) == name);
    match heads.iter().find(|(name, _)| left_out(name)) {
        Some((name, _)) => {
            Err(Failure::new(Exit::Usage, format!("--head holds a head of {name}, which --only leaves out")))
        }
        None => Ok(heads),
    }
}

/// Whose head `note` is, and the note.
fn of(note: &str) -> Result<(String, &str), Failure> {
    let head = Head::unverified(note);
    let head = head.map_err(|error| Failure::because(Exit::Usage, "--head holds what is no signed head", error))?;
    Ok((head.origin, note))
}

/// Says what was found, of `ledger` where there are several; whether it holds together.
fn say(json: bool, ledger: Option<&str>, outcome: Result<Report, VerifyError>) -> Result<bool, Failure> {
    let mut output = Output::new();
    let whole = match outcome {
        Ok(report) => Ok(report),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(VerifyError::Unreadable(error)) => return Err(unreadable(error)),
    };
    let ok = whole.is_ok();
    if json {
        let mut object = Map::new();
        if let Some(ledger) = ledger {
            object.insert("ledger".to_owned(), ledger.into());
        }
        object.insert("ok".to_owned(), ok.into());
        let (name, found) = match &whole {
            Ok(report) => ("report", json!(report)),
            Err(broken) => ("broken", json!(broken)),
        };
        object.insert(name.to_owned(), found);
        let _reader = output.json(&object)?;
        return Ok(ok);
    }
    if let Some(ledger) = ledger {
        let _reader = output.line(&format!("ledger {ledger}"))?;
    }
    let _reader = match &whole {
        Ok(report) => output.write(&text(report))?,
        Err(broken) => output.line(&format!("BROKEN: {broken}"))?,
    };
    Ok(ok)
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
    match keys(given)?.as_slice() {
        [key] => Ok(key.clone()),
        several => Err(Failure::new(Exit::Usage, format!("--key holds {} keys, and a ledger has one", several.len()))),
    }
}

/// The key that was given, or those in the file that was.
fn keys(given: &str) -> Result<Vec<VerifyingKey>, Failure> {
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(_) => given.to_owned(),
    };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::parse);
    keys.collect::<Result<_, _>>().map_err(|error| {
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
    let text = format!("{text}\n");
    let (notes, whole) = heads::notes(&text);
    if text.get(whole..).is_some_and(|rest| !rest.trim().is_empty()) {
        return Err(Failure::new(Exit::Usage, format!("{} ends with what is no whole note", path.display())));
    }
    Ok(notes)
}

/// What nothing that was signed accounts for.
const BY_THE_KEEPER: &str = "at the word of whoever keeps this copy alone";

fn text(report: &Report) -> String {
    let mut text = format!(
        "ok: {} records in {} segments hold together; {} signed heads and {} values match\n",
        report.records, report.segments, report.heads, report.values
    );
    if report.retired_segments > 0 {
        let whose = if report.retired_by_keeper { BY_THE_KEEPER } else { "on record" };
        text.push_str(&format!(
            "it begins with record {}: {} segments before it were retired, {whose}\n",
            report.retired_records, report.retired_segments
        ));
    }
    let on_record = report.erased.saturating_sub(report.erased_by_keeper);
    for (erased, whose) in [(on_record, "on record"), (report.erased_by_keeper, BY_THE_KEEPER)] {
        if erased > 0 {
            text.push_str(&format!("{erased} values were erased, {whose}\n"));
        }
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

/// How far the verification is.
fn show(bar: &mut Bar, progress: Progress) {
    bar.show(progress.bytes, progress.of, format_args!("{} records", progress.records));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_would_not_be_compared_is_a_mistake_of_whoever_gave_it() {
        let note = |ledger: &str| format!("{}\n7\n{}=\n\n", origin(ledger), "A".repeat(43));
        let heads = [note("one"), note("other")];
        let (one, both) = (["one".to_owned()], ["one".to_owned(), "other".to_owned()]);
        assert_eq!(of_those(&[], &heads).unwrap().len(), 2);
        assert_eq!(of_those(&both, &heads).unwrap(), [(origin("one"), &*heads[0]), (origin("other"), &*heads[1])]);
        assert!(of_those(&one, &heads).unwrap_err().to_string().contains("countersign/ledger/other"));
        for hostile in ["", "countersign/ledger/one\n", "a file of something else\n\n"] {
            assert!(of_those(&one, &[hostile.to_owned()]).is_err(), "{hostile}");
        }
    }
}
