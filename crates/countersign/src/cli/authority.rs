//! `countersign authority`.

mod keys;

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;

use crate::{
    config::{authority::AuthorityConfig, document::Document},
    environment::Environment,
    failure::{Exit, Failure},
    management, run,
    telemetry::console::ConsoleArgs,
};

/// Run the authority: issue delegated tokens and publish the keys that sign them.
///
/// Stops on SIGTERM or SIGINT: it stops accepting, lets running requests end, seals the ledger and leaves. A second
/// signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:\n  countersign authority --config authority.yaml\n  \
                        countersign config check authority.yaml && countersign authority -c authority.yaml\n  \
                        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 countersign authority -c authority.yaml")]
pub(crate) struct Args {
    /// The configuration file (docs/reference/config.md).
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITY_CONFIG", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Restored(RestoredArgs),
    Keys(keys::Args),
}

/// Say that the database was restored from a backup, before the authority runs on it again.
///
/// What was committed after the backup is lost, withdrawals among it. So tokens issued before this moment are refused
/// from now on, join tokens that were not used yet are good no more, and sidecars keep every withdrawal that they
/// knew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign authority restored --config authority.yaml \\\n    \
                        --by dana@acme.example --reason 'disk lost, back to the backup of 04:00'")]
struct RestoredArgs {
    /// The configuration file of the authority.
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITY_CONFIG")]
    config: PathBuf,
    /// Who says so, for the record.
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, console: &ConsoleArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| Document::read(path, environment).map_err(Failure::configuration);
    if let Some(Command::Keys(args)) = &args.command {
        return keys::run(args, console, environment);
    }
    if let Some(Command::Restored(args)) = &args.command {
        let document: Document<AuthorityConfig> = read(&args.config)?;
        return run::process(console, environment, "warn", "countersign-authority", |process| async {
            let began = run::authority::restored(document, process, &args.by, &args.reason).await?;
            let shown = json!({ "generation": began.generation, "began": began.began, "position": began.position });
            let text =
                format!("generation {} began {}, at position {}\n", began.generation, began.began, began.position);
            management::print(args.json, &shown, |_| text)?;
            Ok(ExitCode::SUCCESS)
        });
    }
    let Some(config) = &args.config else {
        return Err(Failure::new(Exit::Usage, "which configuration? Say --config FILE"));
    };
    let document: Document<AuthorityConfig> = read(config)?;
    run::process(console, environment, "info", "countersign-authority", |process| {
        run::authority::run(document, process)
    })
}
