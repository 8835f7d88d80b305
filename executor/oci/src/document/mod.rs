//! The JSON documents of an image: descriptors, manifests, indexes and configs.
//!
//! The types are our own rather than oci-spec's: those keep labels in hash maps (written in another
//! order each time), drop the keys that they do not know, and lack docker's health checks, triggers
//! and shells. The tests read what is written here with oci-spec.
//!
//! A document that was pulled is identified by its bytes, so nobody writes it again: parse it to
//! look inside, and keep the bytes. What kiln itself makes is written here, in the field order of
//! the Go structs that the field's tools use, with every unknown key of the document that it began
//! from. Absent, `null` and empty mean the same, as in Go.

mod config;
mod descriptor;
mod json;
mod manifest;

pub use config::{Empty, HealthCheck, History, ImageConfig, RootFs, RunConfig};
pub(crate) use descriptor::nullable;
pub use descriptor::{Descriptor, annotation};
pub use manifest::{Index, Manifest, Root};

/// The most bytes that a manifest or an index may have.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

/// The most bytes that an image config may have.
pub const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// Why some bytes are not the document that they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The document is larger than any honest one.
    #[error("{what} has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The bytes are not JSON, or not JSON of this shape.
    #[error("{what} cannot be read")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The document says that it is something else than what it was served as.
    #[error("{what} was served as `{served}` but says that it is `{stated}`")]
    MediaType {
        /// Which document.
        what: &'static str,
        /// The registry's or the descriptor's word.
        served: String,
        /// The document's own word.
        stated: String,
    },
    /// The document has the fields of a manifest and of an index at once, a known way to make two
    /// tools see two images under one digest.
    #[error("manifest is ambiguous: it has both `manifests` and `{0}`")]
    Ambiguous(&'static str),
    /// The media type is none that is read here.
    #[error(
        "media type `{0}` is not a manifest or index that kiln can read; schema 1 images must be pushed anew by a current tool"
    )]
    Unsupported(String),
}

#[cfg(test)]
mod tests;
