//! The inputs of the three questions, with what the catalogue knows of tools, actions, parameters and facts put where the
//! schema leaves it open.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::{
    Action, Catalogue, Id, ParameterKind, Tool,
    catalogue::{CurrencySource, FactDeclaration, ParameterDeclaration},
};

use super::{Kinds, Members, Names, Shape, Text, schema};
use crate::{input, roots::About};

/// What is known of each input.
pub(in crate::check) struct Inputs<'a> {
    calls: Shape,
    issuance: Shape,
    management: Shape,
    catalogue: Option<&'a Catalogue>,
}

/// The calls that something is asked about: of these tools, or of all, and of these actions, where they are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::check) struct Calls {
    pub(in crate::check) tools: Option<BTreeSet<Id<Tool>>>,
    pub(in crate::check) actions: Option<BTreeSet<String>>,
}

impl<'a> Inputs<'a> {
    pub(in crate::check) fn of(catalogue: Option<&'a Catalogue>) -> Self {
        Self {
            calls: schema::input(&input::schema()),
            issuance: schema::input(&input::exchange::schema()),
            management: schema::input(&input::management::schema()),
            catalogue,
        }
    }

    /// The input where something is asked `about` these calls.
    pub(in crate::check) fn input(&self, about: About, calls: &Calls) -> Shape {
        let Some(catalogue) = self.catalogue.filter(|_| about == About::Calls) else {
            return match about {
                About::Calls => self.calls.clone(),
                About::Issuance => self.issuance.clone(),
                About::Management => self.management.clone(),
            };
        };
        let named = |tool: &&Tool| calls.tools.as_ref().is_none_or(|tools| tools.contains(&tool.id));
        let told = |action: &&Action| calls.actions.as_ref().is_none_or(|names| names.contains(action.id.as_str()));
        let all: Vec<&Tool> = catalogue.tools().iter().filter(named).collect();
        let every = || all.iter().flat_map(|tool| &tool.actions);
        // Where none is known by the name that is told, whatever is wrong is said of the name.
        let knows = every().any(|action| told(&action));
        let told = |action: &&Action| !knows || told(action);
        let actions: Vec<&Action> = every().filter(told).collect();
        let tools: Vec<&Tool> =
            all.iter().filter(|tool| tool.actions.iter().any(|action| told(&action))).copied().collect();
        // A name that is compared may be any of those asked about, whatever else the rule says of it.
        let names = every().map(|action| action.id.to_string());
        let name = one_of("action", names);
        let parameters = Shape::object(parameters(&actions)).placed("input.action.parameters");
        let facts = Shape::object(facts(&tools)).placed("input.facts");
        let tool = one_of("tool", all.iter().map(|tool| tool.id.to_string())).placed("input.tool");
        let action = match member(&self.calls, "action") {
            Some(action) => action.with(vec![("name", name.placed("input.action.name")), ("parameters", parameters)]),
            None => Shape::Any,
        };
        self.calls.clone().with(vec![("action", action), ("facts", facts), ("tool", tool)])
    }

    /// The tool whose action `name` is, where the catalogue knows it.
    pub(in crate::check) fn tool_of(&self, name: &str) -> Option<(&'a Tool, &'a Action)> {
        let tools = self.catalogue?.tools().iter();
        tools
            .flat_map(|tool| tool.actions.iter().map(move |action| (tool, action)))
            .find(|(_, action)| action.id.as_str() == name)
    }

    /// The actions that have a parameter of that name.
    pub(in crate::check) fn actions_with(&self, parameter: &str) -> Vec<&'a str> {
        let actions = self.catalogue.into_iter().flat_map(Catalogue::tools).flat_map(|tool| &tool.actions);
        actions.filter(|action| action.parameters.contains_key(parameter)).map(|action| action.id.as_str()).collect()
    }

    /// Which inputs have `member` at the top.
    pub(in crate::check) fn with_member(&self, name: &str) -> Vec<About> {
        let has = |shape: &Shape| member(shape, name).is_some();
        let inputs =
            [(About::Calls, &self.calls), (About::Issuance, &self.issuance), (About::Management, &self.management)];
        inputs.into_iter().filter(|(_, shape)| has(shape)).map(|(about, _)| about).collect()
    }
}

fn member(shape: &Shape, name: &str) -> Option<Shape> {
    match &shape.known()?.members {
        Members::Closed(members) => members.get(name).cloned(),
        Members::Open(_) | Members::Unknown => None,
    }
}

fn one_of(what: &'static str, names: impl Iterator<Item = String>) -> Shape {
    Shape::text(Text::OneOf(Names { what, all: Rc::new(names.collect()) }))
}

/// The parameters of any of `actions`. One that an action may leave out may be null.
fn parameters(actions: &[&Action]) -> BTreeMap<String, Shape> {
    let mut all: BTreeMap<String, Shape> = BTreeMap::new();
    for (name, declared) in actions.iter().flat_map(|action| &action.parameters) {
        let one = parameter(declared);
        let shape = match all.remove(name) {
            Some(earlier) => earlier.or(one),
            None => one,
        };
        all.insert(name.clone(), shape);
    }
    all
}

fn parameter(declared: &ParameterDeclaration) -> Shape {
    let leaf = |shape: Shape| if declared.optional { shape.or_null() } else { shape };
    let object = |members: Vec<(&str, Shape)>| {
        Shape::object(members.into_iter().map(|(name, shape)| (name.to_owned(), leaf(shape))).collect())
    };
    let number = || Shape::of(Kinds::NUMBER);
    match declared.kind {
        ParameterKind::String | ParameterKind::Id => leaf(Shape::of(Kinds::STRING)),
        ParameterKind::Integer => leaf(number()),
        ParameterKind::Set => leaf(Shape::array(Shape::of(Kinds::STRING))),
        ParameterKind::Money => {
            let currency = match &declared.currency {
                Some(CurrencySource::Always(code)) => one_of("currency", [code.clone()].into_iter()),
                _ => Shape::of(Kinds::STRING),
            };
            object(vec![("currency", currency), ("minor", number()), ("text", Shape::text(Text::Number))])
        }
        ParameterKind::Decimal => {
            object(vec![("scale", number()), ("text", Shape::text(Text::Number)), ("unscaled", number())])
        }
        ParameterKind::Time => object(vec![("ns", number()), ("text", Shape::text(Text::Time))]),
    }
}

/// The facts of any of `tools`. Each of its leaves may be null.
fn facts(tools: &[&Tool]) -> BTreeMap<String, Shape> {
    let mut all: BTreeMap<String, BTreeMap<String, Shape>> = BTreeMap::new();
    for (name, declared) in tools.iter().flat_map(|tool| &tool.facts) {
        all.entry(name.clone()).or_default().extend(leaves(declared));
    }
    all.into_iter().map(|(name, leaves)| (name, Shape::object(leaves))).collect()
}

fn leaves(declared: &FactDeclaration) -> BTreeMap<String, Shape> {
    let leaf = |principal: bool| {
        if principal {
            let members = ["id", "issuer"].map(|name| (name.to_owned(), Shape::of(Kinds::STRING)));
            return Shape::object(members.into()).or_null();
        }
        Shape::of(Kinds::NULL.or(Kinds::BOOLEAN).or(Kinds::NUMBER).or(Kinds::STRING))
    };
    declared.pick.iter().map(|(name, pick)| (name.clone(), leaf(pick.principal.is_some()))).collect()
}
