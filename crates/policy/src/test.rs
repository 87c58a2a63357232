//! Runs the `test_` rules of `*_test.rego` files, on the engine that decides.
//!
//! A trap of the engine: a rule that a `with` value needs is undefined in the expression that the `with` modifies.
//! Give such a value a local name first: `given := call("orders.read")`, then `… with input as given`.

use crate::{
    LoadError, Source,
    bundle::File,
    check, library,
    roots::{Owner, dotted},
};

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The test: `data.countersign.teams.support_test.test_a_large_refund_needs_approval`.
    pub name: String,
    /// Why it did not pass; `None` where it did.
    pub failure: Option<String>,
}

/// Runs the tests of `source` with its policies, its data and the library. The policies are checked as they are
/// for enforcement; tests may use `with`.
pub fn run(source: &Source, catalogue: &model::Catalogue) -> Result<Vec<Outcome>, LoadError> {
    let owner = Owner::of_source(&source.name)
        .ok_or_else(|| LoadError::Source { name: source.name.clone(), reason: "not a source's name".to_owned() })?;
    let engine = check::sources(std::slice::from_ref(source), Some(catalogue))?.engine;
    with(engine, &owner, &source.tests)
}

/// Runs the library's own tests.
pub fn library(tests: &[File]) -> Result<Vec<Outcome>, LoadError> {
    let mut engine = regorus::Engine::new();
    for file in library::files() {
        engine.add_policy(file.path, file.text).map_err(|error| LoadError::Engine(error.to_string()))?;
    }
    with(engine, &Owner::Library, tests)
}

fn with(mut engine: regorus::Engine, owner: &Owner, tests: &[File]) -> Result<Vec<Outcome>, LoadError> {
    let mut names = Vec::new();
    for file in tests {
        names.extend(check::tests_in(owner, file)?);
        engine
            .add_policy(file.path.clone(), file.text.clone())
            .map_err(|error| LoadError::Engine(error.to_string()))?;
    }
    engine.set_strict_builtin_errors(true);
    let run = |name: String| {
        let failure = match engine.eval_rule(name.clone()) {
            Ok(regorus::Value::Bool(true)) => None,
            Ok(regorus::Value::Undefined) => Some("no body of the rule was true".to_owned()),
            Ok(value) => Some(format!("it gave {value}")),
            Err(error) => Some(error.to_string()),
        };
        Outcome { name, failure }
    };
    if names.is_empty() {
        let reason = format!("`{}` has no rule called `test_…`", dotted(&owner.root()));
        return Err(LoadError::Source { name: "tests".to_owned(), reason });
    }
    Ok(names.into_iter().map(run).collect())
}

#[cfg(test)]
mod tests;
