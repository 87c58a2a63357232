//! What a policy has to pass before it may decide. Whatever the engine would let hang, abort the process or
//! silently come to nothing is refused here, with its place and what to write instead.

mod answers;
mod builtins;
mod graph;
mod growth;
mod modules;
mod names;
mod reads;
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
    LoadError, Problem, Source,
    bundle::File,
    dispatch::{self, Package},
    library,
    roots::{Answer, Owner, Path, dotted, problem},
};

/// Policies that passed: an engine that holds them, and the packages that answer.
pub(crate) struct Checked {
    pub(crate) engine: regorus::Engine,
    pub(crate) packages: Vec<Package>,
    /// Every module in the engine, the library and the generated one included.
    pub(crate) modules: Vec<File>,
    /// For each package by its name what it reads of a call's input.
    pub(crate) reads: BTreeMap<String, Part>,
}

/// The most problems that are reported at once.
const MAX_PROBLEMS: usize = 50;

/// Checks `sources` against each other, the library and the catalogue, where there is one to check against.
pub(crate) fn sources(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<Checked, LoadError> {
    let owners = owners(sources)?;
    for (source, owner) in sources.iter().zip(&owners) {
        bindings(source, owner, catalogue)?;
        confined(source, owner)?;
    }
    let mut files: Vec<(Owner, File)> = library::files().into_iter().map(|file| (Owner::Library, file)).collect();
    for (source, owner) in sources.iter().zip(&owners) {
        files.extend(source.policies.iter().map(|file| (owner.clone(), file.clone())));
    }
    let (mut engine, modules) = modules::parse(&files)?;
    let (answers, reads) = rules(&modules, sources)?;
    let (packages, generated) = dispatch::generate(answers);
    let generated = File { path: "countersign/dispatch.rego".to_owned(), text: generated };
    let refused = |error: &dyn std::fmt::Display| LoadError::Engine(error.to_string());
    engine.add_policy(generated.path.clone(), generated.text.clone()).map_err(|error| refused(&error))?;
    for data in sources.iter().flat_map(|source| &source.data) {
        engine
            .add_data(data.document().clone())
            .map_err(|error| LoadError::Unfit { path: data.path.clone().into(), reason: error.to_string() })?;
    }
    let modules = files.into_iter().map(|(_, file)| file).chain([generated]).collect();
    Ok(Checked { engine, packages, modules, reads })
}

/// Checks `sources` and keeps nothing of them.
///
/// # Errors
/// Where they would not load.
pub fn look(sources: &[Source], catalogue: Option<&Catalogue>) -> Result<(), LoadError> {
    self::sources(sources, catalogue).map(drop)
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

/// Checks every rule and gives the packages with the sets they declare, the library's aside, and what they read.
fn rules(modules: &[Module], sources: &[Source]) -> Result<(Declared, BTreeMap<String, Part>), LoadError> {
    let mut problems = Vec::new();
    for module in modules {
        if !module.package.starts_with(&module.owner.root()) {
            problems.push(module.out_of_place(&module.owner.root()));
        }
    }
    let rules = Rules::of(modules, &mut problems);
    data_meets_no_rule(&rules, sources, &mut problems);
    let mut nodes: BTreeMap<&Path, Node<'_>> = BTreeMap::new();
    let mut known = Known::default();
    for module in modules {
        let resolver = Resolver::of(module, &rules, sources, &mut problems);
        for rule in &module.rules {
            answers::check(module, rule, &mut problems);
            let (targets, nesting) = resolver.check(rule, &mut problems);
            let key = rules.key(&rule.path);
            known.add(key, module, rule, &targets, |found| resolver.function(found));
            let node = nodes.entry(key).or_default();
            node.uses.extend(targets);
            node.nesting = node.nesting.max(nesting);
        }
    }
    graph::check(&nodes, &rules, &mut problems);
    if problems.is_empty() {
        growth::check(modules, &rules, sources, &mut problems);
    }
    if problems.is_empty() {
        let declared = declared(modules);
        let reads = declared.iter().map(|(_, package, _)| (dotted(package), known.of_package(package))).collect();
        return Ok((declared, reads));
    }
    problems.sort();
    problems.dedup();
    problems.truncate(MAX_PROBLEMS);
    Err(LoadError::Policy(problems))
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
                problems.push(problem(
                    rule.span,
                    format!("the data document {} has the rule's name too", data.path),
                    hint,
                ));
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
