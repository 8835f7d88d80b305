//! Decides what to do next. No I/O, no clock, no lock, no thread: [`Scheduler::next`] gives a step,
//! [`Scheduler::complete`] takes what came of it.
//!
//! One owner holds all state, and `advance` is the one function that moves a node on. It looks only
//! at the node and its inputs; whatever changes a node puts its consumers on the list of nodes to
//! look at again. So the order in which completions arrive can't matter to what is decided, only
//! to when.
//!
//! Goals are probed from the top: a node is asked for only when something needs it, and what is
//! below a hit is neither looked up nor loaded. Keys need no probing: sources are pinned and local
//! selections digested at the start, and definition keys follow upwards.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kiln_ir::{NodeId, Plan};

use crate::driver::NodeNote;
use crate::outline::{At, Outline, Role};
use crate::step::{Ask, Completion, Step};
use crate::{
    Content, ContentKey, DefinitionKey, Goal, Key, Need, Pinned, Record, RecordId, Selection,
    SelectionDigest, SolveOptions, StepStatus, Wanted,
};

mod completions;
mod ending;
mod parts;

/// The state of one build.
pub(crate) struct Scheduler<H> {
    outline: Outline,
    goals: Vec<Goal>,
    options: SolveOptions,
    nodes: Vec<NodeState<H>>,
    cells: Vec<Cell>,
    /// Nodes to look at again, each once.
    dirty: VecDeque<At>,
    is_dirty: Vec<bool>,
    /// Steps to give, but for lookups and runs.
    steps: VecDeque<Step<H>>,
    /// Questions that the next lookup asks all at once.
    asks: Vec<Ask>,
    /// Steps that hold all they need and wait for a job slot; the heaviest path goes first.
    ready: BinaryHeap<(u64, Reverse<At>)>,
    running: usize,
    /// Steps given and not completed.
    in_flight: usize,
    /// Records whose content was gone. A lookup that finds one again found nothing, so that every
    /// reopening costs a record and there can't be more of them than records.
    dropped: HashSet<RecordId>,
    /// Results may lie elsewhere.
    seeks: bool,
    /// Nothing new is begun.
    stopped: bool,
}

/// What is known of one node.
struct NodeState<H> {
    want: Want,
    state: State<H>,
    definition: Option<DefinitionKey>,
    content: Option<ContentKey>,
    pinned: Option<Pinned>,
    /// By input: the digest of what is read of it, where there is a selection.
    cells: Vec<Option<usize>>,
    /// Its content key can't be known in this build.
    content_closed: bool,
    /// There is a record of its op here.
    op_known: bool,
    /// Something that it needs ran in this build, or was found by content: records under its
    /// definition key may belong to other bytes than those that are below it now.
    tainted: bool,
    /// It ran in this build.
    ran: bool,
    /// A record of it was found, and the layers that it names were not.
    content_gone: bool,
    /// How long the run took, from its end until its record is filed.
    unfiled: Option<Duration>,
    /// A run or a fetch of it is going on.
    active: bool,
    /// What was told of it last.
    status: Option<StepStatus>,
}

/// How much of a node is wanted; only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Nothing,
    Known,
    Present,
}

/// How far a node is.
enum State<H> {
    /// Its definition key is not known: a pin, or a digest of local files, is still to come.
    Unknown,
    /// Its definition key is known, what it holds is not.
    Keyed(Asking),
    /// What it holds is known. Enough for keys; none of it need be here.
    Known {
        found: Found,
        /// A load or a fetch is going on.
        loading: bool,
    },
    /// Its outputs are here.
    Present {
        found: Found,
        handles: Vec<Option<H>>,
    },
    /// It failed, or something that it needs did.
    Failed,
}

/// Which question of a keyed node is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// None: nothing needs it yet.
    Nothing,
    /// Is there a record under its definition key, or else one of its op?
    Definition,
    /// Is there a record of its op?
    Op,
    /// Has another machine left a record under its definition key, or else one of its op?
    DefinitionElsewhere,
    /// Has another machine left a record under its content key?
    ContentElsewhere(ContentKey),
    /// What do its inputs hold? Where no record of the op is known, it will have to run, and its
    /// inputs are brought here meanwhile.
    Inputs { op_known: bool },
    /// Which digests have the parts of the inputs that it sees?
    Digests,
    /// Is there a record under its content key?
    Content(ContentKey),
    /// Are its inputs here?
    Presence,
    /// Does anybody else run it?
    Lock,
    /// Did somebody else file it before it was locked? If that one was waited for, what it filed
    /// may be under the content key alone, which is then found out first.
    Recheck { waited: bool, asked: bool },
    /// Has it what it must have for itself while it runs?
    Reservation,
    /// Is there a job slot?
    Slot,
    /// How does its run end?
    Running,
}

/// What a node holds.
#[derive(Clone)]
struct Found {
    outputs: Vec<Option<Content>>,
    /// None for sources without records, and until a run is filed.
    record: Option<Record>,
}

/// The digest of one selection of one output, shared by all who read it.
struct Cell {
    source: At,
    output: u32,
    selection: Arc<Selection>,
    generation: u32,
    state: CellState,
}

enum CellState {
    Empty,
    Asked {
        source_present: bool,
    },
    Done(SelectionDigest),
    /// Its layers were not here; it may be asked once more when they are.
    Absent,
    /// Its layers are here, and the worker can't look into them.
    Unavailable,
    Failed,
}

/// Whether digests are complete.
enum Digests {
    Done,
    Waiting,
    Unavailable,
    Failed,
}

impl<H: Clone> Scheduler<H> {
    /// A scheduler of what `goals` need of `plan`. Every goal names an output that is there.
    pub(crate) fn new(
        plan: Arc<Plan>,
        goals: Vec<Goal>,
        notes: &BTreeMap<NodeId, NodeNote>,
        options: SolveOptions,
    ) -> Self {
        let outline = Outline::new(plan, &goals, notes);
        let count = outline.nodes.len();
        let mut scheduler = Scheduler {
            nodes: Vec::with_capacity(count),
            cells: Vec::new(),
            dirty: VecDeque::with_capacity(count),
            is_dirty: vec![false; count],
            steps: VecDeque::new(),
            asks: Vec::new(),
            ready: BinaryHeap::new(),
            running: 0,
            in_flight: 0,
            dropped: HashSet::new(),
            seeks: false,
            stopped: false,
            outline,
            goals,
            options,
        };
        let mut cell_of = HashMap::new();
        for at in 0..count {
            let node = scheduler.node_state(at, &mut cell_of);
            scheduler.nodes.push(node);
            scheduler.touch(at);
        }
        for goal in scheduler.goals.clone() {
            let at = scheduler.at(goal.input.node);
            scheduler.want(
                at,
                match goal.need {
                    Need::Known => Want::Known,
                    Need::Present => Want::Present,
                },
            );
        }
        scheduler
    }

    /// Lets what the cache does not have be looked for elsewhere.
    pub(crate) fn seeking(mut self, seeks: bool) -> Self {
        self.seeks = seeks;
        self
    }

    fn node_state(
        &mut self,
        at: At,
        cell_of: &mut HashMap<(At, u32, Arc<Selection>), usize>,
    ) -> NodeState<H> {
        let outline = &self.outline.nodes[at];
        let mut cells = Vec::with_capacity(outline.inputs.len());
        for input in &outline.inputs {
            cells.push(input.selection.as_ref().map(|selection| {
                *cell_of
                    .entry((input.node, input.output, selection.clone()))
                    .or_insert_with(|| {
                        self.cells.push(Cell {
                            source: input.node,
                            output: input.output,
                            selection: selection.clone(),
                            generation: 0,
                            state: CellState::Empty,
                        });
                        self.cells.len() - 1
                    })
            }));
        }
        let state = match outline.role {
            Role::Base | Role::Pinned => {
                self.steps.push_back(Step::Pin { node: outline.id });
                State::Unknown
            }
            // Its consumers digest what they read, so that nothing is asked of it.
            Role::Local => State::Known {
                found: Found {
                    outputs: vec![Some(Content::new())],
                    record: None,
                },
                loading: false,
            },
            Role::Step => State::Unknown,
        };
        NodeState {
            want: Want::Nothing,
            state,
            definition: None,
            content: None,
            pinned: None,
            cells,
            content_closed: !outline.content_road,
            op_known: false,
            tainted: false,
            ran: false,
            content_gone: false,
            unfiled: None,
            active: false,
            status: None,
        }
    }

    /// What to do next; none until something completes, or at the end.
    pub(crate) fn next(&mut self) -> Option<Step<H>> {
        while let Some(at) = self.dirty.pop_front() {
            self.is_dirty[at] = false;
            self.advance(at);
        }
        let step = self.pop_step();
        match &step {
            None => self.assert_live(),
            Some(Step::Drop { .. } | Step::Unlock { .. } | Step::Alias { .. } | Step::Tell(_)) => {}
            Some(_) => self.in_flight += 1,
        }
        step
    }

    fn pop_step(&mut self) -> Option<Step<H>> {
        if let Some(step) = self.steps.pop_front() {
            return Some(step);
        }
        if self.stopped {
            return None;
        }
        if !self.asks.is_empty() {
            return Some(Step::Lookup {
                asks: std::mem::take(&mut self.asks),
            });
        }
        if self.running < self.options.jobs.max(1) {
            let (_, Reverse(at)) = self.ready.pop()?;
            return Some(self.run(at));
        }
        None
    }

    /// Nothing in flight and nothing to do means that every goal is done or has failed.
    fn assert_live(&self) {
        if self.in_flight > 0 || self.stopped {
            return;
        }
        for goal in &self.goals {
            let node = &self.nodes[self.at(goal.input.node)];
            let done = matches!(
                (&node.state, goal.need),
                (State::Present { .. } | State::Failed, _) | (State::Known { .. }, Need::Known)
            );
            assert!(
                done && node.unfiled.is_none(),
                "BUG: nothing is going on, and goal {} is not done",
                goal.input
            );
        }
    }

    /// Takes the end of a step that [`Scheduler::next`] gave.
    pub(crate) fn complete(&mut self, completion: Completion<H>) {
        self.in_flight -= 1;
        match completion {
            Completion::Lock { node, .. } | Completion::Reserve { node, .. } if self.stopped => {
                self.steps.push_back(Step::Unlock { node });
            }
            Completion::Pin { .. }
            | Completion::Digest { .. }
            | Completion::Lookup { .. }
            | Completion::Seek { .. }
            | Completion::Load { .. }
                if self.stopped => {}
            Completion::Pin { node, result } => self.pinned(self.at(node), result),
            Completion::Digest { ticket, result } => self.digested(ticket, result),
            Completion::Lookup { answers } => {
                for (ask, answer) in answers {
                    self.answered(self.at(ask.node), answer);
                }
            }
            Completion::Seek {
                node,
                wanted,
                sought,
            } => self.sought(self.at(node), &wanted, sought),
            Completion::Load { node, result } => self.loaded(self.at(node), result),
            Completion::Fetch {
                node,
                result,
                duration,
            } => self.fetched(self.at(node), result, duration),
            Completion::Lock { node, result } => self.locked(self.at(node), result),
            Completion::Reserve { node, result } => self.reserved(self.at(node), result),
            Completion::Run {
                node,
                result,
                duration,
            } => self.ended(self.at(node), result, duration),
            Completion::File { node, record } => self.filed(self.at(node), record),
        }
    }

    /// Begins nothing new; what runs may still end and be filed.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.asks.clear();
        self.ready.clear();
        for at in 0..self.nodes.len() {
            if self.nodes[at].unfiled.is_some() {
                self.touch(at);
            }
        }
        self.steps.retain(|step| {
            matches!(
                step,
                Step::Tell(_)
                    | Step::File { .. }
                    | Step::Unlock { .. }
                    | Step::Alias { .. }
                    | Step::Drop { .. }
            )
        });
    }

    /// Whether nothing new is begun.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How many steps were given and not completed.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn at(&self, node: NodeId) -> At {
        self.outline.by_id[&node]
    }

    fn touch(&mut self, at: At) {
        if !std::mem::replace(&mut self.is_dirty[at], true) {
            self.dirty.push_back(at);
        }
    }

    fn touch_consumers(&mut self, at: At) {
        for i in 0..self.outline.nodes[at].consumers.len() {
            self.touch(self.outline.nodes[at].consumers[i]);
        }
    }

    fn want(&mut self, at: At, want: Want) {
        if self.nodes[at].want < want {
            self.nodes[at].want = want;
            self.touch(at);
        }
    }

    fn want_inputs(&mut self, at: At, want: Want) {
        for i in 0..self.outline.nodes[at].inputs.len() {
            self.want(self.outline.nodes[at].inputs[i].node, want);
        }
    }

    fn set_asking(&mut self, at: At, asking: Asking) {
        self.nodes[at].state = State::Keyed(asking);
        self.touch(at);
    }

    /// Moves a node on as far as what is known allows. The one place that decides.
    fn advance(&mut self, at: At) {
        if self.nodes[at].unfiled.is_some() {
            self.file(at);
        }
        if self.stopped {
            return;
        }
        match &self.nodes[at].state {
            State::Unknown => self.key(at),
            State::Keyed(asking) => {
                let asking = *asking;
                self.advance_keyed(at, asking);
            }
            State::Known {
                found,
                loading: false,
            } if self.nodes[at].want == Want::Present => {
                let node = self.outline.nodes[at].id;
                let step = match (&found.record, self.outline.nodes[at].role) {
                    (Some(record), _) => Step::Load {
                        node,
                        record: record.clone(),
                    },
                    (None, Role::Base | Role::Local) => Step::Fetch {
                        node,
                        pinned: self.nodes[at].pinned.clone(),
                        brief: None,
                    },
                    (None, _) => {
                        panic!("BUG: `{}` is known without a record", self.outline.name(at))
                    }
                };
                if matches!(step, Step::Fetch { .. }) {
                    self.nodes[at].active = true;
                }
                if let State::Known { loading, .. } = &mut self.nodes[at].state {
                    *loading = true;
                }
                self.steps.push_back(step);
            }
            State::Known { .. } | State::Present { .. } | State::Failed => {}
        }
    }

    fn advance_keyed(&mut self, at: At, asking: Asking) {
        match asking {
            Asking::Nothing if self.nodes[at].want >= Want::Known => self.ask_first(at),
            Asking::Inputs { op_known } => {
                self.want_inputs(at, if op_known { Want::Known } else { Want::Present });
                if self.an_input_failed(at) {
                    self.fail(at, StepStatus::Skipped);
                } else if self.inputs_known(at) {
                    let next = if op_known {
                        Asking::Digests
                    } else {
                        Asking::Presence
                    };
                    self.set_asking(at, next);
                }
            }
            Asking::Digests => match self.digests(at) {
                _ if self.an_input_failed(at) => self.fail(at, StepStatus::Skipped),
                Digests::Done => {
                    let key = self.find_content_key(at);
                    self.set_asking(at, Asking::Content(key));
                    self.asks.push(Ask {
                        node: self.outline.nodes[at].id,
                        keys: vec![Key::Content(key)],
                        op: None,
                    });
                }
                Digests::Unavailable => self.set_asking(at, Asking::Presence),
                Digests::Failed => self.fail(at, StepStatus::Failed),
                Digests::Waiting => {}
            },
            Asking::Presence => {
                self.want_inputs(at, Want::Present);
                if self.an_input_failed(at) {
                    self.fail(at, StepStatus::Skipped);
                } else if self.inputs_present(at) {
                    self.set_asking(at, Asking::Lock);
                    self.steps.push_back(Step::Lock {
                        node: self.outline.nodes[at].id,
                        key: self.definition(at),
                    });
                }
            }
            Asking::Recheck {
                waited,
                asked: false,
            } => self.recheck(at, waited),
            Asking::Nothing
            | Asking::Definition
            | Asking::Op
            | Asking::DefinitionElsewhere
            | Asking::Content(_)
            | Asking::ContentElsewhere(_)
            | Asking::Lock
            | Asking::Recheck { asked: true, .. }
            | Asking::Reservation
            | Asking::Slot
            | Asking::Running => {}
        }
    }

    /// Finds the definition key, if all that it needs is known.
    fn key(&mut self, at: At) {
        let role = self.outline.nodes[at].role;
        if matches!(role, Role::Base | Role::Pinned) && self.nodes[at].pinned.is_none() {
            return;
        }
        let mut complete = true;
        for i in 0..self.outline.nodes[at].inputs.len() {
            let input = self.outline.nodes[at].inputs[i].node;
            if self.outline.nodes[input].role == Role::Local {
                let Some(cell) = self.nodes[at].cells[i] else {
                    panic!("BUG: a local source is read without a selection");
                };
                self.ask_digest(at, cell);
                match self.cells[cell].state {
                    CellState::Done(_) => {}
                    CellState::Failed => return self.fail(at, StepStatus::Failed),
                    _ => complete = false,
                }
            } else if self.nodes[input].definition.is_none() {
                if matches!(self.nodes[input].state, State::Failed) {
                    return self.fail(at, StepStatus::Skipped);
                }
                complete = false;
            }
        }
        if !complete {
            return;
        }
        let inputs = self.input_keys(at);
        let key = self
            .outline
            .definition_key(at, self.nodes[at].pinned.as_ref(), &inputs);
        self.nodes[at].definition = Some(key);
        match (role, &self.nodes[at].pinned) {
            (Role::Base, Some(pinned)) => {
                let Some(content) = pinned.content.clone() else {
                    panic!("BUG: the pin of an image does not say what it holds");
                };
                self.nodes[at].state = State::Known {
                    found: Found {
                        outputs: vec![Some(content)],
                        record: None,
                    },
                    loading: false,
                };
            }
            _ => self.nodes[at].state = State::Keyed(Asking::Nothing),
        }
        self.touch(at);
        self.touch_consumers(at);
    }

    /// Whether records under the definition key are those of what is below the node in this build.
    fn may_ask_definition(&self, at: At) -> bool {
        let outline = &self.outline.nodes[at];
        !outline.forced && !outline.above_forced && !self.nodes[at].tainted
    }

    fn ask_first(&mut self, at: At) {
        let outline = &self.outline.nodes[at];
        let by_definition = self.may_ask_definition(at);
        let op = (!outline.forced && !self.nodes[at].content_closed).then_some(outline.op);
        if !by_definition && op.is_none() {
            return self.set_asking(at, Asking::Inputs { op_known: false });
        }
        let keys = by_definition.then(|| Key::Definition(self.definition(at)));
        self.asks.push(Ask {
            node: outline.id,
            keys: keys.into_iter().collect(),
            op,
        });
        let asking = if by_definition {
            Asking::Definition
        } else {
            Asking::Op
        };
        self.nodes[at].state = State::Keyed(asking);
    }

    /// Asks elsewhere for what the cache does not have.
    fn seek(&mut self, at: At, keys: Vec<Key>, op: bool, asking: Asking) {
        let outline = &self.outline.nodes[at];
        self.nodes[at].state = State::Keyed(asking);
        self.steps.push_back(Step::Seek {
            node: outline.id,
            wanted: Wanted {
                keys,
                op: op.then_some(outline.op),
            },
        });
    }

    /// Looks once more, now that nobody else can be running the step.
    fn recheck(&mut self, at: At, waited: bool) {
        if waited && !self.nodes[at].content_closed {
            match self.digests(at) {
                Digests::Done => {
                    self.find_content_key(at);
                }
                Digests::Unavailable => {}
                Digests::Failed => return self.fail(at, StepStatus::Failed),
                Digests::Waiting => return,
            }
        }
        let definition = self
            .may_ask_definition(at)
            .then(|| Key::Definition(self.definition(at)));
        let content = self.nodes[at].content.map(Key::Content);
        let keys: Vec<Key> = definition.into_iter().chain(content).collect();
        if keys.is_empty() {
            return self.prepare(at);
        }
        self.asks.push(Ask {
            node: self.outline.nodes[at].id,
            keys,
            op: None,
        });
        self.nodes[at].state = State::Keyed(Asking::Recheck {
            waited,
            asked: true,
        });
    }

    /// Begins what has to be made: at once, once it has a slot, or once it has a reservation and then
    /// a slot. Whoever waits for a reservation keeps nobody else from running.
    fn prepare(&mut self, at: At) {
        let outline = &self.outline.nodes[at];
        if outline.role == Role::Pinned {
            // Nothing of it runs here, so that it takes no slot.
            let step = Step::Fetch {
                node: outline.id,
                pinned: self.nodes[at].pinned.clone(),
                brief: Some(Box::new(self.brief(at))),
            };
            self.nodes[at].state = State::Keyed(Asking::Running);
            self.nodes[at].active = true;
            self.steps.push_back(step);
        } else if outline.reserves {
            let step = Step::Reserve {
                node: outline.id,
                inputs: self.handles(at),
            };
            self.nodes[at].state = State::Keyed(Asking::Reservation);
            self.steps.push_back(step);
        } else {
            self.await_slot(at);
        }
    }

    fn await_slot(&mut self, at: At) {
        self.nodes[at].state = State::Keyed(Asking::Slot);
        let priority = self.outline.nodes[at].priority;
        self.ready.push((priority, Reverse(at)));
    }

    fn run(&mut self, at: At) -> Step<H> {
        self.running += 1;
        self.nodes[at].state = State::Keyed(Asking::Running);
        self.nodes[at].active = true;
        // What the record's content key needs is found out beside the run.
        if !self.nodes[at].content_closed {
            self.digests(at);
        }
        Step::Run {
            node: self.outline.nodes[at].id,
            inputs: self.handles(at),
            brief: Box::new(self.brief(at)),
        }
    }

    /// The inputs of a node, all of which are here.
    fn handles(&self, at: At) -> Vec<H> {
        let inputs = self.outline.nodes[at].inputs.iter().map(|input| {
            let handle = match &self.nodes[input.node].state {
                State::Present { handles, .. } => handles.get(input.output as usize).cloned(),
                _ => None,
            };
            match handle.flatten() {
                Some(handle) => handle,
                None => panic!("BUG: `{}` runs without its inputs", self.outline.name(at)),
            }
        });
        inputs.collect()
    }

    fn an_input_failed(&self, at: At) -> bool {
        let mut inputs = self.outline.nodes[at].inputs.iter();
        inputs.any(|input| matches!(self.nodes[input.node].state, State::Failed))
    }

    fn inputs_known(&self, at: At) -> bool {
        self.outline.nodes[at].inputs.iter().all(|input| {
            matches!(
                self.nodes[input.node].state,
                State::Known { .. } | State::Present { .. }
            )
        })
    }

    fn inputs_present(&self, at: At) -> bool {
        let mut inputs = self.outline.nodes[at].inputs.iter();
        inputs.all(|input| matches!(self.nodes[input.node].state, State::Present { .. }))
    }
}
