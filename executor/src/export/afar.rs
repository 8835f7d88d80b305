//! Layers of base images that a registry has and nobody needed here: left there, or brought as they are.

use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_solver::ContentId;
use kiln_store::{AS_PULLED, Content, DiffId};

use super::image::blob_digest;
use super::layers::Afar;
use crate::error::Error;
use crate::source::{Place, bring_blob};
use crate::stack::to_store;
use crate::worker::{BuildWorker, Handle};

impl BuildWorker {
    /// The layers of an image of this plan, as its config lists them; those that a registry has are left there.
    pub async fn image_handle(&self, content: &[ContentId]) -> Result<Handle, Error> {
        let layers = to_store(content);
        let missing = self
            .executor()
            .store()
            .lease_layers(self.lease(), &layers)?;
        let is_afar = |layer: &Content| match layer {
            Content::DiffId(id) => self.blob_afar(*id).is_some(),
            Content::Layer(_) => false,
        };
        if !missing.iter().all(is_afar) {
            self.fetch_missing(&missing).await?;
        }
        Ok(Handle::layers(layers))
    }

    /// Where the blob of a layer of this plan's images can be had.
    pub(crate) fn blob_afar(&self, layer: DiffId) -> Option<(Reference, Descriptor)> {
        self.resolved_images().into_iter().find_map(|image| {
            let Place::Registry { reference, blobs } = &image.place else {
                return None;
            };
            let place = image.diff_ids.iter().position(|id| *id == layer)?;
            Some((reference.clone(), blobs.get(place)?.clone()))
        })
    }

    /// Brings the blob of a layer here as it is, without unpacking it.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    pub(crate) fn bring_afar(&self, layer: DiffId) -> Result<bool, Error> {
        let Some((reference, blob)) = self.blob_afar(layer) else {
            return Ok(false);
        };
        let bring = bring_blob(self.executor(), self.lease(), &reference, &blob, &|_| {});
        tokio::runtime::Handle::current().block_on(bring)?;
        self.executor().store().put_compressed(
            &Content::DiffId(layer),
            "",
            AS_PULLED,
            &blob_digest(&blob.digest),
            &layer,
        )?;
        Ok(true)
    }

    /// Brings layers here that were left where they are.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    pub(crate) fn fetch_afar(&self, layers: &[Content]) -> Result<(), Error> {
        let missing = self.executor().store().lease_layers(self.lease(), layers)?;
        tokio::runtime::Handle::current().block_on(self.fetch_missing(&missing))
    }
}

impl Afar for BuildWorker {
    fn blob(&self, layer: DiffId) -> Option<Descriptor> {
        let (reference, blob) = self.blob_afar(layer)?;
        // So that whoever sends it knows whom to ask for it.
        let blobs = [blob_digest(&blob.digest)];
        let places = self
            .executor()
            .store()
            .put_places(&reference.name(), &blobs);
        places.is_ok().then_some(blob)
    }

    fn bring(&self, layer: DiffId) -> Result<bool, Error> {
        self.bring_afar(layer)
    }
}
