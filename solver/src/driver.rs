//! Drives the scheduler on tokio.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kiln_ir::{Input, NodeId, Plan};

use crate::{Content, Record, Slot, StepFailure, StepName, Summary};

/// What is to be built, and how.
#[derive(Debug, Clone)]
pub struct SolveRequest {
    /// The plan. Nothing of it is mutated; display and pins are read.
    pub plan: Arc<Plan>,
    /// What is wanted of it.
    pub goals: Vec<Goal>,
    /// What only the caller knows of nodes.
    pub notes: BTreeMap<NodeId, NodeNote>,
    /// Settings.
    pub options: SolveOptions,
}

/// Settings of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolveOptions {
    /// How many runs there may be at a time; 0 counts as 1.
    pub jobs: usize,
    /// What does not need a failed step goes on.
    pub keep_going: bool,
}

/// An output that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Goal {
    /// Which.
    pub input: Input,
    /// How much of it.
    pub need: Need,
}

/// How much of an output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// That it is known what it holds: enough where nothing is exported.
    Known,
    /// The output itself.
    Present,
}

/// What only the caller knows of a node; in no key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeNote {
    /// Which step of which Dockerfile it is.
    pub slot: Option<Slot>,
    /// Its text and line; by default the name that the plan displays and its first range.
    pub name: Option<StepName>,
    /// Variables of its environment that are build arguments, not `ENV`.
    pub build_args: BTreeSet<String>,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct Solved<H> {
    /// As the goals, in order.
    pub goals: Vec<GoalResult<H>>,
    /// How every node that a goal reaches ended.
    pub summary: Summary,
}

/// What became of a goal.
#[derive(Debug, Clone)]
pub struct GoalResult<H> {
    /// The goal.
    pub goal: Goal,
    /// What it holds.
    pub content: Content,
    /// The output itself, where it was wanted.
    pub handle: Option<H>,
    /// Its record; none for an image, oci-layout or local source.
    pub record: Option<Record>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// Steps failed.
    #[error("{} failed", Failures(failures))]
    Failed {
        /// Each with its cause, in the order in which they failed; never empty.
        failures: Vec<(NodeId, Failure<E>)>,
        /// How every node ended.
        summary: Summary,
    },
    /// The build was told to stop.
    #[error("cancelled")]
    Cancelled {
        /// How every node ended.
        summary: Summary,
    },
    /// The cache itself could not be used.
    #[error("cannot use the build cache")]
    Cache(#[source] E),
    /// A goal names an output that its node does not have.
    #[error("no output {} of the node that a goal names", .0.input.output)]
    NoSuchGoal(Goal),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E: std::error::Error + 'static> {
    /// It ran and did not succeed.
    #[error(transparent)]
    Step(StepFailure),
    /// It could not be tried.
    #[error(transparent)]
    Worker(E),
}

struct Failures<'a, E: std::error::Error + 'static>(&'a [(NodeId, Failure<E>)]);

impl<E: std::error::Error + 'static> fmt::Display for Failures<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a step"),
            n => write!(f, "{n} steps"),
        }
    }
}

impl SolveOptions {
    /// The default for a machine with so many cores: 16 jobs or twice the cores, whichever is more.
    pub fn for_cores(cores: usize) -> Self {
        SolveOptions {
            jobs: cores.saturating_mul(2).max(16),
            keep_going: false,
        }
    }
}
