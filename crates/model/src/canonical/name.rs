//! The name of a member: written with its quotes, straight from whatever serialises as text, and read again.

use std::borrow::Cow;

use serde::{
    Serialize, Serializer,
    ser::{Error as _, Impossible},
};

use super::{Unwritable, Written, text};

/// Writes a name; nothing but text is one.
pub(super) struct Name<'a>(pub(super) &'a mut Vec<u8>);

/// The name that was written as `raw`, which has no quotes any more.
pub(super) fn read(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Owned)
}

fn refused<T>() -> Result<T, Unwritable> {
    Err(Unwritable::custom("a member name that is not text"))
}

type Never = Impossible<(), Unwritable>;

impl Serializer for Name<'_> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_str(self, value: &str) -> Written {
        text(self.0, value)
    }
    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Written {
        self.serialize_str(name)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_bool(self, _: bool) -> Written {
        refused()
    }
    fn serialize_i8(self, _: i8) -> Written {
        refused()
    }
    fn serialize_i16(self, _: i16) -> Written {
        refused()
    }
    fn serialize_i32(self, _: i32) -> Written {
        refused()
    }
    fn serialize_i64(self, _: i64) -> Written {
        refused()
    }
    fn serialize_u8(self, _: u8) -> Written {
        refused()
    }
    fn serialize_u16(self, _: u16) -> Written {
        refused()
    }
    fn serialize_u32(self, _: u32) -> Written {
        refused()
    }
    fn serialize_u64(self, _: u64) -> Written {
        refused()
    }
    fn serialize_f32(self, _: f32) -> Written {
        refused()
    }
    fn serialize_f64(self, _: f64) -> Written {
        refused()
    }
    fn serialize_bytes(self, _: &[u8]) -> Written {
        refused()
    }
    fn serialize_none(self) -> Written {
        refused()
    }
    fn serialize_unit(self) -> Written {
        refused()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        refused()
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        refused()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_tuple(self, _: usize) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never, Unwritable> {
        refused()
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never, Unwritable> {
        refused()
    }
}
