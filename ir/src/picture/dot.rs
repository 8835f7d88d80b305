//! A plan in the language of Graphviz.

use std::fmt::Write as _;

use super::sketch::{Kind, Sketch};
use crate::Plan;

/// Writes a valid plan as a `digraph`; ops of a stage stand in a cluster.
pub fn to_dot(plan: &Plan) -> String {
    let sketch = Sketch::of(plan);
    let mut dot =
        String::from("digraph plan {\n  rankdir=BT\n  node [shape=box, fontname=\"sans-serif\"]\n");
    for (cluster, (stage, numbers)) in sketch.stages().into_iter().enumerate() {
        let indent = if stage.is_empty() { "  " } else { "    " };
        if !stage.is_empty() {
            let _ = writeln!(
                dot,
                "  subgraph cluster_{cluster} {{\n    label={}",
                quote(stage)
            );
        }
        for number in numbers {
            let drawn = &sketch.boxes[number];
            let (label, shape) = (quote(&drawn.label), shape(drawn.kind));
            let critical = if drawn.critical { ", penwidth=3" } else { "" };
            let _ = writeln!(
                dot,
                "{indent}n{number} [label={label}, shape={shape}{critical}]"
            );
        }
        if !stage.is_empty() {
            dot.push_str("  }\n");
        }
    }
    for arrow in &sketch.arrows {
        let mut attributes = Vec::new();
        if arrow.output != 0 {
            attributes.push(format!("taillabel=\"{}\"", arrow.output));
        }
        if arrow.critical {
            attributes.push("penwidth=3".to_owned());
        }
        let _ = write!(dot, "  n{} -> n{}", arrow.from, arrow.to);
        if !attributes.is_empty() {
            let _ = write!(dot, " [{}]", attributes.join(", "));
        }
        dot.push('\n');
    }
    dot.push_str("}\n");
    dot
}

fn shape(kind: Kind) -> &'static str {
    match kind {
        Kind::Source => "cylinder",
        Kind::Exec => "box",
        Kind::File => "note",
        Kind::Combine => "hexagon",
        Kind::Build => "component",
        Kind::Result => "doubleoctagon",
    }
}

/// Graphviz knows `\"`, and gives `\n`, `\N` and others a meaning of their own.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
