//! `countersign health`: a probe for places that can only run a command.

use std::{net::SocketAddr, process::ExitCode};

use crate::{failure::Failure, health::probe, output::Output};

/// Ask a running sidecar or authority whether it is ready (or, with --live, alive).
///
/// Exits with 0 when it is, with 1 when it says that it is not, and with 69 when nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign health\n  countersign health --address 127.0.0.1:8692 --live\n\n\
                        As a Kubernetes probe:\n  readinessProbe: { exec: { command: [countersign, health] } }")]
pub(crate) struct Args {
    /// Where its health listener is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8692", env = "COUNTERSIGN_HEALTH")]
    address: SocketAddr,
    /// Ask whether it is alive, not whether it is ready.
    #[arg(long)]
    live: bool,
    /// Print what it answered as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let answer = probe::ask(args.address, if args.live { "/livez" } else { "/readyz" })?;
    let mut output = Output::new();
    let _reader = if args.json { output.line(&answer.body)? } else { output.line(answer.word())? };
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
