//! A worker that makes nothing: it finds what is there, and refuses to run and to fetch.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_ir::{NodeId, Op, Plan, SourceOp};
use kiln_solver::{
    DefinitionKey, DigestRequest, FetchRequest, Fetched, Key, Locked, Nearest, NewRecord, OpKey,
    Pinned, Record, RecordId, ReserveRequest, RunOutcome, RunRequest, SelectionDigest, Slot,
    SourceRequest, StepFailure, StepSink, TreeDiff, TreeRef, WaitsFor, Worker,
};

use crate::error::Error;
use crate::stack::to_store;
use crate::worker::BuildWorker;

/// Tells what a build would do. A step that would run fails instead, which is noted, so that the
/// solver goes on with what does not need it.
///
/// It changes nothing in the store: no record, lease, image or memory of the past.
pub struct Looker {
    worker: BuildWorker,
    refused: Mutex<BTreeSet<NodeId>>,
}

impl Looker {
    /// Looks with the eyes of a build's worker.
    pub fn new(worker: BuildWorker) -> Looker {
        Looker {
            worker: worker.looking(),
            refused: Mutex::default(),
        }
    }

    /// What would have been run or fetched.
    pub fn refused(&self) -> BTreeSet<NodeId> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// Whether layers of an image would have to be brought here for a step that runs on it.
    pub async fn lacks(&self, plan: &Arc<Plan>, node: NodeId) -> Result<bool, Error> {
        let plan = Arc::clone(plan);
        let pinned = self.worker.pin(SourceRequest { plan, node }).await?;
        let content = to_store(&pinned.content.unwrap_or_default());
        Ok(!self.worker.missing(&content)?.is_empty())
    }

    fn refuse(&self, node: NodeId) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(node);
    }
}

impl Worker for Looker {
    type Handle = ();
    type Guard = ();
    type Reservation = ();
    type Error = Error;

    async fn pin(&self, source: SourceRequest) -> Result<Pinned, Error> {
        let node = source.node;
        let pinned = self.worker.pin(source).await;
        if let Err(Error::NotFetched { .. }) = &pinned {
            self.refuse(node);
        }
        pinned
    }

    async fn digest(&self, request: DigestRequest) -> Result<Option<SelectionDigest>, Error> {
        self.worker.digest(request).await
    }

    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Record>>, Error> {
        self.worker.lookup(keys).await
    }

    async fn known_ops(&self, ops: &[OpKey]) -> Result<Vec<bool>, Error> {
        self.worker.known_ops(ops).await
    }

    async fn load(&self, record: &Record, _: &StepSink) -> Result<Option<Vec<Option<()>>>, Error> {
        let outputs = record.outputs.iter();
        Ok(Some(
            outputs.map(|output| output.as_ref().map(drop)).collect(),
        ))
    }

    async fn drop_record(&self, _: RecordId) -> Result<(), Error> {
        Ok(())
    }

    async fn fetch(&self, request: FetchRequest) -> Result<Fetched<()>, Error> {
        let content = match (&request.plan.graph.node(request.node).op, request.pinned) {
            (Op::Source(SourceOp::Local(_)), _) => Vec::new(),
            (
                _,
                Some(Pinned {
                    content: Some(content),
                    ..
                }),
            ) => content,
            (Op::Source(source), _) => {
                self.refuse(request.node);
                return Err(Error::NotFetched {
                    url: crate::remotes::address(source),
                });
            }
            _ => unreachable!("BUG: only sources are fetched"),
        };
        Ok(Fetched {
            handle: (),
            transferred: !self.worker.missing(&to_store(&content))?.is_empty(),
            content,
        })
    }

    async fn reserve(
        &self,
        _: ReserveRequest<()>,
        _: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn run(&self, request: RunRequest<()>, _: Option<()>) -> Result<RunOutcome<()>, Error> {
        self.refuse(request.node);
        let failure = StepFailure::Message("it would run".to_owned());
        Ok(RunOutcome::Failed(failure))
    }

    async fn file(&self, _: NewRecord) -> Result<Record, Error> {
        unreachable!("BUG: nothing ran, so there is nothing to file")
    }

    async fn alias(&self, _: RecordId, _: DefinitionKey) -> Result<(), Error> {
        Ok(())
    }

    async fn lock(
        &self,
        _: DefinitionKey,
        _: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<Locked<()>, Error> {
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
    ) -> Result<Nearest, Error> {
        self.worker.nearest(definition, op, slot).await
    }

    async fn diff_trees(
        &self,
        old: TreeRef,
        new: TreeRef,
        limit: usize,
    ) -> Result<Option<TreeDiff>, Error> {
        self.worker.diff_trees(old, new, limit).await
    }
}
