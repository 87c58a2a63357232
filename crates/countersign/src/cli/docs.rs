//! `countersign docs`: writes the reference documents that are generated from the code.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    failure::{Exit, Failure},
    reference,
};

/// Write the generated reference documents and schemas below a directory.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// The repository's `docs` directory.
    #[arg(value_name = "DIR", default_value = "docs")]
    into: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    for document in reference::documents() {
        let path = args.into.join(document.path);
        let failed = |error| Failure::because(Exit::Failed, format!("cannot write {}", path.display()), error);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        std::fs::write(&path, document.text).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}
