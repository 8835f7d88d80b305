//! A serializer to JSON values that leaves out struct fields with their default.
//!
//! Unlike a pass over finished JSON it knows a struct from a map, whose values mean something even
//! if empty, and `Some(0)` from `0`. A default is: false, 0, "", none, an empty list, map or struct,
//! and the first variant of an enum if that has no content.

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple,
};
use serde::{Serializer, ser};
use serde_json::{Map, Value};

/// Serializes `value`, whose structs have to read back an absent field as its default.
pub(super) fn to_value(value: &impl Serialize) -> Value {
    match value.serialize(Sparse) {
        Ok(part) => part.value,
        Err(error) => panic!("BUG: a plan's types always serialize: {error}"),
    }
}

struct Part {
    value: Value,
    is_default: bool,
}

impl Part {
    fn new(value: impl Into<Value>, is_default: bool) -> Self {
        Self {
            value: value.into(),
            is_default,
        }
    }
}

/// What can't happen with the types of a plan.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl ser::Error for Refused {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn refused<T>(what: &str) -> Result<T, Refused> {
    Err(Refused(format!("{what} does not occur in a plan")))
}

struct Sparse;

macro_rules! numbers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<Part, Refused> {
            Ok(Part::new(value, value == 0))
        }
    )*};
}

impl Serializer for Sparse {
    type Ok = Part;
    type Error = Refused;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = Impossible<Part, Refused>;
    type SerializeTupleVariant = Impossible<Part, Refused>;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = VariantFields;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    );

    fn serialize_bool(self, value: bool) -> Result<Part, Refused> {
        Ok(Part::new(value, !value))
    }

    fn serialize_str(self, value: &str) -> Result<Part, Refused> {
        Ok(Part::new(value, value.is_empty()))
    }

    fn serialize_none(self) -> Result<Part, Refused> {
        Ok(Part::new(Value::Null, true))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Part, Refused> {
        Ok(Part {
            is_default: false,
            ..value.serialize(self)?
        })
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<Part, Refused> {
        Ok(Part::new(variant, index == 0))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Part, Refused> {
        let members = Map::from_iter([(variant.to_owned(), value.serialize(self)?.value)]);
        Ok(Part::new(members, false))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, Refused> {
        Ok(List(Vec::new()))
    }

    fn serialize_tuple(self, _: usize) -> Result<List, Refused> {
        Ok(List(Vec::new()))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Refused> {
        Ok(Entries {
            members: Map::new(),
            key: String::new(),
        })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Refused> {
        Ok(Fields(Map::new()))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<VariantFields, Refused> {
        Ok(VariantFields {
            variant,
            members: Map::new(),
        })
    }

    fn serialize_f32(self, _: f32) -> Result<Part, Refused> {
        refused("a float")
    }

    fn serialize_f64(self, _: f64) -> Result<Part, Refused> {
        refused("a float")
    }

    fn serialize_char(self, _: char) -> Result<Part, Refused> {
        refused("a character")
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Part, Refused> {
        refused("a byte string")
    }

    fn serialize_unit(self) -> Result<Part, Refused> {
        refused("a unit")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Part, Refused> {
        refused("a unit struct")
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Part, Refused> {
        value.serialize(self)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Refused> {
        refused("a tuple struct")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Refused> {
        refused("a tuple variant")
    }
}

struct List(Vec<Value>);

impl SerializeSeq for List {
    type Ok = Part;
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.0.push(value.serialize(Sparse)?.value);
        Ok(())
    }

    fn end(self) -> Result<Part, Refused> {
        let is_default = self.0.is_empty();
        Ok(Part::new(self.0, is_default))
    }
}

impl SerializeTuple for List {
    type Ok = Part;
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Part, Refused> {
        SerializeSeq::end(self)
    }
}

struct Entries {
    members: Map<String, Value>,
    key: String,
}

impl SerializeMap for Entries {
    type Ok = Part;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        match key.serialize(Sparse)?.value {
            Value::String(key) => self.key = key,
            _ => return refused("a map whose keys are no texts"),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.members.insert(
            std::mem::take(&mut self.key),
            value.serialize(Sparse)?.value,
        );
        Ok(())
    }

    fn end(self) -> Result<Part, Refused> {
        let is_default = self.members.is_empty();
        Ok(Part::new(self.members, is_default))
    }
}

struct Fields(Map<String, Value>);

impl SerializeStruct for Fields {
    type Ok = Part;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        let part = value.serialize(Sparse)?;
        if !part.is_default {
            self.0.insert(key.to_owned(), part.value);
        }
        Ok(())
    }

    fn end(self) -> Result<Part, Refused> {
        let is_default = self.0.is_empty();
        Ok(Part::new(self.0, is_default))
    }
}

/// Fields of a variant have no default to read back.
struct VariantFields {
    variant: &'static str,
    members: Map<String, Value>,
}

impl SerializeStructVariant for VariantFields {
    type Ok = Part;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.members
            .insert(key.to_owned(), value.serialize(Sparse)?.value);
        Ok(())
    }

    fn end(self) -> Result<Part, Refused> {
        Ok(Part::new(
            Map::from_iter([(self.variant.to_owned(), Value::Object(self.members))]),
            false,
        ))
    }
}
