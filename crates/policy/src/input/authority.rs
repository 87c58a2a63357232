//! What a hop held, as policy sees it: elements with all their limits, every leaf there.

use std::collections::{BTreeMap, BTreeSet};

use model::{Action, Element, Id, Limits, Tool, authority::Elements};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::quantity::Quantity;

/// One `authorization_details` element.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Detail<'a> {
    /// The actions it allows, sorted.
    actions: &'a BTreeSet<Id<Action>>,
    /// The pattern of resources it allows them on: `orders/*`.
    identifier: String,
    /// Its limits, by name.
    #[schemars(with = "BTreeMap<&'a str, Limit<'a>>")]
    limits: Named<'a>,
    /// The tools it allows them on, sorted.
    locations: &'a BTreeSet<Id<Tool>>,
    /// The relations it asks for: `{"order.placed_by": "$user"}`.
    r#where: &'a BTreeMap<String, String>,
}

/// The elements that a hop held, each made when it is written: most of what a call's input has are these.
#[derive(Debug)]
pub(super) struct Details<'a>(pub(super) &'a Elements);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Detail::of))
    }
}

/// Limits by name, likewise.
#[derive(Debug)]
pub(super) struct Named<'a>(&'a Limits);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, limit)| (name, Limit::of(limit))))
    }
}

/// One limit. Leaves that its kind does not have are null.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Limit<'a> {
    /// The most: of one call's parameter, or over `window`.
    max: Quantity<'a>,
    /// The values a parameter may have, sorted.
    one_of: Option<&'a BTreeSet<String>>,
    /// The parameter that is summed over `window`; null where calls are counted.
    sum: Option<&'a str>,
    /// The window of a cumulative limit, an ISO 8601 duration.
    window: Option<String>,
}

impl<'a> Detail<'a> {
    pub(super) fn of(element: &'a Element) -> Self {
        Self {
            actions: &element.actions,
            locations: &element.locations,
            identifier: element.identifier.to_string(),
            limits: Named(&element.limits),
            r#where: &element.relations,
        }
    }
}

/// The limits by name.
pub(super) fn limits(limits: &Limits) -> BTreeMap<&str, Limit<'_>> {
    limits.iter().map(|(name, limit)| (name, Limit::of(limit))).collect()
}

impl<'a> Limit<'a> {
    fn of(limit: &'a model::Limit) -> Self {
        let none = Self { max: Quantity::NONE, one_of: None, sum: None, window: None };
        match limit {
            model::Limit::Max(max) => Self { max: Quantity::of(max), ..none },
            model::Limit::OneOf(allowed) => Self { one_of: Some(allowed), ..none },
            model::Limit::Cumulative(cumulative) => Self {
                max: Quantity::of(&cumulative.max),
                one_of: None,
                sum: cumulative.sum.as_deref(),
                window: Some(cumulative.window.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
