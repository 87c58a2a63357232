//! Typed data straight into the engine's values, so that no text an agent chose is ever read by the engine's
//! JSON parser, which takes `$serde_json::private::Number` for a number and the last of two equal names.

use regorus::{
    Value,
    value::{Array, Object},
};
use serde::{
    Serialize, Serializer,
    ser::{self, Impossible},
};

use model::{Part, part::WHOLE};

use super::InvalidInput;

/// Serialises the part that is read into [`Value`]. Takes what the input is made of and refuses the rest: there are
/// no floats in it.
#[derive(Clone, Copy)]
pub(super) struct ToEngine<'a>(pub(super) &'a Part);

impl ser::Error for InvalidInput {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn refused<T>(what: &str) -> Result<T, InvalidInput> {
    Err(InvalidInput(what.to_owned()))
}

impl<'a> Serializer for ToEngine<'a> {
    type Ok = Value;
    type Error = InvalidInput;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Impossible<Value, InvalidInput>;
    type SerializeTupleVariant = Impossible<Value, InvalidInput>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Impossible<Value, InvalidInput>;

    fn serialize_bool(self, value: bool) -> Result<Value, InvalidInput> {
        Ok(Value::Bool(value))
    }
    fn serialize_i8(self, value: i8) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Result<Value, InvalidInput> {
        Ok(Value::from(value))
    }
    fn serialize_u8(self, value: u8) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_u16(self, value: u16) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Result<Value, InvalidInput> {
        self.serialize_i64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Result<Value, InvalidInput> {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => refused("a number beyond 64 bits"),
        }
    }
    fn serialize_f32(self, _: f32) -> Result<Value, InvalidInput> {
        refused("a floating-point number")
    }
    fn serialize_f64(self, _: f64) -> Result<Value, InvalidInput> {
        refused("a floating-point number")
    }
    fn serialize_char(self, value: char) -> Result<Value, InvalidInput> {
        Ok(Value::from(value.to_string()))
    }
    fn serialize_str(self, value: &str) -> Result<Value, InvalidInput> {
        Ok(Value::from(value))
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Value, InvalidInput> {
        refused("bytes")
    }
    fn serialize_none(self) -> Result<Value, InvalidInput> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, InvalidInput> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Value, InvalidInput> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, InvalidInput> {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Value, InvalidInput> {
        self.serialize_str(name)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, InvalidInput> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, InvalidInput> {
        refused("a tagged value")
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items, InvalidInput> {
        Ok(Items(Array::new()))
    }
    fn serialize_tuple(self, _: usize) -> Result<Items, InvalidInput> {
        Ok(Items(Array::new()))
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
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, InvalidInput> {
        Ok(Members { members: Object::new(), wanted: self.0, name: None })
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, InvalidInput> {
        self.serialize_map(None)
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

/// An array in the making.
pub(super) struct Items(Array);

impl ser::SerializeSeq for Items {
    type Ok = Value;
    type Error = InvalidInput;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InvalidInput> {
        self.0.push(value.serialize(ToEngine(&WHOLE))?);
        Ok(())
    }

    fn end(self) -> Result<Value, InvalidInput> {
        Ok(self.0.into_value())
    }
}

impl ser::SerializeTuple for Items {
    type Ok = Value;
    type Error = InvalidInput;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InvalidInput> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, InvalidInput> {
        ser::SerializeSeq::end(self)
    }
}

/// An object in the making.
pub(super) struct Members<'a> {
    members: Object,
    wanted: &'a Part,
    name: Option<Value>,
}

impl Members<'_> {
    fn member<T: Serialize + ?Sized>(&mut self, name: Value, value: &T) -> Result<(), InvalidInput> {
        let wanted = match &name {
            Value::String(text) => self.wanted.member(text),
            _ => return refused("a member name that is not text"),
        };
        if let Some(wanted) = wanted {
            self.members.insert(name, value.serialize(ToEngine(wanted))?);
        }
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = Value;
    type Error = InvalidInput;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), InvalidInput> {
        self.name = Some(key.serialize(ToEngine(&WHOLE))?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), InvalidInput> {
        let Some(name) = self.name.take() else { return refused("a value without a name") };
        self.member(name, value)
    }

    fn end(self) -> Result<Value, InvalidInput> {
        Ok(self.members.into_value())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = Value;
    type Error = InvalidInput;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), InvalidInput> {
        // A name costs an allocation, and most are not looked at.
        if self.wanted.member(name).is_none() {
            return Ok(());
        }
        self.member(Value::from(name), value)
    }

    fn end(self) -> Result<Value, InvalidInput> {
        Ok(self.members.into_value())
    }
}
