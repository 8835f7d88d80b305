//! Manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::descriptor::{Descriptor, nullable};
use super::{DocumentError, MANIFEST_LIMIT_BYTES, json};
use crate::media_type;

/// The manifest of one image (OCI image-spec, manifest.md; docker's schema 2 has the same shape).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// The manifest's own media type; docker's readers require it.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    /// The kind of artifact, if it is not a container image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// What the maker says of the image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A list of manifests, each for a platform (OCI image-spec, image-index.md; docker's manifest list).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// The index's own media type.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    /// The kind of artifact, if it is not a container image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
    /// The manifests, or further indexes.
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// What the maker says of the image.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Keys of a read document that are not known here.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// What a tag points to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // there is one an image, not an array of them
pub enum Root {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

impl Manifest {
    /// The kind of artifact that this is; none for a container image, which has the config of one or at
    /// least a layer with files.
    pub fn artifact(&self) -> Option<&str> {
        let kind = self.config.media_type.as_str();
        let is_layer =
            |layer: &Descriptor| media_type::layer_compression(&layer.media_type).is_some();
        let is_image = kind != media_type::OCI_EMPTY && self.layers.iter().any(is_layer);
        match self.artifact_type.as_str() {
            _ if is_image || media_type::is_config(kind) => None,
            "" => Some(kind),
            artifact => Some(artifact),
        }
    }

    /// Makes a manifest in the vocabulary of `flavor`.
    pub fn new(flavor: media_type::Flavor, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: flavor.manifest().to_owned(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    /// Parses at most [`MANIFEST_LIMIT_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DocumentError> {
        json::read("manifest", bytes, MANIFEST_LIMIT_BYTES)
    }

    /// Writes it, indented by two spaces as BuildKit does.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::indented(self)
    }
}

impl Index {
    /// Makes an index in the vocabulary of `flavor`.
    pub fn new(flavor: media_type::Flavor, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: flavor.index().to_owned(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    /// Parses at most [`MANIFEST_LIMIT_BYTES`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DocumentError> {
        json::read("index", bytes, MANIFEST_LIMIT_BYTES)
    }

    /// Writes it, indented by two spaces as BuildKit does.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::indented(self)
    }
}

/// The keys by which a manifest and an index can be told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default, deserialize_with = "nullable")]
    schema_version: u64,
    #[serde(default, deserialize_with = "nullable")]
    media_type: String,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Root {
    /// Parses what was served as `served` (a content type or a descriptor's media type, empty if
    /// there was none), at most [`MANIFEST_LIMIT_BYTES`].
    ///
    /// Errors if the document states another type than it was served as, if it could be read as
    /// both kinds, and for schema 1.
    pub fn from_slice(served: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        let shape: Shape = json::read("manifest", bytes, MANIFEST_LIMIT_BYTES)?;
        let served = served.split(';').next().unwrap_or_default().trim();
        let known = |media_type: &str| {
            media_type::is_manifest(media_type) || media_type::is_index(media_type)
        };
        let stated = shape.media_type.as_str();
        if known(served) && known(stated) && served != stated {
            let (served, stated) = (served.to_owned(), stated.to_owned());
            return Err(DocumentError::MediaType {
                what: "manifest",
                served,
                stated,
            });
        }
        if shape.manifests.is_some() {
            for (key, present) in [
                ("config", shape.config.is_some()),
                ("layers", shape.layers.is_some()),
            ] {
                if present {
                    return Err(DocumentError::Ambiguous(key));
                }
            }
        }
        if shape.schema_version == 1 || shape.fs_layers.is_some() {
            return Err(DocumentError::Unsupported(
                "application/vnd.docker.distribution.manifest.v1+json".to_owned(),
            ));
        }
        // A generic content type such as application/json leaves the word to the document.
        let kind = [stated, served].into_iter().find(|kind| known(kind));
        match kind {
            Some(kind) if media_type::is_index(kind) => Index::from_slice(bytes).map(Self::Index),
            Some(_) => Manifest::from_slice(bytes).map(Self::Manifest),
            None if !stated.is_empty() => Err(DocumentError::Unsupported(
                stated.chars().take(100).collect(),
            )),
            None if shape.manifests.is_some() => Index::from_slice(bytes).map(Self::Index),
            None if shape.config.is_some() => Manifest::from_slice(bytes).map(Self::Manifest),
            None => Err(DocumentError::Unsupported(
                served.chars().take(100).collect(),
            )),
        }
    }

    /// Returns the media type that the document has, whatever it was served as.
    pub fn media_type(&self) -> &str {
        let (stated, usual) = match self {
            Self::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
            Self::Index(index) => (&index.media_type, media_type::OCI_INDEX),
        };
        if stated.is_empty() { usual } else { stated }
    }
}
