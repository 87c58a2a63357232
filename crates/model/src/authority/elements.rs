//! Elements that are shared: most hops of a chain hold what the one before held, and most tokens of a task what the
//! last one allowed. It is kept once.

use std::{
    borrow::Cow,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Element;

/// The elements of an authority. A copy costs nothing; a change to one leaves the others as they were.
#[derive(Clone, Default)]
pub struct Elements(Arc<Vec<Element>>);

impl Elements {
    /// Whether both are one and the same in memory, and so surely equal.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether each of these lies within one of `wider`.
    pub(super) fn within(&self, wider: &Self) -> bool {
        self.is_shared_with(wider) || self.iter().all(|element| wider.iter().any(|wide| element.within(wide)))
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl Eq for Elements {}

impl Deref for Elements {
    type Target = Vec<Element>;

    fn deref(&self) -> &Vec<Element> {
        &self.0
    }
}

impl DerefMut for Elements {
    fn deref_mut(&mut self) -> &mut Vec<Element> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Vec<Element>> for Elements {
    fn from(elements: Vec<Element>) -> Self {
        Self(Arc::new(elements))
    }
}

impl FromIterator<Element> for Elements {
    fn from_iter<T: IntoIterator<Item = Element>>(elements: T) -> Self {
        Vec::from_iter(elements).into()
    }
}

impl<'a> IntoIterator for &'a Elements {
    type Item = &'a Element;
    type IntoIter = std::slice::Iter<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Elements {
    type Item = &'a mut Element;
    type IntoIter = std::slice::IterMut<'a, Element>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl fmt::Debug for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Elements {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

impl JsonSchema for Elements {
    fn schema_name() -> Cow<'static, str> {
        Vec::<Element>::schema_name()
    }

    fn inline_schema() -> bool {
        Vec::<Element>::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Element>::json_schema(generator)
    }
}
