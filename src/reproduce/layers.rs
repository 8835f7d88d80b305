//! Which steps made the layers of a result.

use std::collections::BTreeMap;

use kiln_ir::{Input, NodeId, Op, Plan};

use crate::event::StepInfo;

/// The steps whose layers lie on top of the base, highest first, for each result by its name; one layer each.
pub(crate) fn layer_steps(plan: &Plan) -> BTreeMap<String, Vec<StepInfo>> {
    let results = plan.results.iter();
    results
        .map(|(name, result)| (name.clone(), of_output(plan, result.output)))
        .collect()
}

fn of_output(plan: &Plan, output: Option<Input>) -> Vec<StepInfo> {
    let mut steps = Vec::new();
    let mut next = output;
    while let Some(output) = next {
        let node = plan.graph.node(output.node);
        next = match &node.op {
            Op::Exec(_) | Op::File(_) => {
                steps.push(info(plan, output.node));
                node.base(output.output)
            }
            Op::Merge(_) => {
                let more = node.inputs.len().saturating_sub(1);
                steps.extend((0..more).map(|_| info(plan, output.node)));
                node.base(output.output)
            }
            _ => None,
        };
    }
    steps
}

fn info(plan: &Plan, node: NodeId) -> StepInfo {
    let display = plan.display.get(&node);
    let display = display.cloned().unwrap_or_default();
    StepInfo {
        stage: display.stage,
        text: display
            .name
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        line: display.ranges.first().map_or(0, |range| range.start_line),
    }
}
