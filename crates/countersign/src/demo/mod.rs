//! `countersign demo`: the whole product in one process on loopback, and agents that try things.
//!
//! An identity provider and an orders API stand for the outside world; the authority and the sidecar start from
//! real files, as their own commands would. Every step is an HTTP call, checked against what has to come of it.

mod agent;
mod configuration;
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

use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::cli::DemoArgs;
use crate::config::document::Document;
use crate::failure::{Exit, Failure};
use crate::run::{self, Process};
use agent::{Answer, Call};
use files::Files;
use parts::Parts;
use show::Show;
use steps::{Caller, Expected, STEPS, Surprise};
use tokens::Tokens;

/// How long running calls get when the demo ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the demo. Fails when any step, or the ledger, came out otherwise than expected.
pub(crate) async fn run(args: DemoArgs, process: Process) -> Result<ExitCode, Failure> {
    let show = Show::new(args.json, &process.environment);
    let files = Files::prepare(args.data.as_deref(), &std::env::temp_dir())?;
    let parts = Parts::start(&files, &process.tasks).await?;
    todo!()
}

/// What the steps came to.
struct Tried {
    surprises: Vec<Surprise>,
    /// The decision id of a refusal that is worth explaining.
    refused: Option<String>,
    /// How many refunds were permitted.
    refunds: usize,
}

async fn try_all(parts: &Parts, tokens: &Tokens, show: Show) -> Result<Tried, Failure> {
    let mut tried = Tried { surprises: Vec::new(), refused: None, refunds: 0 };
    for (index, step) in STEPS.iter().enumerate() {
        if step.caller == Caller::Ended {
            tokio::time::sleep(tokens.until_ended(net::clock::now())).await;
        }
        let token = tokens.of(step.caller);
        let answer = parts.world.call(step.call, token, net::clock::monotonic()).await?;
        let outcome = step.check(&answer);
        show.step(index + 1, step, token, &answer, &outcome)?;
        if answer.denial.is_none() && step.call.method == "POST" {
            tried.refunds += 1;
        }
        if step.name == EXPLAINED {
            tried.refused.clone_from(&answer.decision_id);
        }
        tried.surprises.extend(outcome.err());
    }
    Ok(tried)
}
