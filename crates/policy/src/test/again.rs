//! Every input that a test puts whole in the place of `input` is decided on again without each of its optional parts, as
//! cases are: nothing that is missing may make the decision more permissive. Inputs that are not whole, as those that
//! tests write by hand often are, are left alone.

use std::collections::{BTreeMap, BTreeSet};

use model::{Action, Catalogue};
use regorus::Value;
use serde_json::Value as Json;

use super::failure::with_lines;
use crate::{
    coverage::{Covered, Definition, Spread},
    dispatch::Package,
    engine,
    roots::Owner,
};

/// What the prints that are put in begin with.
const MARK: &str = "@countersign-input ";
/// The words of a comment above a test that acknowledge one.
const ACKNOWLEDGED: &str = "more permissive without ";
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

/// The tests with prints of the inputs that they put in.
pub(super) struct Again<'a> {
    prints: Option<regorus::Engine>,
    engine: regorus::Engine,
    packages: Vec<Package>,
    catalogue: Option<&'a Catalogue>,
}

impl<'a> Again<'a> {
    pub(super) fn of(
        covered: &Covered,
        tests: &[String],
        packages: Vec<Package>,
        catalogue: Option<&'a Catalogue>,
    ) -> Self {
        let mut others = BTreeMap::new();
        for file in covered.files.iter().filter(|file| tests.contains(&file.path)) {
            let mut lines = BTreeMap::new();
            for (place, probe) in &file.probes {
                let (Some(input), Some(spot)) = (&probe.input, file.spots.get(*place)) else { continue };
                lines.insert(*spot.lines.start(), format!("print(\"{MARK}\", json.marshal({input}))\n"));
            }
            others.insert(file.path.as_str(), with_lines(&file.text, &lines));
        }
        let mut engine = covered.engine.clone();
        engine.set_enable_coverage(false);
        let wanted = !packages.is_empty() && !others.is_empty();
        let prints = wanted.then(|| covered.replaced(&others).ok()).flatten();
        Self { prints, engine, packages, catalogue }
    }

    /// What was more permissive without some part of an input of the test `name`, and is not acknowledged.
    pub(super) fn run(&self, name: &str, file: &Spread, definition: &Definition) -> Vec<Without> {
        let Some(prints) = &self.prints else { return Vec::new() };
        let mut engine = prints.clone();
        drop(engine.eval_rule(format!("data.{name}")));
        let printed = engine.take_prints().unwrap_or_default();
        let inputs: BTreeSet<&str> =
            printed.iter().filter_map(|line| Some(line.split_once(MARK)?.1.trim())).take(MOST).collect();
        let acknowledged = acknowledged(file, definition);
        let mut found: BTreeMap<String, Without> = BTreeMap::new();
        for input in inputs.into_iter().filter_map(|text| serde_json::from_str::<Json>(text).ok()).filter(is_whole) {
            let with = self.decide(&input);
            for (part, other) in self.removals(&input) {
                let without = self.decide(&other);
                if without > with && !acknowledged.contains(&part) {
                    let one = Without { part: part.clone(), with: with.word(), without: without.word() };
                    found.insert(part, one);
                }
            }
        }
        found.into_values().collect()
    }

    fn decide(&self, input: &Json) -> Freedom {
        let Ok(input) = Value::from_json_str(&input.to_string()) else { return Freedom::Denied };
        let mut engine = self.engine.clone();
        engine.set_input(input);
        let (mut allowed, mut approval) = (false, false);
        for package in &self.packages {
            // The platform team never allows; what it does not deny it lets through.
            allowed |= package.owner == Owner::Org;
            match engine::ask(&mut engine, package) {
                Ok(answers) if answers.deny.is_empty() && answers.obligations.is_empty() => {
                    allowed |= !answers.allow.is_empty();
                    approval |= !answers.approval.is_empty();
                }
                _ => return Freedom::Denied,
            }
        }
        match (allowed, approval) {
            (false, _) => Freedom::Denied,
            (true, true) => Freedom::Approval,
            (true, false) => Freedom::Permitted,
        }
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

/// The parts that the comment above a test acknowledges: `# more permissive without facts.order.status: why`.
fn acknowledged(file: &Spread, definition: &Definition) -> BTreeSet<String> {
    let above = usize::try_from(definition.line).unwrap_or(1).saturating_sub(1);
    let lines: Vec<&str> = file.written.lines().take(above).collect();
    let comments = lines.iter().rev().map_while(|line| line.trim().strip_prefix('#'));
    let one = |comment: &str| {
        let (part, why) = comment.trim().strip_prefix(ACKNOWLEDGED)?.split_once(':')?;
        (!why.trim().is_empty()).then(|| part.trim().to_owned())
    };
    comments.filter_map(one).collect()
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
