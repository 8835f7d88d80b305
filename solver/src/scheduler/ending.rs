//! What a build came to, once nothing goes on any more.

use std::collections::BTreeMap;

use kiln_ir::{NodeId, Op};

use super::{Scheduler, State, Want};
use crate::outline::Role;
use crate::{DefinitionKey, GoalResult, Need, Road, StepStatus};

impl<H: Clone> Scheduler<H> {
    /// What the goals hold; none if one of them is not done.
    pub(crate) fn results(&self) -> Option<Vec<GoalResult<H>>> {
        self.goals
            .iter()
            .map(|&goal| {
                let output = goal.input.output as usize;
                let (found, handle) = match &self.nodes[self.at(goal.input.node)].state {
                    State::Present { found, handles } => {
                        (found, handles.get(output).cloned().flatten())
                    }
                    State::Known { found, .. } if goal.need == Need::Known => (found, None),
                    _ => return None,
                };
                Some(GoalResult {
                    goal,
                    content: found.outputs.get(output).cloned().flatten()?,
                    handle,
                    record: found.record.clone(),
                })
            })
            .collect()
    }

    /// The definition keys that are known.
    pub(crate) fn definitions(&self) -> BTreeMap<NodeId, DefinitionKey> {
        let nodes = self.outline.nodes.iter().zip(&self.nodes);
        nodes
            .filter_map(|(outline, node)| Some((outline.id, node.definition?)))
            .collect()
    }

    /// The nodes that were not looked up, since what is made of them was found, each with those that need it;
    /// consumers first. Sources are what they are, whoever made something of them.
    pub(crate) fn covered(
        &self,
        statuses: &BTreeMap<NodeId, StepStatus>,
    ) -> Vec<(NodeId, Vec<NodeId>)> {
        let covered = StepStatus::Cached {
            road: Road::Covered,
        };
        let nodes = self.outline.nodes.iter().rev();
        nodes
            .filter(|node| statuses.get(&node.id) == Some(&covered))
            .filter(|node| !matches!(self.outline.plan.graph.node(node.id).op, Op::Source(_)))
            .map(|node| {
                let consumers = node.consumers.iter();
                let consumers = consumers.map(|&consumer| self.outline.nodes[consumer].id);
                (node.id, consumers.collect())
            })
            .collect()
    }

    /// How every node ended, now that nothing goes on any more.
    pub(crate) fn statuses(&self) -> BTreeMap<NodeId, StepStatus> {
        let mut statuses: Vec<Option<StepStatus>> = vec![None; self.nodes.len()];
        let mut is_goal = vec![false; self.nodes.len()];
        for goal in &self.goals {
            is_goal[self.at(goal.input.node)] = true;
        }
        // Consumers first: whether a node was covered depends on them.
        for at in (0..self.nodes.len()).rev() {
            let node = &self.nodes[at];
            let role = self.outline.nodes[at].role;
            let covered = || {
                !is_goal[at]
                    && self.outline.nodes[at]
                        .consumers
                        .iter()
                        .all(|&consumer| statuses[consumer].is_some_and(|s| s.is_cached()))
            };
            statuses[at] = Some(match (node.status, &node.state) {
                _ if node.active => StepStatus::Cancelled,
                (Some(status), _) => status,
                (None, State::Known { .. } | State::Present { .. })
                    if matches!(role, Role::Base | Role::Local)
                        && (node.want < Want::Present || !self.stopped) =>
                {
                    StepStatus::Cached { road: Road::Pin }
                }
                _ if covered() => StepStatus::Cached {
                    road: Road::Covered,
                },
                _ => StepStatus::Skipped,
            });
        }
        self.outline
            .nodes
            .iter()
            .zip(statuses)
            .filter_map(|(node, status)| Some((node.id, status?)))
            .collect()
    }
}
