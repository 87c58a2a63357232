//! Runs the `test_` rules of `*_test.rego` files, on the engine that decides. A rule that fails says at which
//! expression, and what that was about; `todo_test_` rules are passed over.
//!
//! A trap of the engine: a rule that a `with` value needs is undefined in the expression that the `with` modifies.
//! Give such a value a local name first: `given := call("orders.read")`, then `… with input as given`. Functions, as those
//! of `lib.testing`, are no such rules.

mod again;
mod base;
mod failure;
mod measured;

use model::Catalogue;
use regorus::Value;

pub use self::{
    again::{Untried, Without},
    failure::Failure,
    measured::{FileCoverage, Mark},
};
use crate::{
    LoadError, Source,
    bundle::File,
    check::{self, Checked},
    coverage::{Covered, Definition, Place, Reached, Spread},
    dispatch::Package,
    library,
    roots::{About, Owner},
};

/// What tests may use beside the library, and no policy that decides.
const TESTING: (&str, &str) = ("lib/testing.rego", include_str!("../../../policies/lib/testing.rego"));
/// The rule that makes an engine ready, where there are no policies to ask.
const READY: &str = "package countersign.dispatch\n\nready := true\n";

/// What became of the tests of one source.
#[derive(Debug, Default)]
pub struct Report {
    /// The tests, in the order of their files.
    pub tests: Vec<Outcome>,
    /// What they evaluated of the source's policies.
    pub coverage: Vec<FileCoverage>,
}

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The test: `countersign.teams.support_test.test_a_large_refund_needs_approval`.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Whether it passed.
    pub result: Passed,
    /// What it printed.
    pub printed: Vec<String>,
}

/// Whether a test passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// It did.
    Yes,
    /// It is still to be written.
    Skipped,
    /// It did not, and why.
    No(Failure),
    /// It did, but decided more permissively where something was missing.
    Careless(Vec<Without>),
    /// It did, but what it decides without parts of its inputs is not known.
    Untried(Untried),
}

/// Runs the tests of `source` that `only` names, with its policies, its data and the library. The policies are checked
/// as they are for enforcement; tests may use `with`.
///
/// # Errors
/// Where policies or tests would not load.
pub fn run(source: &Source, catalogue: Option<&Catalogue>, only: &dyn Fn(&str) -> bool) -> Result<Report, LoadError> {
    let owner = Owner::of_source(&source.name)
        .ok_or_else(|| LoadError::Source { name: source.name.clone(), reason: "not a source's name".to_owned() })?;
    let Checked { packages, modules, .. } = check::sources(std::slice::from_ref(source), catalogue)?;
    let packages = packages.into_iter().filter(|package| package.about == About::Calls).collect();
    let documents = source.data.iter().map(|data| data.document().clone()).collect();
    Stand::of(modules, documents, &owner, &source.tests, catalogue)?.run(packages, catalogue, only)
}

/// Runs the library's own tests.
///
/// # Errors
/// Where they would not load.
pub fn library(tests: &[File]) -> Result<Report, LoadError> {
    let mut modules = library::files();
    modules.push(File { path: "countersign/dispatch.rego".to_owned(), text: READY.to_owned() });
    Stand::of(modules, Vec::new(), &Owner::Library, tests, None)?.run(Vec::new(), None, &|_| true)
}

/// Everything that tests run on.
struct Stand {
    covered: Covered,
    /// The files that are tests, by their paths.
    tests: Vec<String>,
    /// Those that are tested.
    tested: Vec<String>,
}

impl Stand {
    fn of(
        mut modules: Vec<File>,
        mut documents: Vec<Value>,
        owner: &Owner,
        tests: &[File],
        catalogue: Option<&Catalogue>,
    ) -> Result<Self, LoadError> {
        let library: Vec<String> = library::files().into_iter().map(|file| file.path).collect();
        let own = |file: &&File| *owner == Owner::Library || !library.contains(&file.path);
        let generated = |file: &&File| file.path.starts_with("countersign/");
        let tested = modules.iter().filter(own).filter(|file| !generated(file)).map(|file| file.path.clone()).collect();
        for file in tests {
            // Whether it may stand where it does.
            check::tests_in(owner, file)?;
        }
        let (path, text) = TESTING;
        modules.push(File { path: path.to_owned(), text: text.to_owned() });
        modules.extend(tests.iter().cloned());
        documents.push(base::document(catalogue)?);
        let covered = Covered::load(&modules, documents)?;
        Ok(Self { covered, tests: tests.iter().map(|file| file.path.clone()).collect(), tested })
    }

    fn run(
        &self,
        packages: Vec<Package>,
        catalogue: Option<&Catalogue>,
        only: &dyn Fn(&str) -> bool,
    ) -> Result<Report, LoadError> {
        let mut total = Reached::default();
        let mut outcomes = Vec::new();
        let again = again::Again::of(&self.covered, &self.tests, packages, catalogue)?;
        for (file, definition) in self.definitions() {
            let name = format!("{}.{}", file.package, definition.name);
            if !only(&name) {
                continue;
            }
            let place = file.place(definition.line, definition.column);
            if definition.name.starts_with("todo_test_") {
                outcomes.push(Outcome { name, place, result: Passed::Skipped, printed: Vec::new() });
                continue;
            }
            let mut engine = self.covered.engine.clone();
            let given = engine.eval_rule(format!("data.{name}"));
            let reached = Reached::of(&engine);
            let printed = engine.take_prints().unwrap_or_default();
            let result = match given {
                Ok(Value::Bool(true)) => again.run(&name, file, definition, &reached),
                given => Passed::No(failure::of(&self.covered, file, definition, &reached, given)),
            };
            total.add(reached);
            outcomes.push(Outcome { name, place, result, printed });
        }
        let tested = self.covered.files.iter().filter(|file| self.tested.contains(&file.path));
        Ok(Report { tests: outcomes, coverage: tested.map(|file| FileCoverage::of(file, &total)).collect() })
    }

    /// The tests, each once.
    fn definitions(&self) -> Vec<(&Spread, &Definition)> {
        let mut found: Vec<(&Spread, &Definition)> = Vec::new();
        for file in self.covered.files.iter().filter(|file| self.tests.contains(&file.path)) {
            for definition in &file.definitions {
                let is_test = definition.name.starts_with("test_") || definition.name.starts_with("todo_test_");
                let known = |(other, known): &(&Spread, &Definition)| {
                    other.package == file.package && known.name == definition.name
                };
                if is_test && !found.iter().any(known) {
                    found.push((file, definition));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
