//! `countersign audit erase`: one person's values go; by the process that writes the ledger where one runs, which takes
//! a request in the ledger's directory, and by this one where none does.

use std::{
    io::{IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use audit::{
    Ledger, LedgerError, LedgerSettings,
    erasure::{Erased, Erasure, ErasureError, Found, Person, ask, look},
    record::{Component, Started},
};
use model::{Principal, duration::ConfigDuration};
use net::Tasks;
use serde_json::{Value, json};

use super::remote::Remote;
use crate::{
    cli::ledger::{LedgerPlace, Whence, unreadable},
    environment::Environment,
    failure::{Exit, Failure},
    management::segment,
    output::Output,
};

/// Between two looks for the answer.
const POLL: Duration = Duration::from_millis(100);

/// How long to wait where nothing is said: for the process that writes the ledger, and for an authority, which reads a
/// whole copy for it.
const WAIT: Duration = Duration::from_secs(60);
const WAIT_ELSEWHERE: Duration = Duration::from_secs(600);

/// How long a ledger that was opened here may take to close.
const CLOSING: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user's id at the issuer.
    #[arg(long, value_name = "ID")]
    user: String,
    /// The issuer, where the ledger knows several people of that id.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The tenant, likewise.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Who asks for it. On record for good. An authority knows who asks.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why: a ticket, a paragraph. On record for good, so it must not name the person.
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Only say what there is.
    #[arg(long)]
    dry_run: bool,
    /// Of an authority's copies, only that of this ledger. May be given several times.
    #[arg(long, value_name = "LEDGER")]
    only: Vec<String>,
    /// How long to wait for it to be carried out: by a running sidecar or authority that writes the ledger, 60s by
    /// default; in each of an authority's copies, 10m by default.
    #[arg(long, value_name = "DURATION")]
    wait: Option<ConfigDuration>,
    /// The key that signs the ledger, where no process writes it and no configuration names the key; `ledger.key`
    /// beside the directory by default.
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: LedgerPlace,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let directory = match args.place.whence(environment)? {
        Whence::Authority(remote) => return elsewhere(args, &remote),
        Whence::Directory(_) => args.place.ledger(environment)?,
    };
    if !args.only.is_empty() {
        return Err(Failure::new(Exit::Usage, "--only is for an authority's copies (--from authority)"));
    }
    if !args.dry_run && (args.by.is_none() || args.reason.is_none()) {
        return Err(Failure::new(Exit::Usage, "say who asks for it (--by) and why (--reason)"));
    }
    let person = Person { user: args.user.clone(), issuer: args.issuer.clone(), tenant: args.tenant.clone() };
    if args.dry_run {
        let found = look(&directory, &person).map_err(unreadable)?;
        return say_found(args, &found);
    }
    owned_by_us(&directory)?;
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let erasure = Erasure::new(person, &text(&args.by), &text(&args.reason)).map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because(Exit::Unavailable, "cannot start threads", error))?;
    let erased = match runtime.block_on(here(args, &directory, erasure.clone(), environment)) {
        Err(ErasureError::Ledger(LedgerError::Locked(_))) => by_the_writer(args, &directory, &erasure)?,
        outcome => outcome.map_err(refused)?,
    };
    let mut output = Output::new();
    let _reader = if args.json {
        output.json(&json!({ "erased": erased, "salt": erasure.salt() }))?
    } else {
        output.write(&erased_text(&erased, &erasure))?
    };
    Ok(ExitCode::SUCCESS)
}

/// Erases the person from the copies that an authority keeps.
fn elsewhere(args: &Args, remote: &Remote) -> Result<ExitCode, Failure> {
    if args.by.is_some() {
        return Err(Failure::new(Exit::Usage, "the authority knows who asks: leave --by away"));
    }
    if !args.dry_run && args.reason.is_none() {
        return Err(Failure::new(Exit::Usage, "say why (--reason)"));
    }
    let ledgers = if args.only.is_empty() { remote.ledgers()? } else { args.only.clone() };
    let asked = json!({
        "user": args.user, "issuer": args.issuer, "tenant": args.tenant, "reason": args.reason, "dry_run": args.dry_run,
    });
    let patience = args.wait.map_or(WAIT_ELSEWHERE, |wait| wait.0);
    let mut output = Output::new();
    for ledger in ledgers {
        let path = format!("/v1/ledgers/{}/erase", segment(&ledger));
        let answer = remote.client().post_once(&path, &asked, patience)?;
        let records = answer.get("records").and_then(Value::as_u64).unwrap_or_default();
        let _reader = if args.json {
            output.json(&answer)?
        } else if args.dry_run {
            output.line(&format!("ledger {ledger}: {records} records have values to erase"))?
        } else {
            output.line(&format!("ledger {ledger}: erased the values of {records} records, on record there"))?
        };
    }
    Ok(ExitCode::SUCCESS)
}

/// Files that somebody else would own could not be written by the sidecar afterwards.
fn owned_by_us(directory: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(directory)
        .map_err(|error| Failure::because(Exit::Unavailable, directory.display(), error))?
        .uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner == ours {
        return Ok(());
    }
    let line = format!(
        "the ledger belongs to the user {owner}, this is {ours}: run it as its owner (`sudo -u '#{owner}' countersign …`)"
    );
    Err(Failure::new(Exit::Usage, line))
}

/// Opens the ledger, which nobody writes, and does it.
async fn here(
    args: &Args,
    directory: &Path,
    erasure: Erasure,
    environment: &Environment,
) -> Result<Erased, ErasureError> {
    let started = Started {
        component: Component::Maintenance,
        name: "audit erase".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut settings = LedgerSettings::new(directory.to_owned(), started);
    if let Some(key) = args.signing_key.clone().or_else(|| args.place.signing_key(environment)) {
        settings.key = key;
    }
    if !settings.key.exists() {
        let why = "there is no such file; say --signing-key FILE or --config FILE".to_owned();
        return Err(LedgerError::Key { path: settings.key, why }.into());
    }
    let tasks = Tasks::new();
    let ledger = Ledger::open(settings, &tasks).await?;
    let outcome = ledger.erase(erasure).await;
    ledger.close().await;
    tasks.drain(CLOSING).await;
    outcome
}

/// Asks the process that writes the ledger, and waits for its answer.
fn by_the_writer(args: &Args, directory: &Path, erasure: &Erasure) -> Result<Erased, Failure> {
    let asked = ask(directory, erasure).map_err(unreadable)?;
    let until = net::clock::monotonic().checked_add(args.wait.map_or(WAIT, |wait| wait.0));
    let watched = !args.json && std::io::stderr().is_terminal();
    if watched {
        // A terminal that went away takes nothing from the erasure.
        writeln!(std::io::stderr(), "the process that writes the ledger was asked, waiting for it").ok();
    }
    loop {
        if let Some(answer) = asked.answer().map_err(unreadable)? {
            return answer.map_err(|why| Failure::new(Exit::Failed, why));
        }
        if until.is_some_and(|until| until <= net::clock::monotonic()) {
            let line = if asked.withdraw().map_err(unreadable)? {
                "the process that writes the ledger did not take the request up; nothing was erased"
            } else {
                "the process that writes the ledger took the request up and has not finished; see `audit verify`"
            };
            return Err(Failure::new(Exit::Unavailable, line));
        }
        std::thread::sleep(POLL);
    }
}

fn refused(error: ErasureError) -> Failure {
    match error {
        ErasureError::Ledger(LedgerError::Key { .. }) => Failure::because(Exit::Usage, "ledger", error),
        ErasureError::Ledger(error) => unreadable(error),
        ErasureError::Ambiguous(_) | ErasureError::NamesThePerson(_) | ErasureError::Missing(_) => {
            Failure::new(Exit::Usage, error.to_string())
        }
    }
}

fn say_found(args: &Args, found: &Found) -> Result<ExitCode, Failure> {
    let (sealed, unsealed) = found.records();
    let mut output = Output::new();
    if args.json {
        let found = json!({
            "principals": found.principals,
            "records": sealed,
            "records_in_the_segment_that_is_being_written": unsealed,
            "mentions": found.mentions,
            "unclaimed": found.unclaimed,
        });
        let _reader = output.json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for principal in &found.principals {
        text.push_str(&format!("found: {}\n", named(principal)));
    }
    if found.principals.len() > 1 {
        text.push_str("several people go by that id: say which with --issuer and --tenant\n");
    }
    text.push_str(&format!("{sealed} records have values to erase\n"));
    if found.unclaimed > 0 {
        text.push_str(&format!(
            "{} of them are ends of calls whose beginnings were retired, which nobody can say whose they are\n",
            found.unclaimed
        ));
    }
    if unsealed > 0 {
        text.push_str(&format!("{unsealed} more are in the segment that is being written, which is sealed for it\n"));
    }
    text.push_str(&mentions(found.mentions));
    let _reader = output.write(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn erased_text(erased: &Erased, erasure: &Erasure) -> String {
    let whose = match &erased.principal {
        Some(principal) => named(principal),
        None if erased.records == 0 => {
            return "nothing was erased: the ledger has no values of such a person\n".to_owned();
        }
        None => "nobody: ends of calls whose beginnings were retired".to_owned(),
    };
    let segments = erased.segments.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "erased: {} values of {} records of {whose}, in the segments {segments}\n",
        erased.values, erased.records
    );
    text.push_str(&format!(
        "on record as the erasure {}, which names the person by a commitment; its salt, for whoever has to show \
         whom it was about: {}\n",
        erased.erasure,
        erasure.salt()
    ));
    if erased.still_being_written > 0 {
        text.push_str(&format!("{} records came in meanwhile: ask again for these\n", erased.still_being_written));
    }
    if erased.open_calls > 0 {
        text.push_str(&format!(
            "{} calls of theirs have not ended: what their ends bring is taken out when it comes\n",
            erased.open_calls
        ));
    }
    text.push_str(&mentions(erased.mentions));
    text
}

fn mentions(count: u64) -> String {
    match count {
        0 => String::new(),
        count => {
            format!("{count} records of other people have that id among their values; they are theirs, and stay\n")
        }
    }
}

fn named(principal: &Principal) -> String {
    let tenant = principal.tenant.as_ref().map_or("none", |tenant| tenant.as_str());
    format!("{} (issuer {}, tenant {tenant})", principal.id, principal.issuer)
}
