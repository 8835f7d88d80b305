//! What a front end returns, made a plan like any other: read, checked, pinned, and given what the
//! caller wants of every build.

use std::collections::BTreeMap;

use kiln_executor::{host_platform, words};
use kiln_frontend::lower::{NoCache, normalize_reference};
use kiln_frontend::outside::{PlanForm, StepDisplay};
use kiln_ir::{
    Display, ImageSource, NodeId, Op, Pin, Plan, ResourceLimits, SourceOp, SourceRange, json,
    parse_labelled,
};

use super::desk::{Desk, Image};
use super::failure::FrontendProblem;
use crate::Error;

/// A plan that can be built.
pub(super) struct Settled {
    pub(super) plan: Plan,
    /// Images whose config was assumed.
    pub(super) assumed: Vec<NodeId>,
}

impl Desk<'_> {
    /// Makes the plan that the build is.
    pub(super) fn settle(
        &self,
        form: PlanForm,
        display: &BTreeMap<String, StepDisplay>,
    ) -> Result<Settled, Error> {
        let read = self.read_plan(form, display);
        let mut plan = read.map_err(|reason| self.failure(FrontendProblem::Plan { reason }))?;
        for result in plan.results.values_mut() {
            if let Some(config) = &mut result.config {
                config.config.labels.extend(self.labels.clone());
            }
        }
        let assumed = plan.order().into_iter();
        let assumed = assumed
            .filter(|id| image_of(&plan, *id).is_some_and(|image| self.assumed.contains(&image)))
            .collect();
        Ok(Settled { plan, assumed })
    }

    /// Reads a plan, and checks what has to do with this build; the error says what is wrong.
    pub(super) fn read_plan(
        &self,
        form: PlanForm,
        display: &BTreeMap<String, StepDisplay>,
    ) -> Result<Plan, String> {
        let mut plan = match form {
            PlanForm::Text(text) => {
                let (mut plan, labels) = parse_labelled(&text).map_err(|error| words(&error))?;
                self.display(&mut plan, &labels, display)?;
                plan
            }
            PlanForm::Json(_) if !display.is_empty() => {
                return Err("the JSON form has its own display data".to_owned());
            }
            PlanForm::Json(value) => {
                json::from_json(&value.to_string()).map_err(|error| words(&error))?
            }
        };
        plan.validate().map_err(|error| words(&error))?;
        if plan.results.is_empty() {
            return Err("it has no result".to_owned());
        }
        plan.prune();
        self.check_locals(&plan)?;
        self.pin(&mut plan);
        self.force(&mut plan);
        self.limit(&mut plan);
        Ok(plan)
    }

    /// Gives nodes of the text form what people see of them.
    fn display(
        &self,
        plan: &mut Plan,
        labels: &BTreeMap<String, NodeId>,
        display: &BTreeMap<String, StepDisplay>,
    ) -> Result<(), String> {
        if display.is_empty() {
            return Ok(());
        }
        // Steps are those of a file from here on; without one, of a file without lines.
        let (name, text) = self.notes.file().cloned().unwrap_or_default();
        let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        plan.sources = vec![(name, text)];
        for (label, shown) in display {
            let label = label.strip_prefix('%').unwrap_or(label);
            let Some(&node) = labels.get(label) else {
                return Err(format!(
                    "`display` names `%{label}`, which it does not have"
                ));
            };
            let range = SourceRange {
                source: 0,
                start_line: shown.line,
                end_line: shown.end_line.max(shown.line),
            };
            if shown.line > 0 && range.end_line > lines {
                return Err(format!(
                    "`display` says that `%{label}` is on line {}, and the file has {lines}",
                    range.end_line
                ));
            }
            plan.annotate(
                node,
                Display {
                    name: shown.name.clone(),
                    stage: shown.stage.clone(),
                    ranges: Vec::from_iter((shown.line > 0).then_some(range)),
                    ..Display::default()
                },
            );
        }
        Ok(())
    }

    /// Contexts that were not given are better known before anything runs.
    fn check_locals(&self, plan: &Plan) -> Result<(), String> {
        for id in plan.order() {
            let Op::Source(SourceOp::Local(local)) = &plan.graph.node(id).op else {
                continue;
            };
            if !self.locals.directories.contains_key(&local.name) {
                let known: Vec<String> = self
                    .locals
                    .directories
                    .keys()
                    .map(|name| format!("`{name}`"))
                    .collect();
                return Err(format!(
                    "it takes files of the context `{}`, and there are only {}",
                    local.name,
                    known.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// What it was told of an image holds for the build, whatever happens to the tag meanwhile.
    fn pin(&self, plan: &mut Plan) {
        for id in plan.order() {
            let pin = image_of(plan, id).and_then(|image| self.pins.get(&image));
            if let Some(digest) = pin {
                plan.pins
                    .entry(id)
                    .or_insert_with(|| Pin::Manifest(digest.clone()));
            }
        }
    }

    /// Has the steps run that are to run whatever is cached.
    fn force(&self, plan: &mut Plan) {
        for id in plan.order() {
            if matches!(plan.graph.node(id).op, Op::Source(_)) {
                continue;
            }
            let stage = plan.display.get(&id).map(|display| display.stage.as_str());
            let is_forced = match &self.no_cache {
                NoCache::No => false,
                NoCache::All => true,
                NoCache::Stages(stages) => stages
                    .iter()
                    .any(|name| stage.is_some_and(|stage| stage.eq_ignore_ascii_case(name))),
            };
            if is_forced {
                plan.display.entry(id).or_default().ignore_cache = true;
            }
        }
    }

    /// Limits steps that name no limits.
    fn limit(&self, plan: &mut Plan) {
        if self.limits == ResourceLimits::default() {
            return;
        }
        for id in plan.order() {
            if let Op::Exec(_) = plan.graph.node(id).op {
                let display = plan.display.entry(id).or_default();
                if display.limits == ResourceLimits::default() {
                    display.limits.clone_from(&self.limits);
                }
            }
        }
    }
}

/// The image that a node brings, as it was asked for.
fn image_of(plan: &Plan, id: NodeId) -> Option<Image> {
    let node = plan.graph.node(id);
    let Op::Source(SourceOp::Image(ImageSource { reference, .. })) = &node.op else {
        return None;
    };
    let reference = normalize_reference(reference).ok()?;
    let platform = node.platform.clone().unwrap_or_else(host_platform);
    Some((reference, platform))
}
