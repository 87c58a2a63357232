//! An object of a canonical text in the making: its members one behind the other as they come, sorted once all are there.

use std::cmp::Ordering;

use serde::{Serialize, ser};

use super::{Form, Tap, Unwritable, Writer, Written, refused, text};
use crate::Part;

/// How many members are open at once in most documents.
const DEEP: usize = 64;

/// A member that was written: `,"name":value` from here on, with the name up to there, its quotes included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    start: usize,
    named: usize,
    /// Where its value ends, known once the object is.
    end: usize,
    /// Whether the name is written as it is.
    plain: bool,
}

impl Member {
    /// The name as it stands in `out`, without its quotes.
    fn name(self, out: &[u8]) -> &[u8] {
        out.get(self.start + 2..self.named.saturating_sub(1)).unwrap_or_default()
    }

    fn order(self, other: Self, form: Form, out: &[u8]) -> Ordering {
        let (one, two) = (self.name(out), other.name(out));
        if self.plain && other.plain {
            return match (one.first(), two.first()) {
                (Some(one), Some(two)) if one != two => one.cmp(two),
                _ => one.cmp(two),
            };
        }
        let (one, two) = (text::read(one), text::read(two));
        match form {
            Form::Exact => one.encode_utf16().cmp(two.encode_utf16()),
            Form::Wide => one.cmp(&two),
        }
    }
}

/// An object in the making: its members one behind the other, sorted at the end if they did not come so.
pub(super) struct Members<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) members: &'a mut Vec<Member>,
    pub(super) form: Form,
    pub(super) tap: Option<Tap<'a>>,
    pub(super) start: usize,
    /// Which of `members` is the first of this object.
    pub(super) first: usize,
    pub(super) sorted: bool,
    /// A member whose value is still to come.
    pub(super) named: Option<Member>,
}

impl<'a> Members<'a> {
    pub(super) fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        let member = self.begin_field(name)?;
        let part = self.tap.as_ref().and_then(|tap| tap.part.member(name));
        self.write(member, part, value)
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        let Some(member) = self.named.take() else { return refused("a value without a name") };
        let part = self.tap.as_ref().and_then(|tap| tap.part.member(&text::read(member.name(self.out))));
        self.write(member, part, value)
    }

    /// The name of a structure's field, which is text already and mostly plain.
    fn begin_field(&mut self, name: &str) -> Result<Member, Unwritable> {
        if !text::is_plain(name.as_bytes()) {
            return self.begin(name);
        }
        let start = self.out.len();
        self.out.reserve(name.len() + 4);
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        Ok(self.begun(Member { start, named: self.out.len() - 1, end: 0, plain: true }))
    }

    fn begin<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<Member, Unwritable> {
        let start = self.out.len();
        self.out.push(b',');
        name.serialize(Writer { out: self.out, members: self.members, form: self.form, tap: None })?;
        let mut member = Member { start, named: self.out.len(), end: 0, plain: false };
        // Of all there is only text is written with a quote before it.
        if self.out.get(start + 1) != Some(&b'"') {
            return refused("a member name that is not text");
        }
        member.plain = text::is_plain(member.name(self.out));
        self.out.push(b':');
        Ok(self.begun(member))
    }

    fn begun(&mut self, member: Member) -> Member {
        if self.sorted
            && let Some(last) = self.members.get(self.first..).and_then(<[Member]>::last)
        {
            self.sorted = last.order(member, self.form, self.out) == Ordering::Less;
        }
        if self.members.is_empty() {
            self.members.reserve(DEEP);
        }
        self.members.push(member);
        member
    }

    fn write<T: Serialize + ?Sized>(&mut self, member: Member, part: Option<&'a Part>, value: &T) -> Written {
        let at = self.out.len();
        let (Some(part), Some(tap)) = (part, &mut self.tap) else {
            return value.serialize(Writer { out: self.out, members: self.members, form: self.form, tap: None });
        };
        tap.out.extend_from_slice(self.out.get(member.start..at).unwrap_or_default());
        if part.is_whole() {
            value.serialize(Writer { out: self.out, members: self.members, form: self.form, tap: None })?;
            tap.out.extend_from_slice(self.out.get(at..).unwrap_or_default());
            return Ok(());
        }
        let tap = Some(Tap { part, out: tap.out });
        value.serialize(Writer { out: self.out, members: self.members, form: self.form, tap })
    }

    pub(super) fn close(mut self) -> Written {
        if !self.sorted {
            self.sort()?;
        }
        self.members.truncate(self.first);
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
        if let Some(tap) = self.tap {
            tap.out.push(b'}');
        }
        Ok(())
    }

    fn sort(&mut self) -> Written {
        let from = self.out.len();
        let own = self.members.get_mut(self.first..).unwrap_or_default();
        let mut end = from;
        for member in own.iter_mut().rev() {
            member.end = std::mem::replace(&mut end, member.start);
        }
        let (form, out) = (self.form, &*self.out);
        own.sort_unstable_by(|one, other| one.order(*other, form, out));
        if own.windows(2).any(|pair| matches!(pair, [one, other] if one.name(out) == other.name(out))) {
            return refused("two members of one name");
        }
        // Once more in their order, and then back to where they began.
        for member in own {
            self.out.extend_from_within(member.start..member.end);
        }
        self.out.copy_within(from.., self.start);
        self.out.truncate(from);
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Written {
        self.named = Some(self.begin(name)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.value(value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.member(name, value)
    }

    fn end(self) -> Written {
        self.close()
    }
}
