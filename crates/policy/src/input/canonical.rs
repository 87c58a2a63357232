//! Typed data as its one sequence of bytes: JSON without white space, members sorted by the bytes of their names,
//! whole numbers only; and of the parts alone that somebody reads. Nothing that two writers could write apart.

use std::{borrow::Cow, ops::Range};

use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use super::{InvalidInput, engine_value};
use crate::reads::Reads;

/// Writes the part `wanted` of a value to the end of `out`.
pub(super) struct ToCanonical<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) wanted: &'a Reads,
}

type Unit = Result<(), InvalidInput>;

fn refused<T>(what: &str) -> Result<T, InvalidInput> {
    Err(InvalidInput(what.to_owned()))
}

impl ToCanonical<'_> {
    fn literal(self, text: &str) -> Unit {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn text(out: &mut Vec<u8>, text: &str) -> Unit {
        serde_json::to_writer(out, text).map_err(|error| InvalidInput(error.to_string()))
    }
}

impl<'a> Serializer for ToCanonical<'a> {
    type Ok = ();
    type Error = InvalidInput;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Impossible<(), InvalidInput>;
    type SerializeTupleVariant = Impossible<(), InvalidInput>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<(), InvalidInput>;

    fn serialize_bool(self, value: bool) -> Unit {
        self.literal(if value { "true" } else { "false" })
    }
    fn serialize_i8(self, value: i8) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Unit {
        self.literal(&value.to_string())
    }
    fn serialize_u8(self, value: u8) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_u16(self, value: u16) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Unit {
        self.serialize_i64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Unit {
        i64::try_from(value).map_or_else(|_| refused("a number beyond 64 bits"), |value| self.serialize_i64(value))
    }
    fn serialize_f32(self, _: f32) -> Unit {
        refused("a floating-point number")
    }
    fn serialize_f64(self, _: f64) -> Unit {
        refused("a floating-point number")
    }
    fn serialize_char(self, value: char) -> Unit {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Unit {
        Self::text(self.out, value)
    }
    fn serialize_bytes(self, _: &[u8]) -> Unit {
        refused("bytes")
    }
    fn serialize_none(self) -> Unit {
        self.literal("null")
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Unit {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Unit {
        self.literal("null")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Unit {
        self.literal("null")
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Unit {
        self.serialize_str(name)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Unit {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Unit {
        refused("a tagged value")
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, InvalidInput> {
        self.out.push(b'[');
        Ok(Items { out: self.out, first: true })
    }
    fn serialize_tuple(self, length: usize) -> Result<Items<'a>, InvalidInput> {
        self.serialize_seq(Some(length))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, InvalidInput> {
        refused("a tuple")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, InvalidInput> {
        refused("a tagged value")
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Members<'a>, InvalidInput> {
        let start = self.out.len();
        let written = Vec::with_capacity(length.unwrap_or_default());
        Ok(Members { out: self.out, wanted: self.wanted, start, written, sorted: true, name: None })
    }
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Members<'a>, InvalidInput> {
        self.serialize_map(Some(length))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, InvalidInput> {
        refused("a tagged value")
    }
}

/// An array in the making. Its items are not told apart: an array is read whole or not at all.
pub(super) struct Items<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = InvalidInput;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Unit {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        value.serialize(ToCanonical { out: self.out, wanted: &crate::reads::WHOLE })
    }

    fn end(self) -> Unit {
        self.out.push(b']');
        Ok(())
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = InvalidInput;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Unit {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Unit {
        ser::SerializeSeq::end(self)
    }
}

/// An object in the making: its members one behind the other, sorted at the end if they did not come so.
pub(super) struct Members<'a> {
    out: &'a mut Vec<u8>,
    wanted: &'a Reads,
    start: usize,
    /// Each member's name, and where `,"name":value` is.
    written: Vec<(Cow<'static, str>, Range<usize>)>,
    sorted: bool,
    name: Option<String>,
}

impl Members<'_> {
    fn member<T: Serialize + ?Sized>(&mut self, name: Cow<'static, str>, value: &T) -> Unit {
        let Some(wanted) = self.wanted.member(&name) else { return Ok(()) };
        let from = self.out.len();
        self.out.push(b',');
        ToCanonical::text(self.out, &name)?;
        self.out.push(b':');
        value.serialize(ToCanonical { out: self.out, wanted })?;
        self.sorted &= self.written.last().is_none_or(|(last, _)| *last < name);
        self.written.push((name, from..self.out.len()));
        Ok(())
    }

    fn close(mut self) -> Unit {
        if !self.sorted {
            self.sort()?;
        }
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
        Ok(())
    }

    fn sort(&mut self) -> Unit {
        self.written.sort_by(|(one, _), (other, _)| one.cmp(other));
        if self.written.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
            return refused("two members of one name");
        }
        let mut sorted = Vec::with_capacity(self.out.len() - self.start);
        for (_, range) in &self.written {
            sorted.extend_from_slice(self.out.get(range.clone()).unwrap_or_default());
        }
        self.out.truncate(self.start);
        self.out.append(&mut sorted);
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = InvalidInput;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Unit {
        match engine_value::name(name)? {
            regorus::Value::String(text) => self.name = Some(text.to_string()),
            _ => return refused("a member name that is not text"),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Unit {
        match self.name.take() {
            Some(name) => self.member(Cow::Owned(name), value),
            None => refused("a value without a name"),
        }
    }

    fn end(self) -> Unit {
        self.close()
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = InvalidInput;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Unit {
        self.member(Cow::Borrowed(name), value)
    }

    fn end(self) -> Unit {
        self.close()
    }
}
