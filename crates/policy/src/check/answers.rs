//! The sets that decide: their names are kept for them, they are sets of objects, and the platform team's policy
//! never allows.

use regorus::unstable::{Expr, Rule as Parsed, RuleHead};

use super::modules::{Module, Rule};
use crate::{
    Problem, member,
    roots::{Answer, Owner, dotted, problem},
};

/// Reports what is wrong with `rule` as an answer, or as something that must not look like one.
pub(super) fn check(module: &Module, rule: &Rule, problems: &mut Vec<Problem>) {
    let names = rule.path.get(module.package.len()..).unwrap_or_default();
    let Some(answer) = names.iter().find_map(|name| Answer::named(name)) else { return };
    let name = answer.name();
    let write = format!("write `{name} contains {{\"code\": \"…\"}} if {{ … }}`");
    if module.owner == Owner::Library {
        problems.push(problem(rule.span(), format!("the library has no `{name}`"), None));
        return;
    }
    if names.len() != 1 || !matches!(rule.name(), Expr::Var { .. }) {
        let message = format!("`{}`: the name `{name}` is kept for the package's set of answers", dotted(names));
        problems.push(problem(rule.span(), message, write));
        return;
    }
    match rule.parsed.as_ref() {
        Parsed::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } => object(key, answer, problems),
        Parsed::Spec { head: RuleHead::Set { .. } | RuleHead::Compr { .. } | RuleHead::Func { .. }, .. }
        | Parsed::Default { .. } => {
            problems.push(problem(rule.span(), format!("`{name}` is a set of objects and nothing else"), write));
        }
    }
    if module.owner == Owner::Org && answer == Answer::Allow {
        let hint = "what is allowed is said by the team that the tool belongs to".to_owned();
        problems.push(problem(rule.span(), "`countersign.org` never allows", hint));
    }
    if matches!(module.owner, Owner::Team(_)) && answer == Answer::Manage {
        let hint = "write it in `countersign.org`".to_owned();
        problems.push(problem(rule.span(), "a team does not say who manages", hint));
    }
}

/// What can be said of a member by looking at it; the rest is seen when it is there.
fn object(key: &Expr, answer: Answer, problems: &mut Vec<Problem>) {
    let name = answer.name();
    let fields = match key {
        Expr::Object { fields, .. } => fields,
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Array { .. }
        | Expr::Set { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. } => {
            let hint = "write `{\"code\": \"…\"}`".to_owned();
            problems.push(problem(key.span(), format!("a member of `{name}` is an object with a `code`"), hint));
            return;
        }
        _ => return,
    };
    if answer == Answer::Obligations {
        // What is none denies the calls it is attached to; `obligations` says so before.
        return;
    }
    let known = member::names(answer);
    let mut has_code = false;
    for (span, field, _) in fields {
        let Expr::String { value, .. } = field.as_ref() else { return };
        let Ok(field) = value.as_string() else { return };
        has_code |= &**field == "code";
        if !known.contains(&&**field) {
            let hint = format!("it may have {}", known.join(", "));
            problems.push(problem(span, format!("a member of `{name}` has no `{field}`"), hint));
        }
    }
    if !has_code {
        problems.push(problem(key.span(), format!("a member of `{name}` has a `code`"), None));
    }
}
