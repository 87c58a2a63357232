//! How large what a policy makes can get. The engine looks at the clock between steps only: a string that is joined
//! with itself forty times would take all memory in forty steps, and comparing an array that holds itself twice, forty
//! times over, would not end before the sun does. So every expression has a weight that is told from the text alone,
//! and one that is too heavy is refused at load.

mod builtins;
mod scope;
mod weight;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use regorus::unstable::{
    ArithOp, BinOp, Expr, Literal, LiteralStmt, Query, Rule as Parsed, RuleAssign, RuleHead, Span,
};

use self::{
    scope::{Bound, Collected, Scope},
    weight::{MAX_BYTES, MAX_LEVELS, MAX_NUMBER, MAX_PRODUCT, Rounds, Weight},
};
use super::{
    modules::{Module, Rule, Rules, import_name},
    walk::{MAX_NESTING, reference},
};
use crate::{
    Problem, Source,
    roots::{Path, problem},
};

/// The most steps that weighing all rules may take: far more than any policy that a person wrote.
const MAX_STEPS: u32 = 5_000_000;
/// The longest line of names, each made from the next, that is followed.
const MAX_LINE: u32 = 200;

/// Reports every expression that can get too large. The rules do not recurse, or they would not be here.
pub(super) fn check(modules: &[Module], rules: &Rules<'_>, sources: &[Source], problems: &mut Vec<Problem>) {
    let growth = Growth::of(modules, rules, sources);
    for (&path, definitions) in &growth.definitions {
        let arguments = definitions.iter().filter_map(|(_, rule)| rule.arguments).max().unwrap_or_default();
        growth.rule(path, Rounds::NONE, &vec![Weight::INPUT; arguments]);
    }
    problems.extend(growth.problems.into_inner());
}

/// A rule, the loops that it is read in, and what it is given.
type Asked<'a> = (&'a Path, Rounds, Vec<Weight>);

struct Growth<'a> {
    rules: &'a Rules<'a>,
    sources: &'a [Source],
    /// For each module, what its imports stand for under `data`; `None` for a part of the input.
    imports: Vec<BTreeMap<String, Option<Path>>>,
    modules: &'a [Module],
    /// Every rule's definitions, each with the place of its module.
    definitions: BTreeMap<&'a Path, Vec<(usize, &'a Rule)>>,
    /// What each rule weighs, in some loops and, for a function, with arguments of some weights.
    known: RefCell<BTreeMap<Asked<'a>, Weight>>,
    /// What the data documents weigh at a path, and whether something in them is looked up there: to tell, one goes
    /// through all of them.
    documents: RefCell<BTreeMap<(Path, bool), Weight>>,
    problems: RefCell<Vec<Problem>>,
    steps: Cell<u32>,
    line: Cell<u32>,
}

impl<'a> Growth<'a> {
    fn of(modules: &'a [Module], rules: &'a Rules<'a>, sources: &'a [Source]) -> Self {
        let mut definitions: BTreeMap<&Path, Vec<(usize, &Rule)>> = BTreeMap::new();
        for (place, module) in modules.iter().enumerate() {
            for rule in &module.rules {
                definitions.entry(rules.key(&rule.path)).or_default().push((place, rule));
            }
        }
        Self {
            rules,
            sources,
            imports: modules.iter().map(imports).collect(),
            modules,
            definitions,
            known: RefCell::default(),
            documents: RefCell::default(),
            problems: RefCell::default(),
            steps: Cell::new(0),
            line: Cell::new(0),
        }
    }

    /// What the rule `path` weighs where it is read in the loops `rounds`.
    fn rule(&self, path: &'a Path, rounds: Rounds, arguments: &[Weight]) -> Weight {
        let key = (path, rounds, arguments.to_vec());
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let definitions = self.definitions.get(path).map(Vec::as_slice).unwrap_or_default();
        let weight = definitions.iter().fold(Weight::NONE, |all, (module, rule)| {
            let one = self.definition(*module, &rule.parsed, rounds, arguments);
            // The members of a set may come from all of its rules, a value only from one.
            if is_collection(&rule.parsed) { all.and(one) } else { all.or(one) }
        });
        let weight = definitions.first().map_or(weight, |(_, rule)| self.bounded(rule.span(), weight));
        self.known.borrow_mut().insert(key, weight);
        weight
    }

    fn definition(&self, module: usize, rule: &'a Parsed, rounds: Rounds, arguments: &[Weight]) -> Weight {
        let (head, bodies) = match rule {
            Parsed::Default { value, .. } => return self.weigh(value, &Scope::empty(module, rounds), rounds),
            Parsed::Spec { head, bodies, .. } => (head, bodies),
        };
        let (assign, parameters) = match head {
            RuleHead::Compr { assign, .. } => (assign.as_ref(), [].as_slice()),
            RuleHead::Set { .. } => (None, [].as_slice()),
            RuleHead::Func { args, assign, .. } => (assign.as_ref(), args.as_slice()),
        };
        let mut scope = Scope::empty(module, rounds);
        scope.parameters(parameters, arguments);
        if bodies.is_empty() {
            return self.head(head, assign, &scope, &Scope::within(&scope, &[], Collected::One, self));
        }
        let mut weight = Weight::NONE;
        for (place, body) in bodies.iter().enumerate() {
            let terms = collected(head);
            let kind = if is_collection(rule) { Collected::Distinct(&terms) } else { Collected::One };
            let inner = Scope::within(&scope, &body.query.stmts, kind, self);
            self.statements(&body.query, &inner);
            // An `else` has a value of its own.
            let assigned = if place == 0 { assign } else { body.assign.as_ref() };
            let head = self.head(head, assigned, &scope, &inner);
            let own = inner.rounds.beyond(rounds);
            weight = weight.or(if is_collection(rule) { head.collected(own) } else { head });
        }
        weight
    }

    fn head(
        &self,
        head: &'a RuleHead,
        assign: Option<&'a RuleAssign>,
        outer: &Scope<'a, '_>,
        inner: &Scope<'a, '_>,
    ) -> Weight {
        let value = assign
            .map_or(Weight::SCALAR.repeated(outer.rounds), |assign| self.weigh(&assign.value, inner, inner.rounds));
        match head {
            RuleHead::Set { key, .. } => {
                key.iter().fold(Weight::NONE, |all, key| all.and(self.weigh(key, inner, inner.rounds)))
            }
            RuleHead::Compr { refr, .. } | RuleHead::Func { refr, .. } => {
                scope::indices(refr).into_iter().fold(value, |all, key| all.and(self.weigh(key, inner, inner.rounds)))
            }
        }
    }

    fn statements(&self, query: &'a Query, scope: &Scope<'a, '_>) {
        for statement in &query.stmts {
            self.statement(statement, scope);
        }
    }

    fn statement(&self, statement: &'a LiteralStmt, scope: &Scope<'a, '_>) {
        let look = |expression: &'a Expr| {
            self.weigh(expression, scope, scope.rounds);
        };
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { collection, .. } => look(collection),
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => look(expr),
            Literal::Every { key, value, domain, query, .. } => {
                look(domain);
                let mut each = Scope::empty(scope.module, scope.rounds);
                each.around = Some(scope);
                for name in key.iter().chain([value]) {
                    each.bind(name.text(), Bound::Part(domain));
                }
                self.statements(query, &Scope::within(&each, &query.stmts, Collected::One, self));
            }
        }
    }

    /// What `expression` weighs where it is read in the loops `rounds`.
    fn weigh(&self, expression: &'a Expr, scope: &Scope<'a, '_>, rounds: Rounds) -> Weight {
        if self.steps.get() >= MAX_STEPS {
            return Weight::SCALAR;
        }
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() == MAX_STEPS {
            self.report(expression.span(), "the policies are too entangled to tell how large what they make gets");
        }
        let of = |expression: &'a Expr| self.weigh(expression, scope, rounds);
        let truth = |parts: &[&'a Expr]| {
            for part in parts {
                of(part);
            }
            Weight::SCALAR.repeated(rounds)
        };
        let weight = match expression {
            Expr::String { span, .. } | Expr::RawString { span, .. } => {
                return Weight::text(span.text().len()).repeated(rounds);
            }
            Expr::Number { span, .. } => return Weight::number(span.text().len() as u64).repeated(rounds),
            Expr::Bool { .. } | Expr::Null { .. } => return Weight::SCALAR.repeated(rounds),
            Expr::Var { span, .. } => return self.name(span.text(), scope, rounds),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => return self.reference(expression, scope, rounds),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                let all = items.iter().fold(Weight::SCALAR, |all, item| all.and(of(item)));
                all.of_members(items.len() as u64)
            }
            Expr::Object { fields, .. } => {
                let all = fields.iter().fold(Weight::SCALAR, |all, (_, name, value)| all.and(of(name)).and(of(value)));
                all.of_members(fields.len() as u64)
            }
            Expr::ArrayCompr { term, query, .. } => self.collect(&[term], true, query, scope, rounds),
            Expr::SetCompr { term, query, .. } => self.collect(&[term], false, query, scope, rounds),
            Expr::ObjectCompr { key, value, query, .. } => self.collect(&[key, value], false, query, scope, rounds),
            Expr::Call { fcn, params, .. } => {
                let given: Vec<&Expr> = params.iter().map(AsRef::as_ref).collect();
                self.call(fcn, &given, scope, rounds)
            }
            Expr::UnaryExpr { expr, .. } => of(expr),
            Expr::ArithExpr { op: ArithOp::Mul, lhs, rhs, .. } => {
                let bytes = of(lhs).number.saturating_add(of(rhs).number);
                return self.number(expression.span(), bytes, MAX_NUMBER).repeated(rounds);
            }
            Expr::BinExpr { op: BinOp::Union, lhs, rhs, .. } => of(lhs).and(of(rhs)),
            Expr::BinExpr { op: BinOp::Intersection, lhs, rhs, .. }
            | Expr::ArithExpr { op: ArithOp::Add | ArithOp::Sub | ArithOp::Div | ArithOp::Mod, lhs, rhs, .. } => {
                of(lhs).or(of(rhs))
            }
            Expr::BoolExpr { lhs, rhs, .. } => truth(&[lhs, rhs]),
            Expr::Membership { key, value, collection, .. } => {
                let key = key.as_ref().unwrap_or(value);
                truth(&[key, value, collection])
            }
            Expr::AssignExpr { lhs, rhs, .. } => {
                self.once(rhs, scope, rounds);
                if matches!(lhs.as_ref(), Expr::Var { .. }) { Weight::SCALAR } else { truth(&[lhs]) }
            }
        };
        self.bounded(expression.span(), weight)
    }

    /// A number of so many bytes, unless multiplying for it would take too long.
    fn number(&self, span: &Span, bytes: u64, most: u64) -> Weight {
        if bytes > most {
            self.report(span, "multiplies numbers that grow with each step");
            return Weight::SCALAR;
        }
        Weight::number(bytes)
    }

    /// What a comprehension collects: `terms`, once for each way that its query holds.
    fn collect(
        &self,
        terms: &[&'a Expr],
        repeats: bool,
        query: &'a Query,
        scope: &Scope<'a, '_>,
        rounds: Rounds,
    ) -> Weight {
        let mut around = Scope::empty(scope.module, rounds);
        around.around = Some(scope);
        let kind = if repeats { Collected::Repeated(terms) } else { Collected::Distinct(terms) };
        let inner = Scope::within(&around, &query.stmts, kind, self);
        self.statements(query, &inner);
        let terms = terms.iter().fold(Weight::SCALAR, |all, term| all.and(self.weigh(term, &inner, inner.rounds)));
        terms.collected(inner.rounds.beyond(rounds))
    }

    /// The same as [`Self::weigh`], remembered: several names may stand for parts of one expression.
    fn once(&self, expression: &'a Expr, scope: &Scope<'a, '_>, rounds: Rounds) -> Weight {
        let key = (std::ptr::from_ref(expression), rounds);
        let known = scope.known.borrow().get(&key).copied();
        if let Some(known) = known {
            return known;
        }
        // While it is being weighed, what it is made from adds nothing to itself.
        scope.known.borrow_mut().insert(key, Weight::NONE);
        let weight = if self.line.get() >= MAX_LINE {
            self.report(expression.span(), "too long a line of names, each made from the next");
            Weight::SCALAR
        } else {
            self.line.set(self.line.get() + 1);
            let weight = self.weigh(expression, scope, rounds);
            self.line.set(self.line.get() - 1);
            weight
        };
        scope.known.borrow_mut().insert(key, weight);
        weight
    }

    fn name(&self, name: &str, scope: &Scope<'a, '_>, rounds: Rounds) -> Weight {
        let local = scope.find(name).map(|(bounds, within)| {
            let weighed = bounds.iter().map(|bound| match bound {
                Bound::Known(weight) => *weight,
                Bound::To(expression) => self.once(expression, within, within.rounds),
                Bound::Part(whole) => {
                    let whole = self.once(whole, within, within.outside);
                    whole.part().repeated(within.crossed.without(whole))
                }
            });
            weighed.fold(Weight::NONE, Weight::or).repeated(rounds.beyond(within.rounds))
        });
        // A rule's name counts as the rule, whatever else it stands for.
        let global = self.global(name, &[], false, scope.module).repeated(rounds);
        local.map_or(global, |local| local.or(global)).or(Weight::SCALAR.repeated(rounds))
    }

    fn reference(&self, expression: &'a Expr, scope: &Scope<'a, '_>, rounds: Rounds) -> Weight {
        for index in scope::indices(expression) {
            self.weigh(index, scope, rounds);
        }
        let Some(found) = reference(expression) else {
            return scope::root(expression).map_or(Weight::SCALAR, |root| self.weigh(root, scope, rounds).part());
        };
        if scope.find(&found.root).is_some() {
            return self.name(&found.root, scope, rounds).part();
        }
        let whole = self.global(&found.root, &found.path, found.dynamic, scope.module).repeated(rounds);
        if found.dynamic { whole.part() } else { whole }
    }

    /// What a path that begins with a name of the module weighs.
    fn global(&self, root: &str, below: &[String], dynamic: bool, module: usize) -> Weight {
        let Some(path) = self.path(root, below, module) else { return Weight::INPUT };
        let touched = self.rules.touched(&path).into_iter().filter_map(|path| self.definitions.get_key_value(path));
        let values = touched.filter(|(_, rules)| rules.iter().all(|(_, rule)| rule.arguments.is_none()));
        let weight = values.fold(Weight::SCALAR, |all, (path, _)| all.or(self.rule(path, Rounds::NONE, &[])));
        weight.and(self.documents(path, dynamic))
    }

    /// What the data documents weigh at `path` together. Where there is none, nothing.
    fn documents(&self, path: Path, looked_up: bool) -> Weight {
        let key = (path, looked_up);
        if let Some(known) = self.documents.borrow().get(&key) {
            return *known;
        }
        let documents = self.sources.iter().flat_map(|source| &source.data).filter_map(|data| data.at(&key.0));
        let weight = documents.fold(Weight::NONE, |all, document| all.and(Weight::of_document(document, looked_up)));
        self.documents.borrow_mut().insert(key, weight);
        weight
    }

    /// Where under `data` a name of the module leads; `None` for the input.
    fn path(&self, root: &str, below: &[String], module: usize) -> Option<Path> {
        let package = || self.modules.get(module).map(|module| module.package.clone()).unwrap_or_default();
        let start = match root {
            "input" => return None,
            "data" => Path::new(),
            root => match self.imports.get(module).and_then(|imports| imports.get(root)) {
                Some(None) => return None,
                Some(Some(import)) => import.clone(),
                None => package().into_iter().chain([root.to_owned()]).collect(),
            },
        };
        Some(start.into_iter().chain(below.iter().cloned()).collect())
    }

    fn call(&self, function: &'a Expr, given: &[&'a Expr], scope: &Scope<'a, '_>, rounds: Rounds) -> Weight {
        let weights: Vec<Weight> = given.iter().map(|argument| self.weigh(argument, scope, rounds)).collect();
        let Some(found) = reference(function) else { return Weight::SCALAR };
        let path = self.path(&found.root, &found.path, scope.module);
        if let Some((path, rules)) = path.and_then(|path| self.definitions.get_key_value(&path)) {
            let takes = rules.iter().filter_map(|(_, rule)| rule.arguments).max().unwrap_or_default();
            return self.rule(path, rounds, weights.get(..takes).unwrap_or(&weights));
        }
        let result = builtins::result(&found.whole().join("."), given, &weights);
        if result.number > MAX_PRODUCT { self.number(function.span(), result.number, MAX_PRODUCT) } else { result }
    }

    /// `weight`, unless it is too much: that is reported once, where it comes to be.
    fn bounded(&self, span: &Span, weight: Weight) -> Weight {
        if weight.bytes > MAX_BYTES {
            let most = MAX_BYTES / (1024 * 1024);
            self.report(span, format!("could grow to more than {most} MiB, whatever it is made from"));
        } else if weight.levels > MAX_LEVELS {
            self.report(span, format!("repeats in loops what other loops repeated, more than {MAX_LEVELS} times over"));
        } else {
            return weight;
        }
        Weight::SCALAR
    }

    fn report(&self, span: &Span, message: impl Into<String>) {
        let hint = "what grows by a factor with each step could fill the memory before the engine looks at the clock";
        self.problems.borrow_mut().push(problem(span, message, hint.to_owned()));
    }
}

/// Whether the rule's definitions add to one set or object.
fn is_collection(rule: &Parsed) -> bool {
    match rule {
        Parsed::Spec { head: RuleHead::Set { .. }, .. } => true,
        Parsed::Spec { head: RuleHead::Compr { refr, .. }, .. } => !scope::indices(refr).is_empty(),
        Parsed::Spec { head: RuleHead::Func { .. }, .. } | Parsed::Default { .. } => false,
    }
}

/// What a rule that adds to a set or an object adds.
fn collected(head: &RuleHead) -> Vec<&Expr> {
    match head {
        RuleHead::Set { key, .. } => key.iter().map(AsRef::as_ref).collect(),
        RuleHead::Compr { refr, assign, .. } | RuleHead::Func { refr, assign, .. } => {
            let value = assign.as_ref().map(|assign| assign.value.as_ref());
            scope::indices(refr).into_iter().chain(value).collect()
        }
    }
}

fn imports(module: &Module) -> BTreeMap<String, Option<Path>> {
    let named = module.imports().iter().filter_map(|import| {
        let found = reference(&import.refr)?;
        let name = import_name(import, &found)?;
        match found.root.as_str() {
            "input" => Some((name, None)),
            "data" => Some((name, Some(found.path))),
            _ => None,
        }
    });
    named.collect()
}

/// An expression may not be nested deeper than this, or it would have been refused before.
const _: () = assert!(MAX_NESTING <= 24);

#[cfg(test)]
mod tests;
