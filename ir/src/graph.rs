//! Nodes, and the graph that holds each of them once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{Dfs, Reversed};

use crate::validate::check_node;
use crate::{ActionInput, FileAction, Op, Platform, encode};

/// A node of one [`Graph`]; means nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// The identity of a node: BLAKE3 over its canonical bytes, its inputs by their digests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeDigest(pub [u8; 32]);

impl NodeDigest {
    /// Parses 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(digest))
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for NodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeDigest({self})")
    }
}

/// A numbered output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// The node.
    pub node: NodeId,
    /// The number of its output.
    pub output: u32,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.output {
            0 => write!(f, "{}", self.node),
            output => write!(f, "{}.{output}", self.node),
        }
    }
}

/// An op with what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it reads; the op names them by index. No input stands here twice.
    pub inputs: Vec<Input>,
    /// Where it runs: image, exec and oci-layout nodes only, so that platforms share the rest.
    pub platform: Option<Platform>,
}

impl Node {
    /// What an output of an op that runs, changes files or merges lies on; none on an empty tree, and of other ops.
    pub fn base(&self, output: u32) -> Option<Input> {
        let index = match &self.op {
            Op::Exec(op) => op.mounts.iter().find(|mount| mount.target == "/")?.input?,
            Op::File(op) => {
                let action = |index: u32| op.actions.get(usize::try_from(index).ok()?);
                let made = |action: &&FileAction| action.output == Some(output);
                let mut last = op.actions.iter().find(made)?;
                // An action comes after those that it works on, so this ends.
                loop {
                    match last.input {
                        ActionInput::Scratch => return None,
                        ActionInput::Input(index) => break index,
                        ActionInput::Action(index) => last = action(index)?,
                    }
                }
            }
            Op::Merge(_) => 0,
            _ => return None,
        };
        self.inputs.get(usize::try_from(index).ok()?).copied()
    }
}

/// Why a node or a set of nodes is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The node that an input names is not in the graph.
    #[error("input {index} is node `{node}`, which is not in the graph")]
    DanglingInput {
        /// Which input.
        index: u32,
        /// The node it names, as its source writes it.
        node: String,
    },
    /// The node that an input names does not yield that output.
    #[error("input {index} is output {output} of `{node}`, which yields {}", list(.available))]
    NoSuchOutput {
        /// Which input.
        index: u32,
        /// The node, as its source writes it.
        node: String,
        /// The output asked for.
        output: u32,
        /// The outputs it has.
        available: Vec<u32>,
    },
    /// An input stands twice in a node's list.
    #[error("input `{input}` is listed twice, at {first} and {second}")]
    DuplicateInput {
        /// The input.
        input: Input,
        /// Where first.
        first: u32,
        /// Where again.
        second: u32,
    },
    /// An op names an input that its node does not have.
    #[error("{place} reads input {index}, but the node has {available}")]
    NoSuchInput {
        /// Where in the op.
        place: String,
        /// The index.
        index: u32,
        /// How many inputs there are.
        available: u32,
    },
    /// A source, which reads nothing, has inputs.
    #[error("a source reads nothing, but this one has {count} inputs")]
    SourceWithInputs {
        /// How many.
        count: u32,
    },
    /// Two mounts or actions yield the same output.
    #[error("output {output} is yielded twice, by {first} and {second}")]
    DuplicateOutput {
        /// The output.
        output: u32,
        /// Who first.
        first: String,
        /// Who again.
        second: String,
    },
    /// A mount or action yields an output whose number is higher than there can be outputs.
    #[error("{place} yields output {output}, but the op has at most {most} outputs, from 0 on")]
    OutputNumber {
        /// The output.
        output: u32,
        /// Who.
        place: String,
        /// How many mounts or actions there are.
        most: usize,
    },
    /// An exec op has no root, or several.
    #[error("an exec op needs exactly one mount at `/`, but this one has {count}")]
    RootMounts {
        /// How many.
        count: u32,
    },
    /// The root of an exec op is something other than a bind mount.
    #[error("the mount at `/` is a {kind} mount, but the root has to be a bind mount")]
    RootMountKind {
        /// What it is.
        kind: &'static str,
    },
    /// A mount target is relative, leaves the root, or has a NUL.
    #[error("mount target `{target}` {problem}")]
    MountTarget {
        /// The target.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A mount that keeps nothing has an output.
    #[error("the {kind} mount at `{target}` cannot have an output, but has output {output}")]
    MountOutput {
        /// What it is.
        kind: &'static str,
        /// Where.
        target: String,
        /// The output.
        output: u32,
    },
    /// A mount that has content of its own has an input.
    #[error("the {kind} mount at `{target}` cannot have an input, but has input {input}")]
    MountInput {
        /// What it is.
        kind: &'static str,
        /// Where.
        target: String,
        /// The input.
        input: u32,
    },
    /// A mount that can't have a part of an input selected has a selector.
    #[error("the mount at `{target}` selects `{selector}` of no input")]
    MountSelector {
        /// Where.
        target: String,
        /// The selector.
        selector: String,
    },
    /// A writable output can't be known by its content before the step ran.
    #[error("the mount at `{target}` has a writable output, so its content cache cannot be `on`")]
    ContentCache {
        /// Where.
        target: String,
    },
    /// An action reads one that comes later, or itself.
    #[error("{place} reads the result of action {index}, which does not come before it")]
    ForwardAction {
        /// Where in the op.
        place: String,
        /// What it reads.
        index: u32,
    },
    /// An action other than a copy has a tree to copy from.
    #[error("action {action} is a {kind}, which has nothing to copy from")]
    UnexpectedSecondary {
        /// Which action.
        action: u32,
        /// What it is.
        kind: &'static str,
    },
    /// A node has a platform that its op does not depend on.
    #[error("a {op} op carries no platform, but this one has `{platform}`")]
    UnexpectedPlatform {
        /// What op.
        op: &'static str,
        /// The platform.
        platform: Box<Platform>,
    },
    /// Nodes that read each other's outputs.
    #[error("nodes form a cycle: {}", .nodes.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// The nodes, as their source writes them.
        nodes: Vec<String>,
    },
    /// Two nodes of a document have the same name.
    #[error("node `{node}` is defined twice")]
    DuplicateNode {
        /// The name.
        node: String,
    },
    /// A node does not fit the format's limit.
    #[error("a node takes {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

fn list(outputs: &[u32]) -> String {
    match outputs {
        [] => "none".to_owned(),
        outputs => outputs
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[derive(Debug, Clone)]
struct Entry {
    node: Node,
    digest: NodeDigest,
    /// Ascending.
    outputs: Vec<u32>,
}

/// Nodes, each of them once, whose inputs are all there; so it has no cycles.
///
/// Two graphs are equal if they hold the same nodes, in whatever order these were added.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// An edge leads from a node to one that reads it.
    nodes: StableDiGraph<Entry, ()>,
    by_digest: HashMap<NodeDigest, NodeId>,
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .by_digest
                .keys()
                .all(|digest| other.by_digest.contains_key(digest))
    }
}

impl Eq for Graph {}

impl Graph {
    /// Makes an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or returns the equal one that is there.
    ///
    /// Errors if an input is not in the graph or the op is not valid by itself.
    pub fn add(&mut self, node: Node) -> Result<NodeId, GraphError> {
        self.check_inputs(&node)?;
        check_node(&node)?;
        let digest = encode::node_digest(self, &node)?;
        if let Some(&id) = self.by_digest.get(&digest) {
            return Ok(id);
        }
        let outputs = node.op.outputs();
        let inputs: BTreeSet<NodeId> = node.inputs.iter().map(|input| input.node).collect();
        let index = self.nodes.add_node(Entry {
            node,
            digest,
            outputs,
        });
        for input in inputs {
            self.nodes.add_edge(input.index(), index, ());
        }
        let id = NodeId::from_index(index);
        self.by_digest.insert(digest, id);
        Ok(id)
    }

    fn check_inputs(&self, node: &Node) -> Result<(), GraphError> {
        let mut seen = BTreeMap::new();
        for (index, input) in (0u32..).zip(&node.inputs) {
            let Some(parent) = self.nodes.node_weight(input.node.index()) else {
                return Err(GraphError::DanglingInput {
                    index,
                    node: input.node.to_string(),
                });
            };
            if parent.outputs.binary_search(&input.output).is_err() {
                let available = parent.outputs.clone();
                return Err(GraphError::NoSuchOutput {
                    index,
                    node: input.node.to_string(),
                    output: input.output,
                    available,
                });
            }
            if let Some(first) = seen.insert(*input, index) {
                return Err(GraphError::DuplicateInput {
                    input: *input,
                    first,
                    second: index,
                });
            }
        }
        Ok(())
    }

    fn entry(&self, id: NodeId) -> &Entry {
        match self.nodes.node_weight(id.index()) {
            Some(entry) => entry,
            None => panic!("BUG: node {id} is not in this graph"),
        }
    }

    /// Returns a node. Panics if `id` is of another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.entry(id).node
    }

    /// Returns a node's digest. Panics if `id` is of another graph.
    pub fn digest(&self, id: NodeId) -> NodeDigest {
        self.entry(id).digest
    }

    /// Returns the numbers of a node's outputs, ascending. Panics if `id` is of another graph.
    pub fn outputs(&self, id: NodeId) -> &[u32] {
        &self.entry(id).outputs
    }

    /// Returns whether `input` names an output that is there.
    pub fn has_output(&self, input: Input) -> bool {
        self.nodes
            .node_weight(input.node.index())
            .is_some_and(|entry| entry.outputs.contains(&input.output))
    }

    /// Returns whether `id` is in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.contains_node(id.index())
    }

    /// Finds a node by its digest.
    pub fn find(&self, digest: NodeDigest) -> Option<NodeId> {
        self.by_digest.get(&digest).copied()
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all nodes, ascending.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + '_ {
        self.nodes.node_indices().map(NodeId::from_index)
    }

    /// Returns all nodes, inputs before their consumers, in an order that depends on the nodes alone.
    pub fn topological(&self) -> Vec<NodeId> {
        self.topological_from([])
    }

    /// Returns all nodes, inputs before their consumers: first what `roots` need, in their order,
    /// then the rest, in an order that depends on the nodes alone.
    pub fn topological_from(&self, roots: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
        let mut order = Vec::with_capacity(self.len());
        let mut visited = BTreeSet::new();
        for root in roots {
            self.visit_inputs_first(root, &mut visited, &mut order);
        }
        let mut sinks: Vec<NodeId> = self
            .nodes
            .externals(Direction::Outgoing)
            .map(NodeId::from_index)
            .collect();
        sinks.sort_by_key(|&id| self.digest(id));
        for sink in sinks {
            self.visit_inputs_first(sink, &mut visited, &mut order);
        }
        order
    }

    /// Appends `root` and what it needs to `order`, with a stack of its own: depth is the input's.
    fn visit_inputs_first(
        &self,
        root: NodeId,
        visited: &mut BTreeSet<NodeId>,
        order: &mut Vec<NodeId>,
    ) {
        if !visited.insert(root) {
            return;
        }
        let mut stack = vec![(root, 0)];
        while let Some((id, next)) = stack.last_mut() {
            match self.node(*id).inputs.get(*next) {
                Some(input) => {
                    *next += 1;
                    if visited.insert(input.node) {
                        stack.push((input.node, 0));
                    }
                }
                None => {
                    order.push(*id);
                    stack.pop();
                }
            }
        }
    }

    /// Returns `roots` and all that they need.
    pub fn reachable(&self, roots: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let reversed = Reversed(&self.nodes);
        let mut walk = Dfs::empty(reversed);
        walk.stack.extend(roots.into_iter().map(NodeId::index));
        let mut found = BTreeSet::new();
        while let Some(index) = walk.next(reversed) {
            found.insert(NodeId::from_index(index));
        }
        found
    }

    /// Returns the nodes that read an output of `id`, ascending, each once.
    pub fn consumers(&self, id: NodeId) -> Vec<NodeId> {
        let mut consumers: Vec<NodeId> = self
            .nodes
            .neighbors_directed(id.index(), Direction::Outgoing)
            .map(NodeId::from_index)
            .collect();
        consumers.sort_unstable();
        consumers
    }

    /// Returns for each node the weight of the heaviest path from it to a node that nobody reads,
    /// both ends included.
    pub fn critical_path(&self, weight: impl Fn(NodeId) -> u64) -> BTreeMap<NodeId, u64> {
        let mut remaining = BTreeMap::new();
        for id in self.topological().into_iter().rev() {
            let after = self
                .nodes
                .neighbors_directed(id.index(), Direction::Outgoing)
                .filter_map(|consumer| remaining.get(&NodeId::from_index(consumer)).copied())
                .max()
                .unwrap_or(0);
            remaining.insert(id, weight(id).saturating_add(after));
        }
        remaining
    }

    /// Removes all nodes but `keep`; the ids of those stay what they were.
    ///
    /// `keep` has to hold what its members need, as [`Graph::reachable`] returns it.
    pub(crate) fn retain(&mut self, keep: &BTreeSet<NodeId>) {
        self.nodes
            .retain_nodes(|_, index| keep.contains(&NodeId::from_index(index)));
        self.by_digest.retain(|_, id| keep.contains(id));
    }
}

impl NodeId {
    fn from_index(index: NodeIndex) -> Self {
        match u32::try_from(index.index()) {
            Ok(index) => Self(index),
            Err(_) => panic!("BUG: petgraph's default index is 32 bits wide"),
        }
    }

    fn index(self) -> NodeIndex {
        NodeIndex::from(self.0)
    }
}
