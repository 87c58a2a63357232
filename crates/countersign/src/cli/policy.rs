//! `countersign policy`: the loop of those who write policy: check it, try it, ship it. One file a command.

mod bench;
mod build;
mod bundles;
mod check;
mod diff;
mod eval;
mod inspect;
mod pin;
pub(super) mod replay;
mod schema;
mod sign;
pub(crate) mod sources;
mod test;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{environment::Environment, failure::Failure};

/// Work on policy with the engine that decides.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy check\n  countersign policy check --config countersign.yaml\n  \
                        countersign policy check org=policies/org support=policies/orders:orders"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Build(build::Args),
    Check(check::Args),
    Diff(diff::Args),
    Eval(eval::Args),
    Inspect(inspect::Args),
    Pin(pin::PinArgs),
    Pins(pin::PinsArgs),
    Replay(replay::Args),
    Schema(schema::Args),
    Sign(sign::Args),
    Test(test::Args),
    Unpin(pin::UnpinArgs),
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Bench(args) => bench::run(args, environment),
        Command::Build(args) => build::run(args),
        Command::Check(args) => check::run(args, environment),
        Command::Diff(args) => diff::run(args, environment),
        Command::Eval(args) => eval::run(args, environment),
        Command::Inspect(args) => inspect::run(args),
        Command::Pin(args) => pin::pin(args, environment),
        Command::Pins(args) => pin::pins(args, environment),
        Command::Replay(args) => replay::run(args, environment),
        Command::Schema(args) => schema::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Test(args) => test::run(args, environment),
        Command::Unpin(args) => pin::unpin(args, environment),
    }
}
