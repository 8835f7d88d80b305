//! What is refused before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_executor::{BuildWorker, Export, ResultToExport, words};
use kiln_ir::{NodeId, Op, Plan, Platform};
use kiln_solver::{Need, certain_runs};

use super::failures::written;
use super::goals;
use crate::{Error, FailedStep, Kiln};

impl Kiln {
    /// Errors if something is sure to run for a platform whose programs do not run here: better known before
    /// an hour of building. What the cache may hold needs no programs.
    pub(super) async fn check_runs(
        &self,
        plan: &Arc<Plan>,
        worker: &BuildWorker,
    ) -> Result<(), Error> {
        let mut lacking = Vec::new();
        let mut certain = None;
        for (platform, nodes) in runs(plan) {
            let executor = self.executor.clone();
            let checked = tokio::task::spawn_blocking(move || executor.check_runs(&platform));
            let error = match checked.await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            if certain.is_none() {
                let found = certain_runs(worker, plan, &goals(plan, Need::Known)).await;
                certain = Some(found?);
            }
            let is_certain = |node: &NodeId| certain.as_ref().is_some_and(|all| all.contains(node));
            let Some(node) = nodes.into_iter().find(is_certain) else {
                continue;
            };
            let display = plan.display.get(&node).cloned().unwrap_or_default();
            lacking.push(FailedStep {
                stage: display.stage,
                text: match display.name.is_empty() {
                    true => plan.graph.node(node).op.kind().to_owned(),
                    false => display.name,
                },
                written: written(plan, node),
                failure: words(&error),
                causes: Vec::new(),
                output: Vec::new(),
                hint: error.hint(),
            });
        }
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(Error::StepsLack(lacking)),
        }
    }

    /// Errors unless this host lets steps be limited as the plan says: nothing is left out in silence.
    pub(super) async fn check_limits(&self, plan: &Arc<Plan>) -> Result<(), Error> {
        let executor = self.executor.clone();
        let plan = Arc::clone(plan);
        let checked = tokio::task::spawn_blocking(move || {
            let mut checked = Vec::new();
            for id in plan.order() {
                let Op::Exec(op) = &plan.graph.node(id).op else {
                    continue;
                };
                let limits = plan.display.get(&id).map(|display| display.limits.clone());
                let wanted = (&op.meta.cgroup_parent, limits.unwrap_or_default());
                if !checked.contains(&wanted) {
                    executor.check_limits(op, &wanted.1)?;
                    checked.push(wanted);
                }
            }
            Ok(())
        });
        checked
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// The steps that run programs of each platform, in the order of the plan.
fn runs(plan: &Plan) -> BTreeMap<Platform, Vec<NodeId>> {
    let mut runs: BTreeMap<Platform, Vec<NodeId>> = BTreeMap::new();
    for id in plan.order() {
        let node = plan.graph.node(id);
        if let (Op::Exec(_), Some(platform)) = (&node.op, &node.platform) {
            runs.entry(platform.clone()).or_default().push(id);
        }
    }
    runs
}

/// Errors unless every result can be exported.
pub(super) fn check_results(plan: &Plan, exports: &[Export]) -> Result<(), Error> {
    if plan.results.is_empty() {
        let message = "it has no result".to_owned();
        return Err(Error::Plan { message });
    }
    let mut seen = BTreeSet::new();
    for name in plan.results.keys() {
        let platform = platform_of(name)?;
        if platform.is_none() && plan.results.len() > 1 {
            let message = "it has several results, and one without a platform".to_owned();
            return Err(Error::Plan { message });
        }
        if !seen.insert(platform) {
            let message = format!("its result `{name}` is for the platform of another one");
            return Err(Error::Plan { message });
        }
    }
    let results = plan.results.iter().map(|(name, result)| {
        Ok(ResultToExport {
            platform: platform_of(name)?,
            config: result.config.clone(),
            ..ResultToExport::default()
        })
    });
    let results = results.collect::<Result<Vec<_>, Error>>()?;
    for export in exports {
        export.check_results(&results)?;
    }
    Ok(())
}

/// The platform that a result's name is; none for the nameless one.
pub(super) fn platform_of(name: &str) -> Result<Option<Platform>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    Platform::parse(name)
        .map(Some)
        .map_err(|error| Error::Plan {
            message: format!("its result `{name}` is for no platform: {error}"),
        })
}
