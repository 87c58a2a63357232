//! One sequence of bytes for one value: JSON without white space, members sorted, strings escaped no more than they
//! must be (RFC 8785), whole numbers only. Written straight from typed data, and one [`Part`] of it on the way.

pub(crate) mod text;

use std::cmp::Ordering;

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use crate::{Part, amount::MAX_SAFE_INTEGER};

/// What a document may hold, and how its members are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RFC 8785: members by the UTF-16 units of their names, integers within ±(2^53 - 1), which every reader takes
    /// exactly.
    Exact,
    /// Members by the bytes of their names, integers of 64 bits: what is only ever compared with its like.
    Wide,
}

/// A value that has no such form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// A number that would be rounded by somebody.
    #[error("the number {0} cannot be written exactly")]
    Number(String),
    /// Not the data that documents are made of.
    #[error("not serialisable: {0}")]
    Shape(String),
}

impl ser::Error for Unwritable {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }
}

/// Writes `value` to the end of `out`.
///
/// # Errors
/// Where it has a number that `form` cannot hold, or something that is no JSON. `out` is not to be used then.
pub fn write(value: &(impl Serialize + ?Sized), form: Form, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    value.serialize(Writer { out, members: &mut Vec::new(), form, tap: None })
}

/// Writes `value` to the end of `out`, and what tells its `part` from any other value's to the end of `taken`: the
/// part's own text, its members in the order they came in, which is the same for values of one type.
///
/// # Errors
/// As [`write()`].
pub fn write_taking(
    value: &(impl Serialize + ?Sized),
    form: Form,
    out: &mut Vec<u8>,
    part: &Part,
    taken: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    if part.is_whole() {
        let start = out.len();
        write(value, form, out)?;
        taken.extend_from_slice(out.get(start..).unwrap_or_default());
        return Ok(());
    }
    value.serialize(Writer { out, members: &mut Vec::new(), form, tap: Some(Tap { part, out: taken }) })
}

/// How many members are open at once in most documents.
const DEEP: usize = 64;

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Of all objects that are open, the members so far.
    members: &'a mut Vec<Member>,
    form: Form,
    tap: Option<Tap<'a>>,
}

/// Where a part that is not all of the value goes too.
struct Tap<'a> {
    part: &'a Part,
    out: &'a mut Vec<u8>,
}

type Written = Result<(), Unwritable>;

fn refused<T>(what: &str) -> Result<T, Unwritable> {
    Err(Unwritable::Shape(what.to_owned()))
}

fn number(out: &mut Vec<u8>, value: i64) -> Written {
    serde_json::to_writer(out, &value).map_err(|error| Unwritable::Shape(error.to_string()))
}

impl Form {
    const fn largest(self) -> u64 {
        match self {
            Self::Exact => MAX_SAFE_INTEGER.unsigned_abs(),
            Self::Wide => i64::MIN.unsigned_abs(),
        }
    }
}

impl<'a> Writer<'a> {
    fn literal(self, text: &str) -> Written {
        self.leaf(|out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
    }

    /// What has no members is taken as it is, whatever was looked for in it.
    fn leaf(self, write: impl FnOnce(&mut Vec<u8>) -> Written) -> Written {
        let start = self.out.len();
        write(self.out)?;
        if let Some(tap) = self.tap {
            tap.out.extend_from_slice(self.out.get(start..).unwrap_or_default());
        }
        Ok(())
    }

    fn object(self) -> Members<'a> {
        let Self { out, members, form, mut tap } = self;
        if let Some(tap) = &mut tap {
            tap.out.push(b'{');
        }
        let (start, first) = (out.len(), members.len());
        Members { out, members, form, tap, start, first, sorted: true, named: None }
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Impossible<(), Unwritable>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), Unwritable>;

    fn serialize_bool(self, value: bool) -> Written {
        self.literal(if value { "true" } else { "false" })
    }
    fn serialize_i8(self, value: i8) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Written {
        if value.unsigned_abs() > self.form.largest() {
            return Err(Unwritable::Number(value.to_string()));
        }
        self.leaf(|out| number(out, value))
    }
    fn serialize_u8(self, value: u8) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_u16(self, value: u16) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Written {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => Err(Unwritable::Number(value.to_string())),
        }
    }
    fn serialize_f32(self, value: f32) -> Written {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> Written {
        Err(Unwritable::Number(value.to_string()))
    }
    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Written {
        self.leaf(|out| text::write(out, value))
    }
    fn serialize_bytes(self, _: &[u8]) -> Written {
        refused("bytes")
    }
    fn serialize_none(self) -> Written {
        self.literal("null")
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Written {
        self.literal("null")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.literal("null")
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Written {
        self.serialize_str(name)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Written {
        let mut object = self.object();
        object.member(name, value)?;
        object.close()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Unwritable> {
        let start = self.out.len();
        self.out.push(b'[');
        let Self { out, members, form, tap } = self;
        Ok(Items { out, members, form, tap, start, first: true })
    }
    fn serialize_tuple(self, length: usize) -> Result<Items<'a>, Unwritable> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items<'a>, Unwritable> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unwritable> {
        refused("a tuple with a name")
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Unwritable> {
        Ok(self.object())
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unwritable> {
        Ok(self.object())
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unwritable> {
        refused("a structure with a name")
    }
}

/// An array in the making.
struct Items<'a> {
    out: &'a mut Vec<u8>,
    members: &'a mut Vec<Member>,
    form: Form,
    tap: Option<Tap<'a>>,
    start: usize,
    first: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        value.serialize(Writer { out: self.out, members: self.members, form: self.form, tap: None })
    }

    fn close(self) -> Written {
        self.out.push(b']');
        if let Some(tap) = self.tap {
            tap.out.extend_from_slice(self.out.get(self.start..).unwrap_or_default());
        }
        Ok(())
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.item(value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.item(value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.item(value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

/// A member that was written: `,"name":value` from here on, with the name up to there, its quotes included.
#[derive(Debug, Clone, Copy)]
struct Member {
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
struct Members<'a> {
    out: &'a mut Vec<u8>,
    members: &'a mut Vec<Member>,
    form: Form,
    tap: Option<Tap<'a>>,
    start: usize,
    /// Which of `members` is the first of this object.
    first: usize,
    sorted: bool,
    /// A member whose value is still to come.
    named: Option<Member>,
}

impl<'a> Members<'a> {
    fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
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

    fn close(mut self) -> Written {
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

#[cfg(test)]
mod tests;
