//! What base images say of their layers, and bringing what they name.
//!
//! A layer of a base leaves in the blob that the base's manifest names, whichever archive of it the store
//! happens to have; so an image has one digest on all machines.

use std::fs::File;
use std::io;

use kiln_ir::NodeId;
use kiln_oci::digest::VerifyingReader;
use kiln_oci::document::Descriptor;
use kiln_solver::ContentId;
use kiln_store::{Content, DiffId};

use super::image::blob_digest;
use super::unless_stopped;
use crate::cache::CachedLayer;
use crate::error::Error;
use crate::source::{Place, ResolvedImage, blob_path, bring_from_anywhere};
use crate::stack::to_store;
use crate::worker::{BuildWorker, Handle};

/// The images that layers came from.
pub(crate) trait Bases {
    /// What its manifest has the highest layer of a stack as.
    fn blob(&self, stack: &[Content]) -> Option<Descriptor>;

    /// Whether an archive that is not compressed is one that an image came with; else it only stands for a layer
    /// that was made here, and that nobody packed yet.
    fn has_archive(&self, blob: &Descriptor) -> Result<bool, Error>;

    /// Whether a blob that is not here can be left where it is; if so, whoever sends it can find it there.
    fn leave(&self, blob: &Descriptor) -> Result<bool, Error>;

    /// Brings a blob here as it is, and leases it.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    fn bring(&self, blob: &Descriptor) -> Result<(), Error>;

    /// Brings the archive that a layer was pulled as here once more, though its files are here; `false` where
    /// nobody has it.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    fn bring_archive(&self, layer: DiffId) -> Result<bool, Error>;

    /// A layer that others made, with its archive packed like this, that was left in a registry; whoever sends it can
    /// find it there.
    fn left(
        &self,
        layer: &Content,
        times: &str,
        packed: &str,
    ) -> Result<Option<CachedLayer>, Error> {
        let _ = (layer, times, packed);
        Ok(None)
    }

    /// Is told what leaves otherwise than its image names it.
    fn warn(&self, line: String);
}

/// Nothing is known of where layers came from.
pub(crate) struct NoBases;

impl Bases for NoBases {
    fn blob(&self, _: &[Content]) -> Option<Descriptor> {
        None
    }

    fn has_archive(&self, _: &Descriptor) -> Result<bool, Error> {
        Ok(false)
    }

    fn leave(&self, _: &Descriptor) -> Result<bool, Error> {
        Ok(false)
    }

    fn bring(&self, _: &Descriptor) -> Result<(), Error> {
        unreachable!("BUG: a blob that nobody named is to be brought")
    }

    fn bring_archive(&self, _: DiffId) -> Result<bool, Error> {
        Ok(false)
    }

    fn warn(&self, _: String) {}
}

/// The bases of a build.
pub(crate) struct BuildBases<'a> {
    pub(crate) worker: &'a BuildWorker,
    /// The node of the image that the result lies on.
    pub(crate) image: Option<NodeId>,
    /// Images are only sent, and what a registry has need not come here.
    pub(crate) leaves: bool,
}

impl Bases for BuildBases<'_> {
    fn blob(&self, stack: &[Content]) -> Option<Descriptor> {
        self.worker.named_blob(self.image, stack)
    }

    fn has_archive(&self, blob: &Descriptor) -> Result<bool, Error> {
        self.worker.has_archive(blob)
    }

    fn leave(&self, blob: &Descriptor) -> Result<bool, Error> {
        Ok(self.leaves && self.worker.is_served(blob)? && self.worker.note_place(blob)?)
    }

    fn bring(&self, blob: &Descriptor) -> Result<(), Error> {
        self.worker.bring_blob(blob)
    }

    fn bring_archive(&self, layer: DiffId) -> Result<bool, Error> {
        self.worker.fetch_archive(layer)
    }

    fn left(
        &self,
        layer: &Content,
        times: &str,
        packed: &str,
    ) -> Result<Option<CachedLayer>, Error> {
        match self.worker.elsewhere().filter(|_| self.leaves) {
            Some(elsewhere) => elsewhere.left(layer, times, packed),
            None => Ok(None),
        }
    }

    fn warn(&self, line: String) {
        self.worker.warn().tell(line);
    }
}

impl BuildWorker {
    /// The layers of an image of this plan, as its config lists them; those that a registry has are left there.
    pub async fn image_handle(&self, content: &[ContentId]) -> Result<Handle, Error> {
        let layers = to_store(content);
        let missing = self
            .executor()
            .store()
            .lease_layers(self.lease(), &layers)?;
        if !missing.iter().all(|layer| self.is_afar(layer)) {
            self.fetch_missing(&missing).await?;
        }
        Ok(Handle::layers(layers))
    }

    /// Whether a layer is one of an image of this plan that a registry has.
    pub(super) fn is_afar(&self, layer: &Content) -> bool {
        let afar = self.find_image(|image| {
            let in_registry = matches!(image.place, Place::Registry(_));
            in_registry.then(|| named(image, layer))?
        });
        afar.is_some()
    }

    /// What the image of this plan that a stack is from, `base` if it can be, has its highest layer as; else
    /// any image that has it.
    pub(crate) fn named_blob(&self, base: Option<NodeId>, stack: &[Content]) -> Option<Descriptor> {
        let layer = stack.last()?;
        let begins_so = |image: &ResolvedImage| {
            let layers = Content::of_image(&image.diff_ids);
            layers.starts_with(stack).then(|| named(image, layer))?
        };
        base.and_then(|base| begins_so(&self.known_image(base)?))
            .or_else(|| self.find_image(begins_so))
            .or_else(|| self.find_image(|image| named(image, layer)))
    }

    /// Whether an archive that an image of this plan names is not only the layer's name.
    fn has_archive(&self, blob: &Descriptor) -> Result<bool, Error> {
        let (store, digest) = (self.executor().store(), blob_digest(&blob.digest));
        let found = self.find_image(|image| match &image.place {
            _ if !names(image, blob) => None,
            Place::Registry(_) | Place::Layout(_) => Some(Ok(true)),
            Place::Store { image, .. } => match store.attached_blob(self.lease(), image, &digest) {
                Ok(None) => None,
                found => Some(found.map(|found| found.is_some())),
            },
            Place::Engine { .. } => None,
        });
        Ok(found.transpose()?.unwrap_or(false))
    }

    /// Whether a registry has a blob of this plan's images. It is asked about those of other engines.
    fn is_served(&self, blob: &Descriptor) -> Result<bool, Error> {
        let found = self.find_image(|image| match &image.place {
            _ if !names(image, blob) => None,
            Place::Registry(_) => Some(None),
            Place::Engine { name, .. } => Some(Some(name.clone())),
            Place::Store { .. } | Place::Layout(_) => None,
        });
        let name = match found {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some(name)) => name,
        };
        let client = self.executor().registry()?;
        let asked = unless_stopped(self.stop(), client.has_blob(&name, &blob.digest));
        // Whoever has other questions to it is told what is wrong with it.
        let size = tokio::runtime::Handle::current().block_on(asked)?;
        Ok(size.is_ok_and(|size| size == Some(blob.size)))
    }

    /// Keeps which registry has a blob of this plan's images, or may have it; tells whether there is one.
    pub(crate) fn note_place(&self, blob: &Descriptor) -> Result<bool, Error> {
        let repository = self.find_image(|image| match &image.place {
            Place::Registry(name) | Place::Engine { name, .. } if names(image, blob) => {
                Some(name.name())
            }
            _ => None,
        });
        let store = self.executor().store();
        match repository {
            Some(repository) => {
                store.put_places(&repository, &[blob_digest(&blob.digest)])?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Brings a blob of this plan's images here as it is.
    fn bring_blob(&self, blob: &Descriptor) -> Result<(), Error> {
        let directory = self.find_image(|image| match &image.place {
            Place::Layout(directory) if names(image, blob) => Some(directory.clone()),
            _ => None,
        });
        let Some(directory) = directory else {
            self.note_place(blob)?;
            let bring = bring_from_anywhere(self.executor(), self.lease(), blob);
            let bring = unless_stopped(self.stop(), bring);
            return tokio::runtime::Handle::current().block_on(bring)?;
        };
        let (store, path) = (self.executor().store(), blob_path(&directory, blob));
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut reader = VerifyingReader::new(file, blob.digest, Some(blob.size));
        let mut writer = store.write_blob(Some(blob_digest(&blob.digest)))?;
        io::copy(&mut reader, &mut writer).map_err(Error::io("copy", &path))?;
        writer.finish(self.lease())?;
        Ok(())
    }

    /// Brings layers here that were left where they are.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    pub(crate) fn fetch_afar(&self, layers: &[Content]) -> Result<(), Error> {
        let missing = self.executor().store().lease_layers(self.lease(), layers)?;
        tokio::runtime::Handle::current().block_on(self.fetch_missing(&missing))
    }
}

/// What an image's manifest has a layer as, if it is one of its layers.
fn named(image: &ResolvedImage, layer: &Content) -> Option<Descriptor> {
    let Content::DiffId(layer) = layer else {
        return None;
    };
    let place = image.diff_ids.iter().position(|id| id == layer)?;
    image.blobs.get(place).cloned()
}

/// Whether an image's manifest names a blob.
fn names(image: &ResolvedImage, blob: &Descriptor) -> bool {
    image.blobs.iter().any(|named| named.digest == blob.digest)
}
