//! The images of a build's plan: what each is, found out once, and bringing their layers.

use kiln_ir::{
    ImageSource, NodeId, OciLayoutSource, Op, Pin, Plan, Platform, ResolveMode, SourceOp,
};
use kiln_store::{Content, DiffId};

use super::{BuildWorker, lock, unknown_attribute, unsupported};
use crate::error::Error;
use crate::executor::host_platform;
use crate::source::{ResolvedImage, fetch, fetch_archive};

impl BuildWorker {
    /// What a source of images is, which is found out once.
    pub(super) async fn image(&self, plan: &Plan, node: NodeId) -> Result<ResolvedImage, Error> {
        if let Some(image) = lock(&self.images).get(&node) {
            return Ok(image.clone());
        }
        let pin = match plan.pins.get(&node) {
            Some(Pin::Manifest(digest)) => Some(digest.as_str()),
            _ => None,
        };
        let this = plan.graph.node(node);
        let platform = this.platform.clone().unwrap_or_else(host_platform);
        let image = match &this.op {
            Op::Source(SourceOp::Image(source)) => {
                self.registry_image(source, &platform, pin).await?
            }
            Op::Source(SourceOp::OciLayout(source)) => self.layout_image(source, &platform, pin)?,
            Op::Source(SourceOp::Blob(blob)) => {
                return Err(unsupported("a blob source", &blob.reference));
            }
            _ => unreachable!("BUG: node {node:?} is no source that is pinned"),
        };
        let other = self
            .configs
            .get(&node)
            .is_some_and(|config| *config != image.config);
        if let (true, Op::Source(SourceOp::Image(source))) = (other, &this.op) {
            return Err(Error::OtherConfig {
                reference: source.reference.clone(),
                digest: image.manifest_digest,
            });
        }
        lock(&self.images).insert(node, image.clone());
        Ok(image)
    }

    async fn registry_image(
        &self,
        source: &ImageSource,
        platform: &Platform,
        pin: Option<&str>,
    ) -> Result<ResolvedImage, Error> {
        if let Some((name, value)) = source.attrs.first_key_value() {
            return Err(unknown_attribute(name, value));
        }
        let image = match pin.or(source.checksum.as_deref()) {
            Some(wanted) => self.pinned_image(source, platform, wanted).await?,
            None => {
                self.resolver
                    .image(&source.reference, platform, source.resolve_mode)
                    .await?
            }
        };
        Ok(limited(image, source.layer_limit))
    }

    /// The image that a pin names, whatever its tag means now, without asking about the tag.
    async fn pinned_image(
        &self,
        source: &ImageSource,
        platform: &Platform,
        wanted: &str,
    ) -> Result<ResolvedImage, Error> {
        let (name, mode) = (&source.reference, source.resolve_mode);
        let is_wanted = |image: &ResolvedImage| image.manifest_digest == wanted;
        if let Some(image) = self.resolver.known(name, platform, mode).filter(is_wanted) {
            return Ok(image);
        }
        let local = self.resolver.image(name, platform, ResolveMode::Local);
        if let Some(image) = local.await.ok().filter(is_wanted) {
            return Ok(image);
        }
        let name = name.split('@').next().unwrap_or_default();
        // A digest means the same for ever, so that nobody is asked twice.
        let mode = match mode {
            ResolveMode::Pull => ResolveMode::Default,
            mode => mode,
        };
        let pinned = format!("{name}@{wanted}");
        self.resolver.image(&pinned, platform, mode).await
    }

    fn layout_image(
        &self,
        source: &OciLayoutSource,
        platform: &Platform,
        pin: Option<&str>,
    ) -> Result<ResolvedImage, Error> {
        if let Some((name, value)) = source.attrs.first_key_value() {
            return Err(unknown_attribute(name, value));
        }
        let image = self
            .resolver
            .layout(&self.locals, &source.reference, platform)?;
        let image = match pin {
            Some(pin) if image.manifest_digest != pin => {
                // The layout was written to since the pin was taken; the pin counts.
                let name = source.reference.split('@').next().unwrap_or_default();
                let pinned = format!("{name}@{pin}");
                self.resolver.layout(&self.locals, &pinned, platform)?
            }
            _ => image,
        };
        Ok(limited(image, source.layer_limit))
    }

    /// The images of this plan that are known by now.
    pub(crate) fn resolved_images(&self) -> Vec<ResolvedImage> {
        lock(&self.images).values().cloned().collect()
    }

    /// What a source of images is, if that is known by now.
    pub(crate) fn known_image(&self, node: NodeId) -> Option<ResolvedImage> {
        lock(&self.images).get(&node).cloned()
    }

    /// The first thing that is found of an image of this plan that is known by now.
    pub(crate) fn find_image<T>(&self, find: impl FnMut(&ResolvedImage) -> Option<T>) -> Option<T> {
        lock(&self.images).values().find_map(find)
    }

    /// Brings the archive of a layer here once more; tells whether some image of this plan, which
    /// is not in the store itself, has the layer.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    pub(crate) fn fetch_archive(&self, layer: DiffId) -> Result<bool, Error> {
        for image in self.resolved_images() {
            let bring = fetch_archive(self.executor(), self.lease(), &image, layer, self.stop());
            if image.can_bring(layer, self.executor().options().offline)
                && tokio::runtime::Handle::current().block_on(bring)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fetches the images of this plan that have one of these layers.
    pub(crate) async fn fetch_missing(&self, missing: &[Content]) -> Result<(), Error> {
        for image in self.resolved_images() {
            let has = |layer: &Content| matches!(layer, Content::DiffId(id) if image.diff_ids.contains(id));
            if missing.iter().any(has) {
                let stop = self.stop();
                fetch(self.executor(), self.lease(), &image, None, stop).await?;
            }
        }
        Ok(())
    }
}

fn limited(mut image: ResolvedImage, limit: Option<u32>) -> ResolvedImage {
    if let Some(limit) = limit {
        image.diff_ids.truncate(limit as usize);
        image.blobs.truncate(limit as usize);
    }
    image
}

/// What an image is to keys: its layers, wherever they come from. How it is configured is in the plan.
pub(super) fn identity(image: &ResolvedImage) -> Vec<u8> {
    let ids = image.diff_ids.iter().map(|id| format!(" {id}"));
    format!("layers{}", ids.collect::<String>()).into_bytes()
}
