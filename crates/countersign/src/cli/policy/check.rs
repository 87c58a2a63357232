//! `countersign policy check`: everything that is wrong with policies, before they are anywhere near a sidecar.

use std::process::ExitCode;

use super::sources::SourceArgs;
use crate::{environment::Environment, failure::Failure, output::Output};

/// Say everything that is wrong with policies: what would not load, and what would load and not do what it says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy check\n  countersign policy check --config countersign.yaml\n  \
                        countersign policy check org=policies/org support=policies/orders:orders"
)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let policies = args.sources.read(environment)?;
    match policy::check(&policies.sources, policies.catalogue.as_ref()) {
        Ok(()) => {
            let _reader = Output::new().line("ok")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::configuration(error)),
    }
}
