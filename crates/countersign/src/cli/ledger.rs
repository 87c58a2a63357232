//! Which ledger the offline commands read.

use std::path::{Path, PathBuf};

use audit::LedgerError;
use serde::Deserialize;

use super::audit::remote::Remote;
use crate::{
    config::expansion::expand,
    environment::Environment,
    failure::{Exit, Failure},
    management::Elsewhere,
};

/// Where a ledger is.
#[derive(Debug, clap::Args)]
pub(crate) struct LedgerPlace {
    /// The ledger's directory, or `authority` for what sidecars shipped there. Without it, the ledger that the configuration
    /// names.
    #[arg(long, visible_alias = "ledger", value_name = "DIR", env = "COUNTERSIGN_LEDGER")]
    from: Option<PathBuf>,
    /// A configuration file, for the ledger that it names.
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) elsewhere: Elsewhere,
}

/// As much of a configuration as says where its ledger is: whoever reads a ledger need not have the rest's variables.
#[derive(Deserialize)]
struct Partial {
    ledger: PartialLedger,
}

#[derive(Deserialize)]
struct PartialLedger {
    dir: String,
    #[serde(default)]
    key: Option<String>,
}

/// What `--from` says where an authority is meant; a directory of that name is `./authority`.
const AUTHORITY: &str = "authority";

/// What is read.
pub(crate) enum Whence {
    /// A ledger's directory.
    Directory(PathBuf),
    /// What sidecars shipped to an authority.
    Authority(Remote),
}

impl LedgerPlace {
    /// The place that a command with arguments of its own was told.
    pub(crate) const fn at(from: Option<PathBuf>, config: Option<PathBuf>, elsewhere: Elsewhere) -> Self {
        Self { from, config, elsewhere }
    }

    /// Where the records are read.
    pub(crate) fn whence(&self, environment: &Environment) -> Result<Whence, Failure> {
        if self.from.as_deref() == Some(Path::new(AUTHORITY)) {
            return Ok(Whence::Authority(Remote::new(self.elsewhere.client(environment)?)));
        }
        self.directory(environment).map(Whence::Directory)
    }

    /// The ledger's directory, which exists.
    pub(crate) fn directory(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        let directory = match (&self.from, &self.config) {
            (Some(directory), _) => directory.clone(),
            (None, Some(config)) => named_by(config, environment)?,
            (None, None) => {
                return Err(Failure::new(Exit::Usage, "which ledger? Say --from DIR or --config FILE"));
            }
        };
        if !directory.is_dir() {
            return Err(Failure::new(Exit::Unavailable, format!("there is no ledger at {}", directory.display())));
        }
        Ok(directory)
    }

    /// The same, and it holds a ledger: for what would begin one where there is none.
    pub(crate) fn ledger(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        let directory = self.directory(environment)?;
        if directory.join("ledger.json").is_file() {
            return Ok(directory);
        }
        Err(Failure::new(Exit::Unavailable, format!("{} is no ledger", directory.display())))
    }

    /// The file of the key that signs the ledger, where the configuration names one.
    pub(crate) fn signing_key(&self, environment: &Environment) -> Option<PathBuf> {
        let config = self.config.as_ref()?;
        let key = partial(config).ok()?.key?;
        path_in(config, key, environment).ok()
    }
}

fn named_by(config: &Path, environment: &Environment) -> Result<PathBuf, Failure> {
    path_in(config, partial(config)?.dir, environment)
}

fn partial(config: &Path) -> Result<PartialLedger, Failure> {
    let text = std::fs::read_to_string(config).map_err(|error| wrong(config, error))?;
    let partial: Partial = serde_saphyr::from_str(&text).map_err(|error| wrong(config, error.without_snippet()))?;
    Ok(partial.ledger)
}

fn path_in(config: &Path, path: String, environment: &Environment) -> Result<PathBuf, Failure> {
    let expanded = expand(&path, environment).map_err(|error| wrong(config, format!("ledger: {error}")))?;
    let base = config.parent().unwrap_or(Path::new(""));
    Ok(base.join(expanded.unwrap_or(path)))
}

fn wrong(config: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Configuration, format!("{}: {error}", config.display()))
}

/// What a ledger that cannot be read says of itself.
pub(crate) fn unreadable(error: LedgerError) -> Failure {
    match error {
        LedgerError::Damaged { .. } => Failure::because(Exit::Failed, "ledger", error),
        _ => Failure::because(Exit::Unavailable, "ledger", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_found_through_its_configuration_whatever_else_that_needs() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("countersign.yaml");
        std::fs::write(&config, "tools: { a: { credential: \"${UNSET}\" } }\nledger: { dir: \"${WHERE}/l\" }\n")
            .unwrap();
        let environment = [("WHERE", "data")].into_iter().collect();
        assert_eq!(named_by(&config, &environment).unwrap(), folder.path().join("data/l"));
        let missing = LedgerPlace { from: None, config: Some(config), elsewhere: Elsewhere::default() }
            .directory(&environment)
            .unwrap_err();
        assert_eq!(missing.exit_code(), std::process::ExitCode::from(69));
    }
}
