//! Exporting: what a build has is added to what lies at a place, so that two builds that export to
//! one place both find their results there.
//!
//! Blobs come first, those that are there already are not sent, and the document last. Others may
//! replace it between the moment when it is read and the one when it is written: a directory is
//! locked meanwhile, a bucket refuses to replace another version than was read, and in both buckets and
//! registries, which know nothing of the kind, there are copies (`copies.rs`). What lies under each name
//! afterwards is looked at, and all is tried again where one lacks what was added.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Manifest};
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type::Flavor;
use kiln_oci::reference::Reference;
use kiln_oci::s3::{Condition, S3, Written};
use kiln_store::Lease;

use super::collect::{CacheContent, CacheMode, Collector};
use super::copies::{Lying, Names, is_refusal};
use super::document::{Cache, CachedBlob, Limits};
use super::error::CacheError;
use super::layout;
use super::place::{CONFIG_TYPE, CachePlace, Home, S3Place, Way, blob_digest};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::TransferObserver;

/// How often all is tried where others write at the same time.
const TRIES: u32 = 30;
/// How long to wait at first before another try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Blobs that are written to a bucket at once.
const AT_ONCE: usize = 4;
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
    /// Nothing had to be changed.
    pub was_there: bool,
    /// The place takes no copies beside it, so that builders at the same moment may lose some.
    pub alone: bool,
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
    /// What it names must be leased. A build that ended with nothing to export leaves the place as it
    /// is.
    pub async fn export_cache(
        &self,
        lease: &Lease,
        content: &CacheContent,
        target: &CacheTarget,
        observer: &TransferObserver,
    ) -> Result<CachePublished, Error> {
        let home = Home::open(self, &target.place)?;
        let (executor, held, packing) = (self.clone(), lease.clone(), target.packing);
        let (content, mode) = (content.clone(), target.mode);
        let ours = stoppable(move |stop| {
            let collector = Collector {
                store: executor.store(),
                lease: &held,
                content: &content,
                mode,
                stop,
            };
            let records = collector.records()?;
            collector.packed(records, packing)
        })
        .await?;
        let publishing = Publishing {
            executor: self,
            lease,
            target,
            home: &home,
            ours: &ours,
            observer,
        };
        publishing.run().await
    }
}

struct Publishing<'a> {
    executor: &'a Executor,
    lease: &'a Lease,
    target: &'a CacheTarget,
    home: &'a Home,
    ours: &'a Cache,
    observer: &'a TransferObserver,
}

impl Publishing<'_> {
    async fn run(&self) -> Result<CachePublished, Error> {
        match &self.home.way {
            Way::Local => self.to_directory().await,
            Way::Registry(..) | Way::S3(_) => self.to_names().await,
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
            was_there,
            alone: false,
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
    async fn to_names(&self) -> Result<CachePublished, Error> {
        let mut names = Names::of(self.home);
        // Who may not read is told so before anything is sent.
        let lying = names.look().await?;
        let merged = self.merged(lying.cache.clone());
        if lying.all_say(&merged) || self.ours.records.is_empty() {
            return Ok(self.published(&merged, true));
        }
        self.send_blobs().await?;
        let mut alone = lying.names.len() == 1;
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
                        self.send_blobs().await?;
                        continue;
                    }
                }
            }
            // Whoever looked before this was written may write after it: looked at once at once, and
            // once a little later.
            let mut there = names.look().await?;
            if there.all_hold(self.ours, self.limits()) {
                pause(0).await;
                there = names.look().await?;
                if there.all_hold(self.ours, self.limits()) {
                    return Ok(CachePublished {
                        alone,
                        ..self.published(&there.cache, false)
                    });
                }
            }
            pause(attempt).await;
        }
        Err(self.contended())
    }

    /// Sees to it that all our blobs are there.
    async fn send_blobs(&self) -> Result<(), Error> {
        use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
        match (&self.home.way, &self.home.place) {
            (Way::Registry(_, reference), _) => {
                let blobs = artifact(self.ours, self.flavor());
                let executor = self.executor;
                executor.send_blobs(&blobs, reference, self.observer).await
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                let blobs = self.ours.blobs();
                let sent = blobs
                    .values()
                    .map(|blob| self.blob_to_bucket(s3, place, blob));
                stream::iter(sent)
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<Vec<()>>()
                    .await?;
                Ok(())
            }
            _ => unreachable!("BUG: a directory has no names to write"),
        }
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
                let ours = self.ours.blobs().contains_key(&blob);
                if !ours && client.has_blob(reference, &blob).await?.is_none() {
                    lost.insert(blob);
                }
            }
        }
        Ok(lost)
    }

    async fn to_directory(&self) -> Result<CachePublished, Error> {
        let CachePlace::Local { directory, tag, .. } = self.target.place.clone() else {
            unreachable!("BUG: a place is opened as another kind");
        };
        let (store, lease) = (self.executor.store().clone(), self.lease.clone());
        let (ours, limits, flavor) = (self.ours.clone(), self.limits(), self.flavor());
        let home = self.home.clone();
        let runtime = tokio::runtime::Handle::current();
        stoppable(move |stop| {
            // Held while this goes on.
            let _lease = lease;
            let lock = layout::lock(&directory)?;
            let held = match runtime.block_on(home.read()) {
                Ok(held) => held.cache,
                Err(Error::Cache(CacheError::Missing { .. })) => Cache::default(),
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
            let merged = held.clone().merge(ours.clone(), limits, SystemTime::now());
            let published = CachePublished {
                records: ours.records.len(),
                records_there: merged.records.len(),
                was_there: merged == held && missing.is_empty() && !is_new,
                alone: false,
            };
            if published.was_there {
                return Ok(published);
            }
            for blob in ours.blobs().into_values() {
                if !layout::has(&directory, &blob.digest, blob.size) {
                    let file = store.open_blob(&blob_digest(&blob.digest))?;
                    layout::put_file(&directory, &blob.digest, blob.size, file, stop)?;
                }
            }
            let document = merged.encode();
            let manifest = manifest(&merged, &document, flavor);
            layout::put(&directory, &tag, &manifest, &document, &lock)?;
            Ok(published)
        })
        .await
    }

    async fn blob_to_bucket(
        &self,
        s3: &S3,
        place: &S3Place,
        blob: &CachedBlob,
    ) -> Result<(), Error> {
        let key = place.blob(&blob.digest);
        let there = s3.look(&key).await.map_err(CacheError::from)?;
        if there.is_some_and(|there| there.size == blob.size) {
            return Ok(());
        }
        let path = self.executor.store().blob_file(&blob_digest(&blob.digest));
        s3.put_file(&key, path, blob.size)
            .await
            .map_err(CacheError::from)?;
        Ok(())
    }
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
async fn pause(attempt: u32) {
    let most = FIRST_PAUSE * (1 << attempt.min(5));
    let share = RandomState::new().hash_one(attempt) % 1024;
    tokio::time::sleep(most.mul_f64(0.5 + share as f64 / 2048.0)).await;
}
