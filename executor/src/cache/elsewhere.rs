//! What other machines left, as one build sees it: read while the build goes on, asked only for what is
//! not here, and brought here layer by layer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use kiln_solver::{Part, StepSink};
use kiln_store::{Content, DiffId, Key, Lease, Lineage, NewRecord, OpKey, Store, StoreError};
use kiln_tree::Stop;
use kiln_tree::tar::{ApplyOptions, apply};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::document::{Cache, CachedLayer, CachedRecord, is_base};
use super::error::CacheError;
use super::place::{CachePlace, Home, blob_digest};
use crate::archive;
use crate::error::{Error, words};
use crate::executor::Executor;
use crate::export::SPELLED;
use crate::filed::FiledParts;
use crate::source::blocking;
use crate::unpack::{Hashing, is_full, unpacked_on_full};
use crate::worker::BuildWorker;

/// Layers that are brought here at once.
const AT_ONCE: usize = 4;
/// How long a cache may take to say what it holds, by default.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cache that a build may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSource {
    /// Where it lies.
    pub place: CachePlace,
    /// How long it may take to say what it holds, from the start of the build on.
    pub patience: Duration,
}

/// Takes what a user should know of caches elsewhere, a line each.
pub type CacheNotices = Arc<dyn Fn(String) + Send + Sync>;

/// All caches of a build.
pub struct Elsewhere {
    executor: Executor,
    sources: Vec<Source>,
    state: Mutex<State>,
    tell: CacheNotices,
}

struct Source {
    shown: String,
    known: watch::Receiver<Known>,
    reading: JoinHandle<()>,
}

/// What is known of a source: nothing yet, that it is of no use, or all of it.
type Known = Option<Option<Arc<Loaded>>>;

struct Loaded {
    home: Home,
    /// How long it may say nothing.
    patience: Duration,
    /// It is not asked for layers any more, since it did not answer.
    is_silent: AtomicBool,
    cache: Cache,
    by_key: HashMap<Key, usize>,
    ops: HashSet<OpKey>,
}

/// A record by its source and its place there.
type At = (usize, usize);

#[derive(Default)]
struct State {
    /// Records that were found, by the id that the solver knows each by, with keys that found it
    /// besides its own.
    found: HashMap<i64, (At, Vec<Key>)>,
    ids: HashMap<At, i64>,
    /// Records that are found no more.
    dropped: HashSet<At>,
    /// Layers that could not be had.
    lost: HashSet<Content>,
}

/// A record of another machine, under the id that it has in this build.
pub(crate) struct FoundElsewhere {
    pub(crate) id: i64,
    pub(crate) key: Key,
    pub(crate) record: CachedRecord,
    pub(crate) from: String,
}

/// A record of another machine that names layers which cannot be had any more.
pub(crate) struct LostRecord {
    pub(crate) from: String,
    pub(crate) record: CachedRecord,
    /// One of them is no layer of what the step read.
    pub(crate) own: bool,
}

impl BuildWorker {
    /// What other machines left, if it may be used.
    pub fn elsewhere(&self) -> Option<&Arc<Elsewhere>> {
        self.elsewhere.as_ref()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Elsewhere {
    /// Begins to read the sources, which nobody waits for before something is not found here.
    ///
    /// Must be called on a runtime. What goes wrong is told and is no error.
    pub fn begin(executor: &Executor, sources: &[CacheSource], tell: CacheNotices) -> Elsewhere {
        let sources = sources.iter().map(|source| {
            let (sender, known) = watch::channel(None);
            let (executor, source, tell) = (executor.clone(), source.clone(), Arc::clone(&tell));
            let shown = source.place.to_string();
            let reading = tokio::spawn(async move {
                let read = tokio::time::timeout(source.patience, load(&executor, &source));
                let read = read.await.unwrap_or_else(|_| {
                    Err(CacheError::Timeout {
                        place: source.place.to_string(),
                        seconds: source.patience.as_secs(),
                    }
                    .into())
                });
                let loaded = match read {
                    Ok(loaded) => Some(Arc::new(loaded)),
                    Err(Error::Cache(error @ CacheError::Missing { .. })) => {
                        tell(error.to_string());
                        None
                    }
                    Err(error) => {
                        let place = &source.place;
                        tell(format!(
                            "the cache `{place}` is not used: {}",
                            words(&error)
                        ));
                        None
                    }
                };
                // Nobody may be left to know it.
                let _ = sender.send(Some(loaded));
            });
            Source {
                shown,
                known,
                reading,
            }
        });
        Elsewhere {
            executor: executor.clone(),
            sources: sources.collect(),
            state: Mutex::default(),
            tell,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a source is known.
    async fn known(&self, source: usize) -> Option<Arc<Loaded>> {
        let mut known = self.sources[source].known.clone();
        let known = known.wait_for(Option::is_some).await;
        // A reader that ended without a word was aborted.
        known.ok().and_then(|known| known.clone().flatten())
    }

    /// What is known of all sources without waiting.
    fn so_far(&self) -> Vec<Arc<Loaded>> {
        let known = self.sources.iter();
        known
            .filter_map(|source| source.known.borrow().clone().flatten())
            .collect()
    }

    /// Looks for the first of `keys` that has a record whose layers can be had, in the order of the
    /// sources; else tells whether any record is of `op`.
    pub(crate) async fn seek(
        &self,
        keys: &[Key],
        op: Option<OpKey>,
    ) -> (Option<FoundElsewhere>, bool) {
        let mut op_known = false;
        for source in 0..self.sources.len() {
            let Some(loaded) = self.known(source).await else {
                continue;
            };
            for key in keys {
                if let Some(found) = self.take(source, &loaded, key) {
                    return (Some(found), true);
                }
            }
            op_known |= op.is_some_and(|op| loaded.ops.contains(&op));
        }
        (None, op_known)
    }

    fn take(&self, source: usize, loaded: &Loaded, key: &Key) -> Option<FoundElsewhere> {
        let index = *loaded.by_key.get(key)?;
        let record = &loaded.cache.records[index];
        let mut state = self.state();
        if state.dropped.contains(&(source, index)) {
            return None;
        }
        let mut layers = record.layers().filter(|content| !is_base(content));
        if layers.any(|content| state.lost.contains(&content)) {
            return None;
        }
        // What the store has takes positive numbers.
        let next = -1 - i64::try_from(state.ids.len()).unwrap_or(i64::MAX - 1);
        let id = *state.ids.entry((source, index)).or_insert(next);
        state
            .found
            .entry(id)
            .or_insert_with(|| ((source, index), Vec::new()));
        Some(FoundElsewhere {
            id,
            key: *key,
            record: record.clone(),
            from: self.sources[source].shown.clone(),
        })
    }

    /// Lets a record be filed under one more key once it is here.
    pub(crate) fn alias(&self, id: i64, key: Key) {
        if let Some((_, keys)) = self.state().found.get_mut(&id) {
            keys.push(key);
        }
    }

    /// Finds a record no more.
    pub(crate) fn forget(&self, id: i64) {
        let mut state = self.state();
        if let Some((at, _)) = state.found.get(&id) {
            let at = *at;
            state.dropped.insert(at);
        }
    }

    /// The records of an op and of a place in a Dockerfile, to compare a miss with; the newest of each.
    pub(crate) fn nearest(
        &self,
        op: &OpKey,
        slot: Option<(&Lineage, &str)>,
    ) -> (Option<CachedRecord>, Option<CachedRecord>) {
        let mut by_op: Option<CachedRecord> = None;
        let mut by_slot: Option<CachedRecord> = None;
        let newer = |best: &Option<CachedRecord>, record: &CachedRecord| {
            best.as_ref()
                .is_none_or(|best| best.created < record.created)
        };
        for loaded in self.so_far() {
            for record in &loaded.cache.records {
                let named = record
                    .slot
                    .as_ref()
                    .map(|(lineage, step)| (lineage, step.as_str()));
                if record.op == *op && newer(&by_op, record) {
                    by_op = Some(record.clone());
                }
                if slot.is_some() && named == slot && newer(&by_slot, record) {
                    by_slot = Some(record.clone());
                }
            }
        }
        (by_op, by_slot)
    }

    /// The record under a key that was not used since its layers cannot be had.
    pub(crate) fn lost(&self, key: &Key) -> Option<LostRecord> {
        (0..self.sources.len()).find_map(|source| {
            let loaded = self.sources[source].known.borrow().clone().flatten()?;
            let state = self.state();
            let mut found = state.found.values();
            let aliased = found.find(|((of, _), more)| *of == source && more.contains(key));
            let aliased = aliased.map(|((_, index), _)| *index);
            let index = aliased.or_else(|| loaded.by_key.get(key).copied())?;
            let record = &loaded.cache.records[index];
            let lost: Vec<Content> = record
                .layers()
                .filter(|content| !is_base(content) && state.lost.contains(content))
                .collect();
            let below = loaded.inputs_of(record);
            (!lost.is_empty()).then(|| LostRecord {
                from: self.sources[source].shown.clone(),
                record: record.clone(),
                own: lost.iter().any(|layer| !below.contains(layer)),
            })
        })
    }

    /// Waits until all sources are known, or known to be of no use.
    pub(crate) async fn settled(&self) {
        for source in 0..self.sources.len() {
            self.known(source).await;
        }
    }

    /// The records under these keys whose layers can be had, as far as the sources are known.
    pub(super) fn records(&self, keys: &BTreeSet<Key>) -> Vec<CachedRecord> {
        let mut found = Vec::new();
        for (source, known) in self.sources.iter().enumerate() {
            let Some(loaded) = known.known.borrow().clone().flatten() else {
                continue;
            };
            let state = self.state();
            // A record is also found under keys that it got in this build.
            let aliased = state.found.values().filter(|((of, _), more)| {
                *of == source && more.iter().any(|key| keys.contains(key))
            });
            let mut more: BTreeMap<usize, Vec<Key>> = aliased
                .map(|((_, index), more)| (*index, more.clone()))
                .collect();
            for index in keys.iter().filter_map(|key| loaded.by_key.get(key)) {
                more.entry(*index).or_default();
            }
            for (index, more) in more {
                let record = &loaded.cache.records[index];
                let mut layers = record.layers().filter(|content| !is_base(content));
                let is_lost = state.dropped.contains(&(source, index))
                    || layers.any(|content| state.lost.contains(&content));
                if !is_lost {
                    let mut record = record.clone();
                    record.keys.extend(more);
                    found.push(record);
                }
            }
        }
        found
    }

    /// A layer that can be had, and from where.
    pub(super) fn layer(&self, content: &Content) -> Option<(CachedLayer, Home)> {
        if self.state().lost.contains(content) {
            return None;
        }
        let mut sources = self.so_far().into_iter();
        sources.find_map(|loaded| {
            let layer = loaded.cache.layers.get(content)?;
            Some((layer.clone(), loaded.home.clone()))
        })
    }

    /// A layer that lies in a registry in an archive with these times, packed like this.
    fn packed(&self, content: &Content, times: &str, packed: &str) -> Option<(CachedLayer, Home)> {
        if self.state().lost.contains(content) {
            return None;
        }
        let mut sources = self.so_far().into_iter();
        sources.find_map(|loaded| {
            let layer = loaded.cache.layers.get(content)?;
            let archive = layer.blob.archive.split(SPELLED).next();
            let is_alike = archive == Some(times) && layer.blob.packed == packed;
            let in_registry = matches!(loaded.home.place, CachePlace::Registry { .. });
            (is_alike && in_registry).then(|| (layer.clone(), loaded.home.clone()))
        })
    }

    /// Whether registries have all these layers in archives with these times, packed like this.
    pub(crate) async fn has_packed(&self, layers: &[Content], times: &str, packed: &str) -> bool {
        let found = layers
            .iter()
            .map(|layer| self.packed(layer, times, packed))
            .collect::<Option<Vec<_>>>();
        let Some(found) = found else {
            return false;
        };
        let asked = found
            .into_iter()
            .map(|(layer, home)| async move { home.has(&layer.blob).await });
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            if !matches!(answer, Ok(true)) {
                return false;
            }
        }
        true
    }

    /// The same of one layer, without asking again; the store keeps where its archive is.
    pub(crate) fn left(
        &self,
        layer: &Content,
        times: &str,
        packed: &str,
    ) -> Result<Option<CachedLayer>, Error> {
        let Some((layer, home)) = self.packed(layer, times, packed) else {
            return Ok(None);
        };
        home.remember(self.executor.store(), &layer.blob.digest)?;
        Ok(Some(layer))
    }

    /// Brings layers here that the store lacks; tells whether all are here now. What cannot be had is told,
    /// and no record that names it is found any more.
    pub(crate) async fn bring(
        self: &Arc<Self>,
        lease: &Lease,
        missing: &[Content],
        sink: &StepSink,
        stop: &Stop,
    ) -> bool {
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        let mut jobs = JoinSet::new();
        for content in missing.iter().copied() {
            let (this, gate, sources) = (Arc::clone(self), Arc::clone(&gate), self.so_far());
            let (lease, sink, stop) = (lease.clone(), sink.clone(), stop.clone());
            jobs.spawn(async move {
                // The gate is never closed.
                let _turn = gate.acquire_owned().await;
                let mut failure = None;
                for loaded in sources {
                    let Some(layer) = loaded.cache.layers.get(&content) else {
                        continue;
                    };
                    if loaded.is_silent.load(Ordering::Relaxed) {
                        continue;
                    }
                    let brought = this.bring_from(&loaded, &lease, content, layer, &sink, &stop);
                    match brought.await {
                        Ok(()) => return Ok(()),
                        Err(error) => {
                            if is_silence(&error) {
                                loaded.is_silent.store(true, Ordering::Relaxed);
                            }
                            failure = Some(error);
                        }
                    }
                }
                Err((content, failure))
            });
        }
        let mut whole = true;
        while let Some(end) = jobs.join_next().await {
            let (content, failure) = match end {
                Ok(Ok(())) => continue,
                Ok(Err(lost)) => lost,
                Err(error) if error.is_cancelled() => return false,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            whole = false;
            self.state().lost.insert(content);
            if let Some(error) = failure.filter(|_| !stop.is_set()) {
                let short: String = content.to_string().chars().take(20).collect();
                (self.tell)(format!(
                    "the cached layer {short} cannot be used, so that its step runs: {}",
                    words(&error)
                ));
            }
        }
        whole
    }

    async fn bring_from(
        &self,
        Loaded { home, patience, .. }: &Loaded,
        lease: &Lease,
        content: Content,
        layer: &CachedLayer,
        sink: &StepSink,
        stop: &Stop,
    ) -> Result<(), Error> {
        let store = self.executor.store();
        let blob = &layer.blob;
        let (name, digest) = (blob.digest.to_string(), blob_digest(&blob.digest));
        let held = store.lease();
        if !store.lease_blob(&held, &digest)? {
            let moved = |bytes| sink.progress(name.clone(), bytes, Some(blob.size));
            home.bring(&self.executor, &held, blob, *patience, &moved)
                .await?;
        }
        let unpacking = Unpacking {
            store: store.clone(),
            lease: lease.clone(),
            content,
            layer: layer.clone(),
            place: home.place.to_string(),
            stop: stop.clone(),
        };
        let unpacked = blocking(move || unpacking.run()).await;
        if let Err(Error::Store(StoreError::Full { .. })) = unpacked {
            // The step that runs now needs the room.
            drop(held);
            store.delete_blob(&digest)?;
        } else {
            store.lease_blob(lease, &digest)?;
        }
        unpacked
    }

    /// Files a record whose layers are here now, and whatever else of its cache needs no other layers.
    pub(crate) fn adopt(&self, lease: &Lease, id: i64) -> Result<(), Error> {
        let Some(((source, index), keys)) = self.state().found.get(&id).cloned() else {
            return Ok(());
        };
        let Some(loaded) = self.sources[source].known.borrow().clone().flatten() else {
            return Ok(());
        };
        let record = &loaded.cache.records[index];
        let here: HashSet<Content> = record.layers().collect();
        let mut adopted = vec![filed(record, keys)];
        let along = loaded
            .cache
            .records
            .iter()
            .enumerate()
            .filter(|(at, other)| {
                *at != index && other.layers().all(|content| here.contains(&content))
            });
        adopted.extend(along.map(|(_, record)| filed(record, Vec::new())));
        self.executor.store().adopt_records(lease, &adopted)?;
        Ok(())
    }
}

impl Loaded {
    /// The layers of the results that a record's step read, as far as the cache has those.
    fn inputs_of(&self, record: &CachedRecord) -> HashSet<Content> {
        let parts = serde_json::from_slice::<FiledParts>(&record.parts);
        let parts = parts.map_or_else(|_| Vec::new(), |filed| filed.facts.parts);
        let inputs = parts.iter().filter_map(|part| match part {
            Part::Input { definition, .. } => self.by_key.get(&Key(*definition)),
            _ => None,
        });
        inputs
            .flat_map(|index| self.cache.records[*index].layers())
            .collect()
    }
}

/// Whether a place did not answer, so that it is not waited for again and again.
fn is_silence(error: &Error) -> bool {
    use kiln_oci::registry::Error as Registry;
    use kiln_oci::s3::S3Error;
    matches!(
        error,
        Error::Cache(CacheError::Timeout { .. } | CacheError::S3(S3Error::Unreachable { .. }))
            | Error::Registry(Registry::Unreachable { .. } | Registry::RateLimited { .. })
    )
}

fn filed(record: &CachedRecord, more: Vec<Key>) -> NewRecord {
    let mut keys = record.keys.clone();
    keys.extend(more);
    NewRecord {
        keys,
        op: record.op,
        slot: record.slot.clone(),
        outputs: record.outputs.clone(),
        parts: record.parts.clone(),
        created: record.created,
        duration: record.took,
    }
}

async fn load(executor: &Executor, source: &CacheSource) -> Result<Loaded, Error> {
    let home = Home::open(executor, &source.place)?;
    let cache = home.read().await?.cache;
    // It is read once.
    home.forget();
    let mut by_key = HashMap::new();
    let mut ops = HashSet::new();
    for (index, record) in cache.records.iter().enumerate() {
        let mut layers = record.layers().filter(|content| !is_base(content));
        // Without its layers a record says nothing that could be used.
        if layers.all(|content| cache.layers.contains_key(&content)) {
            ops.insert(record.op);
            by_key.extend(record.keys.iter().map(|key| (*key, index)));
        }
    }
    Ok(Loaded {
        home,
        patience: source.patience,
        is_silent: AtomicBool::new(false),
        cache,
        by_key,
        ops,
    })
}

/// A layer whose blob is here.
struct Unpacking {
    store: Store,
    lease: Lease,
    content: Content,
    layer: CachedLayer,
    place: String,
    stop: Stop,
}

impl Unpacking {
    /// Unpacks the layer and keeps it, if it is the one that the cache says.
    fn run(self) -> Result<(), Error> {
        let blob = &self.layer.blob;
        let digest = blob_digest(&blob.digest);
        let passing = self
            .layer
            .passing()
            .map_err(|source| CacheError::Document {
                place: self.place.clone(),
                source,
            })?;
        let draft = self.store.begin_layer()?;
        let options = self.store.options();
        let limits = ApplyOptions {
            require_end: false,
            passing: passing.as_ref(),
            ..ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs)
        };
        let unreadable = |source| self.damaged(format!("could not read its archive: {source}"));
        let file = self.store.open_blob(&digest)?;
        let file = kiln_tree::stop::Stoppable::new(file, &self.stop);
        let mut reader = Hashing::new(archive::decompress(file).map_err(unreadable)?);
        let applied =
            apply(&mut reader, draft.fs(), &limits).map_err(|error| match is_full(&error) {
                true => unpacked_on_full(&self.store),
                false => self.damaged(words(&error)),
            })?;
        let diff_id = DiffId(reader.finish().map_err(unreadable)?);
        if diff_id != blob.diff_id {
            return Err(self.damaged(format!("its archive is {diff_id}, not {}", blob.diff_id)));
        }
        let found = match self.content {
            Content::DiffId(_) => Content::DiffId(diff_id),
            Content::Layer(_) => Content::Layer(applied.manifest.id()),
        };
        if found != self.content {
            return Err(self.damaged(format!("its content is {found}")));
        }
        let kept = self.store.commit_layer_of(
            &self.lease,
            draft,
            &applied.manifest,
            self.content,
            self.layer.created,
        )?;
        // What was here already may have other times, which are in its archives.
        if !kept.adopted && !blob.packed.is_empty() && !is_base(&self.content) {
            self.store.put_compressed(
                &self.content,
                &blob.archive,
                &blob.packed,
                &digest,
                &diff_id,
            )?;
        }
        Ok(())
    }

    fn damaged(&self, reason: String) -> Error {
        CacheError::Layer {
            layer: self.content,
            place: self.place.clone(),
            reason,
        }
        .into()
    }
}
