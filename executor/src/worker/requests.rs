//! What the solver asks of a build's worker, one method for each request.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_ir::{Op, Pin, SourceOp};
use kiln_solver::{
    DefinitionKey, DigestOf, DigestRequest, FetchRequest, Fetched, FileChange, FileChangeKind,
    Imported, Key, Locked, Nearest, NewRecord, OpKey, Pinned, Record, RecordId, ReserveRequest,
    RunOutcome, RunRequest, SelectionDigest, Slot, Sought, SourceRequest, StepSink, TreeDiff,
    TreeRef, WaitsFor, Wanted, Worker,
};
use kiln_store::{Content, KeyLock, LockAttempt};
use kiln_tree::TreeDigest;
use kiln_tree::context::{What, changes};

use super::images::identity;
use super::{BuildWorker, Handle, Tree, lock};
use crate::cachemounts::CacheMounts;
use crate::error::Error;
use crate::file::open_layers;
use crate::filed::{FiledParts, lineage, nanos, record, store_key};
use crate::patience::Patience;
use crate::select;
use crate::source::{blocking, fetch};
use crate::stack::{to_solver, to_store};
use crate::transfer::TransferObserver;

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
        let mut left = false;
        for output in &record.outputs {
            let Some(content) = output else {
                handles.push(None);
                continue;
            };
            let layers = to_store(content);
            let mut missing = store.lease_layers(&self.lease, &layers)?;
            if !missing.is_empty() && self.can_leave(sink.node(), &layers, &missing).await {
                handles.push(Some(Handle::layers(layers)));
                left = true;
                continue;
            }
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
        if let (Some(elsewhere), true) = (&self.elsewhere, record.id.0 < 0 && !left) {
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
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<Locked<KeyLock>, Error> {
        let mut waited = false;
        let mut patience = Patience::new();
        loop {
            match self.executor.store().try_lock_key(&key.0)? {
                LockAttempt::Held(guard) => return Ok(Locked { guard, waited }),
                LockAttempt::Busy(pid) => {
                    waited = true;
                    if patience.tells(pid) {
                        match pid == Some(std::process::id()) {
                            true => waiting(WaitsFor::EqualStep, None),
                            false => waiting(WaitsFor::SameStep, pid),
                        }
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
        self.compared_with(definition, op, slot)
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
