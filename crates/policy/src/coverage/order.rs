//! The order in which the engine takes the expressions of a body. It takes those first that need no variable, then for
//! each variable, by name, what defines it and at once what needs no further one. It keeps that order to itself, so it
//! is worked out here; where a body went another way, [`super`] says less instead of something wrong.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleHead};

use crate::roots::Path;

/// Names that are no local variables: those of rules and imports, and a function's arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals(BTreeSet<String>);

/// What a statement defines, each variable with those that it needs for that. The variable "" stands for none.
#[derive(Debug, Default)]
pub(super) struct Statement(Vec<(String, BTreeSet<String>)>);

/// The names that `module` gives a meaning.
pub(super) fn globals(module: &Module) -> Globals {
    let mut names: BTreeSet<String> = ["input", "data", "_"].iter().map(|name| (*name).to_owned()).collect();
    names.extend(imports(module).into_keys());
    for rule in &module.policy {
        let (Rule::Default { refr, .. }
        | Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }) = rule.as_ref();
        names.extend(root(refr));
    }
    Globals(names)
}

/// What `module` imports, by the name it has there.
pub(super) fn imports(module: &Module) -> BTreeMap<String, Path> {
    let named = module.imports.iter().filter_map(|import| {
        let path = path(&import.refr)?;
        let alias = import.r#as.as_ref().map(|alias| alias.text().to_owned());
        Some((alias.or_else(|| path.last().cloned())?, path))
    });
    named.collect()
}

impl Globals {
    pub(super) fn with_arguments<T: AsRef<Expr>>(&self, arguments: &[T]) -> Self {
        let mut known = self.clone();
        for argument in arguments {
            variables(argument.as_ref(), &Self::default(), &mut known.0);
        }
        known
    }
}

impl Statement {
    pub(super) fn of(statement: &LiteralStmt, known: &Globals) -> Self {
        let mut needed = BTreeSet::new();
        for modifier in &statement.with_mods {
            variables(&modifier.r#as, known, &mut needed);
        }
        let mut found = Self::default();
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                let mut defined = BTreeSet::new();
                variables(collection, known, &mut needed);
                for pattern in key.iter().chain([value]) {
                    variables(pattern, known, &mut defined);
                }
                found.define(defined, &needed);
                // It is one of those that need nothing, where its collection does not.
                found.0.push((String::new(), BTreeSet::new()));
            }
            Literal::Every { domain, .. } => variables(domain, known, &mut needed),
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => match expr.as_ref() {
                Expr::AssignExpr { op, lhs, rhs, .. } => {
                    let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
                    variables(lhs, known, &mut left);
                    variables(rhs, known, &mut right);
                    needed.extend(right.iter().cloned());
                    if matches!(op, AssignOp::ColEq) || is_pattern(lhs) {
                        found.define(left, &needed);
                    } else {
                        found.define(right, &left);
                    }
                }
                expression => variables(expression, known, &mut needed),
            },
        }
        if found.0.is_empty() {
            found.0.push((String::new(), needed));
        }
        found
    }

    fn define(&mut self, variables: BTreeSet<String>, needed: &BTreeSet<String>) {
        for variable in variables {
            self.0.push((variable.clone(), needed.iter().filter(|name| **name != variable).cloned().collect()));
        }
    }
}

fn is_pattern(expression: &Expr) -> bool {
    matches!(expression, Expr::Var { .. } | Expr::Array { .. } | Expr::Object { .. })
}

/// The order of `statements`; as they stand, where there is none.
pub(super) fn schedule(statements: &[Statement]) -> Vec<usize> {
    let mut defining: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, statement) in statements.iter().enumerate() {
        for (variable, _) in &statement.0 {
            defining.entry(variable).or_default().push(index);
        }
    }
    // A name that nothing here defines was defined outside of the body.
    let names = defining.keys().copied().collect();
    let mut going = Going { statements, defined: BTreeSet::new(), order: Vec::new(), names };
    let none: Vec<usize> = defining.get("").cloned().unwrap_or_default();
    going.take(&none);
    loop {
        let before = going.order.len();
        for (_, indices) in defining.iter().filter(|(variable, _)| !variable.is_empty()) {
            if going.take(indices) {
                going.take(&none);
            }
        }
        if going.order.len() == before {
            break;
        }
    }
    if going.order.len() == statements.len() { going.order } else { (0..statements.len()).collect() }
}

struct Going<'a> {
    statements: &'a [Statement],
    names: BTreeSet<&'a str>,
    defined: BTreeSet<&'a str>,
    order: Vec<usize>,
}

impl Going<'_> {
    /// Takes those of `indices` that need nothing more; whether there was one.
    fn take(&mut self, indices: &[usize]) -> bool {
        let before = self.order.len();
        for &index in indices {
            let Some(statement) = self.statements.get(index) else { continue };
            let own: BTreeSet<&str> = statement.0.iter().map(|(variable, _)| variable.as_str()).collect();
            let met = |name: &String| {
                let name = name.as_str();
                self.defined.contains(name) || own.contains(name) || !self.names.contains(name)
            };
            if !self.order.contains(&index) && statement.0.iter().all(|(_, needed)| needed.iter().all(met)) {
                self.order.push(index);
                self.defined.extend(own);
            }
        }
        self.order.len() > before
    }
}

/// Every name in `expression` that is not `known`: variables, and what a query within it has of its own.
fn variables(expression: &Expr, known: &Globals, found: &mut BTreeSet<String>) {
    if let Expr::Var { span, .. } = expression {
        if !known.0.contains(span.text()) {
            found.insert(span.text().to_owned());
        }
        return;
    }
    let (expressions, query) = below(expression);
    expressions.into_iter().for_each(|expression| variables(expression, known, found));
    for statement in query.iter().flat_map(|query| &query.stmts) {
        for expression in of_statement(statement).0 {
            variables(expression, known, found);
        }
    }
}

/// What lies directly below `expression`: the expressions, and the query of a comprehension.
pub(super) fn below(expression: &Expr) -> (Vec<&Expr>, Option<&Query>) {
    let own = match expression {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::RefDot { refr, .. } => vec![refr.as_ref()],
        Expr::RefBrack { refr, index, .. } => vec![refr.as_ref(), index.as_ref()],
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(AsRef::as_ref).collect(),
        Expr::Object { fields, .. } => {
            fields.iter().flat_map(|(_, name, value)| [name.as_ref(), value.as_ref()]).collect()
        }
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            return (vec![term.as_ref()], Some(query));
        }
        Expr::ObjectCompr { key, value, query, .. } => return (vec![key.as_ref(), value.as_ref()], Some(query)),
        Expr::Call { params, .. } => params.iter().map(AsRef::as_ref).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr.as_ref()],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs.as_ref(), rhs.as_ref()],
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).map(AsRef::as_ref).collect()
        }
    };
    (own, None)
}

/// The expressions of `statement`, and the query of an `every`.
fn of_statement(statement: &LiteralStmt) -> (Vec<&Expr>, Option<&Query>) {
    let with = statement.with_mods.iter().map(|modifier| modifier.r#as.as_ref());
    let (own, query): (Vec<&Expr>, Option<&Query>) = match &statement.literal {
        Literal::SomeVars { .. } => (Vec::new(), None),
        Literal::SomeIn { key, value, collection, .. } => {
            (key.iter().chain([value, collection]).map(AsRef::as_ref).collect(), None)
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => (vec![expr.as_ref()], None),
        Literal::Every { domain, query, .. } => (vec![domain.as_ref()], Some(query)),
    };
    (own.into_iter().chain(with).collect(), query)
}

/// The path of constant names that `expression` is, its root first.
pub(super) fn path(expression: &Expr) -> Option<Path> {
    match expression {
        Expr::Var { span, .. } => Some(vec![span.text().to_owned()]),
        Expr::RefDot { refr, field: (_, name), .. } => {
            let mut path = path(refr)?;
            path.push(name.as_string().ok()?.to_string());
            Some(path)
        }
        Expr::RefBrack { refr, index, .. } => {
            let Expr::String { value, .. } = index.as_ref() else { return None };
            let mut path = path(refr)?;
            path.push(value.as_string().ok()?.to_string());
            Some(path)
        }
        _ => None,
    }
}

fn root(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Var { span, .. } => Some(span.text().to_owned()),
        Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => root(refr),
        _ => None,
    }
}

/// The references of constant names in `statement`, as written, that mean the same anywhere in the module: what queries
/// within it name is left out, for those have variables of their own.
pub(super) fn names(statement: &LiteralStmt) -> Vec<String> {
    fn gather(expression: &Expr, found: &mut BTreeSet<String>) {
        match path(expression) {
            Some(path) => {
                found.insert(crate::roots::dotted(&path));
            }
            None => below(expression).0.into_iter().for_each(|expression| gather(expression, found)),
        }
    }
    let mut found = BTreeSet::new();
    if statement.with_mods.is_empty() {
        of_statement(statement).0.into_iter().for_each(|expression| gather(expression, &mut found));
    }
    found.into_iter().collect()
}
