//! A module's text with every expression of a rule on a line of its own, because the engine knows what it evaluated by
//! line only; and for each of them where it stands in the text as it was written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use regorus::unstable::{
    AssignOp, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleAssign, RuleBody, RuleHead, Span,
};

use super::{
    Place,
    order::{self, Statement},
};
use crate::{
    bundle::File,
    roots::{Answer, Path, dotted},
};

/// A module, spread.
#[derive(Debug)]
pub(crate) struct Spread {
    /// How the file is called.
    pub(crate) path: String,
    /// As it was written.
    pub(crate) written: String,
    /// What the engine is given instead. It means the same.
    pub(crate) text: String,
    /// The package.
    pub(crate) package: String,
    /// What the names of its imports stand for.
    imports: BTreeMap<String, Path>,
    /// Everything that is evaluated by itself.
    pub(crate) spots: Vec<Spot>,
    /// What can be looked at in an expression, by its place in `spots`.
    pub(crate) probes: BTreeMap<usize, Probe>,
    /// What the `with` of an expression puts in the place of `input`, as written, by its place in `spots`.
    pub(crate) inputs: BTreeMap<usize, String>,
    /// The expressions, by places in `spots`, that are a body without braces.
    bare: BTreeSet<usize>,
    /// What `text` has that was not written.
    breaks: Vec<Break>,
    /// The expressions of each `every`, by places in `spots`.
    pub(crate) within: BTreeMap<usize, Vec<usize>>,
    /// The rules, in order, one entry for each time that one is defined.
    pub(crate) definitions: Vec<Definition>,
}

/// An expression of a body, or the value of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    /// The line it begins at, as written.
    pub(crate) line: u32,
    /// The column.
    pub(crate) column: u32,
    /// Where it is in the text, in bytes.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The lines it has in the spread text.
    pub(crate) lines: RangeInclusive<u32>,
    /// How many lines below the first of those it is; for what is not in the text as written.
    further: u32,
}

/// The parts of an expression, as written, on one line.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// The whole of it, or what is left of its operator.
    pub(crate) left: String,
    /// What is right of its operator.
    pub(crate) right: Option<String>,
    /// Its `with`.
    pub(crate) with: String,
}

/// One definition of a rule.
#[derive(Debug)]
pub(crate) struct Definition {
    /// The rule's name below its package.
    pub(crate) name: String,
    /// The set of a decision that it adds to.
    pub(crate) answer: Option<Answer>,
    /// The `code` of what it adds, where it is written out.
    pub(crate) code: Option<String>,
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// The place in `spots` of its value.
    pub(crate) value: usize,
    /// Its bodies in the order they are tried; none where the rule is its value.
    pub(crate) bodies: Vec<Body>,
}

/// One body.
#[derive(Debug)]
pub(crate) struct Body {
    /// The place in `spots` of what tells whether it was true.
    pub(crate) tells: Tells,
    /// The expressions, by their place in `spots`, in the order the engine takes them.
    pub(crate) statements: Vec<usize>,
    /// What each names that can be looked up afterwards: by their place in `spots`, the names.
    pub(crate) names: Vec<(usize, Vec<String>)>,
}

/// What tells whether a body was true. Both are places in [`Spread::spots`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tells {
    /// Its value, which is evaluated once it is.
    Value(usize),
    /// What is evaluated once it is not; of an `else`.
    Otherwise(usize),
    /// Nothing: a last `else` without a body.
    Nothing,
}

impl Spread {
    /// Spreads `module`, parsed from `file`.
    pub(crate) fn of(file: &File, module: &Module) -> Self {
        let package = package(module);
        let mut walk = Walk {
            globals: order::globals(module),
            breaks: Vec::new(),
            spots: Vec::new(),
            probes: BTreeMap::new(),
            inputs: BTreeMap::new(),
            bare: BTreeSet::new(),
            within: BTreeMap::new(),
            definitions: Vec::new(),
        };
        for rule in &module.policy {
            walk.rule(rule);
        }
        let Walk { mut breaks, mut spots, probes, inputs, bare, within, definitions, .. } = walk;
        breaks.sort_by_key(|found| found.at);
        breaks.dedup_by_key(|found| found.at);
        let lines = Lines::of(&file.text, &breaks);
        for spot in &mut spots {
            let last = spot.end.saturating_sub(1).max(spot.start);
            spot.lines = lines.at(spot.start) + spot.further..=lines.at(last) + spot.further;
        }
        Self {
            path: file.path.clone(),
            written: file.text.clone(),
            text: broken(&file.text, &breaks),
            package,
            imports: order::imports(module),
            spots,
            probes,
            inputs,
            bare,
            breaks,
            within,
            definitions,
        }
    }

    /// The spread text with `lines` before the expressions at those places in `spots`, in the same body.
    pub(crate) fn with_lines(&self, lines: &BTreeMap<usize, String>) -> String {
        let (mut closing, mut opening) = (Vec::new(), Vec::new());
        for (place, text) in lines {
            let Some(spot) = self.spots.get(*place) else { continue };
            // More than one expression needs braces.
            let open = if self.bare.contains(place) { "{ " } else { "" };
            opening.push(Break { at: spot.start, text: format!("{open}{text}").into() });
            if self.bare.contains(place) {
                closing.push(Break { at: spot.end, text: " }".into() });
            }
        }
        // At one place the body that ends there comes first, and the line break before the line that is put in.
        let mut breaks: Vec<Break> = closing.into_iter().chain(self.breaks.iter().cloned()).chain(opening).collect();
        breaks.sort_by_key(|found| found.at);
        broken(&self.written, &breaks)
    }

    /// The place as people know it.
    pub(crate) fn place(&self, line: u32, column: u32) -> Place {
        Place { file: self.path.clone(), line, column }
    }

    /// The path that `name`, as written in a rule, stands for: in `input`, or under `data`. `None` for a variable.
    pub(crate) fn meaning(&self, name: &str) -> Option<Path> {
        let path: Path = name.split('.').map(str::to_owned).collect();
        let (root, below) = path.split_first()?;
        if root == "input" || root == "data" {
            return Some(path);
        }
        if let Some(import) = self.imports.get(root) {
            return Some(import.iter().chain(below).cloned().collect());
        }
        let is_rule = self.definitions.iter().any(|definition| definition.name.split('.').next() == Some(root));
        let package = || std::iter::once("data").chain(self.package.split('.')).map(str::to_owned);
        is_rule.then(|| package().chain(path.iter().cloned()).collect())
    }

    /// Whether the expression at `place` only names variables (`some x`), which is nothing to evaluate.
    pub(crate) fn is_silent(&self, place: usize) -> bool {
        let words = self.spots.get(place).map(|spot| self.words(spot)).unwrap_or_default();
        words.starts_with("some ") && !words.contains(" in ")
    }

    /// The text of `spot` as written, on one line.
    pub(crate) fn words(&self, spot: &Spot) -> String {
        let text = self.written.get(spot.start..spot.end).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn package(module: &Module) -> String {
    order::path(&module.package.refr).map(|path| dotted(&path)).unwrap_or_default()
}

/// A line break that is put in, with what stands before it.
#[derive(Debug, Clone)]
struct Break {
    at: usize,
    text: Cow<'static, str>,
}

/// The value `true` that a rule has where none is written.
const IMPLICIT: &str = " :=\ntrue ";
/// What is added to a rule with `else`, whose values the engine does not report: it is reached where none before it was
/// true, and never true itself.
const OTHERWISE: &str = " else :=\nfalse if\nfalse ";
/// What a text begins and ends with.
const QUOTES: [char; 2] = ['"', '`'];
/// What stands between a set's name and what it contains.
const CONTAINS: &str = "contains";

/// Where lines begin in a spread text, by places in the text as written.
struct Lines {
    /// The line breaks that were there.
    written: Vec<usize>,
    /// Those that were put in: where, and how many up to and with there.
    added: Vec<(usize, usize)>,
}

impl Lines {
    fn of(text: &str, breaks: &[Break]) -> Self {
        let mut count = 0;
        let added = breaks.iter().map(|found| {
            count += found.text.matches('\n').count();
            (found.at, count)
        });
        let added = added.collect();
        Self { written: text.match_indices('\n').map(|(at, _)| at).collect(), added }
    }

    /// The line of what is at `at`, and of the first line that is put in there.
    fn at(&self, at: usize) -> u32 {
        let before = self.added.partition_point(|(place, _)| *place < at);
        let added = before.checked_sub(1).and_then(|last| self.added.get(last)).map_or(0, |(_, count)| *count);
        let here = usize::from(self.added.get(before).is_some_and(|(place, _)| *place == at));
        let line = 1 + self.written.partition_point(|place| *place < at) + added + here;
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}

fn broken(text: &str, breaks: &[Break]) -> String {
    let mut out = String::with_capacity(text.len() + 16 * breaks.len());
    let mut from = 0;
    for found in breaks {
        out.push_str(text.get(from..found.at).unwrap_or_default());
        out.push_str(&found.text);
        from = found.at;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

struct Walk {
    globals: order::Globals,
    breaks: Vec<Break>,
    spots: Vec<Spot>,
    probes: BTreeMap<usize, Probe>,
    inputs: BTreeMap<usize, String>,
    bare: BTreeSet<usize>,
    within: BTreeMap<usize, Vec<usize>>,
    definitions: Vec<Definition>,
}

impl Walk {
    fn rule(&mut self, rule: &Rule) {
        let Rule::Spec { span, head, bodies } = rule else { return };
        let (refr, first) = match head {
            RuleHead::Compr { refr, assign, span } | RuleHead::Func { refr, assign, span, .. } => {
                let first = match assign {
                    Some(assign) => self.assigned(assign),
                    None => self.implicit(span, place(span.end)),
                };
                (refr, first)
            }
            RuleHead::Set { refr, key, span } => {
                let named = place(refr.span().end);
                let text = span.source.get_contents().get(named..).unwrap_or_default();
                let at = named + text.find(CONTAINS).map_or(0, |found| found + CONTAINS.len());
                let first = match key {
                    Some(key) => self.value(key, at, end(span)),
                    None => self.implicit(span, place(span.end)),
                };
                (refr, first)
            }
        };
        let arguments: &[_] = if let RuleHead::Func { args, .. } = head { args } else { &[] };
        let known = self.globals.with_arguments(arguments);
        let partial = matches!(head, RuleHead::Set { .. });
        let mut bodies: Vec<Body> = bodies.iter().map(|body| self.body(body, Tells::Value(first), &known)).collect();
        if bodies.len() > 1 && !partial {
            self.otherwise(span, &mut bodies);
        }
        let name = order::path(refr).map(|path| dotted(&path)).unwrap_or_else(|| refr.span().text().to_owned());
        let answer = Answer::named(&name).filter(|_| partial);
        let code = match head {
            RuleHead::Set { key: Some(key), .. } if answer.is_some() => code(key),
            _ => None,
        };
        let value = first;
        self.definitions.push(Definition { name, answer, code, line: span.line, column: span.col, value, bodies });
    }

    /// Each `else` is told by what comes after it.
    fn otherwise(&mut self, rule: &Span, bodies: &mut [Body]) {
        let mut next = None;
        if bodies.last().is_some_and(|last| !last.statements.is_empty()) {
            let at = end(rule);
            self.breaks.push(Break { at, text: OTHERWISE.into() });
            // The last of the lines that are put in there.
            self.spots.push(Spot { line: rule.line, column: rule.col, start: at, end: at, lines: 0..=0, further: 1 });
            next = Some(self.spots.len() - 1);
        }
        for body in bodies.iter_mut().skip(1).rev() {
            let own = body.statements.first().copied();
            body.tells = next.map_or(Tells::Nothing, Tells::Otherwise);
            next = own;
        }
    }

    fn assigned(&mut self, assign: &RuleAssign) -> usize {
        let operator = if matches!(assign.op, AssignOp::ColEq) { ":=" } else { "=" };
        self.value(&assign.value, place(assign.span.start) + operator.len(), end(&assign.span))
    }

    /// A value that begins somewhere behind `start`. The span of an object does not say where it begins, only at which
    /// line and column.
    fn value(&mut self, value: &Expr, start: usize, end: usize) -> usize {
        let text = value.span().source.get_contents().get(start..end).unwrap_or_default();
        let start = start + (text.len() - text.trim_start().len());
        let spot = self.spot(value.span(), start, end);
        self.nested(value);
        spot
    }

    /// The value `true` of a rule that has none written, put in at `at`. For a person it stands where the rule does.
    fn implicit(&mut self, rule: &Span, at: usize) -> usize {
        self.breaks.push(Break { at, text: IMPLICIT.into() });
        let head = rule.source.get_contents().get(place(rule.start)..at).unwrap_or_default();
        let further = u32::try_from(head.matches('\n').count()).unwrap_or(u32::MAX);
        let column = if further == 0 { rule.col } else { 1 };
        self.spots.push(Spot { line: rule.line + further, column, start: at, end: at, lines: 0..=0, further: 0 });
        self.spots.len() - 1
    }

    fn body(&mut self, body: &RuleBody, tells: Tells, known: &order::Globals) -> Body {
        if let Some(assign) = &body.assign {
            self.nested(&assign.value);
        }
        let query = &body.query;
        let statements: Vec<usize> = query.stmts.iter().map(|statement| self.statement(statement)).collect();
        if let ([only], [place]) = (query.stmts.as_slice(), statements.as_slice())
            && only.span.start == query.span.start
        {
            self.bare.insert(*place);
        }
        let reads: Vec<Statement> = query.stmts.iter().map(|statement| Statement::of(statement, known)).collect();
        let names = statements.iter().zip(&query.stmts).map(|(spot, statement)| (*spot, order::names(statement)));
        let names = names.collect();
        let order = order::schedule(&reads);
        let statements = order.into_iter().filter_map(|index| statements.get(index).copied()).collect();
        Body { tells, statements, names }
    }

    fn query(&mut self, query: &Query) -> Vec<usize> {
        query.stmts.iter().map(|statement| self.statement(statement)).collect()
    }

    fn statement(&mut self, statement: &LiteralStmt) -> usize {
        let start = place(statement.span.start);
        // The span of a text begins behind its quote.
        let before = statement.span.source.get_contents().get(..start).unwrap_or_default();
        let quoted = usize::from(before.ends_with(QUOTES));
        let spot = self.spot(&statement.span, start - quoted, end(&statement.span));
        for modifier in &statement.with_mods {
            self.nested(&modifier.r#as);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { collection, .. } => self.nested(collection),
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.nested(expr),
            Literal::Every { domain, query, .. } => {
                self.nested(domain);
                let own = self.query(query);
                self.within.insert(spot, own);
            }
        }
        if let Some(input) = given(statement) {
            self.inputs.insert(spot, input);
        }
        if let Some(probe) = probe(statement, start - quoted) {
            self.probes.insert(spot, probe);
        }
        spot
    }

    fn nested(&mut self, expression: &Expr) {
        let (expressions, query) = order::below(expression);
        for expression in expressions {
            self.nested(expression);
        }
        if let Some(query) = query {
            let _own = self.query(query);
        }
    }

    fn spot(&mut self, span: &Span, start: usize, end: usize) -> usize {
        self.breaks.push(Break { at: start, text: "\n".into() });
        self.spots.push(Spot { line: span.line, column: span.col, start, end, lines: 0..=0, further: 0 });
        self.spots.len() - 1
    }
}

/// What can be looked at in `statement`, which begins at `start`.
fn probe(statement: &LiteralStmt, start: usize) -> Option<Probe> {
    let text = statement.span.source.get_contents();
    let words = |from: usize, to: usize| {
        Some(text.get(from..to)?.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|words| !words.is_empty())
    };
    let (Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. }) = &statement.literal else { return None };
    let stop = end(&statement.span);
    let first = statement.with_mods.first().map(|modifier| &modifier.refr);
    let with = match first {
        Some(refr) => text.get(..place(refr.span().start))?.rfind("with")?,
        None => stop,
    };
    let (left, right) = match expr.as_ref() {
        Expr::BoolExpr { lhs, .. } | Expr::Membership { value: lhs, key: None, .. } => {
            let middle = end(lhs.span());
            let right = words(middle, with)?;
            let operators = |c: char| matches!(c, '=' | '!' | '<' | '>' | ' ');
            let right = right.strip_prefix("in ").unwrap_or_else(|| right.trim_start_matches(operators)).to_owned();
            (words(start, middle)?, Some(right))
        }
        Expr::AssignExpr { .. } => return None,
        _ => (words(start, with)?, None),
    };
    let left = left.strip_prefix("not ").unwrap_or(&left).to_owned();
    Some(Probe { left, right, with: words(with, stop).unwrap_or_default() })
}

/// What `statement` puts in the place of `input`, as written: a comment in it ends with its line.
fn given(statement: &LiteralStmt) -> Option<String> {
    let modifier = statement.with_mods.iter().find(|modifier| modifier.refr.span().text() == "input")?;
    let text = modifier.span.source.get_contents();
    let value = text.get(place(modifier.refr.span().end)..end(&modifier.span))?;
    Some(value.trim().strip_prefix("as")?.trim().to_owned())
}

/// The `code` of an object that is written out.
fn code(value: &Expr) -> Option<String> {
    let Expr::Object { fields, .. } = value else { return None };
    let text = |expression: &Expr| match expression {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    };
    let (_, _, value) = fields.iter().find(|(_, name, _)| text(name).as_deref() == Some("code"))?;
    text(value)
}

/// Where `span` ends. Behind a text it ends before the quote.
fn end(span: &Span) -> usize {
    let after = span.source.get_contents().get(place(span.end)..).unwrap_or_default();
    place(span.end) + usize::from(after.starts_with(QUOTES))
}

fn place(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
