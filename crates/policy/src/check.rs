//! What a policy has to pass before it may decide. Whatever the engine would let hang, abort the process or
//! silently come to nothing is refused here, with its place and what to write instead.

mod answers;
mod builtins;
mod graph;
mod growth;
mod lint;
mod meaning;
mod modules;
mod names;
mod obligations;
mod reads;
mod shape;
mod text;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use model::{Catalogue, Part};

use self::{
    graph::Node,
    modules::{Module, Rules},
    names::Resolver,
    reads::Known,
};
use crate::{
    LoadError, Problem, Severity, Source,
    bundle::File,
    dispatch::{self, Package},
    library,
    roots::{Answer, Owner, Path, UNCODED, dotted, problem},
};

/// Policies that passed: an engine that holds them, and the packages that answer.
pub(crate) struct Checked {
    pub(crate) engine: regorus::Engine,
    pub(crate) packages: Vec<Package>,
    /// Every module in the engine, the library and the generated one included.
    pub(crate) modules: Vec<File>,
}

/// The codes of what makes it unwise to go from rule to rule, and into each.
const RECURSION: &str = "recursion";
const NESTING: &str = "nesting";

/// The most problems that keep policies from being loaded that are reported at once.
const MAX_PROBLEMS: usize = 50;

/// Policies that were parsed and checked, with the rules that ask them. It holds no data, and is kept where nothing else
/// changes.
pub(crate) struct Compiled {
    /// It has every module.
    engine: regorus::Engine,
    parsed: Vec<Module>,
    /// The texts of those that were parsed, in their order, and of the generated one.
    modules: Vec<File>,
    packages: Vec<Package>,
    reads: BTreeMap<String, Part>,
}

impl Compiled {
    /// Checks `sources` against each other, the library and the catalogue, where there is one to check against.
    pub(crate) fn of(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<Self, LoadError> {
        let owners = fitting(sources, catalogue)?;
        let files = files(sources, &owners);
        let (mut engine, parsed) = modules::parse(&files)?;
        let (answers, reads) = rules(&parsed, sources)?;
        let (packages, generated) = dispatch::generate(answers);
        let generated = File { path: "countersign/dispatch.rego".to_owned(), text: generated };
        engine
            .add_policy(generated.path.clone(), generated.text.clone())
            .map_err(|error| LoadError::Engine(error.to_string()))?;
        let modules = files.into_iter().map(|(_, file)| file).chain([generated]).collect();
        Ok(Self { engine, parsed, modules, packages, reads })
    }

    /// Whether these are the policies of `sources`. Where they are, everything about them that depends on data, tools and
    /// the catalogue was checked.
    pub(crate) fn are_of(&self, sources: &[Source], catalogue: Option<&Catalogue>) -> Result<bool, LoadError> {
        let owners = fitting(sources, catalogue)?;
        let files = files(sources, &owners);
        let known = self.parsed.iter().map(|module| &module.owner).zip(&self.modules);
        if !files.iter().map(|(owner, file)| (owner, file)).eq(known) {
            return Ok(false);
        }
        rules(&self.parsed, sources).map(|_| true)
    }

    /// An engine of them that has the data of `sources`.
    pub(crate) fn with_data(&self, sources: &[Source]) -> Result<regorus::Engine, LoadError> {
        let mut engine = self.engine.clone();
        for data in sources.iter().flat_map(|source| &source.data) {
            engine
                .add_data(data.document().clone())
                .map_err(|error| LoadError::Unfit { path: data.path.clone().into(), reason: error.to_string() })?;
        }
        Ok(engine)
    }

    /// Every module, the library and the generated one included.
    pub(crate) fn modules(&self) -> &[File] {
        &self.modules
    }

    /// The packages that answer.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// For each package by its name what it reads of a call's input.
    pub(crate) fn reads(&self) -> &BTreeMap<String, Part> {
        &self.reads
    }
}

/// Checks `sources` as [`Compiled::of`] does, and gives an engine that has them with their data.
pub(crate) fn sources(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<Checked, LoadError> {
    let compiled = Compiled::of(sources, catalogue)?;
    let engine = compiled.with_data(sources)?;
    let Compiled { packages, modules, .. } = compiled;
    Ok(Checked { engine, packages, modules })
}

/// Everything that is wrong with `sources`, in the order of the places: what keeps them from being loaded, and what would
/// load and not do what it says. Names of actions, parameters and facts are checked where there is a catalogue.
///
/// # Errors
/// Where the sources do not fit together or the catalogue, and no place in a policy can be named.
pub fn check(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<Vec<Problem>, LoadError> {
    let owners = fitting(sources, catalogue)?;
    let mut problems = Vec::new();
    for (source, owner) in sources.iter().zip(&owners) {
        for file in &source.tests {
            listed(tests_in(owner, file), &mut problems)?;
        }
    }
    if let Some((_, modules)) = listed(modules::parse(&files(sources, &owners)), &mut problems)? {
        let rules = Rules::of(&modules, &mut problems);
        let looked = Looked::at(&modules, &rules, sources, &mut problems);
        // What follows goes from rule to rule, and into each.
        if !problems.iter().any(|problem| matches!(problem.code, RECURSION | NESTING)) {
            if problems.is_empty() {
                growth(&modules, &rules, sources, &mut problems);
            }
            meaning::check(&modules, &rules, &looked, sources, catalogue, &mut problems);
            obligations::check(&modules, &mut problems);
        }
    }
    if problems.iter().all(|problem| problem.severity == Severity::Warning) {
        let prepared = |checked: Checked| crate::engine::prepared(checked.engine, crate::Bounds::default().budget);
        match self::sources(sources, catalogue).and_then(prepared) {
            // What only the engine finds, it finds at a place too.
            Err(LoadError::Engine(error)) if error.contains("--> ") => problems.push(modules::unparsed("", &error)),
            other => drop(listed(other, &mut problems)?),
        }
    }
    problems.sort();
    problems.dedup();
    Ok(problems)
}

/// What `found` holds, or what is wrong at places of policies added to `problems`.
fn listed<T>(found: Result<T, LoadError>, problems: &mut Vec<Problem>) -> Result<Option<T>, LoadError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(LoadError::Policy(found)) => {
            problems.extend(found);
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// The owners of `sources`, which fit together and the catalogue.
fn fitting(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<Vec<Owner>, LoadError> {
    let owners = owners(sources)?;
    for (source, owner) in sources.iter().zip(&owners) {
        bindings(source, owner, catalogue)?;
        confined(source, owner)?;
    }
    Ok(owners)
}

/// Every Rego file with its owner, the library's first.
fn files(sources: &[Source], owners: &[Owner]) -> Vec<(Owner, File)> {
    let mut files: Vec<(Owner, File)> = library::files().into_iter().map(|file| (Owner::Library, file)).collect();
    for (source, owner) in sources.iter().zip(owners) {
        files.extend(source.policies.iter().map(|file| (owner.clone(), file.clone())));
    }
    files
}

/// Parses `file` as a module of `owner` or its tests, and gives the paths of its `test_` rules.
pub(crate) fn tests_in(owner: &Owner, file: &File) -> Result<Vec<String>, LoadError> {
    let (_, modules) = modules::parse(&[(owner.clone(), file.clone())])?;
    let root = owner.root();
    // `countersign.teams.support_test`, as OPA's own tests are called.
    let beside = root.split_last().map(|(name, above)| {
        let named = format!("{name}_test");
        above.iter().cloned().chain([named]).collect::<Path>()
    });
    let placed = |module: &&Module| {
        let beside = beside.as_ref().is_some_and(|beside| module.package.starts_with(beside));
        *owner == Owner::Library || beside || module.package.starts_with(&root)
    };
    let problems: Vec<_> =
        modules.iter().filter(|module| !placed(module)).map(|module| module.out_of_place(&root)).collect();
    if !problems.is_empty() {
        return Err(LoadError::Policy(problems));
    }
    Ok(modules.iter().flat_map(Module::tests).collect())
}

fn owners(sources: &[Source]) -> Result<Vec<Owner>, LoadError> {
    let mut seen = BTreeSet::new();
    let owner = |source: &Source| {
        let unfit = |reason: &str| LoadError::Source { name: source.name.clone(), reason: reason.to_owned() };
        let owner = Owner::of_source(&source.name)
            .ok_or_else(|| unfit("a source is called `org` or by a team's name: lower-case letters, digits and `_`"))?;
        if seen.insert(source.name.clone()) { Ok(owner) } else { Err(unfit("the name is used twice")) }
    };
    sources.iter().map(owner).collect()
}

fn bindings(source: &Source, owner: &Owner, catalogue: Option<&Catalogue>) -> Result<(), LoadError> {
    let unfit = |reason: String| Err(LoadError::Source { name: source.name.clone(), reason });
    match (owner, &source.tools) {
        (Owner::Team(_), None) => unfit("a team's source names the tools it decides about in `for`".to_owned()),
        (Owner::Org | Owner::Library, Some(_)) => unfit("`org` decides about every tool and has no `for`".to_owned()),
        (_, tools) => match tools.iter().flatten().find(|tool| catalogue.is_some_and(|all| all.tool(tool).is_none())) {
            Some(tool) => unfit(format!("`for` names the tool `{tool}`, which is not configured")),
            None => Ok(()),
        },
    }
}

fn confined(source: &Source, owner: &Owner) -> Result<(), LoadError> {
    let root = owner.root();
    for data in &source.data {
        if let Some(path) = data.outside(&root) {
            let reason = format!("holds `{path}`; the data of `{}` lies under `data.{}`", source.name, root.join("."));
            return Err(LoadError::Unfit { path: data.path.clone().into(), reason });
        }
    }
    Ok(())
}

/// The packages that answer, with the sets they declare.
type Declared = Vec<(Owner, Path, BTreeSet<Answer>)>;

/// What was seen of every rule on the way.
struct Looked<'a> {
    nodes: BTreeMap<&'a Path, Node<'a>>,
    known: Known<'a>,
}

impl<'a> Looked<'a> {
    /// Checks every rule by itself, and who evaluates whom.
    fn at(modules: &'a [Module], rules: &'a Rules<'a>, sources: &'a [Source], problems: &mut Vec<Problem>) -> Self {
        for module in modules {
            if !module.package.starts_with(&module.owner.root()) {
                problems.push(module.out_of_place(&module.owner.root()));
            }
        }
        data_meets_no_rule(rules, sources, problems);
        let mut looked = Self { nodes: BTreeMap::new(), known: Known::default() };
        for module in modules {
            let resolver = coded("name", problems, |problems| Resolver::of(module, rules, sources, problems));
            for rule in &module.rules {
                coded("answer", problems, |problems| answers::check(module, rule, problems));
                let (targets, nesting) = coded("name", problems, |problems| resolver.check(rule, problems));
                let key = rules.key(&rule.path);
                looked.known.add(key, module, rule, &targets, |found| resolver.function(found));
                let node = looked.nodes.entry(key).or_default();
                node.uses.extend(targets);
                node.nesting = node.nesting.max(nesting);
            }
        }
        graph::check(&looked.nodes, rules, problems);
        looked
    }
}

/// Checks every rule and gives the packages with the sets they declare, the library's aside, and what they read.
fn rules(modules: &[Module], sources: &[Source]) -> Result<(Declared, BTreeMap<String, Part>), LoadError> {
    let mut problems = Vec::new();
    let rules = Rules::of(modules, &mut problems);
    let looked = Looked::at(modules, &rules, sources, &mut problems);
    if problems.is_empty() {
        growth(modules, &rules, sources, &mut problems);
    }
    if problems.is_empty() {
        let declared = declared(modules);
        let reads =
            declared.iter().map(|(_, package, _)| (dotted(package), looked.known.of_package(package))).collect();
        return Ok((declared, reads));
    }
    problems.sort();
    problems.dedup();
    problems.truncate(MAX_PROBLEMS);
    Err(LoadError::Policy(problems))
}

fn growth(modules: &[Module], rules: &Rules<'_>, sources: &[Source], problems: &mut Vec<Problem>) {
    coded("growth", problems, |problems| growth::check(modules, rules, sources, problems));
}

/// Runs `check`, and gives the problems it adds their code, where it did not.
fn coded<T>(code: &'static str, problems: &mut Vec<Problem>, check: impl FnOnce(&mut Vec<Problem>) -> T) -> T {
    let before = problems.len();
    let value = check(problems);
    for problem in problems.iter_mut().skip(before).filter(|problem| problem.code == UNCODED) {
        problem.code = code;
    }
    value
}

fn data_meets_no_rule(rules: &Rules<'_>, sources: &[Source], problems: &mut Vec<Problem>) {
    for data in sources.iter().flat_map(|source| &source.data) {
        for (path, rule) in rules.iter() {
            // A rule's own path, or a value where the rule's package would have to be an object.
            let meets = (1..=path.len()).any(|length| match data.at(path.get(..length).unwrap_or_default()) {
                Some(regorus::Value::Object(_)) => length == path.len(),
                Some(_) => true,
                None => false,
            });
            if meets {
                let hint = "give one of them another name".to_owned();
                problems.push(
                    problem(rule.span, format!("the data document {} has the rule's name too", data.path), hint)
                        .coded("data"),
                );
            }
        }
    }
}

fn declared(modules: &[Module]) -> Declared {
    let mut packages: BTreeMap<(Owner, Path), BTreeSet<Answer>> = BTreeMap::new();
    for module in modules.iter().filter(|module| module.owner != Owner::Library) {
        let answers = module.rules.iter().filter_map(|rule| Answer::named(rule.path.last()?));
        packages.entry((module.owner.clone(), module.package.clone())).or_default().extend(answers);
    }
    packages.into_iter().map(|((owner, package), answers)| (owner, package, answers)).collect()
}

#[cfg(test)]
mod tests;
