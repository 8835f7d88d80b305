//! Nodes that name each other, in any order, made into a graph.

use std::collections::BTreeMap;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;

use crate::{Graph, GraphError, Input, Node, NodeId, Op, Platform};

/// A node whose inputs are names.
#[derive(Debug)]
pub(crate) struct NamedNode {
    pub(crate) name: String,
    pub(crate) op: Op,
    pub(crate) inputs: Vec<(String, u32)>,
    pub(crate) platform: Option<Platform>,
}

/// A document's node that is at fault, and perhaps the input of it.
#[derive(Debug)]
pub(crate) struct LinkError {
    pub(crate) node: usize,
    pub(crate) input: Option<usize>,
    pub(crate) error: GraphError,
}

/// Adds all nodes to a new graph, inputs first; returns what each name means.
pub(crate) fn link(nodes: Vec<NamedNode>) -> Result<(Graph, BTreeMap<String, NodeId>), LinkError> {
    let mut positions = BTreeMap::new();
    for (position, node) in nodes.iter().enumerate() {
        if positions.insert(node.name.clone(), position).is_some() {
            let error = GraphError::DuplicateNode {
                node: node.name.clone(),
            };
            return Err(LinkError {
                node: position,
                input: None,
                error,
            });
        }
    }
    let order = order(&nodes, &positions)?;
    let mut graph = Graph::new();
    let mut ids: BTreeMap<String, NodeId> = BTreeMap::new();
    let mut nodes: Vec<Option<NamedNode>> = nodes.into_iter().map(Some).collect();
    for position in order {
        let Some(node) = nodes[position].take() else {
            continue;
        };
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (index, (name, output)) in node.inputs.iter().enumerate() {
            let input = Input {
                node: ids[name],
                output: *output,
            };
            // Said here, where the name is the document's.
            if !graph.has_output(input) {
                let error = GraphError::NoSuchOutput {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    node: name.clone(),
                    output: *output,
                    available: graph.outputs(input.node).to_vec(),
                };
                return Err(LinkError {
                    node: position,
                    input: Some(index),
                    error,
                });
            }
            inputs.push(input);
        }
        let added = graph.add(Node {
            op: node.op,
            inputs,
            platform: node.platform,
        });
        let id = added.map_err(|error| LinkError {
            node: position,
            input: None,
            error,
        })?;
        ids.insert(node.name, id);
    }
    Ok((graph, ids))
}

/// Returns positions, inputs first, or who is in a cycle.
fn order(
    nodes: &[NamedNode],
    positions: &BTreeMap<String, usize>,
) -> Result<Vec<usize>, LinkError> {
    let mut edges = DiGraph::<(), ()>::with_capacity(nodes.len(), nodes.len());
    let indices: Vec<_> = nodes.iter().map(|_| edges.add_node(())).collect();
    for (position, node) in nodes.iter().enumerate() {
        for (index, (name, _)) in node.inputs.iter().enumerate() {
            let Some(&input) = positions.get(name) else {
                let error = GraphError::DanglingInput {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    node: name.clone(),
                };
                return Err(LinkError {
                    node: position,
                    input: Some(index),
                    error,
                });
            };
            if input == position {
                let error = GraphError::Cycle {
                    nodes: vec![name.clone()],
                };
                return Err(LinkError {
                    node: position,
                    input: Some(index),
                    error,
                });
            }
            edges.add_edge(indices[input], indices[position], ());
        }
    }
    // Components come in reverse order: consumers first.
    let components = kosaraju_scc(&edges);
    if let Some(cycle) = components.iter().find(|component| component.len() > 1) {
        let mut members: Vec<usize> = cycle.iter().map(|index| index.index()).collect();
        members.sort_unstable();
        let names = members
            .iter()
            .map(|&member| nodes[member].name.clone())
            .collect();
        let error = GraphError::Cycle { nodes: names };
        return Err(LinkError {
            node: members[0],
            input: None,
            error,
        });
    }
    Ok(components
        .into_iter()
        .rev()
        .flatten()
        .map(|index| index.index())
        .collect())
}
