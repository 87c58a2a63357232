//! `countersign tools`: the catalogue of tools and actions: written from an OpenAPI document for a person to review, and
//! held against one. One file a command.

mod check;
pub(crate) mod draft;
mod import;
pub(crate) mod names;
mod openapi;
mod template;
pub(crate) mod trial;
pub(crate) mod write;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{environment::Environment, failure::Failure};

/// Write the catalogue of a tool from its OpenAPI document, and hold it against one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign tools import orders.yaml --tool orders -o orders.tools.yaml\n  \
                        countersign tools check --config countersign.yaml --openapi orders=orders.yaml\n\n\
                        docs/tools.md says what is written and what is checked.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Import(import::Args),
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Check(args) => check::run(args, environment),
        Command::Import(args) => import::run(args, environment),
    }
}
