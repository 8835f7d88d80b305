//! Files of a cache mount to chunks, and those that nobody has yet to packs.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use kiln_oci::digest::Sha256Digest;
use kiln_store::{Lease, Store};
use kiln_tree::handle::{self, FsError};
use kiln_tree::{Entry, FileDigest, Kind, Manifest, Stop};

use super::chunks::{MOST, cut};
use super::format::{Chunk, LEVEL, Pack, Part, Tree, decompress};
use crate::error::Error;

/// A pack is closed when it holds so much.
const PACK_BYTES: usize = 8 << 20;
/// More than so many packs of less than an eighth of that are packed anew.
const MOST_SMALL: usize = 32;

/// A packed mount.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) tree: Tree,
    /// The packs that the tree speaks of.
    pub(super) packs: Vec<Pack>,
    /// Those of them that are new, as blobs of the store.
    pub(super) new: Vec<Pack>,
}

/// What an earlier export of the mount has.
#[derive(Debug, Default)]
pub(super) struct Before<'a> {
    chunks: HashMap<FileDigest, Known>,
    files: HashMap<FileDigest, &'a [Part]>,
    tree: Option<&'a Tree>,
    packs: &'a [Pack],
}

#[derive(Debug, Clone, Copy)]
struct Known {
    pack: u32,
    offset: u32,
    length: u32,
}

impl<'a> Before<'a> {
    /// What of `tree` is worth keeping, now that `manifest` is what there is.
    ///
    /// A pack of which less than half is still used is left out, and so are many small ones: what is
    /// in use of them goes into new packs.
    pub(super) fn of(tree: &'a Tree, packs: &'a [Pack], manifest: &Manifest) -> Before<'a> {
        let files = super::format::regular(&tree.manifest);
        let files: HashMap<FileDigest, &[Part]> = files
            .zip(&tree.files)
            .map(|((_, digest), parts)| (digest, &parts[..]))
            .collect();
        let mut used = vec![0_u64; packs.len()];
        let mut counted = HashSet::new();
        let digests: HashSet<FileDigest> = super::format::regular(manifest)
            .map(|(_, digest)| digest)
            .collect();
        let old = tree
            .manifest
            .entries()
            .iter()
            .filter_map(|entry| match entry.kind {
                Kind::File { digest, .. } => Some((entry, digest)),
                _ => None,
            });
        for ((entry, digest), parts) in old.zip(&tree.files) {
            // Of a file that changed most chunks are likely to be as they were.
            if !digests.contains(&digest) && manifest.get(entry.path.as_bytes()).is_none() {
                continue;
            }
            for part in parts {
                if let Part::Chunk(index) = part
                    && counted.insert(*index)
                {
                    let chunk = &tree.chunks[*index as usize];
                    used[chunk.pack as usize] += u64::from(chunk.length);
                }
            }
        }
        let is_small = |pack: &Pack| pack.bytes < PACK_BYTES as u64 / 8;
        let many = packs.iter().filter(|pack| is_small(pack)).count() > MOST_SMALL;
        let kept: Vec<bool> = packs
            .iter()
            .zip(&used)
            .map(|(pack, used)| used * 2 >= pack.bytes && !(many && is_small(pack)))
            .collect();
        let chunks = tree.chunks.iter().filter(|chunk| kept[chunk.pack as usize]);
        let known = |chunk: &Chunk| Known {
            pack: chunk.pack,
            offset: chunk.offset,
            length: chunk.length,
        };
        Before {
            chunks: chunks.map(|chunk| (chunk.digest, known(chunk))).collect(),
            files,
            tree: Some(tree),
            packs,
        }
    }

    /// The parts of a file, if all its chunks are kept.
    fn parts(&self, digest: FileDigest) -> Option<Vec<Named>> {
        let tree = self.tree?;
        let parts = self.files.get(&digest)?;
        let named = parts.iter().map(|part| match part {
            Part::Zeros(length) => Some(Named::Zeros(*length)),
            Part::Chunk(index) => {
                let digest = tree.chunks[*index as usize].digest;
                self.chunks
                    .contains_key(&digest)
                    .then_some(Named::Chunk(digest))
            }
        });
        named.collect()
    }
}

/// A part of a file by the digest of its chunk.
#[derive(Debug, Clone, Copy)]
enum Named {
    Chunk(FileDigest),
    Zeros(u32),
}

/// A pack on its way to be compressed, by number.
type Full = (usize, Vec<u8>);

struct Packer<'a> {
    before: &'a Before<'a>,
    /// Chunks of new packs, whose numbers begin behind the old ones'.
    new: HashMap<FileDigest, Known>,
    open: Vec<u8>,
    closed: usize,
    full: SyncSender<Full>,
}

impl Packer<'_> {
    fn add(&mut self, bytes: &[u8]) -> Result<Named, FsError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Named::Zeros(bytes.len() as u32));
        }
        let digest = FileDigest(*blake3::hash(bytes).as_bytes());
        if self.before.chunks.contains_key(&digest) || self.new.contains_key(&digest) {
            return Ok(Named::Chunk(digest));
        }
        let chunk = Known {
            pack: (self.before.packs.len() + self.closed) as u32,
            offset: self.open.len() as u32,
            length: bytes.len() as u32,
        };
        self.open.extend_from_slice(bytes);
        self.new.insert(digest, chunk);
        if self.open.len() >= PACK_BYTES {
            self.close();
        }
        Ok(Named::Chunk(digest))
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let pack = std::mem::replace(&mut self.open, Vec::with_capacity(PACK_BYTES + MOST));
        // Nobody takes it where compressing failed, which is told in the end.
        let _ = self.full.send((self.closed, pack));
        self.closed += 1;
    }

    fn file(
        &mut self,
        root: BorrowedFd<'_>,
        entry: &Entry,
        size: u64,
        digest: FileDigest,
        stop: &Stop,
    ) -> Result<Vec<Named>, FsError> {
        if let Some(parts) = self.before.parts(digest) {
            return Ok(parts);
        }
        let path = entry.path.as_bytes();
        let file = handle::open_beneath(root, path, handle::READ)?;
        let mut hash = blake3::Hasher::new();
        let mut window = Vec::with_capacity(MOST.min(size as usize + 1));
        let mut parts = Vec::new();
        let mut read: u64 = 0;
        loop {
            stop.check()?;
            let added = fill(&file, &mut window, read).map_err(|error| error.at(path))?;
            read += added;
            if window.is_empty() {
                break;
            }
            let length = cut(&window);
            hash.update(&window[..length]);
            let part = self.add(&window[..length])?;
            match (parts.last_mut(), part) {
                (Some(Named::Zeros(before)), Named::Zeros(more))
                    if before.checked_add(more).is_some() =>
                {
                    *before += more;
                }
                _ => parts.push(part),
            }
            window.drain(..length);
        }
        match read == size && *hash.finalize().as_bytes() == digest.0 {
            true => Ok(parts),
            false => {
                let text = "it changed while it was read, though nobody may use the mount now";
                let error = std::io::Error::other(text);
                Err(FsError::new("pack", path, error))
            }
        }
    }
}

/// Reads on until the window holds as much as a chunk may have; returns how much was added.
fn fill(file: &std::os::fd::OwnedFd, window: &mut Vec<u8>, mut at: u64) -> Result<u64, FsError> {
    let begin = window.len();
    window.resize(MOST, 0);
    let mut filled = begin;
    while filled < MOST {
        match rustix::io::pread(file, &mut window[filled..], at) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                at += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(source) => return Err(FsError::new("read", b"", source)),
        }
    }
    window.truncate(filled);
    Ok((filled - begin) as u64)
}

/// Packs the files that `manifest` lists of the directory `root`.
pub(super) fn pack(
    store: &Store,
    lease: &Lease,
    root: BorrowedFd<'_>,
    manifest: Manifest,
    before: &Before<'_>,
    stop: &Stop,
    files_error: impl FnOnce(FsError) -> Error,
) -> Result<Packed, Error> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let (full, queue) = sync_channel::<Full>(1);
    let queue = Mutex::new(queue);
    let (files, known, compressed) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| compress(store, lease, &queue)))
            .collect();
        let mut packer = Packer {
            before,
            new: HashMap::new(),
            open: Vec::new(),
            closed: 0,
            full,
        };
        let mut files = Vec::new();
        let mut failure = None;
        for entry in manifest.entries() {
            let Kind::File { size, digest } = entry.kind else {
                continue;
            };
            match packer.file(root, entry, size, digest, stop) {
                Ok(parts) => files.push(parts),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        packer.close();
        let Packer { new, full, .. } = packer;
        drop(full);
        let mut compressed = Vec::new();
        let mut refused = None;
        for worker in workers {
            match worker.join().expect("BUG: a packing thread panicked") {
                Ok(packs) => compressed.extend(packs),
                Err(error) => refused = Some(error),
            }
        }
        match (refused, failure) {
            (Some(error), _) => Err(error),
            (None, Some(error)) => Err(files_error(error)),
            (None, None) => Ok((files, new, compressed)),
        }
    })?;
    let mut compressed = compressed;
    compressed.sort_by_key(|(number, _)| *number);
    let new: Vec<Pack> = compressed.into_iter().map(|(_, pack)| pack).collect();
    Ok(assemble(manifest, &files, before, &known, new))
}

/// Compresses packs until there are no more, and keeps them as blobs.
fn compress(
    store: &Store,
    lease: &Lease,
    queue: &Mutex<Receiver<Full>>,
) -> Result<Vec<(usize, Pack)>, Error> {
    let mut done = Vec::new();
    let mut refused = None;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, bytes)) = next else {
            return refused.map_or(Ok(done), Err);
        };
        // After a failure packs are still taken: whoever fills them waits for that.
        if refused.is_none() {
            match keep(store, lease, &bytes) {
                Ok(pack) => done.push((number, pack)),
                Err(error) => refused = Some(error),
            }
        }
    }
}

fn keep(store: &Store, lease: &Lease, bytes: &[u8]) -> Result<Pack, Error> {
    const WHAT: &str = "a pack of a cache mount";
    let packed = zstd::bulk::compress(bytes, LEVEL).map_err(Error::io("compress", WHAT))?;
    let mut writer = store.write_blob(None)?;
    writer
        .write_all(&packed)
        .map_err(Error::io("write", WHAT))?;
    let digest = writer.finish(lease)?;
    Ok(Pack {
        digest: Sha256Digest::from_bytes(digest.0),
        size: packed.len() as u64,
        bytes: bytes.len() as u64,
    })
}

/// Numbers chunks and packs in the order in which files first need them.
fn assemble(
    manifest: Manifest,
    files: &[Vec<Named>],
    before: &Before<'_>,
    known: &HashMap<FileDigest, Known>,
    new: Vec<Pack>,
) -> Packed {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut numbers: HashMap<FileDigest, u32> = HashMap::new();
    let mut packs: Vec<Pack> = Vec::new();
    let mut pack_numbers: HashMap<u32, u32> = HashMap::new();
    let mut number = |digest: FileDigest| {
        *numbers.entry(digest).or_insert_with(|| {
            let place = before.chunks.get(&digest).or_else(|| known.get(&digest));
            let place = place.expect("BUG: a chunk is in no pack");
            let pack = *pack_numbers.entry(place.pack).or_insert_with(|| {
                let at = place.pack as usize;
                let old = before.packs.get(at);
                packs.push(old.unwrap_or_else(|| &new[at - before.packs.len()]).clone());
                (packs.len() - 1) as u32
            });
            chunks.push(Chunk {
                digest,
                pack,
                offset: place.offset,
                length: place.length,
            });
            (chunks.len() - 1) as u32
        })
    };
    let files = files
        .iter()
        .map(|parts| {
            let part = |named: &Named| match *named {
                Named::Zeros(length) => Part::Zeros(length),
                Named::Chunk(digest) => Part::Chunk(number(digest)),
            };
            parts.iter().map(part).collect()
        })
        .collect();
    let tree = Tree {
        manifest,
        chunks,
        files,
    };
    Packed { tree, packs, new }
}

/// Decompresses a pack that came from elsewhere; it must hold as much as was said.
pub(super) fn unpack(blob: &[u8], pack: &Pack) -> Result<Vec<u8>, String> {
    let bytes = decompress(blob, pack.bytes)?;
    match bytes.len() as u64 == pack.bytes {
        true => Ok(bytes),
        false => Err("a pack holds less than it should".to_owned()),
    }
}
