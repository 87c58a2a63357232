//! What a policy says, read against what it is asked about: every reference into the input, through imports, names,
//! rules and functions; the kinds of what is compared; and what becomes of a decision where something is missing.
//!
//! What is not known is taken to be right. Library rules are followed and never complained about.

mod builtins;
mod compare;
mod doubts;
mod expression;
mod guards;
mod reference;
mod scope;

use std::collections::{BTreeMap, BTreeSet};

use model::Catalogue;
use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Rule as Parsed, RuleAssign, RuleHead, Span};

use self::{
    doubts::Doubts,
    scope::{Around, Scope},
};
use super::{
    Looked,
    graph::Node,
    lint,
    modules::{Module, Rule, Rules, import_name},
    reads::Known,
    shape::{Calls, Inputs, Kinds, Shape},
    walk::reference,
};
use crate::{
    Problem, Source,
    roots::{About, Answer, Owner, Path, problem},
};

/// Reports what does not mean what it says, and what means nothing.
pub(super) fn check(
    modules: &[Module],
    rules: &Rules<'_>,
    looked: &Looked<'_>,
    sources: &[Source],
    catalogue: Option<&Catalogue>,
    problems: &mut Vec<Problem>,
) {
    let inputs = Inputs::of(catalogue);
    let nodes = &looked.nodes;
    let program = Program::of(modules, rules, &looked.known, sources, &inputs);
    let order = order(nodes);
    let mut answering: BTreeSet<&Path> = BTreeSet::new();
    for about in About::ALL {
        let reached = reached(nodes, |path| Answer::named(path.last()?).filter(|answer| answer.about() == about));
        let mut walk = Walk::new(&program, about);
        let own: Vec<&Path> = order.iter().filter(|path| reached.contains(*path)).copied().collect();
        walk.rules(&own);
        problems.extend(walk.finished());
        answering.extend(reached);
    }
    // Nobody asks for the others: each may be about whatever it fits best.
    let others: Vec<&Path> = order.iter().filter(|path| !answering.contains(*path)).copied().collect();
    let found = About::ALL.map(|about| Walk::new(&program, about).rules(&others));
    for place in 0..others.len() {
        let of_rule = found.iter().filter_map(|found| found.get(place));
        problems.extend(of_rule.min_by_key(|found| found.len()).into_iter().flatten().cloned());
    }
    for (place, module) in modules.iter().enumerate().filter(|(_, module)| module.owner != Owner::Library) {
        program.imported(place, module, problems);
    }
    lint::check(modules, rules, nodes, &answering, problems);
}

/// The rules that the answers which `starts` picks may evaluate, and those themselves.
fn reached<'a>(nodes: &BTreeMap<&'a Path, Node<'a>>, starts: impl Fn(&Path) -> Option<Answer>) -> BTreeSet<&'a Path> {
    let mut open: Vec<&Path> = nodes.keys().filter(|path| starts(path).is_some()).copied().collect();
    let mut seen: BTreeSet<&Path> = open.iter().copied().collect();
    while let Some(path) = open.pop() {
        let uses = nodes.get(path).into_iter().flat_map(|node| node.uses.iter().copied());
        open.extend(uses.filter(|used| seen.insert(used)));
    }
    seen
}

/// The rules, each before those that it uses. They do not recurse, or they would not be here.
fn order<'a>(nodes: &BTreeMap<&'a Path, Node<'a>>) -> Vec<&'a Path> {
    let mut users: BTreeMap<&Path, usize> = nodes.keys().map(|path| (*path, 0)).collect();
    for used in nodes.values().flat_map(|node| &node.uses) {
        *users.entry(used).or_default() += 1;
    }
    let mut ready: Vec<&Path> = users.iter().filter(|(_, users)| **users == 0).map(|(path, _)| *path).collect();
    let mut order = Vec::new();
    while let Some(path) = ready.pop() {
        order.push(path);
        for used in nodes.get(path).into_iter().flat_map(|node| node.uses.iter().copied()) {
            if let Some(users) = users.get_mut(used) {
                *users = users.saturating_sub(1);
                if *users == 0 {
                    ready.push(used);
                }
            }
        }
    }
    order
}

/// What an import stands for.
enum Import {
    /// A part of the input.
    Input(Path),
    /// A path under `data`.
    Data(Path),
}

/// All rules, and what the names of each module stand for.
struct Program<'a> {
    modules: &'a [Module],
    rules: &'a Rules<'a>,
    inputs: &'a Inputs<'a>,
    known: &'a Known<'a>,
    definitions: BTreeMap<&'a Path, Vec<(usize, &'a Rule)>>,
    imports: Vec<BTreeMap<String, Import>>,
    /// For each module the calls that it is asked about.
    calls: Vec<Calls>,
}

impl<'a> Program<'a> {
    fn of(
        modules: &'a [Module],
        rules: &'a Rules<'a>,
        known: &'a Known<'a>,
        sources: &'a [Source],
        inputs: &'a Inputs<'a>,
    ) -> Self {
        let mut definitions: BTreeMap<&Path, Vec<(usize, &Rule)>> = BTreeMap::new();
        for (place, module) in modules.iter().enumerate() {
            for rule in &module.rules {
                definitions.entry(rules.key(&rule.path)).or_default().push((place, rule));
            }
        }
        let calls = |module: &Module| {
            let source = sources.iter().find(|source| Owner::of_source(&source.name).as_ref() == Some(&module.owner));
            let tools = source.and_then(|source| source.tools.clone()).filter(|tools| !tools.is_empty());
            Calls { tools, actions: None }
        };
        let imports = modules.iter().map(imports).collect();
        Self { modules, rules, inputs, known, definitions, imports, calls: modules.iter().map(calls).collect() }
    }

    fn is_library(&self, path: &Path) -> bool {
        let owner = |module: &usize| self.modules.get(*module).map(|module| &module.owner);
        self.definitions.get(path).into_iter().flatten().any(|(module, _)| owner(module) == Some(&Owner::Library))
    }

    /// Where under `data` a name of a module leads that is neither the input's nor a local one.
    fn target(&self, module: usize, root: &str, below: &[String]) -> Option<Path> {
        if root == "data" {
            return Some(below.to_vec());
        }
        let head = match self.imports.get(module)?.get(root) {
            Some(Import::Input(_)) => return None,
            Some(Import::Data(path)) => path.clone(),
            None => self.modules.get(module)?.package.iter().cloned().chain([root.to_owned()]).collect(),
        };
        Some(head.into_iter().chain(below.iter().cloned()).collect())
    }

    /// Reports imports of what no input has.
    fn imported(&self, place: usize, module: &'a Module, problems: &mut Vec<Problem>) {
        for import in module.imports() {
            let found = About::ALL.into_iter().map(|about| {
                let mut walk = Walk::new(self, about);
                let mut scope = walk.scope(place);
                if reference(&import.refr).is_some_and(|found| found.root == "input") {
                    walk.expression(&import.refr, &mut scope);
                }
                walk.problems
            });
            problems.extend(found.min_by_key(Vec::len).unwrap_or_default());
        }
    }
}

fn imports(module: &Module) -> BTreeMap<String, Import> {
    let named = module.imports().iter().filter_map(|import| {
        let found = reference(&import.refr)?;
        let name = import_name(import, &found)?;
        match found.root.as_str() {
            "input" => Some((name, Import::Input(found.path))),
            "data" => Some((name, Import::Data(found.path))),
            _ => None,
        }
    });
    named.collect()
}

/// Reads the rules that answer one question.
struct Walk<'a> {
    program: &'a Program<'a>,
    about: About,
    /// What each function is given by all that call it.
    given: BTreeMap<&'a Path, Vec<Shape>>,
    /// What each rule is.
    values: BTreeMap<&'a Path, Shape>,
    inputs: BTreeMap<Calls, Shape>,
    problems: Vec<Problem>,
    doubts: Doubts<'a>,
    /// The rule that is being read.
    current: Option<&'a Path>,
    /// While a rule is read for its value only, nothing is said of it.
    quiet: bool,
}

impl<'a> Walk<'a> {
    fn new(program: &'a Program<'a>, about: About) -> Self {
        Self {
            program,
            about,
            given: BTreeMap::new(),
            values: BTreeMap::new(),
            inputs: BTreeMap::new(),
            problems: Vec::new(),
            doubts: Doubts::default(),
            current: None,
            quiet: false,
        }
    }

    /// Everything that was found.
    fn finished(self) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.extend(self.doubts.problems(self.program));
        problems
    }

    /// Reads `rules`, each after all that use it, and gives what is wrong with each.
    fn rules(&mut self, rules: &[&'a Path]) -> Vec<Vec<Problem>> {
        // What a rule is rests on those it uses: the last first, so that no line of rules is followed at once.
        for path in rules.iter().rev() {
            self.value(path);
        }
        let read = |path: &&'a Path| {
            let before = self.problems.len();
            self.rule(path);
            self.problems.get(before..).unwrap_or_default().to_vec()
        };
        rules.iter().map(read).collect()
    }

    fn rule(&mut self, path: &'a Path) {
        if self.program.is_library(path) {
            return;
        }
        self.current = Some(path);
        let given = self.given.get(path).cloned().unwrap_or_default();
        for (module, rule) in self.program.definitions.get(path).map(Vec::as_slice).unwrap_or_default() {
            self.definition(*module, rule, &given);
        }
        self.current = None;
    }

    /// What the rule `path` is, whatever a function is given.
    fn value(&mut self, path: &'a Path) -> Shape {
        if let Some(known) = self.values.get(path) {
            return known.clone();
        }
        self.values.insert(path, Shape::Any);
        let quiet = std::mem::replace(&mut self.quiet, true);
        let definitions = self.program.definitions.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut value: Option<Shape> = None;
        for (module, rule) in definitions {
            let one = self.definition(*module, rule, &[]);
            value = Some(match value {
                Some(others) => others.or(one),
                None => one,
            });
        }
        self.quiet = quiet;
        let value = value.unwrap_or(Shape::Any);
        self.values.insert(path, value.clone());
        value
    }

    fn scope(&mut self, module: usize) -> Scope<'a> {
        let calls = self.program.calls.get(module).cloned().unwrap_or_default();
        let input = self.input(&calls);
        Scope::new(module, calls, input)
    }

    fn input(&mut self, calls: &Calls) -> Shape {
        if let Some(known) = self.inputs.get(calls) {
            return known.clone();
        }
        let input = self.program.inputs.input(self.about, calls);
        self.inputs.insert(calls.clone(), input.clone());
        input
    }

    /// Reads one definition of a rule, and gives what it says the rule is.
    fn definition(&mut self, module: usize, rule: &'a Rule, given: &[Shape]) -> Shape {
        let mut scope = self.scope(module);
        let (head, bodies) = match rule.parsed.as_ref() {
            Parsed::Default { value, .. } => return self.expression(value, &mut scope),
            Parsed::Spec { head, bodies, .. } => (head, bodies),
        };
        let assign = match head {
            RuleHead::Compr { assign, .. } => assign.as_ref(),
            RuleHead::Set { .. } => None,
            RuleHead::Func { args, assign, .. } => {
                for (place, argument) in args.iter().enumerate() {
                    self.bind(argument, given.get(place).unwrap_or(&Shape::Any), &mut scope);
                }
                assign.as_ref()
            }
        };
        if bodies.is_empty() {
            return self.head(head, assign, &mut scope);
        }
        let mut value: Option<Shape> = None;
        for (place, body) in bodies.iter().enumerate() {
            let mark = scope.mark();
            self.query(&body.query, &mut scope);
            // An `else` has a value of its own.
            let assign = if place == 0 { assign } else { body.assign.as_ref() };
            let one = self.head(head, assign, &mut scope);
            scope.back(&mark);
            value = Some(match value {
                Some(others) => others.or(one),
                None => one,
            });
        }
        value.unwrap_or(Shape::Any)
    }

    fn head(&mut self, head: &'a RuleHead, assign: Option<&'a RuleAssign>, scope: &mut Scope<'a>) -> Shape {
        let value = match assign {
            Some(assign) => self.expression(&assign.value, scope),
            None => Shape::of(Kinds::BOOLEAN),
        };
        match head {
            RuleHead::Set { key, .. } => {
                let items = key.as_ref().map_or(Shape::Any, |key| self.expression(key, scope));
                if let Some(key) = key {
                    self.member_of_answer(key, &items);
                }
                Shape::set(items)
            }
            RuleHead::Func { .. } => value,
            RuleHead::Compr { refr, .. } => {
                let mut named = refr.as_ref();
                let mut whole = true;
                while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = named {
                    if let Expr::RefBrack { index, .. } = named {
                        whole &= matches!(index.as_ref(), Expr::String { .. });
                        self.expression(index, scope);
                    }
                    named = refr;
                }
                if whole { value } else { Shape::Any }
            }
        }
    }

    /// What is said of a reason has to be text; anything else is an error where it is decided.
    fn member_of_answer(&mut self, key: &'a Expr, items: &Shape) {
        let is_answer = self.current.and_then(|path| path.last()).is_some_and(|name| Answer::named(name).is_some());
        let Expr::Object { fields, .. } = key else { return };
        let members = items.known().map(|known| &known.members);
        let Some(super::shape::Members::Closed(members)) = members.filter(|_| is_answer) else { return };
        for (_, name, value) in fields {
            let Expr::String { value: text, .. } = name.as_ref() else { continue };
            let Ok(name) = text.as_string() else { continue };
            let Some(kinds) = members.get(&**name).and_then(Shape::kinds) else { continue };
            let is_text = matches!(&**name, "code" | "message" | "internal" | "retry" | "expires");
            if is_text && kinds != Kinds::STRING {
                let hint = "write `sprintf(\"… %v …\", […])`, or name a value that is always there".to_owned();
                let message =
                    format!("`{name}` has to be text, and this may be {}", kinds.without(Kinds::STRING).words());
                self.report(value.span(), "type", message, hint);
            }
        }
    }

    /// Reads a query, whose names stay bound.
    fn query(&mut self, query: &'a Query, scope: &mut Scope<'a>) {
        let around = self.around(query, scope);
        scope.enter(around);
        for statement in &query.stmts {
            self.statement(statement, scope);
        }
    }

    /// What `query` says of the call before it is read.
    fn around(&mut self, query: &'a Query, scope: &Scope<'a>) -> Around {
        let said = guards::said(query, scope, self.program);
        let outer = scope.around().cloned();
        let mut around =
            outer.unwrap_or_else(|| Around { calls: Calls::default(), input: Shape::Any, guards: BTreeSet::new() });
        if let Some(path) = self.current.filter(|_| !self.quiet) {
            self.doubts.guarded(path, self.program, &said.guards);
        }
        around.guards.extend(said.guards);
        if let Some(actions) = said.actions {
            around.calls.actions = Some(actions);
            around.input = self.input(&around.calls);
        }
        around
    }

    fn statement(&mut self, statement: &'a LiteralStmt, scope: &mut Scope<'a>) {
        match &statement.literal {
            Literal::SomeVars { vars, .. } => {
                for name in vars {
                    scope.bind(name.text(), Shape::Any);
                }
            }
            Literal::SomeIn { key, value, collection, .. } => {
                let whole = self.collection(collection, scope);
                if let Some(key) = key {
                    self.bind(key, &expression::key(&whole), scope);
                }
                self.bind(value, &expression::item(&whole), scope);
            }
            Literal::Expr { expr, .. } => drop(self.expression(expr, scope)),
            Literal::NotExpr { expr, .. } => {
                scope.negated = !scope.negated;
                self.expression(expr, scope);
                scope.negated = !scope.negated;
            }
            Literal::Every { key, value, domain, query, .. } => {
                let whole = self.collection(domain, scope);
                let mark = scope.mark();
                if let Some(key) = key {
                    scope.bind(key.text(), expression::key(&whole));
                }
                scope.bind(value.text(), expression::item(&whole));
                self.query(query, scope);
                scope.back(&mark);
            }
        }
    }

    /// Binds the names of a pattern to what it stands for.
    fn bind(&mut self, pattern: &'a Expr, shape: &Shape, scope: &mut Scope<'a>) {
        match pattern {
            Expr::Var { span, .. } => scope.bind(span.text(), shape.clone()),
            Expr::Array { items, .. } => {
                for item in items {
                    self.bind(item, &Shape::Any, scope);
                }
            }
            Expr::Object { fields, .. } => {
                for (_, _, value) in fields {
                    self.bind(value, &Shape::Any, scope);
                }
            }
            other => drop(self.expression(other, scope)),
        }
    }

    fn warn(&mut self, span: &Span, code: &'static str, message: impl Into<String>, hint: impl Into<Option<String>>) {
        if !self.quiet {
            self.problems.push(problem(span, message, hint).coded(code).warned());
        }
    }

    fn report(&mut self, span: &Span, code: &'static str, message: impl Into<String>, hint: impl Into<Option<String>>) {
        if !self.quiet {
            self.problems.push(problem(span, message, hint).coded(code));
        }
    }
}

#[cfg(test)]
mod tests;
