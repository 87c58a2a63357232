//! `countersign report`: what the ledger says to those who plan. One file a report.

mod rollout;
mod unmapped;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{environment::Environment, failure::Failure};

/// What the ledger says to those who plan.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign report rollout --config countersign.yaml --since 7d\n  \
                        countersign report rollout --from authority --json\n  \
                        countersign report unmapped --config countersign.yaml --since 7d --yaml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Rollout(rollout::Args),
    Unmapped(unmapped::Args),
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Rollout(args) => rollout::run(args, environment),
        Command::Unmapped(args) => unmapped::run(args, environment),
    }
}
