//! Images from archives and layouts of any tool: docker's, podman's, skopeo's, and kiln's own.
//!
//! What is handed in is hostile: its paths are never paths here, every digest is verified, and nothing has a
//! name before all of it is in the store.

mod bundle;
mod docker;
mod image;
mod layout;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{DocumentError, MANIFEST_LIMIT_BYTES};
use kiln_oci::layout::{DOCKER_MANIFEST_FILE, INDEX_FILE, LAYOUT_FILE, LayoutError, check_version};
use kiln_oci::reference::Reference;
use kiln_store::{
    AS_PULLED, BlobDigest, Content, DiffId, ImageId, Lease, NewImage, NewIndex, Store, StoreError,
};
use kiln_tree::Stop;
use kiln_tree::tar::ApplyError;

use crate::error::Error;
use crate::executor::Executor;
use crate::images::oci_platform;
use crate::source::stoppable;
use bundle::Bundle;
pub(crate) use bundle::{inside, open_regular};

/// The list of names in archives of docker before 1.10, which have no other.
const ANCIENT_FILE: &str = "repositories";

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// The digest of its config, or of its index.
    pub id: String,
    /// Its names in the short form; none if the archive has none for it.
    pub names: Vec<String>,
    /// What it is for, such as `linux/amd64`; several if it is an index.
    pub platforms: Vec<String>,
    /// Platforms that its index lists, and whose content was not handed in.
    pub left_out: Vec<String>,
}

/// What is to be loaded.
pub enum LoadSource {
    /// An archive, perhaps compressed.
    Archive(Box<dyn Read + Send>),
    /// The directory of an OCI layout.
    Directory,
}

/// Why what was handed in cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a readable archive.
    #[error("the archive cannot be read")]
    Archive(#[source] ApplyError),
    /// It is something else.
    #[error("it is neither a docker archive nor an OCI layout")]
    NoImages,
    /// It is older than what is read here.
    #[error("it is of a docker before 1.10, and has no `manifest.json`")]
    Ancient,
    /// It has sparse files, which no tool writes.
    #[error("it has a sparse file")]
    Sparse,
    /// It has more than anybody needs.
    #[error("it has more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A document is larger than any is.
    #[error("`{path}` has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// A file that another one names is not there.
    #[error("`{path}` is not in it")]
    Missing {
        /// The file.
        path: String,
    },
    /// A file is not what its name says.
    #[error(
        "`{path}` is damaged: it is {found}, and should have {size} bytes of the digest that it is named after"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What it is.
        found: String,
        /// What its size should be.
        size: u64,
    },
    /// The list of images cannot be used.
    #[error("its list of images cannot be used")]
    Layout {
        /// Why not.
        #[source]
        source: LayoutError,
    },
    /// A manifest, an index or a config cannot be used.
    #[error("a document in it cannot be used")]
    Document {
        /// Why not.
        #[source]
        source: DocumentError,
    },
    /// A config cannot be used.
    #[error("a config in it cannot be used")]
    Config {
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image contradicts itself.
    #[error("the config of an image has {config} layers, and {listed} are listed")]
    Layers {
        /// By the config.
        config: usize,
        /// By the manifest.
        listed: usize,
    },
    /// A layer is compressed in a way that images have no word for.
    #[error("layer {layer} is compressed with neither gzip nor zstd")]
    Compression {
        /// The layer's blob.
        layer: String,
    },
    /// Indexes hold indexes without end.
    #[error("its indexes lie too deep")]
    Deep,
    /// Nothing is for the platform that is wanted.
    #[error("it has no image for {wanted}")]
    NoPlatform {
        /// The platform.
        wanted: String,
    },
}

impl LoadError {
    /// A way out, where there is one to name.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            LoadError::NoImages => {
                Some("`kiln import` makes an image of the tar of a root file system".to_owned())
            }
            LoadError::Missing { .. } | LoadError::Damaged { .. } => {
                Some("save it again: part of it was lost or changed on the way".to_owned())
            }
            _ => None,
        }
    }
}

/// An image whose contents are in the store, which does not know it yet.
struct Found {
    id: ImageId,
    /// Its manifest, or its index.
    manifest: Vec<u8>,
    /// Nobody else has that manifest: it was made of what has none.
    made_up: bool,
    platforms: Vec<Platform>,
    names: Vec<Reference>,
    left_out: Vec<String>,
    /// What makes the store know it.
    steps: Vec<Step>,
}

/// Something that the store is to know once all that was handed in is found good.
enum Step {
    Archive(DiffId, BlobDigest),
    Image(NewImage),
    Index(NewIndex),
    Blobs(ImageId, Vec<BlobDigest>),
}

impl Step {
    fn take(self, store: &Store, lease: &Lease) -> Result<(), StoreError> {
        match self {
            Step::Archive(diff_id, blob) => {
                let content = Content::DiffId(diff_id);
                store.put_compressed(&content, "", AS_PULLED, &blob, &diff_id)
            }
            Step::Image(image) => store.put_image(lease, &image),
            Step::Index(index) => store.put_index(lease, &index),
            Step::Blobs(id, blobs) => store.attach_blobs(&id, &blobs),
        }
    }
}

impl Executor {
    /// Keeps the images that an archive or a layout holds, with their names; `shown_name` is its own
    /// name in errors, and the directory's path.
    ///
    /// With `platform`, of images for several platforms only the one for that is kept, and other
    /// images only if they are for it.
    pub async fn load(
        &self,
        source: LoadSource,
        shown_name: &str,
        platform: Option<Platform>,
    ) -> Result<Vec<LoadedImage>, Error> {
        let (executor, name) = (self.clone(), shown_name.to_owned());
        let load = move |stop: &Stop| executor.load_now(source, &name, platform.as_ref(), stop);
        stoppable(load).await
    }

    fn load_now(
        &self,
        source: LoadSource,
        shown_name: &str,
        platform: Option<&Platform>,
        stop: &Stop,
    ) -> Result<Vec<LoadedImage>, Error> {
        let lease = self.store().lease();
        let loaded = self.load_leased(source, shown_name, platform, &lease, stop);
        // Documents are of no use beside what they made, and what was refused is of none at all. What cannot be
        // removed now goes with the next `kiln prune`.
        let _ = self.store().abandon(&lease);
        loaded
    }

    fn load_leased(
        &self,
        source: LoadSource,
        shown_name: &str,
        platform: Option<&Platform>,
        lease: &Lease,
        stop: &Stop,
    ) -> Result<Vec<LoadedImage>, Error> {
        let store = self.store();
        let bundle = match source {
            LoadSource::Directory => Bundle::directory(store, lease, stop, Path::new(shown_name)),
            LoadSource::Archive(input) => Bundle::archive(store, lease, stop, input, shown_name)?,
        };
        let found = images(&bundle, platform)?;
        if found.is_empty() {
            return Err(bundle.refused(LoadError::NoImages));
        }
        let mut loaded = Vec::with_capacity(found.len());
        for image in found {
            let mut beside = Vec::new();
            for step in image.steps {
                // An archive that no manifest names takes no other one's place.
                if image.made_up
                    && let Step::Archive(diff_id, blob) = &step
                    && let content = Content::DiffId(*diff_id)
                    && store.compressed(lease, &content, "", AS_PULLED)?.is_some()
                {
                    beside.push(*blob);
                    continue;
                }
                step.take(store, lease)?;
            }
            if !beside.is_empty() {
                store.attach_blobs(&image.id, &beside)?;
            }
            let mut names = Vec::with_capacity(image.names.len());
            for name in &image.names {
                // A digest is not a name for anybody to give, but that of the very manifest.
                let is_its = |digest| !image.made_up && digest == Sha256Digest::of(&image.manifest);
                if name.digest().copied().is_none_or(is_its) {
                    let reference = name.decisive();
                    // It may come back to the very name that it was saved under.
                    let known = match image.made_up {
                        true => store.image_by_name(lease, &reference)?,
                        false => None,
                    };
                    let known = known.filter(|known| known.id == image.id);
                    let manifest = known
                        .as_ref()
                        .map_or(&image.manifest, |known| &known.manifest);
                    store.tag(&image.id, manifest, &reference)?;
                    names.push(name.familiar());
                }
            }
            loaded.push(LoadedImage {
                id: image.id.to_string(),
                names,
                platforms: image.platforms.iter().map(ToString::to_string).collect(),
                left_out: image.left_out,
            });
        }
        Ok(loaded)
    }
}

fn images(bundle: &Bundle<'_>, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
    let document = |path| bundle.document(path, MANIFEST_LIMIT_BYTES);
    // What has both says more as a layout: manifests keep their digests.
    if let Some(index) = document(INDEX_FILE)?
        && let Some(version) = document(LAYOUT_FILE)?
    {
        check_version(&version).map_err(|source| bundle.refused(LoadError::Layout { source }))?;
        return layout::load(bundle, &index, platform);
    }
    let Some(manifest) = document(DOCKER_MANIFEST_FILE)? else {
        return Err(bundle.refused(match document(ANCIENT_FILE)? {
            Some(_) => LoadError::Ancient,
            None => LoadError::NoImages,
        }));
    };
    let found = docker::load(bundle, &manifest)?;
    let Some(wanted) = platform else {
        return Ok(found);
    };
    let fits = |image: &Found| {
        let mut has = image.platforms.iter();
        has.any(|has| oci_platform(wanted).accepts(&oci_platform(has)))
    };
    let found: Vec<Found> = found.into_iter().filter(fits).collect();
    match found.is_empty() {
        true => Err(bundle.refused(LoadError::NoPlatform {
            wanted: wanted.to_string(),
        })),
        false => Ok(found),
    }
}
