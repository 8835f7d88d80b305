//! One build, from request to result.

mod checks;
mod failures;
mod prepared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kiln_executor::{
    BuildWorker, CacheContent, CacheNotices, Elsewhere, Error as ExecutorError, Export, Exported,
    ImageOptions, ImageToExport, MountsEvent, Resolver, ResultToExport, Sent, TransferEvent,
    TransferObserver, TravellingMounts, Warn, words,
};
use kiln_ir::{NetworkMode, NodeId, Op, Pin, Plan, ResolveMode, SourceOp};
use kiln_solver::{Cancel, Goal, Need, NodeNote, SolveError, SolveOptions, SolveRequest, Solver};

use checks::{check_results, platform_of};
pub(crate) use failures::failed;
use prepared::Prepared;

use crate::arguments::arguments;
use crate::attest::{Scans, Story, Vcs, predicate};
use crate::cache::{RememberedCache, asks_inline};
use crate::delivery::{Asker, Place, Tell};
use crate::ignore::IgnoreFile;
use crate::lock::pull_words;
use crate::missing::Contexts;
use crate::record::{BuildDetails, BuildRecord, Ended, Outcome};
use crate::reproduce::layer_steps;
use crate::steps::{Steps, Teller};
use crate::{BuildRequest, Entitlement, Error, Event, Kiln, StepInfo, entitlement};

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// What `kiln builds` calls this build.
    pub id: String,
    /// What was exported.
    pub exported: Exported,
    /// The steps whose layers lie on top of the base, highest first, for each result by its name.
    pub layer_steps: BTreeMap<String, Vec<StepInfo>>,
    /// How long it took.
    pub took: Duration,
    /// Why its results could not be left for other machines, where that was not to be ignored. The
    /// result itself is there.
    pub cache_failure: Option<Error>,
}

/// What solving and exporting came to.
struct Ready {
    exported: Exported,
    content: CacheContent,
    cache_failure: Option<ExecutorError>,
}

/// What is known of a build beside its request and its plan.
struct Told<'a> {
    id: &'a str,
    started: SystemTime,
    /// The Dockerfile as people know it.
    file: &'a str,
    /// Where the context came from, and what it was there.
    context: Option<&'a (SourceOp, Option<Pin>)>,
    /// What version control says of the context.
    vcs: &'a BTreeMap<String, String>,
    /// What is scanned for software beside the results.
    scans: &'a Scans,
}

impl Kiln {
    /// Builds, exports, and remembers the build.
    ///
    /// `sink` is called from many threads and must return soon. Setting `cancel` stops the build:
    /// no process, mount or half record is left.
    pub async fn build(
        &self,
        request: BuildRequest,
        sink: impl Fn(Event) + Send + Sync + 'static,
        cancel: Cancel,
    ) -> Result<Built, Error> {
        let asked = arguments(&request);
        let mut request = request;
        let sink = Arc::new(sink);
        let tell: Tell = sink.clone();
        let started = SystemTime::now();
        let clock = Instant::now();
        // A name that cannot be given is better known before an hour of building.
        let tagged = Export::Image {
            options: ImageOptions {
                names: request.tags.clone(),
                ..ImageOptions::default()
            },
        };
        for export in request.exports.iter().chain([&tagged]) {
            export.check()?;
            export.check_names(&request.tags)?;
        }
        for export in &request.exports {
            export.check_engine().await?;
        }
        request.secrets.check()?;
        let attestations = std::mem::take(&mut request.attestations);
        request.attestations = attestations.with_arguments(&request.source.build_args)?;
        let vcs = look_at_work_tree(&request).await;
        // What the caller says goes before it.
        for (name, value) in vcs.labels {
            request.source.labels.entry(name).or_insert(value);
        }
        if let Some(notice) = vcs.notice {
            sink(Event::Notice(notice));
        }
        let resolver = Resolver::new(&self.executor).telling({
            let tell = Arc::clone(&tell);
            move |words| tell(Event::Notice(words))
        });
        let resolver = resolver.warning(Warn::new({
            let tell = Arc::clone(&tell);
            move |line| tell(Event::Warning(line))
        }));
        let resolver = Arc::new(resolver);
        let elsewhere = (!request.cache_from.is_empty()).then(|| {
            let sink = Arc::clone(&sink);
            let tell: CacheNotices = Arc::new(move |line| sink(Event::Notice(line)));
            Arc::new(Elsewhere::begin(&self.executor, &request.cache_from, tell))
        });
        request.inline_cache |= asks_inline(&request.source.build_args);
        // Who gives all steps the host's network by name allows it thereby, as in buildx.
        if request.source.network == NetworkMode::Host {
            request.allow.insert(Entitlement::NetworkHost);
        }
        let frontends = &mut request.source.frontends;
        frontends.allow_exec |= request.allow.contains(&Entitlement::FrontendExec);
        frontends.cancel = cancel.clone();
        let asker = Asker {
            tell,
            cancel: cancel.clone(),
            allow: request.allow.clone(),
            ..Asker::new(Arc::clone(&resolver), request.secrets.clone())
        };
        let prepared = tokio::select! {
            prepared = self.prepare(&request, &asker) => prepared?,
            () = asker.stopped() => return Err(Error::Cancelled),
        };
        let Prepared {
            plan,
            locals,
            lineage,
            declared_args,
            shown_file,
            warnings,
            context,
            source_date_epoch,
            place,
            ignore,
            lock,
            scans,
        } = prepared;
        sink(Event::Understood(warnings));
        let mut scans = match (request.attestations.sbom, scans) {
            (false, _) => Scans::default(),
            (true, Some(scans)) => {
                Scans::of_dockerfile(scans, IgnoreFile::patterns(ignore.as_ref()))
            }
            (true, None) => Scans::none_of_plan(&request.source.build_args)?,
        };
        let plan = request.conditions.apply(plan, scans.outputs_mut());
        let (locked, configs) = (lock.names(&plan), lock.configs(&plan));
        if request.source.resolve_mode == ResolveMode::Pull && !locked.is_empty() {
            sink(Event::Notice(pull_words(&lock.shown)));
        }
        let contexts = Contexts {
            directories: locals.directories.clone(),
            brought: place.as_ref().and_then(Place::lacks),
            ignore,
            lock: lock.shown,
            locked,
        };
        entitlement::check(&plan, &request.allow)?;
        check_results(&plan, &request.exports)?;
        for target in request.cache_to.iter().filter(|to| !to.ignore_error) {
            target.place.check()?;
        }
        for export in &request.exports {
            export.check_attested(!request.attestations.is_empty())?;
        }
        request.source.source_date_epoch = source_date_epoch;
        let sent = match is_only_sent(&request) {
            true => Sent::of(&plan, &request.exports, source_date_epoch),
            false => Sent::default(),
        };
        let plan = Arc::new(plan);
        let travelling = {
            let sink = Arc::clone(&sink);
            let (from, to) = (request.mounts_from.clone(), request.mounts_to.clone());
            TravellingMounts::new(from, to, move |text| sink(Event::Notice(text)))
        };
        let travelling = Arc::new(travelling);
        let told = Arc::clone(&sink);
        let sending = TransferObserver::new(move |event| match event {
            TransferEvent::Blob {
                digest,
                size_bytes,
                state,
            } => told(Event::Sending {
                digest,
                size_bytes,
                state,
            }),
            TransferEvent::Waiting(line) => told(Event::Notice(line)),
            TransferEvent::Doing(_) | TransferEvent::Warning(_) => {}
        });
        let worker = BuildWorker::new(&self.executor, Arc::clone(&resolver), locals)
            .with_secrets(request.secrets.clone())
            .with_configs(configs)
            .with_mounts(Arc::clone(&travelling))
            .with_transfers(sending)
            .with_sent(sent)
            .with_past(self.past(&lineage))
            .with_elsewhere(elsewhere)
            .with_cancel(&cancel);
        let worker = Arc::new(match request.conditions.age {
            Some(by) => worker.with_aged_files(by, source_date_epoch.unwrap_or(0))?,
            None => worker,
        });
        // What other machines left may be all that is needed.
        if request.cache_from.is_empty() {
            self.check_runs(&plan, &worker).await?;
        }
        self.check_limits(&plan).await?;
        let teller = Arc::new(Teller::new(Steps::of(&plan), clock, move |event| {
            sink(event);
        }));
        let notes = teller
            .steps
            .notes(&lineage, &declared_args, &request.source.no_cache);
        let id = build_id(started);
        let remote = place.as_ref().and_then(|place| {
            let source = place.source.clone()?;
            Some((source, place.pin.clone()))
        });
        let told = Told {
            id: &id,
            started,
            file: &shown_file,
            context: remote.as_ref(),
            vcs: &vcs.fields,
            scans: &scans,
        };
        let result = self
            .solve_and_export(
                &request,
                &plan,
                notes,
                &teller,
                &worker,
                &contexts,
                &told,
                cancel.clone(),
            )
            .await;
        let result = match result {
            Ok(exported) => self
                .send_mounts(&travelling, &teller, &cancel)
                .await
                .map(|()| exported),
            failed => failed,
        };
        let took = clock.elapsed();
        let (traces, exports) = teller.take_trace();
        let platforms = plan.results.keys().filter(|name| !name.is_empty());
        let mut platforms: Vec<String> = platforms.cloned().collect();
        if platforms.is_empty() {
            platforms = source_platforms(&request);
        }
        let record = BuildRecord {
            id: id.clone(),
            age: String::new(),
            started,
            duration: took,
            context,
            dockerfile: shown_file,
            target: request.source.target.clone().unwrap_or_default(),
            tags: request.tags.clone(),
            result: match &result {
                Ok(ready) => ready.exported.image_id.clone().unwrap_or_default(),
                Err(error) => words(error),
            },
            details: BuildDetails {
                outcome: Some(match &result {
                    Ok(_) => Outcome::Done,
                    Err(Error::Cancelled) => Outcome::Interrupted,
                    Err(_) => Outcome::Failed,
                }),
                kiln: env!("CARGO_PKG_VERSION").to_owned(),
                lineage,
                platforms,
                arguments: asked,
                exports,
                cache: match &result {
                    Ok(ready) => RememberedCache::of(&ready.content),
                    Err(_) => RememberedCache::default(),
                },
            },
            steps: Vec::new(),
        };
        let ended = Ended {
            build: record,
            plan: &plan,
            infos: &teller.steps.infos,
            needs: teller.steps.needs(&plan),
            endings: teller.endings(),
            traces,
        };
        // A build that cannot be remembered is a build all the same, but its user should know.
        if let Err(error) = self.remember(ended) {
            teller.tell(Event::Notice(format!(
                "this build is not remembered: {}",
                words(&error)
            )));
        }
        let ready = result?;
        Ok(Built {
            id,
            exported: ready.exported,
            layer_steps: layer_steps(&plan),
            took,
            cache_failure: ready.cache_failure.map(Error::from),
        })
    }

    /// Exports the cache mounts that steps used, to where they are wanted.
    async fn send_mounts<F>(
        &self,
        travelling: &TravellingMounts,
        teller: &Teller<F>,
        cancel: &Cancel,
    ) -> Result<(), Error>
    where
        F: Fn(Event) + Send + Sync + 'static,
    {
        for place in travelling.destinations(&self.executor) {
            let clock = Instant::now();
            let what = format!("cache mounts to {place}");
            teller.tell(Event::Exporting(what.clone()));
            let waits = |event| {
                if let MountsEvent::Waiting { id, pid } = event {
                    let whom = pid.map_or("another kiln".to_owned(), |pid| {
                        format!("kiln with pid {pid}")
                    });
                    teller.tell(Event::Notice(format!(
                        "{whom} uses the cache mount `{id}`; waiting"
                    )));
                }
            };
            let sent = tokio::select! {
                sent = travelling.send(&self.executor, place, &waits) => sent?,
                () = cancel.cancelled() => return Err(Error::Cancelled),
            };
            let took = clock.elapsed();
            let changed = sent.mounts.iter().filter(|mount| !mount.unchanged).count();
            let bytes = crate::words::bytes(sent.sent_bytes);
            let words = match changed {
                0 => "nothing new".to_owned(),
                1 => format!("1 changed, {bytes} sent"),
                count => format!("{count} changed, {bytes} sent"),
            };
            teller.tell(Event::Notice(format!("{what}: {words}")));
            teller.tell(Event::Exported { what, took });
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one build, named")]
    async fn solve_and_export<F>(
        &self,
        request: &BuildRequest,
        plan: &Arc<Plan>,
        notes: BTreeMap<NodeId, NodeNote>,
        teller: &Arc<Teller<F>>,
        worker: &Arc<BuildWorker>,
        contexts: &Contexts,
        told: &Told<'_>,
        cancel: Cancel,
    ) -> Result<Ready, Error>
    where
        F: Fn(Event) + Send + Sync + 'static,
    {
        let exports = if request.exports.is_empty() {
            vec![Export::Image {
                options: ImageOptions::default(),
            }]
        } else {
            request.exports.clone()
        };
        let only_cache = exports.iter().all(|export| *export == Export::CacheOnly);
        let only_sent = is_only_sent(request);
        let need = if only_cache {
            Need::Known
        } else {
            Need::Present
        };
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let mut options = SolveOptions::for_cores(cores);
        options.keep_going = request.keep_going;
        options.jobs = request.jobs.unwrap_or(options.jobs);
        let solve = SolveRequest {
            plan: Arc::clone(plan),
            goals: goals(plan, need)
                .into_iter()
                .map(|goal| match only_sent && is_image(plan, goal.input.node) {
                    // It may go from registry to registry.
                    true => Goal {
                        need: Need::Known,
                        ..goal
                    },
                    false => goal,
                })
                .chain(told.scans.outputs().map(|input| Goal { input, need }))
                .collect(),
            notes,
            options,
        };
        let events: Arc<dyn kiln_solver::Events> = Arc::<Teller<F>>::clone(teller);
        let solved = Solver::new()
            .solve(Arc::clone(worker), solve, events, cancel.clone())
            .await;
        let solved = match solved {
            Ok(solved) => solved,
            Err(SolveError::Cancelled { .. }) => return Err(Error::Cancelled),
            Err(SolveError::Failed { failures, .. }) => {
                return Err(failed(plan, teller, contexts, failures));
            }
            Err(error) => return Err(Error::Solver(Box::new(error))),
        };
        let provenance = request.attestations.provenance.as_ref().map(|asked| {
            let story = Story {
                request,
                plan,
                pins: teller.pins(),
                context: told.context,
                vcs: told.vcs,
                file: told.file,
                id: told.id,
                started: told.started,
                finished: SystemTime::now(),
            };
            predicate(&story, asked)
        });
        let mut solved_goals = solved.goals;
        // What is scanned comes after the results, and is none of them.
        let scanned = solved_goals.split_off(goals(plan, need).len());
        let scanned: Vec<_> = scanned.into_iter().map(|goal| goal.handle).collect();
        let content = CacheContent {
            definitions: solved.definitions.values().copied().collect(),
            results: solved_goals
                .iter()
                .map(|goal| goal.content.clone())
                .collect(),
            epoch: request
                .source
                .source_date_epoch
                .filter(|_| exports.iter().all(|export| !export.keeps_times())),
            ended: None,
        };
        for goal in &mut solved_goals {
            if goal.handle.is_none() && !only_cache {
                goal.handle = Some(worker.image_handle(&goal.content).await?);
            }
        }
        let mut scans = BTreeMap::new();
        for name in plan.results.keys().filter(|_| !only_cache) {
            let beside = told.scans.beside(name, &scanned, worker).await?;
            scans.insert(name, beside);
        }
        let mut solved_goals = solved_goals.into_iter();
        let results = plan.results.iter().map(|(name, result)| {
            let goal = result.output.and_then(|_| solved_goals.next());
            let own = CacheContent {
                results: goal.iter().map(|goal| goal.content.clone()).collect(),
                // Of each image, that is seen to where it is written.
                epoch: request.source.source_date_epoch,
                ..content.clone()
            };
            Ok(ResultToExport {
                platform: platform_of(name)?,
                handle: goal.and_then(|goal| goal.handle),
                base: result.output.map(|output| plan.base(output)),
                config: result.config.clone(),
                predicates: provenance.iter().cloned().collect(),
                scans: scans.remove(name).unwrap_or_default(),
                // A base's own cache is not that of what is built on it.
                inline_cache: request.inline_cache.then_some(own),
            })
        });
        let to_export = ImageToExport {
            results: results.collect::<Result<_, Error>>()?,
            source_date_epoch: request.source.source_date_epoch,
            tags: request.tags.clone(),
            sbom: request.attestations.sbom,
        };
        let exporting = {
            let (executor, worker) = (self.executor.clone(), Arc::clone(worker));
            let teller = Arc::clone(teller);
            tokio::task::spawn_blocking(move || {
                let clock = Instant::now();
                let current = std::cell::RefCell::new(None::<String>);
                let finish = |what: Option<String>| {
                    if let Some(what) = what {
                        teller.tell(Event::Exported {
                            what,
                            took: clock.elapsed(),
                        });
                    }
                };
                let exported = executor.export(&worker, &to_export, &exports, &|what| {
                    finish(current.replace(Some(what.clone())));
                    teller.tell(Event::Exporting(what));
                });
                finish(current.take());
                exported
            })
        };
        let exported = match exporting.await {
            Ok(Err(ExecutorError::Cancelled)) => return Err(Error::Cancelled),
            Ok(exported) => exported?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let tell = |event| teller.tell(event);
        let cache_failure = self
            .export_caches(worker, &content, &request.cache_to, &tell, &cancel)
            .await?;
        Ok(Ready {
            exported,
            content,
            cache_failure,
        })
    }
}

/// Asks git of the context, where anybody is to be told.
async fn look_at_work_tree(request: &BuildRequest) -> Vcs {
    let request = request.clone();
    let looked = tokio::task::spawn_blocking(move || Vcs::look(&request));
    looked
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Whether results go to registries, and nothing here looks into them.
fn is_only_sent(request: &BuildRequest) -> bool {
    let mut exports = request.exports.iter();
    let is_sent = |export: &Export| matches!(export, Export::Registry { keep: false, .. });
    !request.attestations.sbom && !request.exports.is_empty() && exports.all(is_sent)
}

fn is_image(plan: &Plan, node: NodeId) -> bool {
    matches!(
        plan.graph.node(node).op,
        Op::Source(kiln_ir::SourceOp::Image(_))
    )
}

/// What is wanted of a plan: all its results.
pub(crate) fn goals(plan: &Plan, need: Need) -> Vec<Goal> {
    let outputs = plan.results.values().filter_map(|result| result.output);
    outputs.map(|input| Goal { input, need }).collect()
}

/// The platforms that a build with a nameless result is for.
fn source_platforms(request: &BuildRequest) -> Vec<String> {
    match &request.source.platforms[..] {
        [] => vec![kiln_executor::host_platform().to_string()],
        platforms => platforms.iter().map(ToString::to_string).collect(),
    }
}

/// An id that is unique in practice, and told apart by its first digits: nanoseconds since the epoch,
/// mixed, in base 36.
fn build_id(started: SystemTime) -> String {
    let since = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // An odd factor maps no two numbers to one; this one changes the highest bits most.
    let mut number = (since.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut digits = [b'0'; 13];
    for digit in &mut digits {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}
