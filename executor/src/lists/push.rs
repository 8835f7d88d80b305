//! Lists on their way to a registry: members of the store are packed and sent, those of registries are
//! mounted or passed on, without being unpacked.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, Manifest, annotation};
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type::Compression;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{PushOptions, Pushed};
use kiln_store::{BlobDigest, Image, ImageId, Lease};

use super::List;
use crate::error::Error;
use crate::executor::Executor;
use crate::export::reference;
use crate::packed::Packing;
use crate::push::{Believes, PushedName, StoredBlob};
use crate::source::stoppable;
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// Blobs that are passed on at once.
const AT_ONCE: usize = 4;
/// Repositories that are asked to share one blob.
const MOUNTS: usize = 3;

impl Executor {
    /// Sends a list with all its members to a registry, under its own name if there is no other.
    pub async fn push_list(
        &self,
        name: &str,
        target: Option<&str>,
        compression: Compression,
        observer: &TransferObserver,
    ) -> Result<Vec<PushedName>, Error> {
        let target = reference(target.unwrap_or(name))?;
        if self.options().offline {
            return Err(Error::Offline {
                reference: target.familiar(),
            });
        }
        let lease = self.store().lease();
        let image = self.find_image(&lease, name)?;
        let list = self.open_list(&lease, &image, name)?;
        observer.tell(TransferEvent::Doing("packing layers".to_owned()));
        let packed = self
            .pack_members(&lease, &list, compression, observer)
            .await?;
        let (mut documents, mut blobs) = (Vec::new(), Vec::new());
        let mut manifests = Vec::with_capacity(list.index.manifests.len());
        for entry in &list.index.manifests {
            let Some(part) = packed.get(&entry.digest) else {
                if attests_another(entry, &packed) {
                    continue;
                }
                self.pass_on(&lease, &image.id, entry, &target, observer)
                    .await?;
                manifests.push(entry.clone());
                continue;
            };
            manifests.push(Descriptor {
                platform: entry.platform.clone(),
                annotations: entry.annotations.clone(),
                ..part.root.clone()
            });
            documents.extend(part.documents.clone());
            blobs.extend(part.blobs.clone());
        }
        let index = Index {
            manifests,
            ..list.index
        };
        let kind = match index.media_type.as_str() {
            "" => kiln_oci::media_type::OCI_INDEX,
            kind => kind,
        };
        let bytes = index.to_bytes();
        let root = Descriptor::of(kind, &bytes);
        documents.push(Document {
            descriptor: root.clone(),
            bytes: bytes.into(),
        });
        let export = Export {
            root,
            names: Vec::new(),
            documents,
            blobs,
        };
        let mut sent = Vec::new();
        self.send(&export, &[target], Believes::Manifests, observer, &mut sent)
            .await?;
        self.keep_digests(&image.id, &export, &sent)?;
        Ok(sent)
    }

    /// The members of the store, ready to leave it, by the digests that the list has for them.
    async fn pack_members(
        &self,
        lease: &Lease,
        list: &List,
        compression: Compression,
        observer: &TransferObserver,
    ) -> Result<BTreeMap<Sha256Digest, Export>, Error> {
        let mut members: Vec<(Sha256Digest, Image)> = Vec::new();
        for member in &list.members {
            let image = self.store().member(lease, member)?;
            members.push((Sha256Digest::of(&image.manifest), image));
        }
        let (executor, lease, observer) = (self.clone(), lease.clone(), observer.clone());
        stoppable(move |stop| {
            let packing = Packing {
                executor: &executor,
                lease: &lease,
                packing: compression.into(),
                annotations: &[],
                stop,
                warn: &|line| observer.tell(TransferEvent::Warning(line)),
            };
            let pack = |(digest, image)| Ok((digest, packing.pack(&image)?));
            members.into_iter().map(pack).collect()
        })
        .await
    }

    /// Sees to it that a repository has a manifest with all that it names.
    async fn pass_on(
        &self,
        lease: &Lease,
        owner: &ImageId,
        entry: &Descriptor,
        target: &Reference,
        observer: &TransferObserver,
    ) -> Result<(), Error> {
        let client = self.registry()?;
        let at = target.at(entry.digest);
        if client.has_manifest(&at).await? == Some(entry.digest) {
            return Ok(());
        }
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
            what: "manifest",
            reference: entry.digest.to_string(),
            source,
        };
        let bytes = self.attached_document(lease, owner, entry)?;
        let bytes = bytes.ok_or_else(|| unusable("it is no longer in the store".into()))?;
        let manifest = Manifest::from_slice(&bytes).map_err(|error| unusable(Box::new(error)))?;
        let blobs: Vec<&Descriptor> = manifest.layers.iter().chain([&manifest.config]).collect();
        for blob in &blobs {
            observer.blob(blob, BlobState::Waiting);
        }
        let passing = blobs.iter().map(|blob| async move {
            let source = StoredBlob {
                executor: self.clone(),
                lease: lease.clone(),
                blob: (*blob).clone(),
            };
            let options = PushOptions {
                mount_from: self.sharers(blob, target)?,
                ..PushOptions::default()
            };
            let pushed = client.push_blob(target, blob, &source, &options).await?;
            let state = match pushed {
                Pushed::Present => BlobState::Present,
                Pushed::Mounted => BlobState::Mounted,
                Pushed::Uploaded => BlobState::Moved,
            };
            observer.blob(blob, state);
            Ok::<(), Error>(())
        });
        stream::iter(passing)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        client
            .push_manifest(&at, &entry.media_type, bytes.into())
            .await?;
        let there: Vec<BlobDigest> = blobs.iter().map(|blob| stored(blob)).collect();
        Ok(self.store().put_places(&target.name(), &there)?)
    }

    /// Repositories of the target's registry that were seen to have a blob.
    fn sharers(&self, blob: &Descriptor, target: &Reference) -> Result<Vec<Reference>, Error> {
        let places = self.store().places(&stored(blob))?;
        let places = places
            .iter()
            .filter_map(|place| Reference::parse(place).ok());
        let same = places.filter(|place| place.domain() == target.domain());
        Ok(same.take(MOUNTS).collect())
    }
}

/// Whether an entry attests something of a manifest that is another one now.
fn attests_another(entry: &Descriptor, packed: &BTreeMap<Sha256Digest, Export>) -> bool {
    let of = entry.annotations.get(annotation::REFERENCE_DIGEST);
    let of = of.and_then(|of| of.parse::<Sha256Digest>().ok());
    of.is_some_and(|of| {
        packed
            .get(&of)
            .is_some_and(|packed| packed.root.digest != of)
    })
}

fn stored(blob: &Descriptor) -> BlobDigest {
    BlobDigest(*blob.digest.as_bytes())
}
