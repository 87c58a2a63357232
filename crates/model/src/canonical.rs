//! One sequence of bytes for one value: JSON without white space, members sorted, strings escaped no more than they
//! must be (RFC 8785), whole numbers only. Written straight from typed data, and one [`Part`] of it on the way.

mod object;
pub(crate) mod text;

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use self::object::{Member, Members};
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

#[cfg(test)]
mod tests;
