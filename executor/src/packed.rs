//! Images of the store as they leave it: documents, and blobs that the store has.
//!
//! What was pulled leaves in the bytes that it came in, manifest and all, as long as they are here or can
//! be had again; so it keeps its digest wherever it goes. Layers that were made here are packed, once for
//! each compression, and then the image has a manifest of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use bytes::Bytes;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{
    CONFIG_LIMIT_BYTES, Descriptor, Index, MANIFEST_LIMIT_BYTES, Manifest, annotation,
};
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type::{self, Compression, Flavor, layer_compression};
use kiln_oci::reference::Reference;
use kiln_store::{Attestation, Content, DiffId, Image, ImageId, Lease, Member};
use kiln_tree::Stop;
use kiln_tree::tar::MtimePolicy;

use crate::attestation::{self, Predicate};
use crate::cache::{INLINE_KEY, PACKED_KEY};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::export::{
    Annotation, AnnotationPlace, Bases, Packer, annotations, as_pulled, blob_digest, describe,
    unless_stopped,
};
use crate::images::{oci_platform, platform_of};
use crate::source::{self, Place, ResolvedImage, bring_from_anywhere, fetch_archive};

/// How images are made ready to leave the store.
pub(crate) struct Packing<'a> {
    pub(crate) executor: &'a Executor,
    /// Holds the images, and from then on their blobs.
    pub(crate) lease: &'a Lease,
    /// Of layers that were made here; of others too, if it says so.
    pub(crate) packing: LayerCompression,
    /// What is said of them beside what they say already.
    pub(crate) annotations: &'a [Annotation],
    pub(crate) stop: &'a Stop,
    /// Is told what is left out, a line each.
    pub(crate) warn: &'a (dyn Fn(String) + Sync),
}

/// Documents and blobs, each once.
#[derive(Default)]
struct Parts {
    seen: BTreeSet<Sha256Digest>,
    documents: Vec<Document>,
    blobs: Vec<Descriptor>,
}

impl Parts {
    fn document(&mut self, descriptor: Descriptor, bytes: Bytes) {
        if self.seen.insert(descriptor.digest) {
            self.documents.push(Document { descriptor, bytes });
        }
    }

    fn blob(&mut self, descriptor: &Descriptor) {
        if self.seen.insert(descriptor.digest) {
            self.blobs.push(descriptor.clone());
        }
    }

    fn join(&mut self, other: Parts) {
        for document in other.documents {
            self.document(document.descriptor, document.bytes);
        }
        for blob in &other.blobs {
            self.blob(blob);
        }
    }
}

impl Packing<'_> {
    /// Makes an image ready, for one platform or several; it has no names yet.
    ///
    /// Blocks; must be called where tokio's runtime can be, since what is gone may be brought again.
    pub(crate) fn pack(&self, image: &Image) -> Result<Export, Error> {
        let mut parts = Parts::default();
        let root = match image.is_index() {
            false => self.manifest(image, &mut parts)?,
            true => self.index(image, &mut parts)?,
        };
        Ok(Export {
            root,
            names: Vec::new(),
            documents: parts.documents,
            blobs: parts.blobs,
        })
    }

    /// Checks that all annotations have a place in an image, or in what it is `apart` from what is said of it.
    pub(crate) fn check(&self, image: &Image, apart: bool) -> Result<(), Error> {
        if self.annotations.is_empty() {
            return Ok(());
        }
        let platform = |image: &Image| Ok::<_, Error>(platform_of(&config(image)?));
        if !image.is_index() {
            return annotations::check(self.annotations, false, &[platform(image)?]);
        }
        let mut platforms = Vec::with_capacity(image.members.len());
        for member in &image.members {
            platforms.push(platform(&self.member(member)?)?);
        }
        let alone = apart
            && image.members.len() == 1
            && !self.executor.store().attestations(&image.id)?.is_empty();
        annotations::check(self.annotations, !alone, &platforms)
    }

    /// The manifest of an image for one platform, with its platform.
    fn manifest(&self, image: &Image, parts: &mut Parts) -> Result<Descriptor, Error> {
        let config = config(image)?;
        let platform = platform_of(&config);
        let said = annotations::of(self.annotations, AnnotationPlace::Manifest, Some(&platform));
        let kept = match self.leaves_as_packed(&image.manifest) {
            true => self.kept(&image.manifest, Some(image), &image.id)?,
            false => None,
        };
        let mut root = match kept {
            Some((root, kept)) if says(&image.manifest, &said) => {
                parts.join(kept);
                root
            }
            Some((root, mut kept)) => {
                kept.documents
                    .retain(|document| document.descriptor.digest != root.digest);
                parts.join(kept);
                let mut manifest = Manifest::from_slice(&image.manifest)
                    .map_err(|error| document("manifest", image, error))?;
                manifest.annotations.extend(said);
                let bytes = manifest.to_bytes();
                let root = Descriptor::of(&*root.media_type, &bytes);
                parts.document(root.clone(), bytes.into());
                root
            }
            None => self.packed(image, said, parts)?,
        };
        if !config.architecture.is_empty() {
            root.platform = Some(oci_platform(&platform));
        }
        Ok(root)
    }

    /// Whether the layers that a manifest names are packed as all are to be.
    fn leaves_as_packed(&self, manifest: &[u8]) -> bool {
        let compression = self.packing.compression;
        !self.packing.force
            || Manifest::from_slice(manifest).is_ok_and(|manifest| {
                let mut layers = manifest.layers.iter();
                layers.all(|layer| layer_compression(&layer.media_type) == Some(compression))
            })
    }

    /// Whether a manifest that an index lists may stay as it is.
    fn stays(&self, entry: &Descriptor, bytes: &[u8], member: Option<&Image>) -> bool {
        if entry.is_attestation() || !self.changes() {
            return true;
        }
        let Ok(manifest) = Manifest::from_slice(bytes) else {
            return true;
        };
        if !media_type::is_config(&manifest.config.media_type) {
            return true;
        }
        let config = member.and_then(|member| config(member).ok());
        let platform = config.map(|config| platform_of(&config));
        let of = |place| annotations::of(self.annotations, place, platform.as_ref());
        // Without its config nobody knows which annotations are for it.
        member.is_some()
            && self.leaves_as_packed(bytes)
            && says(bytes, &of(AnnotationPlace::Manifest))
            && of(AnnotationPlace::ManifestDescriptor)
                .iter()
                .all(|(key, value)| entry.annotations.get(key) == Some(value))
    }

    /// Whether images may leave otherwise than they are kept.
    fn changes(&self) -> bool {
        self.packing.force || !self.annotations.is_empty()
    }

    /// The index of an image for several platforms.
    fn index(&self, image: &Image, parts: &mut Parts) -> Result<Descriptor, Error> {
        let index =
            Index::from_slice(&image.manifest).map_err(|error| document("index", image, error))?;
        let mut members = Vec::with_capacity(image.members.len());
        for member in &image.members {
            members.push(self.member(member)?);
        }
        let mut kept = Parts::default();
        let said = annotations::of(self.annotations, AnnotationPlace::Index, None);
        let mut same = said.iter();
        let mut whole = same.all(|(key, value)| index.annotations.get(key) == Some(value));
        for entry in &index.manifests {
            if !whole {
                break;
            }
            match self.kept_entry(image, entry, &members)? {
                Some(part) => kept.join(part),
                None => whole = false,
            }
        }
        if whole {
            parts.join(kept);
            let root = Descriptor::of(media_type_of(&index), &image.manifest);
            parts.document(root.clone(), image.manifest.clone().into());
            return Ok(root);
        }
        let index = self.repacked(image, &index, &members, parts)?;
        let bytes = index.to_bytes();
        let root = Descriptor::of(media_type_of(&index), &bytes);
        parts.document(root.clone(), bytes.into());
        Ok(root)
    }

    fn member(&self, member: &Member) -> Result<Image, Error> {
        Ok(self.executor.store().member(self.lease, member)?)
    }

    /// An entry of an index with all that it leads to, if that is here as it was.
    fn kept_entry(
        &self,
        image: &Image,
        entry: &Descriptor,
        members: &[Image],
    ) -> Result<Option<Parts>, Error> {
        let of_member = members
            .iter()
            .find(|member| Sha256Digest::of(&member.manifest) == entry.digest);
        let bytes = match of_member {
            Some(member) => Some(Bytes::from(member.manifest.clone())),
            None => self.attached(&image.id, entry, MANIFEST_LIMIT_BYTES)?,
        };
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        if media_type::is_index(&entry.media_type) {
            // What is in an index within an index is no image that the store knows by itself.
            let Ok(inner) = Index::from_slice(&bytes) else {
                return Ok(None);
            };
            let mut parts = Parts::default();
            for entry in inner.manifests {
                let manifest = match media_type::is_index(&entry.media_type) {
                    true => None,
                    false => self.attached(&image.id, &entry, MANIFEST_LIMIT_BYTES)?,
                };
                let kept = match manifest {
                    Some(bytes) => {
                        let member = self.member_of(&bytes, members);
                        match self.stays(&entry, &bytes, member) {
                            true => self.kept(&bytes, member, &image.id)?,
                            false => None,
                        }
                    }
                    None => None,
                };
                match kept {
                    Some((_, part)) => parts.join(part),
                    None => return Ok(None),
                }
            }
            parts.document(entry.clone(), bytes);
            return Ok(Some(parts));
        }
        let member = of_member.or_else(|| self.member_of(&bytes, members));
        if !self.stays(entry, &bytes, member) {
            return Ok(None);
        }
        Ok(self
            .kept(&bytes, member, &image.id)?
            .map(|(_, parts)| parts))
    }

    /// The member that a manifest is of.
    fn member_of<'i>(&self, manifest: &[u8], members: &'i [Image]) -> Option<&'i Image> {
        let manifest = Manifest::from_slice(manifest).ok()?;
        let config = ImageId(*manifest.config.digest.as_bytes());
        members.iter().find(|member| member.id == config)
    }

    /// A manifest as it is kept, with all that it leads to; none unless all of that is here in the
    /// very bytes that it names, or was brought here for this.
    ///
    /// `image` is what the store made of it; `owner` has its other blobs.
    fn kept(
        &self,
        bytes: &[u8],
        image: Option<&Image>,
        owner: &ImageId,
    ) -> Result<Option<(Descriptor, Parts)>, Error> {
        let Ok(manifest) = Manifest::from_slice(bytes) else {
            return Ok(None);
        };
        let mut parts = Parts::default();
        let config = &manifest.config;
        let config_bytes = match image {
            Some(image) if *config.digest.as_bytes() == image.id.0 => {
                Some(Bytes::from(image.config.clone()))
            }
            _ => self.attached(owner, config, CONFIG_LIMIT_BYTES)?,
        };
        let Some(config_bytes) = config_bytes else {
            return Ok(None);
        };
        parts.document(config.clone(), config_bytes);
        let diff_ids = image.map(diff_ids).transpose()?;
        let count = diff_ids.as_ref().map(Vec::len);
        if count.is_some_and(|count| count != manifest.layers.len()) {
            return Ok(None);
        }
        let mut missing = Vec::new();
        for (index, layer) in manifest.layers.iter().enumerate() {
            parts.blob(layer);
            let diff_id = diff_ids.as_ref().map(|diff_ids| diff_ids[index]);
            if self.is_as_it_came(layer, diff_id, image, owner)? {
                continue;
            }
            // An archive that nobody packed yet stands for a layer that was made here.
            if diff_id.is_some_and(|diff_id| diff_id.0 == *layer.digest.as_bytes()) {
                return Ok(None);
            }
            missing.push(layer);
        }
        for layer in missing {
            match self.bring(owner, layer) {
                Ok(()) => {}
                Err(_) if self.stop.is_set() => return Err(Error::Cancelled),
                // What cannot be had as it was is packed anew.
                Err(_) => return Ok(None),
            }
        }
        let stated = match manifest.media_type.is_empty() {
            true => media_type::OCI_MANIFEST,
            false => &manifest.media_type,
        };
        let root = Descriptor::of(stated, bytes);
        parts.document(root.clone(), Bytes::copy_from_slice(bytes));
        Ok(Some((root, parts)))
    }

    /// Whether a layer's blob is here and is the one that was pulled; leases it.
    fn is_as_it_came(
        &self,
        layer: &Descriptor,
        diff_id: Option<DiffId>,
        image: Option<&Image>,
        owner: &ImageId,
    ) -> Result<bool, Error> {
        let store = self.executor.store();
        let blob = blob_digest(&layer.digest);
        if let Some(diff_id) = diff_id
            && let Some((_, found)) = as_pulled(store, self.lease, &Content::DiffId(diff_id))?
            && found.digest == blob
        {
            return Ok(true);
        }
        for owner in image.map(|image| &image.id).into_iter().chain([owner]) {
            if store.attached_blob(self.lease, owner, &blob)? == Some(layer.size) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The bytes of a document that an image keeps beside its layers.
    fn attached(
        &self,
        owner: &ImageId,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Option<Bytes>, Error> {
        let store = self.executor.store();
        let blob = blob_digest(&descriptor.digest);
        match store.attached_blob(self.lease, owner, &blob)? {
            Some(size) if size <= limit_bytes => {}
            _ => return Ok(None),
        }
        let mut bytes = Vec::new();
        store
            .open_blob(&blob)?
            .take(limit_bytes)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", store.root().join("blobs")))?;
        Ok((Sha256Digest::of(&bytes) == descriptor.digest).then(|| bytes.into()))
    }

    /// Brings a blob here from a repository that was seen to have it, for an image of the store.
    fn bring(&self, owner: &ImageId, blob: &Descriptor) -> Result<(), Error> {
        let bring = bring_from_anywhere(self.executor, self.lease, blob);
        let bring = unless_stopped(self.stop, bring);
        tokio::runtime::Handle::current().block_on(bring)??;
        let store = self.executor.store();
        Ok(store.attach_blobs(owner, &[blob_digest(&blob.digest)])?)
    }

    /// Packs the layers of an image and writes a manifest that lists them and says this more.
    fn packed(
        &self,
        image: &Image,
        said: BTreeMap<String, String>,
        parts: &mut Parts,
    ) -> Result<Descriptor, Error> {
        let kept = Manifest::from_slice(&image.manifest)
            .map_err(|error| document("manifest", image, error))?;
        let diff_ids = diff_ids(image)?;
        let bases = KeptBases {
            packing: self,
            image,
            blobs: &kept.layers,
            diff_ids: &diff_ids,
        };
        let layers = Packer {
            store: self.executor.store(),
            lease: self.lease,
            mtime: MtimePolicy::Keep,
            packing: self.packing,
            stop: self.stop,
            bases: &bases,
        }
        .pack_as(&image.layers, &diff_ids)
        .map_err(|error| match error {
            _ if self.stop.is_set() => Error::Cancelled,
            error => error,
        })?;
        let flavor = match (kept.media_type.as_str(), self.packing.compression) {
            // Docker has no media type for it.
            (_, Compression::Zstd) => Flavor::Oci,
            (media_type::DOCKER_MANIFEST, _) => Flavor::Docker,
            _ => Flavor::Oci,
        };
        let blobs: Vec<Descriptor> = layers
            .iter()
            .filter_map(|layer| Some(describe(flavor, layer.blob?)))
            .collect();
        for blob in &blobs {
            parts.blob(blob);
        }
        let mut manifest = Manifest {
            layers: blobs,
            ..kept
        };
        if manifest.media_type == media_type::DOCKER_MANIFEST && flavor == Flavor::Oci {
            manifest.media_type = flavor.manifest().to_owned();
            manifest.config.media_type = flavor.config().to_owned();
        }
        manifest.annotations.remove(PACKED_KEY);
        let made_here = |content: &Content| matches!(content, Content::Layer(_));
        if flavor == Flavor::Oci
            && config(image)?.extra.contains_key(INLINE_KEY)
            && image.layers.iter().any(made_here)
        {
            let words = self.packing.filed_as().into_owned();
            manifest.annotations.insert(PACKED_KEY.to_owned(), words);
        }
        manifest.annotations.extend(said);
        parts.document(manifest.config.clone(), image.config.clone().into());
        let bytes = manifest.to_bytes();
        let root = Descriptor::of(flavor.manifest(), &bytes);
        parts.document(root.clone(), bytes.into());
        Ok(root)
    }

    /// Brings the archive of a layer that another tool made here once more.
    fn bring_archive(&self, layer: DiffId, blob: &Descriptor) -> Result<bool, Error> {
        if self.executor.options().offline {
            return Ok(false);
        }
        for place in self.executor.store().places(&blob_digest(&blob.digest))? {
            let Ok(reference) = Reference::parse(&place) else {
                continue;
            };
            let from = ResolvedImage {
                config: kiln_ir::ImageConfig::default(),
                manifest_digest: String::new(),
                label: String::new(),
                diff_ids: vec![layer],
                blobs: vec![blob.clone()],
                place: Place::Registry(reference),
            };
            let bring = fetch_archive(self.executor, self.lease, &from, layer, self.stop);
            match tokio::runtime::Handle::current().block_on(bring) {
                Ok(true) => return Ok(true),
                Err(_) if self.stop.is_set() => return Err(Error::Cancelled),
                Ok(false) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// An index of manifests that were packed anew.
    fn repacked(
        &self,
        image: &Image,
        index: &Index,
        members: &[Image],
        parts: &mut Parts,
    ) -> Result<Index, Error> {
        let entries: Vec<&Descriptor> = index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation())
            .collect();
        let before: Vec<String> = entries
            .iter()
            .map(|entry| entry.digest.to_string())
            .collect();
        // The members are in the order of the index, if it has nothing else.
        let in_order = entries.len() == members.len();
        let mut manifests: Vec<Descriptor> = Vec::with_capacity(index.manifests.len());
        for (place, entry) in entries.into_iter().enumerate() {
            let same = |member: &&Image| Sha256Digest::of(&member.manifest) == entry.digest;
            let member = members.iter().find(same);
            let member = member.or_else(|| members.get(place).filter(|_| in_order));
            let packed = match member {
                Some(member) => self.manifest(member, parts)?,
                // A member of a list that is only in a registry.
                None => match self.kept_entry(image, entry, members)? {
                    Some(part) => {
                        parts.join(part);
                        manifests.push(entry.clone());
                        continue;
                    }
                    None => {
                        let words = match self.changes() {
                            true => "is in a registry alone, and cannot be changed on its way",
                            false => "cannot be had any more",
                        };
                        let words = format!("{} {words}", entry.digest);
                        return Err(document("index", image, words));
                    }
                },
            };
            let platform = member.map(config).transpose()?;
            let platform = platform.map(|config| platform_of(&config));
            let place = AnnotationPlace::ManifestDescriptor;
            let mut said = entry.annotations.clone();
            said.extend(annotations::of(self.annotations, place, platform.as_ref()));
            manifests.push(Descriptor {
                platform: entry.platform.clone().or(packed.platform.clone()),
                annotations: said,
                ..packed
            });
        }
        let mut index = index.clone();
        let is_oci = |manifest: &Descriptor| manifest.media_type == media_type::OCI_MANIFEST;
        if index.media_type == media_type::DOCKER_INDEX && manifests.iter().any(is_oci) {
            index.media_type = media_type::OCI_INDEX.to_owned();
        }
        let place = AnnotationPlace::Index;
        let said = annotations::of(self.annotations, place, None);
        index.annotations.extend(said);
        let kept = self.executor.store().attestations(&image.id)?;
        if !kept.is_empty() {
            self.attest(&kept, &mut manifests, parts);
            return Ok(Index { manifests, ..index });
        }
        let attested = index
            .manifests
            .iter()
            .filter(|entry| entry.is_attestation());
        for entry in attested {
            let of = entry.annotations.get(annotation::REFERENCE_DIGEST);
            let place = of.and_then(|of| before.iter().position(|digest| digest == of));
            let about = place.and_then(|place| manifests.get(place)).cloned();
            let Some(about) = about else { continue };
            let stands = of.is_some_and(|of| about.digest.to_string() == *of);
            if stands && let Some(part) = self.kept_entry(image, entry, members)? {
                parts.join(part);
                manifests.push(entry.clone());
                continue;
            }
            // Of the image packed anew it is said again what kiln itself said of it.
            let said = self.executor.predicates_beside(self.lease, image, entry)?;
            let said_nothing = said.is_empty();
            let (own, others): (Vec<Predicate>, Vec<Predicate>) =
                said.into_iter().partition(Predicate::is_own);
            if !own.is_empty() {
                let attached = attestation::beside(&about, &own);
                manifests.push(attached.descriptor);
                for document in attached.documents {
                    parts.document(document.descriptor, document.bytes);
                }
            }
            match said_nothing {
                true => (self.warn)(left_out_words(&about, &BTreeSet::new())),
                false => self.warn_of(&about, &others),
            }
        }
        Ok(Index { manifests, ..index })
    }
}

/// What an image of the store that is packed has its layers from: what its manifest names.
struct KeptBases<'a> {
    packing: &'a Packing<'a>,
    image: &'a Image,
    blobs: &'a [Descriptor],
    diff_ids: &'a [DiffId],
}

impl Bases for KeptBases<'_> {
    fn blob(&self, stack: &[Content]) -> Option<Descriptor> {
        let is_told = self.blobs.len() == self.diff_ids.len();
        let place = stack.len().checked_sub(1).filter(|_| is_told)?;
        self.blobs.get(place).cloned()
    }

    fn has_archive(&self, blob: &Descriptor) -> Result<bool, Error> {
        let store = self.packing.executor.store();
        let digest = blob_digest(&blob.digest);
        let found = store.attached_blob(self.packing.lease, &self.image.id, &digest)?;
        Ok(found.is_some())
    }

    fn leave(&self, _: &Descriptor) -> Result<bool, Error> {
        Ok(false)
    }

    fn bring(&self, blob: &Descriptor) -> Result<(), Error> {
        self.packing.bring(&self.image.id, blob)
    }

    fn bring_archive(&self, layer: DiffId) -> Result<bool, Error> {
        let place = self.diff_ids.iter().position(|id| *id == layer);
        match place.and_then(|index| self.blobs.get(index)) {
            Some(blob) => self.packing.bring_archive(layer, blob),
            None => Ok(false),
        }
    }

    fn warn(&self, line: String) {
        (self.packing.warn)(line);
    }
}

/// A manifest that is about another one, with all that it leads to.
#[derive(Debug)]
pub(crate) struct Referrer {
    pub(crate) subject: Sha256Digest,
    pub(crate) export: Export,
}

impl Packing<'_> {
    /// Makes an image ready as [`Packing::pack`] does, and apart from it what is said of it beside it.
    pub(crate) fn pack_apart(&self, image: &Image) -> Result<(Export, Vec<Referrer>), Error> {
        let index = match image.is_index() {
            true => Index::from_slice(&image.manifest)
                .map_err(|error| document("index", image, error))?,
            false => return Ok((self.pack(image)?, Vec::new())),
        };
        let (attested, images): (Vec<&Descriptor>, Vec<&Descriptor>) = index
            .manifests
            .iter()
            .partition(|entry| entry.is_attestation());
        if attested.is_empty() {
            return Ok((self.pack(image)?, Vec::new()));
        }
        if images.len() != image.members.len() {
            let words =
                "it lists images that are not here, so what is attested cannot be sent apart";
            return Err(document("index", image, words));
        }
        let mut parts = Parts::default();
        let mut manifests = Vec::with_capacity(image.members.len());
        let mut referrers = Vec::new();
        for member in &image.members {
            let member = self.member(member)?;
            let manifest = self.manifest(&member, &mut parts)?;
            let is_same = Sha256Digest::of(&member.manifest) == manifest.digest;
            let said = self.executor.predicates_of(image, &member)?;
            let (said, others): (Vec<Predicate>, Vec<Predicate>) =
                said.into_iter().partition(|one| is_same || one.is_own());
            self.warn_of(&manifest, &others);
            for attached in attestation::referring(&manifest, &said) {
                referrers.push(Referrer {
                    subject: manifest.digest,
                    export: Export {
                        root: attached.descriptor,
                        names: Vec::new(),
                        documents: attached.documents,
                        blobs: Vec::new(),
                    },
                });
            }
            manifests.push(manifest);
        }
        // An index was needed only for what stood beside the image.
        let root = match &manifests[..] {
            [manifest] => manifest.clone(),
            _ => {
                let mut index = Index::new(Flavor::Oci, manifests);
                index.annotations = annotations::of(self.annotations, AnnotationPlace::Index, None);
                let bytes = index.to_bytes();
                let root = Descriptor::of(Flavor::Oci.index(), &bytes);
                parts.document(root.clone(), bytes.into());
                root
            }
        };
        let export = Export {
            root,
            names: Vec::new(),
            documents: parts.documents,
            blobs: parts.blobs,
        };
        Ok((export, referrers))
    }

    /// Tells what others said of an image that is not the same any more.
    fn warn_of(&self, image: &Descriptor, others: &[Predicate]) {
        if !others.is_empty() {
            let kinds = others.iter().map(|one| one.kind.as_str()).collect();
            (self.warn)(left_out_words(image, &kinds));
        }
    }

    /// Says of packed manifests what the store has to say of them.
    fn attest(&self, kept: &[Attestation], manifests: &mut Vec<Descriptor>, parts: &mut Parts) {
        let subjects = manifests.clone();
        for (place, subject) in subjects.iter().enumerate() {
            let predicates = Predicate::of_member(kept, place);
            if predicates.is_empty() {
                continue;
            }
            let attached = attestation::beside(subject, &predicates);
            manifests.push(attached.descriptor);
            for document in attached.documents {
                parts.document(document.descriptor, document.bytes);
            }
        }
    }
}

/// What is said of attestations that are of somebody else's, or cannot be read, and stay behind.
fn left_out_words(image: &Descriptor, kinds: &BTreeSet<&str>) -> String {
    let platform = image.platform.as_ref().map(ToString::to_string);
    let platform = platform.unwrap_or_else(|| "no platform".to_owned());
    let what = match kinds.len() {
        0 => "what is attested".to_owned(),
        _ => {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            format!("the attestation {}", kinds.join(", "))
        }
    };
    format!(
        "{what} of the image for {platform} is left out: it is about the manifest that it had before its layers were packed anew"
    )
}

/// The config of an image for one platform.
fn config(image: &Image) -> Result<kiln_ir::ImageConfig, Error> {
    kiln_ir::ImageConfig::from_json(&image.config).map_err(|error| document("config", image, error))
}

/// The diff ids of an image's layers, as many as the store has of them.
fn diff_ids(image: &Image) -> Result<Vec<DiffId>, Error> {
    let diff_ids = source::diff_ids(&image.config, &image.id.to_string())?;
    if diff_ids.len() != image.layers.len() {
        let words = format!(
            "it lists {} layers, and there are {}",
            diff_ids.len(),
            image.layers.len()
        );
        return Err(document("config", image, words));
    }
    Ok(diff_ids)
}

/// Whether a manifest says all this already.
fn says(manifest: &[u8], said: &BTreeMap<String, String>) -> bool {
    said.is_empty()
        || Manifest::from_slice(manifest).is_ok_and(|manifest| {
            let mut said = said.iter();
            said.all(|(key, value)| manifest.annotations.get(key) == Some(value))
        })
}

fn media_type_of(index: &Index) -> &str {
    match index.media_type.is_empty() {
        true => media_type::OCI_INDEX,
        false => &index.media_type,
    }
}

fn document(
    what: &'static str,
    image: &Image,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Document {
        what,
        reference: image.id.to_string(),
        source: source.into(),
    }
}
