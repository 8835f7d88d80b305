//! Whole builds through [`Solver`], with a worker over a world in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use kiln_ir::{Input, Mount, MountKind, Node, NodeId, Op};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::graph::{Script, counted};
use super::simulate::name;
use super::world::{World, WorldError, world};
use crate::*;

/// A worker over a world, and what it was asked to do.
#[derive(Default)]
struct Scripted {
    world: Mutex<World>,
    calls: Mutex<Vec<&'static str>>,
    /// Runs of these nodes wait until they are told to go on, or to stop.
    held: BTreeSet<NodeId>,
    go: Notify,
    /// Told when a held run begins.
    began: Notify,
    /// How many runs there are now, and how many there ever were at once.
    running: Mutex<(usize, usize)>,
    /// The cache has an error.
    broken: bool,
    /// What is elsewhere is never known.
    hangs: bool,
    /// Cache mounts that somebody uses.
    mounts: Arc<Mounts>,
}

#[derive(Default)]
struct Mounts {
    used: Mutex<BTreeSet<String>>,
    freed: Notify,
}

/// Cache mounts of one step, given back when it is dropped.
struct Reserved {
    ids: Vec<String>,
    mounts: Arc<Mounts>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut used = self.mounts.used.lock().unwrap();
        for id in &self.ids {
            used.remove(id);
        }
        self.mounts.freed.notify_waiters();
    }
}

impl Scripted {
    fn of(world: World) -> Self {
        Scripted {
            world: Mutex::new(world),
            ..Scripted::default()
        }
    }

    fn world<T>(&self, call: &'static str, then: impl FnOnce(&mut World) -> T) -> T {
        self.calls.lock().unwrap().push(call);
        then(&mut self.world.lock().unwrap())
    }

    fn count(&self, call: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|made| **made == call)
            .count()
    }
}

impl Worker for Scripted {
    type Handle = Content;
    type Guard = ();
    type Reservation = Reserved;
    type Error = WorldError;

    async fn pin(&self, source: SourceRequest) -> Result<Pinned, WorldError> {
        self.world("pin", |world| world.pin(&source.plan, source.node))
    }

    async fn digest(&self, request: DigestRequest) -> Result<Option<SelectionDigest>, WorldError> {
        self.world("digest", |world| {
            world.digest(&request.plan, &request.of, &request.selection)
        })
    }

    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, WorldError> {
        if self.broken {
            return Err(WorldError("the database is read-only".into()));
        }
        self.world("lookup", |world| {
            Ok(keys.iter().map(|&key| world.lookup(key)).collect())
        })
    }

    async fn known_ops(&self, ops: &[OpKey]) -> Result<Vec<bool>, WorldError> {
        self.world("known_ops", |world| {
            Ok(ops.iter().map(|&op| world.known_op(op)).collect())
        })
    }

    fn seeks(&self) -> bool {
        self.world.lock().unwrap().far.is_some()
    }

    async fn seek(&self, wanted: Wanted) -> Sought {
        self.calls.lock().unwrap().push("seek");
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.world.lock().unwrap().seek(&wanted)
    }

    async fn load(
        &self,
        record: &Record,
        _: &StepSink,
    ) -> Result<Option<Vec<Option<Content>>>, WorldError> {
        self.world("load", |world| Ok(world.load(record)))
    }

    async fn drop_record(&self, record: RecordId) -> Result<(), WorldError> {
        self.world("drop_record", |world| world.forget(record));
        Ok(())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched<Content>, WorldError> {
        request.sink.progress("layers", 1, Some(1));
        self.world("fetch", |world| world.fetch(&request.plan, request.node))
    }

    async fn reserve(
        &self,
        request: ReserveRequest<Content>,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<Reserved, WorldError> {
        self.calls.lock().unwrap().push("reserve");
        let Op::Exec(exec) = &request.plan.graph.node(request.node).op else {
            panic!("only steps with mounts reserve");
        };
        let ids: BTreeSet<&String> = exec
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Cache { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let mut reserved = Reserved {
            ids: Vec::new(),
            mounts: self.mounts.clone(),
        };
        for id in ids {
            if id == "broken" {
                return Err(WorldError("no such disk".into()));
            }
            loop {
                let freed = self.mounts.freed.notified();
                if self.mounts.used.lock().unwrap().insert(id.clone()) {
                    break;
                }
                waiting(WaitsFor::CacheMount(id.clone()), Some(7));
                freed.await;
            }
            reserved.ids.push(id.clone());
        }
        Ok(reserved)
    }

    async fn run(
        &self,
        request: RunRequest<Content>,
        reservation: Option<Reserved>,
    ) -> Result<RunOutcome<Content>, WorldError> {
        let reserved = reservation.as_ref().map_or(0, |mounts| mounts.ids.len());
        assert_eq!(reserved, cache_mounts(request.op_node()));
        {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let mut cancelled = false;
        if self.held.contains(&request.node) {
            self.began.notify_one();
            tokio::select! {
                () = self.go.notified() => {}
                () = request.cancel.cancelled() => cancelled = true,
            }
        }
        self.running.lock().unwrap().0 -= 1;
        if cancelled {
            self.calls.lock().unwrap().push("cleaned up");
            return Ok(RunOutcome::Cancelled);
        }
        request.sink.output(Stream::Stdout, b"out\n".to_vec());
        let outputs = self.world("run", |world| {
            world.run(&request.plan, request.node, &request.inputs)
        });
        Ok(match outputs {
            Ok(outputs) => RunOutcome::Done {
                outputs: outputs
                    .into_iter()
                    .map(|output| Some((output.clone()?, output?)))
                    .collect(),
            },
            Err(failure) => RunOutcome::Failed(failure),
        })
    }

    async fn file(&self, record: NewRecord) -> Result<Record, WorldError> {
        self.world("file", |world| Ok(world.file_record(record)))
    }

    async fn alias(&self, record: RecordId, definition: DefinitionKey) -> Result<(), WorldError> {
        self.world("alias", |world| {
            world.by_definition.insert(definition, record)
        });
        Ok(())
    }

    async fn lock(
        &self,
        _: DefinitionKey,
        _: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<Locked<()>, WorldError> {
        self.calls.lock().unwrap().push("lock");
        Ok(Locked {
            guard: (),
            waited: false,
        })
    }

    async fn nearest(
        &self,
        definition: DefinitionKey,
        op: OpKey,
        slot: Option<&Slot>,
    ) -> Result<Nearest, WorldError> {
        self.world("nearest", |world| Ok(world.nearest(definition, op, slot)))
    }

    async fn diff_trees(
        &self,
        old: TreeRef,
        new: TreeRef,
        limit: usize,
    ) -> Result<Option<TreeDiff>, WorldError> {
        self.world("diff_trees", |world| Ok(world.diff_trees(old, new, limit)))
    }
}

fn cache_mounts(node: &Node) -> usize {
    let Op::Exec(exec) = &node.op else { return 0 };
    let is_cache = |mount: &&Mount| matches!(mount.kind, MountKind::Cache { .. });
    exec.mounts.iter().filter(is_cache).count()
}

type Solution = Result<Solved<Content>, SolveError<WorldError>>;

struct Build {
    worker: Arc<Scripted>,
    script: Arc<Script>,
    goals: Vec<Goal>,
    options: SolveOptions,
    cancel: Cancel,
    solver: Solver,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Build {
    fn new(worker: &Arc<Scripted>, script: &Arc<Script>, goals: &[Input]) -> Self {
        let goals = goals.iter().map(|&input| Goal {
            input,
            need: Need::Present,
        });
        Build {
            worker: worker.clone(),
            script: script.clone(),
            goals: goals.collect(),
            options: SolveOptions::for_cores(1),
            cancel: Cancel::new(),
            solver: Solver::new(),
            events: Arc::default(),
        }
    }

    async fn solve(&self) -> Solution {
        let events = self.events.clone();
        let request = SolveRequest {
            plan: self.script.plan(),
            goals: self.goals.clone(),
            notes: self.script.notes.clone(),
            options: self.options,
        };
        let sink = move |event| events.lock().unwrap().push(event);
        self.solver
            .solve(
                self.worker.clone(),
                request,
                Arc::new(sink),
                self.cancel.clone(),
            )
            .await
    }

    /// The events in words, but for durations.
    fn log(&self) -> String {
        let events = self.events.lock().unwrap();
        // What a reason goes by, and which record stands for a node, is told beside what happens.
        let happens = events
            .iter()
            .filter(|event| !matches!(event, Event::Compared { .. } | Event::Recorded { .. }));
        happens.map(|event| self.line(event) + "\n").collect()
    }

    fn line(&self, event: &Event) -> String {
        let name = |node: &NodeId| name(&self.script, *node);
        match event {
            Event::Pinned { node, label, .. } => format!("pinned {} {label}", name(node)),
            Event::Started { node } => format!("started {}", name(node)),
            Event::Output {
                node,
                stream,
                bytes,
            } => {
                format!(
                    "{} {stream:?} {:?}",
                    name(node),
                    String::from_utf8_lossy(bytes)
                )
            }
            Event::Progress {
                node,
                what,
                current,
                total,
            } => format!("{} {what} {current} of {total:?}", name(node)),
            Event::Waiting { node, what, pid } => {
                format!("{} waits for {what:?} of {pid:?}", name(node))
            }
            Event::Reopened { node } => format!("reopened {}", name(node)),
            Event::Compared { node, .. } => format!("compared {}", name(node)),
            Event::Recorded { node, .. } => format!("recorded {}", name(node)),
            Event::Finished {
                node,
                status,
                reason,
            } => match reason {
                Some(reason) => format!("finished {}: {status}, {reason}", name(node)),
                None => format!("finished {}: {status}", name(node)),
            },
            Event::BuildFinished(summary) => format!("done: {} steps", summary.steps.len()),
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn chain() -> (Arc<Script>, Vec<Input>) {
    let (script, [_, count, sorted]) = counted();
    (Arc::new(script), vec![count, sorted])
}

#[test]
fn events_tell_the_story_of_a_rebuild() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    let build = |worker: &Arc<Scripted>| {
        let build = Build::new(worker, &script, &steps[1..]);
        runtime().block_on(build.solve()).unwrap();
        build.log()
    };
    let first = build(&worker);
    worker.world.lock().unwrap().file("context", "big", "43210");
    let changed = build(&worker);
    worker.world.lock().unwrap().file("context", "big", "01234");
    let cut_off = build(&worker);
    let nothing = build(&worker);
    insta::assert_snapshot!([first, changed, cut_off, nothing].join("\n"));
}

#[test]
fn every_node_is_finished_once_before_the_end() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    for _ in 0..2 {
        let build = Build::new(&worker, &script, &steps[1..]);
        let solved = runtime().block_on(build.solve()).unwrap();
        let mut finished = BTreeMap::new();
        for event in build.events.lock().unwrap().iter() {
            if let Event::Finished { node, status, .. } = event {
                assert!(finished.insert(*node, *status).is_none());
            }
        }
        let summed: BTreeMap<NodeId, StepStatus> = solved
            .summary
            .steps
            .iter()
            .map(|(node, step)| (*node, step.status))
            .collect();
        assert_eq!(finished, summed);
        assert_eq!(finished.len(), script.plan.graph.len());
    }
}

#[test]
fn a_hit_costs_one_lookup_and_one_load() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    runtime()
        .block_on(Build::new(&worker, &script, &steps[1..]).solve())
        .unwrap();
    worker.calls.lock().unwrap().clear();
    runtime()
        .block_on(Build::new(&worker, &script, &steps[1..]).solve())
        .unwrap();
    assert_eq!(
        *worker.calls.lock().unwrap(),
        ["pin", "digest", "lookup", "load"]
    );
}

#[test]
fn what_is_sure_to_run_is_known_before_anything_is_tried() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    let build = Build::new(&worker, &script, &steps[1..]);
    let certain = |script: &Script| {
        let plan = script.plan();
        let found = certain_runs(&*worker, &plan, &build.goals);
        runtime().block_on(found).unwrap()
    };
    let both = BTreeSet::from([steps[0].node, steps[1].node]);
    assert_eq!(certain(&script), both);
    runtime().block_on(build.solve()).unwrap();
    assert_eq!(certain(&script), BTreeSet::new());
    // Other inputs may give the same: nobody knows yet.
    worker.world.lock().unwrap().file("context", "big", "43210");
    assert_eq!(certain(&script), BTreeSet::new());
}

#[test]
fn what_is_forced_is_sure_to_run() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let below = script.run(base, "cat /etc/os /below");
    script.no_cache(true);
    let forced = script.run(below, "cat /below /forced");
    let script = Arc::new(script);
    let worker = Arc::new(Scripted::of(world()));
    let build = Build::new(&worker, &script, &[forced]);
    runtime().block_on(build.solve()).unwrap();
    let plan = script.plan();
    let certain = certain_runs(&*worker, &plan, &build.goals);
    let certain = runtime().block_on(certain).unwrap();
    assert_eq!(certain, BTreeSet::from([forced.node]));
}

#[test]
fn a_failed_step_is_the_error() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let bad = script.run(base, "exit 3");
    let script = Arc::new(script);
    let worker = Arc::new(Scripted::of(world()));
    let error = runtime()
        .block_on(Build::new(&worker, &script, &[bad]).solve())
        .unwrap_err();
    let SolveError::Failed { failures, summary } = error else {
        panic!("{error}");
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, bad.node);
    assert!(matches!(failures[0].1, Failure::Step(StepFailure::Exit(3))));
    assert_eq!(summary.steps[&bad.node].status, StepStatus::Failed);
    assert_eq!(summary.steps[&bad.node].reason, Some(Reason::New));
    assert_eq!(worker.count("file"), 0);
}

#[test]
fn a_broken_cache_ends_the_build() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted {
        broken: true,
        ..Scripted::of(world())
    });
    let build = Build::new(&worker, &script, &steps);
    let error = runtime().block_on(build.solve()).unwrap_err();
    assert!(matches!(error, SolveError::Cache(_)), "{error}");
    let last = build.log();
    assert!(last.ends_with("done: 4 steps\n"), "{last}");
}

#[test]
fn a_goal_that_is_not_there_is_refused() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    let wrong = Input {
        output: 7,
        ..steps[0]
    };
    let result = runtime().block_on(Build::new(&worker, &script, &[wrong]).solve());
    assert!(matches!(result, Err(SolveError::NoSuchGoal(_))));
}

#[test]
fn cancelling_waits_for_the_run_to_clean_up() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted {
        held: BTreeSet::from([steps[0].node]),
        ..Scripted::of(world())
    });
    let build = Build::new(&worker, &script, &steps[1..]);
    let result = runtime().block_on(async {
        let stop = async {
            worker.began.notified().await;
            build.cancel.cancel();
        };
        tokio::join!(build.solve(), stop).0
    });
    let Err(SolveError::Cancelled { summary }) = result else {
        panic!("not cancelled");
    };
    assert_eq!(worker.count("cleaned up"), 1);
    assert_eq!(worker.count("file"), 0);
    assert_eq!(summary.steps[&steps[0].node].status, StepStatus::Cancelled);
    assert_eq!(summary.steps[&steps[1].node].status, StepStatus::Skipped);
}

#[test]
fn a_failure_cancels_what_runs_beside_it() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let slow = script.run(base, "write /slow 1");
    let bad = script.run_with(base, "exit 3", &[("/m", base)], &[]);
    let script = Arc::new(script);
    let worker = Arc::new(Scripted {
        held: BTreeSet::from([slow.node]),
        ..Scripted::of(world())
    });
    let build = Build::new(&worker, &script, &[slow, bad]);
    let error = runtime().block_on(build.solve()).unwrap_err();
    let SolveError::Failed { failures, summary } = error else {
        panic!("{error}");
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(summary.steps[&slow.node].status, StepStatus::Cancelled);
    assert_eq!(worker.count("cleaned up"), 1);
}

#[test]
fn equal_steps_of_two_builds_run_once() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted {
        held: BTreeSet::from([steps[0].node]),
        ..Scripted::of(world())
    });
    let first = Build::new(&worker, &script, &steps[1..]);
    let second = Build {
        solver: first.solver.clone(),
        ..Build::new(&worker, &script, &steps[1..])
    };
    let waits = |event: &Event| matches!(event, Event::Waiting { .. });
    runtime().block_on(async {
        let go = async {
            worker.began.notified().await;
            while ![&first, &second]
                .iter()
                .any(|build| build.events.lock().unwrap().iter().any(waits))
            {
                tokio::task::yield_now().await;
            }
            worker.go.notify_one();
        };
        let (first, second, ()) = tokio::join!(first.solve(), second.solve(), go);
        assert_eq!(
            first.unwrap().goals[0].content,
            second.unwrap().goals[0].content,
        );
    });
    assert_eq!(worker.count("run"), 2);
    // Nobody else does it.
    let told = [&first, &second].map(|build| build.events.lock().unwrap().clone());
    let told = told.iter().flatten().filter_map(|event| match event {
        Event::Waiting { what, pid, .. } => Some((what, pid)),
        _ => None,
    });
    let told: BTreeSet<String> = told.map(|told| format!("{told:?}")).collect();
    assert_eq!(told, BTreeSet::from(["(EqualStep, None)".to_owned()]));
}

#[test]
fn jobs_bound_the_runs() {
    for jobs in [1, 3] {
        let mut script = Script::default();
        let base = script.image("alpine");
        let steps: Vec<Input> = (0..8)
            .map(|i| script.run(base, &format!("write /a {i}")))
            .collect();
        let script = Arc::new(script);
        let worker = Arc::new(Scripted {
            held: steps.iter().map(|step| step.node).collect(),
            ..Scripted::of(world())
        });
        let build = Build {
            options: SolveOptions {
                jobs,
                keep_going: false,
            },
            ..Build::new(&worker, &script, &steps)
        };
        runtime().block_on(async {
            let go = async {
                loop {
                    // Long enough for everything that can begin to begin.
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    worker.go.notify_waiters();
                }
            };
            tokio::select! {
                result = build.solve() => { result.unwrap(); }
                () = go => {}
            }
        });
        assert_eq!(worker.running.lock().unwrap().1, jobs);
    }
}

/// A step that needs the cache mount `c`, one that does not, and one job.
fn caching() -> (Arc<Script>, Vec<Input>) {
    let mut script = Script::default();
    let base = script.image("alpine");
    let caching = script.run_caching(base, "write /a 1", &["c"]);
    let plain = script.run(base, "write /b 2");
    (Arc::new(script), vec![caching, plain])
}

fn one_job(build: Build) -> Build {
    let options = SolveOptions {
        jobs: 1,
        keep_going: false,
    };
    Build { options, ..build }
}

#[test]
fn who_waits_for_a_cache_mount_keeps_nobody_from_running() {
    let (script, steps) = caching();
    let worker = Arc::new(Scripted::of(world()));
    // Somebody else has it until the other step has run.
    let elsewhere = Reserved {
        ids: vec!["c".into()],
        mounts: worker.mounts.clone(),
    };
    worker.mounts.used.lock().unwrap().insert("c".into());
    let build = one_job(Build::new(&worker, &script, &steps));
    runtime().block_on(async {
        let give_back = async {
            while worker.count("run") == 0 {
                tokio::task::yield_now().await;
            }
            drop(elsewhere);
        };
        let (solved, ()) = tokio::join!(build.solve(), give_back);
        solved.unwrap();
    });
    let log = build.log();
    let place = |line: &str| log.find(line).unwrap_or_else(|| panic!("{line} in {log}"));
    let waits = place("RUN write /a 1 waits for CacheMount(\"c\") of Some(7)");
    assert!(waits < place("finished RUN write /b 2"), "{log}");
    assert!(
        place("finished RUN write /b 2") < place("started RUN write /a 1"),
        "{log}"
    );
    assert!(worker.mounts.used.lock().unwrap().is_empty());
}

#[test]
fn steps_with_one_cache_mount_take_turns() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let steps: Vec<Input> = [["a", "b"], ["b", "c"], ["c", "a"], ["b", "a"]]
        .iter()
        .enumerate()
        .map(|(i, ids)| script.run_caching(base, &format!("write /a {i}"), ids))
        .collect();
    let script = Arc::new(script);
    let worker = Arc::new(Scripted::of(world()));
    runtime()
        .block_on(Build::new(&worker, &script, &steps).solve())
        .unwrap();
    assert_eq!(worker.count("run"), 4);
    assert_eq!(worker.running.lock().unwrap().1, 1);
    assert!(worker.mounts.used.lock().unwrap().is_empty());
}

#[test]
fn a_hit_reserves_nothing() {
    let (script, steps) = caching();
    let worker = Arc::new(Scripted::of(world()));
    for _ in 0..2 {
        runtime()
            .block_on(Build::new(&worker, &script, &steps).solve())
            .unwrap();
    }
    assert_eq!(worker.count("reserve"), 1);
}

#[test]
fn a_step_without_its_reservation_fails() {
    let mut script = Script::default();
    let base = script.image("alpine");
    let step = script.run_caching(base, "write /a 1", &["a", "broken"]);
    let script = Arc::new(script);
    let worker = Arc::new(Scripted::of(world()));
    let error = runtime()
        .block_on(Build::new(&worker, &script, &[step]).solve())
        .unwrap_err();
    let SolveError::Failed { failures, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(&failures[0].1, Failure::Worker(WorldError(why)) if why == "no such disk"));
    assert_eq!(worker.count("run"), 0);
    assert!(worker.mounts.used.lock().unwrap().is_empty());
}

#[test]
fn cancelling_ends_the_wait_for_a_cache_mount() {
    let (script, steps) = caching();
    let worker = Arc::new(Scripted::of(world()));
    worker.mounts.used.lock().unwrap().insert("c".into());
    let build = one_job(Build::new(&worker, &script, &steps[..1]));
    let waits = |event: &Event| matches!(event, Event::Waiting { .. });
    let result = runtime().block_on(async {
        let stop = async {
            while !build.events.lock().unwrap().iter().any(waits) {
                tokio::task::yield_now().await;
            }
            build.cancel.cancel();
        };
        tokio::join!(build.solve(), stop).0
    });
    assert!(matches!(result, Err(SolveError::Cancelled { .. })));
    assert_eq!(worker.count("run"), 0);
}

#[test]
fn a_worker_of_many_threads_comes_to_the_same() {
    let (script, steps) = chain();
    let worker = Arc::new(Scripted::of(world()));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let result = runtime
        .block_on(Build::new(&worker, &script, &steps[1..]).solve())
        .unwrap();
    let other = Arc::new(Scripted::of(world()));
    let again = super::driven::runtime()
        .block_on(Build::new(&other, &script, &steps[1..]).solve())
        .unwrap();
    assert_eq!(result.goals[0].content, again.goals[0].content);
}

#[test]
fn a_build_whose_results_are_here_waits_for_nobody_elsewhere() {
    let (world, script, top) = here_and_elsewhere();
    let worker = Arc::new(Scripted {
        hangs: true,
        ..Scripted::of(world)
    });
    let build = Build::new(&worker, &script, &[top]);
    runtime().block_on(build.solve()).unwrap();
    assert_eq!((worker.count("seek"), worker.count("run")), (0, 0));
}

#[test]
fn a_build_that_waits_for_elsewhere_can_be_stopped() {
    let (mut world, script, top) = here_and_elsewhere();
    world.move_away();
    let worker = Arc::new(Scripted {
        hangs: true,
        ..Scripted::of(world)
    });
    let build = Build::new(&worker, &script, &[top]);
    build.cancel.cancel();
    let ended = runtime().block_on(build.solve());
    assert!(matches!(ended, Err(SolveError::Cancelled { .. })));
}

#[test]
fn a_record_of_another_machine_says_where_it_is_from() {
    let (mut world, script, top) = here_and_elsewhere();
    world.move_away();
    let worker = Arc::new(Scripted::of(world));
    let build = Build::new(&worker, &script, &[top]);
    let solved = runtime().block_on(build.solve()).unwrap();
    let reason = solved.summary.steps[&top.node].reason.as_ref().unwrap();
    assert_eq!(reason.to_string(), "from far");
    assert_eq!(worker.count("run"), 0);
    // The keys of what was covered are known as well, and it is from there too; an image is what it is.
    assert_eq!(solved.definitions.len(), 3);
    let reasons = solved.summary.steps.values().map(|step| &step.reason);
    let reasons: Vec<String> = reasons.flatten().map(ToString::to_string).collect();
    assert_eq!(reasons, ["from far", "from far"]);
}

#[test]
fn what_is_covered_by_results_of_here_and_of_elsewhere_is_from_nowhere() {
    let mut world = World::default();
    world.image("alpine", "etc/os", "alpine 3");
    let mut script = Script::default();
    let base = script.image("alpine");
    let first = script.run(base, "write /a 1");
    let [own, top] = ["write /c 3", "write /b 2"].map(|command| script.run(first, command));
    super::simulate::build(&mut world, &script, &[own, top]);
    world.move_away();
    let (worker, script) = (Arc::new(Scripted::of(world)), Arc::new(script));
    let here = Build::new(&worker, &script, &[own]);
    runtime().block_on(here.solve()).unwrap();
    let both = Build::new(&worker, &script, &[own, top]);
    let solved = runtime().block_on(both.solve()).unwrap();
    let from = |input: Input| {
        let reason = &solved.summary.steps[&input.node].reason;
        reason.as_ref().map(ToString::to_string)
    };
    assert_eq!(
        [own, first, top].map(from),
        [None, None, Some("from far".to_owned())]
    );
}

/// A world that was built, with another machine that has nothing.
fn here_and_elsewhere() -> (World, Arc<Script>, Input) {
    let mut world = World::default();
    world.image("alpine", "etc/os", "alpine 3");
    let mut script = Script::default();
    let base = script.image("alpine");
    let first = script.run(base, "write /a 1");
    let top = script.run(first, "write /b 2");
    super::simulate::build(&mut world, &script, &[top]);
    world.far = Some(Box::default());
    (world, Arc::new(script), top)
}
