//! A graph with what it is for, and beside it what people see.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Graph, ImageConfig, Input, NodeId};

/// A whole build: a graph, its results, and what stands beside the graph.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The nodes.
    pub graph: Graph,
    /// What the build ends in, by name: a platform such as `linux/arm64`, or empty.
    pub results: BTreeMap<String, ResultEntry>,
    /// Identities of sources, fixed for this build: lowering, keys and fetching all use the same.
    pub pins: BTreeMap<NodeId, Pin>,
    /// What people see of a node; in no digest.
    pub display: BTreeMap<NodeId, Display>,
    /// Texts that source ranges point into: file name and content.
    pub sources: Vec<(String, String)>,
}

/// One result of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultEntry {
    /// The file system; none is scratch.
    pub output: Option<Input>,
    /// The image config; none where the result is no image.
    pub config: Option<ImageConfig>,
    /// Attestations by predicate type: the output that holds them.
    pub attestations: BTreeMap<String, Input>,
    /// Whatever the front end has to say.
    pub metadata: BTreeMap<String, String>,
}

/// The identity that a source has in this build.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Pin {
    /// The digest of an image's manifest (`sha256:…`), for the node's platform.
    Manifest(String),
    /// A git commit, in hex.
    Commit(String),
    /// The digest of a body (`sha256:…`).
    Checksum(String),
}

/// What people see of a node, and hints that change no result. Merged when equal nodes meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Display {
    /// What a step is called, such as `RUN make`.
    pub name: String,
    /// The stage it belongs to: its name, or empty.
    pub stage: String,
    /// Where it is written.
    pub ranges: Vec<SourceRange>,
    /// Group of steps that are shown as one.
    pub progress_group: Option<String>,
    /// No record is read for it; OR-ed when equal nodes meet.
    pub ignore_cache: bool,
    /// Resource limits.
    pub limits: ResourceLimits,
    /// Of a local source, the paths anybody reads; united when equal nodes meet, empty is all.
    pub include: BTreeSet<String>,
    /// Whatever else the front end says.
    pub description: BTreeMap<String, String>,
}

/// A place in one of [`Plan::sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRange {
    /// Index into [`Plan::sources`].
    pub source: u32,
    /// First line, from 1.
    pub start_line: u32,
    /// Last line, from 1.
    pub end_line: u32,
}

/// Resource limits of a step; in no digest and no key. 0 or empty is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds.
    pub cpu_quota: i64,
    /// A list such as `0-3`.
    pub cpuset_cpus: String,
    /// A list such as `0`.
    pub cpuset_mems: String,
}
