//! What a build has to export: its records, and archives of the layers that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use kiln_oci::digest::Sha256Digest;
use kiln_oci::media_type::Compression;
use kiln_solver::DefinitionKey;
use kiln_store::{Content, Key, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::tar::MtimePolicy;

use super::document::{Cache, CachedBlob, CachedLayer, CachedRecord, is_base};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::export::{LayerArchive, Nowhere, Packer, describe_layers as describe};

/// Which results of a build are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those of which the result consists.
    #[default]
    Min,
    /// Those of all its steps.
    Max,
}

/// What a build came to, as far as a cache is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheContent {
    /// The definition keys of its steps.
    pub definitions: Vec<DefinitionKey>,
    /// The layers of its results.
    pub results: Vec<kiln_solver::Content>,
    /// `SOURCE_DATE_EPOCH`, if all times of its images' layers are that: then those of the cache are
    /// the same archives.
    pub epoch: Option<i64>,
}

/// Collects records and packs layers.
pub(super) struct Collector<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) content: &'a CacheContent,
    pub(super) mode: CacheMode,
    pub(super) stop: &'a Stop,
}

impl Collector<'_> {
    /// The records of the build whose layers are here, without layers.
    pub(super) fn records(&self) -> Result<Vec<CachedRecord>, Error> {
        let store = self.store;
        let keys: Vec<Key> = self
            .content
            .definitions
            .iter()
            .map(|key| Key(key.0))
            .collect();
        let results: BTreeSet<Content> = self
            .content
            .results
            .iter()
            .flat_map(|layers| crate::stack::to_store(layers))
            .collect();
        let mut records = BTreeMap::new();
        for found in store.find(self.lease, &keys)?.into_iter().flatten() {
            if records.contains_key(&found.id) || !found.missing.iter().all(is_base) {
                continue;
            }
            let mut layers = found.outputs.iter().flatten().flatten();
            if self.mode == CacheMode::Min && !layers.all(|layer| results.contains(layer)) {
                continue;
            }
            let record = CachedRecord {
                keys: store.keys_of(found.id)?,
                op: found.op,
                slot: found.slot,
                outputs: found.outputs,
                created: found.created,
                took: Duration::from_micros(
                    u64::try_from(found.duration.as_micros()).unwrap_or(u64::MAX),
                ),
                parts: found.parts,
            };
            records.insert(found.id, record);
        }
        Ok(records.into_values().collect())
    }

    /// The records with archives of their layers, packed like this.
    pub(super) fn packed(
        &self,
        records: Vec<CachedRecord>,
        packing: LayerCompression,
    ) -> Result<Cache, Error> {
        let store = self.store;
        let mtime = self.mtime();
        let packer = Packer {
            store,
            lease: self.lease,
            mtime,
            packing,
            stop: self.stop,
            bring: &|_| Ok(false),
            afar: &Nowhere,
        };
        let mut layers = BTreeMap::new();
        for stack in records
            .iter()
            .flat_map(|record| record.outputs.iter().flatten())
        {
            for (index, content) in stack.iter().enumerate() {
                // Layers of an image are had from where the image is.
                if is_base(content) || layers.contains_key(content) {
                    continue;
                }
                if self.stop.is_set() {
                    return Err(Error::Cancelled);
                }
                let stack = &stack[..=index];
                let packed = packer.pack_top(stack)?;
                let Some(blob) = packed.blob else {
                    unreachable!("BUG: a layer was packed and has no blob");
                };
                let archive = LayerArchive::of(store, stack, mtime)?;
                let passing = store.layer_manifest(content)?.passing();
                let layer = CachedLayer {
                    blob: CachedBlob {
                        digest: Sha256Digest::from_bytes(blob.digest.0),
                        size: blob.size,
                        compression: blob.compression,
                        diff_id: packed.diff_id,
                        archive: archive.filed_as().to_owned(),
                        packed: packer.filed_as().into_owned(),
                    },
                    created: packed.created,
                    passing: passing.map(|manifest| manifest.encode()),
                };
                layers.insert(*content, layer);
            }
        }
        Ok(Cache { records, layers }.in_order())
    }

    /// The records with what an image says of their layers, which has them itself.
    pub(super) fn described(&self, records: Vec<CachedRecord>) -> Result<Cache, Error> {
        let store = self.store;
        let mtime = self.mtime();
        let mut layers = BTreeMap::new();
        for stack in records
            .iter()
            .flat_map(|record| record.outputs.iter().flatten())
        {
            // The stack of one record is mostly the beginning of another's.
            if stack.iter().all(|content| layers.contains_key(content)) {
                continue;
            }
            let missing = store.lease_layers(self.lease, stack)?;
            if !missing.is_empty() {
                continue;
            }
            for (index, found) in describe(store, stack, mtime, self.stop)?.iter().enumerate() {
                let archive = match is_base(&found.content) {
                    true => String::new(),
                    false => LayerArchive::of(store, &stack[..=index], mtime)?
                        .filed_as()
                        .to_owned(),
                };
                let passing = match is_base(&found.content) {
                    true => None,
                    false => store.layer_manifest(&found.content)?.passing(),
                };
                let layer = CachedLayer {
                    // The manifest of the image says which blob it is.
                    blob: CachedBlob {
                        digest: Sha256Digest::from_bytes([0; 32]),
                        size: 0,
                        compression: Compression::None,
                        diff_id: found.diff_id,
                        archive,
                        packed: String::new(),
                    },
                    // When a base came here says nothing to others.
                    created: match is_base(&found.content) {
                        true => SystemTime::UNIX_EPOCH,
                        false => found.created,
                    },
                    passing: passing.map(|manifest| manifest.encode()),
                };
                layers.entry(found.content).or_insert(layer);
            }
        }
        Ok(Cache { records, layers }.in_order())
    }

    fn mtime(&self) -> MtimePolicy {
        self.content
            .epoch
            .map_or(MtimePolicy::Keep, MtimePolicy::Fixed)
    }
}

/// The cache of an image's own layers, as its config has it.
pub(crate) fn inline_cache(
    store: &Store,
    lease: &Lease,
    content: &CacheContent,
    stop: &Stop,
) -> Result<String, Error> {
    let collector = Collector {
        store,
        lease,
        content,
        mode: CacheMode::Min,
        stop,
    };
    let cache = collector.described(collector.records()?)?;
    Ok(cache.encode_inline())
}
