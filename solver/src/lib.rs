//! Graph to results: deduplication, cache, parallelism. Knows no container and no file.
//!
//! A [`Worker`] finds facts, keeps records and runs steps; the scheduler decides which of that is
//! needed; a [`Solver`] drives it and tells [`Events`] what happens.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cancel;
mod certain;
mod content;
mod driver;
mod event;
mod explain;
mod explainer;
mod foreseen;
mod hasher;
mod inflight;
mod key;
mod keywriter;
mod outline;
mod part;
mod reason;
mod record;
mod scheduler;
mod selection;
mod step;
mod view;
mod worker;

#[cfg(test)]
mod tests;

pub use cancel::Cancel;
pub use certain::certain_runs;
pub use content::{Content, ContentId};
pub use driver::{
    Failure, Goal, GoalResult, Need, NodeNote, SolveError, SolveOptions, SolveRequest, Solved,
    Solver,
};
pub use event::{
    Event, Events, Road, StepSink, StepStatus, StepSummary, Stream, Summary, WaitsFor,
};
pub use explain::{Now, compare, explain, lay_out, name_files};
pub use foreseen::foreseen_keys;
pub use key::{ContentKey, DefinitionKey, OpKey};
pub use part::{Origin, Part, PinnedSource};
pub use reason::{
    Cause, ComparedPart, ComparedRecord, Comparison, FileChange, FileChangeKind, Reason,
};
pub use record::{
    Candidate, Facts, LostElsewhere, Nearest, NewRecord, Record, RecordId, Slot, StepName,
    Tombstone,
};
pub use selection::{CopySelection, Selection, SelectionDigest, SelectionItem, TreeRef};
pub use worker::{
    DigestOf, DigestRequest, FetchRequest, Fetched, Imported, Key, Locked, Outputs, Pinned,
    ReserveRequest, RunOutcome, RunRequest, Sought, SourceRequest, StepFailure, TreeDiff, Wanted,
    Worker,
};
