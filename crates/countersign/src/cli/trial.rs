//! `countersign policy-trial`: the child that a policy is tried in. The sidecar runs it; nobody types it.

use std::process::ExitCode;

use crate::{
    failure::{Exit, Failure},
    output::Output,
    run::trial,
};

/// Try the policies on standard input, under limits, and print how it went.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {}

pub(super) fn run(_: &Args) -> Result<ExitCode, Failure> {
    let report = trial::child().map_err(|error| Failure::because(Exit::Failed, "the trial", error))?;
    let _reader = Output::new().line(&report)?;
    Ok(ExitCode::SUCCESS)
}
