//! An image put together: its config, its manifest in either vocabulary, and its entry in the store.

use std::collections::BTreeMap;
use std::time::SystemTime;

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Manifest};
use kiln_oci::layout::{self, Document};
use kiln_oci::media_type::{Compression, Flavor, layer_compression};
use kiln_oci::platform::Platform;
use kiln_oci::reference::Reference;
use kiln_store::{BlobDigest, Content, ImageId, Lease, NewImage, Store, StoreError};
use kiln_tree::tar::MtimePolicy;
use sha2::{Digest, Sha256};

use super::layers::{self, Blob, Layer, LayerArchive};
use super::{AnnotationPlace, ImageOptions, ResultToExport, annotations, config, times};
use crate::attestation::{self, Predicate};
use crate::cache::PACKED_KEY;
use crate::error::Error;
use crate::sbom::{Purpose, Subject};

/// An image whose layers are known, and perhaps packed.
pub(super) struct Image {
    pub(super) id: ImageId,
    config: Vec<u8>,
    platform: Platform,
    /// What annotations may be for.
    built_for: Option<kiln_ir::Platform>,
    layers: Vec<Layer>,
    created: SystemTime,
    mtime: MtimePolicy,
    /// What is said of it.
    pub(super) predicates: Vec<Predicate>,
    /// How its own layers are compressed, in words for whoever takes them from the cache in its config.
    pub(super) packed_as: Option<String>,
}

impl Image {
    /// Puts an image together from its layers.
    pub(super) fn new(
        image: &ResultToExport,
        epoch: Option<i64>,
        layers: Vec<Layer>,
        mtime: MtimePolicy,
    ) -> Result<Image, Error> {
        let made: Vec<_> = layers
            .iter()
            .map(|layer| times::of_clock(layer.created))
            .collect();
        let given = match (&image.config, &image.platform) {
            (Some(config), _) => config.clone(),
            (None, Some(platform)) => config::plain_for(platform),
            (None, None) => config::plain(),
        };
        let (config, created) = config::complete(&given, &made, epoch);
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect();
        let json = config.to_json(&diff_ids)?.into_bytes();
        Ok(Image {
            id: ImageId(Sha256::digest(&json).into()),
            config: json,
            built_for: annotations::platform_of_result(image),
            platform: Platform::new(config.os, config.architecture, config.variant),
            layers,
            created: created.map_or(SystemTime::UNIX_EPOCH, times::to_clock),
            mtime,
            predicates: Vec::new(),
            packed_as: None,
        })
    }

    /// The files that say beside exported files what is said of it.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        attestation::files(&self.id.0, &self.predicates)
    }

    /// What an inventory of the image is about.
    pub(super) fn subject(&self, name: &str) -> Subject {
        let diff_ids = self.layers.iter().map(|layer| layer.diff_id.to_string());
        Subject {
            name: name.to_owned(),
            digest: self.id.to_string(),
            layers: diff_ids.collect(),
            created: times::whole_seconds(self.created),
            purpose: Purpose::Container,
        }
    }

    /// Keeps the image in the store; returns its manifest, and whether it was there before.
    ///
    /// Nothing is compressed for this unless it was asked for. So the manifest that the store keeps lists
    /// layers as plain archives, but those of bases as these name them. It describes the
    /// image to people; whoever sends it elsewhere packs the layers and writes another.
    pub(super) fn keep(
        &self,
        store: &Store,
        lease: &Lease,
        options: &ImageOptions,
    ) -> Result<Kept, Error> {
        let was_there = find(store, lease, &self.id)?.is_some();
        let manifest = match options.is_packed() {
            true => self.packed_manifest(options),
            false => self.manifest(options, self.unpacked(options.flavor(), store, lease)?),
        };
        let manifest = manifest.to_bytes();
        store.put_image(
            lease,
            &NewImage {
                id: self.id,
                manifest: manifest.clone(),
                config: self.config.clone(),
                layers: self.layers.iter().map(|layer| layer.content).collect(),
                size_bytes: self.layers.iter().map(|layer| layer.size_bytes).sum(),
                created: self.created,
            },
        )?;
        if options.is_packed() {
            // So it leaves in the very bytes of its manifest.
            let blobs = self.layers.iter().filter_map(|layer| layer.blob);
            let blobs: Vec<BlobDigest> = blobs.map(|blob| blob.digest).collect();
            store.attach_blobs(&self.id, &blobs)?;
        }
        Ok(Kept {
            id: self.id,
            manifest: self.descriptor(options, &manifest),
            bytes: manifest,
            was_there,
        })
    }

    /// The bytes of its config.
    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    /// Its layers, lowest first.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The times of files of layers that were made here.
    pub(super) fn mtime(&self) -> MtimePolicy {
        self.mtime
    }

    /// What it runs on.
    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Its layers as the store has them.
    fn unpacked(
        &self,
        flavor: Flavor,
        store: &Store,
        lease: &Lease,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut descriptors = Vec::with_capacity(self.layers.len());
        let stack: Vec<Content> = self.layers.iter().map(|layer| layer.content).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            let pulled = layers::as_pulled(store, lease, &layer.content)?;
            let descriptor = match (&layer.named, pulled) {
                (Some(named), _) => {
                    let compression = layer_compression(&named.media_type);
                    let kind = flavor.layer(compression.unwrap_or(Compression::Gzip));
                    Descriptor::new(kind, named.digest, named.size)
                }
                (None, Some((_, blob))) => describe(flavor, blob),
                (None, None) => {
                    let archive = LayerArchive::of(store, &stack[..=index], self.mtime)?;
                    let size = archive.length()?;
                    let digest = Sha256Digest::from_bytes(layer.diff_id.0);
                    Descriptor::new(flavor.layer(Compression::None), digest, size)
                }
            };
            descriptors.push(descriptor);
        }
        Ok(descriptors)
    }

    /// Its layers as blobs.
    fn packed(&self, flavor: Flavor) -> Vec<Descriptor> {
        let blob = |layer: &Layer| {
            layer
                .blob
                .expect("BUG: an image is written before its layers are packed")
        };
        let layers = self.layers.iter();
        layers.map(|layer| describe(flavor, blob(layer))).collect()
    }

    fn manifest(&self, options: &ImageOptions, layers: Vec<Descriptor>) -> Manifest {
        let flavor = options.flavor();
        let config = Descriptor::of(flavor.config(), &self.config);
        let mut manifest = Manifest::new(flavor, config, layers);
        manifest.annotations = self.annotations(options, AnnotationPlace::Manifest);
        manifest
    }

    /// The manifest of its layers as blobs.
    fn packed_manifest(&self, options: &ImageOptions) -> Manifest {
        let mut manifest = self.manifest(options, self.packed(options.flavor()));
        if let (Some(words), Flavor::Oci) = (&self.packed_as, options.flavor()) {
            let annotations = &mut manifest.annotations;
            annotations.insert(PACKED_KEY.to_owned(), words.clone());
        }
        manifest
    }

    /// What lists its manifest.
    fn descriptor(&self, options: &ImageOptions, manifest: &[u8]) -> Descriptor {
        let mut descriptor = Descriptor::of(options.flavor().manifest(), manifest);
        descriptor.platform = Some(self.platform.clone());
        descriptor.annotations = self.annotations(options, AnnotationPlace::ManifestDescriptor);
        descriptor
    }

    fn annotations(
        &self,
        options: &ImageOptions,
        place: AnnotationPlace,
    ) -> BTreeMap<String, String> {
        annotations::of(&options.annotations, place, self.built_for.as_ref())
    }

    /// The image as a layout has it, once its layers are packed.
    pub(super) fn layout(&self, options: &ImageOptions) -> layout::Export {
        let flavor = options.flavor();
        let manifest = self.packed_manifest(options);
        let blobs = manifest.layers.clone();
        let manifest = manifest.to_bytes();
        let documents = vec![
            Document {
                descriptor: Descriptor::of(flavor.manifest(), &manifest),
                bytes: manifest.clone().into(),
            },
            Document {
                descriptor: Descriptor::of(flavor.config(), &self.config),
                bytes: self.config.clone().into(),
            },
        ];
        layout::Export {
            root: self.descriptor(options, &manifest),
            names: Vec::new(),
            documents,
            blobs,
        }
    }

    /// The image as `docker load` reads it, once its layers are packed.
    pub(super) fn docker(
        &self,
        options: &ImageOptions,
        names: &[Reference],
    ) -> layout::DockerExport {
        let mut image = self.layout(options);
        image.names = names.to_vec();
        let layers = image.blobs.iter().map(|blob| blob.digest).collect();
        layout::DockerExport {
            image,
            config: Sha256Digest::from_bytes(self.id.0),
            layers,
        }
    }
}

/// An image that the store keeps.
pub(super) struct Kept {
    pub(super) id: ImageId,
    /// Its manifest or index.
    pub(super) manifest: Descriptor,
    /// The bytes of that.
    pub(super) bytes: Vec<u8>,
    pub(super) was_there: bool,
}

/// Returns an image of the store by its id.
pub(super) fn find(
    store: &Store,
    lease: &Lease,
    id: &ImageId,
) -> Result<Option<kiln_store::Image>, Error> {
    match store.resolve_image(lease, &id.to_string()) {
        Ok(known) => Ok(Some(known)),
        Err(StoreError::NoSuchImage { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives an image of the store its names; tells whether the store had it under the first of them before,
/// or at all if it has no name.
pub(super) fn name(
    store: &Store,
    lease: &Lease,
    kept: &Kept,
    names: &[Reference],
) -> Result<bool, Error> {
    let named = match names.first() {
        Some(name) => store.image_by_name(lease, &name.to_string())?,
        None => None,
    };
    let named = named.filter(|named| named.id == kept.id);
    let is_named = named.as_ref().map(|named| &named.manifest) == Some(&kept.bytes);
    for name in &names[usize::from(is_named)..] {
        store.tag(&kept.id, &kept.bytes, &name.to_string())?;
    }
    Ok(kept.was_there && (names.is_empty() || named.is_some()))
}

/// An archive in the store as a manifest lists it.
pub(crate) fn describe(flavor: Flavor, blob: Blob) -> Descriptor {
    Descriptor::new(
        flavor.layer(blob.compression),
        Sha256Digest::from_bytes(blob.digest.0),
        blob.size,
    )
}

/// The store's word for a digest.
pub(crate) fn blob_digest(digest: &Sha256Digest) -> BlobDigest {
    BlobDigest(*digest.as_bytes())
}
