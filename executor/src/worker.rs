//! The solver's view of the world, for one build: facts, records and runs.

mod images;
mod requests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_ir::{ImageConfig, NodeId, Op, Plan, SourceOp};
use kiln_solver::{Cancel, ContentId, RunOutcome, RunRequest};
use kiln_store::{Content, Lease, Store};
use kiln_tree::aged::Age;
use kiln_tree::context::ContextTree;
use kiln_tree::{Stop, TreeDigest};

use crate::cache::Elsewhere;
use crate::cachemounts::CacheMounts;
use crate::combine;
use crate::context::{Locals, ScannedContext};
use crate::error::Error;
use crate::exec::{Aged, ExecRequest, exec};
use crate::executor::Executor;
use crate::export::Sent;
use crate::file::{self, Base, copy_whole};
use crate::mounts::TravellingMounts;
use crate::past::Past;
use crate::remotes::Remotes;
use crate::secrets::Secrets;
use crate::source::{ResolvedImage, Resolver, blocking};
use crate::ssh::Agents;
use crate::stack::{to_solver, to_store};
use crate::transfer::TransferObserver;
use crate::warning::Warn;

/// An output that is here. What it is made of is the executor's secret.
#[derive(Debug, Clone)]
pub struct Handle(pub(crate) Tree);

/// What an output is made of.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    /// Layers in the store, lowest first, leased for the build.
    Layers(Arc<[Content]>),
    /// A build context.
    Context(Arc<ScannedContext>),
}

impl Handle {
    pub(crate) fn layers(layers: Vec<Content>) -> Handle {
        Handle(Tree::Layers(layers.into()))
    }

    /// The layers that hold it; a context becomes one.
    pub(crate) fn to_layers(
        &self,
        executor: &Executor,
        lease: &Lease,
    ) -> Result<Vec<Content>, Error> {
        match &self.0 {
            Tree::Layers(layers) => Ok(layers.to_vec()),
            Tree::Context(context) => Ok(copy_whole(executor.store(), lease, context)?),
        }
    }
}

/// A context by its name in the plan and its ignore rules, scanned once for a build.
type Scans = HashMap<(String, Vec<String>), Arc<tokio::sync::OnceCell<Arc<ScannedContext>>>>;

/// A tree with whether the store keeps it already; it does when something is filed.
type SelectedTree = (Arc<ContextTree>, bool);

/// Everything that one build asks of this host.
pub struct BuildWorker {
    executor: Executor,
    lease: Lease,
    resolver: Arc<Resolver>,
    locals: Locals,
    scans: Mutex<Scans>,
    /// Selected trees of this build by digest.
    trees: Mutex<HashMap<[u8; 32], SelectedTree>>,
    images: Mutex<BTreeMap<NodeId, ResolvedImage>>,
    secrets: Arc<Secrets>,
    agents: Arc<Agents>,
    remotes: Remotes,
    travelling: Option<Arc<TravellingMounts>>,
    /// Whether the store may change.
    keeps: bool,
    /// The configs that images must have.
    configs: BTreeMap<NodeId, ImageConfig>,
    /// What was filed since explains nothing: it is of this build.
    pub(crate) begun: SystemTime,
    /// What earlier builds of the same file went by.
    pub(crate) past: Past,
    /// Ends long work of this build.
    stop: Stop,
    /// Is told of what is sent to registries.
    transfers: TransferObserver,
    /// What other machines left.
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
    /// What need not come here.
    pub(crate) sent: Sent,
    /// What shows steps other times of files.
    aged: Option<Arc<Aged>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tells work on files that it was cancelled.
pub(crate) fn stop_of(cancel: &Cancel) -> Stop {
    let cancel = cancel.clone();
    Stop::when(move || cancel.is_cancelled())
}

impl BuildWorker {
    /// Makes the worker of a build; `resolver` is the one that answered for lowering.
    pub fn new(executor: &Executor, resolver: Arc<Resolver>, locals: Locals) -> BuildWorker {
        BuildWorker {
            executor: executor.clone(),
            lease: executor.store().lease(),
            resolver,
            locals,
            scans: Mutex::default(),
            trees: Mutex::default(),
            images: Mutex::default(),
            secrets: Arc::default(),
            agents: Arc::default(),
            remotes: Remotes::new(executor),
            travelling: None,
            keeps: true,
            configs: BTreeMap::new(),
            begun: SystemTime::now(),
            past: Past::default(),
            stop: Stop::NEVER,
            transfers: TransferObserver::silent(),
            elsewhere: None,
            sent: Sent::default(),
            aged: None,
        }
    }

    /// Lets `observer` see what is sent to registries.
    #[must_use]
    pub fn with_transfers(self, observer: TransferObserver) -> BuildWorker {
        BuildWorker {
            transfers: observer,
            ..self
        }
    }

    /// Is told of what is sent to registries.
    pub fn transfers(&self) -> &TransferObserver {
        &self.transfers
    }

    /// Lets steps have secrets and ssh agents.
    #[must_use]
    pub fn with_secrets(self, secrets: Secrets) -> BuildWorker {
        let agents = Arc::new(Agents::new(secrets.agents.clone()));
        let secrets = Arc::new(secrets);
        BuildWorker {
            remotes: self
                .remotes
                .with_secrets(Arc::clone(&secrets), Arc::clone(&agents)),
            agents,
            secrets,
            ..self
        }
    }

    /// Lets cache mounts come from elsewhere.
    #[must_use]
    pub fn with_mounts(self, travelling: Arc<TravellingMounts>) -> BuildWorker {
        BuildWorker {
            travelling: Some(travelling),
            ..self
        }
    }

    /// Leaves the store as it is: what is found may be gone a moment later.
    #[must_use]
    pub(crate) fn looking(self) -> BuildWorker {
        BuildWorker {
            keeps: false,
            remotes: self.remotes.looking(),
            ..self
        }
    }

    /// Which layers are not here; the others are leased if the store may change.
    pub(crate) fn missing(&self, layers: &[Content]) -> Result<Vec<Content>, Error> {
        let store = self.executor.store();
        Ok(match self.keeps {
            true => store.lease_layers(&self.lease, layers)?,
            false => store.missing_layers(layers)?,
        })
    }

    /// Lets images have no other configs than these, which the plan was made with.
    #[must_use]
    pub fn with_configs(self, configs: BTreeMap<NodeId, ImageConfig>) -> BuildWorker {
        BuildWorker { configs, ..self }
    }

    /// Lets `cancel` end work on files early, exports included.
    #[must_use]
    pub fn with_cancel(self, cancel: &Cancel) -> BuildWorker {
        let stop = stop_of(cancel);
        BuildWorker { stop, ..self }
    }

    /// Lets results of other machines be used.
    #[must_use]
    pub fn with_elsewhere(self, elsewhere: Option<Arc<Elsewhere>>) -> BuildWorker {
        BuildWorker { elsewhere, ..self }
    }

    /// Lets reasons compare with what the builds before this one went by.
    #[must_use]
    pub fn with_past(self, past: Past) -> BuildWorker {
        BuildWorker { past, ..self }
    }

    /// Lets results stay where they are that are only sent.
    #[must_use]
    pub fn with_sent(self, sent: Sent) -> BuildWorker {
        BuildWorker { sent, ..self }
    }

    /// Lets steps see files that were made here, by them or before, as if they were older.
    ///
    /// Times up to that of `epoch`, in seconds since 1970, stay as they are, and no other gets before it.
    pub fn with_aged_files(self, by: Duration, epoch: i64) -> Result<BuildWorker, Error> {
        let by = Age { by, since: epoch };
        let aged = Some(Arc::new(Aged::new(&self.executor, by)?));
        Ok(BuildWorker { aged, ..self })
    }

    /// What ends long work of this build.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Finds out when a git or http source was last changed, in seconds since 1970.
    pub async fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, Error> {
        self.remotes.time(&self.lease, source).await
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Who hears what is doubtful about the build.
    pub(crate) fn warn(&self) -> &Warn {
        self.resolver.warn()
    }

    /// What the build's results are leased under.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn context(&self, plan: &Plan, node: NodeId) -> Result<Arc<ScannedContext>, Error> {
        let Op::Source(SourceOp::Local(local)) = &plan.graph.node(node).op else {
            unreachable!("BUG: node {node:?} is no local source");
        };
        if let Some((name, value)) = local.attrs.first_key_value() {
            return Err(unknown_attribute(name, value));
        }
        self.scanned(&local.name, &local.exclude).await
    }

    /// A directory of the caller after its ignore rules, scanned once.
    pub(crate) async fn scanned(
        &self,
        name: &str,
        exclude: &[String],
    ) -> Result<Arc<ScannedContext>, Error> {
        let path = self.locals.directories.get(name).cloned();
        let path = path.ok_or_else(|| Error::UnknownLocal {
            kind: "context",
            name: name.to_owned(),
        })?;
        let key = (name.to_owned(), exclude.to_vec());
        let cell = Arc::clone(lock(&self.scans).entry(key).or_default());
        let scan = || {
            let (store, exclude) = (self.executor.store().clone(), exclude.to_vec());
            let stop = self.stop.clone();
            let scan = match self.keeps {
                true => ScannedContext::scan,
                false => ScannedContext::look,
            };
            blocking(move || scan(&store, &path, &exclude, &stop).map(Arc::new))
        };
        cell.get_or_try_init(scan).await.cloned()
    }

    /// Keeps the trees of this build's selections, so that a later build can name what changed.
    async fn keep_trees(&self) -> Result<(), Error> {
        let new: Vec<Arc<ContextTree>> = lock(&self.trees)
            .values()
            .filter(|(_, kept)| !kept)
            .map(|(tree, _)| Arc::clone(tree))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let store = self.executor.store().clone();
        let kept = blocking(move || {
            for tree in &new {
                keep_tree(&store, tree)?;
            }
            Ok(new)
        });
        for tree in kept.await? {
            if let Some((_, kept)) = lock(&self.trees).get_mut(&tree.digest().0) {
                *kept = true;
            }
        }
        Ok(())
    }

    /// The layers that an earlier result put on top of what this run has as well, as far as they
    /// are still here.
    fn donor(
        &self,
        inputs: &[Handle],
        similar: &[Option<Vec<ContentId>>],
    ) -> Result<Vec<Content>, Error> {
        let Some(similar) = similar.iter().flatten().next() else {
            return Ok(Vec::new());
        };
        let of_input = |layer: &Content| {
            inputs.iter().any(|input| match &input.0 {
                Tree::Layers(layers) => layers.contains(layer),
                Tree::Context(_) => false,
            })
        };
        let mut donor = to_store(similar);
        donor.retain(|layer| !of_input(layer));
        let missing = self.executor.store().lease_layers(&self.lease, &donor)?;
        donor.retain(|layer| !missing.contains(layer));
        Ok(donor)
    }

    /// Carries out an op that is no source.
    async fn carry_out(
        &self,
        request: RunRequest<Handle>,
        reservation: Option<CacheMounts>,
    ) -> Result<RunOutcome<Handle>, Error> {
        let limits = request
            .display()
            .map(|display| display.limits.clone())
            .unwrap_or_default();
        let node = request.op_node();
        let outcome = match &node.op {
            Op::Exec(op) => {
                let exec_request = ExecRequest {
                    op: op.clone(),
                    platform: node.platform.clone(),
                    inputs: request.inputs,
                    limits,
                    caches: reservation.unwrap_or_default(),
                    aged: self.aged.clone(),
                    secrets: Arc::clone(&self.secrets),
                    agents: Arc::clone(&self.agents),
                    sink: request.sink,
                    cancel: request.cancel.clone(),
                };
                return exec(&self.executor, &self.lease, exec_request).await;
            }
            Op::File(op) => {
                let (executor, lease, op) = (self.executor.clone(), self.lease.clone(), op.clone());
                let inputs = request.inputs;
                let donor = self.donor(&inputs, &request.similar)?;
                let stop = stop_of(&request.cancel);
                blocking(move || {
                    let bases: Vec<Base<'_>> = inputs
                        .iter()
                        .map(|input| match &input.0 {
                            Tree::Layers(layers) => Base::Layers(layers),
                            Tree::Context(context) => Base::Context(context),
                        })
                        .collect();
                    Ok(file::run(
                        executor.store(),
                        &lease,
                        &op,
                        &bases,
                        &donor,
                        &stop,
                    )?)
                })
                .await?
            }
            Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => {
                let (executor, lease, op) =
                    (self.executor.clone(), self.lease.clone(), node.op.clone());
                let inputs = request.inputs;
                blocking(move || combined(&executor, &lease, &op, &inputs)).await?
            }
            Op::Build(_) => return Err(unsupported("a plan within a plan", "the build op")),
            Op::Source(_) => unreachable!("BUG: a source is fetched, not run"),
        };
        if request.cancel.is_cancelled() {
            return Ok(RunOutcome::Cancelled);
        }
        let mut outputs = Vec::new();
        for (number, layers) in outcome {
            let number = number as usize;
            if outputs.len() <= number {
                outputs.resize_with(number + 1, || None);
            }
            let content = to_solver(&layers);
            outputs[number] = Some((Handle::layers(layers), content));
        }
        Ok(RunOutcome::Done { outputs })
    }
}

/// The outputs of an op that only arranges its inputs, with their numbers.
fn combined(
    executor: &Executor,
    lease: &Lease,
    op: &Op,
    inputs: &[Handle],
) -> Result<Vec<(u32, Vec<Content>)>, Error> {
    let layers = |input: Option<u32>| match input {
        None => Ok(Vec::new()),
        Some(index) => inputs[index as usize].to_layers(executor, lease),
    };
    Ok(match op {
        Op::Merge(op) => {
            let inputs: Result<Vec<_>, Error> =
                op.inputs.iter().map(|input| layers(*input)).collect();
            vec![(0, combine::merge(&inputs?))]
        }
        Op::Diff(op) => {
            let (lower, upper) = (layers(op.lower)?, layers(op.upper)?);
            vec![(0, combine::diff(executor.store(), lease, &lower, &upper)?)]
        }
        Op::Passthrough(op) => {
            let outputs: Result<Vec<_>, Error> = (0..)
                .zip(&op.outputs)
                .map(|(number, input)| Ok((number, layers(Some(*input))?)))
                .collect();
            outputs?
        }
        _ => unreachable!("BUG: an op of the kind {} does more", op.kind()),
    })
}

fn keep_tree(store: &Store, tree: &ContextTree) -> Result<(), Error> {
    if store.has_tree(&tree.digest().0)? {
        return Ok(());
    }
    let objects: Vec<(TreeDigest, Vec<u8>)> = tree.objects().collect();
    let objects: Vec<([u8; 32], &[u8])> = objects
        .iter()
        .map(|(digest, bytes)| (digest.0, &bytes[..]))
        .collect();
    Ok(store.put_trees(&objects)?)
}

fn unsupported(what: &'static str, value: &str) -> Error {
    Error::Unsupported {
        what,
        value: value.to_owned(),
    }
}

fn unknown_attribute(name: &str, value: &str) -> Error {
    unsupported("an attribute of a source", &format!("{name}={value}"))
}
