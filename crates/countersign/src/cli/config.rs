//! `countersign config`: check a configuration, print its schema.

use std::{path::PathBuf, process::ExitCode};

use clap::{Subcommand, ValueEnum};

use crate::{
    environment::Environment,
    failure::Failure,
    output::Output,
    reference,
    run::{self, findings::Findings},
};

/// Check a configuration, or print its JSON Schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign config check countersign.yaml\n  \
                        countersign config schema sidecar > countersign.schema.json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say everything that is wrong with a configuration, its policy and the files it names. Exits with 78 when
    /// anything is.
    #[command(after_help = "Examples:\n  countersign config check countersign.yaml\n  \
                            countersign config check --of authority authority.yaml")]
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Whose configuration it is. Without it, whichever the file looks like.
        #[arg(long, value_enum)]
        of: Option<Plane>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a configuration file.
    #[command(after_help = "Example:\n  countersign config schema authority")]
    Schema {
        /// Whose configuration.
        #[arg(value_enum, default_value_t = Plane::Sidecar)]
        of: Plane,
    },
}

/// Whose configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Plane {
    /// The sidecar's.
    Sidecar,
    /// The authority's.
    Authority,
}

pub(super) fn run(args: Args, environment: &Environment) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Schema { of } => {
            let schema = match of {
                Plane::Sidecar => reference::schema::sidecar(),
                Plane::Authority => reference::schema::authority(),
            };
            let _reader = Output::new().write(&schema)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { file, of, json } => {
            let findings = match of.unwrap_or_else(|| guess(&file)) {
                Plane::Sidecar => run::sidecar::check(&file, environment),
                Plane::Authority => run::authority::check(&file, environment),
            };
            print(&findings, json)
        }
    }
}

/// Only an authority's file says what it signs with.
pub(super) fn guess(file: &std::path::Path) -> Plane {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let sections: Vec<&str> = text.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect();
    if sections.contains(&"authority") && !sections.contains(&"sidecar") && !sections.contains(&"tools") {
        Plane::Authority
    } else {
        Plane::Sidecar
    }
}

fn print(findings: &Findings, json: bool) -> Result<ExitCode, Failure> {
    let mut output = Output::new();
    if json {
        let _reader = output.json(findings)?;
    } else {
        for problem in &findings.problems {
            let _reader = output.line(&format!("error: {problem}"))?;
        }
        for warning in &findings.warnings {
            let _reader = output.line(&format!("warning: {warning}"))?;
        }
        if findings.problems.is_empty() {
            let _reader = output.line("ok")?;
        }
    }
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(78) })
}
