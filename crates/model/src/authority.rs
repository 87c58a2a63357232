//! What a hop may do: a scope and `authorization_details` elements (RFC 9396), with the laws of narrowing.
//!
//! A hop covers a call when its scope names the action *and one single element* holds action, tool, resource,
//! every limit and every relation; elements never combine (DESIGN §5.1).

mod elements;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use elements::Elements;

use crate::{Action, Id, Limits, Parameters, Pattern, Tool, limits::Exceeded};

/// The `type` of our `authorization_details` elements.
pub const ELEMENT_TYPE: &str = "urn:countersign:action";

/// Action names, as in the space-separated `scope` claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Scope(BTreeSet<Id<Action>>);

impl Scope {
    /// From a `scope` claim (RFC 6749 §3.3). Names that are no identifiers cannot name an action and drop out.
    pub fn parse(claim: &str) -> Self {
        claim.split(' ').filter_map(|name| Id::new(name).ok()).collect()
    }

    /// Whether it names `action`.
    pub fn contains(&self, action: &Id<Action>) -> bool {
        self.0.contains(action)
    }

    /// Whether `wider` names everything this does.
    pub fn within(&self, wider: &Self) -> bool {
        self.0.is_subset(&wider.0)
    }

    /// What both name.
    pub fn intersect(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Id<Action>> {
        self.0.iter()
    }
}

impl FromIterator<Id<Action>> for Scope {
    fn from_iter<T: IntoIterator<Item = Id<Action>>>(names: T) -> Self {
        Self(names.into_iter().collect())
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// One `authorization_details` element of type [`ELEMENT_TYPE`]. Unknown members are refused (RFC 9396 §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// Always [`ELEMENT_TYPE`].
    #[serde(rename = "type")]
    pub kind: ElementType,
    /// The actions it allows.
    pub actions: BTreeSet<Id<Action>>,
    /// The tools it allows them on.
    pub locations: BTreeSet<Id<Tool>>,
    /// The resources it allows them on; all, where absent.
    #[serde(default = "Pattern::any")]
    pub identifier: Pattern,
    /// Caps on the call's parameters.
    #[serde(default)]
    pub limits: Limits,
    /// Relations to be proved from facts: `{"order.placed_by": "$user"}`.
    #[serde(default, rename = "where")]
    pub relations: BTreeMap<String, String>,
}

/// The one element type there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ElementType {
    /// [`ELEMENT_TYPE`]
    #[serde(rename = "urn:countersign:action")]
    Action,
}

/// What a call asks for, as far as authority is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The action.
    pub action: &'a Id<Action>,
    /// The tool.
    pub tool: &'a Id<Tool>,
    /// The resource's name.
    pub resource: &'a str,
    /// The call's parameters.
    pub parameters: &'a Parameters,
}

/// How far an element, or a whole authority, came towards covering a call. Ordered: later is nearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortfall {
    /// The scope does not name the action.
    Scope,
    /// No element names action and tool.
    Action,
    /// The resource is not among those named.
    Resource,
    /// A limit is exceeded, or its value is missing.
    Limit(Exceeded),
}

impl Shortfall {
    const fn nearness(&self) -> u8 {
        match self {
            Self::Scope => 0,
            Self::Action => 1,
            Self::Resource => 2,
            Self::Limit(_) => 3,
        }
    }
}

impl Element {
    /// Whether this element alone holds the call, its relations and cumulative limits still to be judged.
    pub fn covers(&self, demand: &Demand<'_>) -> Result<(), Shortfall> {
        if !self.actions.contains(demand.action) || !self.locations.contains(demand.tool) {
            return Err(Shortfall::Action);
        }
        if !self.identifier.matches(demand.resource) {
            return Err(Shortfall::Resource);
        }
        self.limits.exceeded(demand.parameters).map_or(Ok(()), |exceeded| Err(Shortfall::Limit(exceeded)))
    }

    /// Whether every call this element holds is also held by `wider`.
    pub fn within(&self, wider: &Self) -> bool {
        self.actions.is_subset(&wider.actions)
            && self.locations.is_subset(&wider.locations)
            && self.identifier.within(&wider.identifier)
            && self.limits.within(&wider.limits)
            && wider.relations.iter().all(|(fact, value)| self.relations.get(fact) == Some(value))
    }

    /// The element that holds what both hold; `None` where nothing is left or their limits have no tighter one.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let identifier = if self.identifier.within(&other.identifier) {
            self.identifier.clone()
        } else if other.identifier.within(&self.identifier) {
            other.identifier.clone()
        } else {
            return None;
        };
        let mut relations = self.relations.clone();
        for (fact, value) in &other.relations {
            if relations.insert(fact.clone(), value.clone()).is_some_and(|own| own != *value) {
                return None;
            }
        }
        let element = Self {
            kind: ElementType::Action,
            actions: &self.actions & &other.actions,
            locations: &self.locations & &other.locations,
            identifier,
            limits: self.limits.intersect(&other.limits)?,
            relations,
        };
        (!element.actions.is_empty() && !element.locations.is_empty()).then_some(element)
    }
}

/// What one hop held when it delegated, or what a token allows now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The actions by name.
    pub scope: Scope,
    /// The elements, each of which must hold a whole call by itself.
    pub elements: Elements,
}

impl Authority {
    /// The elements that hold the call each by itself, or how near the nearest came.
    pub fn covering(&self, demand: &Demand<'_>) -> Result<Vec<&Element>, Shortfall> {
        if !self.scope.contains(demand.action) {
            return Err(Shortfall::Scope);
        }
        let mut nearest = Shortfall::Action;
        let mut covering = Vec::new();
        for element in &self.elements {
            match element.covers(demand) {
                Ok(()) => covering.push(element),
                Err(shortfall) if shortfall.nearness() > nearest.nearness() => nearest = shortfall,
                Err(_) => {}
            }
        }
        if covering.is_empty() { Err(nearest) } else { Ok(covering) }
    }

    /// Whether it allows no more than `wider`: its scope is a subset and each element lies within one of `wider`'s.
    pub fn within(&self, wider: &Self) -> bool {
        self.scope.within(&wider.scope) && self.elements.within(&wider.elements)
    }

    /// What both allow: every pair of elements intersected, what is left kept.
    pub fn intersect(&self, other: &Self) -> Self {
        let pairs =
            self.elements.iter().flat_map(|own| other.elements.iter().filter_map(|element| own.intersect(element)));
        let mut elements: Vec<Element> = Vec::new();
        for element in pairs {
            if !elements.iter().any(|kept| element.within(kept)) {
                elements.retain(|kept| !kept.within(&element));
                elements.push(element);
            }
        }
        let named: BTreeSet<_> = elements.iter().flat_map(|element| element.actions.iter().cloned()).collect();
        let scope = self.scope.intersect(&other.scope).intersect(&Scope(named));
        for element in &mut elements {
            element.actions.retain(|action| scope.contains(action));
        }
        elements.retain(|element| !element.actions.is_empty());
        Self { scope, elements: elements.into() }
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.scope.is_empty() || self.elements.is_empty()
    }
}

#[cfg(test)]
mod tests;
