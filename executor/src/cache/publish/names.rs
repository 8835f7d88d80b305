//! Exporting to a registry or a bucket, where nobody can lock anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_oci::layout::{Document, Export};
use kiln_oci::media_type::Flavor;
use kiln_oci::reference::Reference;
use kiln_oci::s3::{Condition, S3, Written};

use super::{
    ASKED_AT_ONCE, CachePublished, Publishing, bring, descriptor, manifest, pause, without,
};
use crate::cache::copies::{Lying, Names, is_refusal};
use crate::cache::document::{Cache, CachedBlob};
use crate::cache::error::CacheError;
use crate::cache::place::{CachePlace, S3Place, Way, blob_digest};
use crate::error::Error;
use crate::transfer::{BlobState, TransferObserver};

/// How often all is tried where others write at the same time.
const TRIES: u32 = 30;
/// Blobs that are written to a bucket at once.
const AT_ONCE: usize = 4;

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
impl Publishing<'_> {
    /// Puts our results to what lies under all names of a registry or a bucket.
    pub(super) async fn put_under_names(&mut self) -> Result<CachePublished, Error> {
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
        Err(CacheError::Contended {
            place: self.target.place.to_string(),
            tries: TRIES,
        }
        .into())
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
