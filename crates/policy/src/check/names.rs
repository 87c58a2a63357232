//! What a rule's names stand for: its own package, the library, the input, or a local name. Anything else under
//! `data` belongs to somebody else, and a name made at run time could be anybody's.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::Span;

use super::{
    NESTING, builtins,
    modules::{Module, Rule, Rules, import_name},
    walk::{Call, MAX_NESTING, Reference, Uses, reference},
};
use crate::{
    Problem, Source,
    roots::{LIBRARY, Path, dotted, problem},
};

/// Knows what names mean in one module.
pub(super) struct Resolver<'a> {
    module: &'a Module,
    rules: &'a Rules<'a>,
    sources: &'a [Source],
    /// What each alias stands for under `data`; `None` for a part of the input.
    imports: BTreeMap<String, Option<Path>>,
}

/// The names of the two documents, which nothing else may have.
fn is_root(name: &str) -> bool {
    matches!(name, "data" | "input")
}

impl<'a> Resolver<'a> {
    /// Reads the imports of `module`.
    pub(super) fn of(
        module: &'a Module,
        rules: &'a Rules<'a>,
        sources: &'a [Source],
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut resolver = Self { module, rules, sources, imports: BTreeMap::new() };
        for import in module.imports() {
            let found = reference(&import.refr).filter(|found| !found.dynamic);
            let Some(found) = found else {
                problems.push(problem(&import.span, "the import is not a path of constant names", None));
                continue;
            };
            let name = import_name(import, &found);
            let target = match found.root.as_str() {
                "rego" if found.path == ["v1"] => continue,
                "future" if found.path.first().is_some_and(|first| first == "keywords") => continue,
                "input" => None,
                "data" => {
                    resolver.path(&found.path, false, &import.span, problems);
                    Some(found.path)
                }
                other => {
                    problems.push(problem(&import.span, format!("`{other}` cannot be imported"), None));
                    continue;
                }
            };
            let Some(name) = name else { continue };
            if is_root(&name) || resolver.imports.contains_key(&name) {
                let message = format!("`{name}` stands for something else already");
                problems.push(problem(&import.span, message, "import it `as` another name".to_owned()));
            }
            resolver.imports.insert(name, target);
        }
        resolver
    }

    /// Checks everything that `rule` names and calls, and gives the rules that it may evaluate and how deep it is
    /// nested itself.
    pub(super) fn check(&self, rule: &'a Rule, problems: &mut Vec<Problem>) -> (BTreeSet<&'a Path>, usize) {
        let uses = Uses::of(&rule.parsed);
        if let Some(span) = uses.too_deep {
            let hint = "give a part of it a name of its own".to_owned();
            problems.push(problem(span, format!("nested more than {MAX_NESTING} deep"), hint).coded(NESTING));
        }
        for span in uses.withs {
            let hint = "`with` is for tests; pass the value to a function instead".to_owned();
            problems.push(problem(span, "`with` in a policy", hint));
        }
        let name = rule.path.get(self.module.package.len());
        if let Some(name) = name.filter(|name| is_root(name) || self.imports.contains_key(*name)) {
            let message = format!("the rule's name begins with `{name}`, which is an import or a document");
            problems.push(problem(rule.span(), message, "give one of them another name".to_owned()));
        }
        let mut targets = BTreeSet::new();
        for (found, span) in &uses.references {
            if let Some((path, ours)) = self.target(found) {
                if !ours {
                    self.path(&path, found.dynamic, span, problems);
                }
                targets.extend(self.rules.touched(&path));
            }
        }
        for call in &uses.calls {
            targets.extend(self.call(call, problems));
        }
        (targets, uses.deepest)
    }

    /// The rule that a call of `found` evaluates, where it is one of a policy's own functions.
    pub(super) fn function(&self, found: &Reference) -> Option<Path> {
        let (path, _) = self.target(found)?;
        self.rules.known(&path)?.arguments.map(|_| path)
    }

    /// Where under `data` the reference leads, and whether that is by a name of the module's own package.
    fn target(&self, found: &Reference) -> Option<(Path, bool)> {
        match found.root.as_str() {
            "input" => None,
            "data" => Some((found.path.clone(), false)),
            root => match self.imports.get(root) {
                Some(None) => None,
                Some(Some(import)) => Some((import.iter().chain(&found.path).cloned().collect(), false)),
                // A local name that a rule of the package has too counts as the rule: too much, never too little.
                None => {
                    let path: Path =
                        self.module.package.iter().chain([&found.root]).chain(&found.path).cloned().collect();
                    Some((path, true))
                }
            },
        }
    }

    /// Checks a path under `data`.
    fn path(&self, path: &[String], dynamic: bool, span: &Span, problems: &mut Vec<Problem>) {
        let root = self.module.owner.root();
        let written = std::iter::once("data").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
        let library = path.len() > LIBRARY.len() && path.iter().zip(LIBRARY).all(|(part, known)| part == known);
        let own = path.starts_with(&root);
        if !library && !own {
            if root.starts_with(path) || LIBRARY.iter().zip(path).all(|(known, part)| known == part) {
                let hint = format!("name what you mean: `data.{}.…` or `data.{}.…`", dotted(&root), LIBRARY.join("."));
                problems.push(problem(span, format!("`{written}` reaches into packages of others"), hint));
            } else {
                let hint = format!("a policy reads its own `data.{}` and `data.{}`", dotted(&root), LIBRARY.join("."));
                problems.push(problem(span, format!("`{written}` belongs to somebody else"), hint));
            }
        } else if own && path.len() == root.len() && dynamic {
            let hint = "name the rule or the data document".to_owned();
            problems.push(problem(span, format!("a name under `{written}` is made at run time"), hint));
        } else if !self.exists(path) {
            let hint = "a name that stands for nothing makes its rule say nothing".to_owned();
            problems.push(problem(span, format!("there is no `{written}`"), hint));
        }
    }

    fn exists(&self, path: &[String]) -> bool {
        !self.rules.touched(path).is_empty()
            || self.sources.iter().flat_map(|source| &source.data).any(|data| data.at(path).is_some())
    }

    /// Checks a call, and gives the rules that it may evaluate.
    fn call(&self, call: &Call<'_>, problems: &mut Vec<Problem>) -> Vec<&'a Path> {
        let Some(function) = call.function.as_ref().filter(|function| !function.dynamic) else {
            problems.push(problem(call.span, "what is called is not a constant name", None));
            return Vec::new();
        };
        let Some((path, ours)) = self.target(function) else {
            problems.push(problem(call.span, "the input has no functions", None));
            return Vec::new();
        };
        match self.rules.known(&path).map(|known| known.arguments) {
            Some(Some(arguments)) => {
                if arguments != call.arguments.len() {
                    let message = format!("`{}` takes {arguments} arguments", dotted(&path));
                    problems.push(problem(call.span, message, None));
                }
                if !ours {
                    self.path(&path, false, call.span, problems);
                }
                self.rules.touched(&path)
            }
            Some(None) => {
                problems.push(problem(call.span, format!("`{}` is not a function", dotted(&path)), None));
                Vec::new()
            }
            None if ours => {
                let name = std::iter::once(&function.root).chain(&function.path).cloned().collect::<Vec<_>>();
                builtins::check(&dotted(&name), call, problems);
                Vec::new()
            }
            None => {
                let message = format!("there is no function `data.{}`", dotted(&path));
                problems.push(problem(call.span, message, None));
                Vec::new()
            }
        }
    }
}
