//! Drives the scheduler on tokio.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use kiln_ir::{Input, NodeId, Plan};
use tokio::task::{JoinError, JoinSet};

use crate::explain::{Now, choose, explain, lay_out, name_files};
use crate::inflight::{InFlight, InFlightGuard};
use crate::scheduler::Scheduler;
use crate::step::{
    Answer, Ask, Brief, Completion, Cutoff, Failed, Notice, Ran, Step, Ticket, Waited,
};
use crate::{
    Cancel, Content, DefinitionKey, DigestRequest, Event, Events, FetchRequest, Fetched, Key,
    Nearest, NewRecord, Outputs, Pinned, Reason, Record, ReserveRequest, RunOutcome, RunRequest,
    SelectionDigest, Slot, Sought, SourceRequest, StepFailure, StepName, StepSink, StepSummary,
    Summary, WaitsFor, Wanted, Worker,
};

/// What is to be built, and how.
#[derive(Debug, Clone)]
pub struct SolveRequest {
    /// The plan. Nothing of it is mutated; display and pins are read.
    pub plan: Arc<Plan>,
    /// What is wanted of it.
    pub goals: Vec<Goal>,
    /// What only the caller knows of nodes.
    pub notes: BTreeMap<NodeId, NodeNote>,
    /// Settings.
    pub options: SolveOptions,
}

/// Settings of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SolveOptions {
    /// How many runs there may be at a time; 0 counts as 1.
    pub jobs: usize,
    /// What does not need a failed step goes on.
    pub keep_going: bool,
}

/// An output that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Goal {
    /// Which.
    pub input: Input,
    /// How much of it.
    pub need: Need,
}

/// How much of an output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// That it is known what it holds: enough where nothing is exported.
    Known,
    /// The output itself.
    Present,
}

/// What only the caller knows of a node; in no key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeNote {
    /// Which step of which Dockerfile it is.
    pub slot: Option<Slot>,
    /// Its text and line; by default the name that the plan displays and its first range.
    pub name: Option<StepName>,
    /// Variables of its environment that are build arguments, not `ENV`.
    pub build_args: BTreeSet<String>,
    /// What tells it to run where the plan ignores the cache for it; by default `--no-cache`.
    pub forced_by: Option<String>,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct Solved<H> {
    /// As the goals, in order.
    pub goals: Vec<GoalResult<H>>,
    /// How every node that a goal reaches ended.
    pub summary: Summary,
    /// The definition keys of all nodes that a goal reaches, but for local sources; those of nodes
    /// that were covered too.
    pub definitions: BTreeMap<NodeId, DefinitionKey>,
}

/// What became of a goal.
#[derive(Debug, Clone)]
pub struct GoalResult<H> {
    /// The goal.
    pub goal: Goal,
    /// What it holds.
    pub content: Content,
    /// The output itself, where it was wanted.
    pub handle: Option<H>,
    /// Its record; none for an image, oci-layout or local source.
    pub record: Option<Record>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// Steps failed.
    #[error("{} failed", Failures(failures))]
    Failed {
        /// Each with its cause, in the order in which they failed; never empty.
        failures: Vec<(NodeId, Failure<E>)>,
        /// How every node ended.
        summary: Summary,
    },
    /// The build was told to stop.
    #[error("cancelled")]
    Cancelled {
        /// How every node ended.
        summary: Summary,
    },
    /// The cache itself could not be used.
    #[error("cannot use the build cache")]
    Cache(#[source] E),
    /// A goal names an output that its node does not have.
    #[error("no output {} of the node that a goal names", .0.input.output)]
    NoSuchGoal(Goal),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E: std::error::Error + 'static> {
    /// It ran and did not succeed.
    #[error(transparent)]
    Step(StepFailure),
    /// It could not be tried.
    #[error(transparent)]
    Worker(E),
}

struct Failures<'a, E: std::error::Error + 'static>(&'a [(NodeId, Failure<E>)]);

impl<E: std::error::Error + 'static> fmt::Display for Failures<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a step"),
            n => write!(f, "{n} steps"),
        }
    }
}

impl SolveOptions {
    /// The default for a machine with so many cores: 16 jobs or twice the cores, whichever is more.
    pub fn for_cores(cores: usize) -> Self {
        SolveOptions {
            jobs: cores.saturating_mul(2).max(16),
            keep_going: false,
        }
    }
}

/// Solves plans. Clones share what is in flight, so that their builds run an equal step once.
#[derive(Debug, Clone, Default)]
pub struct Solver {
    in_flight: InFlight,
}

impl Solver {
    /// A solver that shares nothing with others.
    pub fn new() -> Self {
        Solver::default()
    }

    /// Makes the goals of `request`, running only what no record is found for.
    ///
    /// Must be awaited to its end on a tokio runtime: set `cancel` to stop it, so that runs can
    /// clean up. `events` gets a [`Event::BuildFinished`] last, however the build ends, unless a goal
    /// is refused.
    pub async fn solve<W: Worker>(
        &self,
        worker: Arc<W>,
        request: SolveRequest,
        events: Arc<dyn Events>,
        cancel: Cancel,
    ) -> Result<Solved<W::Handle>, SolveError<W::Error>> {
        for goal in &request.goals {
            if !request.plan.graph.has_output(goal.input) {
                return Err(SolveError::NoSuchGoal(*goal));
            }
        }
        let scheduler = Scheduler::new(
            request.plan.clone(),
            request.goals,
            &request.notes,
            request.options,
        );
        let driver = Driver {
            scheduler: scheduler.seeking(worker.seeks()),
            worker,
            plan: request.plan,
            events,
            in_flight: self.in_flight.clone(),
            stop_runs: Cancel::new(),
            tasks: JoinSet::new(),
            runs: JoinSet::new(),
            ends: VecDeque::new(),
            guards: HashMap::new(),
            reservations: HashMap::new(),
            reasons: BTreeMap::new(),
            told: BTreeMap::new(),
            failures: Vec::new(),
        };
        driver.drive(cancel).await
    }
}

struct Driver<W: Worker> {
    scheduler: Scheduler<W::Handle>,
    worker: Arc<W>,
    plan: Arc<Plan>,
    events: Arc<dyn Events>,
    in_flight: InFlight,
    /// Told to runs when the build stops, for whatever cause.
    stop_runs: Cancel,
    /// Dropped when the build stops.
    tasks: JoinSet<End<W>>,
    /// Awaited when the build stops.
    runs: JoinSet<End<W>>,
    /// What ended without a task.
    ends: VecDeque<End<W>>,
    guards: HashMap<NodeId, (InFlightGuard, W::Guard)>,
    /// Of steps that wait for a job slot.
    reservations: HashMap<NodeId, W::Reservation>,
    reasons: BTreeMap<NodeId, Reason>,
    told: BTreeMap<NodeId, crate::StepStatus>,
    failures: Vec<(NodeId, Failure<W::Error>)>,
}

/// The end of a step, with the causes and locks that the scheduler does not see.
enum End<W: Worker> {
    Pin(NodeId, Result<Pinned, W::Error>),
    Digest(Ticket, NodeId, Result<Option<SelectionDigest>, W::Error>),
    Seek(NodeId, Wanted, Sought),
    Load(NodeId, Result<Option<Outputs<W::Handle>>, W::Error>),
    Fetch {
        node: NodeId,
        result: Result<Fetched<W::Handle>, W::Error>,
        duration: Duration,
        reason: Option<Reason>,
    },
    Lock(NodeId, Result<(InFlightGuard, W::Guard, Waited), W::Error>),
    Reserve(NodeId, Result<W::Reservation, W::Error>),
    Run {
        node: NodeId,
        result: Result<RunOutcome<W::Handle>, W::Error>,
        duration: Duration,
        reason: Option<Reason>,
    },
}

impl<W: Worker> Driver<W> {
    async fn drive(mut self, cancel: Cancel) -> Result<Solved<W::Handle>, SolveError<W::Error>> {
        let mut cache_error = None;
        let mut cancelled = false;
        loop {
            if let Err(error) = self.give_steps().await {
                cache_error = Some(error);
                break;
            }
            if self.scheduler.is_stopped() || self.scheduler.in_flight() == 0 {
                break;
            }
            if let Some(end) = self.ends.pop_front() {
                self.take(end);
                continue;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    cancelled = true;
                    break;
                }
                Some(end) = self.tasks.join_next() => self.take_joined(end),
                Some(end) = self.runs.join_next() => self.take_joined(end),
            }
            // All that has ended by now, so that what it leads to is asked in one lookup.
            while let Some(end) = self.tasks.try_join_next() {
                self.take_joined(end);
            }
        }
        self.scheduler.stop();
        self.stop_runs.cancel();
        self.tasks.shutdown().await;
        loop {
            if let (Err(error), None) = (self.give_steps().await, &cache_error) {
                cache_error = Some(error);
            }
            let Some(end) = self.runs.join_next().await else {
                break;
            };
            self.take_joined(end);
        }
        self.reservations.clear();
        self.guards.clear();
        let summary = self.sum_up();
        self.events.event(Event::BuildFinished(summary.clone()));
        if let Some(error) = cache_error {
            return Err(SolveError::Cache(error));
        }
        if !self.failures.is_empty() {
            return Err(SolveError::Failed {
                failures: self.failures,
                summary,
            });
        }
        match self.scheduler.results() {
            Some(goals) => Ok(Solved {
                goals,
                summary,
                definitions: self.scheduler.definitions(),
            }),
            None if cancelled => Err(SolveError::Cancelled { summary }),
            None => panic!("BUG: the build ended, nothing failed, and a goal is not done"),
        }
    }

    /// Does whatever the scheduler has to give. What takes no time is done here, without a task.
    async fn give_steps(&mut self) -> Result<(), W::Error> {
        while let Some(step) = self.scheduler.next() {
            self.give(step).await?;
        }
        Ok(())
    }

    async fn give(&mut self, step: Step<W::Handle>) -> Result<(), W::Error> {
        let worker = self.worker.clone();
        let plan = self.plan.clone();
        match step {
            Step::Pin { node } => {
                let request = SourceRequest { plan, node };
                self.start(async move { End::Pin(node, worker.pin(request).await) })
                    .await;
            }
            Step::Digest {
                ticket,
                consumer,
                of,
                selection,
            } => {
                let request = DigestRequest {
                    plan,
                    consumer,
                    of,
                    selection,
                };
                self.tasks.spawn(async move {
                    End::Digest(ticket, consumer, worker.digest(request).await)
                });
            }
            Step::Lookup { asks } => {
                let answers = look_up(&*worker, asks).await?;
                for (ask, answer) in &answers {
                    if let Answer::Hit(_, record) = answer {
                        self.events.event(Event::recorded(ask.node, record));
                    }
                }
                self.scheduler.complete(Completion::Lookup { answers });
            }
            Step::Seek { node, wanted } => {
                self.start(async move {
                    let sought = worker.seek(wanted.clone()).await;
                    End::Seek(node, wanted, sought)
                })
                .await;
            }
            Step::Load { node, record } => {
                let sink = StepSink::new(node, self.events.clone());
                self.start(async move { End::Load(node, worker.load(&record, &sink).await) })
                    .await;
            }
            Step::Drop { record } => worker.drop_record(record).await?,
            Step::Fetch {
                node,
                pinned,
                brief,
            } => {
                let request = FetchRequest {
                    plan,
                    node,
                    pinned,
                    sink: StepSink::new(node, self.events.clone()),
                };
                self.events.event(Event::Started { node });
                self.tasks.spawn(fetch(worker, request, brief));
            }
            Step::Lock { node, key } => {
                let in_flight = self.in_flight.clone();
                let sink = StepSink::new(node, self.events.clone());
                self.start(async move {
                    let waiting = |what, pid| sink.waiting(what, pid);
                    let equal = || sink.waiting(WaitsFor::EqualStep, None);
                    let (here, waited_here) = in_flight.lock(key, equal).await;
                    let locked = worker.lock(key, &waiting).await;
                    let locked = locked
                        .map(|locked| (here, locked.guard, Waited(waited_here || locked.waited)));
                    End::Lock(node, locked)
                })
                .await;
            }
            Step::Reserve { node, inputs } => {
                let request = ReserveRequest { plan, node, inputs };
                let sink = StepSink::new(node, self.events.clone());
                self.start(async move {
                    let waiting = |what, pid| sink.waiting(what, pid);
                    End::Reserve(node, worker.reserve(request, &waiting).await)
                })
                .await;
            }
            Step::Unlock { node } => {
                self.reservations.remove(&node);
                self.guards.remove(&node);
            }
            Step::Run {
                node,
                inputs,
                brief,
            } => {
                let request = RunRequest {
                    plan,
                    node,
                    inputs,
                    similar: Outputs::new(),
                    sink: StepSink::new(node, self.events.clone()),
                    cancel: self.stop_runs.clone(),
                };
                self.events.event(Event::Started { node });
                let reservation = self.reservations.remove(&node);
                self.runs.spawn(run(worker, request, reservation, brief));
            }
            Step::File { node, record } => {
                let record: NewRecord = *record;
                let record = worker.file(record).await?;
                self.events.event(Event::recorded(node, &record));
                self.scheduler.complete(Completion::File { node, record });
            }
            Step::Alias { record, definition } => worker.alias(record, definition).await?,
            Step::Tell(notice) => self.tell(notice),
        }
        Ok(())
    }

    /// Polls a future once, and makes it a task only if it has to wait.
    async fn start(&mut self, future: impl Future<Output = End<W>> + Send + 'static) {
        let mut future = Box::pin(future);
        let end = poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(end) => Some(end),
                Poll::Pending => None,
            })
        });
        match end.await {
            Some(end) => self.ends.push_back(end),
            None => {
                self.tasks.spawn(future);
            }
        }
    }

    fn take_joined(&mut self, end: Result<End<W>, JoinError>) {
        match end {
            Ok(end) => self.take(end),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => panic!("BUG: a task of the build was aborted: {error}"),
            },
        }
    }

    fn take(&mut self, end: End<W>) {
        let completion = match end {
            End::Pin(node, result) => Completion::Pin {
                node,
                result: result.map_err(|error| self.failed(node, error)),
            },
            End::Digest(ticket, consumer, result) => Completion::Digest {
                ticket,
                result: result.map_err(|error| self.failed(consumer, error)),
            },
            End::Seek(node, wanted, sought) => {
                if let Some(found) = &sought.found {
                    self.events.event(Event::recorded(node, &found.record));
                }
                Completion::Seek {
                    node,
                    wanted,
                    sought,
                }
            }
            End::Load(node, result) => Completion::Load {
                node,
                result: result.map_err(|error| self.failed(node, error)),
            },
            End::Fetch {
                node,
                result,
                duration,
                reason,
            } => {
                self.reasons.extend(reason.map(|reason| (node, reason)));
                Completion::Fetch {
                    node,
                    result: result.map_err(|error| self.failed(node, error)),
                    duration,
                }
            }
            End::Lock(node, result) => Completion::Lock {
                node,
                result: match result {
                    Ok((here, guard, waited)) => {
                        self.guards.insert(node, (here, guard));
                        Ok(waited)
                    }
                    Err(error) => Err(self.failed(node, error)),
                },
            },
            End::Reserve(node, result) => Completion::Reserve {
                node,
                result: match result {
                    Ok(reservation) => {
                        self.reservations.insert(node, reservation);
                        Ok(())
                    }
                    Err(error) => Err(self.failed(node, error)),
                },
            },
            End::Run {
                node,
                result,
                duration,
                reason,
            } => {
                self.reasons.extend(reason.map(|reason| (node, reason)));
                let result = match result {
                    Ok(RunOutcome::Done { outputs }) => Ran::Done(outputs),
                    Ok(RunOutcome::Failed(failure)) => {
                        self.failures.push((node, Failure::Step(failure)));
                        Ran::Failed
                    }
                    Ok(RunOutcome::Cancelled) => Ran::Cancelled,
                    Err(error) => {
                        self.failed(node, error);
                        Ran::Failed
                    }
                };
                Completion::Run {
                    node,
                    result,
                    duration,
                }
            }
        };
        self.scheduler.complete(completion);
    }

    fn failed(&mut self, node: NodeId, error: W::Error) -> Failed {
        // Questions about one node are asked at once and fail alike: one answer says it.
        if self.failures.iter().all(|(failed, _)| *failed != node) {
            self.failures.push((node, Failure::Worker(error)));
        }
        Failed
    }

    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::Pinned { node, label, pin } => {
                self.events.event(Event::Pinned { node, label, pin });
            }
            Notice::Reopened { node } => {
                self.told.remove(&node);
                self.reasons.remove(&node);
                self.events.event(Event::Reopened { node });
            }
            Notice::Imported { node, from } => {
                self.reasons.insert(node, Reason::Imported { from });
            }
            Notice::Finished {
                node,
                status,
                cutoff,
            } => {
                // Where a record is from tells more than what found it.
                let is_imported = matches!(self.reasons.get(&node), Some(Reason::Imported { .. }));
                let cutoff = cutoff.filter(|_| !is_imported);
                let cutoff = cutoff.map(|cutoff| match cutoff {
                    Cutoff::SameBytes => Reason::SameBytes,
                    Cutoff::SameInput => Reason::SameInput,
                });
                self.reasons.extend(cutoff.map(|reason| (node, reason)));
                self.finished(node, status);
            }
        }
    }

    fn finished(&mut self, node: NodeId, status: crate::StepStatus) {
        self.told.insert(node, status);
        self.events.event(Event::Finished {
            node,
            status,
            reason: self.reasons.get(&node).cloned(),
        });
    }

    /// Tells of every node that nothing was told of yet, inputs first, and sums up.
    fn sum_up(&mut self) -> Summary {
        let statuses = self.scheduler.statuses();
        self.say_what_covers(&statuses);
        for (&node, &status) in &statuses {
            if self.told.get(&node) != Some(&status) {
                self.finished(node, status);
            }
        }
        let steps = statuses.into_iter().map(|(node, status)| {
            let reason = self.reasons.get(&node).cloned();
            (node, StepSummary { status, reason })
        });
        Summary {
            steps: steps.collect(),
        }
    }

    /// What was not looked up is from another machine, too, if all that is made of it is.
    fn say_what_covers(&mut self, statuses: &BTreeMap<NodeId, crate::StepStatus>) {
        let mut places: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
        for (node, consumers) in self.scheduler.covered(statuses) {
            let from: Option<Vec<BTreeSet<String>>> = consumers
                .iter()
                .map(|consumer| match self.reasons.get(consumer) {
                    Some(Reason::Imported { from }) => {
                        let itself = || BTreeSet::from([from.clone()]);
                        Some(places.get(consumer).cloned().unwrap_or_else(itself))
                    }
                    _ => None,
                })
                .collect();
            let Some(from) = from.filter(|from| !from.is_empty()) else {
                continue;
            };
            let from: BTreeSet<String> = from.into_iter().flatten().collect();
            let named = from.iter().cloned().collect::<Vec<_>>().join(", ");
            self.reasons.insert(node, Reason::Imported { from: named });
            places.insert(node, from);
        }
    }
}

/// Answers all questions with one call for the records, and one for the ops of those without.
async fn look_up<W: Worker>(worker: &W, asks: Vec<Ask>) -> Result<Vec<(Ask, Answer)>, W::Error> {
    let keys: Vec<Key> = asks
        .iter()
        .flat_map(|ask| ask.keys.iter().copied())
        .collect();
    let mut records = match keys.is_empty() {
        true => Vec::new(),
        false => worker.lookup(&keys).await?,
    }
    .into_iter();
    let hits: Vec<Option<(Key, Record)>> = asks
        .iter()
        .map(|ask| {
            let found: Vec<_> = ask
                .keys
                .iter()
                .map(|&key| (key, records.next().flatten()))
                .collect();
            found
                .into_iter()
                .find_map(|(key, record)| Some((key, record?)))
        })
        .collect();
    let ops: Vec<_> = asks
        .iter()
        .zip(&hits)
        .filter(|(_, hit)| hit.is_none())
        .filter_map(|(ask, _)| ask.op)
        .collect();
    let mut known = match ops.is_empty() {
        true => Vec::new(),
        false => worker.known_ops(&ops).await?,
    }
    .into_iter();
    let answers = asks.into_iter().zip(hits).map(|(ask, hit)| {
        let answer = match hit {
            Some((key, record)) => Answer::Hit(key, record),
            None => Answer::Miss {
                op_known: ask.op.is_some() && known.next().unwrap_or(false),
            },
        };
        (ask, answer)
    });
    Ok(answers.collect())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the driver times what the worker does"
)]
async fn fetch<W: Worker>(
    worker: Arc<W>,
    request: FetchRequest,
    brief: Option<Box<Brief>>,
) -> End<W> {
    let node = request.node;
    let reason = match brief {
        Some(brief) => why(&*worker, &brief, &request.sink).await.0,
        None => None,
    };
    let start = Instant::now();
    let result = worker.fetch(request).await;
    End::Fetch {
        node,
        result,
        duration: start.elapsed(),
        reason,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the driver times what the worker does"
)]
async fn run<W: Worker>(
    worker: Arc<W>,
    mut request: RunRequest<W::Handle>,
    reservation: Option<W::Reservation>,
    brief: Box<Brief>,
) -> End<W> {
    let node = request.node;
    // Before the run, whose record would be the nearest afterwards; files are named beside it.
    let (reason, similar) = why(&*worker, &brief, &request.sink).await;
    request.similar = similar;
    let naming = async {
        match reason {
            Some(reason) => Some(name_files(&*worker, reason).await),
            None => None,
        }
    };
    let start = Instant::now();
    let running = async {
        let result = worker.run(request, reservation).await;
        (result, start.elapsed())
    };
    let ((result, duration), reason) = tokio::join!(running, naming);
    End::Run {
        node,
        result,
        duration,
        reason,
    }
}

/// Why a step has to run, and the outputs of what it is compared with; no reason if the worker has
/// an error instead of an answer, since a step does not fail for want of an explanation.
async fn why<W: Worker>(
    worker: &W,
    brief: &Brief,
    sink: &StepSink,
) -> (Option<Reason>, Outputs<Content>) {
    if let Some(by) = &brief.forced {
        return (Some(Reason::Forced { by: by.clone() }), Outputs::new());
    }
    let nearest = worker.nearest(brief.definition, brief.op, brief.slot.as_ref());
    let nearest = nearest.await.ok();
    let is_lost = |nearest: &Nearest| nearest.lost_elsewhere.is_some();
    if brief.content_gone && !nearest.as_ref().is_some_and(is_lost) {
        return (Some(Reason::ContentGone), Outputs::new());
    }
    let Some(nearest) = nearest else {
        return (None, Outputs::new());
    };
    let now = Now {
        definition: brief.definition,
        op: brief.op,
        slot: brief.slot.as_ref(),
        facts: &brief.facts,
        ran_inputs: &brief.ran_inputs,
    };
    let similar = choose(now, &nearest).map(|candidate| candidate.outputs.clone());
    sink.compared(lay_out(now, &nearest));
    (Some(explain(now, &nearest)), similar.unwrap_or_default())
}
