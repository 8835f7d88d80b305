//! What travels: records with their keys, and where the layers are that they name.
//!
//! docs/formats/cache-export.md. Whatever is read comes from somebody else: every index and every
//! length is checked, and what is written is a function of what it says, so that an export of what
//! is there already changes no byte.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::media_type::Compression;
use kiln_store::{AS_PULLED, Content, DiffId, Key, Lineage, OpKey};
use kiln_tree::Manifest;
use serde::{Deserialize, Serialize};

use super::compact::{self, Compact};
use super::error::DocumentError;

/// The version of what is written; any other is not read.
pub(crate) const VERSION: u32 = 0;

/// The most bytes of a document.
pub(crate) const LIMIT_BYTES: u64 = 64 << 20;
/// The most layers of a document, and of one output.
const MOST_LAYERS: usize = 100_000;
/// The most records of a document.
const MOST_RECORDS: usize = 100_000;
/// The most blobs of a merged document: a manifest lists them all, and has a limit of its own.
const MOST_BLOBS: usize = 8_000;
/// The most layers of all outputs of all records.
const MOST_NAMED: usize = 4_000_000;
/// How much a merged document may be before results of others leave it, so that everybody reads it.
const MOST_MERGED_BYTES: usize = 48 << 20;
/// The most keys of a record.
const MOST_KEYS: usize = 64;
/// The most bytes of a layer's list of passing directories.
const MOST_PASSING_BYTES: u64 = 64 << 20;
/// The longest words under which an archive is filed.
const LONGEST_WORDS: usize = 200;

/// Records and layers of other machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cache {
    /// The newest first.
    pub(crate) records: Vec<CachedRecord>,
    /// Layers that can be had there; those of base images may be missing.
    pub(crate) layers: BTreeMap<Content, CachedLayer>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedRecord {
    /// In order, each once.
    pub(crate) keys: Vec<Key>,
    pub(crate) op: OpKey,
    pub(crate) slot: Option<(Lineage, String)>,
    pub(crate) outputs: Vec<Option<Vec<Content>>>,
    /// Whole milliseconds.
    pub(crate) created: SystemTime,
    /// Whole microseconds.
    pub(crate) took: Duration,
    /// What its key was made of, in JSON.
    pub(crate) parts: Vec<u8>,
}

/// A layer that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedLayer {
    pub(crate) blob: CachedBlob,
    /// When it was made.
    pub(crate) created: SystemTime,
    /// The directories that it only passes through, encoded and compressed.
    pub(crate) passing: Option<Vec<u8>>,
}

/// The archive of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedBlob {
    pub(crate) digest: Sha256Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    pub(crate) diff_id: DiffId,
    /// The words under which its archive is filed, before it is compressed.
    pub(crate) archive: String,
    /// Those for how it is compressed.
    pub(crate) packed: String,
}

/// How much of what others left is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Records that are older go.
    pub(crate) age: Duration,
    /// When all blobs take more, the oldest records go.
    pub(crate) bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    layers: Vec<LayerEntry>,
    records: Vec<RecordEntry>,
}

#[derive(Serialize, Deserialize)]
struct LayerEntry {
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<BlobEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passing: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct BlobEntry {
    /// None in an image's config, which is written before its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Sha256Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    diff_id: String,
    archive: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packed: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RecordEntry {
    keys: Vec<String>,
    op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<String>,
    /// Indices of layers.
    outputs: Vec<Option<Vec<u32>>>,
    created: u64,
    took_us: u64,
    parts: Compact,
}

/// What an image's manifest says of its layers, for a document that does not say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageBlobs {
    /// The blobs, by diff id.
    pub(crate) blobs: HashMap<DiffId, (Sha256Digest, u64, Compression)>,
    /// The words for how the image's own layers are compressed, if it says that.
    pub(crate) packed: Option<String>,
}

impl Cache {
    /// Writes it, for a place of its own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document(false)).expect("BUG: a cache is always JSON")
    }

    /// Writes it for the config of the image whose layers it is about.
    pub(crate) fn encode_inline(&self) -> String {
        serde_json::to_string(&self.document(true)).expect("BUG: a cache is always JSON")
    }

    fn document(&self, inline: bool) -> Document {
        let named = self.records.iter().flat_map(CachedRecord::layers);
        let contents: BTreeSet<Content> = named.chain(self.layers.keys().copied()).collect();
        let index: HashMap<Content, u32> = contents.iter().copied().zip(0..).collect();
        let layers = contents.iter().map(|content| {
            let layer = self.layers.get(content);
            LayerEntry {
                content: content.to_string(),
                blob: layer.map(|layer| {
                    let blob = &layer.blob;
                    BlobEntry {
                        digest: (!inline).then_some(blob.digest),
                        size: (!inline).then_some(blob.size),
                        compression: (!inline)
                            .then(|| compression_word(blob.compression).to_owned()),
                        diff_id: blob.diff_id.to_string(),
                        archive: blob.archive.clone(),
                        packed: (!inline).then(|| blob.packed.clone()),
                    }
                }),
                created: layer.map(|layer| millis(layer.created)),
                passing: layer
                    .and_then(|layer| layer.passing.as_deref())
                    .map(|packed| BASE64.encode(packed)),
            }
        });
        let records = self.records.iter().map(|record| RecordEntry {
            keys: record.keys.iter().map(ToString::to_string).collect(),
            op: record.op.to_string(),
            lineage: record.slot.as_ref().map(|(lineage, _)| lineage.to_string()),
            slot: record.slot.as_ref().map(|(_, step)| step.clone()),
            outputs: record
                .outputs
                .iter()
                .map(|output| {
                    let output = output.as_ref()?;
                    Some(output.iter().map(|content| index[content]).collect())
                })
                .collect(),
            created: millis(record.created),
            took_us: u64::try_from(record.took.as_micros()).unwrap_or(u64::MAX),
            parts: Compact(record.parts.clone()),
        });
        Document {
            version: VERSION,
            layers: layers.collect(),
            records: records.collect(),
        }
    }

    /// Reads what [`Cache::encode`] wrote, or somebody who wants to harm.
    ///
    /// `image` tells the blobs of an image in whose config it stood.
    pub(crate) fn decode(bytes: &[u8], image: Option<&ImageBlobs>) -> Result<Cache, DocumentError> {
        #[derive(Deserialize)]
        struct Shape {
            version: u32,
        }
        let shape: Shape = serde_json::from_slice(bytes)?;
        if shape.version != VERSION {
            return Err(DocumentError::Version {
                found: shape.version.to_string(),
            });
        }
        let document: Document = serde_json::from_slice(bytes)?;
        if document.layers.len() > MOST_LAYERS || document.records.len() > MOST_RECORDS {
            return Err(DocumentError::TooMuch);
        }
        let mut contents = Vec::with_capacity(document.layers.len());
        let mut layers = BTreeMap::new();
        for entry in document.layers {
            let content: Content = parsed("a content id", &entry.content)?;
            contents.push(content);
            let created = entry.created.unwrap_or(0);
            let Some(blob) = entry.blob else { continue };
            let Some(blob) = read_blob(blob, image)? else {
                continue;
            };
            let layer = CachedLayer {
                blob,
                created: time(created),
                passing: entry.passing.as_deref().map(read_passing).transpose()?,
            };
            if layers.insert(content, layer).is_some() {
                return Err(DocumentError::Twice { content });
            }
        }
        let mut records = Vec::with_capacity(document.records.len());
        let mut named = 0;
        for entry in document.records {
            named += entry.outputs.iter().flatten().map(Vec::len).sum::<usize>();
            if named > MOST_NAMED {
                return Err(DocumentError::TooMuch);
            }
            records.push(read_record(entry, &contents)?);
        }
        let cache = Cache { records, layers };
        Ok(cache.in_order())
    }

    /// Puts it into the order in which it is written: of several records with a key, the newest has
    /// it; layers that no record names are left out.
    pub(crate) fn in_order(self) -> Cache {
        let mut records = self.records;
        for record in &mut records {
            record.keys.sort_unstable();
            record.keys.dedup();
        }
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.keys.cmp(&b.keys)));
        let mut taken = HashSet::new();
        records.retain_mut(|record| {
            record.keys.retain(|key| taken.insert(*key));
            !record.keys.is_empty()
        });
        let named: HashSet<Content> = records.iter().flat_map(CachedRecord::layers).collect();
        let mut layers = self.layers;
        layers.retain(|content, _| named.contains(content));
        Cache { records, layers }
    }

    /// Puts `ours` with what is there: of several records with a key the newest stays. Ours all stay
    /// but for newer ones; of the others the oldest go beyond the limits.
    pub(crate) fn merge(self, ours: Cache, limits: Limits, now: SystemTime) -> Cache {
        let mut layers = self.layers;
        layers.extend(ours.layers);
        let own: HashSet<Vec<Key>> = ours.records.iter().map(|r| r.keys.clone()).collect();
        let mut records = ours.records;
        records.extend(self.records);
        let all = Cache { records, layers }.in_order();
        let mut kept = Vec::with_capacity(all.records.len());
        let mut counted: HashSet<Sha256Digest> = HashSet::new();
        let mut bytes = 0u64;
        let (mut length, mut named) = (0, 0);
        let (ours, theirs): (Vec<_>, Vec<_>) = all
            .records
            .into_iter()
            .partition(|record| own.contains(&record.keys));
        for (is_ours, record) in ours
            .into_iter()
            .map(|record| (true, record))
            .chain(theirs.into_iter().map(|record| (false, record)))
        {
            let new: BTreeMap<Sha256Digest, u64> = blobs_of(&record, &all.layers)
                .map(|layer| (layer.blob.digest, layer.blob.size))
                .filter(|(digest, _)| !counted.contains(digest))
                .collect();
            let more = new
                .values()
                .fold(bytes, |sum, size| sum.saturating_add(*size));
            let described: usize = blobs_of(&record, &all.layers)
                .filter(|layer| new.contains_key(&layer.blob.digest))
                .map(CachedLayer::length)
                .sum();
            let longer = length + record.length() + described;
            let names = named + record.layers().count();
            let age = now.duration_since(record.created).unwrap_or_default();
            let within = age <= limits.age
                && more <= limits.bytes
                && kept.len() < MOST_RECORDS
                && longer <= MOST_MERGED_BYTES
                && names <= MOST_NAMED
                && counted.len() + new.len() <= MOST_BLOBS;
            let whole = record
                .layers()
                .all(|content| is_base(&content) || all.layers.contains_key(&content));
            // What is longer than anybody would read is not left for others.
            let readable = record.parts.len() <= compact::MOST_BYTES;
            if whole && readable && (is_ours || within) {
                counted.extend(new.into_keys());
                bytes = more;
                (length, named) = (longer, names);
                kept.push(record);
            }
        }
        Cache {
            records: kept,
            layers: all.layers,
        }
        .in_order()
    }

    /// Whether all that `ours` says is in here, or something newer.
    pub(crate) fn covers(&self, ours: &Cache) -> bool {
        let known: HashMap<Key, SystemTime> = self
            .records
            .iter()
            .flat_map(|record| record.keys.iter().map(|key| (*key, record.created)))
            .collect();
        ours.records.iter().all(|record| {
            let newer = |key: &Key| known.get(key).is_some_and(|at| *at >= record.created);
            record.keys.iter().all(newer)
        })
    }

    /// Both, without any limits: of several records with a key the newest.
    pub(crate) fn and(self, other: Cache) -> Cache {
        let Cache {
            mut records,
            layers: mut all,
        } = other;
        all.extend(self.layers);
        records.extend(self.records);
        Cache {
            records,
            layers: all,
        }
        .in_order()
    }

    /// Whether all that `ours` says is in here but for what had to leave, since it was the oldest of too much.
    pub(crate) fn holds(&self, ours: &Cache, limits: Limits) -> bool {
        if self.covers(ours) {
            return true;
        }
        let all = self.clone().and(ours.clone());
        let stays = all.merge(Cache::default(), limits, SystemTime::now());
        let stays: HashSet<Key> = stays.keys().collect();
        let known: HashSet<Key> = self.keys().collect();
        ours.keys()
            .all(|key| known.contains(&key) || !stays.contains(&key))
    }

    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.records
            .iter()
            .flat_map(|record| record.keys.iter().copied())
    }

    /// The blobs, each once.
    pub(crate) fn blobs(&self) -> BTreeMap<Sha256Digest, &CachedBlob> {
        let blobs = self.layers.values();
        blobs
            .map(|layer| (layer.blob.digest, &layer.blob))
            .collect()
    }
}

impl CachedRecord {
    /// About how many bytes of the document it is.
    fn length(&self) -> usize {
        300 + self.parts.len() + 70 * self.keys.len() + 8 * self.layers().count()
    }

    /// The layers of its outputs, perhaps more than once.
    pub(crate) fn layers(&self) -> impl Iterator<Item = Content> + '_ {
        self.outputs.iter().flatten().flatten().copied()
    }
}

/// The layers that a record names and that can be had.
fn blobs_of<'a>(
    record: &'a CachedRecord,
    layers: &'a BTreeMap<Content, CachedLayer>,
) -> impl Iterator<Item = &'a CachedLayer> {
    record.layers().filter_map(|content| layers.get(&content))
}

impl CachedLayer {
    /// Compresses what a layer says of the directories that it only passes through.
    pub(crate) fn packed_passing(passing: &Manifest) -> Vec<u8> {
        let packed = zstd::bulk::compress(&passing.encode(), 3);
        packed.expect("BUG: bytes in memory cannot be compressed")
    }

    /// The directories that it only passes through.
    pub(crate) fn passing(&self) -> Result<Option<Manifest>, DocumentError> {
        let Some(packed) = &self.passing else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let unpacked = zstd::stream::read::Decoder::new(&packed[..])
            .and_then(|decoder| decoder.take(MOST_PASSING_BYTES + 1).read_to_end(&mut bytes));
        match unpacked {
            Ok(_) if bytes.len() as u64 <= MOST_PASSING_BYTES => {
                Ok(Some(Manifest::decode(&bytes)?))
            }
            _ => Err(DocumentError::Malformed {
                what: "a list of directories",
                text: format!("{} bytes", packed.len()),
            }),
        }
    }

    /// About how many bytes of the document are about it.
    fn length(&self) -> usize {
        600 + self.passing.as_ref().map_or(0, |passing| passing.len() * 2)
    }
}

/// A layer of an image, which can be had from where the image is.
pub(crate) fn is_base(content: &Content) -> bool {
    matches!(content, Content::DiffId(_))
}

fn read_blob(
    entry: BlobEntry,
    image: Option<&ImageBlobs>,
) -> Result<Option<CachedBlob>, DocumentError> {
    let diff_id: DiffId = parsed("a diff id", &entry.diff_id)?;
    let stated = match (entry.digest, entry.size, entry.compression.as_deref()) {
        (Some(digest), Some(size), Some(word)) => Some((digest, size, compression(word)?)),
        _ => None,
    };
    // An image's manifest knows better than its config.
    let Some((digest, size, compression)) = (match image {
        Some(image) => image.blobs.get(&diff_id).copied(),
        None => stated,
    }) else {
        return Ok(None);
    };
    let archive = entry.archive;
    let packed = match image {
        Some(_) if archive.is_empty() => None,
        Some(image) => image.packed.clone(),
        None => entry.packed,
    };
    let packed = packed.unwrap_or_default();
    for words in [&archive, &packed] {
        let printable = words.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if words.len() > LONGEST_WORDS || !printable || words == AS_PULLED {
            return Err(DocumentError::Malformed {
                what: "the words of an archive",
                text: clipped(words),
            });
        }
    }
    Ok(Some(CachedBlob {
        digest,
        size,
        compression,
        diff_id,
        archive,
        packed,
    }))
}

fn read_passing(text: &str) -> Result<Vec<u8>, DocumentError> {
    let packed = BASE64.decode(text);
    packed.map_err(|_| DocumentError::Malformed {
        what: "a list of directories",
        text: clipped(text),
    })
}

fn read_record(entry: RecordEntry, contents: &[Content]) -> Result<CachedRecord, DocumentError> {
    if entry.keys.is_empty() || entry.keys.len() > MOST_KEYS || entry.outputs.len() > MOST_LAYERS {
        return Err(DocumentError::TooMuch);
    }
    let keys = entry.keys.iter().map(|key| Ok(Key(hex("a key", key)?)));
    let mut outputs = Vec::with_capacity(entry.outputs.len());
    for output in entry.outputs {
        let Some(indices) = output else {
            outputs.push(None);
            continue;
        };
        if indices.len() > MOST_LAYERS {
            return Err(DocumentError::TooMuch);
        }
        let layers = indices.into_iter().map(|index| {
            let content = contents.get(index as usize).copied();
            content.ok_or(DocumentError::NoSuchLayer { index })
        });
        outputs.push(Some(layers.collect::<Result<_, _>>()?));
    }
    let slot = match (entry.lineage, entry.slot) {
        (Some(lineage), Some(step)) => Some((Lineage(hex("a lineage", &lineage)?), step)),
        _ => None,
    };
    Ok(CachedRecord {
        keys: keys.collect::<Result<_, DocumentError>>()?,
        op: OpKey(hex("an op", &entry.op)?),
        slot,
        outputs,
        created: time(entry.created),
        took: Duration::from_micros(entry.took_us),
        parts: entry.parts.0,
    })
}

fn compression_word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

fn compression(word: &str) -> Result<Compression, DocumentError> {
    match word {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        other => Err(DocumentError::Malformed {
            what: "a compression",
            text: clipped(other),
        }),
    }
}

fn parsed<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, DocumentError> {
    text.parse().map_err(|_| DocumentError::Malformed {
        what,
        text: clipped(text),
    })
}

/// Reads 64 lower-case hex digits.
fn hex(what: &'static str, text: &str) -> Result<[u8; 32], DocumentError> {
    let digest = Sha256Digest::from_hex(text).map_err(|_| DocumentError::Malformed {
        what,
        text: clipped(text),
    })?;
    Ok(*digest.as_bytes())
}

/// Keeps a hostile value from filling a message.
fn clipped(text: &str) -> String {
    text.chars().take(80).collect()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of so many milliseconds, or as late as times go here.
fn time(millis: u64) -> SystemTime {
    // A date of the year 10000 is as good as any later one.
    UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_800_000))
}
