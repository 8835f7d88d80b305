//! Walks a context with a few threads, one `statx` a file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::time::{ClockId, Timespec};

use crate::context::memory::{HashMemory, Seen, WANTED};
use crate::context::object::Device;
use crate::context::select::{Decision, Select};
use crate::context::tree::{ContextTree, Item, ItemKind, Scanned};
use crate::digest::TreeDigest;
use crate::handle::{self, FsError, Name};
use crate::path::TreePath;
use crate::stop::Stop;

/// Names that one thread takes at once.
const CHUNK: usize = 256;
/// A file changed less than this before it was hashed might change again unseen: the kernel's
/// clock for files has ticks of up to 10 ms.
const SETTLED_NANOS: i128 = 50_000_000;
/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// How to scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Threads, at least one.
    pub threads: usize,
    /// Gives it up.
    pub stop: Stop,
}

impl Default for ScanOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
        Self {
            threads,
            stop: Stop::NEVER,
        }
    }
}

/// A context cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It cannot be read.
    #[error("could not read the build context")]
    Fs(#[from] FsError),
    /// A file is being written to.
    #[error("`{0}` in the build context keeps changing while it is read")]
    Changing(TreePath),
}

/// Scans the directory `root` as far as `select` selects it.
///
/// Files that `memory` knows by their stat are not read. Sockets are passed over. A directory
/// that is itself excluded is listed if something in it is included.
pub fn scan(
    root: BorrowedFd<'_>,
    select: &dyn Select,
    memory: &HashMemory,
    options: &ScanOptions,
) -> Result<ContextTree, ScanError> {
    let device = Seen::of(root)?.device;
    let scan = Scan {
        root,
        select,
        memory,
        stop: &options.stop,
        trusted_device: has_our_clock(root)?.then_some(device),
        queue: Mutex::new(Queue {
            work: Vec::new(),
            busy: 0,
            directories: 0,
            failed: false,
        }),
        changed: Condvar::new(),
    };
    scan.add_directory(&mut lock(&scan.queue), TreePath::ROOT);
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..options.threads.max(1))
            .map(|_| scope.spawn(|| scan.work()))
            .collect();
        let mut parts = vec![scan.work()];
        for other in others {
            parts.push(other.join().expect("BUG: a scanning thread panicked"));
        }
        parts
    });
    let count = lock(&scan.queue).directories;
    let mut directories: Vec<Scanned> = Vec::new();
    directories.resize_with(count, || Scanned {
        path: TreePath::ROOT,
        items: Vec::new(),
        digest: TreeDigest([0; 32]),
        included: true,
    });
    let mut hashed = 0;
    for part in parts {
        let part = part?;
        hashed += part.hashed;
        for (index, path) in part.paths {
            directories[index].path = path;
        }
        for (index, items) in part.items {
            directories[index].items.extend(items);
        }
        for index in part.excluded {
            directories[index].included = false;
        }
    }
    Ok(ContextTree::settle(directories, hashed))
}

struct Scan<'a> {
    root: BorrowedFd<'a>,
    select: &'a dyn Select,
    memory: &'a HashMemory,
    stop: &'a Stop,
    /// The device whose files' times are by this machine's clock.
    trusted_device: Option<u64>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// Taken from the end, so that few directories are open at once.
    work: Vec<Work>,
    /// Threads at work, who may add more.
    busy: usize,
    directories: usize,
    failed: bool,
}

enum Work {
    Open {
        index: usize,
        path: TreePath,
    },
    Names {
        index: usize,
        path: Arc<TreePath>,
        dir: Arc<OwnedFd>,
        names: Vec<Name>,
    },
}

#[derive(Default)]
struct Part {
    paths: Vec<(usize, TreePath)>,
    items: Vec<(usize, Vec<Item>)>,
    excluded: Vec<usize>,
    hashed: usize,
    buffer: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scan<'_> {
    fn add_directory(&self, queue: &mut Queue, path: TreePath) -> usize {
        let index = queue.directories;
        queue.directories += 1;
        queue.work.push(Work::Open { index, path });
        index
    }

    fn work(&self) -> Result<Part, ScanError> {
        let mut part = Part::default();
        let mut queue = lock(&self.queue);
        loop {
            if queue.failed {
                return Ok(part);
            }
            let Some(work) = queue.work.pop() else {
                if queue.busy == 0 {
                    self.changed.notify_all();
                    return Ok(part);
                }
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let done = self.step(work, &mut part);
            queue = lock(&self.queue);
            queue.busy -= 1;
            if done.is_err() {
                queue.failed = true;
            }
            if queue.failed || (queue.busy == 0 && queue.work.is_empty()) {
                self.changed.notify_all();
            }
            done?;
        }
    }

    fn step(&self, work: Work, part: &mut Part) -> Result<(), ScanError> {
        self.stop.check()?;
        match work {
            Work::Open { index, path } => self.open(index, path, part),
            Work::Names {
                index,
                path,
                dir,
                names,
            } => self.look(index, &path, dir.as_fd(), names, part),
        }
    }

    fn open(&self, index: usize, path: TreePath, part: &mut Part) -> Result<(), ScanError> {
        let at = |error: FsError| error.at(path.as_bytes());
        let dir = handle::open_beneath(self.root, path.as_bytes(), handle::READ_DIRECTORY)?;
        let mut names = handle::names(&dir).map_err(at)?;
        part.paths.push((index, path.clone()));
        if names.len() > 2 * CHUNK {
            let (dir, path) = (Arc::new(dir), Arc::new(path));
            let mut queue = lock(&self.queue);
            while names.len() > CHUNK {
                let chunk = names.split_off(names.len() - CHUNK);
                let (path, dir) = (path.clone(), dir.clone());
                queue.work.push(Work::Names {
                    index,
                    path,
                    dir,
                    names: chunk,
                });
            }
            drop(queue);
            self.changed.notify_all();
            return self.look(index, &path, dir.as_fd(), names, part);
        }
        self.look(index, &path, dir.as_fd(), names, part)
    }

    fn look(
        &self,
        index: usize,
        above: &TreePath,
        dir: BorrowedFd<'_>,
        names: Vec<Name>,
        part: &mut Part,
    ) -> Result<(), ScanError> {
        let mut items = Vec::with_capacity(names.len());
        let mut below = Vec::new();
        for (name, file_type) in names {
            let path = above.child(&name);
            // Most file systems tell the type beforehand, which saves a look at what is excluded.
            let told = (file_type != FileType::Unknown).then_some(file_type == FileType::Directory);
            if told
                .is_some_and(|is_directory| self.decide(&path, is_directory) == Decision::Exclude)
            {
                continue;
            }
            let Some(stat) = self.stat(dir, &name, &path)? else {
                continue;
            };
            let file_type = FileType::from_raw_mode(stat.stx_mode.into());
            let is_directory = file_type == FileType::Directory;
            let decision = self.decide(&path, is_directory);
            if decision == Decision::Exclude || (!is_directory && decision != Decision::Include) {
                continue;
            }
            let mode = u32::from(stat.stx_mode) & 0o7777;
            if is_directory {
                let path = TreePath::new(path.as_bytes()).map_err(FsError::from)?;
                below.push((name, mode, path, decision));
                continue;
            }
            let (mode, kind) = match file_type {
                FileType::RegularFile => (mode, self.file(dir, &name, &path, &stat, part)?),
                FileType::Symlink => {
                    let target =
                        handle::read_link(dir, &name).map_err(|error| error.at(path.as_bytes()))?;
                    (0o777, ItemKind::Symlink { target })
                }
                FileType::Socket => continue,
                FileType::Fifo => (mode, ItemKind::Fifo),
                _ => {
                    let device = Device {
                        is_block: file_type == FileType::BlockDevice,
                        major: stat.stx_rdev_major,
                        minor: stat.stx_rdev_minor,
                    };
                    (mode, ItemKind::Device(device))
                }
            };
            items.push(Item { name, mode, kind });
        }
        if !below.is_empty() {
            let mut queue = lock(&self.queue);
            for (name, mode, path, decision) in below.into_iter().rev() {
                let index = self.add_directory(&mut queue, path);
                if decision == Decision::ExcludeButDescend {
                    part.excluded.push(index);
                }
                items.push(Item {
                    name,
                    mode,
                    kind: ItemKind::Directory { index },
                });
            }
            drop(queue);
            self.changed.notify_all();
        }
        part.items.push((index, items));
        Ok(())
    }

    fn decide(&self, path: &TreePath, is_directory: bool) -> Decision {
        self.select.decide(path.as_bytes(), is_directory)
    }

    fn stat(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
    ) -> Result<Option<Statx>, ScanError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let wanted: StatxFlags = WANTED;
        match rustix::fs::statx(dir, name, flags, wanted) {
            Ok(stat) => Ok(Some(stat)),
            // Removed since it was listed.
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(source) => Err(FsError::new("stat", path.as_bytes(), source).into()),
        }
    }

    fn file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
        stat: &Statx,
        part: &mut Part,
    ) -> Result<ItemKind, ScanError> {
        let seen = Seen::from_stat(stat);
        let linked = stat.stx_nlink > 1;
        if let Some(digest) = self.memory.get(&seen) {
            return Ok(ItemKind::File {
                size: seen.size,
                digest,
                seen,
                settled: true,
                linked,
            });
        }
        part.hashed += 1;
        for _ in 0..ATTEMPTS {
            let at = |error: FsError| error.at(path.as_bytes());
            let file = handle::open_file(dir, name).map_err(at)?;
            let before = Seen::of(&file).map_err(at)?;
            let start = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
            let (digest, size) = handle::hash(&file, &mut part.buffer, self.stop).map_err(at)?;
            let seen = Seen::of(&file).map_err(at)?;
            if seen == before && size == seen.size {
                let settled = self.trusted_device == Some(seen.device)
                    && nanos(start) - stamp(seen.ctime) >= SETTLED_NANOS;
                return Ok(ItemKind::File {
                    size,
                    digest,
                    seen,
                    settled,
                    linked,
                });
            }
        }
        Err(ScanError::Changing(path.clone()))
    }
}

fn nanos(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

fn stamp((seconds, nanos): (i64, u32)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

/// Whether the file system stamps files by this machine's clock; another's may be behind ours, and
/// a file that changed just now would look settled.
fn has_our_clock(root: BorrowedFd<'_>) -> Result<bool, FsError> {
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517b;
    const SMB2: u32 = 0xfe53_4d42;
    const CIFS: u32 = 0xff53_4d42;
    const NINE_P: u32 = 0x0102_1997;
    const CEPH: u32 = 0x00c3_6400;
    const AFS: u32 = 0x5346_414f;
    const FUSE: u32 = 0x6573_5546;
    let stat = rustix::fs::fstatfs(root)
        .map_err(|source| FsError::new("stat file system of", b"", source))?;
    let others = [NFS, SMB, SMB2, CIFS, NINE_P, CEPH, AFS, FUSE];
    Ok(!others.contains(&(stat.f_type as u32)))
}
