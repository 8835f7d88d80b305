//! Ops in a few words, for where a front end gave them no name.

use crate::op::*;
use crate::{Node, NodeId, Plan};

/// Says what a node does, in one line that may hold control characters.
pub(crate) fn describe(node: &Node) -> String {
    let kind = node.op.kind();
    match &node.op {
        Op::Source(source) => {
            let name = source_name(source);
            match &node.platform {
                Some(platform) => format!("{kind} {name} {platform}"),
                None => format!("{kind} {name}"),
            }
        }
        Op::Exec(op) => format!("{kind} {}", op.meta.args.join(" ")),
        Op::File(op) => op
            .actions
            .iter()
            .map(|action| describe_action(&action.kind))
            .collect::<Vec<_>>()
            .join("; "),
        Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => kind.to_owned(),
    }
}

/// What a source is the source of.
pub(crate) fn source_name(source: &SourceOp) -> &str {
    match source {
        SourceOp::Image(op) => &op.reference,
        SourceOp::Local(op) => &op.name,
        SourceOp::Git(op) => &op.remote,
        SourceOp::Http(op) => &op.url,
        SourceOp::OciLayout(op) => &op.reference,
        SourceOp::Blob(op) => &op.reference,
    }
}

/// What people call a node: its name or else what it does, in one line.
pub(crate) fn title(plan: &Plan, id: NodeId) -> String {
    let name = plan.display.get(&id).map_or("", |display| &display.name);
    let text = match name {
        "" => describe(plan.graph.node(id)),
        name => name.to_owned(),
    };
    text.chars()
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}

impl Plan {
    /// Returns what people call a node: the name it was given, or else what it does, in one line.
    pub fn title(&self, node: NodeId) -> String {
        title(self, node)
    }
}

fn describe_action(action: &FileActionKind) -> String {
    let kind = action.name();
    match action {
        FileActionKind::Copy(op) => format!("{kind} {} -> {}", op.src, op.dest),
        FileActionKind::Mkfile(op) => format!("{kind} {}", op.path),
        FileActionKind::Mkdir(op) => format!("{kind} {}", op.path),
        FileActionKind::Rm(op) => format!("{kind} {}", op.path),
        FileActionKind::Symlink(op) => format!("{kind} {} -> {}", op.path, op.target),
    }
}
