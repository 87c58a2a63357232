//! `countersign health`: a probe for places that can only run a command, and everything there is for an operator.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use serde_json::Value;

use crate::{
    admin::{ask, show},
    failure::Failure,
    health::probe,
    output::Output,
};

/// Ask a running sidecar or authority whether it is ready (or, with --live, alive), or how it stands (--admin).
///
/// Exits with 0 when it is, with 1 when it says that it is not, and with 69 when nobody answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign health\n  countersign health --address 127.0.0.1:8692 --live\n  \
                        countersign health --admin /var/lib/countersign/admin.sock\n\n\
                        As a Kubernetes probe:\n  readinessProbe: { exec: { command: [countersign, health] } }")]
pub(crate) struct Args {
    /// Where its health listener is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8692", env = "COUNTERSIGN_HEALTH")]
    address: SocketAddr,
    /// Speak TLS, and believe a certificate that one of the authorities in this PEM file signed for that address.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_HEALTH_AUTHORITIES")]
    authorities: Option<PathBuf>,
    /// Ask whether it is alive, not whether it is ready.
    #[arg(long)]
    live: bool,
    /// The sidecar's admin socket: print everything about it. For its own user and root.
    #[arg(long, value_name = "SOCKET", env = "COUNTERSIGN_ADMIN", conflicts_with = "live")]
    admin: Option<PathBuf>,
    /// Print what it answered as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut output = Output::new();
    let ok = match &args.admin {
        Some(socket) => {
            let status = ask::status(socket)?;
            let _reader = if args.json { output.json(&status)? } else { output.write(&show::text(&status))? };
            status.get("ready") == Some(&Value::Bool(true))
        }
        None => {
            let path = if args.live { "/livez" } else { "/readyz" };
            let answer = match &args.authorities {
                Some(authorities) => probe::ask_over_tls(args.address, path, authorities)?,
                None => probe::ask(args.address, path)?,
            };
            let _reader = if args.json { output.line(&answer.body)? } else { output.line(answer.word())? };
            answer.ok
        }
    };
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
