//! What a query says of the call before anything else is made of it: the actions it is about, and the places of the input
//! that it looks at before it uses them.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, BoolOp, Expr, Literal, Query};

use super::{Import, Program, scope::Scope};
use crate::{
    check::{
        shape::is_name,
        walk::{Reference, reference},
    },
    roots::Path,
};

/// What a query says.
#[derive(Default)]
pub(super) struct Said {
    /// Places that it asks whether they are there, or of what type; `place.*` stands for all that is in a place.
    pub(super) guards: BTreeSet<String>,
    /// The actions it is about, where it names them.
    pub(super) actions: Option<BTreeSet<String>>,
}

/// Reads the statements of `query`, those of queries inside it aside.
pub(super) fn said(query: &Query, scope: &Scope<'_>, program: &Program<'_>) -> Said {
    let mut reader = Reader { scope, program, names: BTreeMap::new(), said: Said::default() };
    for statement in &query.stmts {
        match &statement.literal {
            Literal::Expr { expr, .. } => reader.holds(expr),
            Literal::NotExpr { expr, .. } => reader.fails(expr),
            Literal::SomeVars { .. } | Literal::SomeIn { .. } | Literal::Every { .. } => {}
        }
    }
    reader.said
}

struct Reader<'a> {
    scope: &'a Scope<'a>,
    program: &'a Program<'a>,
    /// Names of this query that stand for places.
    names: BTreeMap<&'a str, String>,
    said: Said,
}

impl<'a> Reader<'a> {
    fn holds(&mut self, expression: &'a Expr) {
        match expression {
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => {
                if let (Expr::Var { span, .. }, Some(place)) = (lhs.as_ref(), self.place(rhs)) {
                    self.names.insert(span.text(), place);
                }
            }
            Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } | Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => {
                self.equal(lhs, rhs);
                self.equal(rhs, lhs);
            }
            Expr::BoolExpr { op: BoolOp::Ne, lhs, rhs, .. } => {
                self.compared_with_null(lhs, rhs);
                self.compared_with_null(rhs, lhs);
            }
            Expr::Membership { key: None, value, collection, .. } => {
                if let Expr::Set { items, .. } | Expr::Array { items, .. } = collection.as_ref() {
                    let names: Option<BTreeSet<String>> = items.iter().map(|item| literal(item)).collect();
                    self.about(value, names);
                }
            }
            Expr::Call { fcn, params, .. } => {
                let asks = matches!(fcn.as_ref(), Expr::Var { span, .. } if span.text().starts_with("is_"));
                if let (true, [argument]) = (asks, params.as_slice()) {
                    self.guard(argument);
                }
            }
            _ => {}
        }
    }

    fn fails(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Call { .. } => self.holds(expression),
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => {
                self.compared_with_null(lhs, rhs);
                self.compared_with_null(rhs, lhs);
            }
            // `not input.call.headers.x`: what is done without it.
            reference => self.guard(reference),
        }
    }

    fn equal(&mut self, place: &'a Expr, other: &'a Expr) {
        self.compared_with_null(place, other);
        let Some(text) = literal(other) else { return };
        self.about(place, Some([text].into()));
        // An amount that has a currency has a number.
        if let Some((parent, _)) = self.place(place).as_deref().and_then(|place| place.rsplit_once('.')) {
            self.said.guards.insert(format!("{parent}.*"));
        }
    }

    fn compared_with_null(&mut self, place: &'a Expr, other: &'a Expr) {
        if matches!(other, Expr::Null { .. }) {
            self.guard(place);
        }
    }

    fn guard(&mut self, expression: &'a Expr) {
        let place = self.place(expression);
        self.said.guards.extend(place);
    }

    /// Notes that the query is about `names`, where `place` is the action's name.
    fn about(&mut self, place: &'a Expr, names: Option<BTreeSet<String>>) {
        let Some(names) = names.filter(|_| self.place(place).as_deref() == Some("input.action.name")) else { return };
        self.said.actions = Some(match self.said.actions.take() {
            Some(earlier) => earlier.intersection(&names).cloned().collect(),
            None => names,
        });
    }

    /// Where in the input the reference is.
    fn place(&self, expression: &Expr) -> Option<String> {
        let Reference { root, path, dynamic } = reference(expression)?;
        if dynamic {
            return None;
        }
        if let Some(place) = self.names.get(root.as_str()).cloned() {
            return Some(below(place, &path));
        }
        if let Some(local) = self.scope.find(&root) {
            return Some(below(local.at()?.to_owned(), &path));
        }
        if root == "input" {
            return Some(below(root, &path));
        }
        match self.program.imports.get(self.scope.module)?.get(&root)? {
            Import::Input(import) => Some(below(below("input".to_owned(), import), &path)),
            Import::Data(_) => None,
        }
    }
}

/// The place `path` below `place`.
fn below(place: String, path: &Path) -> String {
    path.iter().fold(
        place,
        |place, name| {
            if is_name(name) { format!("{place}.{name}") } else { format!("{place}[\"{name}\"]") }
        },
    )
}

fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}
