//! The solver's only view of the world.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use kiln_ir::{Display, Node, NodeId, Pin, Plan};

use crate::{
    Cancel, Content, ContentId, ContentKey, DefinitionKey, FileChange, Nearest, NewRecord, OpKey,
    Record, RecordId, Selection, SelectionDigest, Slot, StepSink, TreeRef, WaitsFor,
};

/// Finds facts, keeps results and makes them, for one build.
///
/// The life of a step: its sources are pinned and what it selects of local ones is digested; its
/// definition key is looked up; failing that its inputs are resolved, its content key is looked up
/// where `known_ops` says that this can help; failing that its inputs are loaded or fetched, its
/// lock is taken, it is looked up once more, given what it reserves, run, and filed. Where results
/// may lie elsewhere too, a key that `lookup` did not find is sought there before anything else.
///
/// A future of any method but [`Worker::run`] may be dropped at any await point when the build
/// stops. The methods marked *cheap* are awaited by the solver's own task and must not do slow
/// work; what keeps a processor busy belongs on a blocking thread. An error of `lookup`,
/// `known_ops`, `file`, `alias` or `drop_record` ends the build; any other fails only the step.
pub trait Worker: Send + Sync + 'static {
    /// An output that is here. Opaque: nothing promises a local path.
    type Handle: Clone + Send + Sync + 'static;
    /// Holds a lock until it is dropped.
    type Guard: Send + 'static;
    /// Holds what a step has for itself while it runs, until it is dropped.
    type Reservation: Send + 'static;
    /// What can go wrong besides a step that fails.
    type Error: Error + Send + Sync + 'static;

    /// Finds out which identity a source has in this build; never asked for a local source.
    ///
    /// A pin of the plan must be kept: the identity is the one it says.
    fn pin(
        &self,
        source: SourceRequest,
    ) -> impl Future<Output = Result<Pinned, Self::Error>> + Send;

    /// Digests what a consumer selects.
    ///
    /// None if a layer is not here to be looked into; the solver then loads the input and asks
    /// again, and does without the content road if the answer is still none. A local source always
    /// has an answer. An error fails the step `request.consumer`.
    fn digest(
        &self,
        request: DigestRequest,
    ) -> impl Future<Output = Result<Option<SelectionDigest>, Self::Error>> + Send;

    /// Finds the newest record of each key, and leases its layers in the same transaction. Cheap.
    ///
    /// The answer has an entry for each key, in order. A record whose content is known to be gone
    /// is no answer.
    fn lookup(
        &self,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<Record>>, Self::Error>> + Send;

    /// Tells for each op whether any record exists for it; else its content key is not asked. Cheap.
    fn known_ops(
        &self,
        ops: &[OpKey],
    ) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;

    /// Whether [`Worker::seek`] can find anything; the same all through a build.
    fn seeks(&self) -> bool {
        false
    }

    /// Looks for a result where other machines left theirs. Asked only for what [`Worker::lookup`]
    /// does not find, and may wait until it is known what lies there.
    ///
    /// Nothing that goes wrong elsewhere is an error here: it is then not found. The layers of a
    /// record that is found need not be here before it is loaded, and it has an id like any other;
    /// after [`Worker::drop_record`] it is found no more.
    fn seek(&self, wanted: Wanted) -> impl Future<Output = Sought> + Send {
        let _ = wanted;
        async { Sought::default() }
    }

    /// Makes a record's outputs present, by output number; none if its content is gone.
    ///
    /// Brings here what lies elsewhere, which `sink` is told of.
    fn load(
        &self,
        record: &Record,
        sink: &StepSink,
    ) -> impl Future<Output = Result<Option<Outputs<Self::Handle>>, Self::Error>> + Send;

    /// Forgets a record whose content is gone. Cheap.
    fn drop_record(&self, record: RecordId)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Brings a source's bytes here: asked of image, oci-layout and local sources only when a run or
    /// an export needs them, and again in every build, so that it is quick when they are here.
    ///
    /// Git, http and blob sources are fetched only when no record of them is found.
    fn fetch(
        &self,
        request: FetchRequest,
    ) -> impl Future<Output = Result<Fetched<Self::Handle>, Self::Error>> + Send;

    /// Waits until a step may have what it needs for itself while it runs, and takes it: its cache
    /// mounts, in the order of their ids, so that two steps never wait for each other.
    ///
    /// Asked only of steps with cache mounts, with their lock held and without a job slot. `waiting` is
    /// told what the step waits for, and which process has that, as soon as it is known.
    fn reserve(
        &self,
        request: ReserveRequest<Self::Handle>,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> impl Future<Output = Result<Self::Reservation, Self::Error>> + Send;

    /// Makes an op that is no source real; `reservation` is what [`Worker::reserve`] gave for it.
    ///
    /// Never dropped before it ends: when `request.cancel` is set it must clean up and return
    /// [`RunOutcome::Cancelled`] soon. Outputs with content that the store has are the older ones.
    fn run(
        &self,
        request: RunRequest<Self::Handle>,
        reservation: Option<Self::Reservation>,
    ) -> impl Future<Output = Result<RunOutcome<Self::Handle>, Self::Error>> + Send;

    /// Files a result: under its definition key, and under its content key if it has one. Cheap.
    ///
    /// An older record under the same key is found no more.
    fn file(&self, record: NewRecord) -> impl Future<Output = Result<Record, Self::Error>> + Send;

    /// Lets a record be found under one more definition key. Cheap.
    fn alias(
        &self,
        record: RecordId,
        definition: DefinitionKey,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Waits until nobody else holds the lock of a step, and takes it.
    ///
    /// `waiting` is told of who has it as soon as it is known: a step of this process, or which other process.
    fn lock(
        &self,
        key: DefinitionKey,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> impl Future<Output = Result<Locked<Self::Guard>, Self::Error>> + Send;

    /// Finds what may explain that a step has to run. Cheap: asked once for each run.
    fn nearest(
        &self,
        definition: DefinitionKey,
        op: OpKey,
        slot: Option<&Slot>,
    ) -> impl Future<Output = Result<Nearest, Self::Error>> + Send;

    /// Compares two trees of selections; none if one of them is not kept any more.
    fn diff_trees(
        &self,
        old: TreeRef,
        new: TreeRef,
        limit: usize,
    ) -> impl Future<Output = Result<Option<TreeDiff>, Self::Error>> + Send;
}

/// Something for each output, by output number; none where the op has no such output.
pub type Outputs<T> = Vec<Option<T>>;

/// A key under which a record may be filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By definition.
    Definition(DefinitionKey),
    /// By content.
    Content(ContentKey),
}

/// What is to be looked for elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The first that has a record wins.
    pub keys: Vec<Key>,
    /// If there is no record: is there one of this op at all?
    pub op: Option<OpKey>,
}

/// What was found elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// The record.
    pub found: Option<Imported>,
    /// Some record exists for the op.
    pub op_known: bool,
}

/// A record of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What it was found by.
    pub key: Key,
    /// The record.
    pub record: Record,
    /// Where it was found, as people named the place.
    pub from: String,
}

/// A source that is to be pinned.
#[derive(Debug, Clone)]
pub struct SourceRequest {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The source.
    pub node: NodeId,
}

/// The identity of a source in this build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// What the definition key takes for the source besides its own fields: canonical bytes of a
    /// manifest digest, a commit or a body's digest.
    pub identity: Vec<u8>,
    /// The diff ids of an image or oci-layout source, lowest first; none for any other source.
    pub content: Option<Content>,
    /// The same identity for the plan.
    pub pin: Pin,
    /// For people, such as `sha256:25109184, pulled 3 days ago`.
    pub label: String,
}

/// A selection that is to be digested.
#[derive(Debug, Clone)]
pub struct DigestRequest {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The node that reads.
    pub consumer: NodeId,
    /// What it reads from.
    pub of: DigestOf,
    /// What it reads of it.
    pub selection: Arc<Selection>,
}

/// A tree of which something is selected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DigestOf {
    /// A local source of the plan, as it is now, after its ignore rules.
    Local(NodeId),
    /// Layers over each other, lowest first.
    Layers(Vec<ContentId>),
}

/// A source that is to be brought here.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The source.
    pub node: NodeId,
    /// Its identity; none for a local source.
    pub pinned: Option<Pinned>,
    /// Where progress goes.
    pub sink: StepSink,
}

/// A source whose bytes are here.
#[derive(Debug, Clone)]
pub struct Fetched<H> {
    /// Its only output.
    pub handle: H,
    /// What it holds: an image's or layout's diff ids as pinned, a layer digest for git, http and
    /// blob sources, empty for a local source.
    pub content: Content,
    /// Whether anything had to be brought from elsewhere.
    pub transferred: bool,
}

/// A step that is to have something for itself.
#[derive(Debug, Clone)]
pub struct ReserveRequest<H> {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The node.
    pub node: NodeId,
    /// Its inputs, by index.
    pub inputs: Vec<H>,
}

/// An op that is to be made real.
#[derive(Debug, Clone)]
pub struct RunRequest<H> {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The node.
    pub node: NodeId,
    /// Its inputs, by index.
    pub inputs: Vec<H>,
    /// The outputs of the earlier result that its reason compares it with; none if it is forced.
    /// What did not change may be taken from there, if it is still here.
    pub similar: Outputs<Content>,
    /// Where output and progress go.
    pub sink: StepSink,
    /// Tells it to stop.
    pub cancel: Cancel,
}

impl<H> RunRequest<H> {
    /// The op with its platform.
    pub fn op_node(&self) -> &Node {
        self.plan.graph.node(self.node)
    }

    /// What people see of it, and its limits.
    pub fn display(&self) -> Option<&Display> {
        self.plan.display.get(&self.node)
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum RunOutcome<H> {
    /// By output number, as [`kiln_ir::Graph::outputs`] counts them: the output and its full layer
    /// list. None where the op has no such output.
    Done {
        /// The outputs.
        outputs: Outputs<(H, Content)>,
    },
    /// It ended otherwise than it should.
    Failed(StepFailure),
    /// It was told to stop, and left nothing behind.
    Cancelled,
}

/// How a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StepFailure {
    /// The process exited with a code that is no success.
    #[error("exit code {0}")]
    Exit(i32),
    /// A signal ended the process.
    #[error("killed by signal {0}")]
    Signal(i32),
    /// The process could not be started, or the op can't be done.
    #[error("{0}")]
    Message(String),
}

/// A lock that was taken.
#[derive(Debug)]
pub struct Locked<G> {
    /// Holds it.
    pub guard: G,
    /// Whether somebody else had it first; a record may be there now.
    pub waited: bool,
}

/// How two trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeDiff {
    /// By path, at most as many as were asked for.
    pub changes: Vec<FileChange>,
    /// How many there are beyond those.
    pub more: usize,
}
