//! What a build would do now, without doing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_executor::{BuildWorker, Looker, Resolver, Secrets};
use kiln_ir::{NodeId, Op, PrintOptions, SourceOp};
use kiln_solver::{
    Cancel, Failure, Need, NodeNote, SolveError, SolveOptions, SolveRequest, Solver, StepStatus,
    Summary, certain_runs,
};
use serde_json::{Value, json};

use crate::build::{failed, goals};
use crate::delivery::Asker;
use crate::dockerfile::lower_resolving;
use crate::missing::Contexts;
use crate::steps::{Steps, Teller};
use crate::{Error, Kiln, PlanForm, Planned, SourceRequest};

/// The version of the JSON form.
const VERSION: &str = "kiln.would-run/0";

/// Why an image would be fetched.
const LACKS_LAYERS: &str = "its layers are not here";

/// A plan, and what would become of each of its ops.
#[derive(Debug, Clone)]
pub struct Foresight {
    /// The plan.
    pub planned: Planned,
    /// By node.
    pub fates: BTreeMap<NodeId, Fate>,
}

/// What would become of an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is a directory of the caller, which is read where it is.
    Local,
    /// Nothing would be done.
    Cached(String),
    /// It would be brought here.
    Fetched(String),
    /// It would run.
    Run(String),
    /// It would run unless what it needs, which would, comes out the same.
    MayRun,
}

impl Fate {
    /// Returns the word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Fate::Local => "local",
            Fate::Cached(_) => "cached",
            Fate::Fetched(_) => "to fetch",
            Fate::Run(_) => "to run",
            Fate::MayRun => "may run",
        }
    }

    /// Returns why, in words; empty where there is nothing to say.
    pub fn reason(&self) -> &str {
        match self {
            Fate::Local => "read where it is",
            Fate::Cached(reason) | Fate::Fetched(reason) | Fate::Run(reason) => reason,
            Fate::MayRun => "unless what it needs comes out the same",
        }
    }

    /// Whether nothing would be done for it.
    pub fn is_idle(&self) -> bool {
        matches!(self, Fate::Local | Fate::Cached(_))
    }

    fn words(&self) -> String {
        match self.reason() {
            "" => self.word().to_owned(),
            reason => format!("{}: {reason}", self.word()),
        }
    }
}

impl Foresight {
    /// Whether anything would run or be fetched.
    pub fn would_run(&self) -> bool {
        self.fates.values().any(|fate| !fate.is_idle())
    }

    /// Writes the text form of the plan with the fates as comments; a plan still.
    pub fn text(&self, names: bool) -> String {
        let marks = self.fates.iter();
        let marks = marks.map(|(node, fate)| (*node, fate.words())).collect();
        let options = PrintOptions {
            display: names,
            pins: true,
        };
        let mut text = kiln_ir::print_marked(&self.planned.plan, options, &marks);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for fate in self.fates.values() {
            *counts.entry(fate.word()).or_default() += 1;
        }
        let words = ["local", "cached", "to fetch", "to run", "may run"];
        let counted = words
            .into_iter()
            .filter_map(|word| Some(format!("{} {word}", counts.get(word)?)));
        let counted: Vec<String> = counted.collect();
        text.push_str(&format!(
            "# {} ops: {}\n",
            self.fates.len(),
            counted.join(", ")
        ));
        text
    }

    /// Writes a document of its own, which has the plan in it.
    pub fn json(&self) -> String {
        let plan = &self.planned.plan;
        let op = |(number, node): (usize, NodeId)| {
            let fate = self.fates.get(&node)?;
            let display = plan.display.get(&node).cloned().unwrap_or_default();
            let mut op = json!({ "node": number, "fate": fate.word() });
            for (key, value) in [
                ("reason", fate.reason().to_owned()),
                ("stage", display.stage),
                ("name", display.name),
            ] {
                if !value.is_empty() {
                    op[key] = value.into();
                }
            }
            if let Some(range) = display.ranges.first() {
                op["line"] = range.start_line.into();
            }
            Some(op)
        };
        let ops: Vec<Value> = plan
            .order()
            .into_iter()
            .enumerate()
            .filter_map(op)
            .collect();
        let text = self.planned.write(PlanForm::Json);
        let plan: Value = serde_json::from_str(&text).expect("BUG: the JSON form is JSON");
        let document = json!({
            "version": VERSION,
            "would_run": self.would_run(),
            "ops": ops,
            "plan": plan,
        });
        format!("{document:#}\n")
    }
}

impl Kiln {
    /// Says what `kiln build` would do now: the same solver asks the same keys, and nothing is run,
    /// fetched or changed in the store. A context from elsewhere is brought here all the same.
    pub async fn would_run(&self, request: &SourceRequest) -> Result<Foresight, Error> {
        let resolver = Arc::new(Resolver::looking(&self.executor));
        let asker = Asker {
            cancel: request.frontends.cancel.clone(),
            may_run: false,
            ..Asker::new(Arc::clone(&resolver), Secrets::default())
        };
        let source = tokio::select! {
            source = lower_resolving(request, &asker) => source?,
            () = asker.stopped() => return Err(Error::Cancelled),
        };
        let plan = Arc::new(source.lowered.plan.clone());
        let contexts = Contexts {
            directories: source.locals.directories.clone(),
            brought: source.place.lacks(),
            ignore: source.ignore.clone(),
            lock: source.lock.shown.clone(),
            locked: source.lock.names(&plan),
        };
        let worker = BuildWorker::new(&self.executor, resolver, source.locals.clone())
            .with_configs(source.lock.configs(&plan));
        let worker = Arc::new(Looker::new(worker));
        let teller = Arc::new(Teller::new(
            Steps::of(&plan),
            std::time::Instant::now(),
            drop,
        ));
        let notes: BTreeMap<NodeId, NodeNote> =
            teller
                .steps
                .notes(&source.lineage, &source.declared_args, &request.no_cache);
        let forced_by: BTreeMap<NodeId, Option<String>> = notes
            .iter()
            .map(|(node, note)| (*node, note.forced_by.clone()))
            .collect();
        let goals = goals(&plan, Need::Known);
        let certain = certain_runs(&*worker, &plan, &goals).await?;
        let solve = SolveRequest {
            plan: Arc::clone(&plan),
            goals,
            notes,
            options: SolveOptions {
                // What does not need a step that would run is looked at, too.
                keep_going: true,
                ..SolveOptions::for_cores(1)
            },
        };
        let events: Arc<dyn kiln_solver::Events> = Arc::<Teller<_>>::clone(&teller);
        let solved = Solver::new()
            .solve(Arc::clone(&worker), solve, events, Cancel::new())
            .await;
        let refused = worker.refused();
        let summary: Summary = match solved {
            Ok(solved) => solved.summary,
            Err(SolveError::Failed { failures, summary }) => {
                let is_real = |(node, _): &(NodeId, Failure<_>)| !refused.contains(node);
                let failures: Vec<_> = failures.into_iter().filter(is_real).collect();
                if !failures.is_empty() {
                    return Err(failed(&plan, &teller, &contexts, failures));
                }
                summary
            }
            Err(SolveError::Cancelled { .. }) => return Err(Error::Cancelled),
            Err(error) => return Err(Error::Solver(Box::new(error))),
        };
        let forced = |node: &NodeId| {
            let display = plan.display.get(node);
            let by = forced_by.get(node).cloned().flatten();
            let is_forced = display.is_some_and(|display| display.ignore_cache);
            is_forced.then(|| by.unwrap_or_else(|| "--no-cache".to_owned()))
        };
        let fate = |(node, step): (&NodeId, &kiln_solver::StepSummary)| {
            let reason = step.reason.as_ref().map(ToString::to_string);
            let source = match &plan.graph.node(*node).op {
                Op::Source(source) => Some(source),
                _ => None,
            };
            let fate = match (&step.status, source) {
                (_, Some(SourceOp::Local(_))) => Fate::Local,
                (StepStatus::Cached { .. }, _) => Fate::Cached(reason.unwrap_or_default()),
                (StepStatus::Fetched { .. }, _) => Fate::Fetched(LACKS_LAYERS.into()),
                (_, Some(_)) if refused.contains(node) => {
                    let reason = reason.unwrap_or_else(|| "it is not here, or changed".into());
                    Fate::Fetched(reason)
                }
                _ if refused.contains(node) => Fate::Run(reason.unwrap_or_default()),
                _ => match forced(node) {
                    // It was asked for, and asks for no record.
                    Some(flag) => Fate::Run(flag),
                    None if certain.contains(node) => Fate::Run("new".to_owned()),
                    None => Fate::MayRun,
                },
            };
            (*node, fate)
        };
        let mut fates: BTreeMap<NodeId, Fate> = summary.steps.iter().map(fate).collect();
        for node in plan.order() {
            let is_image = matches!(
                plan.graph.node(node).op,
                Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_))
            );
            let consumers = plan.graph.consumers(node);
            let mut consumers = consumers.iter().filter_map(|consumer| fates.get(consumer));
            let is_needed = consumers.any(|fate| matches!(fate, Fate::Run(_)));
            // A step that was not tried did not ask for what is below it.
            if is_image && is_needed && worker.lacks(&plan, node).await? {
                fates.insert(node, Fate::Fetched(LACKS_LAYERS.to_owned()));
            }
        }
        Ok(Foresight {
            fates,
            planned: Planned::of(source),
        })
    }
}
