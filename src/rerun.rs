//! What a build would run again after its plan changed.

use std::collections::BTreeSet;

use kiln_ir::{NodeId, Op, Plan};
use kiln_solver::foreseen_keys;
use serde::Serialize;

/// What of one result would run again, as far as plans tell: with the same files, and images and
/// repositories that still are what they are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rerun {
    /// The result's name.
    pub result: String,
    /// How many steps it needs; sources are none.
    pub steps: usize,
    /// Those whose definition keys no step of the old plan has, in the order of the new plan.
    pub again: Vec<RerunStep>,
}

/// A step that would run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RerunStep {
    /// Its number in the text form of the new plan.
    pub number: usize,
    /// What it is called.
    pub name: String,
}

/// Says what of a new plan would run again after the old one was built.
pub fn reruns(old: &Plan, new: &Plan) -> Vec<Rerun> {
    let known: BTreeSet<_> = foreseen_keys(old).into_values().collect();
    let keys = foreseen_keys(new);
    let order = new.order();
    let is_step = |node: &NodeId| !matches!(new.graph.node(*node).op, Op::Source(_));
    let results = new.results.iter().map(|(name, entry)| {
        let inputs = entry.output.iter().chain(entry.attestations.values());
        let needed = new.graph.reachable(inputs.map(|input| input.node));
        let steps = || {
            let numbered = order.iter().enumerate();
            numbered.filter(|(_, node)| needed.contains(node) && is_step(node))
        };
        let again = steps().filter(|(_, node)| !known.contains(&keys[node]));
        Rerun {
            result: name.clone(),
            steps: steps().count(),
            again: again
                .map(|(number, node)| RerunStep {
                    number,
                    name: new.title(*node),
                })
                .collect(),
        }
    });
    results.collect()
}
