//! `countersign policy schema`: the JSON Schemas of what policy is asked, for editors and for OPA's own type checker.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;

use crate::{
    failure::{Exit, Failure},
    output::Output,
    reference::schema,
};

/// Print the JSON Schema of what policy is asked, or write all of them to a directory.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy schema --to schemas\n  countersign policy schema > input.json\n  \
                        countersign policy schema delegate\n  opa check --schema schemas policies\n\n\
                        docs/policy-check.md says where editors look for them."
)]
pub(crate) struct Args {
    /// Which input.
    #[arg(value_enum, default_value_t)]
    of: Input,
    /// Write `input.json`, `exchange.json` and `management.json` to this directory instead.
    #[arg(long, value_name = "DIR", conflicts_with = "of")]
    to: Option<PathBuf>,
}

/// What policy is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Input {
    /// About calls.
    #[default]
    Calls,
    /// Before a token is issued.
    Delegate,
    /// Where somebody manages.
    Manage,
}

impl Input {
    fn schema(self) -> String {
        match self {
            Self::Calls => schema::policy_input(),
            Self::Delegate => schema::policy_exchange(),
            Self::Manage => schema::policy_management(),
        }
    }

    /// The file's name, which a policy's `schemas` annotation names as `schema.<name>`.
    const fn file(self) -> &'static str {
        match self {
            Self::Calls => "input.json",
            Self::Delegate => "exchange.json",
            Self::Manage => "management.json",
        }
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Some(directory) = &args.to else {
        let _reader = Output::new().write(&args.of.schema())?;
        return Ok(ExitCode::SUCCESS);
    };
    let unwritable = |path: &Path| {
        let line = format!("cannot write {}", path.display());
        move |error: std::io::Error| Failure::because(Exit::Unavailable, line, error)
    };
    std::fs::create_dir_all(directory).map_err(unwritable(directory))?;
    for input in [Input::Calls, Input::Delegate, Input::Manage] {
        let path = directory.join(input.file());
        std::fs::write(&path, input.schema()).map_err(unwritable(&path))?;
        let _reader = Output::new().line(&path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
