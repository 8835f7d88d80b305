//! Images as files: OCI image layouts and docker archives, as which paths hold which bytes.
//!
//! Nothing here touches a file: writing gives a list that the caller streams into a directory or a
//! tar, reading takes the bytes of the few documents that tell where the rest is. What docker writes
//! today is both at once, an OCI layout with a `manifest.json` beside it, and so is what
//! [`docker_archive`] gives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::document::{Descriptor, DocumentError, Index, MANIFEST_LIMIT_BYTES, annotation};
use crate::media_type::{Flavor, OCI_INDEX};
use crate::platform::{self, Platform};
use crate::reference::Reference;

/// The file that says that a directory is an image layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// What that file holds.
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The file that lists a layout's images.
pub const INDEX_FILE: &str = "index.json";

/// The file that lists a docker archive's images.
pub const DOCKER_MANIFEST_FILE: &str = "manifest.json";

/// The only version of the layout that there is (OCI image-spec, image-layout.md).
const LAYOUT_VERSION: &str = "1.0.0";

/// A file of a layout or an archive, mode 0644 or as the caller likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutFile {
    /// The path below the root, with `/` between its parts.
    pub path: String,
    /// What the file holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// A blob that the caller has.
    Blob {
        /// Its digest.
        digest: Sha256Digest,
        /// Its size.
        size: u64,
    },
}

/// A document with the bytes that its descriptor is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The digest, the size and the media type.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Bytes,
}

/// An image to write, whole: everything that its root leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The manifest or index that names refer to; its annotations and platform go into `index.json`.
    pub root: Descriptor,
    /// The names, best first; an image without one is listed by digest alone.
    pub names: Vec<Reference>,
    /// Manifests, indexes, configs and attestations; the root among them.
    pub documents: Vec<Document>,
    /// Layers and whatever else the caller has as blobs.
    pub blobs: Vec<Descriptor>,
}

/// An image of a docker archive: one platform, with what `docker load` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerExport {
    /// The image as a layout has it.
    pub image: Export,
    /// The digest of the config.
    pub config: Sha256Digest,
    /// The layers' digests, lowest first.
    pub layers: Vec<Sha256Digest>,
}

/// Why a layout or an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// `oci-layout` names a version that is not read here, or is no such file.
    #[error("`oci-layout` does not say that this is an image layout of version 1.0.0")]
    Version,
    /// A document is malformed or too large.
    #[error("`{path}` cannot be used")]
    Document {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// Nothing has the wanted name or digest.
    #[error("no image is named `{wanted}`; there is {available}")]
    NotFound {
        /// The name or digest.
        wanted: String,
        /// The names that there are, or `none`.
        available: String,
    },
    /// No name was given and there are several images, or a name fits several.
    #[error("there are several images; name one of {available}")]
    Ambiguous {
        /// The names that there are, or `none`.
        available: String,
    },
    /// There is no image at all.
    #[error("there is no image in it")]
    Empty,
    /// A path of `manifest.json` leads out of the archive.
    #[error("`manifest.json` has the path `{0}`, which leads out of the archive")]
    Path(String),
}

/// Which image of a layout or archive is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector<'a> {
    /// The only one.
    Only,
    /// The one of this tag or full name.
    Name(&'a str),
    /// The one whose manifest or index has this digest, listed or not.
    Digest(Sha256Digest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: String,
}

/// An entry of docker's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The path of the config.
    pub config: String,
    /// The names in their short form; `null` if there is none.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The paths of the layers' tars, lowest first; compressed or not.
    #[serde(default)]
    pub layers: Vec<String>,
}

/// Returns where a layout has a blob: `blobs/sha256/..`.
pub fn blob_path(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Lists the files of an OCI image layout, each once, sorted by path.
pub fn oci_layout(images: &[Export]) -> Vec<LayoutFile> {
    let files = files(images);
    files
        .into_iter()
        .map(|(path, content)| LayoutFile { path, content })
        .collect()
}

/// Lists the files of an archive that `docker load` and readers of OCI layouts take alike.
pub fn docker_archive(images: &[DockerExport]) -> Vec<LayoutFile> {
    let exports: Vec<Export> = images.iter().map(|image| image.image.clone()).collect();
    let mut files = files(&exports);
    let entry = |image: &DockerExport| {
        let tagged = image.image.names.iter().filter(|name| name.tag().is_some());
        let tags: Vec<String> = tagged
            .map(|name| {
                format!(
                    "{}:{}",
                    name.familiar_name(),
                    name.tag().unwrap_or_default()
                )
            })
            .collect();
        DockerImage {
            config: blob_path(&image.config),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: image.layers.iter().map(blob_path).collect(),
        }
    };
    let entries: Vec<DockerImage> = images.iter().map(entry).collect();
    let bytes = serde_json::to_vec(&entries).expect("BUG: strings cannot be written as JSON");
    files.insert(
        DOCKER_MANIFEST_FILE.to_owned(),
        Content::Bytes(bytes.into()),
    );
    files
        .into_iter()
        .map(|(path, content)| LayoutFile { path, content })
        .collect()
}

fn files(images: &[Export]) -> BTreeMap<String, Content> {
    let index = Index::new(Flavor::Oci, images.iter().flat_map(entries).collect());
    let mut files = BTreeMap::from([
        (LAYOUT_FILE.to_owned(), Content::Bytes(LAYOUT.into())),
        (
            INDEX_FILE.to_owned(),
            Content::Bytes(index.to_bytes().into()),
        ),
    ]);
    for image in images {
        for blob in &image.blobs {
            let content = Content::Blob {
                digest: blob.digest,
                size: blob.size,
            };
            files.entry(blob_path(&blob.digest)).or_insert(content);
        }
        for document in &image.documents {
            files.insert(
                blob_path(&document.descriptor.digest),
                Content::Bytes(document.bytes.clone()),
            );
        }
    }
    files
}

/// Returns an image's entries in `index.json`: one a name, with the annotations that containerd,
/// podman and skopeo look for.
fn entries(image: &Export) -> Vec<Descriptor> {
    if image.names.is_empty() {
        return vec![image.root.clone()];
    }
    let named = |name: &Reference| {
        let mut entry = image.root.clone();
        entry
            .annotations
            .insert(annotation::CONTAINERD_NAME.to_owned(), name.to_string());
        if let Some(tag) = name.tag() {
            entry
                .annotations
                .insert(annotation::REF_NAME.to_owned(), tag.to_owned());
        }
        entry
    };
    image.names.iter().map(named).collect()
}

/// Errors unless `oci-layout` holds the version that is read here.
pub fn check_version(bytes: &[u8]) -> Result<(), LayoutError> {
    let small = bytes.len() <= 64 << 10;
    match small.then(|| serde_json::from_slice::<Version>(bytes)) {
        Some(Ok(version)) if version.image_layout_version == LAYOUT_VERSION => Ok(()),
        _ => Err(LayoutError::Version),
    }
}

/// Parses `index.json`.
pub fn read_index(bytes: &[u8]) -> Result<Index, LayoutError> {
    Index::from_slice(bytes).map_err(|source| LayoutError::Document {
        path: INDEX_FILE,
        source,
    })
}

/// Finds an image in the index of a layout.
///
/// A tag fits if it is an entry's `ref.name`; a full name, or a short form of it, if it is an entry's
/// name. Among several that fit, the wanted platform decides. The result may be an index itself, of
/// which [`platform::select`] chooses. A digest that is not listed is taken for one of a manifest
/// among the blobs.
pub fn select(
    index: &Index,
    selector: Selector<'_>,
    wanted: &Platform,
) -> Result<Descriptor, LayoutError> {
    let images = || {
        index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation())
    };
    let fitting: Vec<Descriptor> = match selector {
        Selector::Only => images().cloned().collect(),
        Selector::Name(name) => images()
            .filter(|entry| is_named(entry, name))
            .cloned()
            .collect(),
        Selector::Digest(digest) => {
            let listed = index
                .manifests
                .iter()
                .find(|entry| entry.digest == digest)
                .cloned();
            // Its size and kind are not known before it is read.
            return Ok(listed.unwrap_or_else(|| Descriptor::new("", digest, 0)));
        }
    };
    let digests: BTreeSet<Sha256Digest> = fitting.iter().map(|entry| entry.digest).collect();
    match (digests.len(), selector) {
        (0, Selector::Name(name)) => Err(LayoutError::NotFound {
            wanted: name.chars().take(300).collect(),
            available: names(index),
        }),
        (0, _) => Err(LayoutError::Empty),
        (1, _) => Ok(fitting[0].clone()),
        _ => {
            let by_platform = fitting
                .iter()
                .all(|entry| entry.platform.is_some() && entry.media_type != OCI_INDEX);
            let distinct: BTreeSet<String> = fitting
                .iter()
                .filter_map(|entry| Some(entry.platform.as_ref()?.to_string()))
                .collect();
            let fitting = Index {
                manifests: fitting,
                ..Index::new(Flavor::Oci, Vec::new())
            };
            let chosen = platform::select(&fitting, wanted)
                .filter(|_| by_platform && distinct.len() == digests.len());
            chosen.cloned().ok_or_else(|| LayoutError::Ambiguous {
                available: names(index),
            })
        }
    }
}

fn is_named(entry: &Descriptor, name: &str) -> bool {
    let given = |key| entry.annotations.get(key).map(String::as_str);
    let (tag, full) = (
        given(annotation::REF_NAME),
        given(annotation::CONTAINERD_NAME),
    );
    if tag == Some(name) || full == Some(name) {
        return true;
    }
    // Some tools write the full name into ref.name.
    let wanted = Reference::parse(name).ok();
    wanted.is_some_and(|wanted| {
        [tag, full].into_iter().flatten().any(|text| {
            text.contains(['/', ':'])
                && Reference::parse(text).is_ok_and(|reference| reference == wanted)
        })
    })
}

fn names(index: &Index) -> String {
    let name = |entry: &Descriptor| {
        let full = entry.annotations.get(annotation::CONTAINERD_NAME);
        let name = full.or_else(|| entry.annotations.get(annotation::REF_NAME));
        format!(
            "`{}`",
            name.cloned().unwrap_or_else(|| entry.digest.to_string())
        )
    };
    let names: BTreeSet<String> = index
        .manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
        .map(name)
        .collect();
    join(names)
}

fn join(names: BTreeSet<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.into_iter().take(20).collect::<Vec<_>>().join(", ")
}

/// Parses a docker archive's `manifest.json`; every path in it stays within the archive.
pub fn read_docker_manifest(bytes: &[u8]) -> Result<Vec<DockerImage>, LayoutError> {
    let failed = |source| LayoutError::Document {
        path: DOCKER_MANIFEST_FILE,
        source,
    };
    let size = bytes.len() as u64;
    if size > MANIFEST_LIMIT_BYTES {
        let what = "docker archive manifest";
        return Err(failed(DocumentError::TooLarge {
            what,
            bytes: size,
            limit: MANIFEST_LIMIT_BYTES,
        }));
    }
    let images: Vec<DockerImage> = serde_json::from_slice(bytes).map_err(|source| {
        failed(DocumentError::Json {
            what: "docker archive manifest",
            source,
        })
    })?;
    for path in images
        .iter()
        .flat_map(|image| image.layers.iter().chain([&image.config]))
    {
        let good = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.split('/').all(good) {
            return Err(LayoutError::Path(path.chars().take(300).collect()));
        }
    }
    Ok(images)
}

/// Finds an image of a docker archive by one of its names, or the only one.
pub fn select_docker<'a>(
    images: &'a [DockerImage],
    name: Option<&str>,
) -> Result<&'a DockerImage, LayoutError> {
    let tags = |image: &'a DockerImage| image.repo_tags.iter().flatten();
    let available = || {
        join(
            images
                .iter()
                .flat_map(tags)
                .map(|tag| format!("`{tag}`"))
                .collect(),
        )
    };
    let Some(name) = name else {
        return match images {
            [] => Err(LayoutError::Empty),
            [image] => Ok(image),
            _ => Err(LayoutError::Ambiguous {
                available: available(),
            }),
        };
    };
    let wanted = Reference::parse(name).ok();
    let fits =
        |tag: &String| tag == name || (wanted.is_some() && Reference::parse(tag).ok() == wanted);
    images
        .iter()
        .find(|image| tags(image).any(fits))
        .ok_or_else(|| LayoutError::NotFound {
            wanted: name.chars().take(300).collect(),
            available: available(),
        })
}

#[cfg(test)]
mod tests;
