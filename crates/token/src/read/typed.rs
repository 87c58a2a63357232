//! Typed claims straight from the payload as it was parsed: nothing is copied on the way but what is kept. It is as
//! strict as `serde_json`'s own reading of values.

use model::json::Json;
use serde::{
    Deserialize, Deserializer,
    de::{
        IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};

/// The value of a claim: as it stands in the payload, or made from that.
#[derive(Clone)]
pub(super) enum Claim<'a> {
    Sent(&'a Json),
    Made(Value),
}

/// A claim, read as `T`.
pub(super) fn typed<'a, T: Deserialize<'a>>(json: &'a Json) -> Result<T, Error> {
    T::deserialize(Claim::Sent(json))
}

/// Members by name, read as the structure `T`.
pub(super) fn structure<'a, T: Deserialize<'a>>(
    members: impl Iterator<Item = (&'a str, Claim<'a>)>,
) -> Result<T, Error> {
    T::deserialize(MapDeserializer::new(members))
}

/// The value as one of its own. Only whole 64-bit numbers stay what they are: any other becomes a float, which no
/// claim of ours takes.
pub(super) fn exact(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(integer), _) => integer.into(),
            (_, Ok(integer)) => integer.into(),
            _ => text.parse::<f64>().map_or(Value::Null, Value::from),
        },
        Json::Text(text) => Value::String(text.clone()),
        Json::Array(items) => items.iter().map(exact).collect(),
        Json::Object(members) => members.iter().map(|(name, value)| (name.clone(), exact(value))).collect(),
    }
}

impl<'de> Deserializer<'de> for Claim<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let json = match self {
            Self::Sent(json) => json,
            Self::Made(value) => return value.deserialize_any(visitor),
        };
        match json {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Number(_) => exact(json).deserialize_any(visitor),
            Json::Text(text) => visitor.visit_borrowed_str(text),
            Json::Array(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(Claim::Sent));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Json::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.as_str(), Claim::Sent(value)));
                let mut members = MapDeserializer::new(members);
                let value = visitor.visit_map(&mut members)?;
                members.end().map(|()| value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Sent(Json::Null) | Self::Made(Value::Null) => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Sent(Json::Text(text)) => visitor.visit_enum(StrDeserializer::<Error>::new(text)),
            Self::Sent(json) => exact(json).deserialize_enum(name, variants, visitor),
            Self::Made(value) => value.deserialize_enum(name, variants, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl<'a> IntoDeserializer<'a, Error> for Claim<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
