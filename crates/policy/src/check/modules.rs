//! The parsed modules: whose each is, what it is called, what it imports and which rules it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use regorus::unstable::{Expr, Import, Module as Parsed, Ref, Rule as ParsedRule, RuleHead, Span};

use super::{
    text,
    walk::{Reference, reference, varies_before_end},
};
use crate::{
    LoadError, Problem,
    bundle::File,
    roots::{Answer, Owner, Path, dotted, is_plain, problem},
};

/// A parsed module.
pub(super) struct Module {
    pub(super) owner: Owner,
    pub(super) package: Path,
    pub(super) rules: Vec<Rule>,
    pub(super) parsed: Ref<Parsed>,
}

/// One definition of a rule; a rule may have several.
pub(super) struct Rule {
    /// Its package and its name.
    pub(super) path: Path,
    /// How many arguments it takes, where it is a function.
    pub(super) arguments: Option<usize>,
    pub(super) parsed: Ref<ParsedRule>,
}

/// Parses `files` into one engine, in order.
pub(super) fn parse(files: &[(Owner, File)]) -> Result<(regorus::Engine, Vec<Module>), LoadError> {
    let mut engine = regorus::Engine::new();
    let mut problems = Vec::new();
    for (_, file) in files {
        if let Some(found) = text::too_much(&file.path, &file.text) {
            problems.push(found);
        } else if let Err(error) = engine.add_policy(file.path.clone(), file.text.clone()) {
            problems.push(unparsed(&file.path, &error.to_string()));
        }
    }
    if !problems.is_empty() {
        return Err(LoadError::Policy(problems));
    }
    let mut modules = Vec::new();
    for ((owner, _), parsed) in files.iter().zip(engine.get_modules()) {
        match Module::of(owner.clone(), parsed.clone()) {
            Ok(module) => modules.push(module),
            Err(found) => problems.push(found),
        }
    }
    if problems.is_empty() { Ok((engine, modules)) } else { Err(LoadError::Policy(problems)) }
}

/// The engine's own words for what it cannot use: `--> file:line:column`, an excerpt, `error: what`.
pub(super) fn unparsed(file: &str, error: &str) -> Problem {
    let place = error.split("--> ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let mut parts = place.rsplitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.trim().parse::<u32>().ok());
    let (column, line) = (number(), number());
    let file = parts.next().unwrap_or(file);
    let message = error.rsplit("error: ").next().unwrap_or(error).trim();
    Problem::at(file, line.unwrap_or(1), column.unwrap_or(1), "syntax", message.to_owned())
}

impl Module {
    fn of(owner: Owner, parsed: Ref<Parsed>) -> Result<Self, Problem> {
        let span = &parsed.package.span;
        let package = reference(&parsed.package.refr).filter(|found| !found.dynamic).map(|found| found.whole());
        let Some(package) = package.filter(|path| path.iter().all(|part| is_plain(part))) else {
            let hint = "names in lower case, separated by dots".to_owned();
            return Err(problem(span, "the package's name is not a plain one", hint).coded("package"));
        };
        if let Some(reserved) = package.iter().find(|part| Answer::named(part).is_some()) {
            let message = format!("`{reserved}` in a package's name is the name of an answer");
            return Err(problem(span, message, None).coded("package"));
        }
        let mut rules = Vec::new();
        for rule in &parsed.policy {
            rules.push(Rule::of(&package, rule.clone())?);
        }
        Ok(Self { owner, package, rules, parsed })
    }

    pub(super) fn imports(&self) -> &[Import] {
        &self.parsed.imports
    }

    /// The problem that the package does not lie under `root`.
    pub(super) fn out_of_place(&self, root: &[String]) -> Problem {
        let message = format!("the package `{}` does not belong to this source", dotted(&self.package));
        problem(&self.parsed.package.span, message, format!("its packages begin with `{}`", dotted(root)))
            .coded("package")
    }

    /// The paths of the rules that are tests.
    pub(super) fn tests(&self) -> Vec<String> {
        let named = |rule: &&Rule| rule.path.last().is_some_and(|name| name.starts_with("test_"));
        let mut paths: Vec<String> =
            self.rules.iter().filter(named).map(|rule| format!("data.{}", dotted(&rule.path))).collect();
        paths.dedup();
        paths
    }
}

/// The name that an import of `found` stands under in its module.
pub(super) fn import_name(import: &Import, found: &Reference) -> Option<String> {
    import.r#as.as_ref().map(|alias| alias.text().to_owned()).or_else(|| found.path.last().cloned())
}

impl Rule {
    fn of(package: &[String], parsed: Ref<ParsedRule>) -> Result<Self, Problem> {
        let (refr, arguments) = match parsed.as_ref() {
            ParsedRule::Spec { head: RuleHead::Func { refr, args, .. }, .. } => (refr, Some(args.len())),
            ParsedRule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, .. } => (refr, None),
            ParsedRule::Default { refr, args, .. } => (refr, (!args.is_empty()).then_some(args.len())),
        };
        let Some(Reference { root, path: below, .. }) = reference(refr) else {
            return Err(problem(parsed.span(), "the rule has no name", None).coded("name"));
        };
        // A variable may be the last part of a name. The engine does not find what lies below one, and says nothing.
        if varies_before_end(refr) {
            let hint = "build the object in one rule, or give each of its parts a rule of its own".to_owned();
            let message = "a rule's name may have a variable only as its last part";
            return Err(problem(parsed.span(), message, Some(hint)).coded("name"));
        }
        let mut path = package.to_vec();
        path.push(root);
        path.extend(below);
        Ok(Self { path, arguments, parsed })
    }

    /// The expression that names it.
    pub(super) fn name(&self) -> &Expr {
        match self.parsed.as_ref() {
            ParsedRule::Default { refr, .. }
            | ParsedRule::Spec {
                head: RuleHead::Func { refr, .. } | RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. },
                ..
            } => refr,
        }
    }

    pub(super) fn span(&self) -> &Span {
        self.parsed.span()
    }

    /// Whether it is many sets under one name: `allowed[tool] contains …`.
    fn is_family(&self) -> bool {
        match self.parsed.as_ref() {
            ParsedRule::Spec { head: RuleHead::Set { refr, .. }, .. } => {
                reference(refr).is_some_and(|found| found.dynamic)
            }
            _ => false,
        }
    }
}

/// All rules by path.
pub(super) struct Rules<'a>(BTreeMap<Path, Known<'a>>);

/// What is known of the rule at a path.
pub(super) struct Known<'a> {
    pub(super) arguments: Option<usize>,
    pub(super) span: &'a Span,
}

impl<'a> Rules<'a> {
    pub(super) fn of(modules: &'a [Module], problems: &mut Vec<Problem>) -> Self {
        let mut rules: BTreeMap<Path, Known<'a>> = BTreeMap::new();
        for rule in modules.iter().flat_map(|module| &module.rules) {
            let known = Known { arguments: rule.arguments, span: rule.span() };
            match rules.get(&rule.path) {
                Some(earlier) if earlier.arguments != rule.arguments => {
                    let message = format!("`{}` is defined with different arguments elsewhere", dotted(&rule.path));
                    problems.push(problem(rule.span(), message, None).coded("name"));
                }
                Some(_) => {}
                None => {
                    rules.insert(rule.path.clone(), known);
                }
            }
        }
        let all = modules.iter().flat_map(|module| &module.rules);
        let families: BTreeSet<&[String]> = all.filter(|rule| rule.is_family()).map(|rule| &*rule.path).collect();
        for (path, known) in &rules {
            // The engine then finds the one or the other, and says nothing.
            let above = |length: usize| path.get(..length).is_some_and(|above| families.contains(above));
            if (1..path.len()).any(above) {
                let message = format!("`{}` is also named by a variable elsewhere", dotted(path));
                let hint = "name all parts of a set of sets by a variable, or each by its name".to_owned();
                problems.push(problem(known.span, message, Some(hint)).coded("name"));
            }
        }
        Self(rules)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &Known<'a>)> {
        self.0.iter()
    }

    pub(super) fn known(&self, path: &[String]) -> Option<&Known<'a>> {
        self.0.get(path)
    }

    /// The rule's path as it is kept here.
    ///
    /// `path` is one of those the rules were made from.
    pub(super) fn key<'b>(&'b self, path: &'b Path) -> &'b Path {
        self.0.get_key_value(path).map_or(path, |(key, _)| key)
    }

    /// Every rule that reading `path` may evaluate: those at it or below it, and the one it reaches into.
    pub(super) fn touched<'b>(&'b self, path: &[String]) -> Vec<&'b Path> {
        let from = (Bound::Included(path.to_vec()), Bound::Unbounded);
        let below = self.0.range(from).map(|(key, _)| key).take_while(|key| key.starts_with(path));
        let above = (1..path.len()).filter_map(|length| self.0.get_key_value(path.get(..length)?)).map(|(key, _)| key);
        below.chain(above).collect()
    }
}
