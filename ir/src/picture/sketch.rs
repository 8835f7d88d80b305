//! What every picture of a plan shows, before anybody decides where.

use std::collections::BTreeMap;

use crate::describe::title;
use crate::{Input, NodeId, Op, Plan};

/// A label that is longer is cut.
const LABEL_LIMIT: usize = 60;

/// A plan's ops and results, inputs before consumers.
#[derive(Debug)]
pub(super) struct Sketch {
    pub(super) boxes: Vec<Box>,
    pub(super) arrows: Vec<Arrow>,
}

/// An op or a result.
#[derive(Debug)]
pub(super) struct Box {
    pub(super) kind: Kind,
    /// One line without control characters.
    pub(super) label: String,
    /// The stage it belongs to, or empty.
    pub(super) stage: String,
    /// Part of the heaviest path through the plan.
    pub(super) critical: bool,
}

/// What a box stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Source,
    Exec,
    File,
    Combine,
    Build,
    Result,
}

/// From the box that makes something to one that reads it.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Which output is read.
    pub(super) output: u32,
    pub(super) critical: bool,
}

impl Sketch {
    /// Sketches a valid plan.
    pub(super) fn of(plan: &Plan) -> Self {
        let order = plan.order();
        let numbers: BTreeMap<NodeId, usize> = order
            .iter()
            .enumerate()
            .map(|(number, &id)| (id, number))
            .collect();
        let mut boxes: Vec<Box> = order.iter().map(|&id| op_box(plan, id)).collect();
        let mut arrows = Vec::new();
        let arrow = |input: &Input, to| Arrow {
            from: numbers[&input.node],
            to,
            output: input.output,
            critical: false,
        };
        for (to, &id) in order.iter().enumerate() {
            let inputs = plan.graph.node(id).inputs.iter();
            arrows.extend(inputs.map(|input| arrow(input, to)));
        }
        for (name, entry) in &plan.results {
            let inputs = entry.output.iter().chain(entry.attestations.values());
            arrows.extend(inputs.map(|input| arrow(input, boxes.len())));
            boxes.push(Box {
                kind: Kind::Result,
                label: if name.is_empty() { "result" } else { name }.to_owned(),
                stage: String::new(),
                critical: false,
            });
        }
        let mut sketch = Self { boxes, arrows };
        let path = critical_path(plan, &order, &numbers);
        for &number in &path {
            sketch.boxes[number].critical = true;
        }
        for arrow in &mut sketch.arrows {
            arrow.critical = path
                .windows(2)
                .any(|pair| pair == [arrow.from, arrow.to].as_slice());
        }
        sketch
    }

    /// The boxes of each stage, by number.
    pub(super) fn stages(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut stages: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, drawn) in self.boxes.iter().enumerate() {
            stages.entry(&drawn.stage).or_default().push(number);
        }
        stages
    }
}

/// Returns the heaviest path, from its source on; of equal ones that which the plan names first.
fn critical_path(plan: &Plan, order: &[NodeId], numbers: &BTreeMap<NodeId, usize>) -> Vec<usize> {
    let weight = |id| plan.graph.node(id).op.weight();
    let remaining = plan.graph.critical_path(weight);
    let heaviest = |candidates: &mut dyn Iterator<Item = NodeId>| {
        candidates
            .filter(|id| numbers.contains_key(id))
            .max_by_key(|id| (remaining[id], std::cmp::Reverse(numbers[id])))
    };
    let mut path = Vec::new();
    let mut next = heaviest(&mut order.iter().copied());
    while let Some(id) = next {
        path.push(numbers[&id]);
        next = heaviest(&mut plan.graph.consumers(id).into_iter());
    }
    path
}

fn op_box(plan: &Plan, id: NodeId) -> Box {
    let text = title(plan, id);
    let label = match text.char_indices().nth(LABEL_LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    let stage = plan.display.get(&id).map_or("", |display| &display.stage);
    Box {
        kind: kind(&plan.graph.node(id).op),
        label,
        stage: stage.to_owned(),
        critical: false,
    }
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Source(_) => Kind::Source,
        Op::Exec(_) => Kind::Exec,
        Op::File(_) => Kind::File,
        Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => Kind::Combine,
        Op::Build(_) => Kind::Build,
    }
}
