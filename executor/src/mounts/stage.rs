//! Files of an export brought here, each under its digest until it is put where it belongs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kiln_store::{BlobDigest, Lease, WorkDirectory, open_or_create};
use kiln_tree::{FileDigest, Stop};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::format::{ExportedTree, Part, Tree, regular};
use super::packing::unpack;
use super::place::Shelf;
use super::{MountsEvent, Tell};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::{blocking, stoppable};
use crate::transfer::{BlobState, TransferObserver};

/// Packs that are fetched at once.
const AT_ONCE: usize = 4;

/// A file by its size and what it holds.
pub(super) type FileKey = (u64, FileDigest);

/// Files that were brought here.
pub(super) struct Stage {
    directory: WorkDirectory,
    files: HashSet<FileKey>,
    executor: Executor,
    /// Packs that were brought here: kept until the mount is whole, so that another try need not bring them.
    lease: Lease,
    packs: Vec<BlobDigest>,
    observer: TransferObserver,
    /// Bytes of packs that were fetched.
    pub(super) fetched_bytes: u64,
}

/// Where the bytes of a chunk go: a file's name, and where in it.
type Targets = Vec<(String, u64)>;

/// By pack, the chunks that are wanted of it.
type Packs = BTreeMap<u32, Vec<(u32, Targets)>>;

impl Stage {
    pub(super) fn new(executor: &Executor, observer: &TransferObserver) -> Result<Stage, Error> {
        Ok(Stage {
            directory: executor.store().work_directory("stage")?,
            files: HashSet::new(),
            executor: executor.clone(),
            lease: executor.store().lease(),
            packs: Vec::new(),
            observer: observer.clone(),
            fetched_bytes: 0,
        })
    }

    /// Forgets the packs: all that they held is where it belongs.
    pub(super) fn done(self) -> Result<(), Error> {
        let Stage {
            executor,
            lease,
            packs,
            ..
        } = self;
        drop(lease);
        for pack in packs {
            executor.store().delete_blob(&pack)?;
        }
        Ok(())
    }

    pub(super) fn has(&self, file: &FileKey) -> bool {
        self.files.contains(file)
    }

    /// The path of a file that was brought here.
    pub(super) fn path(&self, file: &FileKey) -> PathBuf {
        self.directory.path().join(name(file))
    }

    /// Forgets a file that was moved to where it belongs.
    pub(super) fn took(&mut self, file: &FileKey) {
        self.files.remove(file);
    }

    /// Brings files here: fetches each pack that has a part of one, and writes what it holds.
    pub(super) async fn bring(
        &mut self,
        shelf: &Shelf,
        mount: &ExportedTree,
        tree: &Tree,
        wanted: &HashSet<FileKey>,
        tell: Tell<'_>,
    ) -> Result<(), Error> {
        let (packs, whole) = self.plan(tree, wanted);
        let total: u64 = packs
            .keys()
            .map(|pack| mount.packs[*pack as usize].size)
            .sum();
        let told = |current| {
            tell(MountsEvent::Fetching {
                id: mount.id.clone(),
                current,
                total,
            });
        };
        told(0);
        for number in packs.keys() {
            let pack = &mount.packs[*number as usize];
            self.observer.blob(&pack.descriptor(), BlobState::Waiting);
            self.packs.push(BlobDigest(*pack.digest.as_bytes()));
        }
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        let current = AtomicU64::new(0);
        let mut tasks = JoinSet::new();
        for (number, chunks) in packs {
            let pack = mount.packs[number as usize].clone();
            let (shelf, gate) = (shelf.clone(), Arc::clone(&gate));
            let (executor, lease) = (self.executor.clone(), self.lease.clone());
            let observer = self.observer.clone();
            let directory = self.directory.path().to_owned();
            let digests: HashMap<u32, FileDigest> = chunks
                .iter()
                .map(|(chunk, _)| (*chunk, tree.chunks[*chunk as usize].digest))
                .collect();
            let places: HashMap<u32, (usize, usize)> = chunks
                .iter()
                .map(|(chunk, _)| {
                    let at = &tree.chunks[*chunk as usize];
                    (*chunk, (at.offset as usize, at.length as usize))
                })
                .collect();
            tasks.spawn(async move {
                // The gate is never closed.
                let _turn = gate.acquire_owned().await;
                let blob = pack.descriptor();
                let blob: Bytes = shelf.pack(&executor, &lease, &blob, &observer).await?;
                blocking(move || {
                    let bytes = unpack(&blob, &pack).map_err(|reason| shelf.hostile(reason))?;
                    for (chunk, targets) in chunks {
                        let (offset, length) = places[&chunk];
                        let part = &bytes[offset..offset + length];
                        if *blake3::hash(part).as_bytes() != digests[&chunk].0 {
                            return Err(shelf
                                .hostile("a chunk has another digest than it should")
                                .into());
                        }
                        for (name, at) in targets {
                            write(&directory.join(name), part, at)?;
                        }
                    }
                    Ok(pack.size)
                })
                .await
            });
        }
        while let Some(done) = tasks.join_next().await {
            let bytes = match done {
                Ok(bytes) => bytes?,
                Err(error) if error.is_cancelled() => return Err(Error::Cancelled),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            told(current.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
        self.fetched_bytes += total;
        self.finish(shelf, whole).await?;
        self.files.extend(wanted);
        Ok(())
    }

    /// Sorts what is wanted by pack; lists the files whose digest is not that of their only chunk.
    fn plan(&self, tree: &Tree, wanted: &HashSet<FileKey>) -> (Packs, Vec<FileKey>) {
        let mut targets: BTreeMap<u32, Targets> = BTreeMap::new();
        let mut whole = Vec::new();
        let mut planned = HashSet::new();
        for (file, parts) in regular(&tree.manifest).zip(&tree.files) {
            if !wanted.contains(&file) || !planned.insert(file) {
                continue;
            }
            let mut at = 0;
            for part in parts {
                at += match part {
                    Part::Zeros(length) => u64::from(*length),
                    Part::Chunk(index) => {
                        targets.entry(*index).or_default().push((name(&file), at));
                        u64::from(tree.chunks[*index as usize].length)
                    }
                };
            }
            if !matches!(parts[..], [Part::Chunk(_)]) {
                whole.push(file);
            }
        }
        let mut packs = Packs::new();
        for (chunk, targets) in targets {
            let pack = tree.chunks[chunk as usize].pack;
            packs.entry(pack).or_default().push((chunk, targets));
        }
        (packs, whole)
    }

    /// Gives files of several parts their length, and checks that they are what they should be.
    async fn finish(&self, shelf: &Shelf, files: Vec<FileKey>) -> Result<(), Error> {
        let shelf = shelf.clone();
        let directory = self.directory.path().to_owned();
        stoppable(move |stop: &Stop| {
            let mut buffer = Vec::new();
            for key in files {
                let path = directory.join(name(&key));
                let file = open(&path)?;
                file.set_len(key.0)
                    .map_err(Error::io("set the length of", &path))?;
                let hashed = kiln_tree::handle::hash(&file, &mut buffer, stop);
                let (digest, _) =
                    hashed.map_err(|error| Error::io("read", &path)(error.into_io()))?;
                if digest != key.1 {
                    return Err(shelf
                        .hostile("a file has another digest than it should")
                        .into());
                }
            }
            Ok(())
        })
        .await
    }
}

fn name((size, digest): &FileKey) -> String {
    let mut name = format!("{size}-");
    for byte in digest.0 {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

fn open(path: &Path) -> Result<File, Error> {
    open_or_create(path).map_err(Error::io("create", path))
}

fn write(path: &Path, bytes: &[u8], at: u64) -> Result<(), Error> {
    let file = open(path)?;
    file.write_all_at(bytes, at)
        .map_err(Error::io("write", path))
}
