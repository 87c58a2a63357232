//! Running again whenever a file changes: a look at every file of the sources' directories, twice a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use net::Stamp;

use super::{Args, once};
use crate::{environment::Environment, failure::Failure, output::Output};

/// How often files are looked at.
const LOOKS: Duration = Duration::from_millis(500);
/// The most files that are looked at.
const MAX_FILES: usize = 10_000;

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Runs until whoever watches interrupts it or stops reading.
pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let directories = directories(args, environment)?;
    let mut before = Stamps::new();
    loop {
        let now = stamps(&directories);
        if now == before {
            std::thread::sleep(LOOKS);
            continue;
        }
        before = now;
        if let Err(failure) = once(args, environment) {
            // It may be half written; the next change is looked at too.
            failure.report(false);
        }
        if Output::new().line("watching")? == crate::output::Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Where the files of the sources are. Directories that come later are seen when it is started anew.
fn directories(args: &Args, environment: &Environment) -> Result<BTreeSet<PathBuf>, Failure> {
    let policies = args.sources.read(environment)?;
    let files = policies.sources.iter().flat_map(|source| source.policies.iter().chain(&source.tests));
    let parents = files
        .filter_map(|file| Path::new(&file.path).parent())
        .chain(args.cases.iter().filter_map(|file| file.parent()));
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    Ok(parents.map(here).collect())
}

fn stamps(directories: &BTreeSet<PathBuf>) -> Stamps {
    let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let counts = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "rego" || end == "yaml" || end == "yml" || end == "json")
    };
    let paths = entries.map(|entry| entry.path()).filter(counts).take(MAX_FILES);
    paths.map(|path| (path.clone(), Stamp::of(&path))).collect()
}
