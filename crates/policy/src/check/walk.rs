//! Everything a rule names and calls. The engine's syntax is matched without a catch-all, so that a new kind of
//! expression is an error here before it is a way round the checks.

use regorus::{
    Value,
    unstable::{Expr, Literal, LiteralStmt, Query, Rule, RuleAssign, RuleHead, Span},
};

use crate::roots::Path;

/// The deepest nesting of expressions and queries. Evaluation recurses, on the stack of whoever decides.
pub(super) const MAX_NESTING: usize = 24;

/// The most steps of one reference, `a.b[c]` having two.
const MAX_STEPS: usize = 64;

/// What a rule names and calls.
#[derive(Default)]
pub(super) struct Uses<'a> {
    pub(super) references: Vec<(Reference, &'a Span)>,
    pub(super) calls: Vec<Call<'a>>,
    /// `with` modifiers.
    pub(super) withs: Vec<&'a Span>,
    /// How deep the rule's expressions and queries are nested.
    pub(super) deepest: usize,
    /// Where nesting went too deep; what lies below was not looked at.
    pub(super) too_deep: Option<&'a Span>,
}

/// `root.a["b"][c]`: its root, what follows of constant names, and whether something else follows those.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) root: String,
    pub(super) path: Path,
    pub(super) dynamic: bool,
}

/// A call and its arguments.
pub(super) struct Call<'a> {
    /// What is called; `None` for something that is no name.
    pub(super) function: Option<Reference>,
    pub(super) arguments: Vec<&'a Expr>,
    pub(super) span: &'a Span,
}

impl Reference {
    /// Root and path together.
    pub(super) fn whole(self) -> Path {
        std::iter::once(self.root).chain(self.path).collect()
    }
}

/// The reference that `expression` is, where it begins with a name.
pub(super) fn reference(expression: &Expr) -> Option<Reference> {
    let (root, steps) = unchained(expression);
    let Expr::Var { value, .. } = root else { return None };
    let mut path = Path::new();
    let mut dynamic = false;
    for step in steps {
        match step {
            Step::Name(name) if !dynamic => path.push(name),
            Step::Name(_) | Step::Index(_) => dynamic = true,
        }
    }
    Some(Reference { root: value.as_string().ok()?.to_string(), path, dynamic })
}

/// Whether a step of `expression` that is no constant name comes before its last one.
pub(super) fn varies_before_end(expression: &Expr) -> bool {
    let (_, steps) = unchained(expression);
    steps.iter().rev().skip(1).any(|step| matches!(step, Step::Index(_)))
}

enum Step<'a> {
    Name(String),
    Index(&'a Expr),
}

/// The first expression of a chain of `.name` and `[index]`, and the steps from there, without recursion: a
/// chain may be as long as a file.
fn unchained(mut expression: &Expr) -> (&Expr, Vec<Step<'_>>) {
    let named = |value: &Value| value.as_string().ok().map(|text| Step::Name(text.to_string()));
    let mut steps = Vec::new();
    loop {
        expression = match expression {
            Expr::RefDot { refr, field: (_, name), .. } => {
                steps.extend(named(name));
                refr
            }
            Expr::RefBrack { refr, index, .. } => {
                let name = match index.as_ref() {
                    Expr::String { value, .. } | Expr::RawString { value, .. } => named(value),
                    _ => None,
                };
                steps.push(name.unwrap_or(Step::Index(index)));
                refr
            }
            root => {
                steps.reverse();
                return (root, steps);
            }
        };
    }
}

impl<'a> Uses<'a> {
    /// What `rule` names and calls, its own name aside.
    pub(super) fn of(rule: &'a Rule) -> Self {
        let mut uses = Self::default();
        match rule {
            Rule::Default { refr, args, value, .. } => {
                uses.head(refr);
                uses.all(args, 0);
                uses.expression(value, 0);
            }
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        uses.head(refr);
                        uses.assigned(assign.as_ref());
                    }
                    RuleHead::Set { refr, key, .. } => {
                        uses.head(refr);
                        uses.all(key, 0);
                    }
                    RuleHead::Func { refr, args, assign, .. } => {
                        uses.head(refr);
                        uses.all(args, 0);
                        uses.assigned(assign.as_ref());
                    }
                }
                for body in bodies {
                    uses.assigned(body.assign.as_ref());
                    uses.query(&body.query, 0);
                }
            }
        }
        uses
    }

    /// The indices in a rule's name: `limits[user] := …`.
    fn head(&mut self, name: &'a Expr) {
        for step in unchained(name).1 {
            if let Step::Index(index) = step {
                self.expression(index, 0);
            }
        }
    }

    fn assigned(&mut self, assign: Option<&'a RuleAssign>) {
        if let Some(assign) = assign {
            self.expression(&assign.value, 0);
        }
    }

    fn all<T: AsRef<Expr> + 'a>(&mut self, expressions: impl IntoIterator<Item = &'a T>, depth: usize) {
        for expression in expressions {
            self.expression(expression.as_ref(), depth);
        }
    }

    fn query(&mut self, query: &'a Query, depth: usize) {
        if depth >= MAX_NESTING {
            self.too_deep = Some(&query.span);
            return;
        }
        for statement in &query.stmts {
            self.statement(statement, depth + 1);
        }
    }

    fn statement(&mut self, statement: &'a LiteralStmt, depth: usize) {
        self.withs.extend(statement.with_mods.iter().map(|modifier| &modifier.span));
        for modifier in &statement.with_mods {
            self.expression(&modifier.r#as, depth);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                self.all(key, depth);
                self.expression(value, depth);
                self.expression(collection, depth);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expression(expr, depth),
            Literal::Every { domain, query, .. } => {
                self.expression(domain, depth);
                self.query(query, depth);
            }
        }
    }

    fn expression(&mut self, expression: &'a Expr, depth: usize) {
        if depth >= MAX_NESTING {
            self.too_deep = Some(expression.span());
            return;
        }
        let depth = depth + 1;
        self.deepest = self.deepest.max(depth);
        match expression {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.chain(expression, depth),
            Expr::Array { items, .. } | Expr::Set { items, .. } => self.all(items, depth),
            Expr::Object { fields, .. } => {
                for (_, name, value) in fields {
                    self.expression(name, depth);
                    self.expression(value, depth);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expression(term, depth);
                self.query(query, depth);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expression(key, depth);
                self.expression(value, depth);
                self.query(query, depth);
            }
            Expr::Call { span, fcn, params, .. } => {
                let arguments = params.iter().map(AsRef::as_ref).collect();
                self.calls.push(Call { function: reference(fcn), arguments, span });
                self.all(params, depth);
            }
            Expr::UnaryExpr { expr, .. } => self.expression(expr, depth),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expression(lhs, depth);
                self.expression(rhs, depth);
            }
            Expr::Membership { key, value, collection, .. } => {
                self.all(key, depth);
                self.expression(value, depth);
                self.expression(collection, depth);
            }
        }
    }

    fn chain(&mut self, expression: &'a Expr, depth: usize) {
        let (root, steps) = unchained(expression);
        if steps.len() > MAX_STEPS {
            self.too_deep = Some(expression.span());
            return;
        }
        match reference(expression) {
            Some(found) => self.references.push((found, expression.span())),
            None => self.expression(root, depth),
        }
        for step in steps {
            if let Step::Index(index) = step {
                self.expression(index, depth);
            }
        }
    }
}
