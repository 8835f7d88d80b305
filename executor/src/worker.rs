//! The solver's view of the world, for one build: facts, records and runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kiln_ir::{
    ImageConfig, ImageSource, NodeId, OciLayoutSource, Op, Pin, Plan, Platform, ResolveMode,
    SourceOp,
};
use kiln_solver::{
    Cancel, Candidate, ContentId, DefinitionKey, DigestOf, DigestRequest, FetchRequest, Fetched,
    FileChange, FileChangeKind, Imported, Key, Locked, Nearest, NewRecord, OpKey, Pinned, Record,
    RecordId, ReserveRequest, RunOutcome, RunRequest, SelectionDigest, Slot, Sought, SourceRequest,
    StepSink, TreeDiff, TreeRef, WaitsFor, Wanted, Worker,
};
use kiln_store::{Content, DiffId, KeyLock, Lease, LockAttempt, Store};
use kiln_tree::context::{ContextTree, What, changes};
use kiln_tree::{Stop, TreeDigest};

use crate::cache::Elsewhere;
use crate::cachemounts::CacheMounts;
use crate::combine;
use crate::context::{Locals, ScannedContext};
use crate::error::Error;
use crate::exec::{ExecRequest, exec};
use crate::executor::{Executor, host_platform};
use crate::file::{self, Base, copy_whole, open_layers};
use crate::filed::{
    FiledParts, candidate, imported_candidate, lineage, nanos, record, store_key, words_of_mark,
};
use crate::mounts::TravellingMounts;
use crate::patience::Patience;
use crate::remotes::Remotes;
use crate::secrets::Secrets;
use crate::select;
use crate::source::{ResolvedImage, Resolver, blocking, fetch, fetch_archive};
use crate::ssh::Agents;
use crate::stack::{to_solver, to_store};
use crate::transfer::TransferObserver;

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
    begun: SystemTime,
    /// Ends long work of this build.
    stop: Stop,
    /// Is told of what is sent to registries.
    transfers: TransferObserver,
    /// What other machines left.
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
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
            stop: Stop::NEVER,
            transfers: TransferObserver::silent(),
            elsewhere: None,
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

    async fn image(&self, plan: &Plan, node: NodeId) -> Result<ResolvedImage, Error> {
        if let Some(image) = lock(&self.images).get(&node) {
            return Ok(image.clone());
        }
        let pin = match plan.pins.get(&node) {
            Some(Pin::Manifest(digest)) => Some(digest.as_str()),
            _ => None,
        };
        let this = plan.graph.node(node);
        let platform = this.platform.clone().unwrap_or_else(host_platform);
        let image = match &this.op {
            Op::Source(SourceOp::Image(source)) => {
                self.registry_image(source, &platform, pin).await?
            }
            Op::Source(SourceOp::OciLayout(source)) => self.layout_image(source, &platform, pin)?,
            Op::Source(SourceOp::Blob(blob)) => {
                return Err(unsupported("a blob source", &blob.reference));
            }
            _ => unreachable!("BUG: node {node:?} is no source that is pinned"),
        };
        let other = self
            .configs
            .get(&node)
            .is_some_and(|config| *config != image.config);
        if let (true, Op::Source(SourceOp::Image(source))) = (other, &this.op) {
            return Err(Error::OtherConfig {
                reference: source.reference.clone(),
                digest: image.manifest_digest,
            });
        }
        lock(&self.images).insert(node, image.clone());
        Ok(image)
    }

    async fn registry_image(
        &self,
        source: &ImageSource,
        platform: &Platform,
        pin: Option<&str>,
    ) -> Result<ResolvedImage, Error> {
        if let Some((name, value)) = source.attrs.first_key_value() {
            return Err(unknown_attribute(name, value));
        }
        let image = match pin.or(source.checksum.as_deref()) {
            Some(wanted) => self.pinned_image(source, platform, wanted).await?,
            None => {
                self.resolver
                    .image(&source.reference, platform, source.resolve_mode)
                    .await?
            }
        };
        Ok(limited(image, source.layer_limit))
    }

    /// The image that a pin names, whatever its tag means now, without asking about the tag.
    async fn pinned_image(
        &self,
        source: &ImageSource,
        platform: &Platform,
        wanted: &str,
    ) -> Result<ResolvedImage, Error> {
        let (name, mode) = (&source.reference, source.resolve_mode);
        let is_wanted = |image: &ResolvedImage| image.manifest_digest == wanted;
        if let Some(image) = self.resolver.known(name, platform, mode).filter(is_wanted) {
            return Ok(image);
        }
        let local = self.resolver.image(name, platform, ResolveMode::Local);
        if let Some(image) = local.await.ok().filter(is_wanted) {
            return Ok(image);
        }
        let name = name.split('@').next().unwrap_or_default();
        // A digest means the same for ever, so that nobody is asked twice.
        let mode = match mode {
            ResolveMode::Pull => ResolveMode::Default,
            mode => mode,
        };
        let pinned = format!("{name}@{wanted}");
        self.resolver.image(&pinned, platform, mode).await
    }

    fn layout_image(
        &self,
        source: &OciLayoutSource,
        platform: &Platform,
        pin: Option<&str>,
    ) -> Result<ResolvedImage, Error> {
        if let Some((name, value)) = source.attrs.first_key_value() {
            return Err(unknown_attribute(name, value));
        }
        let image = self
            .resolver
            .layout(&self.locals, &source.reference, platform)?;
        let image = match pin {
            Some(pin) if image.manifest_digest != pin => {
                // The layout was written to since the pin was taken; the pin counts.
                let name = source.reference.split('@').next().unwrap_or_default();
                let pinned = format!("{name}@{pin}");
                self.resolver.layout(&self.locals, &pinned, platform)?
            }
            _ => image,
        };
        Ok(limited(image, source.layer_limit))
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

    /// Brings the archive of a layer here once more; tells whether some image of this plan, which
    /// is not in the store itself, has the layer.
    ///
    /// Must be called where blocking is allowed, on a thread of a runtime.
    pub(crate) fn fetch_archive(&self, layer: DiffId) -> Result<bool, Error> {
        for image in self.resolved_images() {
            let bring = fetch_archive(&self.executor, &self.lease, &image, layer, &self.stop);
            if image.can_bring(layer, self.executor.options().offline)
                && tokio::runtime::Handle::current().block_on(bring)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The images of this plan that are known by now.
    pub(crate) fn resolved_images(&self) -> Vec<ResolvedImage> {
        lock(&self.images).values().cloned().collect()
    }

    /// Fetches the images of this plan that have one of these layers.
    pub(crate) async fn fetch_missing(&self, missing: &[Content]) -> Result<(), Error> {
        for image in self.resolved_images() {
            let has = |layer: &Content| matches!(layer, Content::DiffId(id) if image.diff_ids.contains(id));
            if missing.iter().any(has) {
                let stop = &self.stop;
                fetch(&self.executor, &self.lease, &image, None, stop).await?;
            }
        }
        Ok(())
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

fn limited(mut image: ResolvedImage, limit: Option<u32>) -> ResolvedImage {
    if let Some(limit) = limit {
        image.diff_ids.truncate(limit as usize);
    }
    image
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

/// What an image is to keys: its layers, wherever they come from. How it is configured is in the plan.
fn identity(image: &ResolvedImage) -> Vec<u8> {
    let ids = image.diff_ids.iter().map(|id| format!(" {id}"));
    format!("layers{}", ids.collect::<String>()).into_bytes()
}

impl Worker for BuildWorker {
    type Handle = Handle;
    type Guard = KeyLock;
    type Reservation = CacheMounts;
    type Error = Error;

    async fn pin(&self, request: SourceRequest) -> Result<Pinned, Error> {
        match &request.plan.graph.node(request.node).op {
            Op::Source(SourceOp::Git(source)) => {
                return self.remotes.pin_git(&request, source).await;
            }
            Op::Source(SourceOp::Http(source)) => {
                return self.remotes.pin_http(&self.lease, &request, source).await;
            }
            _ => {}
        }
        let image = self.image(&request.plan, request.node).await?;
        let layers = Content::of_image(&image.diff_ids);
        Ok(Pinned {
            identity: identity(&image),
            content: Some(to_solver(&layers)),
            pin: Pin::Manifest(image.manifest_digest),
            label: image.label,
        })
    }

    async fn digest(&self, request: DigestRequest) -> Result<Option<SelectionDigest>, Error> {
        match request.of {
            DigestOf::Local(node) => {
                let context = self.context(&request.plan, node).await?;
                let selection = Arc::clone(&request.selection);
                let (digest, tree) = if selection.is_all() {
                    // Nothing to walk: the scan has digested it.
                    select::of_context(&context, &selection)?
                } else {
                    blocking(move || select::of_context(&context, &selection)).await?
                };
                lock(&self.trees)
                    .entry(tree.digest().0)
                    .or_insert((tree, false));
                Ok(Some(digest))
            }
            DigestOf::Layers(content) => {
                let layers = to_store(&content);
                let store = self.executor.store().clone();
                if !self.missing(&layers)?.is_empty() {
                    return Ok(None);
                }
                let selection = Arc::clone(&request.selection);
                blocking(move || {
                    let layers = open_layers(&store, &layers)?;
                    select::of_layers(&layers, &selection).map(Some)
                })
                .await
            }
        }
    }

    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, Error> {
        let keys: Vec<kiln_store::Key> = keys.iter().map(store_key).collect();
        let store = self.executor.store();
        let found = match self.keeps {
            true => store.find(&self.lease, &keys)?,
            false => store.peek(&keys)?,
        };
        let usable = |found: kiln_store::Record| {
            let gone = found
                .missing
                .iter()
                .any(|layer| matches!(layer, Content::Layer(_)));
            (!gone).then(|| record(found))
        };
        Ok(found
            .into_iter()
            .map(|found| found.and_then(usable))
            .collect())
    }

    async fn known_ops(&self, ops: &[OpKey]) -> Result<Vec<bool>, Error> {
        let store = self.executor.store();
        ops.iter()
            .map(|op| Ok(store.has_op(&kiln_store::OpKey(op.0))?))
            .collect()
    }

    fn seeks(&self) -> bool {
        self.elsewhere.is_some()
    }

    async fn seek(&self, wanted: Wanted) -> Sought {
        let Some(elsewhere) = &self.elsewhere else {
            return Sought::default();
        };
        let keys: Vec<kiln_store::Key> = wanted.keys.iter().map(store_key).collect();
        let op = wanted.op.map(|op| kiln_store::OpKey(op.0));
        let (found, op_known) = elsewhere.seek(&keys, op).await;
        let imported = found.and_then(|found| {
            let key = wanted.keys.iter().find(|key| store_key(key) == found.key)?;
            Some(Imported {
                key: *key,
                record: Record {
                    id: RecordId(found.id),
                    outputs: found
                        .record
                        .outputs
                        .iter()
                        .map(|output| output.as_deref().map(to_solver))
                        .collect(),
                    created_unix_nanos: nanos(found.record.created),
                    duration: found.record.took,
                },
                from: found.from,
            })
        });
        Sought {
            found: imported,
            op_known,
        }
    }

    async fn load(
        &self,
        record: &Record,
        sink: &StepSink,
    ) -> Result<Option<Vec<Option<Handle>>>, Error> {
        let store = self.executor.store();
        let mut handles = Vec::with_capacity(record.outputs.len());
        for output in &record.outputs {
            let Some(content) = output else {
                handles.push(None);
                continue;
            };
            let layers = to_store(content);
            let mut missing = store.lease_layers(&self.lease, &layers)?;
            if missing
                .iter()
                .any(|layer| matches!(layer, Content::DiffId(_)))
            {
                self.fetch_missing(&missing).await?;
                missing = store.lease_layers(&self.lease, &layers)?;
            }
            if let (Some(elsewhere), false) = (&self.elsewhere, missing.is_empty()) {
                elsewhere
                    .bring(&self.lease, &missing, sink, &self.stop)
                    .await;
                missing = store.lease_layers(&self.lease, &layers)?;
            }
            if !missing.is_empty() {
                return Ok(None);
            }
            handles.push(Some(Handle::layers(layers)));
        }
        if let (Some(elsewhere), true) = (&self.elsewhere, record.id.0 < 0) {
            elsewhere.adopt(&self.lease, record.id.0)?;
        }
        Ok(Some(handles))
    }

    async fn drop_record(&self, record: RecordId) -> Result<(), Error> {
        if let (Some(elsewhere), true) = (&self.elsewhere, record.0 < 0) {
            elsewhere.forget(record.0);
            return Ok(());
        }
        Ok(self
            .executor
            .store()
            .drop_record(kiln_store::RecordId(record.0), "the loss of its layers")?)
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched<Handle>, Error> {
        if let Op::Source(SourceOp::Local(_)) = &request.plan.graph.node(request.node).op {
            let context = self.context(&request.plan, request.node).await?;
            return Ok(Fetched {
                handle: Handle(Tree::Context(context)),
                content: Vec::new(),
                transferred: false,
            });
        }
        if let Some(layer) = self.remotes.fetch(&self.lease, &request).await? {
            return Ok(Fetched {
                content: to_solver(&[layer]),
                handle: Handle::layers(vec![layer]),
                transferred: true,
            });
        }
        let image = self.image(&request.plan, request.node).await?;
        let (layers, transferred) = fetch(
            &self.executor,
            &self.lease,
            &image,
            Some(&TransferObserver::of_step(&request.sink)),
            &self.stop,
        )
        .await?;
        let content = to_solver(&layers);
        Ok(Fetched {
            handle: Handle::layers(layers),
            content,
            transferred,
        })
    }

    async fn reserve(
        &self,
        request: ReserveRequest<Handle>,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<CacheMounts, Error> {
        let Op::Exec(op) = &request.plan.graph.node(request.node).op else {
            unreachable!("BUG: only a step with cache mounts reserves");
        };
        CacheMounts::take(
            &self.executor,
            &self.lease,
            op,
            &request.inputs,
            self.travelling.as_deref(),
            waiting,
        )
        .await
    }

    async fn run(
        &self,
        request: RunRequest<Handle>,
        reservation: Option<CacheMounts>,
    ) -> Result<RunOutcome<Handle>, Error> {
        let cancel = request.cancel.clone();
        match self.carry_out(request, reservation).await {
            // Work that was given up ends in whatever error it was at.
            Err(_) if cancel.is_cancelled() => Ok(RunOutcome::Cancelled),
            outcome => outcome,
        }
    }

    async fn file(&self, new: NewRecord) -> Result<Record, Error> {
        self.keep_trees().await?;
        let mut keys = vec![store_key(&Key::Definition(new.definition))];
        keys.extend(new.content.map(|key| store_key(&Key::Content(key))));
        let filed = FiledParts {
            definition: new.definition.0,
            facts: new.facts,
        };
        let parts = serde_json::to_vec(&filed).expect("BUG: facts are always JSON");
        let created = SystemTime::now();
        let filed = kiln_store::NewRecord {
            keys,
            op: kiln_store::OpKey(new.op.0),
            slot: new.slot.map(|slot| (lineage(&slot.lineage), slot.step)),
            outputs: new
                .outputs
                .iter()
                .map(|output| output.as_deref().map(to_store))
                .collect(),
            parts,
            created,
            duration: new.duration,
        };
        let id = self.executor.store().file_record(&self.lease, &filed)?;
        Ok(Record {
            id: RecordId(id.0),
            outputs: new.outputs,
            created_unix_nanos: nanos(created),
            duration: new.duration,
        })
    }

    async fn alias(&self, record: RecordId, definition: DefinitionKey) -> Result<(), Error> {
        let key = store_key(&Key::Definition(definition));
        if let (Some(elsewhere), true) = (&self.elsewhere, record.0 < 0) {
            elsewhere.alias(record.0, key);
            return Ok(());
        }
        // A record that is gone by now needs no more keys.
        self.executor
            .store()
            .alias(kiln_store::RecordId(record.0), &key)?;
        Ok(())
    }

    async fn lock(
        &self,
        key: DefinitionKey,
        waiting: &(dyn Fn(Option<u32>) + Send + Sync),
    ) -> Result<Locked<KeyLock>, Error> {
        let mut waited = false;
        let mut patience = Patience::new();
        loop {
            match self.executor.store().try_lock_key(&key.0)? {
                LockAttempt::Held(guard) => return Ok(Locked { guard, waited }),
                LockAttempt::Busy(pid) => {
                    waited = true;
                    if patience.tells(pid) {
                        waiting(pid);
                    }
                }
            }
            patience.pause().await;
        }
    }

    async fn nearest(
        &self,
        definition: DefinitionKey,
        op: OpKey,
        slot: Option<&Slot>,
    ) -> Result<Nearest, Error> {
        let store = self.executor.store();
        let named = slot.map(|slot| (lineage(&slot.lineage), slot.step.as_str()));
        let near = store.nearest(
            &kiln_store::OpKey(op.0),
            named.as_ref().map(|(lineage, step)| (lineage, *step)),
        )?;
        let marks = store.tombstones(&[store_key(&Key::Definition(definition))])?;
        let tombstone = marks.into_iter().flatten().next();
        // The store knows lineages by their hash; the one that was asked for is known by its name.
        let asked = slot.map(|slot| (lineage(&slot.lineage).to_string(), &slot.lineage));
        let named = |mut candidate: Candidate| {
            if let (Some(found), Some((hash, name))) = (candidate.slot.as_mut(), &asked)
                && found.lineage == *hash
            {
                found.lineage.clone_from(name);
            }
            candidate
        };
        let lookup = (
            kiln_store::OpKey(op.0),
            slot.map(|slot| (lineage(&slot.lineage), slot.step.as_str())),
        );
        let (op_elsewhere, slot_elsewhere) = match &self.elsewhere {
            Some(elsewhere) => {
                let (op, slot) = &lookup;
                elsewhere.nearest(op, slot.as_ref().map(|(lineage, step)| (lineage, *step)))
            }
            None => (None, None),
        };
        let here = near.by_slot.and_then(candidate);
        let same_slot = here.or_else(|| slot_elsewhere.and_then(imported_candidate));
        let here = near
            .by_op
            .filter(|record| record.created < self.begun)
            .and_then(candidate);
        let same_op = here.or_else(|| op_elsewhere.and_then(imported_candidate));
        Ok(Nearest {
            same_slot: same_slot.map(&named),
            same_op: same_op.map(&named),
            tombstone: tombstone.map(words_of_mark),
            slot_tombstone: near.tombstone.map(words_of_mark),
        })
    }

    async fn diff_trees(
        &self,
        old: TreeRef,
        new: TreeRef,
        limit: usize,
    ) -> Result<Option<TreeDiff>, Error> {
        let Some(tree) = lock(&self.trees)
            .get(&new.0)
            .map(|(tree, _)| Arc::clone(tree))
        else {
            return Ok(None);
        };
        let store = self.executor.store();
        if !store.has_tree(&old.0)? {
            return Ok(None);
        }
        // Counting goes on for a while, so that "and 3 more" is mostly exact.
        let most = limit.saturating_add(10_000);
        let mut load = |digest: TreeDigest| store.get_tree(&digest.0).ok().flatten();
        let found = changes(TreeDigest(old.0), &tree, &mut load, most);
        let more = found.len().saturating_sub(limit);
        let changes = found
            .into_iter()
            .take(limit)
            .filter_map(file_change)
            .collect();
        Ok(Some(TreeDiff { changes, more }))
    }
}

fn file_change(change: kiln_tree::context::Change) -> Option<FileChange> {
    let kind = match change.what {
        What::Added => FileChangeKind::Added,
        What::Removed => FileChangeKind::Removed,
        What::Content { old_size, new_size } => FileChangeKind::Content { old_size, new_size },
        What::Mode { old, new } => FileChangeKind::Mode { old, new },
        What::Renamed { from } => FileChangeKind::Renamed {
            from: String::from_utf8_lossy(from.as_bytes()).into_owned(),
        },
        What::Type => FileChangeKind::Type,
        What::Target => FileChangeKind::Target,
        What::Forgotten => return None,
    };
    Some(FileChange {
        path: String::from_utf8_lossy(change.path.as_bytes()).into_owned(),
        what: kind,
    })
}
