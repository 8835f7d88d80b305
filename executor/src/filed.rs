//! Records in the store's words and in the solver's.

use std::time::SystemTime;

use kiln_solver::{Candidate, DefinitionKey, Facts, Key, OpKey, Record, RecordId, Slot, Tombstone};
use kiln_store::{Content, Lineage};
use serde::{Deserialize, Serialize};

use crate::cache::CachedRecord;
use crate::source::ago;
use crate::stack::to_solver;

/// What a record's parts are filed as.
#[derive(Serialize, Deserialize)]
pub(crate) struct FiledParts {
    pub(crate) definition: [u8; 32],
    pub(crate) facts: Facts,
}

pub(crate) fn store_key(key: &Key) -> kiln_store::Key {
    match key {
        Key::Definition(key) => kiln_store::Key(key.0),
        Key::Content(key) => kiln_store::Key(key.0),
    }
}

pub(crate) fn nanos(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

pub(crate) fn record(found: kiln_store::Record) -> Record {
    Record {
        id: RecordId(found.id.0),
        outputs: found
            .outputs
            .iter()
            .map(|output| output.as_deref().map(to_solver))
            .collect(),
        created_unix_nanos: nanos(found.created),
        duration: found.duration,
    }
}

pub(crate) fn candidate(found: kiln_store::Record) -> Option<Candidate> {
    let (op, slot, created) = (found.op, found.slot, found.created);
    told(op, slot, &found.outputs, &found.parts, created)
}

/// A record of another machine to compare with.
pub(crate) fn imported_candidate(found: CachedRecord) -> Option<Candidate> {
    let (op, slot, created) = (found.op, found.slot, found.created);
    told(op, slot, &found.outputs, &found.parts, created)
}

fn told(
    op: kiln_store::OpKey,
    slot: Option<(Lineage, String)>,
    outputs: &[Option<Vec<Content>>],
    parts: &[u8],
    created: SystemTime,
) -> Option<Candidate> {
    let filed: FiledParts = serde_json::from_slice(parts).ok()?;
    Some(Candidate {
        definition: DefinitionKey(filed.definition),
        op: OpKey(op.0),
        slot: slot.map(|(lineage, step)| Slot {
            lineage: lineage.to_string(),
            step,
        }),
        facts: filed.facts,
        outputs: outputs
            .iter()
            .map(|output| output.as_deref().map(to_solver))
            .collect(),
        created_unix_nanos: nanos(created),
    })
}

/// The lineage as the store names it.
pub(crate) fn lineage(name: &str) -> Lineage {
    Lineage(blake3::derive_key("kiln lineage v0", name.as_bytes()))
}

pub(crate) fn words_of_mark(mark: kiln_store::Tombstone) -> Tombstone {
    Tombstone {
        rule: mark.rule,
        when: ago(mark.time),
    }
}
