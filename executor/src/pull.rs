//! Bringing images from registries into the store, with their names.

use bytes::Bytes;
use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, Manifest, Root};
use kiln_oci::media_type;
use kiln_oci::platform;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{self, PulledManifest};
use kiln_store::{BlobDigest, Content, DiffId, ImageId, Lease, Member, NewImage, NewIndex};
use kiln_tree::Stop;

use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::export::{as_pulled, blob_digest, time_of};
use crate::images::{oci_platform, platform_of};
use crate::source::{blocking, bring_blob, fetch, remember, resolved};
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// An index within an index is deep enough.
const INDEX_DEPTH: usize = 2;

/// What is to be brought here.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// The image's name.
    pub image: String,
    /// Which image of an index; the host's by default.
    pub platform: Option<Platform>,
    /// All of an index, with what is attested of its images.
    pub all_platforms: bool,
}

/// What is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// The name in its short form.
    pub name: String,
    /// The digest of the image's config, or of its index.
    pub id: String,
    /// The digest of what the name means at the registry.
    pub digest: String,
    /// The store had it under this name before, and nothing was fetched.
    pub was_there: bool,
}

impl Executor {
    /// The names of all that has a tag in a repository of a registry.
    pub async fn names_in_registry(&self, repository: &str) -> Result<Vec<String>, Error> {
        let parsed = Reference::parse(repository)?;
        // A name without a tag is the same name with the usual one.
        let has_tag = repository.ends_with(&format!(":{}", parsed.identifier()));
        if parsed.digest().is_some() || has_tag {
            return Err(Error::TagAndAllTags {
                name: repository.to_owned(),
                repository: parsed.familiar_name(),
                action: "pull",
            });
        }
        if self.options().offline {
            return Err(Error::Offline {
                reference: parsed.familiar(),
            });
        }
        let names = self.registry()?.tags(&parsed).await?;
        Ok(names.iter().map(Reference::familiar).collect())
    }

    /// Brings an image here and gives it the name that it has at the registry.
    pub async fn pull_image(
        &self,
        request: &PullRequest,
        observer: &TransferObserver,
    ) -> Result<PulledImage, Error> {
        let reference = Reference::parse(&request.image)?;
        if self.options().offline {
            return Err(Error::Offline {
                reference: reference.familiar(),
            });
        }
        let pull = Pull {
            executor: self,
            lease: self.store().lease(),
            reference: &reference,
            observer,
        };
        observer.tell(TransferEvent::Doing(format!(
            "asking {}",
            reference.registry_host()
        )));
        let tell_doubts = || self.tell_doubts(|line| observer.tell(TransferEvent::Warning(line)));
        let root = self.registry()?.manifest(&reference).await;
        tell_doubts();
        let root = root?;
        let digest = root.digest;
        let kept = match (&root.root, request.all_platforms) {
            (Root::Index(index), true) => pull.all(&root, index).await,
            _ => {
                let platform = request.platform.clone().unwrap_or_else(host_platform);
                pull.one(root, &platform, request.platform.is_some()).await
            }
        };
        tell_doubts();
        let kept = kept?;
        let store = self.store();
        // A digest is a name that nothing else can have.
        let before = store.tag(&kept.id, &kept.manifest, &reference.decisive())?;
        let known = reference.at(digest).to_string();
        store.name_by_digest(&kept.id, &kept.manifest, &known)?;
        Ok(PulledImage {
            name: reference.familiar(),
            id: kept.id.to_string(),
            digest: digest.to_string(),
            was_there: kept.was_there && before.is_none(),
        })
    }
}

/// One call of [`Executor::pull_image`].
struct Pull<'a> {
    executor: &'a Executor,
    lease: Lease,
    reference: &'a Reference,
    observer: &'a TransferObserver,
}

struct Kept {
    id: ImageId,
    /// Its manifest, or its index.
    manifest: Vec<u8>,
    /// Nothing had to be brought for it.
    was_there: bool,
}

impl Pull<'_> {
    /// Brings the image for a platform.
    async fn one(
        &self,
        root: PulledManifest,
        wanted: &Platform,
        asked_for: bool,
    ) -> Result<Kept, Error> {
        let store = self.executor.store();
        let chosen = match &root.root {
            Root::Manifest(_) => Some(root.digest),
            Root::Index(index) => {
                platform::select(index, &oci_platform(wanted)).map(|entry| entry.digest)
            }
        };
        // What the name meant here before may be just this.
        if let Some(named) = store.image_by_name(&self.lease, &self.reference.decisive())?
            && named.members.is_empty()
            && chosen == Some(Sha256Digest::of(&named.manifest))
        {
            return Ok(Kept {
                id: named.id,
                manifest: named.manifest,
                was_there: true,
            });
        }
        let wanted_there = oci_platform(wanted);
        let client = self.executor.registry()?;
        let image = client.image_of(self.reference, root, &wanted_there).await?;
        let found = platform_of(&resolved(self.reference, &image)?.config);
        let states_one = !found.architecture.is_empty();
        if asked_for && states_one && !wanted_there.accepts(&oci_platform(&found)) {
            return Err(Error::Platform {
                reference: self.reference.familiar(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            });
        }
        self.keep(&image, wanted).await
    }

    /// Brings the layers of an image here and keeps it.
    async fn keep(&self, image: &registry::Image, platform: &Platform) -> Result<Kept, Error> {
        let (executor, store) = (self.executor, self.executor.store());
        let from = resolved(self.reference, image)?;
        let contents = Content::of_image(&from.diff_ids);
        let missing = store.missing_layers(&contents)?;
        for (blob, content) in image.layers.iter().zip(&contents) {
            let state = match missing.contains(content) {
                true => BlobState::Waiting,
                false => BlobState::Present,
            };
            self.observer.blob(blob, state);
        }
        let observer = Some(self.observer);
        let (layers, brought) = fetch(executor, &self.lease, &from, observer, &Stop::NEVER).await?;
        // A layer may be here in other bytes, and these be wanted one day.
        let blobs: Vec<BlobDigest> = image
            .layers
            .iter()
            .map(|blob| blob_digest(&blob.digest))
            .collect();
        store.put_places(&self.reference.name(), &blobs)?;
        let id = ImageId(*image.config_descriptor.digest.as_bytes());
        let mut size_bytes = 0;
        for layer in &layers {
            size_bytes += store.layer(layer)?.map_or(0, |info| info.size_bytes);
        }
        let new = NewImage {
            id,
            manifest: image.manifest.bytes.to_vec(),
            config: image.config_bytes.to_vec(),
            layers,
            size_bytes,
            created: time_of(from.config.created.as_deref()),
        };
        store.put_image(&self.lease, &new)?;
        self.keep_archives(&image.layers, &from.diff_ids, &id)
            .await?;
        let name = self.reference.decisive();
        remember(executor, &name, platform, image, &from.diff_ids)?;
        Ok(Kept {
            id,
            manifest: new.manifest,
            was_there: !brought,
        })
    }

    /// Brings layers that are not compressed, though their files came with another image: an archive of which
    /// only the digest is known could be one that nobody packed.
    async fn keep_archives(
        &self,
        layers: &[Descriptor],
        diff_ids: &[DiffId],
        image: &ImageId,
    ) -> Result<(), Error> {
        let store = self.executor.store();
        let plain = layers.iter().zip(diff_ids);
        for (blob, id) in plain.filter(|(blob, id)| *blob.digest.as_bytes() == id.0) {
            let pulled = as_pulled(store, &self.lease, &Content::DiffId(*id))?;
            let digest = blob_digest(&blob.digest);
            if pulled.is_none_or(|(_, pulled)| pulled.digest != digest) {
                bring_blob(self.executor, &self.lease, self.reference, blob, &|_| {}).await?;
                store.attach_blobs(image, &[digest])?;
            }
        }
        Ok(())
    }

    /// Brings all of an index: the image for each of its platforms, and what is attested of them.
    async fn all(&self, root: &PulledManifest, index: &Index) -> Result<Kept, Error> {
        let store = self.executor.store();
        let id = ImageId(*root.digest.as_bytes());
        let named = store.image_by_name(&self.lease, &self.reference.decisive())?;
        if named.is_some_and(|named| named.id == id) {
            return Ok(Kept {
                id,
                manifest: root.bytes.to_vec(),
                was_there: true,
            });
        }
        let mut gathered = Gathered::default();
        self.gather(index, 1, &mut gathered).await?;
        for blob in &gathered.blobs {
            self.observer.blob(blob, BlobState::Waiting);
        }
        for blob in &gathered.blobs {
            let moved = |bytes| self.observer.blob(blob, BlobState::Moving(bytes));
            bring_blob(self.executor, &self.lease, self.reference, blob, &moved).await?;
            self.observer.blob(blob, BlobState::Moved);
        }
        let mut attached: Vec<BlobDigest> = gathered
            .blobs
            .iter()
            .map(|blob| blob_digest(&blob.digest))
            .collect();
        let documents = gathered.documents;
        let kept = {
            let (executor, lease) = (self.executor.clone(), self.lease.clone());
            blocking(move || {
                let write = |bytes: &Bytes| {
                    use std::io::Write as _;
                    let store = executor.store();
                    let digest = BlobDigest(*Sha256Digest::of(bytes).as_bytes());
                    if !store.lease_blob(&lease, &digest)? {
                        let mut writer = store.write_blob(Some(digest))?;
                        writer.write_all(bytes).map_err(Error::unwritten(store))?;
                        writer.finish(&lease)?;
                    }
                    Ok::<_, Error>(digest)
                };
                documents.iter().map(write).collect::<Result<Vec<_>, _>>()
            })
            .await?
        };
        attached.extend(kept);
        let members = gathered.members;
        store.put_index(
            &self.lease,
            &NewIndex {
                id,
                index: root.bytes.to_vec(),
                members,
            },
        )?;
        store.attach_blobs(&id, &attached)?;
        Ok(Kept {
            id,
            manifest: root.bytes.to_vec(),
            was_there: false,
        })
    }

    /// Brings the images of an index here, and collects what else it leads to.
    async fn gather(&self, index: &Index, depth: usize, into: &mut Gathered) -> Result<(), Error> {
        let client = self.executor.registry()?;
        for entry in &index.manifests {
            let at = self.reference.at(entry.digest);
            let manifest = client.manifest(&at).await?;
            into.documents.push(manifest.bytes.clone());
            match &manifest.root {
                Root::Index(inner) if depth < INDEX_DEPTH => {
                    Box::pin(self.gather(inner, depth + 1, into)).await?;
                }
                Root::Index(_) => {
                    return Err(Error::Document {
                        what: "index",
                        reference: self.reference.familiar(),
                        source: "it has an index within an index within an index".into(),
                    });
                }
                Root::Manifest(parsed) if is_image(entry, parsed) => {
                    let wanted = entry.platform.clone().unwrap_or_default();
                    let image = client
                        .image_of(self.reference, manifest.clone(), &wanted)
                        .await?;
                    let platform = platform_of(&resolved(self.reference, &image)?.config);
                    let kept = self.keep(&image, &platform).await?;
                    let stated = entry.platform.as_ref().map(ToString::to_string);
                    into.members.push(Member {
                        platform: stated.unwrap_or_else(|| platform.to_string()),
                        id: kept.id,
                        manifest: kept.manifest,
                    });
                }
                Root::Manifest(parsed) => {
                    into.blobs
                        .extend(parsed.layers.iter().chain([&parsed.config]).cloned());
                }
            }
        }
        Ok(())
    }
}

/// What an index leads to.
#[derive(Default)]
struct Gathered {
    members: Vec<Member>,
    documents: Vec<Bytes>,
    /// Of what is no image.
    blobs: Vec<Descriptor>,
}

/// Whether an entry of an index is an image that can be run, as against an attestation.
fn is_image(entry: &Descriptor, manifest: &Manifest) -> bool {
    !entry.is_attestation() && media_type::is_config(&manifest.config.media_type)
}
