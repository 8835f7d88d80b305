//! One of the two plans, by positions in its order.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{OpAround, OpName};
use crate::describe::title;
use crate::op::*;
use crate::{Input, Node, NodeId, Plan};

/// A plan whose nodes are known by their place in [`Plan::order`], which is their number as text.
#[derive(Debug)]
pub(super) struct Side<'a> {
    plan: &'a Plan,
    order: Vec<NodeId>,
    positions: BTreeMap<NodeId, usize>,
    /// Who reads each node, ascending.
    readers: Vec<Vec<usize>>,
    /// Which results each node is, with the number of the output.
    results: Vec<Vec<&'a str>>,
}

impl<'a> Side<'a> {
    pub(super) fn of(plan: &'a Plan) -> Side<'a> {
        let order = plan.order();
        let positions: BTreeMap<NodeId, usize> = order
            .iter()
            .enumerate()
            .map(|(position, &id)| (id, position))
            .collect();
        let mut readers = vec![Vec::new(); order.len()];
        for (reader, &id) in order.iter().enumerate() {
            for input in &plan.graph.node(id).inputs {
                let read: &mut Vec<usize> = &mut readers[positions[&input.node]];
                if read.last() != Some(&reader) {
                    read.push(reader);
                }
            }
        }
        let mut results = vec![Vec::new(); order.len()];
        for (name, entry) in &plan.results {
            if let Some(output) = entry.output {
                results[positions[&output.node]].push(name.as_str());
            }
        }
        Side {
            plan,
            order,
            positions,
            readers,
            results,
        }
    }

    pub(super) fn plan(&self) -> &'a Plan {
        self.plan
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn node_id(&self, position: usize) -> NodeId {
        self.order[position]
    }

    pub(super) fn node(&self, position: usize) -> &'a Node {
        self.plan.graph.node(self.order[position])
    }

    pub(super) fn position(&self, node: NodeId) -> usize {
        self.positions[&node]
    }

    pub(super) fn readers(&self, position: usize) -> &[usize] {
        &self.readers[position]
    }

    pub(super) fn results(&self, position: usize) -> &[&'a str] {
        &self.results[position]
    }

    pub(super) fn stage(&self, position: usize) -> &'a str {
        let display = self.plan.display.get(&self.order[position]);
        display.map_or("", |display| &display.stage)
    }

    /// The name that the front end gave it, or empty.
    pub(super) fn given_name(&self, position: usize) -> &'a str {
        let display = self.plan.display.get(&self.order[position]);
        display.map_or("", |display| &display.name)
    }

    pub(super) fn name(&self, position: usize) -> OpName {
        let node = self.order[position];
        OpName {
            node,
            number: position,
            kind: self.node(position).op.kind(),
            name: title(self.plan, node),
            stage: self.stage(position).to_owned(),
        }
    }

    pub(super) fn around(&self, position: usize) -> OpAround {
        let mut reads = Vec::new();
        for input in &self.node(position).inputs {
            let read = self.positions[&input.node];
            if !reads.contains(&read) {
                reads.push(read);
            }
        }
        OpAround {
            op: self.name(position),
            reads: reads.into_iter().map(|read| self.name(read)).collect(),
            read_by: self.readers[position]
                .iter()
                .map(|&reader| self.name(reader))
                .collect(),
            results: self.results[position]
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
        }
    }

    /// An input as comparisons write it: which output of which op.
    pub(super) fn reference(&self, input: Option<Input>) -> Value {
        match input {
            None => "scratch".into(),
            Some(Input { node, output }) => json!({
                "op": self.positions[&node],
                "output": output,
                "name": title(self.plan, node),
            }),
        }
    }

    pub(super) fn references(&self, inputs: &[Input]) -> Value {
        let inputs = inputs.iter();
        inputs.map(|input| self.reference(Some(*input))).collect()
    }

    /// Goes down from an input through what ops that `passes` accepts build upon.
    pub(super) fn below(
        &self,
        mut input: Option<Input>,
        passes: impl Fn(usize) -> bool,
    ) -> Option<Input> {
        while let Some(at) = input {
            if !passes(self.positions[&at.node]) {
                break;
            }
            match root(self.plan.graph.node(at.node), at.output) {
                Some(below) => input = below,
                None => break,
            }
        }
        input
    }
}

/// What the output builds upon; none where it builds upon nothing in particular.
fn root(node: &Node, output: u32) -> Option<Option<Input>> {
    let at = |index: Option<u32>| index.and_then(|index| node.inputs.get(index as usize).copied());
    match &node.op {
        Op::Exec(op) => {
            let mount = op.mounts.iter().find(|mount| mount.target == "/")?;
            (mount.output == Some(output)).then(|| at(mount.input))
        }
        Op::File(op) => {
            let mut number = op
                .actions
                .iter()
                .position(|action| action.output == Some(output))?;
            // An action reads earlier ones only.
            loop {
                match op.actions[number].input {
                    ActionInput::Scratch => return Some(None),
                    ActionInput::Input(index) => return Some(at(Some(index))),
                    ActionInput::Action(earlier) => number = earlier as usize,
                }
            }
        }
        _ => None,
    }
}
