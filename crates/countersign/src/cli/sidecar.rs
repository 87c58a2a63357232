//! `countersign sidecar`, and `countersign sidecar enrol` before its first start.

use std::{path::PathBuf, process::ExitCode};

use super::sidecars::enrol;
use crate::{
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
    failure::{Exit, Failure},
    run,
    telemetry::console::ConsoleArgs,
};

/// Run the sidecar: check, record and forward an agent's calls.
///
/// Stops on SIGTERM or SIGINT: it stops accepting, lets running calls end, seals the ledger and leaves. A second
/// signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  countersign sidecar --config countersign.yaml\n  \
                        countersign config check countersign.yaml && countersign sidecar -c countersign.yaml\n  \
                        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 countersign sidecar -c countersign.yaml")]
pub(crate) struct Args {
    /// The configuration file (docs/reference/config.md).
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_CONFIG", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Enrol(enrol::Args),
}

pub(super) fn run(args: &Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    if let Some(Command::Enrol(args)) = &args.command {
        return enrol::run(args);
    }
    let Some(config) = &args.config else {
        return Err(Failure::new(Exit::Usage, "name the configuration file (--config)"));
    };
    let document = Document::<SidecarConfig>::read(config, environment).map_err(Failure::configuration)?;
    run::process(console, environment, "info", "countersign-sidecar", |process| run::sidecar::run(document, process))
}
