//! Images of several platforms as one: an index of their manifests.

use kiln_oci::document::{Descriptor, Index};
use kiln_oci::layout::{self, Document};
use kiln_oci::media_type::Flavor;
use kiln_oci::reference::Reference;
use kiln_store::{Attestation, ImageId, Lease, Member, NewIndex, Store};
use sha2::{Digest, Sha256};

use super::image::{self, Image, Kept};
use crate::attestation;
use crate::error::Error;

/// Keeps the images in the store, and under `names` the index of them.
///
/// As with the manifests that the store keeps, the index is not the one that another export has.
pub(super) fn keep(
    images: &[Image],
    store: &Store,
    lease: &Lease,
    names: &[Reference],
) -> Result<Kept, Error> {
    let mut manifests = Vec::with_capacity(images.len());
    let mut members = Vec::with_capacity(images.len());
    let mut beside = Vec::new();
    let mut attestations = Vec::new();
    for (place, image) in images.iter().enumerate() {
        let manifest = image.put(store, lease)?.0;
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
        });
    }
    manifests.append(&mut beside);
    let index = Index::new(Flavor::Oci, manifests).to_bytes();
    let id = ImageId(Sha256::digest(&index).into());
    let manifest = Descriptor::of(Flavor::Oci.index(), &index);
    let was_there = image::find(store, lease, &id)?.is_some();
    store.put_index(lease, &NewIndex { id, index, members })?;
    if !attestations.is_empty() {
        store.put_attestations(&id, &attestations)?;
    }
    Ok(Kept {
        id,
        manifest,
        same_as_before: image::name(store, lease, &id, was_there, names)?,
    })
}

/// The index and all its images as a layout has them, once their layers are packed.
pub(super) fn layout(images: &[Image], names: &[Reference]) -> layout::Export {
    let mut manifests = Vec::with_capacity(images.len());
    let mut documents = Vec::new();
    let mut blobs = Vec::new();
    let mut beside = Vec::new();
    for image in images {
        let part = image.layout(Flavor::Oci, &[]);
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
    let index = Index::new(Flavor::Oci, manifests).to_bytes();
    let root = Descriptor::of(Flavor::Oci.index(), &index);
    documents.push(Document {
        descriptor: root.clone(),
        bytes: index.into(),
    });
    layout::Export {
        root,
        names: names.to_vec(),
        documents,
        blobs,
    }
}
