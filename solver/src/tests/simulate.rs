//! Runs the scheduler against a [`World`], one completion at a time, in any order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_ir::{Input, NodeId};

use super::graph::Script;
use super::world::World;
use crate::scheduler::Scheduler;
use crate::step::{Answer, Completion, Cutoff, Failed, Notice, Ran, Step, Waited};
use crate::*;

/// What a simulated build came to.
pub(crate) struct Outcome {
    pub(crate) log: String,
    pub(crate) statuses: BTreeMap<NodeId, StepStatus>,
    pub(crate) results: Option<Vec<GoalResult<Content>>>,
    /// How many completions there were to choose from, each time.
    pub(crate) choices: Vec<usize>,
}

/// What somebody else does to the world.
pub(crate) type Other = Box<dyn Fn(&mut World)>;

/// How a build is simulated.
pub(crate) struct Simulation<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) script: &'a Script,
    pub(crate) options: SolveOptions,
    /// Which of so many steps in flight ends next.
    pub(crate) order: &'a mut dyn FnMut(usize) -> usize,
    /// Steps whose lock somebody else has: what that one does meanwhile.
    pub(crate) others: BTreeMap<NodeId, Other>,
}

impl Simulation<'_> {
    pub(crate) fn build(mut self, goals: &[(Input, Need)]) -> Outcome {
        let plan = self.script.plan();
        let goals: Vec<Goal> = goals
            .iter()
            .map(|&(input, need)| Goal { input, need })
            .collect();
        let mut scheduler: Scheduler<Content> =
            Scheduler::new(plan.clone(), goals, &self.script.notes, self.options)
                .seeking(self.world.far.is_some());
        let mut log = String::new();
        let mut pending: Vec<Step<Content>> = Vec::new();
        let mut choices = Vec::new();
        let mut reasons: BTreeMap<NodeId, Reason> = BTreeMap::new();
        loop {
            while let Some(step) = scheduler.next() {
                match step {
                    Step::Drop { record } => {
                        let _ = writeln!(log, "drop {}", self.name_of_record(record));
                        self.world.forget(record);
                    }
                    Step::Unlock { .. } => {}
                    Step::Alias { record, definition } => {
                        let _ = writeln!(log, "alias {}", self.name_of_record(record));
                        self.world.by_definition.insert(definition, record);
                    }
                    Step::Tell(notice) => self.tell(notice, &reasons, &mut log),
                    Step::Run {
                        node,
                        inputs,
                        brief,
                    } => {
                        reasons.insert(node, self.why(&brief));
                        let _ = writeln!(log, "run {}", self.name(node));
                        pending.push(Step::Run {
                            node,
                            inputs,
                            brief,
                        });
                    }
                    step => pending.push(step),
                }
            }
            if pending.is_empty() || (scheduler.is_stopped() && !Self::is_running(&pending)) {
                break;
            }
            choices.push(pending.len());
            let chosen = (self.order)(pending.len());
            let step = pending.remove(chosen);
            let completion = self.perform(step, &mut log);
            scheduler.complete(completion);
        }
        Outcome {
            log,
            statuses: scheduler.statuses(),
            results: scheduler.results(),
            choices,
        }
    }

    fn is_running(pending: &[Step<Content>]) -> bool {
        pending
            .iter()
            .any(|step| matches!(step, Step::Run { .. } | Step::File { .. }))
    }

    fn perform(&mut self, step: Step<Content>, log: &mut String) -> Completion<Content> {
        let plan = self.script.plan();
        let failed = |log: &mut String, error: &dyn std::fmt::Display| {
            let _ = writeln!(log, "error: {error}");
            Failed
        };
        match step {
            Step::Pin { node } => {
                let _ = writeln!(log, "pin {}", self.name(node));
                let result = self.world.pin(&plan, node);
                Completion::Pin {
                    node,
                    result: result.map_err(|error| failed(log, &error)),
                }
            }
            Step::Digest {
                ticket,
                consumer,
                of,
                selection,
            } => {
                let of_name = match &of {
                    DigestOf::Local(node) => self.name(*node),
                    DigestOf::Layers(layers) => format!("{} layers", layers.len()),
                };
                let _ = writeln!(log, "digest {of_name} for {}", self.name(consumer));
                let result = self.world.digest(&plan, &of, &selection);
                Completion::Digest {
                    ticket,
                    result: result.map_err(|error| failed(log, &error)),
                }
            }
            Step::Lookup { asks } => {
                let mut line = Vec::new();
                let mut answers = Vec::new();
                for ask in asks {
                    let mut hit = None;
                    for &key in &ask.keys {
                        let road = match key {
                            Key::Definition(_) => "definition",
                            Key::Content(_) => "content",
                        };
                        let found = self.world.lookup(key);
                        line.push(format!(
                            "{road} of {}: {}",
                            self.name(ask.node),
                            if found.is_some() { "hit" } else { "none" }
                        ));
                        hit = hit.or(found.map(|record| Answer::Hit(key, record)));
                    }
                    let op_known = ask.op.is_some_and(|op| self.world.known_op(op));
                    answers.push((ask, hit.unwrap_or(Answer::Miss { op_known })));
                }
                if line.is_empty() {
                    line.push("ops".into());
                }
                let _ = writeln!(log, "lookup {}", line.join(", "));
                Completion::Lookup { answers }
            }
            Step::Seek { node, wanted } => {
                let sought = self.world.seek(&wanted);
                let road = match wanted.keys.first() {
                    Some(Key::Definition(_)) => "definition",
                    Some(Key::Content(_)) => "content",
                    None => "op",
                };
                let found = match (&sought.found, sought.op_known) {
                    (Some(_), _) => "hit",
                    (None, true) => "an op",
                    (None, false) => "none",
                };
                let _ = writeln!(log, "seek {road} of {}: {found}", self.name(node));
                Completion::Seek {
                    node,
                    wanted,
                    sought,
                }
            }
            Step::Load { node, record } => {
                let _ = writeln!(log, "load {}", self.name(node));
                Completion::Load {
                    node,
                    result: Ok(self.world.load(&record)),
                }
            }
            Step::Fetch { node, .. } => {
                let _ = writeln!(log, "fetch {}", self.name(node));
                let result = self.world.fetch(&plan, node);
                Completion::Fetch {
                    node,
                    result: result.map_err(|error| failed(log, &error)),
                    duration: World::DURATION,
                }
            }
            Step::Lock { node, .. } => {
                let other = self.others.remove(&node);
                let waited = other.is_some();
                if let Some(other) = other {
                    let _ = writeln!(log, "wait for {}", self.name(node));
                    other(self.world);
                }
                Completion::Lock {
                    node,
                    result: Ok(Waited(waited)),
                }
            }
            Step::Reserve { node, .. } => {
                let _ = writeln!(log, "reserve {}", self.name(node));
                Completion::Reserve {
                    node,
                    result: Ok(()),
                }
            }
            Step::Run { node, inputs, .. } => Completion::Run {
                node,
                result: match self.world.run(&plan, node, &inputs) {
                    Ok(outputs) => Ran::Done(
                        outputs
                            .into_iter()
                            .map(|output| Some((output.clone()?, output?)))
                            .collect(),
                    ),
                    Err(error) => {
                        failed(log, &error);
                        Ran::Failed
                    }
                },
                duration: World::DURATION,
            },
            Step::File { node, record } => {
                let roads = if record.content.is_some() { 2 } else { 1 };
                let _ = writeln!(log, "file {} by {roads}", self.name(node));
                Completion::File {
                    node,
                    record: self.world.file_record(*record),
                }
            }
            Step::Drop { .. } | Step::Unlock { .. } | Step::Alias { .. } | Step::Tell(_) => {
                unreachable!()
            }
        }
    }

    fn tell(&self, notice: Notice, reasons: &BTreeMap<NodeId, Reason>, log: &mut String) {
        let _ = match notice {
            Notice::Pinned { .. } => Ok(()),
            Notice::Reopened { node } => writeln!(log, "reopened {}", self.name(node)),
            Notice::Imported { node, from } => {
                writeln!(log, "{} is from {from}", self.name(node))
            }
            Notice::Finished {
                node,
                status,
                cutoff,
            } => {
                let reason = match cutoff {
                    Some(Cutoff::SameBytes) => format!(" - {}", Reason::SameBytes),
                    Some(Cutoff::SameInput) => format!(" - {}", Reason::SameInput),
                    None => match reasons.get(&node) {
                        Some(reason) => format!(" - {reason}"),
                        None => String::new(),
                    },
                };
                writeln!(log, "= {}: {status}{reason}", self.name(node))
            }
        };
    }

    fn why(&self, brief: &crate::step::Brief) -> Reason {
        if let Some(by) = &brief.forced {
            return Reason::Forced { by: by.clone() };
        }
        if brief.content_gone {
            return Reason::ContentGone;
        }
        let now = Now {
            definition: brief.definition,
            op: brief.op,
            slot: brief.slot.as_ref(),
            facts: &brief.facts,
            ran_inputs: &brief.ran_inputs,
        };
        let nearest = self
            .world
            .nearest(brief.definition, brief.op, brief.slot.as_ref());
        let mut reason = explain(now, &nearest);
        if let Reason::Changed(causes) = &mut reason {
            for cause in causes {
                if let Cause::Files {
                    changes,
                    more,
                    old: Some(old),
                    new: Some(new),
                    ..
                } = cause
                    && let Some(diff) = self.world.diff_trees(*old, *new, 16)
                {
                    (*changes, *more) = (diff.changes, diff.more);
                }
            }
        }
        reason
    }

    fn name(&self, node: NodeId) -> String {
        name(self.script, node)
    }

    fn name_of_record(&self, record: RecordId) -> String {
        let stored = &self.world.records[&record];
        stored.new.facts.step.text.clone()
    }
}

pub(crate) fn name(script: &Script, node: NodeId) -> String {
    use kiln_ir::{Op, SourceOp};
    match (
        &script.plan.graph.node(node).op,
        script.plan.display.get(&node),
    ) {
        (_, Some(display)) => display.name.clone(),
        (Op::Source(SourceOp::Image(image)), _) => image.reference.clone(),
        (Op::Source(SourceOp::Local(local)), _) => local.name.clone(),
        _ => node.to_string(),
    }
}

/// Builds with every step ending in the order in which it began.
pub(crate) fn build(world: &mut World, script: &Script, goals: &[Input]) -> Outcome {
    build_with(world, script, goals, SolveOptions::for_cores(2))
}

pub(crate) fn build_with(
    world: &mut World,
    script: &Script,
    goals: &[Input],
    options: SolveOptions,
) -> Outcome {
    let goals: Vec<(Input, Need)> = goals.iter().map(|&goal| (goal, Need::Known)).collect();
    in_order(world, script, &goals, options)
}

/// The same with what is needed of each goal.
pub(crate) fn in_order(
    world: &mut World,
    script: &Script,
    goals: &[(Input, Need)],
    options: SolveOptions,
) -> Outcome {
    Simulation {
        world,
        script,
        options,
        order: &mut |_| 0,
        others: BTreeMap::new(),
    }
    .build(goals)
}
