//! A process that runs for a while: its runtime, its telemetry and its end.

mod alerts;
pub(crate) mod authority;
mod candidate;
pub(crate) mod catalogue;
pub(crate) mod sidecar;

pub(crate) mod apart;
mod descriptors;
pub(crate) mod findings;
mod follow;
mod identities;
pub(crate) mod kept;
mod ledger;
mod limits;
mod listen;
mod modes;
mod outages;
mod prepare;
mod reload;
mod reloads;
mod state;
pub(crate) mod stop;
#[cfg(test)]
mod testing;
pub(crate) mod trial;
mod uplink;

use std::{future::Future, process::ExitCode, time::Duration};

use net::Tasks;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    telemetry::{Metrics, Telemetry, console::ConsoleArgs},
};

/// How long threads that do not end are waited for at the very end.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// What a running command is given.
pub(crate) struct Process {
    /// The environment at start.
    pub(crate) environment: Environment,
    /// What `/metrics` shows.
    pub(crate) metrics: Metrics,
    /// Everything that runs beside the main line.
    pub(crate) tasks: Tasks,
}

/// Runs `body` with a runtime and telemetry around it, and flushes telemetry whatever became of it.
pub(crate) fn process<B, F>(
    console: &ConsoleArgs,
    environment: &Environment,
    default_level: &str,
    service: &'static str,
    body: B,
) -> Result<ExitCode, Failure>
where
    B: FnOnce(Process) -> F,
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because(Exit::Unavailable, "cannot start threads", error))?;
    let telemetry = Telemetry::start(console, default_level, service, environment, runtime.handle())
        .map_err(Failure::configuration)?;
    log_panics();
    let process = Process { environment: environment.clone(), metrics: telemetry.metrics(), tasks: Tasks::new() };
    let outcome = runtime.block_on(async {
        outlive_full_files().map_err(|error| Failure::because(Exit::Unavailable, "cannot take signals", error))?;
        Box::pin(body(process)).await
    });
    telemetry.stop();
    runtime.shutdown_timeout(LEFT_BEHIND);
    outcome
}

/// A file that may not grow any further (`ulimit -f`, a quota) is an error for whoever writes it, as a full disk is. Left
/// alone, the signal that comes with it would end the process.
fn outlive_full_files() -> std::io::Result<()> {
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// A panic is a line in the log, where it is found, and not only text on standard error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, panic = text, "panicked; this is a bug, please report it");
    }));
}
