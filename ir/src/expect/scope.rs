//! Which steps an assertion is about.

use std::collections::BTreeSet;

use super::assertion::Scope;
use crate::{ActionInput, Input, Node, NodeId, Op, Plan};

/// The stage whose steps the results are built up with.
const FINAL: &str = "final";

/// Returns the nodes of a scope in the order of the plan, or says why there is no such scope.
pub(super) fn nodes(plan: &Plan, scope: &Scope) -> Result<Vec<NodeId>, String> {
    let order = plan.order();
    let wanted = match scope {
        Scope::All => return Ok(order),
        Scope::In(stage) => members(plan, stage)?,
        Scope::After(stage) => {
            let members = members(plan, stage)?;
            let mut after = BTreeSet::new();
            // Inputs come before their readers.
            for &node in &order {
                let inputs = &plan.graph.node(node).inputs;
                let needs = inputs
                    .iter()
                    .any(|input| members.contains(&input.node) || after.contains(&input.node));
                if needs && !members.contains(&node) {
                    after.insert(node);
                }
            }
            after
        }
    };
    Ok(order
        .into_iter()
        .filter(|node| wanted.contains(node))
        .collect())
}

fn members(plan: &Plan, stage: &str) -> Result<BTreeSet<NodeId>, String> {
    let stage_of = |node: &NodeId| {
        plan.display
            .get(node)
            .map_or("", |said| said.stage.as_str())
    };
    let named = |name: &str| -> BTreeSet<NodeId> {
        let nodes = plan.graph.ids().filter(|node| stage_of(node) == name);
        nodes.collect()
    };
    let found = named(stage);
    if !found.is_empty() || stage != FINAL {
        let mut stages: Vec<&str> = plan.order().iter().map(stage_of).collect();
        let mut seen = BTreeSet::new();
        stages.retain(|name| !name.is_empty() && seen.insert(*name));
        return match (found.is_empty(), stages.as_slice()) {
            (false, _) => Ok(found),
            (true, []) => Err(format!("there is no stage `{stage}`: the plan names none")),
            (true, stages) => Err(format!(
                "there is no stage `{stage}`: there are `{}`",
                stages.join("`, `")
            )),
        };
    }
    let mut members = BTreeSet::new();
    for output in plan.results.values().filter_map(|entry| entry.output) {
        match stage_of(&output.node) {
            "" => members.extend(chain(plan, output)),
            name => members.extend(named(name)),
        }
    }
    Ok(members)
}

/// Returns what a tree is built up with: itself, what it changes, and so on down.
pub(super) fn chain(plan: &Plan, output: Input) -> Vec<NodeId> {
    let (mut chain, mut next) = (Vec::new(), Some(output));
    while let Some(at) = next {
        chain.push(at.node);
        next = below(plan.graph.node(at.node), at.output);
    }
    chain
}

/// The input that an output is a change of; none where there is no single one.
pub(super) fn below(node: &Node, output: u32) -> Option<Input> {
    let at = |index: u32| node.inputs.get(index as usize).copied();
    match &node.op {
        Op::Exec(op) => {
            let mount = op
                .mounts
                .iter()
                .find(|mount| mount.output == Some(output))?;
            at(mount.input?)
        }
        Op::File(op) => {
            let made = |action: &&crate::FileAction| action.output == Some(output);
            let mut action = op.actions.iter().find(made)?;
            // An action reads earlier ones only.
            loop {
                match action.input {
                    ActionInput::Scratch => return None,
                    ActionInput::Input(index) => return at(index),
                    ActionInput::Action(earlier) => action = op.actions.get(earlier as usize)?,
                }
            }
        }
        Op::Passthrough(op) => at(*op.outputs.get(output as usize)?),
        _ => None,
    }
}
