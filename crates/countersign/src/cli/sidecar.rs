//! `countersign sidecar`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
    failure::Failure,
    run,
    telemetry::console::ConsoleArgs,
};

/// Run the sidecar: check, record and forward an agent's calls.
///
/// Stops on SIGTERM or SIGINT: it stops accepting, lets running calls end, seals the ledger and leaves. A second
/// signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign sidecar --config countersign.yaml\n  \
                        countersign config check countersign.yaml && countersign sidecar -c countersign.yaml\n  \
                        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 countersign sidecar -c countersign.yaml")]
pub(crate) struct Args {
    /// The configuration file (docs/reference/config.md).
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(args: &Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let document = Document::<SidecarConfig>::read(&args.config, environment).map_err(Failure::configuration)?;
    run::process(console, environment, "info", "countersign-sidecar", |process| run::sidecar::run(document, process))
}
