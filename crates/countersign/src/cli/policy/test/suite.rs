//! Everything that is tested of some sources: each source's own tests, and cases by all of them together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::{CanonicalPath, Catalogue, Id, Tool, catalogue::IdentityMode};
use policy::{
    Engine, Source,
    cases::{self, Built, CaseOutcome},
    engine::Bounds,
    test::{FileCoverage, Outcome, Passed},
};

use crate::{
    cli::policy::sources::Policies,
    failure::{Exit, Failure},
};

/// What became of everything.
pub(super) struct Suite {
    /// The tests, by their source.
    pub(super) tests: Vec<Outcome>,
    /// The cases.
    pub(super) cases: Vec<(Built, CaseOutcome)>,
    /// What the tests evaluated.
    pub(super) coverage: Vec<FileCoverage>,
    /// The share of expressions that has to be evaluated, in percent.
    pub(super) threshold: Option<u8>,
}

impl Suite {
    /// Runs what `only` names.
    ///
    /// # Errors
    /// Where policies, tests or cases would not load.
    pub(super) fn run(
        policies: &Policies,
        more: &[PathBuf],
        only: &dyn Fn(&str) -> bool,
        threshold: Option<u8>,
    ) -> Result<Self, Failure> {
        let mut suite = Self { tests: Vec::new(), cases: Vec::new(), coverage: Vec::new(), threshold };
        let catalogue = policies.catalogue.as_ref();
        for source in &policies.sources {
            let report = policy::test::run(source, catalogue, only).map_err(Failure::configuration)?;
            suite.tests.extend(report.tests);
            suite.coverage.extend(report.coverage);
        }
        let mut built = Vec::new();
        for file in files(&policies.sources).into_iter().chain(more.iter().cloned()) {
            built.extend(cases::read(&file, catalogue).map_err(Failure::configuration)?);
        }
        built.retain(|case| only(&case.name));
        if !built.is_empty() {
            let engine = engine(policies, Bounds::default())?;
            suite.cases = built.into_iter().map(|case| (case.clone(), cases::run(&engine, &case))).collect();
        }
        Ok(suite)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.cases.is_empty()
    }

    /// Whether nothing failed, and enough was evaluated.
    pub(super) fn passed(&self) -> bool {
        let tests = self.tests.iter().all(|test| matches!(test.result, Passed::Yes | Passed::Skipped));
        tests && self.cases.iter().all(|(_, outcome)| outcome.failures.is_empty()) && !self.is_short()
    }

    /// Whether less was evaluated than has to be.
    pub(super) fn is_short(&self) -> bool {
        self.threshold.is_some_and(|threshold| self.percent() < f64::from(threshold))
    }

    /// How much of the policies' expressions was evaluated, in percent.
    pub(super) fn percent(&self) -> f64 {
        percent(
            self.coverage.iter().map(|file| file.covered).sum(),
            self.coverage.iter().map(|file| file.expressions).sum(),
        )
    }
}

/// `part` of `whole` in percent; of nothing, all.
pub(super) fn percent(part: usize, whole: usize) -> f64 {
    let count = |count: usize| u32::try_from(count).map_or(f64::from(u32::MAX), f64::from);
    if whole == 0 { 100.0 } else { 100.0 * count(part) / count(whole) }
}

/// An engine of all sources together, as a sidecar has it.
pub(in crate::cli::policy) fn engine(policies: &Policies, bounds: Bounds) -> Result<Engine, Failure> {
    let catalogue = catalogue(policies)?;
    Engine::load_within(&policies.sources, &catalogue, bounds).map_err(Failure::configuration)
}

/// The tools and actions; where they are not known, tools of the names that the sources are bound to.
pub(in crate::cli::policy) fn catalogue(policies: &Policies) -> Result<Catalogue, Failure> {
    if let Some(catalogue) = &policies.catalogue {
        return Ok(catalogue.clone());
    }
    let names: BTreeSet<&Id<Tool>> = policies.sources.iter().flat_map(|source| source.tools.iter().flatten()).collect();
    let tool = |name: &&Id<Tool>| {
        let at = CanonicalPath::parse(&format!("/{name}")).map_err(Failure::configuration)?;
        Ok(Tool {
            id: (*name).clone(),
            at,
            upstream: String::new(),
            tenants: None,
            identity: IdentityMode::ServiceAccount,
            facts: std::collections::BTreeMap::new(),
            actions: Vec::new(),
        })
    };
    let tools = names.iter().map(tool).collect::<Result<Vec<_>, Failure>>()?;
    Catalogue::new(tools, "unknown".to_owned()).map_err(Failure::configuration)
}

/// The files of cases beside the files of `sources`.
pub(in crate::cli::policy) fn files(sources: &[Source]) -> BTreeSet<PathBuf> {
    let files = sources.iter().flat_map(|source| source.policies.iter().chain(&source.tests));
    let directories: BTreeSet<&Path> = files.filter_map(|file| Path::new(&file.path).parent()).collect();
    let mut found = BTreeSet::new();
    for directory in directories {
        // A file alone has an empty parent, which is here.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(cases::SUFFIX));
        found.extend(named.map(|entry| entry.path()));
    }
    found
}

/// The case that `FILE#NAME` names.
pub(in crate::cli::policy) fn case(text: &str, catalogue: Option<&Catalogue>) -> Result<Built, Failure> {
    let usage = |line: String| Failure::new(Exit::Usage, line);
    let (file, name) = text.split_once('#').ok_or_else(|| usage(format!("`{text}` is not written FILE#NAME")))?;
    let cases = cases::read(Path::new(file), catalogue).map_err(Failure::configuration)?;
    let names: Vec<String> = cases.iter().map(|case| format!("`{}`", case.name)).collect();
    let found = cases.into_iter().find(|case| case.name == name);
    found.ok_or_else(|| usage(format!("{file} has no case `{name}`; it has {}", names.join(", "))))
}
