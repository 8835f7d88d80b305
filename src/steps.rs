//! The steps that people see, out of a plan's nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kiln_frontend::lower::NoCache;
use kiln_ir::{NodeId, Op, Plan, SourceOp};
use kiln_solver::{NodeNote, Slot};

use crate::event::{Event, StepIndex, StepInfo, StepStatus, Stream};
use crate::lines::OutputLines;

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

#[derive(Default)]
struct State {
    tails: BTreeMap<NodeId, Tail>,
    /// Identities of sources, in words.
    labels: BTreeMap<NodeId, String>,
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
    pub(crate) fn new(steps: Steps, sink: F) -> Teller<F> {
        sink(Event::Planned {
            steps: steps.infos.clone(),
        });
        Teller {
            steps,
            sink,
            state: Mutex::default(),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.sink)(event);
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
        let step = |node: &NodeId| self.steps.index(*node);
        match event {
            Solver::Pinned { node, label } => {
                self.state().labels.insert(node, label);
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
                let reason = match reason {
                    Some(reason) => reason.to_string(),
                    None => self.state().labels.get(&node).cloned().unwrap_or_default(),
                };
                self.state()
                    .ended
                    .insert(step, (status.clone(), reason.clone()));
                self.tell(Event::Finished {
                    step,
                    status,
                    reason,
                });
            }
        }
    }
}
