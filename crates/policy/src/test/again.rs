//! Every input that a test puts whole in the place of `input` is decided on again without each of its optional parts, as
//! cases are: nothing that is missing may make the decision more permissive. Inputs that are not whole, as those that
//! tests write by hand often are, are left alone. A test with an input that cannot be looked at says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use model::{Action, Catalogue, Obligation, obligation::holds_as_much};
use regorus::Value;
use serde_json::Value as Json;

use super::{Passed, failure::last_words};
use crate::{
    LoadError,
    coverage::{Covered, Definition, Place, Reached, Spread},
    dispatch::Package,
    engine,
    obligation::Obliged,
    roots::Owner,
};

/// What the prints that are put in begin with.
const MARK: &str = "@countersign-input ";
/// The words of a comment above a test that acknowledge one.
const ACKNOWLEDGED: &str = "more permissive without ";
/// The words of one that acknowledges that inputs are not looked at.
const UNTRIED: &str = "not tried again";
/// The most different inputs of a test that are looked at.
const MOST: usize = 200;

/// A part of an input without which the packages decided more permissively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Without {
    /// The part: `facts.order.status`.
    pub part: String,
    /// What was decided with it.
    pub with: &'static str,
    /// What was decided without it.
    pub without: &'static str,
}

/// An input that could not be looked at, so that nothing is known of the decision without its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untried {
    /// Where it is put in.
    pub place: Place,
    /// Why it could not.
    pub why: String,
}

/// The tests with prints of the inputs that they put in.
pub(super) struct Again<'a> {
    prints: Option<regorus::Engine>,
    /// The inputs that cannot be printed, by their places, and why.
    unprinted: Vec<(&'a Spread, usize, String)>,
    engine: regorus::Engine,
    packages: Vec<Package>,
    catalogue: Option<&'a Catalogue>,
}

impl<'a> Again<'a> {
    /// # Errors
    /// Where the tests do not load with prints that each load by themselves.
    pub(super) fn of(
        covered: &'a Covered,
        tests: &[String],
        packages: Vec<Package>,
        catalogue: Option<&'a Catalogue>,
    ) -> Result<Self, LoadError> {
        let files = covered.files.iter().filter(|file| tests.contains(&file.path) && !packages.is_empty());
        let mut places: Vec<(&Spread, usize)> =
            files.flat_map(|file| file.inputs.keys().map(move |place| (file, *place))).collect();
        let (mut prints, mut unprinted) = (None, Vec::new());
        if !places.is_empty() {
            prints = Some(printing(covered, &places).or_else(|_| {
                find_unprinted(covered, &places, &mut unprinted);
                let lost = |one: &(&Spread, usize)| {
                    unprinted.iter().any(|(file, place, _)| file.path == one.0.path && *place == one.1)
                };
                places.retain(|one| !lost(one));
                printing(covered, &places)
            })?);
        }
        let mut engine = covered.engine.clone();
        engine.set_enable_coverage(false);
        Ok(Self { prints, unprinted, engine, packages, catalogue })
    }

    /// Whether the test `name`, which is true and evaluated what it `reached`, passes: not where something was more
    /// permissive without some part of an input of it, or where that cannot be known, and neither is acknowledged.
    pub(super) fn run(&self, name: &str, file: &Spread, definition: &Definition, reached: &Reached) -> Passed {
        let Some(prints) = &self.prints else { return Passed::Yes };
        let mut engine = prints.clone();
        let given = engine.eval_rule(format!("data.{name}"));
        let printed = engine.take_prints().unwrap_or_default();
        let inputs: BTreeSet<&str> =
            printed.iter().filter_map(|line| Some(line.split_once(MARK)?.1.trim())).take(MOST).collect();
        let acknowledged = acknowledged(file, definition);
        let mut found: BTreeMap<String, Without> = BTreeMap::new();
        for input in inputs.into_iter().filter_map(|text| serde_json::from_str::<Json>(text).ok()).filter(is_whole) {
            let with = self.decide(&input);
            for (part, other) in self.removals(&input) {
                let without = self.decide(&other);
                if without.is_looser_than(&with) && !acknowledged.contains(part.as_str()) {
                    let less = without.freedom == with.freedom;
                    let said = if less { without.freedom.held_to_less() } else { without.freedom.word() };
                    found.insert(part.clone(), Without { part, with: with.freedom.word(), without: said });
                }
            }
        }
        if !found.is_empty() {
            return Passed::Careless(found.into_values().collect());
        }
        match self.untried(file, definition, reached, given) {
            Some(untried) if !acknowledged.contains(UNTRIED) => Passed::Untried(untried),
            _ => Passed::Yes,
        }
    }

    /// The first input of a test that was not looked at, where the test with prints `given` that.
    fn untried(
        &self,
        file: &Spread,
        definition: &Definition,
        reached: &Reached,
        given: Result<Value, impl Display>,
    ) -> Option<Untried> {
        if let Some((file, place, why)) = self.unprinted.iter().find(|(file, place, _)| reached.spot(file, *place)) {
            let spot = file.spots.get(*place)?;
            return Some(Untried { place: file.place(spot.line, spot.column), why: why.clone() });
        }
        let why = match given {
            Ok(Value::Bool(true)) => return None,
            Ok(_) => "the test is not true once its inputs are printed".to_owned(),
            Err(error) => last_words(&error),
        };
        Some(Untried { place: file.place(definition.line, definition.column), why })
    }

    fn decide(&self, input: &Json) -> Outcome {
        let Ok(input) = Value::from_json_str(&input.to_string()) else { return Outcome::DENIED };
        let mut engine = self.engine.clone();
        engine.set_input(input);
        let (mut allowed, mut approval, mut obliged) = (false, false, Obliged::default());
        for package in &self.packages {
            // The platform team never allows; what it does not deny it lets through.
            allowed |= package.owner == Owner::Org;
            match engine::ask(&mut engine, package) {
                Ok(answers) if answers.deny.is_empty() => {
                    allowed |= !answers.allow.is_empty();
                    approval |= !answers.approval.is_empty();
                    obliged.extend(answers.obligations);
                }
                _ => return Outcome::DENIED,
            }
        }
        let freedom = match (allowed, approval) {
            (false, _) => return Outcome::DENIED,
            (true, true) => Freedom::Approval,
            (true, false) => Freedom::Permitted,
        };
        // What nobody can be held to is a denial.
        obliged.bounded().map_or(Outcome::DENIED, |obligations| Outcome { freedom, obligations })
    }

    fn removals(&self, input: &Json) -> Vec<(String, Json)> {
        let mut found = Removals { input, found: Vec::new() };
        for leaf in ["user.acr", "user.tenant", "agent.instance", "delegation.grant_id"] {
            found.replace(leaf, Json::Null);
        }
        for leaf in ["task.id", "task.initiated_by", "task.presence", "task.use_case"] {
            found.replace(leaf, Json::Null);
        }
        found.replace("task.sensitivity", "high".into());
        found.replace("task.stage", "observe".into());
        found.members("user.attributes");
        found.members("call.headers");
        found.items("user.groups");
        found.items("user.roles");
        for fact in found.names("facts") {
            for leaf in found.names(&format!("facts.{fact}")) {
                found.replace(&format!("facts.{fact}.{leaf}"), Json::Null);
            }
        }
        let action = input.pointer("/action/name").and_then(Json::as_str).and_then(|name| self.action(name));
        for name in found.names("action.parameters") {
            let declared = action.and_then(|action| action.parameters.get(&name));
            if declared.is_none_or(|declared| declared.optional) {
                found.nothing(&format!("action.parameters.{name}"));
            }
        }
        found.found
    }

    fn action(&self, name: &str) -> Option<&'a Action> {
        let mut actions = self.catalogue?.tools().iter().flat_map(|tool| &tool.actions);
        actions.find(|action| action.id.as_str() == name)
    }
}

/// Whether `input` has what a sidecar gives.
fn is_whole(input: &Json) -> bool {
    let parts = ["action", "agent", "call", "delegation", "facts", "task", "user"];
    parts.iter().all(|part| input.get(part).is_some_and(Json::is_object)) && input.get("version").is_some()
}

/// What the comment above a test acknowledges: parts, as `# more permissive without facts.order.status: why` does, and
/// with `# not tried again: why` that its inputs are not looked at.
fn acknowledged<'a>(file: &'a Spread, definition: &Definition) -> BTreeSet<&'a str> {
    let above = usize::try_from(definition.line).unwrap_or(1).saturating_sub(1);
    let lines: Vec<&str> = file.written.lines().take(above).collect();
    let comments = lines.into_iter().rev().map_while(|line| line.trim().strip_prefix('#'));
    let one = |comment: &'a str| {
        let (what, why) = comment.split_once(':')?;
        let what = what.trim();
        let what = if what == UNTRIED { what } else { what.strip_prefix(ACKNOWLEDGED)?.trim() };
        (!why.trim().is_empty()).then_some(what)
    };
    comments.filter_map(one).collect()
}

/// The tests with prints of the inputs at `places`.
fn printing(covered: &Covered, places: &[(&Spread, usize)]) -> Result<regorus::Engine, LoadError> {
    let mut others: BTreeMap<&str, String> = BTreeMap::new();
    for file in &covered.files {
        let own = places.iter().filter(|(other, _)| other.path == file.path);
        let line = |(_, place): &(&Spread, usize)| {
            let input = file.inputs.get(place)?;
            Some((*place, format!("print(\"{MARK}\", json.marshal({input}))\n")))
        };
        let lines: BTreeMap<usize, String> = own.filter_map(line).collect();
        if !lines.is_empty() {
            others.insert(&file.path, file.with_lines(&lines));
        }
    }
    covered.replaced(&others)
}

/// Finds those of `places` at which a print makes the tests not load, by halves.
fn find_unprinted<'a>(
    covered: &'a Covered,
    places: &[(&'a Spread, usize)],
    found: &mut Vec<(&'a Spread, usize, String)>,
) {
    let Err(error) = printing(covered, places) else { return };
    if let [(file, place)] = places {
        found.push((file, *place, last_words(&error)));
        return;
    }
    let (one, other) = places.split_at(places.len() / 2);
    find_unprinted(covered, one, found);
    find_unprinted(covered, other, found);
}

/// What packages let a call do, and what it is held to then.
#[derive(Debug)]
struct Outcome {
    freedom: Freedom,
    obligations: Vec<Obligation>,
}

impl Outcome {
    const DENIED: Self = Self { freedom: Freedom::Denied, obligations: Vec::new() };

    /// Whether a call goes further than by `other`, or with less that it is held to.
    fn is_looser_than(&self, other: &Self) -> bool {
        let same = self.freedom == other.freedom && self.freedom != Freedom::Denied;
        self.freedom > other.freedom || (same && !holds_as_much(&self.obligations, &other.obligations))
    }
}

/// How far packages let a call go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Freedom {
    Denied,
    Approval,
    Permitted,
}

impl Freedom {
    const fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Approval => "approval required",
            Self::Permitted => "permitted",
        }
    }

    /// The same where less is asked of the call.
    const fn held_to_less(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Approval => "approval required, held to less",
            Self::Permitted => "permitted, held to less",
        }
    }
}

struct Removals<'a> {
    input: &'a Json,
    found: Vec<(String, Json)>,
}

impl Removals<'_> {
    /// The names of the members of the object at `path`.
    fn names(&self, path: &str) -> Vec<String> {
        let object = self.input.pointer(&pointer(path)).and_then(Json::as_object);
        object.into_iter().flat_map(|members| members.keys().cloned()).collect()
    }

    /// The input after `change` of what is at `path`, where that changes anything.
    fn changed(&mut self, name: String, path: &str, change: impl FnOnce(&mut Json)) {
        let mut other = self.input.clone();
        if let Some(value) = other.pointer_mut(&pointer(path)) {
            change(value);
        }
        if other != *self.input {
            self.found.push((name, other));
        }
    }

    fn replace(&mut self, path: &str, value: Json) {
        self.changed(path.to_owned(), path, |leaf| *leaf = value);
    }

    /// A leaf of several members has them all null.
    fn nothing(&mut self, path: &str) {
        self.changed(path.to_owned(), path, |leaf| match leaf {
            Json::Object(members) => members.values_mut().for_each(|member| *member = Json::Null),
            leaf => *leaf = Json::Null,
        });
    }

    fn members(&mut self, path: &str) {
        for name in self.names(path) {
            self.changed(format!("{path}.{name}"), path, |object| {
                object.as_object_mut().and_then(|members| members.remove(&name));
            });
        }
    }

    fn items(&mut self, path: &str) {
        let items = self.input.pointer(&pointer(path)).and_then(Json::as_array).cloned().unwrap_or_default();
        for item in items {
            let name = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            self.changed(format!("{path}.{name}"), path, |array| {
                array.as_array_mut().into_iter().for_each(|items| items.retain(|other| *other != item));
            });
        }
    }
}

/// The JSON pointer to a path of names without `.`, which no leaf of the input has but headers and attributes.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}
