//! What names stand for while a rule is read from top to bottom, and what the query around them says of the call.

use std::collections::BTreeSet;

use super::super::shape::{Calls, Shape};

/// The names, the innermost last, and what holds where they stand.
pub(super) struct Scope<'a> {
    /// The place of the module.
    pub(super) module: usize,
    names: Vec<(&'a str, Shape)>,
    /// For each query that is being read, what it says of the call.
    around: Vec<Around>,
    /// Whether what is read now is true where the rule is not.
    pub(super) negated: bool,
    /// In how many comprehensions it stands: what is missing there makes a collection smaller, and nothing undefined.
    pub(super) collected: u32,
}

/// What a query says of the call.
#[derive(Clone)]
pub(super) struct Around {
    /// Which calls it is about.
    pub(super) calls: Calls,
    /// The input of those.
    pub(super) input: Shape,
    /// The places of the input that it looks at before it uses them.
    pub(super) guards: BTreeSet<String>,
}

/// How far a scope had come.
pub(super) struct Mark {
    names: usize,
    around: usize,
}

impl<'a> Scope<'a> {
    pub(super) fn new(module: usize, calls: Calls, input: Shape) -> Self {
        let around = vec![Around { calls, input, guards: BTreeSet::new() }];
        Self { module, names: Vec::new(), around, negated: false, collected: 0 }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { names: self.names.len(), around: self.around.len() }
    }

    /// Forgets everything since `mark`.
    pub(super) fn back(&mut self, mark: &Mark) {
        self.names.truncate(mark.names);
        self.around.truncate(mark.around);
    }

    pub(super) fn bind(&mut self, name: &'a str, shape: Shape) {
        if name != "_" {
            self.names.push((name, shape));
        }
    }

    /// What a local name stands for.
    pub(super) fn find(&self, name: &str) -> Option<&Shape> {
        self.names.iter().rev().find(|(known, _)| *known == name).map(|(_, shape)| shape)
    }

    /// What the query that is being read says, and those around it.
    pub(super) fn around(&self) -> Option<&Around> {
        self.around.last()
    }

    pub(super) fn enter(&mut self, around: Around) {
        self.around.push(around);
    }

    pub(super) fn input(&self) -> Shape {
        self.around().map_or(Shape::Any, |around| around.input.clone())
    }

    /// Whether the query looks whether what lies at `place` is there.
    pub(super) fn guards(&self, place: &str) -> bool {
        self.around().is_some_and(|around| around.guards.contains(place))
    }

    /// Whether it looks at that, or at what is never there without it.
    pub(super) fn knows(&self, place: &str) -> bool {
        let beside = |(parent, _)| self.guards(&format!("{parent}.*"));
        self.guards(place) || place.rsplit_once('.').is_some_and(beside)
    }
}
