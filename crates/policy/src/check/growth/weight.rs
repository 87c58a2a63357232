//! How heavy a value can be, told without knowing it: its bytes with everything in it written out as often as it is
//! there, and the loops over the input that repeat it.

use regorus::Value;

/// The most bytes that one value may have, as far as the text tells. The engine goes through a value in one step, and
/// this is what a step may cost.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The most bytes of a number that multiplying two gives: what that takes grows with their square.
pub(super) const MAX_NUMBER: u64 = 4 * 1024;
/// The same of all numbers of a collection, one after the other.
pub(super) const MAX_PRODUCT: u64 = 1024 * 1024;
/// How often what a loop over the input collected may be repeated by another.
pub(super) const MAX_LEVELS: u8 = 2;
/// A part of the input counts as all of it may have, in bytes.
const INPUT: u64 = 256 * 1024;
/// A collection in the input has at most so many members.
const INPUT_MEMBERS: u64 = INPUT / 8;
/// What is no larger than this is counted as often as a loop over the input could repeat it, in bytes.
const SMALL: u64 = 256;
/// A loop that is no longer than this counts for what it is, also around a part of the input.
const SHORT: u64 = 64;

/// What a value weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    /// Its bytes, for each round of the loops that count as levels.
    pub(super) bytes: u64,
    /// How many loops over the input repeat it.
    pub(super) levels: u8,
    /// Whether something of the input is in it.
    given: bool,
    /// How many members it has. What is given has as many as the call says.
    members: u64,
    /// The bytes of the largest number in it. Those of the input have 64 bits.
    pub(super) number: u64,
}

/// The loops around something that collect it, each as often as it goes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rounds {
    /// Loops over something of the input.
    inputs: u8,
    /// Rounds of the other ones, all together.
    known: u64,
}

impl Rounds {
    /// No loop.
    pub(super) const NONE: Self = Self { inputs: 0, known: 1 };

    /// These and a query's own loops over `sources`. Several loops over the input count as one: what each adds the
    /// engine takes a step for.
    pub(super) fn and(self, sources: &[Weight]) -> Self {
        let given = u8::from(sources.iter().any(|source| source.given));
        let members = sources.iter().filter(|source| !source.given).map(|source| source.members.max(1));
        Self { inputs: self.inputs.saturating_add(given), known: members.fold(self.known, u64::saturating_mul) }
    }

    /// These without the one that goes through `whole`.
    pub(super) fn without(self, whole: Weight) -> Self {
        Self { known: if whole.given { self.known } else { self.known / whole.members.max(1) }, ..self }
    }

    /// These without those of `outer`, which they lie in.
    pub(super) fn beyond(self, outer: Self) -> Self {
        Self { inputs: self.inputs.saturating_sub(outer.inputs), known: self.known / outer.known.max(1) }
    }
}

impl Weight {
    /// Nothing.
    pub(super) const NONE: Self = Self { bytes: 0, levels: 0, given: false, members: 0, number: 0 };
    /// A part of the input.
    pub(super) const INPUT: Self = Self { bytes: INPUT, levels: 0, given: true, members: 0, number: 8 };
    /// A number or a truth.
    pub(super) const SCALAR: Self = Self { bytes: 16, levels: 0, given: false, members: 1, number: 8 };

    /// A text of so many bytes.
    pub(super) const fn text(bytes: usize) -> Self {
        Self { bytes: bytes as u64 + 16, ..Self::SCALAR }
    }

    /// Numbers in a row, so many.
    pub(super) const fn numbers(count: u64) -> Self {
        Self { bytes: count.saturating_mul(16), members: count, ..Self::SCALAR }
    }

    /// A value that holds both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            levels: self.levels.max(other.levels),
            given: self.given || other.given,
            members: self.members.saturating_add(other.members),
            number: self.number.max(other.number),
        }
    }

    /// A value that is one of both.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            levels: self.levels.max(other.levels),
            given: self.given || other.given,
            members: self.members.max(other.members),
            number: self.number.max(other.number),
        }
    }

    /// The same, with so many members of its own.
    pub(super) const fn of_members(self, members: u64) -> Self {
        Self { members, ..self }
    }

    /// Something in it, which may have more members than it has itself.
    pub(super) fn part(self) -> Self {
        self.of_members((self.bytes / 8).max(self.members))
    }

    /// The same once for each of `rounds`.
    pub(super) fn repeated(mut self, rounds: Rounds) -> Self {
        for _ in 0..rounds.inputs {
            if !self.given && self.bytes <= SMALL {
                self.bytes *= INPUT_MEMBERS;
            } else {
                self.levels = self.levels.saturating_add(1);
            }
            self.given = true;
        }
        if self.given && rounds.known > SHORT {
            self.levels = self.levels.saturating_add(1);
        } else {
            self.bytes = self.bytes.saturating_mul(rounds.known);
        }
        self
    }

    /// The same, collected by loops of its own.
    pub(super) fn collected(self, own: Rounds) -> Self {
        Self { given: self.given || own.inputs > 0, members: own.known, ..self }
    }

    /// A number of so many bytes.
    pub(super) const fn number(bytes: u64) -> Self {
        Self { bytes: bytes.saturating_add(16), number: bytes, ..Self::SCALAR }
    }

    /// The bytes of the product of all numbers in it.
    pub(super) fn product(self) -> u64 {
        self.number.saturating_mul(if self.given { INPUT_MEMBERS } else { self.members })
    }

    /// So many times as much.
    pub(super) fn times(self, factor: usize) -> Self {
        Self { bytes: self.bytes.saturating_mul(factor as u64), ..self }
    }

    /// What a data document weighs, or, where a part of it is looked up by a name that only the call says, its largest
    /// part.
    pub(super) fn of_document(document: &Value, looked_up: bool) -> Self {
        let largest = match document {
            Value::Array(items) if looked_up => items.iter().map(size).max(),
            Value::Object(members) if looked_up => members.iter().map(|(_, value)| size(value)).max(),
            _ => None,
        };
        if let Some(bytes) = largest {
            return Self { bytes, levels: 0, given: false, members: bytes / 8, number: 8 };
        }
        let members = match document {
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 1,
        };
        Self { bytes: size(document), levels: 0, given: false, members: members as u64, number: 8 }
    }
}

/// The bytes of `value`. How deep a document may be is bounded where it is read.
fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64 + 16,
        Value::Array(items) => items.iter().map(size).sum::<u64>() + 16,
        Value::Object(members) => members.iter().map(|(name, value)| size(name) + size(value)).sum::<u64>() + 16,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Set(_) | Value::Undefined => 16,
    }
}
