//! The steps that people see, out of a plan's nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

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
}

impl Steps {
    /// Numbers the steps in the order of the file.
    ///
    /// A context is no step; nor is a node that is written nowhere and has no name.
    pub(crate) fn of(plan: &Plan) -> Steps {
        let mut nodes: Vec<(u32, usize, NodeId, StepInfo)> = Vec::new();
        for (order, node) in plan.order().into_iter().enumerate() {
            let this = plan.graph.node(node);
            let from_file = !plan.sources.is_empty();
            // The merge behind COPY --link is half of an instruction that has its step already.
            let is_half = from_file && matches!(this.op, Op::Merge(_));
            if is_half || matches!(this.op, Op::Source(SourceOp::Local(_))) {
                continue;
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
        nodes.sort_by_key(|(line, order, ..)| (*line, *order));
        let by_node = nodes
            .iter()
            .enumerate()
            .map(|(index, (_, _, node, _))| (*node, index))
            .collect();
        Steps {
            infos: nodes.into_iter().map(|(.., info)| info).collect(),
            by_node,
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
    ) -> BTreeMap<NodeId, NodeNote> {
        let mut ordinals: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by_index: Vec<(&NodeId, &StepIndex)> = self.by_node.iter().collect();
        by_index.sort_by_key(|(_, index)| **index);
        let mut notes = BTreeMap::new();
        for (node, index) in by_index {
            let stage = self.infos[*index].stage.as_str();
            let ordinal = ordinals.entry(stage).or_default();
            *ordinal += 1;
            let slot = Slot {
                lineage: lineage.to_owned(),
                step: format!("{stage}.{ordinal}"),
            };
            notes.insert(
                *node,
                NodeNote {
                    slot: Some(slot),
                    build_args: build_args.clone(),
                    ..NodeNote::default()
                },
            );
        }
        notes
    }
}

/// A step of a plan that names none.
fn unnamed(op: &Op) -> String {
    match op {
        Op::Source(SourceOp::Image(image)) => format!("image {}", image.reference),
        Op::Source(SourceOp::OciLayout(layout)) => format!("oci-layout {}", layout.reference),
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
            Solver::Reopened { .. } | Solver::BuildFinished(_) => {}
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
                        StepStatus::Ran(duration)
                    }
                    Ended::Failed => StepStatus::Failed,
                    Ended::Cancelled => StepStatus::Cancelled,
                    Ended::Skipped => StepStatus::Skipped,
                };
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
