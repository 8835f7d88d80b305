//! How an image is written, wherever it goes.

use kiln_oci::media_type::{Compression, Flavor};
use kiln_oci::reference::Reference;
use kiln_tree::tar::MtimePolicy;

use super::annotations::Annotation;
use crate::compress::LayerCompression;
use crate::error::Error;

/// What can be said of an exported image beside where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Names beside those of the build.
    pub names: Vec<String>,
    /// Whose media types; by default docker's in a docker archive and OCI's elsewhere.
    pub flavor: Option<Flavor>,
    /// How layers become blobs; without it as they do everywhere. kiln's own store packs none unless this says so, or a
    /// name holds the digest.
    pub packing: Option<LayerCompression>,
    /// What its documents say.
    pub annotations: Vec<Annotation>,
    /// Whether an epoch is the time of all files of layers made here, which it is by default.
    pub rewrite_timestamp: Option<bool>,
    /// Each name also with the digest of the manifest.
    pub name_canonical: bool,
    /// What an image without a name is called before its digest.
    pub dangling_name_prefix: Option<String>,
}

impl ImageOptions {
    /// An image with these names beside those of the build.
    pub fn named(names: &[&str]) -> ImageOptions {
        ImageOptions {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..ImageOptions::default()
        }
    }

    /// How layers become blobs where they do.
    pub(super) fn packing(&self) -> LayerCompression {
        self.packing.unwrap_or_default()
    }

    /// Whether layers are packed for kiln's own store too: to be what was asked for, or for the digest
    /// of a manifest that a registry will have.
    pub(super) fn is_packed(&self) -> bool {
        self.packing.is_some() || self.name_canonical || self.dangling_name_prefix.is_some()
    }

    /// The names of an image, with those that have its digest.
    pub(super) fn all_names(
        &self,
        names: &[Reference],
        digest: &str,
    ) -> Result<Vec<Reference>, Error> {
        let mut all = names.to_vec();
        if let (true, Some(prefix)) = (names.is_empty(), &self.dangling_name_prefix) {
            all.push(Reference::parse(&format!("{prefix}@{digest}"))?);
        }
        if self.name_canonical {
            for name in names.iter().filter(|name| name.digest().is_none()) {
                all.push(Reference::parse(&format!("{name}@{digest}"))?);
            }
        }
        Ok(all)
    }

    /// Whose media types; docker has none for some of what can be asked for.
    pub(super) fn flavor(&self) -> Flavor {
        match self.packing().compression {
            Compression::Zstd => Flavor::Oci,
            _ => self.flavor.unwrap_or_default(),
        }
    }

    /// The same for a docker archive.
    pub(super) fn for_docker(&self) -> ImageOptions {
        ImageOptions {
            flavor: self.flavor.or(Some(Flavor::Docker)),
            ..self.clone()
        }
    }

    /// The times of files in layers made here.
    pub(super) fn mtime(&self, epoch: Option<i64>) -> MtimePolicy {
        match epoch {
            Some(epoch) if self.rewrite_timestamp != Some(false) => MtimePolicy::Fixed(epoch),
            _ => MtimePolicy::Keep,
        }
    }
}
