//! A plan as an SVG document that needs nothing but a browser, light or dark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::layout::{Cell, Layout};
use super::sketch::{Arrow, Box, Kind, Sketch};
use crate::{NodeId, Plan};

// All in pixels.
const BOX_WIDTH: usize = 250;
const BOX_HEIGHT: usize = 46;
const COLUMN_GAP: usize = 56;
const ROW_GAP: usize = 50;
const MARGIN: usize = 30;
/// The line above the picture that says what it is.
const HEADER: usize = 40;
/// How far a stage's frame stands off its boxes, with its name above them.
const FRAME_TOP: usize = 24;
const FRAME_SIDE: usize = 8;
/// Characters of a label's line; one is about 7 pixels wide.
const LINE: usize = 31;
/// Arrows that would run in the same place run beside each other.
const LANES: usize = 6;

const STYLE: &str = "\
svg{background:#fff;color:#1c1e21;font:12px ui-monospace,Menlo,Consolas,monospace}\
text{fill:currentColor}.f{fill:#f4f5f7;stroke:#c9ced6}.n{fill:#667085}\
.b{fill:#fff;stroke:#8a94a6}.source{fill:#e8f0fe}.exec{fill:#fff4e0}.file{fill:#eaf7ea}\
.combine,.build{fill:#f3e8fd}.result{fill:#1c1e21}.result+text{fill:#fff}\
.a{fill:none;stroke:#9aa3b2}.h{fill:#9aa3b2}.c{stroke:#d92d20;stroke-width:2.5}.k{fill:#d92d20}\
@media(prefers-color-scheme:dark){svg{background:#16181c;color:#e6e8eb}.f{fill:#1e2127;stroke:#3a404a}\
.n{fill:#98a2b3}.b{fill:#23262d;stroke:#6b7485}.source{fill:#1d2b45}.exec{fill:#3d2f14}.file{fill:#1c3423}\
.combine,.build{fill:#33234a}.result{fill:#e6e8eb}.result+text{fill:#16181c}.a{stroke:#6b7485}\
.h{fill:#6b7485}.c{stroke:#f97066}.k{fill:#f97066}}";

/// What a picture says of an op beyond the plan, such as what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// A class of the box's group, for a style around the picture; a plain word.
    pub class: &'static str,
    /// Where a click on the box leads; empty is nowhere.
    pub link: String,
    /// Stands in the tooltip below the label.
    pub note: String,
    /// Whether it is on the critical path, which is then not the plan's own estimate.
    pub critical: bool,
}

/// Draws a valid plan: stages in frames, inputs above what reads them, the critical path marked.
pub fn to_svg(plan: &Plan) -> String {
    draw(&Sketch::of(plan), &[])
}

/// Draws a valid plan, and says more of some of its ops.
pub fn to_marked_svg(plan: &Plan, marks: &BTreeMap<NodeId, Mark>) -> String {
    let mut sketch = Sketch::of(plan);
    // The boxes of ops come first, in the plan's order.
    let marks: Vec<Option<&Mark>> = plan.order().iter().map(|id| marks.get(id)).collect();
    let is_critical = |number: usize| {
        let mark = marks.get(number).copied().flatten();
        mark.is_some_and(|mark| mark.critical)
    };
    for (number, drawn) in sketch.boxes.iter_mut().enumerate() {
        drawn.critical = is_critical(number);
    }
    for arrow in &mut sketch.arrows {
        arrow.critical = is_critical(arrow.from) && is_critical(arrow.to);
    }
    draw(&sketch, &marks)
}

/// `marks[i]` is that of box `i`, where there is one.
fn draw(sketch: &Sketch, marks: &[Option<&Mark>]) -> String {
    let layout = Layout::of(sketch);
    let width = 2 * MARGIN + layout.columns.max(1) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP;
    // Arrows run beside the last column, too.
    let width = width.max(2 * MARGIN + 460) + COLUMN_GAP / 2;
    let height = HEADER + MARGIN + FRAME_TOP + layout.rows * (BOX_HEIGHT + ROW_GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{STYLE}</style>\n<defs>"
    );
    for (id, class) in [("head", "h"), ("critical-head", "k")] {
        let _ = write!(
            svg,
            "<marker id=\"{id}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
             markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
             <path class=\"{class}\" d=\"M0 0L8 4L0 8z\"/></marker>"
        );
    }
    svg.push_str("</defs>\n");
    let _ = writeln!(
        svg,
        "<text class=\"n\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
        MARGIN,
        escaped(&summary(sketch, &layout))
    );
    for frame in &layout.frames {
        let (x, y) = corner(Cell {
            column: frame.column,
            row: frame.first_row,
        });
        let rows = frame.last_row - frame.first_row;
        let _ = writeln!(
            svg,
            "<rect class=\"f\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\"/>\
             <text class=\"n\" x=\"{x}\" y=\"{}\">{}</text>",
            x - FRAME_SIDE,
            y - FRAME_TOP,
            BOX_WIDTH + 2 * FRAME_SIDE,
            rows * (BOX_HEIGHT + ROW_GAP) + BOX_HEIGHT + FRAME_TOP + FRAME_SIDE,
            y - FRAME_TOP + 16,
            escaped(&shortened(&frame.stage, LINE))
        );
    }
    // What is critical is drawn over the rest.
    for critical in [false, true] {
        let arrows = sketch.arrows.iter().enumerate();
        for (number, arrow) in arrows.filter(|(_, arrow)| arrow.critical == critical) {
            draw_arrow(&mut svg, arrow, number % LANES, &layout);
        }
    }
    for (number, (drawn, &cell)) in sketch.boxes.iter().zip(&layout.cells).enumerate() {
        draw_box(&mut svg, drawn, cell, marks.get(number).copied().flatten());
    }
    svg.push_str("</svg>\n");
    svg
}

fn summary(sketch: &Sketch, layout: &Layout) -> String {
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let ops = sketch
        .boxes
        .iter()
        .filter(|drawn| drawn.kind != Kind::Result);
    let critical = sketch.boxes.iter().filter(|drawn| drawn.critical).count();
    let stages: std::collections::BTreeSet<&str> = layout
        .frames
        .iter()
        .map(|frame| frame.stage.as_str())
        .collect();
    format!(
        "{} in {} · critical path: {}",
        count(ops.count(), "op"),
        count(stages.len(), "stage"),
        count(critical, "op")
    )
}

/// Returns the upper left corner of the box in a cell.
fn corner(cell: Cell) -> (usize, usize) {
    (
        MARGIN + cell.column * (BOX_WIDTH + COLUMN_GAP),
        HEADER + FRAME_TOP + cell.row * (BOX_HEIGHT + ROW_GAP),
    )
}

fn draw_box(svg: &mut String, drawn: &Box, cell: Cell, mark: Option<&Mark>) {
    let (x, y) = corner(cell);
    let class = match drawn.kind {
        Kind::Source => "source",
        Kind::Exec => "exec",
        Kind::File => "file",
        Kind::Combine => "combine",
        Kind::Build => "build",
        Kind::Result => "result",
    };
    let critical = if drawn.critical { " c" } else { "" };
    let rounded = match drawn.kind {
        Kind::Source | Kind::Result => BOX_HEIGHT / 2,
        _ => 4,
    };
    let link = mark.map_or("", |mark| mark.link.as_str());
    if !link.is_empty() {
        let _ = write!(svg, "<a href=\"{}\">", quoted(link));
    }
    match mark {
        Some(mark) => {
            let _ = write!(svg, "<g class=\"{}\">", mark.class);
        }
        None => svg.push_str("<g>"),
    }
    let note = match mark {
        Some(mark) if !mark.note.is_empty() => format!("\n{}", escaped(&mark.note)),
        _ => String::new(),
    };
    let _ = write!(
        svg,
        "<title>{}{note}</title><rect class=\"b {class}{critical}\" x=\"{x}\" y=\"{y}\" \
         width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"{rounded}\"/>",
        escaped(&drawn.label)
    );
    let lines = wrapped(&drawn.label);
    let first = match lines.len() {
        1 => y + BOX_HEIGHT / 2 + 4,
        _ => y + BOX_HEIGHT / 2 - 4,
    };
    let _ = write!(svg, "<text>");
    for (number, line) in lines.iter().enumerate() {
        let _ = write!(
            svg,
            "<tspan x=\"{}\" y=\"{}\">{}</tspan>",
            x + 12,
            first + number * 16,
            escaped(line)
        );
    }
    svg.push_str("</text></g>");
    if !link.is_empty() {
        svg.push_str("</a>");
    }
    svg.push('\n');
}

/// A text for an attribute in double quotes.
fn quoted(text: &str) -> String {
    escaped(text).replace('"', "&quot;")
}

/// Arrows run in the gaps between rows and columns, never through a box.
fn draw_arrow(svg: &mut String, arrow: &Arrow, lane: usize, layout: &Layout) {
    let (from, to) = (layout.cells[arrow.from], layout.cells[arrow.to]);
    let ((from_x, from_y), (to_x, to_y)) = (corner(from), corner(to));
    let middle = BOX_WIDTH / 2;
    let (start_x, start_y) = (from_x + middle, from_y + BOX_HEIGHT);
    let aside = (lane * 8) as i64 - (LANES * 4) as i64;
    let straight = from.column == to.column && from.row + 1 == to.row;
    let end_x = match straight {
        true => (to_x + middle) as i64,
        false => (to_x + middle) as i64 + aside,
    };
    let turn = to_y - FRAME_TOP - 2 - lane;
    let mut path = format!("M{start_x} {start_y}");
    if straight {
        // One line down.
    } else if from.row + 1 == to.row {
        let _ = write!(path, "V{turn}H{end_x}");
    } else {
        let beside = match to.column > from.column {
            true => to_x - COLUMN_GAP / 2,
            false => to_x + BOX_WIDTH + COLUMN_GAP / 2,
        };
        let beside = beside as i64 + aside / 2;
        let leave = start_y + FRAME_SIDE + 3 + lane;
        let _ = write!(path, "V{leave}H{beside}V{turn}H{end_x}");
    }
    let _ = write!(path, "V{to_y}");
    let (class, head) = match arrow.critical {
        true => ("a c", "critical-head"),
        false => ("a", "head"),
    };
    let _ = writeln!(
        svg,
        "<path class=\"{class}\" d=\"{path}\" stroke-linejoin=\"round\" marker-end=\"url(#{head})\"/>"
    );
}

/// Breaks a label into at most two lines, at a blank where there is one.
fn wrapped(label: &str) -> Vec<String> {
    if width(label) <= LINE {
        return vec![label.to_owned()];
    }
    let fitting = shortened_at(label, LINE);
    let end = match label[..fitting].rfind(' ') {
        Some(blank) if blank > LINE / 2 => blank,
        _ => fitting,
    };
    vec![
        label[..end].to_owned(),
        shortened(label[end..].trim_start(), LINE),
    ]
}

fn shortened(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    format!("{}…", &text[..shortened_at(text, limit - 1)])
}

/// Returns the byte up to which `text` fits into `limit` columns.
fn shortened_at(text: &str, limit: usize) -> usize {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += character_width(character);
        if used > limit {
            return at;
        }
    }
    text.len()
}

fn width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

/// Scripts from Hangul on may be wide; too much room does no harm.
fn character_width(character: char) -> usize {
    if u32::from(character) < 0x1100 || character == '…' {
        1
    } else {
        2
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML has no place for these, however they are written.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}
