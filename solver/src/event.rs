//! What a build tells while it goes on, and what it sums up to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kiln_ir::{NodeId, Pin};

use crate::{Comparison, Content, Outputs, Reason, Record, RecordId};

/// Something that happened. Events of one node come in order.
///
/// Every node that a goal reaches has at least one `Finished` before `BuildFinished`; after a
/// `Reopened` it has another, and the last one counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A source has its identity.
    Pinned {
        /// The source.
        node: NodeId,
        /// For people, such as `sha256:25109184, pulled 3 days ago`.
        label: String,
        /// The identity.
        pin: Pin,
    },
    /// A run or a fetch began.
    Started {
        /// What runs.
        node: NodeId,
    },
    /// A run wrote something.
    Output {
        /// What runs.
        node: NodeId,
        /// Where to.
        stream: Stream,
        /// What; cut anywhere, not only at line ends.
        bytes: Vec<u8>,
    },
    /// Something that can be counted goes on.
    Progress {
        /// What runs.
        node: NodeId,
        /// What is counted, such as `layer sha256:2510…`.
        what: String,
        /// So far.
        current: u64,
        /// In all; none is unknown.
        total: Option<u64>,
    },
    /// A step waits for somebody else.
    Waiting {
        /// What waits.
        node: NodeId,
        /// What for.
        what: WaitsFor,
        /// The other process; none if it is this one or unknown.
        pid: Option<u32>,
    },
    /// What the cache promised for this node is gone; it is asked for again.
    Reopened {
        /// The node.
        node: NodeId,
    },
    /// What its reason goes by; comes before a run ends.
    Compared {
        /// The node.
        node: NodeId,
        /// The parts of its key beside those of an older record.
        comparison: Comparison,
    },
    /// A record stands for a node: it was found, or filed after a run.
    Recorded {
        /// The node.
        node: NodeId,
        /// Which record.
        record: RecordId,
        /// When it was filed, in nanoseconds since the epoch.
        created_unix_nanos: i64,
        /// What it holds, by output number.
        outputs: Outputs<Content>,
    },
    /// A node is resolved, or never will be.
    Finished {
        /// The node.
        node: NodeId,
        /// How.
        status: StepStatus,
        /// Why, where there is something to say.
        reason: Option<Reason>,
    },
    /// Nothing comes after this.
    BuildFinished(Summary),
}

impl Event {
    pub(crate) fn recorded(node: NodeId, record: &Record) -> Event {
        Event::Recorded {
            node,
            record: record.id,
            created_unix_nanos: record.created_unix_nanos,
            outputs: record.outputs.clone(),
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WaitsFor {
    /// Another process that runs the same step; its result will be used.
    SameStep,
    /// A step of the same process that does the same; its result will be used.
    EqualStep,
    /// A cache mount of this id, which another step uses.
    CacheMount(String),
    /// A cache mount of this id, which is brought here from that place.
    MountFrom(String, String),
}

/// A stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Nothing had to be done.
    Cached {
        /// How that was known.
        road: Road,
    },
    /// It ran.
    Ran {
        /// How long the run took.
        duration: Duration,
    },
    /// It is a source, and its bytes were brought here.
    Fetched {
        /// How long that took.
        duration: Duration,
    },
    /// It exited non-zero, or could not be run.
    Failed,
    /// It was running when the build was stopped.
    Cancelled,
    /// Something that it needs failed, or the build stopped before it.
    Skipped,
}

/// How it was known that nothing had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Road {
    /// A record with the same definition key.
    Definition,
    /// A record with the same content key.
    Content,
    /// A source whose identity says what it holds, and whose bytes were here or not needed.
    Pin,
    /// Whatever needs it was known, so that it was not even asked for.
    Covered,
}

/// How every node that a goal reaches ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// By node.
    pub steps: BTreeMap<NodeId, StepSummary>,
}

/// How one node ended.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSummary {
    /// How.
    pub status: StepStatus,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
}

impl StepStatus {
    /// Whether nothing had to be done.
    pub fn is_cached(&self) -> bool {
        matches!(self, StepStatus::Cached { .. })
    }
}

impl Summary {
    /// The number of nodes among `nodes` that `test` accepts.
    pub fn count(&self, test: impl Fn(NodeId, &StepStatus) -> bool) -> usize {
        self.steps
            .iter()
            .filter(|(node, step)| test(**node, &step.status))
            .count()
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepStatus::Cached { .. } => "cached",
            StepStatus::Ran { .. } => "ran",
            StepStatus::Fetched { .. } => "fetched",
            StepStatus::Failed => "failed",
            StepStatus::Cancelled => "cancelled",
            StepStatus::Skipped => "skipped",
        })
    }
}

/// Takes the events of a build. Called from many threads; must return soon.
pub trait Events: Send + Sync {
    /// Takes one.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Events for F {
    fn event(&self, event: Event) {
        self(event);
    }
}

/// Where a run or a fetch sends what it writes and how far it is. Cheap to clone.
#[derive(Clone)]
pub struct StepSink {
    node: NodeId,
    events: Arc<dyn Events>,
}

impl StepSink {
    pub(crate) fn new(node: NodeId, events: Arc<dyn Events>) -> Self {
        StepSink { node, events }
    }

    /// The step that it is of.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Passes on what the process wrote.
    pub fn output(&self, stream: Stream, bytes: Vec<u8>) {
        self.events.event(Event::Output {
            node: self.node,
            stream,
            bytes,
        });
    }

    /// Passes on how far something is.
    pub fn progress(&self, what: impl Into<String>, current: u64, total: Option<u64>) {
        self.events.event(Event::Progress {
            node: self.node,
            what: what.into(),
            current,
            total,
        });
    }

    /// Tells what the step's reason goes by.
    pub(crate) fn compared(&self, comparison: Comparison) {
        self.events.event(Event::Compared {
            node: self.node,
            comparison,
        });
    }

    /// Tells that the step waits.
    pub(crate) fn waiting(&self, what: WaitsFor, pid: Option<u32>) {
        self.events.event(Event::Waiting {
            node: self.node,
            what,
            pid,
        });
    }
}

impl fmt::Debug for StepSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StepSink").field(&self.node).finish()
    }
}
