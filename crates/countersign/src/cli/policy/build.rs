//! `countersign policy build`: a directory of policy, or of the catalogue, as one file, in the format of OPA's bundles.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use policy::{
    Source, Steering,
    bundle::{Bundle, FileKind, MAX_DIRECTORY_DEPTH, Making, build, is_passed_over},
};

use super::{bundles, sources};
use crate::{
    cli::tools::trial,
    failure::{Exit, Failure},
    output::Output,
};

/// Make a bundle of a directory of policy, or of the catalogue, in the format of OPA: the same input is the same file.
///
/// A directory with data documents alone is the catalogue's: its roots are the tools whose actions it says. Tests stay
/// behind. What would not load is not built.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign policy build -o support.tar.gz policies/orders --revision v12 --serial 12\n  \
                  countersign policy build -o org.tar.gz policies/org --revision \"$(git rev-parse HEAD)\" \
                  --serial \"$(git rev-list --count HEAD)\"\n  \
                  countersign policy build -o orders.tar.gz catalogue/orders --revision v3 --serial 3"
)]
pub(crate) struct Args {
    /// The directory. A `.manifest` in it may say the revision and the serial.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What this state is called.
    #[arg(long)]
    revision: Option<String>,
    /// Its place among the states: a sidecar does not go back to a lower one by itself.
    #[arg(long)]
    serial: Option<u64>,
    /// Whose policy it is: `org`, or a team's name. Without it, its packages say so.
    #[arg(long)]
    name: Option<String>,
    /// Take the tests along.
    #[arg(long)]
    tests: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let making = Making { name: None, revision: args.revision.as_deref(), serial: args.serial, tests: args.tests };
    let source = match args.name.as_deref() {
        None if is_catalogue(&args.path) => None,
        name => Some(source(&args.path, name)?),
    };
    match &source {
        Some(source) => drop(Steering::load(std::slice::from_ref(source)).map_err(Failure::configuration)?),
        None => trial::load_catalogue(&args.path)?,
    }
    let making = Making { name: source.as_ref().map(|source| source.name.as_str()), ..making };
    let archive = build(&args.path, making).map_err(Failure::configuration)?;
    let built = Bundle::open(&archive, None).map_err(|error| Failure::new(Exit::Failed, error))?;
    bundles::write(&args.output, &archive)?;
    let _reader = Output::new().line(&bundles::line(&args.output, &built))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the directory at `path` has data documents and no Rego, not even in a directory of its own.
fn is_catalogue(path: &Path) -> bool {
    fn kinds(path: &Path, depth: usize, found: &mut Vec<FileKind>) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_passed_over(&name) {
                continue;
            }
            if entry.path().is_dir() && depth < MAX_DIRECTORY_DEPTH {
                kinds(&entry.path(), depth + 1, found);
            }
            found.extend(FileKind::of(&name));
        }
    }
    let mut found = Vec::new();
    kinds(path, 0, &mut found);
    !found.is_empty() && found.iter().all(|kind| *kind == FileKind::Data)
}

/// The policies at `path`, with whose they are.
fn source(path: &Path, name: Option<&str>) -> Result<Source, Failure> {
    if let Some(name) = name {
        let tools = (name != "org").then(Default::default);
        return Source::read(name, path, tools).map_err(Failure::configuration);
    }
    let mut found = sources::guessed(path, None, None)?;
    match (found.pop(), found.is_empty()) {
        (Some(source), true) => Ok(source),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("{}: holds the policies of several; a bundle is one's: name its own directory", path.display()),
        )),
    }
}
