//! A plan as a Mermaid flowchart, which forges show in Markdown.

use std::fmt::Write as _;

use super::sketch::{Box, Kind, Sketch};
use crate::Plan;

/// Writes a valid plan as a `flowchart`; ops of a stage stand in a subgraph.
pub fn to_mermaid(plan: &Plan) -> String {
    let sketch = Sketch::of(plan);
    let mut text = String::from("flowchart TB\n");
    for (group, (stage, numbers)) in sketch.stages().into_iter().enumerate() {
        if !stage.is_empty() {
            let _ = writeln!(text, "  subgraph s{group} [\"{}\"]", escaped(stage));
        }
        for number in numbers {
            let indent = if stage.is_empty() { "" } else { "  " };
            let _ = writeln!(text, "  {indent}n{number}{}", shape(&sketch.boxes[number]));
        }
        if !stage.is_empty() {
            text.push_str("  end\n");
        }
    }
    for arrow in &sketch.arrows {
        let line = if arrow.critical { "==>" } else { "-->" };
        let label = match arrow.output {
            0 => String::new(),
            output => format!("|\"{output}\"|"),
        };
        let _ = writeln!(text, "  n{} {line}{label} n{}", arrow.from, arrow.to);
    }
    let critical = sketch.boxes.iter().enumerate();
    let critical: Vec<String> = critical
        .filter(|(_, drawn)| drawn.critical)
        .map(|(number, _)| format!("n{number}"))
        .collect();
    if !critical.is_empty() {
        text.push_str("  classDef critical stroke-width:3px\n");
        let _ = writeln!(text, "  class {} critical", critical.join(","));
    }
    text
}

fn shape(drawn: &Box) -> String {
    let label = escaped(&drawn.label);
    match drawn.kind {
        Kind::Source => format!("[(\"{label}\")]"),
        Kind::Exec => format!("[\"{label}\"]"),
        Kind::File => format!("[/\"{label}\"/]"),
        Kind::Combine => format!("{{{{\"{label}\"}}}}"),
        Kind::Build => format!("[[\"{label}\"]]"),
        Kind::Result => format!("([\"{label}\"])"),
    }
}

/// Mermaid reads entities by number; all else in quotes may be HTML, Markdown or an entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '#' | '&' | '<' | '>' | '`' | '*' | '_' | '\\' | ';' => {
                let _ = write!(escaped, "#{};", u32::from(character));
            }
            character => escaped.push(character),
        }
    }
    escaped
}
