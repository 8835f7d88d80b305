//! The steps that people see, out of a plan's nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_frontend::lower::NoCache;
use kiln_ir::{NodeId, Op, Pin, Plan, SourceOp};
use kiln_solver::{NodeNote, Slot};

use crate::event::{Event, StepIndex, StepInfo, StepStatus, Stream};
use crate::explanation::RecordRef;
use crate::lines::OutputLines;
use crate::record::ExportRecord;
use crate::trace::{StepTrace, Trace};

/// Lines of output kept of each step, for when it fails.
const TAIL_LINES: usize = 30;

/// The steps of one build.
pub(crate) struct Steps {
    pub(crate) infos: Vec<StepInfo>,
    by_node: BTreeMap<NodeId, StepIndex>,
    /// Nodes that only bring what the step of the same instruction works on, such as the repository
    /// of an ADD.
    parts: BTreeSet<NodeId>,
}

impl Steps {
    /// Numbers the steps in the order of the file.
    ///
    /// A context is no step; nor is a node that is written nowhere and has no name.
    pub(crate) fn of(plan: &Plan) -> Steps {
        let mut nodes: Vec<(u32, usize, NodeId, StepInfo)> = Vec::new();
        let mut parts: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        for (order, node) in plan.order().into_iter().enumerate() {
            let this = plan.graph.node(node);
            let from_file = !plan.sources.is_empty();
            // The merge behind COPY --link is half of an instruction that has its step already.
            let is_half = from_file && matches!(this.op, Op::Merge(_));
            if is_half || matches!(this.op, Op::Source(SourceOp::Local(_))) {
                continue;
            }
            if from_file && matches!(this.op, Op::File(_)) {
                let sources = this.inputs.iter().map(|input| input.node);
                for source in sources.filter(|source| is_part(plan, *source, node)) {
                    parts.entry(source).or_insert(node);
                }
            }
            let display = plan.display.get(&node);
            let name = display
                .map(|display| display.name.clone())
                .unwrap_or_default();
            let line = display
                .and_then(|display| display.ranges.first())
                .map_or(0, |range| range.start_line);
            let text = match name.is_empty() {
                // Continued lines leave blanks that say nothing.
                false => name.split_whitespace().collect::<Vec<_>>().join(" "),
                // What a front end adds for itself is no step of the file.
                true if from_file => continue,
                true => unnamed(&this.op),
            };
            let stage = display
                .map(|display| display.stage.clone())
                .unwrap_or_default();
            nodes.push((line, order, node, StepInfo { stage, text, line }));
        }
        nodes.retain(|(_, _, node, _)| !parts.contains_key(node));
        nodes.sort_by_key(|(line, order, ..)| (*line, *order));
        let mut by_node: BTreeMap<NodeId, StepIndex> = nodes
            .iter()
            .enumerate()
            .map(|(index, (_, _, node, _))| (*node, index))
            .collect();
        for (part, whole) in &parts {
            if let Some(index) = by_node.get(whole).copied() {
                by_node.insert(*part, index);
            }
        }
        Steps {
            infos: nodes.into_iter().map(|(.., info)| info).collect(),
            by_node,
            parts: parts.into_keys().collect(),
        }
    }

    pub(crate) fn index(&self, node: NodeId) -> Option<StepIndex> {
        self.by_node.get(&node).copied()
    }

    /// The steps that each reads from, directly or through nodes that are none.
    pub(crate) fn needs(&self, plan: &Plan) -> Vec<Vec<StepIndex>> {
        let mut needs = vec![BTreeSet::new(); self.infos.len()];
        let mut through: BTreeMap<NodeId, BTreeSet<StepIndex>> = BTreeMap::new();
        for node in plan.order() {
            let mut read = BTreeSet::new();
            for input in &plan.graph.node(node).inputs {
                match self.index(input.node) {
                    Some(step) => drop(read.insert(step)),
                    None => read.extend(through.get(&input.node).into_iter().flatten()),
                }
            }
            match self.index(node) {
                Some(step) => needs[step].extend(read),
                None => drop(through.insert(node, read)),
            }
        }
        let without_itself = |(step, mut needs): (StepIndex, BTreeSet<StepIndex>)| {
            needs.remove(&step);
            needs.into_iter().collect()
        };
        needs.into_iter().enumerate().map(without_itself).collect()
    }

    /// What the solver cannot know: the place of each step in the file.
    pub(crate) fn notes(
        &self,
        lineage: &str,
        build_args: &BTreeSet<String>,
        no_cache: &NoCache,
    ) -> BTreeMap<NodeId, NodeNote> {
        let mut ordinals: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by_index: Vec<(&NodeId, &StepIndex)> = self.by_node.iter().collect();
        // A part comes before the step that it belongs to, and counts with it.
        by_index.sort_by_key(|(node, index)| (**index, !self.parts.contains(node)));
        let mut notes = BTreeMap::new();
        let mut part = 0;
        for (node, index) in by_index {
            let stage = self.infos[*index].stage.as_str();
            let ordinal = ordinals.entry(stage).or_default();
            let step = if self.parts.contains(node) {
                part += 1;
                format!("{stage}.{}.{part}", *ordinal + 1)
            } else {
                part = 0;
                *ordinal += 1;
                format!("{stage}.{ordinal}")
            };
            let slot = Slot {
                lineage: lineage.to_owned(),
                step,
            };
            notes.insert(
                *node,
                NodeNote {
                    slot: Some(slot),
                    build_args: build_args.clone(),
                    forced_by: forced_by(no_cache, stage),
                    ..NodeNote::default()
                },
            );
        }
        notes
    }
}

/// What tells a step of a stage to run whatever is cached.
fn forced_by(no_cache: &NoCache, stage: &str) -> Option<String> {
    match no_cache {
        NoCache::No => Some("the plan ignores the cache here".to_owned()),
        NoCache::All => None,
        // The stage of a build for several platforms has the platform before its name.
        NoCache::Stages(_) => {
            let name = stage.rsplit(' ').next().unwrap_or_default();
            Some(format!("--no-cache-filter {name}"))
        }
    }
}

/// Whether a source only brings what one step of the file works on: it is of the same instruction.
fn is_part(plan: &Plan, source: NodeId, step: NodeId) -> bool {
    let is_remote = matches!(
        plan.graph.node(source).op,
        Op::Source(SourceOp::Git(_) | SourceOp::Http(_))
    );
    let ranges = |node| plan.display.get(&node).map(|display| &display.ranges[..]);
    let (Some(source), Some([first, ..])) = (ranges(source), ranges(step)) else {
        return false;
    };
    is_remote && source.contains(first)
}

/// A step of a plan that names none.
fn unnamed(op: &Op) -> String {
    match op {
        Op::Source(SourceOp::Image(image)) => format!("image {}", image.reference),
        Op::Source(SourceOp::OciLayout(layout)) => format!("oci-layout {}", layout.reference),
        Op::Source(SourceOp::Git(git)) => format!("git {}", git.remote),
        Op::Source(SourceOp::Http(http)) => format!("http {}", http.url),
        Op::Exec(exec) => format!("exec {}", exec.meta.args.join(" ")),
        other => other.kind().to_owned(),
    }
}

/// Passes the solver's events on in people's words, and keeps what a failure needs.
pub(crate) struct Teller<F> {
    pub(crate) steps: Steps,
    sink: F,
    state: Mutex<State>,
}

struct State {
    trace: Trace,
    tails: BTreeMap<NodeId, Tail>,
    /// Identities of sources, in words.
    labels: BTreeMap<NodeId, String>,
    /// Identities of sources.
    pins: BTreeMap<NodeId, Pin>,
    /// How long it took to bring what a step works on.
    brought: BTreeMap<StepIndex, Duration>,
    ended: BTreeMap<StepIndex, (StepStatus, String)>,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    end: OutputLines,
}

impl<F: Fn(Event) + Send + Sync> Teller<F> {
    /// Tells `sink`; times are counted from `clock` on.
    pub(crate) fn new(steps: Steps, clock: Instant, sink: F) -> Teller<F> {
        sink(Event::Planned {
            steps: steps.infos.clone(),
        });
        Teller {
            steps,
            sink,
            state: Mutex::new(State {
                trace: Trace::new(clock),
                tails: BTreeMap::new(),
                labels: BTreeMap::new(),
                pins: BTreeMap::new(),
                brought: BTreeMap::new(),
                ended: BTreeMap::new(),
            }),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        match &event {
            Event::Exporting(what) => self.state().trace.exporting(what),
            Event::Exported { what, .. } => self.state().trace.exported(what),
            _ => {}
        }
        (self.sink)(event);
    }

    /// The identities that sources turned out to have.
    pub(crate) fn pins(&self) -> BTreeMap<NodeId, Pin> {
        self.state().pins.clone()
    }

    /// The end of what a step wrote.
    pub(crate) fn tail(&self, node: NodeId) -> Vec<String> {
        let state = self.state();
        let Some(tail) = state.tails.get(&node) else {
            return Vec::new();
        };
        let rest = Some(tail.end.partial()).filter(|rest| !rest.is_empty());
        let lines = tail.lines.iter().map(Vec::as_slice).chain(rest);
        lines
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }

    /// How each step ended, by its index.
    pub(crate) fn endings(&self) -> BTreeMap<StepIndex, (StepStatus, String)> {
        self.state().ended.clone()
    }

    /// What is to be remembered of the steps and of what was written at the end.
    pub(crate) fn take_trace(&self) -> (BTreeMap<StepIndex, StepTrace>, Vec<ExportRecord>) {
        self.state().trace.take()
    }

    /// Takes in what is remembered beside what is told.
    fn trace(&self, event: &kiln_solver::Event) {
        use kiln_solver::Event as Solver;
        let (Solver::Started { node }
        | Solver::Output { node, .. }
        | Solver::Progress { node, .. }
        | Solver::Compared { node, .. }
        | Solver::Recorded { node, .. }) = event
        else {
            return;
        };
        let Some(step) = self.steps.index(*node) else {
            return;
        };
        let is_part = self.steps.parts.contains(node);
        let trace = &mut self.state().trace;
        match event {
            Solver::Started { .. } => trace.started(step),
            Solver::Output { bytes, .. } => trace.step(step).log.push(bytes),
            Solver::Progress { what, current, .. } => trace.moved(step, what, *current),
            // What stands for a part says nothing of the whole.
            Solver::Compared { comparison, .. } if !is_part => {
                trace.step(step).explanation.comparison = Some(comparison.clone());
            }
            Solver::Recorded {
                record,
                created_unix_nanos,
                outputs,
                ..
            } if !is_part => {
                trace.recorded(step, outputs.clone());
                trace.step(step).explanation.record = Some(RecordRef {
                    id: record.0,
                    created_unix_millis: created_unix_nanos / 1_000_000,
                });
            }
            _ => {}
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, node: NodeId, bytes: &[u8]) {
        let mut state = self.state();
        let tail = state.tails.entry(node).or_default();
        let Tail { lines, end } = tail;
        end.push(bytes, |line| {
            // The oldest line's room is used again: a flood of lines allocates nothing.
            let mut kept = if lines.len() == TAIL_LINES {
                lines.pop_front().unwrap_or_default()
            } else {
                Vec::new()
            };
            kept.clear();
            kept.extend_from_slice(line);
            lines.push_back(kept);
        });
    }
}

impl<F: Fn(Event) + Send + Sync> kiln_solver::Events for Teller<F> {
    fn event(&self, event: kiln_solver::Event) {
        use kiln_solver::Event as Solver;
        self.trace(&event);
        let step = |node: &NodeId| self.steps.index(*node);
        match event {
            Solver::Pinned { node, label, pin } => {
                let mut state = self.state();
                state.labels.insert(node, label);
                state.pins.insert(node, pin);
            }
            Solver::Started { node } => {
                if let Some(step) = step(&node) {
                    self.tell(Event::Started { step });
                }
            }
            Solver::Output {
                node,
                stream,
                bytes,
            } => {
                self.keep(node, &bytes);
                if let Some(step) = step(&node) {
                    let stream = match stream {
                        kiln_solver::Stream::Stdout => Stream::Out,
                        kiln_solver::Stream::Stderr => Stream::Err,
                    };
                    self.tell(Event::Output {
                        step,
                        stream,
                        bytes,
                    });
                }
            }
            Solver::Progress {
                node,
                what,
                current,
                total,
            } => {
                if let Some(step) = step(&node) {
                    self.tell(Event::Progress {
                        step,
                        what,
                        done_bytes: current,
                        total_bytes: total,
                    });
                }
            }
            Solver::Waiting { node, what, pid } => {
                if let Some(step) = step(&node) {
                    self.tell(Event::Waiting { step, what, pid });
                }
            }
            Solver::Reopened { .. }
            | Solver::Compared { .. }
            | Solver::Recorded { .. }
            | Solver::BuildFinished(_) => {}
            Solver::Finished {
                node,
                status,
                reason,
            } => {
                let Some(step) = step(&node) else { return };
                use kiln_solver::StepStatus as Ended;
                let road = match status {
                    Ended::Cached { road } => Some(road.into()),
                    _ => None,
                };
                let status = match status {
                    Ended::Cached { .. } => StepStatus::Cached,
                    Ended::Ran { duration } | Ended::Fetched { duration } => {
                        let mut state = self.state();
                        let brought = state.brought.entry(step).or_default();
                        if self.steps.parts.contains(&node) {
                            *brought += duration;
                        }
                        StepStatus::Ran(duration + *brought)
                    }
                    Ended::Failed => StepStatus::Failed,
                    Ended::Cancelled => StepStatus::Cancelled,
                    Ended::Skipped => StepStatus::Skipped,
                };
                // A part that is here says nothing yet; one that failed says it all.
                if self.steps.parts.contains(&node) && status != StepStatus::Failed {
                    return;
                }
                if self.state().ended.get(&step).map(|ended| &ended.0) == Some(&StepStatus::Failed)
                {
                    return;
                }
                let words = match &reason {
                    Some(reason) => reason.to_string(),
                    None => self.state().labels.get(&node).cloned().unwrap_or_default(),
                };
                let explanation = {
                    let mut state = self.state();
                    state.ended.insert(step, (status.clone(), words.clone()));
                    state.trace.ended(step);
                    let trace = state.trace.step(step);
                    trace.explanation.road = road;
                    trace.explanation.reason = reason;
                    trace.explanation.clone()
                };
                self.tell(Event::Explained {
                    step,
                    status: status.clone(),
                    explanation,
                });
                self.tell(Event::Finished {
                    step,
                    status,
                    reason: words,
                });
            }
        }
    }
}
