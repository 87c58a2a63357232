//! JSON as it streams by, with the values at given places made `null` and every other byte as it came. It is read by the
//! grammar of RFC 8259 and no wider, so that no reader can find a value at a place where this one saw none; what does not
//! keep to it ends the stream. Nothing of a value is held, and of a name no more than the longest that is looked for.

mod text;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::obligation::{MAX_POINTERS, Pointer, Segment};

use self::text::{Read, Text};
use super::events::MAX_FIELD;

/// How deep a document may be nested.
const MAX_DEPTH: usize = 256;

/// What stands where a value was.
const NOTHING: &[u8] = b"null";

/// Why a body cannot be redacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it is not JSON")]
    NotJson,
    #[error("it is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("it ends in the middle of a value")]
    Unfinished,
    #[error("an event's name or id is longer than {MAX_FIELD} bytes")]
    LongField,
}

/// The places that are looked for. A set of them is the bits of a number.
#[derive(Debug)]
pub(crate) struct Places {
    places: Vec<Place>,
    longest: usize,
}

#[derive(Debug)]
struct Place {
    pointer: Pointer,
    /// For each step the index that it names, where it is a number as an index is written.
    indices: Vec<Option<u64>>,
}

impl Places {
    /// At most [`MAX_POINTERS`] of `pointers`; none of a decision has more.
    pub(crate) fn new<'a>(pointers: impl IntoIterator<Item = &'a Pointer>) -> Self {
        let mut places: Vec<Place> = Vec::new();
        for pointer in pointers {
            if places.len() < MAX_POINTERS && !places.iter().any(|place| place.pointer == *pointer) {
                let indices = pointer.segments().iter().map(index).collect();
                places.push(Place { pointer: pointer.clone(), indices });
            }
        }
        let steps = places.iter().flat_map(|place| place.pointer.segments());
        let longest = steps.map(|step| if let Segment::Name(name) = step { name.len() } else { 0 }).max();
        Self { longest: longest.unwrap_or_default(), places }
    }

    fn all(&self) -> u64 {
        self.places.iter().enumerate().fold(0, |all, (bit, _)| all | 1 << bit)
    }

    /// Of the places `among`, those that go through the member or item `step` at `depth`, and those that end there.
    fn through(&self, among: u64, depth: usize, step: Step<'_>) -> (u64, u64) {
        let (mut on, mut here) = (0, 0);
        if among == 0 {
            return (on, here);
        }
        for (bit, place) in self.places.iter().enumerate().filter(|(bit, _)| among & (1 << bit) != 0) {
            let segments = place.pointer.segments();
            let is = match (segments.get(depth), step) {
                (None, _) => false,
                (Some(Segment::Every), _) => true,
                (Some(Segment::Name(name)), Step::Member(found)) => found == Some(name.as_bytes()),
                (Some(Segment::Name(_)), Step::Item(at)) => place.indices.get(depth) == Some(&Some(at)),
            };
            match is {
                true if segments.len() == depth + 1 => here |= 1 << bit,
                true => on |= 1 << bit,
                false => {}
            }
        }
        (on, here)
    }
}

/// The index that a step names (RFC 6901 §4): no sign, and no zero before another digit.
fn index(step: &Segment) -> Option<u64> {
    let Segment::Name(name) = step else { return None };
    let written = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    written.then(|| name.parse().ok()).flatten()
}

/// What leads to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// A member's name; `None` where it is longer than any that is looked for.
    Member(Option<&'a [u8]>),
    Item(u64),
}

/// A document that is under way.
pub(crate) struct Redactor {
    places: Arc<Places>,
    state: State,
    levels: Vec<Level>,
    text: Text,
    /// The places that go on in the value that comes next, and those that are that value.
    next: (u64, u64),
    /// How many levels there were where the value began that is hidden now.
    hidden_at: Option<usize>,
    found: Vec<u64>,
    hidden: u64,
}

/// An array or an object that is open.
struct Level {
    is_array: bool,
    /// The places that lead in here.
    among: u64,
    /// How many items came before.
    items: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but space so far.
    Start,
    Value,
    FirstItem,
    FirstName,
    Name,
    Colon,
    /// A value has ended.
    After,
    InName,
    InText,
    /// What is left of `true`, `false` or `null`.
    Word(&'static [u8]),
    Number(Digits),
}

/// How far a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// What a byte comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing else.
    On,
    /// A value to be hidden begins with it.
    Hide,
    /// One ends with it.
    Shown,
    /// A number ended before it: it is looked at again.
    Again,
    /// The same, of one that was hidden.
    ShownAgain,
}

impl Redactor {
    pub(crate) fn new(places: Arc<Places>) -> Self {
        let (text, found) = (Text::new(places.longest), vec![0; places.places.len()]);
        let next = (places.all(), 0);
        Self { places, state: State::Start, levels: Vec::new(), text, next, hidden_at: None, found, hidden: 0 }
    }

    /// What of `chunk` the agent may see. The same bytes, where all of it.
    ///
    /// # Errors
    /// Where it does not go on as JSON: nothing more may be shown.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Result<Bytes, Unreadable> {
        let mut shown: Option<BytesMut> = self.hidden_at.is_some().then(BytesMut::new);
        let (mut from, mut at) = (0, 0);
        while let Some(byte) = chunk.get(at) {
            match self.step(*byte)? {
                Next::On => at += 1,
                Next::Again => {}
                Next::Hide => {
                    let shown = shown.get_or_insert_with(|| BytesMut::with_capacity(chunk.len()));
                    shown.extend_from_slice(chunk.get(from..at).unwrap_or_default());
                    shown.extend_from_slice(NOTHING);
                    at += 1;
                }
                Next::Shown => {
                    at += 1;
                    from = at;
                }
                Next::ShownAgain => from = at,
            }
        }
        let Some(mut shown) = shown else { return Ok(chunk) };
        if self.hidden_at.is_none() {
            shown.extend_from_slice(chunk.get(from..).unwrap_or_default());
        }
        Ok(shown.freeze())
    }

    /// Whether the document may end here. Nothing at all is nothing to hide.
    pub(crate) fn finish(&self) -> Result<(), Unreadable> {
        let whole = match self.state {
            State::Start | State::After => true,
            State::Number(digits) => digits.may_end(),
            _ => false,
        };
        if whole && self.levels.is_empty() { Ok(()) } else { Err(Unreadable::Unfinished) }
    }

    /// Another document begins. What was found in those before still counts.
    pub(crate) fn begin_again(&mut self) {
        self.levels.clear();
        (self.state, self.next, self.hidden_at) = (State::Start, (self.places.all(), 0), None);
    }

    /// How many values were hidden.
    pub(crate) const fn hidden(&self) -> u64 {
        self.hidden
    }

    /// The places that something was found at, with how often.
    pub(crate) fn found(&self) -> impl Iterator<Item = (&Pointer, u64)> {
        let found = self.places.places.iter().zip(&self.found);
        found.filter(|(_, count)| **count > 0).map(|(place, count)| (&place.pointer, *count))
    }

    fn step(&mut self, byte: u8) -> Result<Next, Unreadable> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::InText | State::InName => return self.within_text(byte),
            State::Word(rest) => return self.within_word(byte, rest),
            State::Number(digits) => return self.within_number(byte, digits),
            _ if is_space => return Ok(Next::On),
            State::Start | State::Value => return self.begin(byte),
            State::FirstItem if byte == b']' => return self.close(true),
            State::FirstItem => return self.begin(byte),
            State::FirstName if byte == b'}' => return self.close(false),
            State::FirstName | State::Name if byte == b'"' => {
                self.state = State::InName;
                // What leads nowhere is not compared.
                self.text.begin(self.levels.last().is_some_and(|level| level.among != 0));
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::After => return self.after(byte),
            State::FirstName | State::Name | State::Colon => return Err(Unreadable::NotJson),
        }
        Ok(Next::On)
    }

    /// The first byte of a value.
    fn begin(&mut self, byte: u8) -> Result<Next, Unreadable> {
        if let Some(level) = self.levels.last_mut().filter(|level| level.is_array) {
            let at = level.items;
            level.items += 1;
            let among = level.among;
            self.next = self.places.through(among, self.levels.len() - 1, Step::Item(at));
        }
        let (on, here) = self.next;
        let hides = here != 0 && self.hidden_at.is_none();
        if hides {
            self.hidden_at = Some(self.levels.len());
            self.hidden += 1;
            for (bit, found) in self.found.iter_mut().enumerate() {
                *found += u64::from(here & (1 << bit) != 0);
            }
        }
        self.state = match byte {
            b'{' => self.open(false, on)?,
            b'[' => self.open(true, on)?,
            b'"' => {
                self.text.begin(false);
                State::InText
            }
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Digits::Minus),
            b'0' => State::Number(Digits::Zero),
            b'1'..=b'9' => State::Number(Digits::Whole),
            _ => return Err(Unreadable::NotJson),
        };
        Ok(if hides { Next::Hide } else { Next::On })
    }

    fn open(&mut self, is_array: bool, on: u64) -> Result<State, Unreadable> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Unreadable::TooDeep);
        }
        let among = if self.hidden_at.is_some() { 0 } else { on };
        self.levels.push(Level { is_array, among, items: 0 });
        Ok(if is_array { State::FirstItem } else { State::FirstName })
    }

    fn close(&mut self, is_array: bool) -> Result<Next, Unreadable> {
        match self.levels.pop() {
            Some(level) if level.is_array == is_array => Ok(self.ended()),
            _ => Err(Unreadable::NotJson),
        }
    }

    /// A value ended with the byte that is looked at.
    fn ended(&mut self) -> Next {
        self.state = State::After;
        if self.hidden_at == Some(self.levels.len()) {
            self.hidden_at = None;
            Next::Shown
        } else {
            Next::On
        }
    }

    fn after(&mut self, byte: u8) -> Result<Next, Unreadable> {
        let Some(level) = self.levels.last() else { return Err(Unreadable::NotJson) };
        match (byte, level.is_array) {
            (b',', true) => self.state = State::Value,
            (b',', false) => self.state = State::Name,
            (b']', _) => return self.close(true),
            (b'}', _) => return self.close(false),
            _ => return Err(Unreadable::NotJson),
        }
        Ok(Next::On)
    }

    fn within_text(&mut self, byte: u8) -> Result<Next, Unreadable> {
        match self.text.take(byte) {
            Read::On => Ok(Next::On),
            Read::Wrong => Err(Unreadable::NotJson),
            Read::End if self.state == State::InText => Ok(self.ended()),
            Read::End => {
                let among = self.levels.last().map_or(0, |level| level.among);
                let depth = self.levels.len().saturating_sub(1);
                self.next = self.places.through(among, depth, Step::Member(self.text.read()));
                self.state = State::Colon;
                Ok(Next::On)
            }
        }
    }

    fn within_word(&mut self, byte: u8, rest: &'static [u8]) -> Result<Next, Unreadable> {
        match rest.split_first() {
            Some((wanted, [])) if *wanted == byte => Ok(self.ended()),
            Some((wanted, rest)) if *wanted == byte => {
                self.state = State::Word(rest);
                Ok(Next::On)
            }
            _ => Err(Unreadable::NotJson),
        }
    }

    fn within_number(&mut self, byte: u8, digits: Digits) -> Result<Next, Unreadable> {
        if let Some(next) = digits.and(byte) {
            self.state = State::Number(next);
            return Ok(Next::On);
        }
        if !digits.may_end() {
            return Err(Unreadable::NotJson);
        }
        Ok(if self.ended() == Next::Shown { Next::ShownAgain } else { Next::Again })
    }
}

impl Digits {
    const fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }

    /// The number with `byte` too; `None` where that is no part of it.
    const fn and(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
