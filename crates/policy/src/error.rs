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

/// Whether a policy with a problem may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not do what it says.
    Error,
    /// It does, and a part of it is for nothing.
    Warning,
}

/// One thing wrong at one place of a policy. Problems are in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// The file, as its source names it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// Where what is wrong ends.
    pub end: End,
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it: a word that stays the same from release to release.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// The place just behind something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct End {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
}

impl Problem {
    /// The same, found by the check `code`.
    pub(crate) fn coded(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// The same as a warning.
    pub(crate) fn warned(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// An error at one character.
    pub(crate) fn at(file: &str, line: u32, column: u32, code: &'static str, message: String) -> Self {
        let end = End { line, column: column.saturating_add(1) };
        Self { file: file.to_owned(), line, column, end, severity: Severity::Error, code, message, hint: None }
    }
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
