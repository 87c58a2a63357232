//! What a decision makes of a value that is missing. A `deny` that meets one says nothing, and the call goes: so each
//! place where a value may be missing is followed from the rule that meets it to the answer that rests on it.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Rule as Parsed, Span};

use super::Program;
use crate::{
    Problem,
    check::modules::Rule,
    roots::{Answer, Path, problem},
};

/// How a value may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is null.
    Null,
    /// There is nothing at its place.
    Absent,
}

/// A place in a rule where a value may be missing.
struct Doubt<'a> {
    span: &'a Span,
    place: String,
    missing: Missing,
    /// Whether the rule is not true then; otherwise it may be true because of it.
    loses: bool,
}

/// All of them, and which rule rests on which.
#[derive(Default)]
pub(super) struct Doubts<'a> {
    of: BTreeMap<&'a Path, Vec<Doubt<'a>>>,
    /// The rules that a rule uses, each with whether it is true where they are not.
    uses: BTreeMap<&'a Path, BTreeSet<(&'a Path, bool)>>,
    /// For each package, the places that any of its rules looks at before it uses them.
    guarded: BTreeMap<&'a [String], BTreeSet<String>>,
}

impl<'a> Doubts<'a> {
    /// Notes that in `rule` what is at `place` may be missing. `becomes` is what is asked there if so.
    pub(super) fn add(&mut self, rule: &'a Path, span: &'a Span, place: &str, missing: Missing, becomes: bool) {
        let doubt = Doubt { span, place: place.to_owned(), missing, loses: !becomes };
        self.of.entry(rule).or_default().push(doubt);
    }

    /// Notes that `rule` uses `other`, and whether it is true where that is not.
    pub(super) fn uses(&mut self, rule: &'a Path, other: &'a Path, negated: bool) {
        self.uses.entry(rule).or_default().insert((other, negated));
    }

    /// Notes the places that a query of `rule` looks at.
    pub(super) fn guarded(&mut self, rule: &'a Path, program: &Program<'a>, places: &BTreeSet<String>) {
        if let Some(package) = package(rule, program) {
            // What one rule says of all of something, it says for itself.
            self.guarded
                .entry(package)
                .or_default()
                .extend(places.iter().filter(|place| !place.ends_with('*')).cloned());
        }
    }

    /// What has to be said of them.
    pub(super) fn problems(&self, program: &Program<'a>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for &path in program.definitions.keys() {
            let Some(answer) = path.last().and_then(|name| Answer::named(name)) else { continue };
            // A restriction is lost where its rule is not true; a permission is won where it is.
            let restricts = matches!(answer, Answer::Deny | Answer::Approval | Answer::Obligations);
            let mut open = vec![(path, restricts)];
            let mut seen: BTreeSet<(&Path, bool)> = open.iter().copied().collect();
            while let Some((rule, loses)) = open.pop() {
                problems.extend(self.reported(rule, loses, answer, path, program));
                let uses = self.uses.get(rule).into_iter().flatten().map(|(used, negated)| (*used, loses != *negated));
                open.extend(uses.filter(|next| !has_default(next.0, program) && seen.insert(*next)));
            }
        }
        problems
    }

    /// The doubts about `rule` that matter to the answer at `path`, which is lost or won with it.
    fn reported(&self, rule: &Path, loses: bool, answer: Answer, path: &Path, program: &Program<'a>) -> Vec<Problem> {
        let guarded = |doubt: &&Doubt<'_>| {
            package(rule, program)
                .and_then(|package| self.guarded.get(package))
                .is_some_and(|places| places.contains(&doubt.place))
        };
        let doubts = self.of.get(rule).into_iter().flatten();
        let mattering = doubts.filter(|doubt| doubt.loses == loses).filter(|doubt| !guarded(doubt));
        mattering.map(|doubt| doubt.problem(rule, answer, path)).collect()
    }
}

impl Doubt<'_> {
    fn problem(&self, rule: &Path, answer: Answer, path: &Path) -> Problem {
        let Self { place, .. } = self;
        let name = answer.name();
        let missing = match self.missing {
            Missing::Null => "null",
            Missing::Absent => "missing",
        };
        let own = rule.last().map(String::as_str).unwrap_or_default();
        let lost = matches!(answer, Answer::Deny | Answer::Approval | Answer::Obligations);
        let then = match (lost, rule == path) {
            (true, true) => format!("this `{name}` says nothing"),
            (true, false) => format!("because of `{own}`, the `{name}` that needs it says nothing"),
            (false, true) => format!("this `{name}` says yes all the same"),
            (false, false) => format!("because of `{own}`, the `{name}` that needs it says yes all the same"),
        };
        let hint = match (lost, self.missing) {
            (true, Missing::Null) => format!(
                "say what null means: ask for what has to hold (`not {place} == …`), or add a `{name}` for `{place} == null`"
            ),
            (true, Missing::Absent) => format!(
                "say what it means that it is missing: ask for what has to hold (`not {place} == …`), or add a `{name}` for \
                 `not {place}`"
            ),
            (false, _) => format!("ask for it first: `is_string({place})`, or whatever it has to be"),
        };
        let found = problem(self.span, format!("`{place}` may be {missing}, and then {then}"), hint).coded("optional");
        if lost { found } else { found.warned() }
    }
}

/// The package of a rule.
fn package<'a>(rule: &Path, program: &Program<'a>) -> Option<&'a [String]> {
    let (module, _) = program.definitions.get(rule)?.first()?;
    program.modules.get(*module).map(|module| module.package.as_slice())
}

/// Whether a rule says itself what it is where nothing is true of it, other than not.
fn has_default(rule: &Path, program: &Program<'_>) -> bool {
    let says = |rule: &Rule| match rule.parsed.as_ref() {
        Parsed::Default { value, .. } => {
            !matches!(value.as_ref(), Expr::Bool { value, .. } if value == &regorus::Value::Bool(false))
        }
        Parsed::Spec { .. } => false,
    };
    program.definitions.get(rule).into_iter().flatten().any(|(_, rule)| says(rule))
}
