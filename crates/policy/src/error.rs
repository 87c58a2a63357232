//! Why policies were not loaded: each problem with its file, line, column and what to do about it.

use std::{fmt, path::PathBuf};

/// Why policies are not usable. The caller keeps the last good ones.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory is not what a policy source may hold.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The sources do not fit together, or do not fit the catalogue.
    #[error("policy source `{name}`: {reason}")]
    Source {
        /// The source's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policies themselves are wrong, in one or more places.
    #[error("{}", listed(.0))]
    Policy(Vec<Problem>),
    /// The engine refused all of them together.
    #[error("the policy engine refused the policies: {0}")]
    Engine(String),
}

/// One thing wrong at one place of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as its source names it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
