//! Exporting: what a build has is added to what lies at a place, so that two builds that export to
//! one place both find their results there.
//!
//! Blobs come first, those that are there already are not sent, and the document last. Others may
//! replace it between the moment when it is read and the one when it is written: a directory is
//! locked meanwhile, a bucket refuses to replace another version than was read, and in a registry,
//! which knows neither, what is there afterwards is looked at, and all is tried again where it lacks
//! what was added. What is lost all the same costs a miss, never a wrong result.

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
use super::document::{Cache, CachedBlob, Limits};
use super::error::CacheError;
use super::layout;
use super::place::{CONFIG_TYPE, CachePlace, Held, Home, S3Place, Way, blob_digest};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::TransferObserver;

/// How often all is tried where others write at the same time.
const TRIES: u32 = 10;
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
        match (&self.home.way, &self.target.place) {
            (Way::Registry(client, reference), _) => self.to_registry(client, reference).await,
            (Way::Local, CachePlace::Local { .. }) => self.to_directory().await,
            (Way::S3(s3), CachePlace::S3(place)) => self.to_bucket(s3, place).await,
            _ => unreachable!("BUG: a place is opened as another kind"),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            age: self.target.max_age,
            bytes: self.target.max_bytes,
        }
    }

    /// What lies there and what it becomes; nothing if it need not change.
    fn merged(&self, held: Cache) -> (Cache, bool) {
        let merged = held
            .clone()
            .merge(self.ours.clone(), self.limits(), SystemTime::now());
        let same = merged == held;
        (merged, same)
    }

    fn published(&self, there: &Cache, was_there: bool) -> CachePublished {
        CachePublished {
            records: self.ours.records.len(),
            records_there: there.records.len(),
            was_there,
        }
    }

    /// What lies there now; an empty cache if there is nothing.
    async fn held(&self) -> Result<Held, Error> {
        match self.home.read().await {
            Err(Error::Cache(CacheError::Missing { .. })) => Ok(Held {
                cache: Cache::default(),
                version: None,
                in_image: false,
            }),
            Ok(held) if held.in_image => Err(self.home.foreign("an image").into()),
            held => held,
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

    async fn to_registry(
        &self,
        client: &kiln_oci::registry::Client,
        reference: &Reference,
    ) -> Result<CachePublished, Error> {
        // Blobs that others named and that are gone.
        let mut gone = BTreeSet::new();
        for attempt in 0..TRIES {
            let held = self.held().await?;
            let before = without(held.cache, &gone);
            let (merged, same) = self.merged(before);
            if same && held.version.is_some() && gone.is_empty() {
                return Ok(self.published(&merged, true));
            }
            let artifact = artifact(&merged, self.ours, self.flavor());
            let targets = [reference.clone()];
            match self.executor.send(&artifact, &targets, self.observer).await {
                Ok(_) => {}
                Err(Error::Registry(error)) if error.lacks_content() && gone.is_empty() => {
                    for blob in merged.blobs().into_keys() {
                        let ours = self.ours.blobs().contains_key(&blob);
                        if !ours && client.has_blob(reference, &blob).await?.is_none() {
                            gone.insert(blob);
                        }
                    }
                    match gone.is_empty() {
                        true => return Err(Error::Registry(error)),
                        false => continue,
                    }
                }
                Err(error) => return Err(error),
            }
            // Whoever read before this was written may write after it: looked at once at once, and
            // once a little later.
            let mut there = self.held().await?.cache;
            if there.covers(self.ours) {
                pause(0).await;
                there = self.held().await?.cache;
                if there.covers(self.ours) {
                    return Ok(self.published(&there, false));
                }
            }
            pause(attempt).await;
        }
        Err(self.contended())
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

    async fn to_bucket(&self, s3: &S3, place: &S3Place) -> Result<CachePublished, Error> {
        use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
        // Who may not read is told so before anything is sent.
        let held = self.held().await?;
        let (merged, same) = self.merged(held.cache);
        if same && held.version.is_some() {
            return Ok(self.published(&merged, true));
        }
        let blobs = self.ours.blobs();
        let sent = blobs
            .values()
            .map(|blob| self.blob_to_bucket(s3, place, blob));
        stream::iter(sent)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        let mut conditional = true;
        for attempt in 0..TRIES {
            let held = self.held().await?;
            let (merged, same) = self.merged(held.cache);
            if same && held.version.is_some() {
                return Ok(self.published(&merged, true));
            }
            let condition = match (&held.version, conditional) {
                (_, false) => Condition::None,
                (None, true) => Condition::Absent,
                (Some(etag), true) => Condition::Unchanged(etag.clone()),
            };
            let document = Bytes::from(merged.encode());
            let written = s3.put(&place.manifest(), document, &condition).await;
            match written.map_err(CacheError::from)? {
                Written::Done => {}
                Written::Refused => {
                    pause(attempt).await;
                    continue;
                }
                Written::Unconditional => {
                    conditional = false;
                    continue;
                }
            }
            // Some stores pass over conditions.
            let there = self.held().await?.cache;
            if there.covers(self.ours) {
                return Ok(self.published(&there, false));
            }
            pause(attempt).await;
        }
        Err(self.contended())
    }

    async fn blob_to_bucket(
        &self,
        s3: &S3,
        place: &S3Place,
        blob: &CachedBlob,
    ) -> Result<(), Error> {
        let key = place.blob(&blob.digest);
        if s3.size(&key).await.map_err(CacheError::from)? == Some(blob.size) {
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

/// All of it for a registry; only our own blobs are sent.
fn artifact(cache: &Cache, ours: &Cache, flavor: Flavor) -> Export {
    let document = cache.encode();
    let manifest = manifest(cache, &document, flavor);
    let bytes = manifest.to_bytes();
    let root = Descriptor::of(flavor.manifest(), &bytes);
    Export {
        documents: vec![
            Document {
                descriptor: root.clone(),
                bytes: bytes.into(),
            },
            Document {
                descriptor: manifest.config,
                bytes: document.into(),
            },
        ],
        root,
        names: Vec::new(),
        blobs: ours
            .blobs()
            .into_values()
            .map(|blob| descriptor(blob, flavor))
            .collect(),
    }
}

/// Waits a little, longer each time, and never as long as anybody else.
async fn pause(attempt: u32) {
    let most = FIRST_PAUSE * (1 << attempt.min(5));
    let share = RandomState::new().hash_one(attempt) % 1024;
    tokio::time::sleep(most.mul_f64(0.5 + share as f64 / 2048.0)).await;
}
