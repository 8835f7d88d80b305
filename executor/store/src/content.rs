//! The ids that the store files things under, each a newtype with one text form and one byte form.

use std::fmt;
use std::str::FromStr;

use kiln_tree::LayerId;

/// Text is not an id of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Returns the 32 bytes that 64 lower-case hex digits stand for.
fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! sha256_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Returns the 64 hex digits without the algorithm.
            pub fn hex(&self) -> String {
                self.to_string().split_off("sha256:".len())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("sha256:")?;
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix("sha256:").and_then(parse_hex).map(Self).ok_or_else(|| ParseIdError {
                    text: text.chars().take(80).collect(),
                    expected: "`sha256:` and 64 lower-case hex digits",
                })
            }
        }
    };
}

sha256_id! {
    /// The sha256 of a blob's bytes; the OCI digest.
    BlobDigest
}
sha256_id! {
    /// The sha256 of an image layer's uncompressed tar, as the image's config lists it.
    DiffId
}
sha256_id! {
    /// The sha256 of an image's config: what users know an image by.
    ImageId
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

key! {
    /// A key that a record is found by: a definition key or a content key, which the caller makes
    /// so that the two never meet.
    Key
}
key! {
    /// The digest of an op alone, without its inputs.
    OpKey
}
key! {
    /// What builds of the same thing have in common, such as a context and a Dockerfile's path.
    Lineage
}

/// The content id of a layer; which kind it is was fixed by the op that yields the layer.
///
/// Its text form is `sha256:` or `blake3:` and 64 hex digits; its byte form is a tag and 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// A layer of an image, wherever its bytes lie.
    DiffId(DiffId),
    /// A layer that a step made.
    Layer(LayerId),
}

impl Content {
    const LEN: usize = 33;

    /// The layers of an image with these diff ids, in their order.
    pub fn of_image(diff_ids: &[DiffId]) -> Vec<Content> {
        diff_ids.iter().copied().map(Content::DiffId).collect()
    }

    /// Returns the byte form.
    pub fn to_bytes(self) -> [u8; 33] {
        let (tag, digest) = match self {
            Content::DiffId(id) => (1, id.0),
            Content::Layer(id) => (2, id.0),
        };
        let mut bytes = [tag; Self::LEN];
        bytes[1..].copy_from_slice(&digest);
        bytes
    }

    /// Reads the byte form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, digest) = bytes.split_first()?;
        let digest: [u8; 32] = digest.try_into().ok()?;
        match tag {
            1 => Some(Content::DiffId(DiffId(digest))),
            2 => Some(Content::Layer(LayerId(digest))),
            _ => None,
        }
    }

    /// Returns the name of the layer's directory below `layers`.
    pub(crate) fn directory(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::DiffId(id) => write!(f, "{id}"),
            Content::Layer(id) => {
                f.write_str("blake3:")?;
                write_hex(f, &id.0)
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({self})")
    }
}

impl FromStr for Content {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once(':') {
            Some(("sha256", hex)) => parse_hex(hex).map(|id| Content::DiffId(DiffId(id))),
            Some(("blake3", hex)) => parse_hex(hex).map(|id| Content::Layer(LayerId(id))),
            _ => None,
        }
        .ok_or_else(|| ParseIdError {
            text: text.chars().take(80).collect(),
            expected: "`sha256:` or `blake3:` and 64 lower-case hex digits",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Content, text: &str) {
        assert_eq!(content.to_string(), text);
        assert_eq!(text.parse(), Ok(content));
        assert_eq!(Content::from_bytes(&content.to_bytes()), Some(content));
    }

    #[test]
    fn content_ids_round_trip() {
        check(
            Content::DiffId(DiffId([0xab; 32])),
            &format!("sha256:{}", "ab".repeat(32)),
        );
        check(
            Content::Layer(LayerId([7; 32])),
            &format!("blake3:{}", "07".repeat(32)),
        );
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "sha256:",
            "md5:00",
            &format!("sha256:{}", "AB".repeat(32)),
            "sha256:é",
        ] {
            assert!(text.parse::<Content>().is_err(), "{text}");
            assert!(text.parse::<BlobDigest>().is_err(), "{text}");
        }
        assert_eq!(Content::from_bytes(&[3; 33]), None);
        assert_eq!(Content::from_bytes(&[1; 32]), None);
    }
}
