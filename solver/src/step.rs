//! What the scheduler asks for, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use kiln_ir::{NodeId, Pin};

use crate::{
    Content, DefinitionKey, DigestOf, Facts, Fetched, Key, NewRecord, OpKey, Pinned, Record,
    RecordId, Selection, SelectionDigest, Slot, Sought, StepStatus, Wanted,
};

/// Something to do now. Those marked *awaited* are answered by a [`Completion`].
#[derive(Debug)]
pub(crate) enum Step<H> {
    /// Find a source's identity. Awaited.
    Pin { node: NodeId },
    /// Digest what a node reads. Awaited.
    Digest {
        ticket: Ticket,
        consumer: NodeId,
        of: DigestOf,
        selection: Arc<Selection>,
    },
    /// Look up all the keys at once. Awaited.
    Lookup { asks: Vec<Ask> },
    /// Look for what was not found elsewhere. Awaited.
    Seek { node: NodeId, wanted: Wanted },
    /// Make a record's outputs present. Awaited.
    Load { node: NodeId, record: Record },
    /// Forget a record.
    Drop { record: RecordId },
    /// Bring a source here. Awaited.
    Fetch {
        node: NodeId,
        pinned: Option<Pinned>,
        /// Why, where it would have been found had nothing changed.
        brief: Option<Box<Brief>>,
    },
    /// Take a step's lock; it is held until [`Step::Unlock`]. Awaited.
    Lock { node: NodeId, key: DefinitionKey },
    /// Take what a step has for itself while it runs; its run takes it along. Awaited.
    Reserve { node: NodeId, inputs: Vec<H> },
    /// Give the lock back, and what was reserved.
    Unlock { node: NodeId },
    /// Make an op real; takes a job slot. Awaited.
    Run {
        node: NodeId,
        inputs: Vec<H>,
        brief: Box<Brief>,
    },
    /// Keep a result. Awaited.
    File {
        node: NodeId,
        record: Box<NewRecord>,
    },
    /// Let a record be found by one more key.
    Alias {
        record: RecordId,
        definition: DefinitionKey,
    },
    /// Tell whoever watches.
    Tell(Notice),
}

/// What the explanation of a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) definition: DefinitionKey,
    pub(crate) op: OpKey,
    pub(crate) slot: Option<Slot>,
    pub(crate) facts: Facts,
    /// What told it to run.
    pub(crate) forced: Option<String>,
    /// A record was found, and the layers that it names were not.
    pub(crate) content_gone: bool,
    /// Indices of the inputs that ran in this build.
    pub(crate) ran_inputs: Vec<u32>,
}

/// What people should know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A source has its identity.
    Pinned {
        node: NodeId,
        label: String,
        pin: Pin,
    },
    /// What the cache promised is gone.
    Reopened { node: NodeId },
    /// The record that stands for a node is of another machine.
    Imported { node: NodeId, from: String },
    /// A node is resolved, or never will be.
    Finished {
        node: NodeId,
        status: StepStatus,
        /// A hit below something that ran or is defined otherwise.
        cutoff: Option<Cutoff>,
    },
}

/// Why a node did not run although its definition was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutoff {
    /// An input ran.
    SameBytes,
    /// Nothing that it needs ran.
    SameInput,
}

/// Tells which digest a completion belongs to; a digest of layers that are gone is thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) cell: usize,
    pub(crate) generation: u32,
}

/// A question to the cache about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) node: NodeId,
    /// The first that has a record wins.
    pub(crate) keys: Vec<Key>,
    /// If there is no record: is there one of this op at all?
    pub(crate) op: Option<OpKey>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The record, and which key found it.
    Hit(Key, Record),
    /// None of the keys has one.
    Miss {
        /// Some record exists for the op; no if that was not asked.
        op_known: bool,
    },
}

/// The end of a step.
#[derive(Debug)]
pub(crate) enum Completion<H> {
    Pin {
        node: NodeId,
        result: Result<Pinned, Failed>,
    },
    Digest {
        ticket: Ticket,
        result: Result<Option<SelectionDigest>, Failed>,
    },
    Lookup {
        /// Answers to all that was asked.
        answers: Vec<(Ask, Answer)>,
    },
    Seek {
        node: NodeId,
        wanted: Wanted,
        sought: Sought,
    },
    Load {
        node: NodeId,
        result: Result<Option<Vec<Option<H>>>, Failed>,
    },
    Fetch {
        node: NodeId,
        result: Result<Fetched<H>, Failed>,
        duration: Duration,
    },
    Lock {
        node: NodeId,
        result: Result<Waited, Failed>,
    },
    Reserve {
        node: NodeId,
        result: Result<(), Failed>,
    },
    Run {
        node: NodeId,
        result: Ran<H>,
        duration: Duration,
    },
    File {
        node: NodeId,
        record: Record,
    },
}

/// Whether somebody else had a lock first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waited(pub(crate) bool);

/// A step failed; whoever drives the scheduler has the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ran<H> {
    /// By output number.
    Done(Vec<Option<(H, Content)>>),
    Failed,
    Cancelled,
}
