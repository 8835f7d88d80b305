//! Exporting to a directory, which is locked from reading to writing.

use std::collections::BTreeSet;
use std::time::SystemTime;

use kiln_oci::digest::Sha256Digest;

use super::{CachePublished, Publishing, bring, descriptor, manifest, without};
use crate::cache::document::Cache;
use crate::cache::error::CacheError;
use crate::cache::layout;
use crate::cache::place::{CachePlace, blob_digest};
use crate::error::Error;
use crate::source::stoppable;
use crate::transfer::BlobState;

impl Publishing<'_> {
    pub(super) async fn put_into_directory(self) -> Result<CachePublished, Error> {
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
}
