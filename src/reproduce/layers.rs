//! Which steps made the layers of a result.

use std::collections::BTreeMap;

use kiln_ir::{ActionInput, Input, Node, NodeId, Op, Plan};

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
                base(node, output.output)
            }
            Op::Merge(_) => {
                let more = node.inputs.len().saturating_sub(1);
                steps.extend((0..more).map(|_| info(plan, output.node)));
                node.inputs.first().copied()
            }
            _ => None,
        };
    }
    steps
}

/// What an output lies on.
fn base(node: &Node, output: u32) -> Option<Input> {
    let index = match &node.op {
        Op::Exec(op) => op.mounts.iter().find(|mount| mount.target == "/")?.input?,
        Op::File(op) => {
            let action = |index: u32| op.actions.get(usize::try_from(index).ok()?);
            let mut last = op
                .actions
                .iter()
                .find(|action| action.output == Some(output))?;
            // An action comes after those that it works on, so this ends.
            loop {
                match last.input {
                    ActionInput::Scratch => return None,
                    ActionInput::Input(index) => break index,
                    ActionInput::Action(index) => last = action(index)?,
                }
            }
        }
        _ => return None,
    };
    node.inputs.get(usize::try_from(index).ok()?).copied()
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
