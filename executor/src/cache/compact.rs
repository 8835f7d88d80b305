//! JSON of which nothing is known but that somebody else wrote it: taken as it stands, without a tree in
//! memory that is many times as large.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most bytes of one.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// A JSON value without white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compact(pub(super) Vec<u8>);

impl Serialize for Compact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = serde_json::from_slice(&self.0).unwrap_or_default();
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Compact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Compact, D::Error> {
        let mut bytes = Vec::new();
        Copying(&mut bytes).deserialize(deserializer)?;
        Ok(Compact(bytes))
    }
}

/// Writes what is read.
struct Copying<'a>(&'a mut Vec<u8>);

impl Copying<'_> {
    fn write<T: Serialize, E: serde::de::Error>(&mut self, value: T) -> Result<(), E> {
        serde_json::to_writer(&mut *self.0, &value).map_err(E::custom)?;
        match self.0.len() > MOST_BYTES {
            true => Err(E::custom("a record has too many parts")),
            false => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Copying<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copying<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.write(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let begin = self.0.len();
        loop {
            if self.0.len() > begin {
                self.0.push(b',');
            }
            if items.next_element_seed(Copying(self.0))?.is_none() {
                break;
            }
        }
        close(self.0, begin, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        let begin = self.0.len();
        loop {
            if self.0.len() > begin {
                self.0.push(b',');
            }
            if entries.next_key_seed(Copying(self.0))?.is_none() {
                break;
            }
            self.0.push(b':');
            entries.next_value_seed(Copying(self.0))?;
        }
        close(self.0, begin, b'}');
        if self.0.len() > MOST_BYTES {
            return Err(A::Error::custom("a record has too many parts"));
        }
        Ok(())
    }
}

/// Ends a list; what was written for one more item goes.
fn close(bytes: &mut Vec<u8>, begin: usize, end: u8) {
    if bytes.len() > begin {
        bytes.pop();
    }
    bytes.push(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let compact: Compact = serde_json::from_str(text).unwrap();
        assert_eq!(String::from_utf8_lossy(&compact.0), expected);
        assert_eq!(serde_json::to_string(&compact).unwrap(), expected);
    }

    #[test]
    fn values_come_as_they_are() {
        check("{}", "{}");
        check("[ ]", "[]");
        check(
            "[1, -2,3.5, true ,null, \"a\\n\"]",
            "[1,-2,3.5,true,null,\"a\\n\"]",
        );
        check(
            "{ \"b\": {\"x\": [[], {}]}, \"a\": \"\" }",
            "{\"b\":{\"x\":[[],{}]},\"a\":\"\"}",
        );
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        let wide = format!("[{}0]", "0,".repeat(MOST_BYTES / 2 + 1));
        assert!(serde_json::from_str::<Compact>(&wide).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(serde_json::from_str::<Compact>(&deep).is_err());
    }
}
