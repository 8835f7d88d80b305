//! A plan as a graph in the language of Graphviz, for people who would rather look.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::op::*;
use crate::{Node, NodeId, Plan};

/// A label that is longer is cut.
const LABEL_LIMIT: usize = 60;

/// Writes a valid plan as a `digraph`; nodes of a stage stand in a cluster.
pub fn to_dot(plan: &Plan) -> String {
    let order = plan.order();
    let numbers: BTreeMap<NodeId, usize> = order
        .iter()
        .enumerate()
        .map(|(number, &id)| (id, number))
        .collect();
    let mut stages: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for &id in &order {
        let stage = plan
            .display
            .get(&id)
            .map_or("", |display| display.stage.as_str());
        stages.entry(stage).or_default().push(id);
    }
    let mut dot =
        String::from("digraph plan {\n  rankdir=BT\n  node [shape=box, fontname=\"sans-serif\"]\n");
    for (cluster, (stage, ids)) in stages.into_iter().enumerate() {
        let indent = if stage.is_empty() { "  " } else { "    " };
        if !stage.is_empty() {
            let _ = writeln!(
                dot,
                "  subgraph cluster_{cluster} {{\n    label={}",
                quote(stage)
            );
        }
        for id in ids {
            let (label, shape) = (label(plan, id), shape(&plan.graph.node(id).op));
            let _ = writeln!(
                dot,
                "{indent}n{} [label={}, shape={shape}]",
                numbers[&id],
                quote(&label)
            );
        }
        if !stage.is_empty() {
            dot.push_str("  }\n");
        }
    }
    for &id in &order {
        for input in &plan.graph.node(id).inputs {
            let _ = write!(dot, "  n{} -> n{}", numbers[&input.node], numbers[&id]);
            if input.output != 0 {
                let _ = write!(dot, " [taillabel=\"{}\"]", input.output);
            }
            dot.push('\n');
        }
    }
    for (number, (name, entry)) in plan.results.iter().enumerate() {
        let label = if name.is_empty() { "result" } else { name };
        let _ = writeln!(
            dot,
            "  r{number} [label={}, shape=doubleoctagon]",
            quote(label)
        );
        for input in entry.output.iter().chain(entry.attestations.values()) {
            let _ = writeln!(dot, "  n{} -> r{number}", numbers[&input.node]);
        }
    }
    dot.push_str("}\n");
    dot
}

fn shape(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "cylinder",
        Op::Exec(_) => "box",
        Op::File(_) => "note",
        Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => "hexagon",
        Op::Build(_) => "component",
    }
}

fn label(plan: &Plan, id: NodeId) -> String {
    let name = plan
        .display
        .get(&id)
        .map_or("", |display| display.name.as_str());
    let text = if name.is_empty() {
        describe(plan.graph.node(id))
    } else {
        name.to_owned()
    };
    let text: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    match text.char_indices().nth(LABEL_LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn describe(node: &Node) -> String {
    let kind = node.op.kind();
    match &node.op {
        Op::Source(source) => {
            let name = match source {
                SourceOp::Image(op) => &op.reference,
                SourceOp::Local(op) => &op.name,
                SourceOp::Git(op) => &op.remote,
                SourceOp::Http(op) => &op.url,
                SourceOp::OciLayout(op) => &op.reference,
                SourceOp::Blob(op) => &op.reference,
            };
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

/// Graphviz knows `\"`, and gives `\n`, `\N` and others a meaning of their own.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
