//! Byte strings in forms that people read: text where it is UTF-8, else base64 with padding.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes bytes by RFC 4648, section 4.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = group >> (18 - 6 * digit) & 63;
            text.push(if digit > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[value as usize])
            });
        }
    }
    text
}

/// Decodes what [`to_base64`] returned; nothing else, so that bytes have one form.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let padding = chunk.iter().rev().take_while(|&&byte| byte == b'=').count();
        if chunk.len() != 4 || padding > 2 {
            return None;
        }
        let mut group = 0;
        for &byte in &chunk[..4 - padding] {
            group = group << 6 | value(byte)?;
        }
        group <<= 6 * padding;
        bytes.extend(
            [(group >> 16) as u8, (group >> 8) as u8, group as u8]
                .iter()
                .take(3 - padding),
        );
    }
    (to_base64(&bytes) == text).then_some(bytes)
}

fn value(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Readable<'a> {
    Text(Cow<'a, str>),
    Base64(String),
}

/// Bytes as `{"text": …}` or `{"base64": …}` for people, and as they are in canonical bytes.
struct Bytes<'a>(Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => Readable::Text(text.into()).serialize(serializer),
            Err(_) => Readable::Base64(to_base64(&self.0)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer).map(|bytes| Self(bytes.into()));
        }
        match Readable::deserialize(deserializer)? {
            Readable::Text(text) => Ok(Self(text.into_owned().into_bytes().into())),
            Readable::Base64(text) => match from_base64(&text) {
                Some(bytes) => Ok(Self(bytes.into())),
                None => Err(serde::de::Error::custom(format!("`{text}` is not base64"))),
            },
        }
    }
}

/// For `#[serde(with)]` on a `Vec<u8>`.
pub(crate) mod required {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(bytes.into()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        Bytes::deserialize(deserializer).map(|bytes| bytes.0.into_owned())
    }
}

/// For `#[serde(with)]` on an `Option<Vec<u8>>`.
pub(crate) mod optional {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes
            .as_ref()
            .map(|bytes| Bytes(bytes.into()))
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Bytes<'_>>::deserialize(deserializer)?.map(|bytes| bytes.0.into_owned()))
    }
}
