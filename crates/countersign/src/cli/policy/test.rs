//! `countersign policy test`: the tests that lie beside policies, and cases, on the engine that decides.

mod from_decision;
mod junit;
mod show;
pub(super) mod suite;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use regex_lite::Regex;

use self::suite::Suite;
use super::sources::SourceArgs;
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// Run the tests of policies: `test_` rules in `*_test.rego`, and the calls with expected decisions in `*_cases.yaml`.
///
/// Cases are decided by all sources together, as a sidecar would. Each is decided again without each of its optional
/// parts, and so is every whole input of a test: nothing that is missing may make a decision more permissive.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy test\n  countersign policy test --config countersign.yaml -v\n  \
                        countersign policy test policies/orders:orders --run refund --watch\n  \
                        countersign policy test --coverage --threshold 90\n  \
                        countersign policy test --format junit > policy.xml\n  \
                        countersign policy test --from-decision 3f9c….0198… --ledger ./demo/ledger > policies/support/mine_cases.yaml\n\n\
                        Exits with 1 where something failed, or less is covered than --threshold."
)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Only tests and cases whose name this regular expression finds.
    #[arg(long, value_name = "REGEX")]
    run: Option<Regex>,
    /// Say what passed too, and what tests printed.
    #[arg(short, long)]
    verbose: bool,
    /// Run again whenever a file of a source changes, until interrupted.
    #[arg(long, conflicts_with_all = ["format", "from_decision"])]
    watch: bool,
    /// Say how much of the policies the tests evaluated, and show what they did not.
    #[arg(long)]
    coverage: bool,
    /// Exit with 1 where tests evaluated less than this share of the policies' expressions.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    threshold: Option<u8>,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
    /// A file of cases elsewhere than beside the policies. May be given again.
    #[arg(long, value_name = "FILE")]
    cases: Vec<PathBuf>,
    /// Write the case that a recorded decision is, and run nothing. It names people as the ledger does.
    #[arg(long, value_name = "ID", requires = "ledger")]
    from_decision: Option<String>,
    /// The ledger's directory.
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_LEDGER")]
    ledger: Option<PathBuf>,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Pretty,
    /// One JSON object.
    Json,
    /// JUnit XML, for CI.
    Junit,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    if let (Some(id), Some(ledger)) = (&args.from_decision, &args.ledger) {
        let _reader = Output::new().write(&from_decision::written(id, ledger)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.watch {
        return watch::run(args, environment);
    }
    let suite = once(args, environment)?;
    Ok(if suite.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs everything and prints it.
fn once(args: &Args, environment: &Environment) -> Result<Suite, Failure> {
    let policies = args.sources.read(environment)?;
    let only = |name: &str| args.run.as_ref().is_none_or(|run| run.is_match(name));
    let suite = Suite::run(&policies, &args.cases, &only, args.threshold)?;
    if suite.is_empty() {
        return Err(Failure::new(Exit::Failed, "there is no test and no case, or none of that name"));
    }
    let text = match args.format {
        Format::Pretty => show::pretty(&suite, args.verbose, args.coverage || args.threshold.is_some()),
        Format::Json => show::json(&suite)?,
        Format::Junit => junit::document(&suite),
    };
    let _reader = Output::new().write(&text)?;
    Ok(suite)
}
