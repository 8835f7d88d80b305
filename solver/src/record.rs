//! What the cache keeps of a finished step.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Content, ContentKey, DefinitionKey, OpKey, Part};

/// The identity of a record in the worker's store; never used again after the record is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub i64);

/// A whole result that the cache holds: what a hit needs and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which record it is.
    pub id: RecordId,
    /// By output number: the full layer list, never a delta. None where the op has no such output.
    pub outputs: Vec<Option<Content>>,
    /// When it was filed, in nanoseconds since the epoch.
    pub created_unix_nanos: i64,
    /// How long the run took.
    pub duration: Duration,
}

/// A record that is to be filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// The first road. The newest record filed under a key is the one that a lookup finds.
    pub definition: DefinitionKey,
    /// The second road; none where it is closed.
    pub content: Option<ContentKey>,
    /// The op without its inputs; makes [`crate::Worker::known_ops`] answer yes from now on.
    pub op: OpKey,
    /// Which step of which Dockerfile it was.
    pub slot: Option<Slot>,
    /// What the definition key was made of.
    pub facts: Facts,
    /// By output number: the full layer list.
    pub outputs: Vec<Option<Content>>,
    /// How long the run took.
    pub duration: Duration,
}

/// A step's place in what people write; stable while its text changes. In no key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// One for each context and Dockerfile. Records of other lineages explain nothing.
    pub lineage: String,
    /// Stage and ordinal, such as `build.3`.
    pub step: String,
}

/// A key's parts with the words that people know them by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The step itself.
    pub step: StepName,
    /// In key order.
    pub parts: Vec<Part>,
}

/// What people call a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepName {
    /// Its text, such as `RUN make`.
    pub text: String,
    /// The line that it begins at, from 1.
    pub line: Option<u32>,
}

/// An older record that may explain why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its definition key.
    pub definition: DefinitionKey,
    /// Its op.
    pub op: OpKey,
    /// Where it stood.
    pub slot: Option<Slot>,
    /// What its key was made of.
    pub facts: Facts,
    /// What it held, by output number.
    pub outputs: Vec<Option<Content>>,
    /// When it was filed, in nanoseconds since the epoch.
    pub created_unix_nanos: i64,
}

/// What is left of a record that was evicted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tombstone {
    /// What evicted it, such as `prune`.
    pub rule: String,
    /// When, for people and relative to now, such as `3 minutes ago`; the worker has the clock.
    pub when: String,
}

/// A record under the same definition key elsewhere, whose layers cannot all be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostElsewhere {
    /// Where it lies, as people named the place.
    pub from: String,
    /// A layer that the step itself wrote is lost.
    pub own: bool,
    /// The record.
    pub was: Candidate,
}

/// What the store has to say about a step that was not found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nearest {
    /// What another machine left of it, and is of no use any more.
    pub lost_elsewhere: Option<LostElsewhere>,
    /// Records of the same slot: that of the last build alone if it is known, else some, the latest first.
    pub same_slot: Vec<Candidate>,
    /// The newest record with the same op; one of the same lineage is preferred.
    pub same_op: Option<Candidate>,
    /// The tombstone of a record with the same definition key.
    pub tombstone: Option<Tombstone>,
    /// The last tombstone of a record of the same slot.
    pub slot_tombstone: Option<Tombstone>,
}

impl fmt::Display for StepName {
    /// As a reason names it: `` `RUN make` (line 3) ``; a long one by its beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 72;
        let mut lines = self.text.lines();
        let line = lines.next().unwrap_or_default();
        let end = line.char_indices().nth(LONGEST).map(|(end, _)| end);
        write!(f, "`{}", line[..end.unwrap_or(line.len())].trim_end())?;
        let is_cut = end.is_some() || lines.next().is_some();
        f.write_str(if is_cut { " …`" } else { "`" })?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}
