//! What a build finds around it, and its result should not depend on.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_ir::{ExecOp, Graph, Input, MountKind, NodeId, Op, Plan};

/// Another surrounding for the steps of a build; none of it is in what they are asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The host name of steps that ask for none.
    pub host_name: Option<String>,
    /// A host that is reached without a proxy, in variables that steps have of whoever builds.
    pub no_proxy: Option<String>,
    /// Stands before the ids of all cache mounts, so that they are empty at first and nobody else's.
    pub caches: Option<String>,
    /// How much older files seem that were made here: copied, or written by steps. It is in no plan.
    pub age: Option<Duration>,
}

impl Conditions {
    /// Returns the plan with its steps in these conditions, and leads `others`, outputs of it, to those steps.
    pub(crate) fn apply<'i>(
        &self,
        plan: Plan,
        others: impl IntoIterator<Item = &'i mut Input>,
    ) -> Plan {
        let in_plan = Conditions {
            age: None,
            ..self.clone()
        };
        if in_plan == Conditions::default() {
            return plan;
        }
        let mut graph = Graph::new();
        let mut moved: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for id in plan.order() {
            let mut node = plan.graph.node(id).clone();
            for input in &mut node.inputs {
                input.node = moved[&input.node];
            }
            if let Op::Exec(op) = &mut node.op {
                self.change(op);
            }
            let new = graph
                .add(node)
                .unwrap_or_else(|error| panic!("BUG: a step in other conditions: {error}"));
            moved.insert(id, new);
        }
        let at = |input: Input| Input {
            node: moved[&input.node],
            ..input
        };
        for output in others {
            *output = at(*output);
        }
        let mut changed = Plan {
            graph,
            results: plan.results,
            sources: plan.sources,
            ..Plan::default()
        };
        for result in changed.results.values_mut() {
            result.output = result.output.map(at);
            for output in result.attestations.values_mut() {
                *output = at(*output);
            }
        }
        let is_there = |id: &NodeId| moved.get(id).copied();
        for (id, pin) in plan.pins {
            if let Some(id) = is_there(&id) {
                changed.pins.insert(id, pin);
            }
        }
        for (id, display) in plan.display {
            if let Some(id) = is_there(&id) {
                changed.annotate(id, display);
            }
        }
        for (digest, id) in plan.foreign {
            if let Some(id) = is_there(&id) {
                changed.foreign.insert(digest, id);
            }
        }
        changed
    }

    fn change(&self, op: &mut ExecOp) {
        if let (true, Some(name)) = (op.meta.hostname.is_empty(), &self.host_name) {
            op.meta.hostname.clone_from(name);
        }
        if let Some(host) = &self.no_proxy {
            let no = &mut op.meta.proxy.get_or_insert_default().no;
            if !no.is_empty() {
                no.push(',');
            }
            no.push_str(host);
        }
        for mount in &mut op.mounts {
            if let (MountKind::Cache { id, .. }, Some(prefix)) = (&mut mount.kind, &self.caches) {
                id.insert_str(0, prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
%0 = image docker.io/library/alpine:latest linux/amd64
%1 = exec %0 ["/bin/sh", "-c", "make"] cwd=/
result %1
"#;

    #[test]
    fn only_what_surrounds_a_step_changes() {
        let plan = crate::read_plan(PLAN.trim_start()).unwrap();
        assert_eq!(Conditions::default().apply(plan.clone(), []), plan);
        let conditions = Conditions {
            host_name: Some("elsewhere".to_owned()),
            no_proxy: Some("host.invalid".to_owned()),
            caches: Some("cold/".to_owned()),
            age: None,
        };
        let changed = conditions.apply(plan.clone(), []);
        changed.validate().unwrap();
        let exec = |plan: &Plan| {
            let nodes = plan.order();
            let node = nodes.into_iter().map(|id| plan.graph.node(id).op.clone());
            node.into_iter()
                .find_map(|op| match op {
                    Op::Exec(op) => Some(op),
                    _ => None,
                })
                .unwrap()
        };
        let (before, mut after) = (exec(&plan), exec(&changed));
        assert_eq!(after.meta.hostname, "elsewhere");
        after.meta.hostname.clear();
        let proxy = after.meta.proxy.take().unwrap();
        assert_eq!(proxy.no, "host.invalid");
        assert_eq!(before, after);
        assert_eq!(changed.order().len(), plan.order().len());
    }

    #[test]
    fn caches_are_cold() {
        let conditions = Conditions {
            caches: Some("cold/".to_owned()),
            ..Conditions::default()
        };
        let mut op = ExecOp::default();
        op.mounts.push(kiln_ir::Mount {
            kind: MountKind::Cache {
                id: "/root/.cache".to_owned(),
                sharing: kiln_ir::CacheSharing::default(),
            },
            ..kiln_ir::Mount::default()
        });
        conditions.change(&mut op);
        let MountKind::Cache { id, .. } = &op.mounts[0].kind else {
            panic!("{op:?}")
        };
        assert_eq!(id, "cold//root/.cache");
    }
}
