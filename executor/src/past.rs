//! The older record that a reason compares with: that of the last build that had the step, where that is
//! known.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::OnceLock;
use std::time::SystemTime;

use kiln_solver::{Candidate, DefinitionKey, Key, LostElsewhere, Nearest, OpKey, Slot};
use kiln_store::{Record, RecordId, Store};

use crate::error::Error;
use crate::filed::{candidate, imported_candidate, lineage, store_key, words_of_mark};
use crate::worker::BuildWorker;

/// So many records of a place are compared where no build is known.
const MOST_OF_PLACE: u32 = 16;

/// What the builds before this one went by; looked up when a step is first missed, since most builds miss none.
#[derive(Default)]
pub struct Past {
    ask: Option<Box<dyn Fn() -> Vec<PastBuild> + Send + Sync>>,
    found: OnceLock<HashMap<String, (SystemTime, RecordId)>>,
}

/// A build of the same file.
#[derive(Debug, Clone)]
pub struct PastBuild {
    /// When it began.
    pub started: SystemTime,
    /// The keys of its steps.
    pub definitions: Vec<DefinitionKey>,
}

impl Past {
    /// `ask` lists builds of the same lineage, the latest first.
    pub fn new(ask: impl Fn() -> Vec<PastBuild> + Send + Sync + 'static) -> Past {
        Past {
            ask: Some(Box::new(ask)),
            found: OnceLock::new(),
        }
    }

    /// The record that stood for a place in the last build that had it, and when that build began.
    fn record(&self, store: &Store, step: &str) -> Option<(SystemTime, Record)> {
        let found = self.found.get_or_init(|| self.places(store));
        let (started, id) = found.get(step)?;
        Some((*started, store.record(*id).ok()??))
    }

    fn places(&self, store: &Store) -> HashMap<String, (SystemTime, RecordId)> {
        let mut places = HashMap::new();
        for build in self.ask.iter().flat_map(|ask| ask()) {
            let keys = build.definitions.iter();
            let keys: Vec<_> = keys.map(|key| store_key(&Key::Definition(*key))).collect();
            // A reason is not worth an error.
            for (step, id) in store.slots(&keys).unwrap_or_default() {
                if let Entry::Vacant(free) = places.entry(step) {
                    free.insert((build.started, id));
                }
            }
        }
        places
    }
}

impl BuildWorker {
    /// What there is to compare a missed step with.
    pub(crate) fn compared_with(
        &self,
        definition: DefinitionKey,
        op: OpKey,
        slot: Option<&Slot>,
    ) -> Result<Nearest, Error> {
        let store = self.executor().store();
        let key = store_key(&Key::Definition(definition));
        let op = kiln_store::OpKey(op.0);
        let place = slot.map(|slot| (lineage(&slot.lineage), slot.step.as_str()));
        let place = place.as_ref().map(|(lineage, step)| (lineage, *step));
        let past = place.and_then(|(_, step)| self.past.record(store, step));
        let most = past.as_ref().map_or(MOST_OF_PLACE, |_| 1);
        let near = store.nearest(&op, place, most)?;
        let mark = store.tombstones(&[key])?.into_iter().flatten().next();
        let (op_elsewhere, slot_elsewhere, lost) = match &self.elsewhere {
            Some(elsewhere) => {
                let (by_op, by_slot) = elsewhere.nearest(&op, place);
                (by_op, by_slot, elsewhere.lost(&key))
            }
            None => (None, None, None),
        };

        // The store knows lineages by their hash; the one that was asked for is known by its name.
        let named = |mut candidate: Candidate| {
            if let (Some(found), Some(slot), Some((hash, _))) = (&mut candidate.slot, slot, place)
                && found.lineage == hash.to_string()
            {
                found.lineage.clone_from(&slot.lineage);
            }
            candidate
        };
        let is_older = |record: &Record| record.created < self.begun;
        let same_op = near.by_op.filter(is_older).and_then(candidate);
        let same_op = same_op.or_else(|| op_elsewhere.and_then(imported_candidate));
        let mut same_slot: Vec<Candidate> = match of_last_build(past, &near.by_slot) {
            // Whoever filed it, it stood in this place then.
            Some(last) => candidate(last)
                .map(|last| Candidate {
                    slot: slot.cloned(),
                    ..last
                })
                .into_iter()
                .collect(),
            None => near.by_slot.into_iter().filter_map(candidate).collect(),
        };
        if same_slot.is_empty() {
            same_slot.extend(slot_elsewhere.and_then(imported_candidate));
        }
        Ok(Nearest {
            lost_elsewhere: lost.and_then(|lost| {
                Some(LostElsewhere {
                    from: lost.from,
                    own: lost.own,
                    was: named(imported_candidate(lost.record)?),
                })
            }),
            same_slot: same_slot.into_iter().map(named).collect(),
            same_op: same_op.map(named),
            tombstone: mark.map(words_of_mark),
            slot_tombstone: near.tombstone.map(words_of_mark),
        })
    }
}

/// The record of the last build, which may have failed: then only what it ran is known of it.
fn of_last_build(past: Option<(SystemTime, Record)>, latest: &[Record]) -> Option<Record> {
    let (started, past) = past?;
    let since = latest.first().filter(|record| record.created > started);
    Some(since.cloned().unwrap_or(past))
}
