//! What a look at a configuration found: what keeps the process from starting, and what it should be told.

use serde::Serialize;

use crate::failure::{Exit, Failure};

/// Problems and warnings, each one line or more for a person.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// What keeps the process from starting.
    pub(crate) problems: Vec<String>,
    /// What it starts with all the same.
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    /// Notes a problem.
    pub(crate) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// The value, or `None` and a problem.
    pub(crate) fn take<T, E: ToString>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problem(error.to_string())).ok()
    }

    /// Fails with every problem, where there is one.
    pub(crate) fn into_failure(self) -> Result<(), Failure> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Configuration, self.problems.join("\n  and: ")))
    }
}
