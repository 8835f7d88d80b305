//! What a build has to export: its records, and archives of the layers that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use kiln_oci::digest::Sha256Digest;
use kiln_oci::media_type::Compression;
use kiln_solver::DefinitionKey;
use kiln_store::{Content, DiffId, Key, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::tar::MtimePolicy;

use super::document::{Cache, CachedBlob, CachedLayer, CachedRecord, is_base};
use super::elsewhere::Elsewhere;
use super::place::Home;
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::export::{LayerArchive, NoBases, Packer, describe_layers as describe};

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
    /// `SOURCE_DATE_EPOCH`, if all times in the layers of all its images are that: then those of the cache
    /// are the same archives. Else files keep their times, so that either image can be made of them.
    pub epoch: Option<i64>,
    /// When it ended, if later builds may have filed other results under its keys since.
    pub ended: Option<SystemTime>,
}

/// Collects records and packs layers.
pub(super) struct Collector<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) content: &'a CacheContent,
    pub(super) mode: CacheMode,
    pub(super) known: Known<'a>,
    pub(super) stop: &'a Stop,
}

/// Results that can be named without their bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// What lies at the place already; its blobs are there.
    pub(super) there: Option<&'a Cache>,
    /// What the build could take.
    pub(super) elsewhere: Option<&'a Elsewhere>,
    /// The place.
    pub(super) target: Option<&'a Home>,
}

/// What is exported, and where those of its blobs are that are not here.
#[derive(Debug, Clone, Default)]
pub(super) struct Collected {
    pub(super) cache: Cache,
    /// Blobs that the place has.
    pub(super) there: BTreeSet<Sha256Digest>,
    /// Blobs that are elsewhere.
    pub(super) afar: BTreeMap<Sha256Digest, Home>,
}

/// Records of a build.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) records: Vec<CachedRecord>,
    /// How many of its results later builds replaced by others.
    pub(super) replaced: usize,
}

impl Known<'_> {
    /// A layer as somebody else packed it.
    fn layer(&self, content: &Content) -> Option<(CachedLayer, Option<Home>)> {
        let there = self.there.and_then(|there| there.layers.get(content));
        if let Some(layer) = there {
            return Some((layer.clone(), None));
        }
        let (layer, home) = self.elsewhere?.layer(content)?;
        Some((layer, Some(home)))
    }

    fn records(&self, keys: &BTreeSet<Key>) -> Vec<CachedRecord> {
        let there = self.there.iter().flat_map(|there| &there.records);
        let named = there.filter(|record| record.keys.iter().any(|key| keys.contains(key)));
        let mut found: Vec<CachedRecord> = named.cloned().collect();
        if let Some(elsewhere) = self.elsewhere {
            found.extend(elsewhere.records(keys));
        }
        found
    }
}

impl Collector<'_> {
    /// The records of the build whose layers are here or can be had, without layers.
    pub(super) fn records(&self) -> Result<Records, Error> {
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
        let in_results = |outputs: &[Option<Vec<Content>>]| {
            let mut layers = outputs.iter().flatten().flatten();
            layers.all(|layer| results.contains(layer))
        };
        let wanted =
            |outputs: &[Option<Vec<Content>>]| self.mode == CacheMode::Max || in_results(outputs);
        // What was filed later is another build's, unless it came to the same.
        let is_later =
            |created: SystemTime| self.content.ended.is_some_and(|ended| created > ended);
        let mut replaced = BTreeSet::new();
        let can_be_had =
            |content: &Content| is_base(content) || self.known.layer(content).is_some();
        let mut records = BTreeMap::new();
        let mut open: BTreeSet<Key> = BTreeSet::new();
        for (key, found) in keys.iter().zip(store.find(self.lease, &keys)?) {
            let Some(found) = found.filter(|found| found.missing.iter().all(can_be_had)) else {
                open.insert(*key);
                continue;
            };
            if is_later(found.created) && !in_results(&found.outputs) {
                replaced.insert(found.id);
                continue;
            }
            if records.contains_key(&found.id) || !wanted(&found.outputs) {
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
        // What was found elsewhere and not needed is not here.
        let others = self.known.records(&open).into_iter();
        let others = others.filter(|record| wanted(&record.outputs));
        let records: Vec<CachedRecord> = records.into_values().chain(others).collect();
        // Of a step that is in no result nothing was to be exported.
        let layers: BTreeSet<Content> = records.iter().flat_map(CachedRecord::layers).collect();
        let mut made = results.iter().filter(|content| !is_base(content));
        let lacks = self.mode == CacheMode::Max || made.any(|content| !layers.contains(content));
        Ok(Records {
            records,
            replaced: if lacks { replaced.len() } else { 0 },
        })
    }

    /// The records with archives of their layers, packed like this where that has to be done. Layers that are
    /// not here are named as others packed them.
    pub(super) fn packed(
        &self,
        mut records: Vec<CachedRecord>,
        packing: LayerCompression,
    ) -> Result<Collected, Error> {
        let store = self.store;
        let mtime = self.mtime();
        let packer = Packer {
            store,
            lease: self.lease,
            mtime,
            packing,
            stop: self.stop,
            bases: &NoBases,
        };
        let mut layers = BTreeMap::new();
        let (mut there, mut afar) = (BTreeSet::new(), BTreeMap::new());
        for stack in records
            .iter()
            .flat_map(|record| record.outputs.iter().flatten())
        {
            if stack
                .iter()
                .all(|content| is_base(content) || layers.contains_key(content))
            {
                continue;
            }
            let missing = store.lease_layers(self.lease, stack)?;
            for (index, content) in stack.iter().enumerate() {
                // Layers of an image are had from where the image is.
                if is_base(content) || layers.contains_key(content) {
                    continue;
                }
                if self.stop.is_set() {
                    return Err(Error::Cancelled);
                }
                let stack = &stack[..=index];
                let is_here = stack.iter().all(|content| !missing.contains(content));
                let packed_by_others = match is_here {
                    true => self.packed_alike(&packer, stack)?,
                    false => self.known.layer(content),
                };
                let layer = match packed_by_others {
                    Some((layer, home)) => {
                        let digest = layer.blob.digest;
                        match home {
                            None => drop(there.insert(digest)),
                            Some(home) => drop(afar.insert(digest, home)),
                        }
                        layer
                    }
                    None if is_here => pack(&packer, stack)?,
                    None => continue,
                };
                layers.insert(*content, layer);
            }
        }
        records.retain(|record| {
            let mut named = record.layers();
            named.all(|content| is_base(&content) || layers.contains_key(&content))
        });
        let cache = Cache { records, layers }.in_order();
        Ok(Collected { cache, there, afar })
    }

    /// The highest layer of a stack, if others packed it as it would be packed here, and it was not yet.
    fn packed_alike(
        &self,
        packer: &Packer<'_>,
        stack: &[Content],
    ) -> Result<Option<(CachedLayer, Option<Home>)>, Error> {
        let Some((layer, home)) = stack.last().and_then(|top| self.known.layer(top)) else {
            return Ok(None);
        };
        // It is sooner packed than fetched.
        let is_beside = |home: &Home| self.known.target.is_some_and(|at| at.is_beside(home));
        if home.as_ref().is_some_and(|home| !is_beside(home)) {
            return Ok(None);
        }
        let archive = LayerArchive::of(self.store, stack, packer.mtime)?;
        let (archive, packed) = (archive.filed_as(), packer.filed_as());
        if (layer.blob.archive.as_str(), layer.blob.packed.as_str()) != (archive, &*packed) {
            return Ok(None);
        }
        let content = &stack[stack.len() - 1];
        let own = self
            .store
            .compressed(self.lease, content, archive, &packed)?;
        Ok(own.is_none().then_some((layer, home)))
    }

    /// The records with what an image says of their layers, which has them itself; those that are not here as
    /// `left` tells.
    fn described(&self, records: Vec<CachedRecord>, left: &Left<'_>) -> Result<Cache, Error> {
        let mut layers = BTreeMap::new();
        for stack in records
            .iter()
            .flat_map(|record| record.outputs.iter().flatten())
        {
            // The stack of one record is mostly the beginning of another's.
            if stack.iter().all(|content| layers.contains_key(content)) {
                continue;
            }
            let missing = self.store.lease_layers(self.lease, stack)?;
            let first = stack.iter().position(|content| missing.contains(content));
            let (here, above) = stack.split_at(first.unwrap_or(stack.len()));
            let above = above.iter().map(|content| match content {
                Content::DiffId(id) => Ok(Some((*content, base(*id)))),
                Content::Layer(_) if missing.contains(content) => {
                    Ok(left(content)?.map(|layer| (*content, layer)))
                }
                // How a layer is packed is seen only on top of those below it.
                Content::Layer(_) => Ok(None),
            });
            let above: Option<Vec<_>> = above.collect::<Result<_, Error>>()?;
            let Some(above) = above else { continue };
            for (content, layer) in self.described_here(here)?.into_iter().chain(above) {
                layers.entry(content).or_insert(layer);
            }
        }
        Ok(Cache { records, layers }.in_order())
    }

    /// What an image says of layers that are here.
    fn described_here(&self, stack: &[Content]) -> Result<Vec<(Content, CachedLayer)>, Error> {
        let (store, mtime) = (self.store, self.mtime());
        let found = describe(store, stack, mtime, self.stop)?;
        let described = found.iter().enumerate().map(|(index, found)| {
            if is_base(&found.content) {
                return Ok((found.content, base(found.diff_id)));
            }
            let archive = LayerArchive::of(store, &stack[..=index], mtime)?;
            let passing = store.layer_manifest(&found.content)?.passing();
            let layer = CachedLayer {
                blob: blob_of_image(found.diff_id, archive.filed_as()),
                created: found.created,
                passing: passing.as_ref().map(CachedLayer::packed_passing),
            };
            Ok((found.content, layer))
        });
        described.collect()
    }

    fn mtime(&self) -> MtimePolicy {
        self.content
            .epoch
            .map_or(MtimePolicy::Keep, MtimePolicy::Fixed)
    }
}

/// Packs the highest layer of a stack, unless that was done before.
fn pack(packer: &Packer<'_>, stack: &[Content]) -> Result<CachedLayer, Error> {
    let packed = packer.pack_top(stack)?;
    let Some(blob) = packed.blob else {
        unreachable!("BUG: a layer was packed and has no blob");
    };
    let archive = LayerArchive::of(packer.store, stack, packer.mtime)?;
    let passing = packer.store.layer_manifest(&packed.content)?.passing();
    Ok(CachedLayer {
        blob: CachedBlob {
            digest: Sha256Digest::from_bytes(blob.digest.0),
            size: blob.size,
            compression: blob.compression,
            diff_id: packed.diff_id,
            archive: archive.filed_as().to_owned(),
            packed: packer.filed_as().into_owned(),
        },
        created: packed.created,
        passing: passing.as_ref().map(CachedLayer::packed_passing),
    })
}

/// A layer of an image, in the cache of what is built on it. When it came here says nothing to others.
fn base(diff_id: DiffId) -> CachedLayer {
    CachedLayer {
        blob: blob_of_image(diff_id, ""),
        created: SystemTime::UNIX_EPOCH,
        passing: None,
    }
}

/// A blob of which the manifest of the image says which it is.
fn blob_of_image(diff_id: DiffId, archive: &str) -> CachedBlob {
    CachedBlob {
        digest: Sha256Digest::from_bytes([0; 32]),
        size: 0,
        compression: Compression::None,
        diff_id,
        archive: archive.to_owned(),
        packed: String::new(),
    }
}

/// Tells of a layer that is left where it is.
pub(crate) type Left<'a> = dyn Fn(&Content) -> Result<Option<CachedLayer>, Error> + 'a;

/// The cache of an image's own layers, as its config has it. Those that are not here are `elsewhere`.
pub(crate) fn inline_cache(
    store: &Store,
    lease: &Lease,
    content: &CacheContent,
    elsewhere: Option<&Elsewhere>,
    left: &Left<'_>,
    stop: &Stop,
) -> Result<String, Error> {
    let mut lacks = false;
    for layers in &content.results {
        let missing = store.lease_layers(lease, &crate::stack::to_store(layers))?;
        lacks |= !missing.iter().all(is_base);
    }
    let collector = Collector {
        store,
        lease,
        content,
        mode: CacheMode::Min,
        known: Known {
            elsewhere: elsewhere.filter(|_| lacks),
            ..Known::default()
        },
        stop,
    };
    let cache = collector.described(collector.records()?.records, left)?;
    Ok(cache.encode_inline())
}
