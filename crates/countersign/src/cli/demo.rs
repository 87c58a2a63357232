//! `countersign demo`.

use std::{path::PathBuf, process::ExitCode};

use crate::{environment::Environment, failure::Failure, run, telemetry::console::ConsoleArgs};

/// Run everything on this machine and watch an agent's calls being permitted and refused.
///
/// Starts a sample identity provider, the authority, a sample orders API and the sidecar on loopback, makes real
/// calls as an agent acting for alice, lets her take the task back while an answer streams, and ends with the ledger
/// verified. Exits with 1 when any step came out otherwise than expected.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign demo\n  countersign demo --data ./demo --serve\n  \
                        countersign demo --json | jq .code")]
pub(crate) struct Args {
    /// Keep everything under this directory (the ledger in `DIR/ledger`). Without it, in a temporary one.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print one JSON object a step: step, expected, got, code, decision_id, run_id, ms; of the step `withdrawn`,
    /// ms counts from the withdrawal.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stay up afterwards, and print curl lines to try.
    #[arg(long)]
    pub(crate) serve: bool,
}

pub(super) fn run(args: Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    run::process(console, environment, "warn", "countersign-demo", |process| crate::demo::run(args, process))
}
