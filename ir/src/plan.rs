//! A graph with what it is for, and beside it what people see.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Graph, GraphError, ImageConfig, Input, NodeDigest, NodeId, Op, SourceOp, encode};

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
    /// Nodes by the digests that other formats gave them, such as that of an LLB op; many to one.
    pub foreign: BTreeMap<String, NodeId>,
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    pub progress_group: Option<ProgressGroup>,
    /// No record is read for it; OR-ed when equal nodes meet.
    pub ignore_cache: bool,
    /// Resource limits.
    pub limits: ResourceLimits,
    /// Of a local source, the paths anybody reads; united when equal nodes meet, empty is all.
    pub include: BTreeSet<String>,
    /// Whatever else the front end says.
    pub description: BTreeMap<String, String>,
    /// Whether its result goes into an exported cache; none is as the exporter likes (LLB).
    pub export_cache: Option<bool>,
    /// Capabilities that a builder needs for it (LLB).
    pub caps: BTreeMap<String, bool>,
    /// Filters for workers that may run it (LLB).
    pub worker_constraints: Vec<String>,
}

/// A group of steps that are shown as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgressGroup {
    /// Its identity.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// It is shown only if it has several steps.
    pub weak: bool,
}

/// A place in one of [`Plan::sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRange {
    /// Index into [`Plan::sources`].
    pub source: u32,
    /// First line, from 1.
    pub start_line: u32,
    /// Last line, from 1.
    pub end_line: u32,
}

/// Resource limits of a step; in no digest and no key. 0 or empty is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// Why a plan is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A node or its inputs are wrong.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A result is no output of the graph.
    #[error("result `{name}` is output {} of `{}`, which the graph does not have", .input.output, .input.node)]
    DanglingResult {
        /// Its name.
        name: String,
        /// What it names.
        input: Input,
    },
    /// An attestation is no output of the graph.
    #[error("attestation `{predicate}` of result `{name}` is output {} of `{}`, which the graph does not have", .input.output, .input.node)]
    DanglingAttestation {
        /// The result's name.
        name: String,
        /// The attestation's type.
        predicate: String,
        /// What it names.
        input: Input,
    },
    /// A side table names a node that is not there.
    #[error("the {table} table names `{node}`, which the graph does not have")]
    DanglingNode {
        /// `pin`, `display` or `foreign`.
        table: &'static str,
        /// The node.
        node: NodeId,
    },
    /// A pin is of a kind that its node does not have.
    #[error("`{node}` is a {op} op, which cannot be pinned to a {pin}")]
    PinKind {
        /// The node.
        node: NodeId,
        /// What op it is.
        op: &'static str,
        /// What kind of pin it has.
        pin: &'static str,
    },
    /// A pin's value is no digest and no commit.
    #[error("pin `{value}` of `{node}` is no {pin}: {expected}")]
    PinValue {
        /// The node.
        node: NodeId,
        /// What kind of pin it has.
        pin: &'static str,
        /// Its value.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// A pin contradicts the checksum that the source itself demands.
    #[error("pin `{pin}` of `{node}` contradicts its checksum `{checksum}`")]
    PinConflict {
        /// The node.
        node: NodeId,
        /// The pin's value.
        pin: String,
        /// The source's checksum.
        checksum: String,
    },
    /// A source range is of a text that is not there, or ends before it begins.
    #[error("source range {}..{} of text {} on `{node}` points nowhere", .range.start_line, .range.end_line, .range.source)]
    SourceRange {
        /// The node.
        node: NodeId,
        /// The range.
        range: SourceRange,
    },
}

impl Pin {
    /// Returns the word for what it is, as the text form writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Manifest(_) => "manifest",
            Self::Commit(_) => "commit",
            Self::Checksum(_) => "checksum",
        }
    }

    /// Returns the digest or commit.
    pub fn value(&self) -> &str {
        match self {
            Self::Manifest(value) | Self::Commit(value) | Self::Checksum(value) => value,
        }
    }

    /// Whether its value is a digest or a commit, as it should be.
    pub fn is_well_formed(&self) -> bool {
        let value = self.value();
        let hex = |text: &str| {
            text.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        match self {
            Self::Commit(_) => matches!(value.len(), 40 | 64) && hex(value),
            Self::Manifest(_) | Self::Checksum(_) => {
                value
                    .split_once(':')
                    .is_some_and(|(algorithm, digits)| match algorithm {
                        "sha256" => digits.len() == 64 && hex(digits),
                        "sha384" => digits.len() == 96 && hex(digits),
                        "sha512" => digits.len() == 128 && hex(digits),
                        _ => false,
                    })
            }
        }
    }

    pub(crate) fn check(&self, node: NodeId, op: &Op) -> Result<(), PlanError> {
        let pin = self.kind();
        let source = match op {
            Op::Source(source) => source,
            _ => {
                return Err(PlanError::PinKind {
                    node,
                    op: op.kind(),
                    pin,
                });
            }
        };
        let checksum = match (self, source) {
            // An image's checksum may be that of an index, of which the pin is one platform's manifest.
            (Self::Manifest(_), SourceOp::Image(_) | SourceOp::OciLayout(_)) => None,
            (Self::Commit(_), SourceOp::Git(git)) => git.checksum.as_deref(),
            (Self::Checksum(_), SourceOp::Http(http)) => http.checksum.as_deref(),
            (Self::Checksum(_), SourceOp::Blob(_)) => None,
            _ => {
                return Err(PlanError::PinKind {
                    node,
                    op: op.kind(),
                    pin,
                });
            }
        };
        let value = self.value();
        if !self.is_well_formed() {
            return Err(PlanError::PinValue {
                node,
                pin,
                value: value.to_owned(),
                expected: match self {
                    Self::Commit(_) => "40 or 64 lower-case hex digits",
                    Self::Manifest(_) | Self::Checksum(_) => {
                        "`sha256:` and 64 lower-case hex digits"
                    }
                },
            });
        }
        match checksum {
            // A git checksum may be an abbreviated commit.
            Some(checksum) if !value.starts_with(checksum) => Err(PlanError::PinConflict {
                node,
                pin: value.to_owned(),
                checksum: checksum.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl Display {
    /// Takes in what is said of an equal node.
    ///
    /// The first name and group stay, ranges are appended, ignore-cache is OR-ed, include lists are
    /// united (empty, which is all, wins), of two limits the looser one stays.
    pub fn merge(&mut self, other: Display) {
        let Display {
            name,
            stage,
            ranges,
            progress_group,
            ignore_cache,
            limits,
            include,
            description,
            ..
        } = other;
        if self.name.is_empty() {
            self.name = name;
        }
        if self.stage.is_empty() {
            self.stage = stage;
        }
        for range in ranges {
            if !self.ranges.contains(&range) {
                self.ranges.push(range);
            }
        }
        if self.progress_group.is_none() {
            self.progress_group = progress_group;
        }
        self.ignore_cache |= ignore_cache;
        self.limits.loosen(limits);
        match include.is_empty() {
            true => self.include.clear(),
            false if !self.include.is_empty() => self.include.extend(include),
            false => {}
        }
        for (key, value) in description {
            self.description.entry(key).or_insert(value);
        }
        self.export_cache = match (self.export_cache, other.export_cache) {
            (Some(one), Some(two)) => Some(one || two),
            (one, two) => one.or(two),
        };
        for (cap, needed) in other.caps {
            *self.caps.entry(cap).or_default() |= needed;
        }
        for filter in other.worker_constraints {
            if !self.worker_constraints.contains(&filter) {
                self.worker_constraints.push(filter);
            }
        }
    }
}

impl ResourceLimits {
    fn loosen(&mut self, other: ResourceLimits) {
        let looser = |one: i64, two: i64| {
            if one == 0 || two == 0 {
                0
            } else {
                one.max(two)
            }
        };
        self.memory = looser(self.memory, other.memory);
        self.memory_swap = looser(self.memory_swap, other.memory_swap);
        self.cpu_shares = looser(self.cpu_shares, other.cpu_shares);
        // A period and its quota mean something only together.
        let share =
            |period: i64, quota: i64| i128::from(quota) * 1_000_000 / i128::from(period.max(1));
        if other.cpu_quota == 0
            || (self.cpu_quota != 0
                && share(other.cpu_period, other.cpu_quota)
                    > share(self.cpu_period, self.cpu_quota))
        {
            self.cpu_period = other.cpu_period;
            self.cpu_quota = other.cpu_quota;
        }
        if self.cpuset_cpus != other.cpuset_cpus {
            self.cpuset_cpus.clear();
        }
        if self.cpuset_mems != other.cpuset_mems {
            self.cpuset_mems.clear();
        }
    }
}

impl Plan {
    /// Checks that results and side tables name what is there, and that pins fit their sources.
    pub fn validate(&self) -> Result<(), PlanError> {
        for (name, entry) in &self.results {
            if let Some(input) = entry.output.filter(|input| !self.graph.has_output(*input)) {
                return Err(PlanError::DanglingResult {
                    name: name.clone(),
                    input,
                });
            }
            for (predicate, &input) in &entry.attestations {
                if !self.graph.has_output(input) {
                    let (name, predicate) = (name.clone(), predicate.clone());
                    return Err(PlanError::DanglingAttestation {
                        name,
                        predicate,
                        input,
                    });
                }
            }
        }
        for (&node, pin) in &self.pins {
            self.check_node("pin", node)?;
            pin.check(node, &self.graph.node(node).op)?;
        }
        for (&node, display) in &self.display {
            self.check_node("display", node)?;
            for &range in &display.ranges {
                let there = self.sources.get(range.source as usize).is_some();
                if !there || range.start_line == 0 || range.end_line < range.start_line {
                    return Err(PlanError::SourceRange { node, range });
                }
            }
        }
        self.foreign
            .values()
            .try_for_each(|&node| self.check_node("foreign", node))
    }

    fn check_node(&self, table: &'static str, node: NodeId) -> Result<(), PlanError> {
        match self.graph.contains(node) {
            true => Ok(()),
            false => Err(PlanError::DanglingNode { table, node }),
        }
    }

    /// Says something about a node; merged with what was said before, see [`Display::merge`].
    pub fn annotate(&mut self, node: NodeId, display: Display) {
        match self.display.entry(node) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(display);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().merge(display)
            }
        }
    }

    /// Returns what is said of a node, to change it.
    pub fn display_mut(&mut self, node: NodeId) -> &mut Display {
        self.display.entry(node).or_default()
    }

    /// Returns the nodes that the results name, in the order of results, each once.
    pub fn goals(&self) -> Vec<NodeId> {
        let mut seen = BTreeSet::new();
        let inputs = self
            .results
            .values()
            .flat_map(|entry| entry.output.iter().chain(entry.attestations.values()));
        inputs
            .map(|input| input.node)
            .filter(|&node| seen.insert(node))
            .collect()
    }

    /// Returns the source that an output lies on in the end, such as the image of its FROM.
    pub fn base(&self, output: Input) -> NodeId {
        let mut node = output.node;
        let mut below = Some(output);
        while let Some(output) = below {
            node = output.node;
            below = self.graph.node(node).base(output.output);
        }
        node
    }

    /// Returns all nodes, inputs before consumers, in the order in which the results come to need them.
    ///
    /// The order depends on the plan's content alone, not on how it was made.
    pub fn order(&self) -> Vec<NodeId> {
        self.graph.topological_from(self.goals())
    }

    /// Drops nodes that no result needs, and what the side tables say of them.
    pub fn prune(&mut self) {
        let keep = self.graph.reachable(self.goals());
        self.graph.retain(&keep);
        self.pins.retain(|node, _| keep.contains(node));
        self.display.retain(|node, _| keep.contains(node));
        self.foreign.retain(|_, node| keep.contains(node));
    }

    /// Returns the digest of what the plan ends in; see [`encode::plan_digest`].
    pub fn digest(&self) -> NodeDigest {
        encode::plan_digest(self)
    }

    fn by_digest<'a, T>(&'a self, table: &'a BTreeMap<NodeId, T>) -> BTreeMap<NodeDigest, &'a T> {
        table
            .iter()
            .map(|(&node, value)| (self.graph.digest(node), value))
            .collect()
    }

    fn resolved(&self, input: &Input) -> (NodeDigest, u32) {
        (self.graph.digest(input.node), input.output)
    }
}

/// Two plans are equal if they say the same of equal nodes, whatever ids these have.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        let results = |plan: &Plan| -> Vec<_> {
            let entries = plan.results.iter();
            entries
                .map(|(name, entry)| {
                    let output = entry.output.as_ref().map(|output| plan.resolved(output));
                    let attestations = entry.attestations.iter();
                    let attestations: Vec<_> = attestations
                        .map(|(name, input)| (name.clone(), plan.resolved(input)))
                        .collect();
                    (
                        name.clone(),
                        output,
                        attestations,
                        entry.config.clone(),
                        entry.metadata.clone(),
                    )
                })
                .collect()
        };
        let foreign = |plan: &Plan| -> Vec<_> {
            plan.foreign
                .iter()
                .map(|(name, &node)| (name.clone(), plan.graph.digest(node)))
                .collect()
        };
        self.graph == other.graph
            && self.sources == other.sources
            && results(self) == results(other)
            && foreign(self) == foreign(other)
            && self.by_digest(&self.pins) == other.by_digest(&other.pins)
            && self.by_digest(&self.display) == other.by_digest(&other.display)
    }
}

impl Eq for Plan {}
