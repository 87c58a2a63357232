//! How heavy a value can be, told without knowing it: copies of what it is made from, and loops that repeat it.

use regorus::Value;

/// The most copies of its parts that one value may hold. A part of the input is at most 256 KiB, so that no step of the
/// engine makes or looks through more than some dozen MiB without loops.
pub(super) const MAX_COPIES: u32 = 256;
/// How often what a loop collected may be collected by another whole.
pub(super) const MAX_LEVELS: u8 = 2;
/// A document of this size counts as one copy, in bytes.
const UNIT: usize = 256 * 1024;

/// What a value weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    /// How many loops repeat a part of it that does not depend on them.
    pub(super) levels: u8,
    /// How many copies of something that came from outside it holds, for each round of those loops.
    pub(super) copies: u32,
}

impl Weight {
    /// Nothing.
    pub(super) const NONE: Self = Self { levels: 0, copies: 0 };
    /// A part of the input.
    pub(super) const ONE: Self = Self { levels: 0, copies: 1 };

    /// What is written out, or a number or a truth, in so many loops.
    pub(super) const fn constant(level: u8) -> Self {
        Self { levels: level, copies: 1 }
    }

    /// A value that holds both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { levels: self.levels.max(other.levels), copies: self.copies.saturating_add(other.copies) }
    }

    /// A value that is one of both.
    pub(super) fn or(self, other: Self) -> Self {
        Self { levels: self.levels.max(other.levels), copies: self.copies.max(other.copies) }
    }

    /// The same, repeated by so many loops more.
    pub(super) const fn raised(self, loops: u8) -> Self {
        Self { levels: self.levels.saturating_add(loops), ..self }
    }

    /// So many times as much.
    pub(super) fn times(self, factor: usize) -> Self {
        let factor = u32::try_from(factor).unwrap_or(u32::MAX);
        Self { copies: self.copies.saturating_mul(factor), ..self }
    }

    /// What a data document weighs.
    pub(super) fn of_document(document: &Value) -> Self {
        Self::ONE.times((size(document) / UNIT).max(1))
    }
}

/// The bytes of text in `value`, anything else counted as eight. A document's depth is bounded where it is read.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Value::Object(members) => members.iter().map(|(name, value)| size(name) + size(value)).sum::<usize>() + 8,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Set(_) | Value::Undefined => 8,
    }
}
