//! Which steps will run whatever the cache holds, known before anything is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_ir::{NodeId, Plan};

use crate::outline::{Outline, Role};
use crate::{Goal, Worker};

/// Finds steps that are sure to run: no record of their op exists, and what needs them is sure to run
/// too or is a goal.
///
/// What is not told may run all the same: a record of an op may be one with other inputs.
pub async fn certain_runs<W: Worker>(
    worker: &W,
    plan: &Arc<Plan>,
    goals: &[Goal],
) -> Result<BTreeSet<NodeId>, W::Error> {
    let outline = Outline::new(Arc::clone(plan), goals, &BTreeMap::new());
    let ops: Vec<_> = outline.nodes.iter().map(|node| node.op).collect();
    let known = worker.known_ops(&ops).await?;
    let mut certain = BTreeSet::new();
    let mut wanted: Vec<_> = goals
        .iter()
        .filter_map(|goal| outline.by_id.get(&goal.input.node).copied())
        .collect();
    while let Some(at) = wanted.pop() {
        let node = &outline.nodes[at];
        let may_be_cached = known.get(at).is_some_and(|known| *known) && !node.forced;
        if node.role != Role::Step || may_be_cached || !certain.insert(node.id) {
            continue;
        }
        wanted.extend(node.inputs.iter().map(|input| input.node));
    }
    Ok(certain)
}
