//! Exporting: what a build has is added to what lies at a place, so that two builds that export to
//! one place both find their results there.
//!
//! Blobs come first, those that are there already are not sent, and the document last. Others may
//! replace it between the moment when it is read and the one when it is written: a directory is
//! locked meanwhile, a bucket refuses to replace another version than was read, and in both buckets and
//! registries, which know nothing of the kind, there are copies (`copies.rs`). What lies under each name
//! afterwards is looked at, and all is tried again where one lacks what was added.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Manifest};
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type::Flavor;
use kiln_oci::reference::Reference;
use kiln_oci::s3::{Condition, S3, Written};
use kiln_store::{Content, Key, Lease};

use super::collect::{CacheContent, CacheMode, Collected, Collector, Known, Records};
use super::copies::{Lying, Names, is_refusal};
use super::document::{Cache, CachedBlob, CachedRecord, Limits};
use super::elsewhere::Elsewhere;
use super::error::CacheError;
use super::layout;
use super::place::{CONFIG_TYPE, CachePlace, Home, S3Place, Way, blob_digest};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// How often all is tried where others write at the same time.
const TRIES: u32 = 30;
/// How long to wait at first before another try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Blobs that are written to a bucket at once.
const AT_ONCE: usize = 4;
/// Blobs that are asked for at once.
const ASKED_AT_ONCE: usize = 16;
/// How old the results of other builds get, by default.
pub const MOST_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How much all results take, by default.
pub const MOST_BYTES: u64 = 20 << 30;

/// Where the results of a build go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where.
    pub place: CachePlace,
    /// Which results.
    pub mode: CacheMode,
    /// How layers are packed.
    pub packing: LayerCompression,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
    /// A failure is told and fails nothing.
    pub ignore_error: bool,
    /// Results of other builds that are older leave the cache.
    pub max_age: Duration,
    /// When the cache takes more, its oldest results leave it.
    pub max_bytes: u64,
}

/// What came of exporting to one place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CachePublished {
    /// Results of this build.
    pub records: usize,
    /// All that are there now.
    pub records_there: usize,
    /// Results of this build that later ones replaced by others, so that they cannot be had any more.
    pub replaced: usize,
    /// Nothing had to be changed.
    pub was_there: bool,
    /// The place takes no copies beside it, so that builders at the same moment may lose some.
    pub alone: bool,
    /// What lay there was damaged, and was made anew.
    pub anew: bool,
}

/// What came of writing under all names.
enum Wrote {
    All,
    /// Somebody else wrote meanwhile; this has to be looked at first.
    Changed,
    /// The place takes none under other names than its own.
    NoCopy,
    /// The registry lacks something that is named.
    Lacks(kiln_oci::registry::Error),
}

impl Executor {
    /// What keeps results here while they are exported outside of a build.
    pub fn build_lease(&self) -> Lease {
        self.store().lease()
    }

    /// Adds the results of a build to what lies at a place.
    ///
    /// What it names must be leased, or be had from `elsewhere`, the caches of the build. A build that ended
    /// with nothing to export leaves the place as it is. It is given up when `until` is done; what lay there is
    /// whole then, and nothing of what was begun is left.
    pub async fn export_cache(
        &self,
        lease: &Lease,
        content: &CacheContent,
        elsewhere: Option<&Arc<Elsewhere>>,
        target: &CacheTarget,
        observer: &TransferObserver,
        until: impl Future<Output = ()>,
    ) -> Result<CachePublished, Error> {
        let home = Home::open(self, &target.place)?;
        tokio::select! {
            published = self.export_to(&home, lease, content, elsewhere, target, observer) => published,
            () = until => {
                home.abandon().await;
                Err(Error::Cancelled)
            }
        }
    }

    async fn export_to(
        &self,
        home: &Home,
        lease: &Lease,
        content: &CacheContent,
        elsewhere: Option<&Arc<Elsewhere>>,
        target: &CacheTarget,
        observer: &TransferObserver,
    ) -> Result<CachePublished, Error> {
        if let Some(elsewhere) = elsewhere {
            elsewhere.settled().await;
        }
        let there = home.has_of(self, lease, content);
        let there = observer.awaiting(&target.place.to_string(), there).await?;
        let (executor, held, packing) = (self.clone(), lease.clone(), target.packing);
        let (content, mode) = (content.clone(), target.mode);
        let (elsewhere, place) = (elsewhere.cloned(), home.clone());
        observer.tell(TransferEvent::Doing("packing layers".to_owned()));
        let (collected, replaced) = stoppable(move |stop| {
            let collector = Collector {
                store: executor.store(),
                lease: &held,
                content: &content,
                mode,
                known: Known {
                    there: Some(&there),
                    elsewhere: elsewhere.as_deref(),
                    target: Some(&place),
                },
                stop,
            };
            let Records { records, replaced } = collector.records()?;
            Ok((collector.packed(records, packing)?, replaced))
        })
        .await?;
        let Collected { cache, there, afar } = collected;
        let publishing = Publishing {
            executor: self,
            lease,
            target,
            home,
            ours: cache,
            there,
            afar,
            observer,
        };
        let published = publishing.run().await?;
        Ok(CachePublished {
            replaced,
            ..published
        })
    }
}

struct Publishing<'a> {
    executor: &'a Executor,
    lease: &'a Lease,
    target: &'a CacheTarget,
    home: &'a Home,
    ours: Cache,
    /// Blobs of ours that are there and may not be here.
    there: BTreeSet<Sha256Digest>,
    /// Blobs of ours that are not here, with where they are.
    afar: BTreeMap<Sha256Digest, Home>,
    observer: &'a TransferObserver,
}

impl Publishing<'_> {
    async fn run(mut self) -> Result<CachePublished, Error> {
        match &self.home.way {
            Way::Local => self.put_into_directory().await,
            Way::Registry(..) | Way::S3(_) => self.put_under_names().await,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            age: self.target.max_age,
            bytes: self.target.max_bytes,
        }
    }

    /// What a cache becomes.
    fn merged(&self, held: Cache) -> Cache {
        held.merge(self.ours.clone(), self.limits(), SystemTime::now())
    }

    fn published(&self, there: &Cache, was_there: bool) -> CachePublished {
        CachePublished {
            records: self.ours.records.len(),
            records_there: there.records.len(),
            replaced: 0,
            was_there,
            alone: false,
            anew: false,
        }
    }

    fn flavor(&self) -> Flavor {
        match self.target.docker_media_types {
            true => Flavor::Docker,
            false => Flavor::Oci,
        }
    }

    fn contended(&self) -> Error {
        CacheError::Contended {
            place: self.target.place.to_string(),
            tries: TRIES,
        }
        .into()
    }

    /// Puts our results to what lies under all names of a registry or a bucket.
    async fn put_under_names(&mut self) -> Result<CachePublished, Error> {
        let mut names = Names::of(self.home);
        // Who may not read is told so before anything is sent.
        let lying = names.look().await?;
        let merged = self.merged(lying.cache.clone());
        let says_all = lying.all_say(&merged) || self.ours.records.is_empty();
        if says_all && !self.lacks_blobs(&merged).await? {
            return Ok(self.published(&merged, true));
        }
        self.send_blobs().await?;
        let mut alone = lying.names.len() == 1;
        let anew = lying.is_damaged;
        // Blobs that others named and that are gone.
        let mut gone = BTreeSet::new();
        for attempt in 0..TRIES {
            let lying = names.look().await?;
            let before = without(lying.cache.clone(), &gone);
            let merged = self.merged(before);
            if !lying.all_say(&merged) {
                match self.write(&lying, &merged).await? {
                    Wrote::All => {}
                    Wrote::Changed => {
                        pause(attempt).await;
                        continue;
                    }
                    Wrote::NoCopy => {
                        alone = true;
                        names.without_copies();
                        continue;
                    }
                    Wrote::Lacks(error) => {
                        let lost = self.lost(&merged).await?;
                        match lost.is_subset(&gone) {
                            true => return Err(Error::Registry(error)),
                            false => gone.extend(lost),
                        }
                        self.ours = without(std::mem::take(&mut self.ours), &gone);
                        self.there.clear();
                        self.send_blobs().await?;
                        continue;
                    }
                }
            }
            // Whoever looked before this was written may write after it: looked at once at once, and
            // once a little later.
            let mut there = names.look().await?;
            if there.all_hold(&self.ours, self.limits()) {
                pause(0).await;
                there = names.look().await?;
                if there.all_hold(&self.ours, self.limits()) {
                    return Ok(CachePublished {
                        alone,
                        anew,
                        ..self.published(&there.cache, false)
                    });
                }
            }
            pause(attempt).await;
        }
        Err(self.contended())
    }

    /// Whether blobs of ours that are named there are there no more: buckets and registries remove by rules of
    /// their own.
    async fn lacks_blobs(&self, merged: &Cache) -> Result<bool, Error> {
        let (ours, named) = (self.ours.blobs(), merged.blobs());
        let open = ours
            .values()
            .filter(|blob| named.contains_key(&blob.digest) && !self.there.contains(&blob.digest));
        let asked = open.map(|blob| self.home.has(blob));
        let has = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        let lacking = has.try_filter(|has| std::future::ready(!has));
        Ok(std::pin::pin!(lacking).try_next().await?.is_some())
    }

    /// Sees to it that all our blobs are there. Results whose blobs can be had no more are ours no more.
    async fn send_blobs(&mut self) -> Result<(), Error> {
        let mut lost = BTreeSet::new();
        if let Way::Registry(client, reference) = &self.home.way {
            for (digest, home) in &self.afar {
                let blobs = self.ours.blobs();
                let Some(blob) = blobs.get(digest) else {
                    continue;
                };
                let can_be_had = match &home.way {
                    // Whoever sends it knows where it is, and may be given it by the registry.
                    Way::Registry(..) => {
                        home.remember(self.executor.store(), digest)?;
                        self.home.has(blob).await? || home.has(blob).await?
                    }
                    _ => {
                        client.has_blob(reference, digest).await?.is_some()
                            || self.bring(blob).await
                    }
                };
                if !can_be_had {
                    lost.insert(*digest);
                }
            }
            self.ours = without(std::mem::take(&mut self.ours), &lost);
            let mut blobs = artifact(&self.ours, self.flavor());
            blobs
                .blobs
                .retain(|blob| !self.there.contains(&blob.digest));
            let executor = self.executor;
            return executor.send_blobs(&blobs, reference, self.observer).await;
        }
        let (Way::S3(s3), CachePlace::S3(place)) = (&self.home.way, &self.home.place) else {
            unreachable!("BUG: a directory has no names to write");
        };
        let blobs = self.ours.blobs();
        let open = blobs
            .values()
            .filter(|blob| !self.there.contains(&blob.digest));
        let sent = open.map(|blob| async {
            let is_there = self.blob_to_bucket(s3, place, blob).await?;
            Ok::<_, Error>((!is_there).then_some(blob.digest))
        });
        let ends: Vec<Option<Sha256Digest>> = stream::iter(sent)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        lost.extend(ends.into_iter().flatten());
        self.ours = without(std::mem::take(&mut self.ours), &lost);
        Ok(())
    }

    /// Brings a blob here that is elsewhere, unless it is here; whether it is now.
    async fn bring(&self, blob: &CachedBlob) -> bool {
        let home = self.afar.get(&blob.digest);
        bring(self.executor, self.lease, home, blob, self.observer)
            .await
            .is_ok()
    }

    /// Writes a document under all names, unless one of them was replaced after it was looked at.
    async fn write(&self, lying: &Lying, merged: &Cache) -> Result<Wrote, Error> {
        match &self.home.way {
            Way::Registry(_, reference) => self.write_tags(reference, lying, merged).await,
            Way::S3(s3) => self.write_objects(s3, lying, merged).await,
            Way::Local => unreachable!("BUG: a directory has no names to write"),
        }
    }

    async fn write_tags(
        &self,
        reference: &Reference,
        lying: &Lying,
        merged: &Cache,
    ) -> Result<Wrote, Error> {
        let flavor = self.flavor();
        let document = merged.encode();
        let manifest = manifest(merged, &document, flavor);
        let bytes = Bytes::from(manifest.to_bytes());
        let root = Descriptor::of(flavor.manifest(), &bytes);
        let document = Export {
            root: root.clone(),
            documents: vec![Document {
                descriptor: manifest.config,
                bytes: document.into(),
            }],
            names: Vec::new(),
            blobs: Vec::new(),
        };
        let silent = TransferObserver::silent();
        self.executor
            .send_blobs(&document, reference, &silent)
            .await?;
        self.home.keep(Some(&root.digest.to_string()), merged);
        for name in &lying.names {
            let Way::Registry(client, reference) = &name.home.way else {
                unreachable!("BUG: a copy lies elsewhere");
            };
            let version = name.home.version().await?;
            if version != name.version {
                return Ok(Wrote::Changed);
            }
            if version.as_deref() == Some(root.digest.to_string().as_str()) {
                continue;
            }
            let put = client.push_manifest(reference, &root.media_type, bytes.clone());
            match put.await {
                Ok(_) => {}
                Err(error) if error.lacks_content() => return Ok(Wrote::Lacks(error)),
                Err(error) => {
                    let error = Error::Registry(error);
                    return match !name.is_own && is_refusal(&error) {
                        true => Ok(Wrote::NoCopy),
                        false => Err(error),
                    };
                }
            }
        }
        Ok(Wrote::All)
    }

    async fn write_objects(&self, s3: &S3, lying: &Lying, merged: &Cache) -> Result<Wrote, Error> {
        let document = Bytes::from(merged.encode());
        for name in &lying.names {
            let CachePlace::S3(place) = &name.home.place else {
                unreachable!("BUG: a copy lies elsewhere");
            };
            let key = place.manifest();
            // Some stores pass over conditions.
            if name.home.version().await? != name.version {
                return Ok(Wrote::Changed);
            }
            let condition = match &name.version {
                None => Condition::Absent,
                Some(etag) => Condition::Unchanged(etag.clone()),
            };
            let mut written = s3.put(&key, document.clone(), &condition).await;
            if let Ok(Written::Unconditional) = written {
                written = s3.put(&key, document.clone(), &Condition::None).await;
            }
            match written {
                Ok(Written::Done | Written::Unconditional) => {}
                Ok(Written::Refused) => return Ok(Wrote::Changed),
                Err(error) => {
                    let error = Error::from(CacheError::from(error));
                    return match !name.is_own && is_refusal(&error) {
                        true => Ok(Wrote::NoCopy),
                        false => Err(error),
                    };
                }
            }
        }
        Ok(Wrote::All)
    }

    /// Blobs of others that are named and not there.
    async fn lost(&self, merged: &Cache) -> Result<BTreeSet<Sha256Digest>, Error> {
        let mut lost = BTreeSet::new();
        if let Way::Registry(client, reference) = &self.home.way {
            for blob in merged.blobs().into_keys() {
                let store = self.executor.store();
                let can_be_sent = self.ours.blobs().contains_key(&blob)
                    && (self.afar.contains_key(&blob)
                        || store.lease_blob(self.lease, &blob_digest(&blob))?);
                if !can_be_sent && client.has_blob(reference, &blob).await?.is_none() {
                    lost.insert(blob);
                }
            }
        }
        Ok(lost)
    }

    async fn put_into_directory(self) -> Result<CachePublished, Error> {
        let CachePlace::Local { directory, tag, .. } = self.target.place.clone() else {
            unreachable!("BUG: a place is opened as another kind");
        };
        let (executor, lease) = (self.executor.clone(), self.lease.clone());
        let (limits, flavor) = (self.limits(), self.flavor());
        let (home, observer) = (self.home.clone(), self.observer.clone());
        let (mut ours, afar) = (self.ours, self.afar);
        let runtime = tokio::runtime::Handle::current();
        stoppable(move |stop| {
            let store = executor.store();
            let lock = layout::lock(&directory)?;
            let (held, anew) = match runtime.block_on(home.read()) {
                Ok(held) => (held.cache, false),
                Err(Error::Cache(CacheError::Missing { .. })) => (Cache::default(), false),
                Err(Error::Cache(CacheError::Damaged { .. })) => (Cache::default(), true),
                Err(error) => return Err(error),
            };
            // What somebody removed by hand is not named again.
            let missing: BTreeSet<Sha256Digest> = held
                .blobs()
                .into_values()
                .filter(|blob| !layout::has(&directory, &blob.digest, blob.size))
                .map(|blob| blob.digest)
                .collect();
            let is_new = held.records.is_empty();
            let held = without(held, &missing);
            // Those that are elsewhere come first: what cannot be had is not named.
            let mut lost = BTreeSet::new();
            for blob in ours.blobs().into_values() {
                let is_there = layout::has(&directory, &blob.digest, blob.size);
                if !is_there && !store.lease_blob(&lease, &blob_digest(&blob.digest))? {
                    let home = afar.get(&blob.digest);
                    let brought = bring(&executor, &lease, home, blob, &observer);
                    if runtime.block_on(brought).is_err() {
                        lost.insert(blob.digest);
                    }
                }
            }
            ours = without(ours, &lost);
            let merged = held.clone().merge(ours.clone(), limits, SystemTime::now());
            let published = CachePublished {
                records: ours.records.len(),
                records_there: merged.records.len(),
                replaced: 0,
                was_there: merged == held && missing.is_empty() && !is_new,
                alone: false,
                anew,
            };
            if published.was_there {
                return Ok(published);
            }
            for blob in ours.blobs().into_values() {
                let told = descriptor(blob, flavor);
                if layout::has(&directory, &blob.digest, blob.size) {
                    observer.blob(&told, BlobState::Present);
                    continue;
                }
                let file = store.open_blob(&blob_digest(&blob.digest))?;
                layout::put_file(&directory, &blob.digest, blob.size, file, stop)?;
                observer.blob(&told, BlobState::Moved);
            }
            let document = merged.encode();
            let manifest = manifest(&merged, &document, flavor);
            layout::put(&directory, &tag, &manifest, &document, &lock)?;
            Ok(published)
        })
        .await
    }

    /// Sees to it that the bucket has a blob; `false` if it can be had nowhere.
    async fn blob_to_bucket(
        &self,
        s3: &S3,
        place: &S3Place,
        blob: &CachedBlob,
    ) -> Result<bool, Error> {
        let key = place.blob(&blob.digest);
        let told = descriptor(blob, Flavor::Oci);
        self.observer.blob(&told, BlobState::Waiting);
        if self.home.has(blob).await? {
            self.observer.blob(&told, BlobState::Present);
            return Ok(true);
        }
        if self.afar.contains_key(&blob.digest) && !self.bring(blob).await {
            return Ok(false);
        }
        let path = self.executor.store().blob_file(&blob_digest(&blob.digest));
        let (observer, moving) = (self.observer.clone(), told.clone());
        let moved = move |bytes| observer.blob(&moving, BlobState::Moving(bytes));
        let put = s3.put_file(&key, path, blob.size, Arc::new(moved)).await;
        put.map_err(CacheError::from)?;
        self.observer.blob(&told, BlobState::Moved);
        Ok(true)
    }
}

impl Home {
    /// What lies there of the results of a build, as far as its blobs are there and not here.
    async fn has_of(
        &self,
        executor: &Executor,
        lease: &Lease,
        content: &CacheContent,
    ) -> Result<Cache, Error> {
        let held = match self.read().await {
            Ok(held) if !held.in_image => held.cache,
            // It is not waited for once more.
            Err(error) if error.is_outage() => return Err(error),
            // Whoever writes says what is wrong with it.
            _ => return Ok(Cache::default()),
        };
        let store = executor.store();
        let keys: Vec<Key> = content.definitions.iter().map(|key| Key(key.0)).collect();
        let named: BTreeSet<&Key> = keys.iter().collect();
        let mut wanted: BTreeSet<Content> = held
            .records
            .iter()
            .filter(|record| record.keys.iter().any(|key| named.contains(key)))
            .flat_map(CachedRecord::layers)
            .collect();
        for found in store.peek(&keys)?.into_iter().flatten() {
            wanted.extend(found.outputs.into_iter().flatten().flatten());
        }
        let mut absent = BTreeSet::new();
        let mut open = Vec::new();
        for (content, layer) in &held.layers {
            let blob = &layer.blob;
            if !wanted.contains(content) || store.lease_blob(lease, &blob_digest(&blob.digest))? {
                absent.insert(blob.digest);
            } else {
                open.push(blob);
            }
        }
        let asked = open.into_iter().map(|blob| async move {
            let has = self.has(blob).await?;
            Ok::<_, Error>((!has).then_some(blob.digest))
        });
        let asked: Vec<Option<Sha256Digest>> = stream::iter(asked)
            .buffer_unordered(ASKED_AT_ONCE)
            .try_collect()
            .await?;
        absent.extend(asked.into_iter().flatten());
        Ok(without(held, &absent))
    }
}

/// Brings a blob here from another place, unless it is here.
async fn bring(
    executor: &Executor,
    lease: &Lease,
    home: Option<&Home>,
    blob: &CachedBlob,
    observer: &TransferObserver,
) -> Result<(), Error> {
    let (store, digest) = (executor.store(), blob_digest(&blob.digest));
    if store.lease_blob(lease, &digest)? {
        return Ok(());
    }
    let Some(home) = home else {
        return Err(kiln_store::StoreError::NoSuchBlob(digest).into());
    };
    let told = descriptor(blob, Flavor::Oci);
    let moved = |bytes| observer.blob(&told, BlobState::Moving(bytes));
    home.bring(executor, lease, blob, Duration::MAX, &moved)
        .await
}

/// A cache without what needs any of these blobs.
fn without(cache: Cache, gone: &BTreeSet<Sha256Digest>) -> Cache {
    if gone.is_empty() {
        return cache;
    }
    let Cache {
        mut records,
        mut layers,
    } = cache;
    layers.retain(|_, layer| !gone.contains(&layer.blob.digest));
    records.retain(|record| {
        record
            .layers()
            .all(|content| super::document::is_base(&content) || layers.contains_key(&content))
    });
    Cache { records, layers }.in_order()
}

/// The manifest of a cache: its document as config, its blobs as layers, so that registries keep what
/// is named and other tools copy all of it.
fn manifest(cache: &Cache, document: &[u8], flavor: Flavor) -> Manifest {
    let blobs = cache
        .blobs()
        .into_values()
        .map(|blob| descriptor(blob, flavor));
    let config = Descriptor::of(CONFIG_TYPE, document);
    Manifest::new(flavor, config, blobs.collect())
}

fn descriptor(blob: &CachedBlob, flavor: Flavor) -> Descriptor {
    Descriptor::new(flavor.layer(blob.compression), blob.digest, blob.size)
}

/// The blobs alone, for a registry.
fn artifact(ours: &Cache, flavor: Flavor) -> Export {
    let blobs = ours.blobs();
    let blobs = blobs.into_values().map(|blob| descriptor(blob, flavor));
    Export {
        root: Descriptor::of(flavor.manifest(), b""),
        documents: Vec::new(),
        names: Vec::new(),
        blobs: blobs.collect(),
    }
}

/// Waits a little, longer each time, and never as long as anybody else.
pub(crate) async fn pause(attempt: u32) {
    let most = FIRST_PAUSE * (1 << attempt.min(5));
    let share = RandomState::new().hash_one(attempt) % 1024;
    tokio::time::sleep(most.mul_f64(0.5 + share as f64 / 2048.0)).await;
}
