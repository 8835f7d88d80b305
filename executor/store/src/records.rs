//! Results that are known, found by definition key and by content key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::Abort;
use crate::leases::Leased;
use crate::store::{Store, millis, now, time};
use crate::{Content, Key, Lease, Lineage, OpKey, StoreError};

/// Tombstones that are kept; older ones are forgotten.
const TOMBSTONES: i64 = 10_000;

/// A record in this store; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub i64);

/// A result to file.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The keys under which it is found from now on; another record loses them.
    pub keys: Vec<Key>,
    /// The op alone.
    pub op: OpKey,
    /// Where in which lineage it stands, to compare it with its successor.
    pub slot: Option<(Lineage, String)>,
    /// Every output of the node with its full list of layers, lowest first; `None` is scratch.
    pub outputs: Vec<Option<Vec<Content>>>,
    /// The explained key, encoded by the caller.
    pub parts: Vec<u8>,
    /// When the result was made.
    pub created: SystemTime,
    /// How long that took.
    pub duration: Duration,
}

/// A filed result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// The op alone.
    pub op: OpKey,
    /// Where in which lineage it stands.
    pub slot: Option<(Lineage, String)>,
    /// Every output of the node with its full list of layers, lowest first; `None` is scratch.
    pub outputs: Vec<Option<Vec<Content>>>,
    /// The explained key, encoded by the caller.
    pub parts: Vec<u8>,
    /// When the result was made.
    pub created: SystemTime,
    /// How long that took.
    pub duration: Duration,
    /// Layers of the outputs that the store does not have, each once. An image's are fetched when
    /// somebody needs them; without a step's own, the record is worth nothing.
    pub missing: Vec<Content>,
}

/// The mark that a record left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Why it is gone, such as `kiln prune`.
    pub rule: String,
    /// Since when.
    pub time: SystemTime,
}

/// What is there to compare a miss with.
#[derive(Debug, Clone, Default)]
pub struct Nearest {
    /// The latest record of the same op.
    pub by_op: Option<Record>,
    /// The latest records in the same slot of the same lineage, the latest first.
    pub by_slot: Vec<Record>,
    /// The latest mark left by a record of the slot.
    pub tombstone: Option<Tombstone>,
}

impl Store {
    /// Looks up each key, and leases the records found and their layers, in one transaction.
    ///
    /// The answer has one element a key.
    pub fn find(&self, lease: &Lease, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        // Most misses need no write, so no turn among the writers. A record filed in between is
        // not worth waiting for: whoever would run the step looks again under its lock.
        if !self.any_filed(keys)? {
            return Ok(vec![None; keys.len()]);
        }
        let (process, time) = (self.process_id()?, now());
        self.database().write("find records", |t| {
            let mut found = Vec::with_capacity(keys.len());
            let mut present = Presence::default();
            for key in keys {
                found.push(record_by_key(t, key, &mut present)?);
            }
            for record in found.iter().flatten() {
                lease.hold(t, process, Leased::Record, &record.id.0.to_be_bytes())?;
                t.prepare_cached("UPDATE record SET used = ?2 WHERE id = ?1")?
                    .execute((record.id.0, time))?;
            }
            for (content, _) in present.0.iter().filter(|(_, there)| **there) {
                lease.hold(t, process, Leased::Layer, &content.to_bytes())?;
            }
            Ok(found)
        })
    }

    /// Looks up each key and holds nothing of what it finds: it may be gone a moment later.
    pub fn peek(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, StoreError> {
        self.database().snapshot("look at records", |t| {
            let mut present = Presence::default();
            let found = keys.iter().map(|key| record_by_key(t, key, &mut present));
            found.collect()
        })
    }

    /// Tells whether any record of the op exists, so that a content key is worth computing.
    pub fn has_op(&self, op: &OpKey) -> Result<bool, StoreError> {
        self.database().read("look up an op", |c| {
            c.prepare_cached("SELECT 1 FROM record WHERE op = ?1")?
                .exists([op.0])
        })
    }

    /// Returns the slots of the records that keys find, whatever their lineage.
    pub fn slots(&self, keys: &[Key]) -> Result<Vec<(String, RecordId)>, StoreError> {
        self.database().read("look up slots", |c| {
            let mut query = c.prepare_cached(
                "SELECT slot, id FROM record WHERE slot IS NOT NULL
                 AND id = (SELECT record FROM record_key WHERE key = ?1)",
            )?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let row = query.query_row([key.0], |row| Ok((row.get(0)?, RecordId(row.get(1)?))));
                found.extend(row.optional()?);
            }
            Ok(found)
        })
    }

    /// Returns a record; none if it is gone.
    pub fn record(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        self.database().snapshot("look at a record", |t| {
            t.prepare_cached(&select("WHERE id = ?1"))?
                .query_row([id.0], raw)
                .optional()?
                .map(|raw| raw.complete(t, &mut Presence::default()))
                .transpose()
        })
    }

    /// Returns the keys that find a record.
    pub fn keys_of(&self, record: RecordId) -> Result<Vec<Key>, StoreError> {
        self.database().read("look up the keys of a record", |c| {
            c.prepare_cached("SELECT key FROM record_key WHERE record = ?1 ORDER BY key")?
                .query_map([record.0], |row| row.get(0).map(Key))?
                .collect()
        })
    }

    /// Files results of another store, leased, in one transaction: under those of their keys that
    /// find nothing here, and only those whose step-made layers are all here. Tells how many.
    pub fn adopt_records(&self, lease: &Lease, records: &[NewRecord]) -> Result<usize, StoreError> {
        if records.is_empty() {
            return Ok(0);
        }
        let process = self.process_id()?;
        self.database().write("adopt records", |t| {
            let mut adopted = 0;
            for new in records {
                let mut free = Vec::new();
                for key in &new.keys {
                    let taken = t
                        .prepare_cached("SELECT 1 FROM record_key WHERE key = ?1")?
                        .exists([key.0])?;
                    if !taken {
                        free.push(*key);
                    }
                }
                let layers = distinct(&new.outputs);
                let mut whole = true;
                for content in &layers {
                    whole &= matches!(content, Content::DiffId(_)) || layer_exists(t, content)?;
                }
                if free.is_empty() || !whole {
                    continue;
                }
                self.insert_record(t, lease, process, new, &free)?;
                adopted += 1;
            }
            Ok(adopted)
        })
    }

    /// Files a result, leased.
    ///
    /// Errors if one of its step-made layers is not in the store. A record that loses its last key
    /// to this one is dropped.
    pub fn file_record(&self, lease: &Lease, new: &NewRecord) -> Result<RecordId, StoreError> {
        let process = self.process_id()?;
        self.database().write("file a record", |t| {
            self.insert_record(t, lease, process, new, &new.keys)
        })
    }

    fn insert_record(
        &self,
        t: &Transaction<'_>,
        lease: &Lease,
        process: &str,
        new: &NewRecord,
        keys: &[Key],
    ) -> Result<RecordId, Abort> {
        let layers = distinct(&new.outputs);
        for content in &layers {
            let present = layer_exists(t, content)?;
            if !present && matches!(content, Content::Layer(_)) {
                return Err(StoreError::NoSuchLayer(*content).into());
            }
            if present {
                lease.hold(t, process, Leased::Layer, &content.to_bytes())?;
            }
        }
        let (lineage, slot) = match &new.slot {
            Some((lineage, slot)) => (Some(lineage.0), Some(slot)),
            None => (None, None),
        };
        let duration = i64::try_from(new.duration.as_micros()).unwrap_or(i64::MAX);
        t.prepare_cached(
            "INSERT INTO record
                 (op, lineage, slot, outputs, parts, created, used, duration, boot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute((
            new.op.0,
            lineage,
            slot,
            encode_outputs(&new.outputs),
            &new.parts,
            millis(new.created),
            now(),
            duration,
            &self.inner.boot,
        ))?;
        let id = RecordId(t.last_insert_rowid());
        let mut insert =
            t.prepare_cached("INSERT INTO record_layer (content, record) VALUES (?1, ?2)")?;
        for content in &layers {
            insert.execute((content.to_bytes(), id.0))?;
        }
        lease.hold(t, process, Leased::Record, &id.0.to_be_bytes())?;
        for key in keys {
            point(t, key, id, "a newer result")?;
        }
        Ok(id)
    }

    /// Makes `key` find the record too; `false` if the record is gone.
    pub fn alias(&self, record: RecordId, key: &Key) -> Result<bool, StoreError> {
        self.database().write("add a key to a record", |t| {
            let there = t
                .prepare_cached("SELECT 1 FROM record WHERE id = ?1")?
                .exists([record.0])?;
            if there {
                point(t, key, record, "a result with the same content")?;
            }
            Ok(there)
        })
    }

    /// Drops a record and leaves a mark that says `rule` at each of its keys.
    pub fn drop_record(&self, record: RecordId, rule: &str) -> Result<(), StoreError> {
        self.database()
            .write("drop a record", |t| Ok(delete_record(t, record, rule)?))
    }

    /// Returns what a miss of `op`, in that place, can be compared with; at most `most` of its slot.
    pub fn nearest(
        &self,
        op: &OpKey,
        slot: Option<(&Lineage, &str)>,
        most: u32,
    ) -> Result<Nearest, StoreError> {
        self.database().snapshot("look for similar records", |t| {
            let by_op = t
                .prepare_cached(&select("WHERE op = ?1 ORDER BY id DESC LIMIT 1"))?
                .query_row([op.0], raw)
                .optional()?;
            let (mut by_slot, mut mark) = (Vec::new(), None);
            if let Some((lineage, slot)) = slot {
                by_slot = t
                    .prepare_cached(&select(
                        "WHERE lineage = ?1 AND slot = ?2 ORDER BY id DESC LIMIT ?3",
                    ))?
                    .query_map((lineage.0, slot, most), raw)?
                    .collect::<Result<_, _>>()?;
                mark = t
                    .prepare_cached(
                        "SELECT rule, time, id FROM tombstone WHERE lineage = ?1 AND slot = ?2
                         ORDER BY id DESC LIMIT 1",
                    )?
                    .query_row((lineage.0, slot), tombstone)
                    .optional()?;
            }
            let mut present = Presence::default();
            let mut complete = |raw: RawRecord| raw.complete(t, &mut present);
            Ok(Nearest {
                by_op: by_op.map(&mut complete).transpose()?,
                by_slot: by_slot
                    .into_iter()
                    .map(complete)
                    .collect::<Result<_, _>>()?,
                tombstone: mark.map(|(_, mark)| mark),
            })
        })
    }

    /// Returns the marks that records left at these keys, one element a key.
    pub fn tombstones(&self, keys: &[Key]) -> Result<Vec<Option<Tombstone>>, StoreError> {
        self.database().snapshot("look for dropped records", |t| {
            let mut query =
                t.prepare_cached("SELECT rule, time, id FROM tombstone WHERE key = ?1")?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let mark = query.query_row([key.0], tombstone).optional()?;
                found.push(mark.map(|(_, mark)| mark));
            }
            Ok(found)
        })
    }

    fn any_filed(&self, keys: &[Key]) -> Result<bool, StoreError> {
        self.database().read("look up keys", |c| {
            let mut query = c.prepare_cached("SELECT 1 FROM record_key WHERE key = ?1")?;
            for key in keys {
                if query.exists([key.0])? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

/// Which layers are there, asked once each: records of one build have most layers in common.
#[derive(Default)]
struct Presence(HashMap<Content, bool>);

impl Presence {
    fn of(&mut self, t: &Transaction<'_>, content: Content) -> rusqlite::Result<bool> {
        Ok(match self.0.entry(content) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => *new.insert(layer_exists(t, &content)?),
        })
    }
}

/// A row of `record`, before its layers were looked up.
struct RawRecord {
    id: i64,
    op: [u8; 32],
    lineage: Option<[u8; 32]>,
    slot: Option<String>,
    outputs: Vec<u8>,
    parts: Vec<u8>,
    created: i64,
    duration: i64,
}

impl RawRecord {
    fn complete(self, t: &Transaction<'_>, present: &mut Presence) -> Result<Record, Abort> {
        let outputs = decode_outputs(&self.outputs).ok_or_else(|| StoreError::Damaged {
            what: "list of layers in a record",
            path: t.path().unwrap_or_default().into(),
        })?;
        let mut missing = Vec::new();
        for content in distinct(&outputs) {
            if !present.of(t, content)? {
                missing.push(content);
            }
        }
        Ok(Record {
            id: RecordId(self.id),
            op: OpKey(self.op),
            slot: self.lineage.map(Lineage).zip(self.slot),
            outputs,
            parts: self.parts,
            created: time(self.created),
            duration: Duration::from_micros(self.duration.unsigned_abs()),
            missing,
        })
    }
}

fn select(rest: &str) -> String {
    format!("SELECT id, op, lineage, slot, outputs, parts, created, duration FROM record {rest}")
}

fn raw(row: &Row<'_>) -> rusqlite::Result<RawRecord> {
    Ok(RawRecord {
        id: row.get(0)?,
        op: row.get(1)?,
        lineage: row.get(2)?,
        slot: row.get(3)?,
        outputs: row.get(4)?,
        parts: row.get(5)?,
        created: row.get(6)?,
        duration: row.get(7)?,
    })
}

fn tombstone(row: &Row<'_>) -> rusqlite::Result<(i64, Tombstone)> {
    Ok((
        row.get(2)?,
        Tombstone {
            rule: row.get(0)?,
            time: time(row.get(1)?),
        },
    ))
}

fn record_by_key(
    t: &Transaction<'_>,
    key: &Key,
    present: &mut Presence,
) -> Result<Option<Record>, Abort> {
    t.prepare_cached(&select(
        "WHERE id = (SELECT record FROM record_key WHERE key = ?1)",
    ))?
    .query_row([key.0], raw)
    .optional()?
    .map(|raw| raw.complete(t, present))
    .transpose()
}

pub(crate) fn layer_exists(t: &Transaction<'_>, content: &Content) -> rusqlite::Result<bool> {
    t.prepare_cached("SELECT 1 FROM layer WHERE content = ?1")?
        .exists([content.to_bytes()])
}

/// Lets `key` find `record` instead of whatever it found.
fn point(t: &Transaction<'_>, key: &Key, record: RecordId, rule: &str) -> rusqlite::Result<()> {
    let before: Option<i64> = t
        .prepare_cached("SELECT record FROM record_key WHERE key = ?1")?
        .query_row([key.0], |row| row.get(0))
        .optional()?;
    t.prepare_cached("INSERT OR REPLACE INTO record_key (key, record) VALUES (?1, ?2)")?
        .execute((key.0, record.0))?;
    t.prepare_cached("DELETE FROM tombstone WHERE key = ?1")?
        .execute([key.0])?;
    if let Some(before) = before.filter(|before| *before != record.0) {
        let found_still = t
            .prepare_cached("SELECT 1 FROM record_key WHERE record = ?1")?
            .exists([before])?;
        if !found_still {
            delete_record(t, RecordId(before), rule)?;
        }
    }
    Ok(())
}

/// Deletes a record and leaves a tombstone at each of its keys.
pub(crate) fn delete_record(
    t: &Transaction<'_>,
    record: RecordId,
    rule: &str,
) -> rusqlite::Result<()> {
    t.prepare_cached(
        "INSERT OR REPLACE INTO tombstone (key, op, lineage, slot, rule, time)
         SELECT k.key, r.op, r.lineage, r.slot, ?2, ?3
         FROM record r JOIN record_key k ON k.record = r.id WHERE r.id = ?1",
    )?
    .execute((record.0, rule, now()))?;
    t.prepare_cached("DELETE FROM tombstone WHERE id <= (SELECT max(id) FROM tombstone) - ?1")?
        .execute([TOMBSTONES])?;
    for sql in [
        "DELETE FROM record_key WHERE record = ?1",
        "DELETE FROM record_layer WHERE record = ?1",
        "DELETE FROM record WHERE id = ?1",
    ] {
        t.prepare_cached(sql)?.execute([record.0])?;
    }
    Ok(())
}

/// Returns the layers of all outputs, each once.
fn distinct(outputs: &[Option<Vec<Content>>]) -> Vec<Content> {
    let mut layers: Vec<Content> = outputs.iter().flatten().flatten().copied().collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// Encodes outputs: a count, then for each 0xffffffff (scratch) or a count and that many content
/// ids of 33 bytes; counts are big-endian `u32`.
pub(crate) fn encode_outputs(outputs: &[Option<Vec<Content>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = |bytes: &mut Vec<u8>, count: usize| {
        let count = u32::try_from(count).expect("BUG: 2^32 layers");
        bytes.extend_from_slice(&count.to_be_bytes());
    };
    count(&mut bytes, outputs.len());
    for output in outputs {
        match output {
            None => bytes.extend_from_slice(&u32::MAX.to_be_bytes()),
            Some(layers) => {
                count(&mut bytes, layers.len());
                layers
                    .iter()
                    .for_each(|layer| bytes.extend_from_slice(&layer.to_bytes()));
            }
        }
    }
    bytes
}

pub(crate) fn decode_outputs(bytes: &[u8]) -> Option<Vec<Option<Vec<Content>>>> {
    fn count(bytes: &mut &[u8]) -> Option<u32> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(u32::from_be_bytes(*count))
    }
    let mut rest = bytes;
    let mut outputs = Vec::new();
    for _ in 0..count(&mut rest)? {
        outputs.push(match count(&mut rest)? {
            u32::MAX => None,
            layers => {
                let length = usize::try_from(layers).ok()?.checked_mul(33)?;
                let (layers, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(
                    layers
                        .chunks_exact(33)
                        .map(Content::from_bytes)
                        .collect::<Option<_>>()?,
                )
            }
        });
    }
    rest.is_empty().then_some(outputs)
}
