//! Obligations as they are written: each names one duty, and what is written out has to be what the duty takes. At run
//! time it would be a denial of every call it is attached to.

use model::{Duty, nearest::nearest};
use regorus::unstable::{Expr, Rule as Parsed, RuleHead, Span};
use serde_json::{Map, Value};

use super::modules::Module;
use crate::{
    Problem,
    obligation::WORDS,
    roots::{Answer, Owner, problem},
};

/// The members of the duties that are objects of their own.
const MEMBERS: [(&str, &[&str]); 2] = [("require_header", &["name", "pattern"]), ("notify", &["channel", "message"])];

/// Reports what can be said of the obligations of `modules` by looking at them.
pub(super) fn check(modules: &[Module], problems: &mut Vec<Problem>) {
    let own = modules.iter().filter(|module| module.owner != Owner::Library);
    for rule in own.flat_map(|module| &module.rules) {
        let is_obligation = rule.path.last().and_then(|name| Answer::named(name)) == Some(Answer::Obligations);
        if let Parsed::Spec { head: RuleHead::Set { key: Some(key), .. }, .. } = rule.parsed.as_ref()
            && let Expr::Object { fields, span, .. } = key.as_ref()
            && is_obligation
        {
            let fields: Option<Vec<_>> =
                fields.iter().map(|(at, name, value)| Some((at, text(name)?, value.as_ref()))).collect();
            if let Some(fields) = fields {
                obligation(span, &fields, problems);
            }
        }
    }
}

fn obligation(span: &Span, fields: &[(&Span, String, &Expr)], problems: &mut Vec<Problem>) {
    let duties: Vec<_> = fields.iter().filter(|(_, name, _)| !WORDS.contains(&name.as_str())).collect();
    if duties.is_empty() {
        let hint = format!("it has one of {}", Duty::NAMES.join(", "));
        problems.push(wrong(span, "an obligation that obliges to nothing".to_owned(), hint));
    }
    for (_, name, _) in duties.iter().skip(1) {
        let hint = "write one obligation for each".to_owned();
        problems.push(wrong(span, format!("an obligation has one duty, and this has `{name}` too"), hint));
    }
    for (at, name, value) in duties {
        if !Duty::NAMES.contains(&name.as_str()) {
            let hint = nearest(name, Duty::NAMES.into_iter().chain(WORDS)).map_or_else(
                || format!("there are {}", Duty::NAMES.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            problems.push(wrong(at, format!("there is no obligation `{name}`"), hint));
        } else if let Some(written) = literal(value) {
            if let Err(error) = Duty::read(name, written) {
                problems.push(wrong(value.span(), error, "see docs/obligations.md".to_owned()));
            }
        } else {
            members(name, value, problems);
        }
    }
}

/// The members of a duty that is not written out whole.
fn members(name: &str, value: &Expr, problems: &mut Vec<Problem>) {
    let (Some((_, known)), Expr::Object { fields, .. }) = (MEMBERS.iter().find(|(duty, _)| *duty == name), value)
    else {
        return;
    };
    for (span, member, _) in fields {
        let Some(member) = text(member).filter(|member| !known.contains(&member.as_str())) else { continue };
        let hint = nearest(&member, known.iter().copied())
            .map_or_else(|| format!("it has {}", known.join(" and ")), |meant| format!("did you mean `{meant}`?"));
        problems.push(wrong(span, format!("`{name}` has no `{member}`"), hint));
    }
}

fn wrong(span: &Span, message: String, hint: String) -> Problem {
    problem(span, message, hint).coded("obligation")
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

/// What an expression is that names nothing; `None` where it does.
fn literal(expression: &Expr) -> Option<Value> {
    match expression {
        Expr::String { .. } | Expr::RawString { .. } => text(expression).map(Value::from),
        Expr::Number { value, .. } | Expr::Bool { value, .. } | Expr::Null { value, .. } => {
            serde_json::to_value(value).ok()
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(|item| literal(item)).collect(),
        Expr::Object { fields, .. } => {
            let members: Option<Map<_, _>> =
                fields.iter().map(|(_, name, value)| Some((text(name)?, literal(value)?))).collect();
            members.map(Value::from)
        }
        _ => None,
    }
}
