//! Exporting: what a build has is added to what lies at a place, so that two builds that export to
//! one place both find their results there.
//!
//! Blobs come first, those that are there already are not sent, and the document last. Others may
//! replace it between the moment when it is read and the one when it is written: a directory is
//! locked meanwhile, a bucket refuses to replace another version than was read, and in both buckets and
//! registries, which know nothing of the kind, there are copies (`copies.rs`). What lies under each name
//! afterwards is looked at, and all is tried again where one lacks what was added.

mod directory;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Manifest};
use kiln_oci::media_type::Flavor;
use kiln_store::{Content, Key, Lease};

use super::collect::{CacheContent, CacheMode, Collected, Collector, Known, Records};
use super::document::{Cache, CachedBlob, CachedRecord, Limits};
use super::elsewhere::Elsewhere;
use super::place::{CONFIG_TYPE, CachePlace, Home, Way, blob_digest};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::Executor;
use crate::source::stoppable;
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// How long to wait at first before another try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
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

/// Waits a little, longer each time, and never as long as anybody else.
pub(crate) async fn pause(attempt: u32) {
    let most = FIRST_PAUSE * (1 << attempt.min(5));
    let share = RandomState::new().hash_one(attempt) % 1024;
    tokio::time::sleep(most.mul_f64(0.5 + share as f64 / 2048.0)).await;
}
