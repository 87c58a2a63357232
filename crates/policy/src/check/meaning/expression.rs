//! What an expression is, told from the text alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use regorus::unstable::{ArithOp, AssignOp, BoolOp, Expr, Query, Ref};

use super::{Walk, builtins, doubts::Missing, scope::Scope};
use crate::{
    check::{
        shape::{Kinds, Members, Names, Shape, Text},
        walk::reference,
    },
    roots::{Path, dotted},
};

/// What a string that is written out is called.
pub(super) const WRITTEN: &str = "text";

impl<'a> Walk<'a> {
    /// Reads an expression and gives what it is.
    pub(super) fn expression(&mut self, expression: &'a Expr, scope: &mut Scope<'a>) -> Shape {
        match expression {
            Expr::String { .. } | Expr::RawString { .. } => {
                literal(expression).map_or(Shape::Any, |text| written([text].into()))
            }
            Expr::Number { .. } => Shape::of(Kinds::NUMBER),
            Expr::Bool { .. } => Shape::of(Kinds::BOOLEAN),
            Expr::Null { .. } => Shape::of(Kinds::NULL),
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expression, scope),
            Expr::Array { items, .. } => Shape::array(self.items(items, scope)),
            Expr::Set { items, .. } => Shape::set(self.items(items, scope)),
            Expr::Object { fields, .. } => self.object(fields.iter().map(|(_, name, value)| (name, value)), scope),
            Expr::ArrayCompr { term, query, .. } => Shape::array(self.collected(&[term], query, scope)),
            Expr::SetCompr { term, query, .. } => Shape::set(self.collected(&[term], query, scope)),
            Expr::ObjectCompr { key, value, query, .. } => {
                self.collected(&[key, value], query, scope);
                Shape::of(Kinds::OBJECT)
            }
            Expr::Call { fcn, params, .. } => self.call(fcn, params, scope),
            Expr::UnaryExpr { expr, .. } => {
                self.expression(expr, scope);
                Shape::of(Kinds::NUMBER)
            }
            Expr::BinExpr { lhs, rhs, .. } => {
                for operand in [lhs, rhs] {
                    self.operand(operand, Kinds::SET, "`&` and `|` take sets", scope);
                }
                Shape::of(Kinds::SET)
            }
            Expr::ArithExpr { op, lhs, rhs, .. } => self.arithmetic(op, lhs, rhs, scope),
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                let (left, right) = (self.expression(lhs, scope), self.expression(rhs, scope));
                self.compare(op, (lhs, &left), (rhs, &right), expression.span(), scope);
                Shape::of(Kinds::BOOLEAN)
            }
            Expr::Membership { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.expression(key, scope);
                }
                let member = self.expression(value, scope);
                let whole = self.expression(collection, scope);
                self.membership((value, &member), (collection, &whole), scope);
                Shape::of(Kinds::BOOLEAN)
            }
            Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } => {
                let shape = self.expression(rhs, scope);
                self.bind(lhs, &shape, scope);
                Shape::of(Kinds::BOOLEAN)
            }
            Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                self.unified(lhs, rhs, expression, scope);
                Shape::of(Kinds::BOOLEAN)
            }
        }
    }

    fn arithmetic(&mut self, operator: &ArithOp, lhs: &'a Expr, rhs: &'a Expr, scope: &mut Scope<'a>) -> Shape {
        let (takes, wanted) = match operator {
            ArithOp::Sub => (Kinds::NUMBER.or(Kinds::SET), "`-` takes numbers or sets"),
            ArithOp::Add | ArithOp::Mul | ArithOp::Div | ArithOp::Mod => {
                (Kinds::NUMBER, "`+`, `*`, `/` and `%` take numbers")
            }
        };
        let left = self.operand(lhs, takes, wanted, scope);
        self.operand(rhs, takes, wanted, scope);
        match left.kinds() {
            Some(kinds) if !kinds.meets(Kinds::SET) => Shape::of(Kinds::NUMBER),
            _ => Shape::of(takes),
        }
    }

    /// `lhs = rhs`: whichever is a new name stands for the other; anything else is compared.
    fn unified(&mut self, lhs: &'a Expr, rhs: &'a Expr, whole: &'a Expr, scope: &mut Scope<'a>) {
        for (name, value) in [(lhs, rhs), (rhs, lhs)] {
            let pattern = matches!(name, Expr::Array { .. } | Expr::Object { .. });
            if self.is_new(name, scope) || pattern {
                let shape = self.expression(value, scope);
                self.bind(name, &shape, scope);
                return;
            }
        }
        let (left, right) = (self.expression(lhs, scope), self.expression(rhs, scope));
        self.compare(&BoolOp::Eq, (lhs, &left), (rhs, &right), whole.span(), scope);
    }

    /// What an operator is given, which has to be one of `takes`.
    fn operand(&mut self, operand: &'a Expr, takes: Kinds, wanted: &str, scope: &mut Scope<'a>) -> Shape {
        let shape = self.expression(operand, scope);
        if let Some(kinds) = shape.kinds().filter(|kinds| !kinds.meets(takes)) {
            let hint = match kinds {
                Kinds::ARRAY if takes == Kinds::SET => Some("make it a set: `{one | some one in …}`".to_owned()),
                Kinds::OBJECT => amount(&shape).map(|name| format!("take its `.{name}`")),
                _ => None,
            };
            self.report(operand.span(), "type", format!("{wanted}, and this is {}", kinds.words()), hint);
        }
        shape
    }

    /// What something is that is gone through.
    pub(super) fn collection(&mut self, collection: &'a Expr, scope: &mut Scope<'a>) -> Shape {
        let shape = self.expression(collection, scope);
        let Some(kinds) = shape.kinds() else { return shape };
        if kinds.meets(COLLECTIONS) {
            if shape.is_nullable() {
                self.doubt(collection, &shape, Missing::Null, false, scope);
            }
        } else {
            let message = format!("nothing is in {}", kinds.words());
            self.report(collection.span(), "type", message, "`in` goes through arrays, sets and objects".to_owned());
        }
        shape
    }

    fn items(&mut self, items: &'a [Ref<Expr>], scope: &mut Scope<'a>) -> Shape {
        // All at once, because there may be thousands of them.
        let texts: BTreeSet<String> = items.iter().filter_map(|item| literal(item)).collect();
        let mut all = (!texts.is_empty()).then(|| written(texts));
        for item in items.iter().filter(|item| literal(item).is_none()) {
            let one = self.expression(item, scope);
            all = Some(match all {
                Some(others) => others.or(one),
                None => one,
            });
        }
        all.unwrap_or(Shape::Any)
    }

    fn object(&mut self, fields: impl Iterator<Item = (&'a Ref<Expr>, &'a Ref<Expr>)>, scope: &mut Scope<'a>) -> Shape {
        let mut members = Some(BTreeMap::new());
        for (name, value) in fields {
            let shape = self.expression(value, scope);
            match (literal(name), &mut members) {
                (Some(name), Some(members)) => drop(members.insert(name, shape)),
                _ => {
                    self.expression(name, scope);
                    members = None;
                }
            }
        }
        members.map_or_else(|| Shape::of(Kinds::OBJECT), Shape::object)
    }

    fn collected(&mut self, terms: &[&'a Ref<Expr>], query: &'a Query, scope: &mut Scope<'a>) -> Shape {
        let mark = scope.mark();
        scope.collected += 1;
        self.query(query, scope);
        let mut last = Shape::Any;
        for term in terms {
            last = self.expression(term, scope);
        }
        scope.collected -= 1;
        scope.back(&mark);
        last
    }

    fn call(&mut self, function: &'a Expr, arguments: &'a [Ref<Expr>], scope: &mut Scope<'a>) -> Shape {
        let found = reference(function);
        let name = found.as_ref().map(|found| {
            let names: Vec<String> = std::iter::once(&found.root).chain(&found.path).cloned().collect();
            dotted(&names)
        });
        let target = found.and_then(|found| self.program.target(scope.module, &found.root, &found.path));
        let known = target.and_then(|path| self.program.definitions.get_key_value(&path).map(|(path, _)| *path));
        let takes = known.is_none().then(|| name.as_deref().and_then(builtins::takes)).flatten();
        let mut given = Vec::new();
        for (place, argument) in arguments.iter().enumerate() {
            if place > 0 && self.is_new(argument, scope) {
                // One argument more than a builtin takes is unified with its result.
                self.bind(argument, &Shape::Any, scope);
                continue;
            }
            let shape = self.expression(argument, scope);
            if let Some(kinds) = takes.and_then(|takes| takes.get(place)) {
                self.argument(argument, &shape, *kinds, name.as_deref().unwrap_or_default());
            }
            given.push(shape);
        }
        match known {
            Some(path) => {
                self.called(path, arguments, given, scope);
                self.value(path)
            }
            None => name.as_deref().and_then(builtins::gives).map_or(Shape::Any, Shape::of),
        }
    }

    /// What a builtin is given, which has to be one of `takes`.
    fn argument(&mut self, argument: &'a Expr, shape: &Shape, takes: Kinds, name: &str) {
        if let Some(kinds) = shape.kinds().filter(|kinds| !kinds.meets(takes)) {
            let message = format!("`{name}` takes {}, and this is {}", takes.words(), kinds.words());
            self.report(argument.span(), "type", message, None);
        }
    }

    /// Notes what a function is given.
    fn called(&mut self, path: &'a Path, arguments: &'a [Ref<Expr>], given: Vec<Shape>, scope: &Scope<'a>) {
        if self.quiet {
            return;
        }
        if self.program.is_library(path) {
            for (place, (argument, shape)) in arguments.iter().zip(&given).enumerate() {
                self.read_by_library(path, place, argument, shape);
                if shape.is_nullable() {
                    self.doubt(argument, shape, Missing::Null, false, scope);
                }
            }
            return;
        }
        self.used(path, scope);
        let before = self.given.remove(path);
        let both = match before {
            Some(before) => before.into_iter().zip(given).map(|(one, two)| one.or(two)).collect(),
            None => given,
        };
        self.given.insert(path, both);
    }

    /// Reports an argument that has nothing of what the library reads of it.
    fn read_by_library(&mut self, path: &'a Path, place: usize, argument: &'a Expr, shape: &Shape) {
        let part = self.program.known.argument(path, place);
        let Some(known) = shape.known().filter(|_| !part.is_whole() && part.touches(&[])) else { return };
        let fits = match &known.members {
            Members::Closed(members) => members.keys().any(|name| part.touches(&[name])),
            Members::Open(_) | Members::Unknown => true,
        };
        if known.kinds.meets(Kinds::OBJECT) && fits {
            return;
        }
        let name = path.iter().skip(2).cloned().collect::<Vec<_>>();
        let message = format!("`{}` reads members of this that {} has not", dotted(&name), known.kinds.words());
        let parent = known
            .at
            .as_deref()
            .and_then(|at| at.rsplit_once('.'))
            .map(|(parent, _)| format!("it may be meant for `{parent}`"));
        self.report(argument.span(), "type", message, parent);
    }

    /// Whether `expression` is a name that stands for nothing yet.
    pub(super) fn is_new(&self, expression: &Expr, scope: &Scope<'a>) -> bool {
        let Expr::Var { span, .. } = expression else { return false };
        let name = span.text();
        name == "_" || (name != "input" && scope.find(name).is_none() && !self.is_global(name, scope.module))
    }
}

/// What can be gone through.
pub(super) const COLLECTIONS: Kinds = Kinds::ARRAY.or(Kinds::SET).or(Kinds::OBJECT);

/// What the items of a collection are.
pub(super) fn item(whole: &Shape) -> Shape {
    let Some(known) = whole.known() else { return Shape::Any };
    match &known.members {
        Members::Open(each) if known.kinds.meets(Kinds::OBJECT) => each.clone(),
        _ if known.kinds.meets(Kinds::OBJECT) => Shape::Any,
        _ => known.items.clone(),
    }
}

/// What their keys are.
pub(super) fn key(whole: &Shape) -> Shape {
    match whole.kinds().map(|kinds| kinds.without(Kinds::NULL)) {
        Some(Kinds::ARRAY) => Shape::of(Kinds::NUMBER),
        Some(Kinds::OBJECT) => Shape::of(Kinds::STRING),
        Some(Kinds::SET) => item(whole),
        _ => Shape::Any,
    }
}

/// The text that is written out.
pub(super) fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

fn written(all: BTreeSet<String>) -> Shape {
    Shape::text(Text::OneOf(Names { what: WRITTEN, all: Rc::new(all) }))
}

/// The member of an amount or a moment that is its exact value.
pub(super) fn amount(shape: &Shape) -> Option<&'static str> {
    let Members::Closed(members) = &shape.known()?.members else { return None };
    ["minor", "unscaled", "ns"].into_iter().find(|name| members.contains_key(*name))
}
