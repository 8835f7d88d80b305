//! Images of several platforms as one: an index of their manifests.

use kiln_oci::document::{Descriptor, Index};
use kiln_oci::layout::{self, Document};
use kiln_store::{Attestation, ImageId, Lease, Member, NewIndex, Store};
use sha2::{Digest, Sha256};

use super::image::{self, Image, Kept};
use super::{AnnotationPlace, ImageOptions, annotations};
use crate::attestation;
use crate::error::Error;

/// Keeps the images in the store, and the index of them.
///
/// As with the manifests that the store keeps, the index is not the one that another export has.
pub(super) fn keep(
    images: &[Image],
    store: &Store,
    lease: &Lease,
    options: &ImageOptions,
) -> Result<Kept, Error> {
    let mut manifests = Vec::with_capacity(images.len());
    let mut members = Vec::with_capacity(images.len());
    let mut beside = Vec::new();
    let mut attestations = Vec::new();
    for (place, image) in images.iter().enumerate() {
        let kept = image.keep(store, lease, options)?;
        let manifest = kept.manifest;
        if !image.predicates.is_empty() {
            beside.push(attestation::beside(&manifest, &image.predicates).descriptor);
        }
        for predicate in &image.predicates {
            attestations.push(Attestation {
                member: place,
                predicate_type: predicate.kind.clone(),
                predicate: predicate.json.clone().into_bytes(),
            });
        }
        manifests.push(manifest);
        members.push(Member {
            platform: image.platform().to_string(),
            id: image.id,
            manifest: kept.bytes,
        });
    }
    manifests.append(&mut beside);
    let (manifest, index) = write(manifests, options);
    let id = ImageId(Sha256::digest(&index).into());
    let was_there = image::find(store, lease, &id)?.is_some();
    let new = NewIndex { id, index, members };
    store.put_index(lease, &new)?;
    if !attestations.is_empty() {
        store.put_attestations(&id, &attestations)?;
    }
    Ok(Kept {
        id,
        manifest,
        bytes: new.index,
        was_there,
    })
}

/// The index and all its images as a layout has them, once their layers are packed.
pub(super) fn layout(images: &[Image], options: &ImageOptions) -> layout::Export {
    let mut manifests = Vec::with_capacity(images.len());
    let mut documents = Vec::new();
    let mut blobs = Vec::new();
    let mut beside = Vec::new();
    for image in images {
        let part = image.layout(options);
        if !image.predicates.is_empty() {
            let attached = attestation::beside(&part.root, &image.predicates);
            beside.push(attached.descriptor);
            documents.extend(attached.documents);
        }
        manifests.push(part.root);
        documents.extend(part.documents);
        blobs.extend(part.blobs);
    }
    // As BuildKit has it, after all images.
    manifests.append(&mut beside);
    let (root, index) = write(manifests, options);
    documents.push(Document {
        descriptor: Descriptor::of(root.media_type.clone(), &index),
        bytes: index.into(),
    });
    layout::Export {
        root,
        names: Vec::new(),
        documents,
        blobs,
    }
}

/// The index of these manifests, and what lists it.
fn write(manifests: Vec<Descriptor>, options: &ImageOptions) -> (Descriptor, Vec<u8>) {
    let flavor = options.flavor();
    let of = |place| annotations::of(&options.annotations, place, None);
    let mut index = Index::new(flavor, manifests);
    index.annotations = of(AnnotationPlace::Index);
    let bytes = index.to_bytes();
    let mut root = Descriptor::of(flavor.index(), &bytes);
    root.annotations = of(AnnotationPlace::IndexDescriptor);
    (root, bytes)
}
