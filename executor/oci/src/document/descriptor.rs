//! A descriptor: where content is, of which kind, and how to know it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::digest::Sha256Digest;
use crate::platform::Platform;

/// Annotation keys that are read or written here.
pub mod annotation {
    /// The tag of a manifest in an image layout's index.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The full name of a manifest in an image layout's index, as containerd and BuildKit write it.
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
    /// When the image was made, RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// What kind of document a manifest of an index is, if it is no image.
    pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// The digest of the manifest that an attestation manifest speaks of.
    pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
    /// The value of [`REFERENCE_TYPE`] for attestations.
    pub const ATTESTATION_MANIFEST: &str = "attestation-manifest";
}

/// Content by digest, size and media type (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Sha256Digest,
    /// The number of bytes of the content.
    pub size: u64,
    /// Where else the content may be had; used by foreign layers only.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// What the maker says of it.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, base64, when it is small; never trusted without its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What the content runs on; of manifests in an index only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of artifact, if the content is a manifest of one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Descriptor {
    /// Describes content by the three fields that every descriptor has.
    pub fn new(media_type: impl Into<String>, digest: Sha256Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: String::new(),
            unknown: BTreeMap::new(),
        }
    }

    /// Describes bytes in memory.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Sha256Digest::of(bytes), bytes.len() as u64)
    }

    /// Tells whether this is an attestation about another manifest, which is never an image to run.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key(annotation::REFERENCE_TYPE)
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

/// Reads `null` as the empty value: Go's encoder writes it for absent lists and maps.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
