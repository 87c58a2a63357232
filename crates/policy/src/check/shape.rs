//! What is known of a value before there is one: its kinds, its members, the texts it may be. What is not known is
//! [`Shape::Any`], about which nothing is ever said.

mod catalogue;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

pub(super) use self::catalogue::{Calls, Inputs};

/// The most parts of two values that are looked at to tell what either is: values are made of values, and some of the same
/// ones many times over.
const MAX_PARTS: u32 = 1_000;
/// The most names that one of several texts is known as: a set that ten thousand rules give a code each to is not worth
/// knowing all of them.
const MAX_NAMES: usize = 500;

/// What is known of a value.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// Nothing.
    Any,
    /// This.
    Known(Rc<Known>),
}

/// What a value may be.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) kinds: Kinds,
    /// Where in the input it is: `input.action.name`.
    pub(super) at: Option<String>,
    /// The members, where it is an object.
    pub(super) members: Members,
    /// What it holds, where it is an array or a set.
    pub(super) items: Shape,
    /// What it says, where it is a string.
    pub(super) text: Text,
}

/// The kinds of value that something may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

/// The members of an object.
#[derive(Debug, Clone)]
pub(super) enum Members {
    /// Nothing is known of them.
    Unknown,
    /// These, each of them there.
    Closed(BTreeMap<String, Shape>),
    /// Any names, each of which may be missing.
    Open(Shape),
}

/// What a string says.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// Anything.
    Free,
    /// One of these.
    OneOf(Names),
    /// A number; its order as text is another than its own.
    Number,
    /// A time; likewise.
    Time,
}

/// The names that a string may be.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What each is: an `action`.
    pub(super) what: &'static str,
    /// All of them.
    pub(super) all: Rc<BTreeSet<String>>,
}

impl Kinds {
    pub(super) const NONE: Self = Self(0);
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(1 << 1);
    pub(super) const NUMBER: Self = Self(1 << 2);
    pub(super) const STRING: Self = Self(1 << 3);
    pub(super) const ARRAY: Self = Self(1 << 4);
    pub(super) const OBJECT: Self = Self(1 << 5);
    pub(super) const SET: Self = Self(1 << 6);
    const NAMES: [(Self, &'static str); 7] = [
        (Self::STRING, "a string"),
        (Self::NUMBER, "a number"),
        (Self::BOOLEAN, "true or false"),
        (Self::ARRAY, "an array"),
        (Self::SET, "a set"),
        (Self::OBJECT, "an object"),
        (Self::NULL, "null"),
    ];

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// In words: `a string or null`.
    pub(super) fn words(self) -> String {
        let words: Vec<&str> =
            Self::NAMES.into_iter().filter(|(kind, _)| self.meets(*kind)).map(|(_, word)| word).collect();
        words.join(" or ")
    }
}

impl Shape {
    /// A value of these kinds and nothing else known.
    pub(super) fn of(kinds: Kinds) -> Self {
        Self::from(Known { kinds, at: None, members: Members::Unknown, items: Self::Any, text: Text::Free })
    }

    /// An array of `items`.
    pub(super) fn array(items: Self) -> Self {
        Self::from(Known { kinds: Kinds::ARRAY, at: None, members: Members::Unknown, items, text: Text::Free })
    }

    /// A set of `items`.
    pub(super) fn set(items: Self) -> Self {
        Self::from(Known { kinds: Kinds::SET, at: None, members: Members::Unknown, items, text: Text::Free })
    }

    /// An object of exactly these members.
    pub(super) fn object(members: BTreeMap<String, Self>) -> Self {
        let members = Members::Closed(members);
        Self::from(Known { kinds: Kinds::OBJECT, at: None, members, items: Self::Any, text: Text::Free })
    }

    /// A string of this meaning.
    pub(super) fn text(text: Text) -> Self {
        Self::from(Known { kinds: Kinds::STRING, at: None, members: Members::Unknown, items: Self::Any, text })
    }

    pub(super) fn known(&self) -> Option<&Known> {
        match self {
            Self::Any => None,
            Self::Known(known) => Some(known),
        }
    }

    /// The kinds, where they are known.
    pub(super) fn kinds(&self) -> Option<Kinds> {
        self.known().map(|known| known.kinds)
    }

    /// Where in the input it is.
    pub(super) fn at(&self) -> Option<&str> {
        self.known()?.at.as_deref()
    }

    /// Whether it may be null and something else as well.
    pub(super) fn is_nullable(&self) -> bool {
        self.kinds().is_some_and(|kinds| kinds.meets(Kinds::NULL) && kinds != Kinds::NULL)
    }

    /// The same, which may be null.
    pub(super) fn or_null(self) -> Self {
        self.changed(|known| known.kinds = known.kinds.or(Kinds::NULL))
    }

    /// What one of two values is.
    pub(super) fn or(self, other: Self) -> Self {
        self.or_within(other, &mut { MAX_PARTS })
    }

    /// The same; where more than `left` parts would have to be looked at, nothing is known.
    fn or_within(self, other: Self, left: &mut u32) -> Self {
        let (Self::Known(one), Self::Known(two)) = (&self, &other) else { return Self::Any };
        if Rc::ptr_eq(one, two) {
            return other;
        }
        if *left == 0 {
            return Self::Any;
        }
        *left -= 1;
        let only = |kind: Kinds| match (one.kinds.meets(kind), two.kinds.meets(kind)) {
            (true, false) => Some(one),
            (false, true) => Some(two),
            _ => None,
        };
        let members = match only(Kinds::OBJECT) {
            Some(object) => object.members.clone(),
            None => one.members.or(&two.members, left),
        };
        let items = match only(Kinds::ARRAY.or(Kinds::SET)) {
            Some(list) => list.items.clone(),
            None => one.items.clone().or_within(two.items.clone(), left),
        };
        let text = match only(Kinds::STRING) {
            Some(string) => string.text.clone(),
            None => one.text.or(&two.text),
        };
        let at = one.at.clone().filter(|at| two.at.as_ref() == Some(at));
        Self::from(Known { kinds: one.kinds.or(two.kinds), at, members, items, text })
    }

    /// The same with members put in the place of those it has.
    pub(super) fn with(self, replaced: Vec<(&str, Self)>) -> Self {
        self.changed(|known| {
            if let Members::Closed(members) = &mut known.members {
                members.extend(replaced.into_iter().map(|(name, shape)| (name.to_owned(), shape)));
            }
        })
    }

    /// The same as what lies at `at` in the input, with all that it holds.
    pub(super) fn placed(self, at: &str) -> Self {
        let Self::Known(known) = self else { return Self::Any };
        let below = |name: &str| {
            if is_name(name) { format!("{at}.{name}") } else { format!("{at}[\"{name}\"]") }
        };
        let members = match &known.members {
            Members::Unknown => Members::Unknown,
            Members::Closed(members) => Members::Closed(
                members.iter().map(|(name, shape)| (name.clone(), shape.clone().placed(&below(name)))).collect(),
            ),
            // Each is placed by the name it is looked up with.
            Members::Open(each) => Members::Open(each.clone()),
        };
        let items = known.items.clone().placed(&format!("{at}[_]"));
        Self::from(Known { at: Some(at.to_owned()), members, items, ..(*known).clone() })
    }

    fn changed(self, change: impl FnOnce(&mut Known)) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Known(mut known) => {
                change(Rc::make_mut(&mut known));
                Self::Known(known)
            }
        }
    }
}

impl From<Known> for Shape {
    fn from(known: Known) -> Self {
        Self::Known(Rc::new(known))
    }
}

impl Members {
    fn or(&self, other: &Self, left: &mut u32) -> Self {
        match (self, other) {
            (Self::Closed(one), Self::Closed(two)) if one.keys().eq(two.keys()) => {
                let both = one.iter().zip(two.values());
                Self::Closed(
                    both.map(|((name, one), two)| (name.clone(), one.clone().or_within(two.clone(), left))).collect(),
                )
            }
            (Self::Open(one), Self::Open(two)) => Self::Open(one.clone().or_within(two.clone(), left)),
            _ => Self::Unknown,
        }
    }
}

impl Text {
    fn or(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::OneOf(one), Self::OneOf(two)) if one.what == two.what => one.or(two).map_or(Self::Free, Self::OneOf),
            (Self::Number, Self::Number) => Self::Number,
            (Self::Time, Self::Time) => Self::Time,
            _ => Self::Free,
        }
    }
}

impl Names {
    /// The names of both, unless they are too many.
    fn or(&self, other: &Self) -> Option<Self> {
        if self.all.is_superset(&other.all) {
            return Some(self.clone());
        }
        if self.all.len() + other.all.len() > MAX_NAMES {
            return None;
        }
        let all = self.all.union(&other.all).cloned().collect();
        Some(Self { what: self.what, all: Rc::new(all) })
    }
}

/// Whether a member of that name may be written behind a dot.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
