//! What an output holds, said without holding it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identity of one layer's content.
///
/// Which kind it is depends only on the op that yields it: an image or oci-layout source yields its
/// config's diff ids, wherever the bytes lie and without a download; every other op yields layer
/// digests. Where the two meet, equal content has unequal ids: a miss, never a wrong hit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentId {
    /// sha256 of a layer's tar, as an image config lists it.
    DiffId([u8; 32]),
    /// BLAKE3 Merkle digest of a layer that was sealed here.
    Layer([u8; 32]),
}

/// A file system's content: its layers, lowest first. Empty is scratch.
pub type Content = Vec<ContentId>;

impl ContentId {
    /// The bytes of the digest, whatever its kind.
    pub fn bytes(&self) -> &[u8; 32] {
        match self {
            ContentId::DiffId(bytes) | ContentId::Layer(bytes) => bytes,
        }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentId::DiffId(bytes) => write!(f, "sha256:{}", Hex(bytes)),
            ContentId::Layer(bytes) => write!(f, "layer:{}", Hex(bytes)),
        }
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes in lower-case hex.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
