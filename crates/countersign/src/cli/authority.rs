//! `countersign authority`.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    config::{authority::AuthorityConfig, document::Document},
    environment::Environment,
    failure::Failure,
    run,
    telemetry::console::ConsoleArgs,
};

/// Run the authority: issue delegated tokens and publish the keys that sign them.
///
/// Stops on SIGTERM or SIGINT: it stops accepting, lets running requests end, seals the ledger and leaves. A second
/// signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign authority --config authority.yaml\n  \
                        countersign config check authority.yaml && countersign authority -c authority.yaml\n  \
                        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 countersign authority -c authority.yaml")]
pub(crate) struct Args {
    /// The configuration file (docs/reference/config.md).
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITY_CONFIG")]
    config: PathBuf,
}

pub(super) fn run(args: &Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let document = Document::<AuthorityConfig>::read(&args.config, environment).map_err(Failure::configuration)?;
    run::process(console, environment, "info", "countersign-authority", |process| {
        run::authority::run(document, process)
    })
}
