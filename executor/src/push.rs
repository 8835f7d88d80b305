//! Sending images, and whatever else is a manifest with blobs, to registries.
//!
//! [`Executor::send`] is the one way out: what a name means already is not sent again; blobs go several at
//! once and the largest first, each only where the repository lacks it and no other repository of the
//! registry gives it; then manifests, those that others name first; at last the names.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Root};
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{self, BlobSource, Client, PushOptions, Pushed};
use kiln_store::{BlobDigest, Image, ImageId, Lease, Store};

use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::export::{Annotation, blob_digest};
use crate::images::image_for;
use crate::packed::{Packing, Referrer};
use crate::source::{bring_from_anywhere, stoppable};
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// Blobs that are sent at once.
const AT_ONCE: usize = 5;
/// Small questions that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Repositories that are asked to share one blob.
const MOUNTS: usize = 3;

/// Which image of the store goes where.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// Its name or id.
    pub image: String,
    /// Where to; by default it is the name itself.
    pub targets: Vec<String>,
    /// `image` is a repository, and all its tags go.
    pub all_tags: bool,
    /// Of an image for several platforms only the one for this.
    pub platform: Option<Platform>,
    /// How layers are packed: those that were made here, and all that are packed otherwise if it says so.
    pub packing: LayerCompression,
    /// What its documents say beside what they say already.
    pub annotations: Vec<Annotation>,
    /// How what is said of it goes along.
    pub attestations: AttestAs,
    /// What is believed of a registry that has it.
    pub believes: Believes,
}

/// What is believed of a registry that has a manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Believes {
    /// That it has all that the manifest names, as the specification says.
    #[default]
    Manifests,
    /// Nothing: it is asked for every manifest and blob, and sent what it lost.
    Nothing,
}

/// How what the store has to say of an image goes along with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttestAs {
    /// In its index, as BuildKit has it.
    #[default]
    Index,
    /// As referrers of its manifests, which then are those of the image alone.
    Referrers,
    /// Not at all.
    Nothing,
}

/// What a name of a registry means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedName {
    /// The name in its short form.
    pub name: String,
    /// The digest of the manifest or index, such as `sha256:…`.
    pub digest: String,
    /// The media type of that.
    pub media_type: String,
    /// The length of that in bytes.
    pub size_bytes: u64,
    /// It meant the same before, and nothing was sent.
    pub was_there: bool,
    /// The registry lists it as a referrer of the manifest that it is about.
    pub lists_subject: bool,
}

impl Executor {
    /// Sends an image of the store to a registry; `pushed` gets the names that were put there, also where
    /// another one fails.
    pub async fn push_image(
        &self,
        request: &PushRequest,
        observer: &TransferObserver,
        pushed: &mut Vec<PushedName>,
    ) -> Result<(), Error> {
        if self.options().offline {
            return Err(Error::Offline {
                reference: request.image.clone(),
            });
        }
        request.packing.check()?;
        let lease = self.store().lease();
        for (image, targets) in self.to_push(&lease, request)? {
            observer.tell(TransferEvent::Doing("packing layers".to_owned()));
            let id = image.id;
            let (export, referrers) = {
                let (executor, lease, request) = (self.clone(), lease.clone(), request.clone());
                let observer = observer.clone();
                stoppable(move |stop| {
                    let image = match &request.platform {
                        Some(platform) => {
                            image_for(executor.store(), &lease, image, platform, &request.image)?
                        }
                        None => image,
                    };
                    let packing = Packing {
                        executor: &executor,
                        lease: &lease,
                        packing: request.packing,
                        annotations: &request.annotations,
                        stop,
                        warn: &|line| observer.tell(TransferEvent::Warning(line)),
                    };
                    packing.check(&image, request.attestations != AttestAs::Index)?;
                    match request.attestations {
                        AttestAs::Index => Ok((packing.pack(&image)?, Vec::new())),
                        AttestAs::Referrers => packing.pack_apart(&image),
                        AttestAs::Nothing => Ok((packing.pack_apart(&image)?.0, Vec::new())),
                    }
                })
                .await?
            };
            let before = pushed.len();
            let sent = self
                .send(&export, &targets, request.believes, observer, pushed)
                .await;
            self.keep_digests(&id, &export, &pushed[before..])?;
            sent?;
            let sent = &pushed[before..];
            let referred = self.refer(&referrers, &targets, request.believes, sent, observer);
            referred.await.map_err(|source| match source {
                Error::Cancelled => Error::Cancelled,
                source => Error::NotAttached {
                    image: sent
                        .iter()
                        .map(|sent| sent.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                    source: Box::new(source),
                },
            })?;
        }
        Ok(())
    }

    /// Keeps which digest registries know an image of the store by, and the manifest that they took; nothing if
    /// the image has no name here.
    pub(crate) fn keep_digests(
        &self,
        image: &ImageId,
        export: &Export,
        sent: &[PushedName],
    ) -> Result<(), Error> {
        let root = document_of_root(export);
        for name in sent {
            let known = Reference::parse(&name.name)?.at(export.root.digest);
            self.store()
                .name_by_digest(image, &root.bytes, &known.to_string())?;
        }
        Ok(())
    }

    /// Sends what refers to manifests that were sent, and sees to it that the registry lists it; where these were
    /// there before, what is listed is there too, if that is believed.
    async fn refer(
        &self,
        referrers: &[Referrer],
        targets: &[Reference],
        believes: Believes,
        sent: &[PushedName],
        observer: &TransferObserver,
    ) -> Result<(), Error> {
        let repositories: BTreeSet<String> = targets.iter().map(Reference::name).collect();
        for repository in repositories {
            let repository = Reference::parse(&repository)?;
            let was_there = sent.iter().any(|name| {
                let target = Reference::parse(&name.name);
                name.was_there && target.is_ok_and(|target| target.name() == repository.name())
            });
            let mut known: BTreeMap<Sha256Digest, Vec<Descriptor>> = BTreeMap::new();
            for referrer in referrers {
                if was_there && believes == Believes::Manifests {
                    let listed = match known.entry(referrer.subject) {
                        Entry::Occupied(listed) => listed.into_mut(),
                        Entry::Vacant(unasked) => {
                            let client = self.registry()?;
                            let listed = client.referrers(&repository, referrer.subject).await?;
                            unasked.insert(listed)
                        }
                    };
                    if lists(listed, referrer) {
                        continue;
                    }
                }
                self.refer_one(referrer, &repository, believes, observer)
                    .await?;
            }
        }
        Ok(())
    }

    async fn refer_one(
        &self,
        referrer: &Referrer,
        repository: &Reference,
        believes: Believes,
        observer: &TransferObserver,
    ) -> Result<(), Error> {
        let entry = &referrer.export.root;
        let target = [repository.at(entry.digest)];
        let mut sent = Vec::new();
        self.send(&referrer.export, &target, believes, observer, &mut sent)
            .await?;
        if sent.iter().any(|sent| sent.lists_subject) {
            return Ok(());
        }
        let client = self.registry()?;
        let listed = client.referrers(repository, referrer.subject).await?;
        if !lists(&listed, referrer) {
            client
                .list_referrer(repository, referrer.subject, entry)
                .await?;
        }
        Ok(())
    }

    /// The images that are asked for, each with its names elsewhere.
    fn to_push(
        &self,
        lease: &Lease,
        request: &PushRequest,
    ) -> Result<Vec<(Image, Vec<Reference>)>, Error> {
        let name = &request.image;
        if request.all_tags {
            return self.all_tags(lease, name);
        }
        let targets: Vec<Reference> = request
            .targets
            .iter()
            .map(|target| crate::export::reference(target))
            .collect::<Result<_, _>>()?;
        let Some(image) = self.stored_image(lease, name)? else {
            return Err(self.nothing_to_push(name)?);
        };
        if !targets.is_empty() {
            return Ok(vec![(image, targets)]);
        }
        let reference = crate::export::reference(name)?;
        // The beginning of an id may look like a name.
        let named = self
            .store()
            .image_by_name(lease, &reference.to_string())?
            .is_some_and(|named| named.id == image.id);
        match named {
            true => Ok(vec![(image, vec![reference])]),
            false => Err(Error::NoTarget {
                image: name.clone(),
            }),
        }
    }

    fn all_tags(&self, lease: &Lease, name: &str) -> Result<Vec<(Image, Vec<Reference>)>, Error> {
        let parsed = Reference::parse(name)?;
        let repository = parsed.name();
        // A name without a tag is the same name with the usual one.
        if parsed.digest().is_some() || name.ends_with(&format!(":{}", parsed.identifier())) {
            return Err(Error::TagAndAllTags {
                name: name.to_owned(),
                repository: parsed.familiar_name(),
                action: "push",
            });
        }
        let mut found = Vec::new();
        for named in self.store().images()? {
            let tags: Vec<Reference> = named
                .names
                .iter()
                .filter_map(|name| Reference::parse(name).ok())
                .filter(|reference| reference.name() == repository && reference.tag().is_some())
                .collect();
            // Its names may have manifests of their own.
            let mut of_this: Vec<(Image, Vec<Reference>)> = Vec::new();
            for tag in tags {
                let Some(image) = self.store().image_by_name(lease, &tag.to_string())? else {
                    continue;
                };
                match of_this.iter_mut().find(|(known, _)| *known == image) {
                    Some((_, tags)) => tags.push(tag),
                    None => of_this.push((image, vec![tag])),
                }
            }
            found.extend(of_this);
        }
        match found.is_empty() {
            true => Err(self.nothing_to_push(name)?),
            false => Ok(found),
        }
    }

    /// The error for a name that no image has, with those that are like it.
    fn nothing_to_push(&self, name: &str) -> Result<Error, Error> {
        let asked = Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar());
        let repository = |name: &str| {
            name.rsplit_once(':')
                .map_or(name, |(name, _)| name)
                .to_owned()
        };
        let mut names = Vec::new();
        for named in self.store().images()? {
            names.extend(named.names.iter().filter_map(|name| {
                let reference = Reference::parse(name).ok()?;
                Some(reference.familiar())
            }));
        }
        let mut near: Vec<String> = names
            .iter()
            .filter(|name| repository(name) == repository(&asked))
            .take(5)
            .cloned()
            .collect();
        if near.is_empty() {
            let closest = kiln_ir::suggest::closest(&asked, names.iter().map(String::as_str));
            near.extend(closest.map(str::to_owned));
        }
        Ok(Error::NothingToPush {
            name: name.to_owned(),
            near,
        })
    }

    /// Sends an image, or anything else that is a manifest with blobs, and gives it names.
    ///
    /// The caller holds the blobs, which are in the store. A target without a tag gets the manifest by its
    /// digest alone. `sent` gets what became of the targets, in order, up to one that fails.
    pub(crate) async fn send(
        &self,
        export: &Export,
        targets: &[Reference],
        believes: Believes,
        observer: &TransferObserver,
        sent: &mut Vec<PushedName>,
    ) -> Result<(), Error> {
        let before = sent.len();
        let done = self
            .send_each(export, targets, believes, observer, sent)
            .await;
        let place = |name: &PushedName| {
            targets
                .iter()
                .position(|target| target.familiar() == name.name)
        };
        sent[before..].sort_by_key(place);
        done
    }

    async fn send_each(
        &self,
        export: &Export,
        targets: &[Reference],
        believes: Believes,
        observer: &TransferObserver,
        sent: &mut Vec<PushedName>,
    ) -> Result<(), Error> {
        let mut begun: BTreeSet<String> = BTreeSet::new();
        for target in targets {
            if !begun.insert(target.name()) {
                continue;
            }
            let same: Vec<Reference> = targets
                .iter()
                .filter(|other| other.name() == target.name())
                .cloned()
                .collect();
            let sending = self.sending(export, target, believes, observer)?;
            sending.run(&same, sent).await?;
        }
        Ok(())
    }

    /// Sends the blobs of an export and those of its documents that are none of a manifest; whatever names
    /// them is the caller's to send.
    pub(crate) async fn send_blobs(
        &self,
        export: &Export,
        target: &Reference,
        observer: &TransferObserver,
    ) -> Result<(), Error> {
        let sending = self.sending(export, target, Believes::Manifests, observer)?;
        sending.all(sending.blobs()).await?;
        sending.remember()
    }

    fn sending<'a>(
        &'a self,
        export: &'a Export,
        target: &Reference,
        believes: Believes,
        observer: &'a TransferObserver,
    ) -> Result<Sending<'a>, Error> {
        Ok(Sending {
            executor: self,
            store: self.store(),
            client: self.registry()?,
            export,
            repository: Reference::parse(&target.name())?,
            believes,
            mounts: AtomicBool::new(true),
            observer,
        })
    }
}

/// One export on its way to one repository.
struct Sending<'a> {
    executor: &'a Executor,
    store: &'a Store,
    client: &'a Client,
    export: &'a Export,
    /// The repository; its tag means nothing.
    repository: Reference,
    believes: Believes,
    /// Blobs may be taken from other repositories; not where a registry said that it did, and did not.
    mounts: AtomicBool,
    observer: &'a TransferObserver,
}

impl Sending<'_> {
    async fn run(&self, targets: &[Reference], sent: &mut Vec<PushedName>) -> Result<(), Error> {
        let root = &self.export.root;
        let asked = targets.iter().map(|target| async move {
            let found = self.client.has_manifest(&named(target, root)?).await?;
            Ok::<_, Error>((target, found == Some(root.digest)))
        });
        let asked = stream::iter(asked).buffered(ASKED_AT_ONCE);
        let asked: Vec<(&Reference, bool)> = asked.try_collect().await?;
        let (known, open): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, there)| *there);
        let was_whole = match self.believes {
            Believes::Nothing if !known.is_empty() => self.contents().await?,
            _ => true,
        };
        let same = known.iter();
        sent.extend(same.map(|(target, _)| self.pushed(target, was_whole, false)));
        if !open.is_empty() {
            // Under another name, perhaps; a name without a tag was asked for by digest just now.
            let by_digest = open.iter().any(|(target, _)| target.tag().is_none());
            let may_be_there = !by_digest && self.believes == Believes::Manifests;
            let mut there = !known.is_empty() || may_be_there && self.has(root.digest).await?;
            let mut again = true;
            let mut left = open.as_slice();
            while let Some(((target, _), rest)) = left.split_first() {
                if !there {
                    self.contents().await?;
                    there = true;
                }
                match self.name(target).await {
                    Ok(lists_subject) => {
                        sent.push(self.pushed(target, false, lists_subject));
                        left = rest;
                    }
                    // What was there a moment ago is gone, or never was.
                    Err(error) if error.lacks_content() && again => {
                        (again, there) = (false, false);
                        self.mounts.store(false, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.remember()
    }

    fn pushed(&self, target: &Reference, was_there: bool, lists_subject: bool) -> PushedName {
        let root = &self.export.root;
        PushedName {
            name: target.familiar(),
            digest: root.digest.to_string(),
            media_type: root.media_type.clone(),
            size_bytes: root.size,
            was_there,
            lists_subject,
        }
    }

    /// Keeps where the blobs are now.
    fn remember(&self) -> Result<(), Error> {
        let blobs: Vec<BlobDigest> = self.blobs().iter().map(stored).collect();
        Ok(self.store.put_places(&self.repository.name(), &blobs)?)
    }

    /// Gives the root a name; tells whether the registry lists it as a referrer.
    async fn name(&self, target: &Reference) -> Result<bool, registry::Error> {
        let bytes = document_of_root(self.export).bytes.clone();
        let put = self
            .client
            .push_manifest(target, &self.export.root.media_type, bytes)
            .await?;
        Ok(put.lists_subject)
    }

    async fn has(&self, manifest: Sha256Digest) -> Result<bool, registry::Error> {
        let reference = self.repository.at(manifest);
        Ok(self.client.has_manifest(&reference).await? == Some(manifest))
    }

    /// Sends what the root leads to, but not the root; tells whether it was all there.
    async fn contents(&self) -> Result<bool, Error> {
        let manifests = children_first(self.export);
        let asked = stream::iter(manifests.iter().map(|manifest| async move {
            let there = self.has(manifest.document.descriptor.digest).await?;
            Ok::<_, registry::Error>((!there).then_some(manifest))
        }));
        let absent: Vec<&Manifest> = asked
            .buffered(ASKED_AT_ONCE)
            .try_filter_map(|absent| async move { Ok(absent) })
            .try_collect()
            .await?;
        // What a manifest names is there as long as it is.
        let named: BTreeSet<Sha256Digest> = manifests
            .iter()
            .flat_map(|manifest| manifest.blobs.iter().copied())
            .collect();
        let needed: BTreeSet<Sha256Digest> = absent
            .iter()
            .flat_map(|manifest| manifest.blobs.iter().copied())
            .chain(self.root_blobs())
            .collect();
        let blobs = self.blobs().into_iter().filter(|blob| {
            self.believes == Believes::Nothing
                || needed.contains(&blob.digest)
                || !named.contains(&blob.digest)
        });
        let sent = self.all(blobs.collect()).await?;
        let was_whole = absent.is_empty() && sent.iter().all(|how| *how == Pushed::Present);
        for manifest in absent {
            let Descriptor {
                digest, media_type, ..
            } = &manifest.document.descriptor;
            self.client
                .push_manifest(
                    &self.repository.at(*digest),
                    media_type,
                    manifest.document.bytes.clone(),
                )
                .await?;
        }
        Ok(was_whole)
    }

    /// Sends blobs, the largest first; tells what became of them, in no order.
    async fn all(&self, mut blobs: Vec<Descriptor>) -> Result<Vec<Pushed>, Error> {
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        for blob in &blobs {
            self.observer.blob(blob, BlobState::Waiting);
        }
        stream::iter(blobs.into_iter().map(|blob| self.blob(blob)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// What the root itself names, if it is no index.
    fn root_blobs(&self) -> Vec<Sha256Digest> {
        names(document_of_root(self.export))
    }

    /// All that is sent as a blob, each once.
    fn blobs(&self) -> Vec<Descriptor> {
        let documents = self.export.documents.iter();
        let documents = documents
            .map(|document| &document.descriptor)
            .filter(|descriptor| !is_manifest(descriptor));
        let all: BTreeMap<Sha256Digest, &Descriptor> = self
            .export
            .blobs
            .iter()
            .chain(documents)
            .map(|blob| (blob.digest, blob))
            .collect();
        all.into_values().cloned().collect()
    }

    async fn blob(&self, blob: Descriptor) -> Result<Pushed, Error> {
        let mut documents = self.export.documents.iter();
        let document = documents.find(|document| document.descriptor.digest == blob.digest);
        let source: Box<dyn BlobSource> = match document {
            Some(document) => Box::new(document.bytes.clone()),
            None => Box::new(StoredBlob {
                executor: self.executor.clone(),
                lease: self.store.lease(),
                blob: blob.clone(),
            }),
        };
        let observer = self.observer.clone();
        let moving = blob.clone();
        let options = PushOptions {
            mount_from: match self.mounts.load(Ordering::Relaxed) {
                true => self.sharers(&blob)?,
                false => Vec::new(),
            },
            progress: Some(std::sync::Arc::new(move |bytes| {
                observer.blob(&moving, BlobState::Moving(bytes));
            })),
            ..PushOptions::default()
        };
        let pushed = self
            .client
            .push_blob(&self.repository, &blob, &*source, &options)
            .await?;
        self.observer.blob(
            &blob,
            match pushed {
                Pushed::Present => BlobState::Present,
                Pushed::Mounted => BlobState::Mounted,
                Pushed::Uploaded => BlobState::Moved,
            },
        );
        Ok(pushed)
    }

    /// Repositories of the same registry that were seen to have a blob.
    fn sharers(&self, blob: &Descriptor) -> Result<Vec<Reference>, Error> {
        let places = self.store.places(&stored(blob))?;
        Ok(places
            .iter()
            .filter_map(|place| Reference::parse(place).ok())
            .filter(|place| {
                place.domain() == self.repository.domain()
                    && place.repository() != self.repository.repository()
            })
            .take(MOUNTS)
            .collect())
    }
}

fn lists(listed: &[Descriptor], referrer: &Referrer) -> bool {
    let digest = referrer.export.root.digest;
    listed.iter().any(|listed| listed.digest == digest)
}

/// The manifest or index that an export is named by.
fn document_of_root(export: &Export) -> &Document {
    let mut documents = export.documents.iter();
    documents
        .find(|document| document.descriptor.digest == export.root.digest)
        .unwrap_or_else(|| unreachable!("BUG: the root of an export is not among its documents"))
}

/// A blob's name in the store.
fn stored(blob: &Descriptor) -> BlobDigest {
    blob_digest(&blob.digest)
}

/// The target as the registry is asked for it.
fn named(target: &Reference, root: &Descriptor) -> Result<Reference, Error> {
    Ok(match target.tag() {
        Some(tag) => target.with_tag(tag)?,
        None => target.at(root.digest),
    })
}

/// A manifest or index of an export, with what it names.
struct Manifest<'a> {
    document: &'a Document,
    blobs: Vec<Sha256Digest>,
}

/// The manifests and indexes but the root, each after those that it names.
fn children_first(export: &Export) -> Vec<Manifest<'_>> {
    let mut left: Vec<Manifest<'_>> = export
        .documents
        .iter()
        .filter(|document| is_manifest(&document.descriptor))
        .filter(|document| document.descriptor.digest != export.root.digest)
        .map(|document| Manifest {
            document,
            blobs: names(document),
        })
        .collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waiting: BTreeSet<Sha256Digest> = left
            .iter()
            .map(|manifest| manifest.document.descriptor.digest)
            .collect();
        let (ready, rest): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|manifest| !manifest.blobs.iter().any(|name| waiting.contains(name)));
        // Digests cannot form a ring.
        if ready.is_empty() {
            ordered.extend(rest);
            break;
        }
        ordered.extend(ready);
        left = rest;
    }
    ordered
}

/// The digests that a manifest or an index names, but for its subject, which may be elsewhere.
fn names(document: &Document) -> Vec<Sha256Digest> {
    match Root::from_slice(&document.descriptor.media_type, &document.bytes) {
        Ok(Root::Manifest(manifest)) => {
            let blobs = manifest.layers.iter().chain([&manifest.config]);
            blobs.map(|blob| blob.digest).collect()
        }
        Ok(Root::Index(index)) => index.manifests.iter().map(|entry| entry.digest).collect(),
        Err(_) => Vec::new(),
    }
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    media_type::is_manifest(&descriptor.media_type) || media_type::is_index(&descriptor.media_type)
}

/// A blob of the store as what is sent.
#[derive(Clone)]
pub(crate) struct StoredBlob {
    pub(crate) executor: Executor,
    pub(crate) lease: Lease,
    pub(crate) blob: Descriptor,
}

impl StoredBlob {
    /// Opens it; one that was left in a registry is brought here first.
    async fn open(self) -> Result<std::fs::File, Error> {
        let (store, digest) = (self.executor.store(), stored(&self.blob));
        bring_from_anywhere(&self.executor, &self.lease, &self.blob).await?;
        Ok(store.open_blob(&digest)?)
    }
}

impl BlobSource for StoredBlob {
    fn read_from(&self, offset: u64) -> BoxStream<'static, io::Result<Bytes>> {
        let blob = self.clone();
        let open = async move {
            let file = blob.open().await.map_err(io::Error::other)?;
            Ok(tokio::fs::File::from_std(file))
        };
        registry::pieces(open, offset)
    }
}
