//! What the names of one query stand for, and which of its loops repeat what it collects.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Ref};

use super::{Growth, Rounds, Weight};

/// What a name stands for.
pub(super) enum Bound<'a> {
    /// An argument.
    Known(Weight),
    /// The value of an expression, or a part of it that is told by its shape.
    To(&'a Expr),
    /// One after the other, the members of a collection.
    Part(&'a Expr),
}

/// What becomes of the ways in which a query holds.
#[derive(Clone, Copy)]
pub(super) enum Collected<'t, 'a> {
    /// One value comes of them.
    One,
    /// Each adds these to a set or an object: what is the same is there once.
    Distinct(&'t [&'a Expr]),
    /// Each adds these to an array.
    Repeated(&'t [&'a Expr]),
}

/// A loop of a query.
struct Loop<'a> {
    /// The names that it sets.
    names: Vec<&'a str>,
    /// What it goes through.
    over: &'a Expr,
}

/// The names of a query, inside those of another.
pub(super) struct Scope<'a, 'p> {
    pub(super) module: usize,
    /// The loops that collect what is made here.
    pub(super) rounds: Rounds,
    /// The same without this query's own.
    pub(super) outside: Rounds,
    /// Those of them that are this query's own, where there are several: each repeats what the others go through.
    pub(super) crossed: Rounds,
    pub(super) around: Option<&'p Self>,
    /// What expressions weigh here, in some loops.
    pub(super) known: RefCell<BTreeMap<(*const Expr, Rounds), Weight>>,
    names: BTreeMap<String, Vec<Bound<'a>>>,
}

impl<'a, 'p> Scope<'a, 'p> {
    pub(super) fn empty(module: usize, rounds: Rounds) -> Self {
        Self {
            module,
            rounds,
            outside: rounds,
            crossed: Rounds::NONE,
            around: None,
            known: RefCell::default(),
            names: BTreeMap::new(),
        }
    }

    pub(super) fn bind(&mut self, name: &str, bound: Bound<'a>) {
        self.names.entry(name.to_owned()).or_default().push(bound);
    }

    /// The parameters of a function, and the weights of what it is given.
    pub(super) fn parameters(&mut self, parameters: &'a [Ref<Expr>], weights: &[Weight]) {
        for (place, parameter) in parameters.iter().enumerate() {
            let weight = weights.get(place).copied().unwrap_or(Weight::SCALAR);
            for name in names(parameter) {
                self.bind(name, Bound::Known(weight));
            }
        }
    }

    /// What `name` stands for, and the scope that says so.
    pub(super) fn find(&self, name: &str) -> Option<(&[Bound<'a>], &Self)> {
        let mut scope = self;
        loop {
            if let Some(bounds) = scope.names.get(name) {
                return Some((bounds, scope));
            }
            scope = scope.around?;
        }
    }

    /// The scope of a query of `statements` inside `around`.
    pub(super) fn within(
        around: &'p Self,
        statements: &'a [LiteralStmt],
        collected: Collected<'_, 'a>,
        growth: &Growth<'a>,
    ) -> Self {
        let mut scope = Self::empty(around.module, around.rounds);
        scope.around = Some(around);
        let mut loops: Vec<Loop<'a>> = scope.declared(statements);
        scope.unified(statements);
        let terms: &[&Expr] = match &collected {
            Collected::One => &[],
            Collected::Distinct(terms) | Collected::Repeated(terms) => terms,
        };
        let places = statements.iter().filter_map(|statement| match &statement.literal {
            Literal::Expr { expr, .. } => Some(expr.as_ref()),
            Literal::SomeIn { collection, .. } => Some(collection.as_ref()),
            Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => None,
        });
        for place in places {
            scope.indexed(place, growth, &mut loops);
        }
        let before = loops.len();
        for term in terms {
            scope.indexed(term, growth, &mut loops);
        }
        let repeating: Vec<&Expr> = match &collected {
            Collected::One => Vec::new(),
            Collected::Repeated(_) => loops.iter().map(|each| each.over).collect(),
            Collected::Distinct(_) => {
                let needed = scope.needed(terms);
                let matters = |(place, each): &(usize, &Loop<'_>)| {
                    *place >= before || each.names.iter().any(|name| needed.contains(name))
                };
                loops.iter().enumerate().filter(matters).map(|(_, each)| each.over).collect()
            }
        };
        // What the loops go through is weighed as outside of them: their names are bound, and say what they are part of.
        let over: Vec<Weight> = repeating.iter().map(|over| growth.once(over, &scope, around.rounds)).collect();
        scope.known.borrow_mut().clear();
        scope.rounds = around.rounds.and(&over);
        if over.len() > 1 {
            scope.crossed = Rounds::NONE.and(&over);
        }
        scope
    }

    /// Binds what `some` and `:=` say. Gives the loops.
    fn declared(&mut self, statements: &'a [LiteralStmt]) -> Vec<Loop<'a>> {
        let mut loops = Vec::new();
        for statement in statements {
            match &statement.literal {
                Literal::SomeIn { key, value, collection, .. } => {
                    let found: Vec<&str> = key.iter().chain([value]).flat_map(|part| names(part)).collect();
                    for name in &found {
                        self.bind(name, Bound::Part(collection));
                    }
                    loops.push(Loop { names: found, over: collection });
                }
                Literal::Expr { expr, .. } => visit(expr, &mut |part| {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } = part {
                        for name in names(lhs) {
                            self.bind(name, Bound::To(rhs));
                        }
                    }
                    if let Some(walked) = walked(part) {
                        let names = walked.map(names).unwrap_or_default().into_iter().chain(assigned(expr));
                        loops.push(Loop { names: names.collect(), over: part });
                    }
                }),
                Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
        loops
    }

    /// Binds what `=` and the last argument of a call may say of names that nothing else binds.
    fn unified(&mut self, statements: &'a [LiteralStmt]) {
        let mut found: Vec<(&str, &Expr)> = Vec::new();
        for statement in statements {
            let Literal::Expr { expr, .. } = &statement.literal else { continue };
            visit(expr, &mut |part| match part {
                Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                    found.extend(names(lhs).into_iter().map(|name| (name, rhs.as_ref())));
                    found.extend(names(rhs).into_iter().map(|name| (name, lhs.as_ref())));
                }
                Expr::Call { params, .. } => {
                    let last = params.last().map(|last| names(last)).unwrap_or_default();
                    found.extend(last.into_iter().map(|name| (name, part)));
                }
                _ => {}
            });
        }
        found.retain(|(name, _)| self.find(name).is_none());
        for (name, expression) in found {
            self.bind(name, Bound::To(expression));
        }
    }

    /// Binds the names that `expression` looks up with and that nothing binds: each is a loop.
    fn indexed(&mut self, expression: &'a Expr, growth: &Growth<'_>, loops: &mut Vec<Loop<'a>>) {
        visit(expression, &mut |part| {
            let Expr::RefBrack { refr, index, .. } = part else { return };
            if is_wildcard(index) {
                loops.push(Loop { names: assigned(expression), over: refr });
                return;
            }
            let free = |name: &&str| self.find(name).is_none() && !growth.is_global(name, self.module);
            let free: Vec<&str> = names(index).into_iter().filter(free).collect();
            if free.is_empty() {
                return;
            }
            for name in &free {
                self.bind(name, Bound::Part(refr));
            }
            let names = free.into_iter().chain(assigned(expression)).collect();
            loops.push(Loop { names, over: refr });
        });
    }

    /// The names that `terms` are made from.
    fn needed(&self, terms: &[&'a Expr]) -> BTreeSet<&'a str> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<&'a Expr> = terms.to_vec();
        while let Some(expression) = open.pop() {
            mentioned(expression, &mut |name| {
                if !needed.insert(name) {
                    return;
                }
                let bounds = self.names.get(name).into_iter().flatten();
                open.extend(bounds.filter_map(|bound| match bound {
                    Bound::To(expression) => Some(*expression),
                    Bound::Known(_) | Bound::Part(_) => None,
                }));
            });
        }
        needed
    }
}

impl Growth<'_> {
    /// Whether a name of the module is a document, an import or a rule.
    fn is_global(&self, name: &str, module: usize) -> bool {
        self.path(name, &[], module).is_none_or(|path| name == "data" || !self.rules.touched(&path).is_empty())
            || self.imports.get(module).is_some_and(|imports| imports.contains_key(name))
    }
}

/// The indices of a reference that are not written out.
pub(super) fn indices(mut expression: &Expr) -> Vec<&Expr> {
    let mut found = Vec::new();
    loop {
        expression = match expression {
            Expr::RefDot { refr, .. } => refr,
            Expr::RefBrack { refr, index, .. } => {
                if !matches!(index.as_ref(), Expr::String { .. } | Expr::RawString { .. }) {
                    found.push(index.as_ref());
                }
                refr
            }
            _ => return found,
        };
    }
}

/// What a reference begins with, where it is not a name.
pub(super) fn root(mut expression: &Expr) -> Option<&Expr> {
    let whole = expression;
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = expression {
        expression = refr;
    }
    (!std::ptr::eq(whole, expression)).then_some(expression)
}

/// The names in a pattern: `x`, `[x, y]`, `{"a": x}`.
fn names(pattern: &Expr) -> Vec<&str> {
    match pattern {
        Expr::Var { span, .. } if span.text() != "_" => vec![span.text()],
        Expr::Array { items, .. } => items.iter().flat_map(|item| names(item)).collect(),
        Expr::Object { fields, .. } => fields.iter().flat_map(|(_, _, value)| names(value)).collect(),
        _ => Vec::new(),
    }
}

/// The names that a statement assigns to.
fn assigned(statement: &Expr) -> Vec<&str> {
    match statement {
        Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } => names(lhs),
        Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => names(lhs).into_iter().chain(names(rhs)).collect(),
        _ => Vec::new(),
    }
}

fn is_wildcard(expression: &Expr) -> bool {
    matches!(expression, Expr::Var { span, .. } if span.text() == "_")
}

/// What `walk`, which is a loop, writes each place to, where the call says so itself.
fn walked(expression: &Expr) -> Option<Option<&Expr>> {
    let Expr::Call { fcn, params, .. } = expression else { return None };
    let walks = matches!(fcn.as_ref(), Expr::Var { span, .. } if span.text() == "walk");
    walks.then(|| params.get(1).map(AsRef::as_ref))
}

/// `look` at `expression` and everything in it that is not in a query of its own.
fn visit<'a>(expression: &'a Expr, look: &mut dyn FnMut(&'a Expr)) {
    look(expression);
    for part in parts(expression) {
        visit(part, look);
    }
}

fn parts(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(AsRef::as_ref).collect(),
        Expr::Object { fields, .. } => {
            fields.iter().flat_map(|(_, name, value)| [name.as_ref(), value.as_ref()]).collect()
        }
        Expr::Call { params, .. } => params.iter().map(AsRef::as_ref).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::RefDot { refr, .. } => vec![refr],
        Expr::RefBrack { refr, index, .. } => vec![refr, index],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
        }
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. } => Vec::new(),
    }
}

/// Tells every name in `expression`, those in its queries too.
fn mentioned<'a>(expression: &'a Expr, tell: &mut dyn FnMut(&'a str)) {
    let mut queries = Vec::new();
    visit(expression, &mut |part| match part {
        Expr::Var { span, .. } => tell(span.text()),
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            queries.push((vec![term], query));
        }
        Expr::ObjectCompr { key, value, query, .. } => queries.push((vec![key, value], query)),
        _ => {}
    });
    for (terms, query) in queries {
        for term in terms {
            mentioned(term, tell);
        }
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { collection, .. } => mentioned(collection, tell),
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => mentioned(expr, tell),
                Literal::Every { domain, .. } => mentioned(domain, tell),
            }
        }
    }
}
