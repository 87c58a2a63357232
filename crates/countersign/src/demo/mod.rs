//! `countersign demo`: the whole product in one process on loopback, and agents that try things.
//!
//! An identity provider and an orders API stand for the outside world; the authority and the sidecar start from
//! real files, as their own commands would. Every step is an HTTP call, checked against what has to come of it.

mod agent;
mod configuration;
mod console;
mod files;
mod identity_provider;
mod ledger;
mod orders;
mod parts;
mod serve;
mod show;
mod signer;
mod steps;
mod tokens;
mod tour;
mod withdrawal;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::DemoArgs;
use crate::config::document::Document;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::run::{self, Process, stop::StopSignals};
use files::Files;
use parts::Parts;
use show::Show;
use steps::Surprise;

/// How long what still runs may take at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the demo. Fails when any step, or the ledger, came out otherwise than expected.
pub(crate) async fn run(args: DemoArgs, process: Process) -> Result<ExitCode, Failure> {
    let mut signals =
        StopSignals::new().map_err(|error| Failure::because(Exit::Unavailable, "cannot take signals", error))?;
    let show = Show::new(args.json, &process.environment);
    let files = Files::prepare(args.data.as_deref(), &std::env::temp_dir())?;
    let parts = Parts::start(&files, &process.tasks).await?;
    let product = Product::start(&files, &parts, &process).await?;
    let shown = tokio::select! {
        surprises = shown(&files, &parts, &process.environment, show) => surprises,
        signal = signals.next() => Err(Failure::new(Exit::Failed, format!("ended by {signal} before it was through"))),
    };
    let outcome = match shown {
        // A step that surprised keeps nobody from looking around, and is still what the demo ends with.
        Ok(surprises) if args.serve => {
            serve::until_stopped(&files, &parts, show, &mut signals).await.and(as_expected(&surprises))
        }
        Ok(surprises) => as_expected(&surprises),
        Err(failure) => Err(failure),
    };
    product.stop().await;
    process.tasks.drain(DRAIN).await;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn as_expected(surprises: &[Surprise]) -> Result<(), Failure> {
    if surprises.is_empty() {
        return Ok(());
    }
    let surprises: Vec<String> = surprises.iter().map(ToString::to_string).collect();
    Err(Failure::new(Exit::Failed, format!("not as expected: {}", surprises.join("; "))))
}

async fn shown(files: &Files, parts: &Parts, environment: &Environment, show: Show) -> Result<Vec<Surprise>, Failure> {
    parts.ready().await?;
    tour::tour(files, parts, environment, show).await
}

/// Countersign itself, started from the demo's files by what its own commands start with.
struct Product {
    authority: run::authority::Running,
    sidecar: run::sidecar::Running,
}

impl Product {
    async fn start(files: &Files, parts: &Parts, process: &Process) -> Result<Self, Failure> {
        let environment = &process.environment;
        let authority =
            Document::read(&files.path(configuration::AUTHORITY), environment).map_err(Failure::configuration)?;
        let authority = Box::pin(run::authority::start(authority, environment, process.metrics.clone())).await?;
        match Box::pin(Self::join(files, parts, process)).await {
            Ok(sidecar) => Ok(Self { authority, sidecar }),
            Err(failure) => {
                authority.stop_within(DRAIN).await;
                Err(failure)
            }
        }
    }

    /// The sidecar, once it has joined the authority.
    async fn join(files: &Files, parts: &Parts, process: &Process) -> Result<run::sidecar::Running, Failure> {
        parts.enrol(files).await?;
        let environment = &process.environment;
        let sidecar =
            Document::read(&files.path(configuration::SIDECAR), environment).map_err(Failure::configuration)?;
        Box::pin(run::sidecar::start(sidecar, environment, process.metrics.clone())).await
    }

    async fn stop(self) {
        self.sidecar.stop_within(DRAIN).await;
        self.authority.stop_within(DRAIN).await;
    }
}
