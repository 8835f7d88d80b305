//! What the scheduler needs of a plan, worked out once: dense, inputs before their consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_ir::{GitSource, MountKind, NodeId, Op, Pin, Plan, SourceOp};

use crate::driver::NodeNote;
use crate::explainer::Explainer;
use crate::hasher::Hasher;
use crate::keywriter::{KeyInput, KeyWriter, write_op};
use crate::view::{View, content_road_open, views};
use crate::{
    ContentId, ContentKey, DefinitionKey, Facts, Goal, OpKey, Origin, Pinned, PinnedSource,
    Selection, SelectionDigest, Slot, StepName,
};

/// Index of a node in an [`Outline`].
pub(crate) type At = usize;

/// The nodes that the goals reach, and nothing else of the plan.
pub(crate) struct Outline {
    pub(crate) plan: Arc<Plan>,
    pub(crate) nodes: Vec<OutlineNode>,
    pub(crate) by_id: BTreeMap<NodeId, At>,
}

pub(crate) struct OutlineNode {
    pub(crate) id: NodeId,
    pub(crate) role: Role,
    pub(crate) inputs: Vec<OutlineInput>,
    /// Each once.
    pub(crate) consumers: Vec<At>,
    /// No record is read for it.
    pub(crate) forced: bool,
    /// By what, if it is.
    pub(crate) forced_by: String,
    /// Something that it needs is forced: it can't be asked by definition.
    pub(crate) above_forced: bool,
    /// Its content key may be asked and filed.
    pub(crate) content_road: bool,
    /// It has something for itself while it runs: a cache mount.
    pub(crate) reserves: bool,
    /// Weight of the heaviest path from here to a goal; heavier goes first.
    pub(crate) priority: u64,
    pub(crate) op: OpKey,
    pub(crate) slot: Option<Slot>,
    name: StepName,
    build_args: BTreeSet<String>,
}

pub(crate) struct OutlineInput {
    pub(crate) node: At,
    pub(crate) output: u32,
    /// What is read, where that may stand for the input; none is all of it.
    pub(crate) selection: Option<Arc<Selection>>,
}

/// How a node gets its key and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// An image or oci-layout source: its pin says what it holds, so that it has no record.
    Base,
    /// A local source: it has no key, its consumers digest what they read.
    Local,
    /// A git, http or blob source: pinned, recorded, and fetched where others run.
    Pinned,
    /// Everything else: recorded and run.
    Step,
}

impl Outline {
    pub(crate) fn new(plan: Arc<Plan>, goals: &[Goal], notes: &BTreeMap<NodeId, NodeNote>) -> Self {
        let reachable = plan
            .graph
            .reachable(goals.iter().map(|goal| goal.input.node));
        let order: Vec<NodeId> = plan
            .graph
            .topological_from(goals.iter().map(|goal| goal.input.node))
            .into_iter()
            .filter(|id| reachable.contains(id))
            .collect();
        let by_id: BTreeMap<NodeId, At> =
            order.iter().enumerate().map(|(at, &id)| (id, at)).collect();
        let mut nodes: Vec<OutlineNode> = Vec::with_capacity(order.len());
        for (at, &id) in order.iter().enumerate() {
            let node = outline_node(&plan, id, &by_id, &nodes, notes.get(&id));
            for input in &node.inputs {
                let consumers = &mut nodes[input.node].consumers;
                if consumers.last() != Some(&at) {
                    consumers.push(at);
                }
            }
            nodes.push(node);
        }
        for at in (0..nodes.len()).rev() {
            let after = nodes[at]
                .consumers
                .iter()
                .map(|&consumer| nodes[consumer].priority)
                .max();
            nodes[at].priority += after.unwrap_or(0);
        }
        Outline { plan, nodes, by_id }
    }

    /// Finds the definition key. `files[i]` is the digest of what is read of a local input `i`,
    /// `keys[i]` the definition key of any other.
    pub(crate) fn definition_key(
        &self,
        at: At,
        pinned: Option<&Pinned>,
        inputs: &[InputKey],
    ) -> DefinitionKey {
        let mut hasher = Hasher::definition();
        self.write_definition(at, pinned, inputs, &mut hasher, |_| None);
        hasher.into_definition()
    }

    /// Explains the definition key, and the content key as far as `seen` has it.
    ///
    /// `pins[i]` is the pin of input `i` where that is a pinned source.
    pub(crate) fn facts(
        &self,
        at: At,
        pinned: Option<&Pinned>,
        inputs: &[InputKey],
        pins: &[Option<&Pinned>],
        seen: &[Option<Seen<'_>>],
    ) -> Facts {
        let node = &self.nodes[at];
        let is_build_arg = |name: &str| node.build_args.contains(name);
        let mut explainer = Explainer::new(&is_build_arg);
        self.write_definition(at, pinned, inputs, &mut explainer, |i| {
            let from = node.inputs[i].node;
            Some(match pins[i] {
                Some(pinned) => Origin::Source(self.pinned_source(from, pinned)),
                None => Origin::Step(self.nodes[from].name.clone()),
            })
        });
        for (i, seen) in seen.iter().enumerate() {
            match seen {
                // Files stand among the parts of the definition key already.
                None | Some(Seen::Files(_)) => {}
                Some(seen) => explainer.input(index(i), &seen.as_key_input("")),
            }
        }
        Facts {
            step: node.name.clone(),
            parts: explainer.into_parts(),
        }
    }

    fn write_definition(
        &self,
        at: At,
        pinned: Option<&Pinned>,
        inputs: &[InputKey],
        to: &mut impl KeyWriter,
        origin: impl Fn(usize) -> Option<Origin>,
    ) {
        let node = &self.nodes[at];
        write_op(self.plan.graph.node(node.id), to);
        if let Some(pinned) = pinned {
            to.identity(&pinned.identity, &self.pinned_source(at, pinned));
        }
        for (i, (input, key)) in node.inputs.iter().zip(inputs).enumerate() {
            match key {
                InputKey::Files(selected) => to.input(
                    index(i),
                    &KeyInput::Files {
                        source: self.local_name(input.node),
                        selected,
                    },
                ),
                InputKey::Definition(key) => {
                    let from = origin(i).unwrap_or_else(|| Origin::Step(StepName::default()));
                    to.input(
                        index(i),
                        &KeyInput::Definition {
                            key: *key,
                            output: input.output,
                            from: &from,
                        },
                    );
                }
            }
        }
    }

    /// Finds the content key from what the op sees of each input.
    pub(crate) fn content_key(&self, at: At, seen: &[Seen<'_>]) -> ContentKey {
        let node = &self.nodes[at];
        let mut hasher = Hasher::content();
        write_op(self.plan.graph.node(node.id), &mut hasher);
        for (i, (input, seen)) in node.inputs.iter().zip(seen).enumerate() {
            hasher.input(index(i), &seen.as_key_input(self.local_name(input.node)));
        }
        hasher.into_content()
    }

    pub(crate) fn name(&self, at: At) -> &StepName {
        &self.nodes[at].name
    }

    fn local_name(&self, at: At) -> &str {
        match &self.plan.graph.node(self.nodes[at].id).op {
            Op::Source(SourceOp::Local(local)) => &local.name,
            _ => "",
        }
    }

    fn pinned_source(&self, at: At, pinned: &Pinned) -> PinnedSource {
        let pin = match &pinned.pin {
            Pin::Manifest(digest) | Pin::Checksum(digest) => digest.clone(),
            Pin::Commit(commit) => commit.clone(),
        };
        PinnedSource {
            reference: reference(&self.plan.graph.node(self.nodes[at].id).op),
            pin,
            base: self.nodes[at].role == Role::Base,
        }
    }
}

/// What stands for an input in the definition key.
#[derive(Debug, Clone)]
pub(crate) enum InputKey {
    Definition(DefinitionKey),
    Files(SelectionDigest),
}

/// What an op sees of an input, on the content road.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    Files(&'a SelectionDigest),
    Layers(&'a [ContentId]),
    Selected(&'a SelectionDigest),
}

impl<'a> Seen<'a> {
    fn as_key_input(&self, source: &'a str) -> KeyInput<'a> {
        match *self {
            Seen::Files(selected) => KeyInput::Files { source, selected },
            Seen::Layers(layers) => KeyInput::Layers(layers),
            Seen::Selected(selected) => KeyInput::Selected(selected),
        }
    }
}

fn outline_node(
    plan: &Plan,
    id: NodeId,
    by_id: &BTreeMap<NodeId, At>,
    before: &[OutlineNode],
    note: Option<&NodeNote>,
) -> OutlineNode {
    let node = plan.graph.node(id);
    let role = match &node.op {
        Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_)) => Role::Base,
        Op::Source(SourceOp::Local(_)) => Role::Local,
        Op::Source(SourceOp::Git(_) | SourceOp::Http(_) | SourceOp::Blob(_)) => Role::Pinned,
        _ => Role::Step,
    };
    let inputs: Vec<OutlineInput> = node
        .inputs
        .iter()
        .zip(views(&node.op, node.inputs.len()))
        .map(|(input, view)| {
            let at = by_id[&input.node];
            let selection = match (before[at].role, view) {
                (Role::Local, View::Whole) => Some(Selection::all()),
                (Role::Local, View::Selected(selection)) => Some(selection),
                // The key has to be the same whether or not the image's layers are here.
                (Role::Base, _) | (_, View::Whole) => None,
                // The layer list says as much, and costs no digest.
                (_, View::Selected(selection)) if selection.is_all() => None,
                (_, View::Selected(selection)) => Some(selection),
            };
            OutlineInput {
                node: at,
                output: input.output,
                selection: selection.map(Arc::new),
            }
        })
        .collect();
    let display = plan.display.get(&id);
    let mut op = Hasher::op();
    write_op(node, &mut op);
    let name = note
        .and_then(|note| note.name.clone())
        .unwrap_or_else(|| StepName {
            text: display
                .map(|display| display.name.clone())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| reference(&node.op)),
            line: display.and_then(|display| Some(display.ranges.first()?.start_line)),
        });
    let reserves = match &node.op {
        Op::Exec(exec) => exec
            .mounts
            .iter()
            .any(|mount| matches!(mount.kind, MountKind::Cache { .. })),
        _ => false,
    };
    OutlineNode {
        id,
        role,
        reserves,
        forced: matches!(role, Role::Step | Role::Pinned)
            && display.is_some_and(|display| display.ignore_cache),
        forced_by: note
            .and_then(|note| note.forced_by.clone())
            .unwrap_or_else(|| "--no-cache".to_owned()),
        above_forced: inputs
            .iter()
            .any(|input| before[input.node].forced || before[input.node].above_forced),
        // With local inputs alone both roads would have the same parts.
        content_road: content_road_open(&node.op)
            && inputs
                .iter()
                .any(|input| before[input.node].role != Role::Local),
        inputs,
        consumers: Vec::new(),
        priority: node.op.weight(),
        op: op.into_op(),
        slot: note.and_then(|note| note.slot.clone()),
        name,
        build_args: note.map(|note| note.build_args.clone()).unwrap_or_default(),
    }
}

/// What was asked for, as people write it.
fn reference(op: &Op) -> String {
    let familiar = |reference: &str| {
        let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    };
    match op {
        Op::Source(SourceOp::Image(image)) => familiar(&image.reference),
        Op::Source(SourceOp::Local(local)) => local.name.clone(),
        Op::Source(SourceOp::Git(GitSource {
            remote, reference, ..
        })) => match reference.as_str() {
            "" => remote.clone(),
            reference => format!("{remote}#{reference}"),
        },
        Op::Source(SourceOp::Http(http)) => http.url.clone(),
        Op::Source(SourceOp::OciLayout(layout)) => layout.reference.clone(),
        Op::Source(SourceOp::Blob(blob)) => familiar(&blob.reference),
        Op::Exec(exec) => exec.meta.args.join(" "),
        Op::File(_) => "file".to_owned(),
        Op::Merge(_) => "merge".to_owned(),
        Op::Diff(_) => "diff".to_owned(),
        Op::Build(_) => "build".to_owned(),
        Op::Passthrough(_) => "passthrough".to_owned(),
    }
}

/// Inputs are counted by `u32` in every op.
pub(crate) fn index(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}
