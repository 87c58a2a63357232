//! What a package's answers read of the input: every reference of every rule that they may evaluate, followed
//! through the arguments of functions. Where that cannot be told, the part counts as read whole.

use std::collections::{BTreeMap, BTreeSet};

use model::Part;
use regorus::unstable::{Expr, Rule as ParsedRule, RuleHead, Span};

use super::{
    modules::{Module, Rule, import_name},
    walk::{Reference, Uses, reference},
};
use crate::roots::{About, Answer, Path};

/// Where a value comes from: the input, or an argument of the function that a rule defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Input,
    Argument(usize),
}

/// A value that is handed to a function.
struct Handed {
    origin: Origin,
    path: Path,
    function: Path,
    argument: usize,
}

/// What the definitions of one rule read themselves, and what they hand on.
#[derive(Default)]
pub(super) struct Own {
    reads: BTreeMap<Origin, Part>,
    handed: Vec<Handed>,
}

/// All that is known of every rule.
#[derive(Default)]
pub(super) struct Known<'a> {
    own: BTreeMap<&'a Path, Own>,
    uses: BTreeMap<&'a Path, BTreeSet<&'a Path>>,
}

impl<'a> Known<'a> {
    /// Adds one definition of the rule `key`, which may evaluate `uses`. `function` tells which function a name
    /// calls, where it calls one.
    pub(super) fn add(
        &mut self,
        key: &'a Path,
        module: &Module,
        rule: &Rule,
        uses: &BTreeSet<&'a Path>,
        function: impl Fn(&Reference) -> Option<Path>,
    ) {
        self.uses.entry(key).or_default().extend(uses);
        self.own.entry(key).or_default().definition(module, rule, function);
    }

    /// What the rules of the package `package` read of a call, with every rule that they may evaluate. The answers about
    /// other things than calls have another input.
    pub(super) fn of_package(&self, package: &[String]) -> Part {
        let mut reads = Part::default();
        let of_calls = |path: &&&Path| {
            let answer = path.last().and_then(|name| Answer::named(name));
            path.starts_with(package) && answer.is_none_or(|answer| answer.about() == About::Calls)
        };
        let mut open: Vec<&Path> = self.own.keys().filter(of_calls).copied().collect();
        let mut seen: BTreeSet<&Path> = open.iter().copied().collect();
        let mut summaries = BTreeMap::new();
        while let Some(path) = open.pop() {
            let own = self.of(path, Origin::Input, &mut summaries);
            reads.add_all(&[], &own);
            open.extend(self.uses.get(path).into_iter().flatten().filter(|used| seen.insert(used)));
        }
        reads
    }

    /// What the function `path` reads of its argument at `place`.
    pub(super) fn argument(&self, path: &Path, place: usize) -> Part {
        self.of(path, Origin::Argument(place), &mut BTreeMap::new())
    }

    /// What the rule `path` reads of what comes from `origin`. The rules do not recurse, or they would not be here.
    fn of(&self, path: &Path, origin: Origin, summaries: &mut BTreeMap<(Path, Origin), Part>) -> Part {
        if let Some(known) = summaries.get(&(path.clone(), origin)) {
            return known.clone();
        }
        let mut reads = Part::default();
        match self.own.get(path) {
            None => reads.add(&[]),
            Some(own) => {
                reads.add_all(&[], own.reads.get(&origin).unwrap_or(&Part::default()));
                for handed in own.handed.iter().filter(|handed| handed.origin == origin) {
                    let below = self.of(&handed.function, Origin::Argument(handed.argument), summaries);
                    reads.add_all(&handed.path, &below);
                }
            }
        }
        summaries.insert((path.clone(), origin), reads.clone());
        reads
    }
}

impl Own {
    fn definition(&mut self, module: &Module, rule: &Rule, function: impl Fn(&Reference) -> Option<Path>) {
        let names = Names::of(module, &rule.parsed);
        for &argument in &names.unnamed {
            self.reads.entry(Origin::Argument(argument)).or_default().add(&[]);
        }
        let uses = Uses::of(&rule.parsed);
        let mut accounted = names.heads.clone();
        for call in &uses.calls {
            let Some(function) = call.function.as_ref().filter(|found| !found.dynamic).and_then(&function) else {
                continue;
            };
            for (argument, expression) in call.arguments.iter().enumerate() {
                let found = reference(expression).filter(|found| !found.dynamic);
                let Some((origin, path)) = found.and_then(|found| names.place(&found)) else { continue };
                accounted.push(std::ptr::from_ref(expression.span()));
                self.handed.push(Handed { origin, path, function: function.clone(), argument });
            }
        }
        for (found, span) in &uses.references {
            if accounted.contains(&std::ptr::from_ref(*span)) {
                continue;
            }
            if let Some((origin, path)) = names.place(found) {
                self.reads.entry(origin).or_default().add(&path);
            }
        }
    }
}

/// What the names of one definition stand for.
struct Names<'a> {
    /// Imports of parts of the input.
    imports: BTreeMap<String, Path>,
    /// The definition's arguments that are plain names.
    arguments: BTreeMap<&'a str, usize>,
    /// Those that are not: a pattern looks at what it is given.
    unnamed: Vec<usize>,
    /// Where the arguments are named, which reads nothing.
    heads: Vec<*const Span>,
}

impl<'a> Names<'a> {
    fn of(module: &Module, rule: &'a ParsedRule) -> Self {
        let mut names =
            Self { imports: inputs(module), arguments: BTreeMap::new(), unnamed: Vec::new(), heads: Vec::new() };
        let arguments = match rule {
            ParsedRule::Spec { head: RuleHead::Func { args, .. }, .. } | ParsedRule::Default { args, .. } => args,
            ParsedRule::Spec { .. } => return names,
        };
        for (place, argument) in arguments.iter().enumerate() {
            match argument.as_ref() {
                // A name that stands for the input too is followed as the input.
                Expr::Var { span, .. } if !names.is_input(span.text()) => {
                    names.arguments.insert(span.text(), place);
                    names.heads.push(std::ptr::from_ref(span));
                }
                _ => names.unnamed.push(place),
            }
        }
        names
    }

    fn is_input(&self, name: &str) -> bool {
        name == "input" || self.imports.contains_key(name)
    }

    /// The place that a reference names, where it is one in the input or in an argument. A local name that is
    /// called as one of them counts as it.
    fn place(&self, found: &Reference) -> Option<(Origin, Path)> {
        if let Some(place) = self.arguments.get(found.root.as_str()) {
            return Some((Origin::Argument(*place), found.path.clone()));
        }
        if found.root == "input" {
            return Some((Origin::Input, found.path.clone()));
        }
        let import = self.imports.get(&found.root)?;
        Some((Origin::Input, import.iter().chain(&found.path).cloned().collect()))
    }
}

/// The imports of parts of the input, by the name that stands for them.
fn inputs(module: &Module) -> BTreeMap<String, Path> {
    let named = module.imports().iter().filter_map(|import| {
        let found = reference(&import.refr).filter(|found| found.root == "input")?;
        let name = import_name(import, &found);
        Some((name?, found.path))
    });
    named.collect()
}
