//! What a policy holds for nothing: imports and rules that nobody uses, rules that are there twice, and names that hide
//! others. Warnings, all of them.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule as Parsed, RuleHead, Span};

use super::{
    graph::Node,
    modules::{Module, Rule, Rules, import_name},
    walk::{Uses, reference},
};
use crate::{
    Problem,
    roots::{Answer, Owner, Path, problem},
};

/// Warns of what is there for nothing. `answering` are the rules that an answer needs.
pub(super) fn check(
    modules: &[Module],
    rules: &Rules<'_>,
    nodes: &BTreeMap<&Path, Node<'_>>,
    answering: &BTreeSet<&Path>,
    problems: &mut Vec<Problem>,
) {
    let used: BTreeSet<&Path> = nodes.values().flat_map(|node| node.uses.iter().copied()).collect();
    let own = || modules.iter().filter(|module| module.owner != Owner::Library);
    for module in own() {
        imports(module, problems);
        for rule in &module.rules {
            hidden(module, rule, rules, problems);
        }
    }
    unused(own(), answering, &used, problems);
    duplicates(own(), problems);
}

/// Warns of imports that nothing names.
fn imports(module: &Module, problems: &mut Vec<Problem>) {
    let mut named: BTreeSet<String> = BTreeSet::new();
    for rule in &module.rules {
        let uses = Uses::of(&rule.parsed);
        named.extend(uses.references.into_iter().map(|(found, _)| found.root));
        named.extend(uses.calls.into_iter().filter_map(|call| call.function).map(|found| found.root));
    }
    for import in module.imports() {
        let Some(found) = reference(&import.refr).filter(|found| matches!(found.root.as_str(), "data" | "input"))
        else {
            continue;
        };
        if let Some(name) = import_name(import, &found).filter(|name| !named.contains(name)) {
            problems.push(warning(&import.span, "unused", format!("nothing uses the import `{name}`"), "leave it out"));
        }
    }
}

/// Warns of rules that no answer needs; of a line of them, of the first.
fn unused<'a>(
    modules: impl Iterator<Item = &'a Module>,
    answering: &BTreeSet<&Path>,
    used: &BTreeSet<&Path>,
    problems: &mut Vec<Problem>,
) {
    let mut told: BTreeSet<&Path> = BTreeSet::new();
    for rule in modules.flat_map(|module| &module.rules) {
        let path = &rule.path;
        if answering.contains(path) || used.contains(path) || !told.insert(path) {
            continue;
        }
        let Some(name) = path.last().filter(|name| Answer::named(name).is_none()) else { continue };
        let what = if rule.arguments.is_some() { "function" } else { "rule" };
        let message = format!("no answer needs the {what} `{name}`");
        problems.push(warning(rule.name().span(), "unused", message, "leave it out, or use it in an answer"));
    }
}

/// Warns of rules that say what another says already.
fn duplicates<'a>(modules: impl Iterator<Item = &'a Module>, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<(&Path, String), &Span> = BTreeMap::new();
    for rule in modules.flat_map(|module| &module.rules) {
        let text: String = rule.span().text().split_whitespace().collect::<Vec<_>>().join(" ");
        match seen.get(&(&rule.path, text.clone())) {
            Some(earlier) => {
                let message = format!("the rule on line {} says the same", earlier.line);
                problems.push(warning(rule.name().span(), "duplicate", message, "leave one of them out"));
            }
            None => drop(seen.insert((&rule.path, text), rule.span())),
        }
    }
}

/// Warns of names in a rule that hide an import, a rule or a document.
fn hidden(module: &Module, rule: &Rule, rules: &Rules<'_>, problems: &mut Vec<Problem>) {
    let mut names = Vec::new();
    match rule.parsed.as_ref() {
        Parsed::Default { .. } => {}
        Parsed::Spec { head, bodies, .. } => {
            if let RuleHead::Func { args, .. } = head {
                args.iter().for_each(|argument| pattern(argument, &mut names));
            }
            bodies.iter().for_each(|body| query(&body.query, &mut names));
        }
    }
    for span in names {
        let name = span.text();
        let import = module.imports().iter().any(|import| {
            reference(&import.refr).and_then(|found| import_name(import, &found)).is_some_and(|known| known == name)
        });
        let own: Path = module.package.iter().cloned().chain([name.to_owned()]).collect();
        let what = match name {
            "input" | "data" => "a document",
            _ if import => "an import",
            _ if !rules.touched(&own).is_empty() => "a rule",
            _ => continue,
        };
        problems.push(warning(span, "shadowed", format!("`{name}` hides {what} of that name"), "give it another name"));
    }
}

/// The names that a query declares.
fn query<'a>(query: &'a Query, names: &mut Vec<&'a Span>) {
    for LiteralStmt { literal, .. } in &query.stmts {
        match literal {
            Literal::SomeVars { vars, .. } => names.extend(vars),
            Literal::SomeIn { key, value, .. } => key.iter().chain([value]).for_each(|part| pattern(part, names)),
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                    pattern(lhs, names);
                }
            }
            Literal::NotExpr { .. } => {}
            Literal::Every { key, value, query: inner, .. } => {
                names.extend(key.iter().chain([value]));
                self::query(inner, names);
            }
        }
    }
}

fn pattern<'a>(expression: &'a Expr, names: &mut Vec<&'a Span>) {
    match expression {
        Expr::Var { span, .. } => names.push(span),
        Expr::Array { items, .. } => items.iter().for_each(|item| pattern(item, names)),
        Expr::Object { fields, .. } => fields.iter().for_each(|(_, _, value)| pattern(value, names)),
        _ => {}
    }
}

fn warning(span: &Span, code: &'static str, message: String, hint: &str) -> Problem {
    problem(span, message, hint.to_owned()).coded(code).warned()
}
