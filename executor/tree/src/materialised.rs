//! A tree written out in full, and what a step changed in it, for where no overlay can be had.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::attributes::Ownership;
use crate::copy::{copy_bytes_unseen, create_file};
use crate::digest::FileDigest;
use crate::handle::{self, FsError, FsResult};
use crate::manifest::{Entry, Kind, Manifest, Meta, Xattrs};
use crate::marks::is_content_xattr;
use crate::owners::{self, Owner, Sight, doubts, note_made};
use crate::path::{self, TreePath};
use crate::seal::{Job, SealError, SealOptions, hash_files};
use crate::stop::Stop;
use crate::view::{Changes, Found, View, diff_dated};
use crate::walk::{Descend, walk};

/// A file changed less than this before the snapshot might change again without its times showing
/// it: the kernel's clock for files has ticks of up to 10 ms.
const DOUBT_NANOS: i128 = 50_000_000;

/// What becomes of files with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// They keep them.
    Linked,
    /// Each name gets a file of its own, so that a change of one leaves the others, as in an overlay.
    Apart,
}

/// Writes out what `view` shows into the empty directory `into`, from its layers' directories.
///
/// Errors once `stop` says so; what is written by then is the caller's to remove.
pub fn materialise(
    view: &View,
    layers: &[OwnedFd],
    into: BorrowedFd<'_>,
    ownership: &Ownership,
    names: Names,
    stop: &Stop,
) -> FsResult<()> {
    let mut writer = Materialiser {
        layers,
        into,
        ownership,
        names,
        stop,
        first_names: HashMap::new(),
    };
    let mut parent: Option<(TreePath, OwnedFd)> = None;
    let mut directories = Vec::new();
    for found in view.iter() {
        stop.check()?;
        let path = &found.entry.path;
        if found.kind().is_directory() {
            directories.push(found);
        }
        let Some(above) = path.parent() else { continue };
        let dir = match parent {
            Some((open, dir)) if open == above => dir,
            _ => handle::open_beneath(into, above.as_bytes(), handle::READ_DIRECTORY)?,
        };
        writer
            .write(&found, dir.as_fd())
            .map_err(|error| error.at(path.as_bytes()))?;
        parent = Some((above, dir));
    }
    for found in directories.into_iter().rev() {
        let path = found.entry.path.as_bytes();
        let dir = handle::open_beneath(into, path, handle::READ_DIRECTORY)?;
        ownership
            .set(dir, found.meta(), true)
            .map_err(|error| error.at(path))?;
    }
    Ok(())
}

struct Materialiser<'a> {
    layers: &'a [OwnedFd],
    into: BorrowedFd<'a>,
    ownership: &'a Ownership,
    names: Names,
    stop: &'a Stop,
    /// Inodes that were written, to the path where.
    first_names: HashMap<(usize, &'a TreePath), &'a TreePath>,
}

impl<'a> Materialiser<'a> {
    fn write(&mut self, found: &Found<'a>, dir: BorrowedFd<'_>) -> FsResult<()> {
        let name = found.entry.path.name();
        let mode = Mode::from_raw_mode(0o700);
        let failed = |attempt| move |source: Errno| FsError::new(attempt, name, source);
        if found.kind().is_directory() {
            return rustix::fs::mkdirat(dir, name, mode).map_err(failed("make directory"));
        }
        if self.names == Names::Linked
            && let Some(first) = self.first_names.get(&(found.layer, &found.inode.path))
        {
            let (above, first) = path::split(first.as_bytes());
            let from = handle::open_beneath(self.into, above, handle::READ_DIRECTORY)?;
            return rustix::fs::linkat(from, first, dir, name, AtFlags::empty())
                .map_err(failed("make hard link"));
        }
        self.first_names
            .insert((found.layer, &found.inode.path), &found.entry.path);
        match found.kind() {
            Kind::File { size, .. } => {
                let layer = self
                    .layers
                    .get(found.layer)
                    .ok_or_else(|| FsError::new("find the layer of", name, Errno::NOENT))?;
                let path = found.entry.path.as_bytes();
                let from = handle::open_beneath(layer, path, handle::READ)?;
                let to = create_file(dir, name)?;
                copy_bytes_unseen(from, &to, *size, self.stop)?;
                return self.ownership.set(to, found.meta(), false);
            }
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], dir, name).map_err(failed("make link"))?;
                return self.ownership.set_at(dir, name, found.meta(), true);
            }
            Kind::CharDevice { major, minor } => {
                make_node(dir, name, FileType::CharacterDevice, *major, *minor)?;
            }
            Kind::BlockDevice { major, minor } => {
                make_node(dir, name, FileType::BlockDevice, *major, *minor)?;
            }
            Kind::Fifo => make_node(dir, name, FileType::Fifo, 0, 0)?,
            Kind::Directory { .. } | Kind::Hardlink { .. } | Kind::Whiteout => {}
        }
        self.ownership.set_at(dir, name, found.meta(), false)
    }
}

/// Makes a device or pipe; where we may not, an empty file stands in for it.
pub(crate) fn make_node(
    dir: impl AsFd,
    name: &[u8],
    file_type: FileType,
    major: u32,
    minor: u32,
) -> FsResult<()> {
    let device = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(&dir, name, file_type, Mode::from_raw_mode(0o600), device) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => create_file(dir, name).map(drop),
        Err(source) => Err(FsError::new("make device", name, source)),
    }
}

/// What `stat` said of every file of a tree right after it was written out.
#[derive(Debug, Clone)]
pub struct Snapshot {
    stamps: HashMap<TreePath, Stamp>,
    taken_nanos: i128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    mtime: i128,
    ctime: i128,
    owner: (u32, u32),
    mode: u32,
    /// Of directories alone, whose times tell nothing.
    xattrs: Xattrs,
}

impl Stamp {
    fn new(stat: &Stat, xattrs: Xattrs) -> Self {
        let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: nanos(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            ctime: nanos(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
            owner: (stat.st_uid, stat.st_gid),
            mode: stat.st_mode,
            xattrs,
        }
    }

    /// Whether mode, owner and a directory's xattrs are as they were.
    fn same_attributes(&self, other: &Stamp) -> bool {
        (self.owner, self.mode, &self.xattrs) == (other.owner, other.mode, &other.xattrs)
    }
}

/// Takes a snapshot of a tree that nobody works in yet.
///
/// It returns when the clock for files shows a time that none of them has.
pub fn record(tree: BorrowedFd<'_>, stop: &Stop) -> Result<Snapshot, FsError> {
    let mut stamps = HashMap::new();
    let root = root_stat(tree)?;
    let (xattrs, _) = content_xattrs(tree, b"")?;
    stamps.insert(TreePath::ROOT, Stamp::new(&root, xattrs));
    walk(tree, |visit| {
        stop.check()?;
        let is_directory = handle::file_type(visit.stat) == FileType::Directory;
        let xattrs = match is_directory {
            true => content_xattrs(visit.dir, visit.name)?.0,
            false => Xattrs::new(),
        };
        stamps.insert(visit.path.clone(), Stamp::new(visit.stat, xattrs));
        Ok::<_, FsError>(Descend::Into)
    })?;
    let newest = stamps.values().map(|stamp| stamp.ctime).max();
    let taken_nanos = loop {
        let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
        let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        // A clock that was set back does not come there soon.
        match newest.map_or(0, |newest| newest - nanos) {
            0..=DOUBT_NANOS => std::thread::sleep(std::time::Duration::from_millis(1)),
            _ => break nanos,
        }
    };
    Ok(Snapshot {
        stamps,
        taken_nanos,
    })
}

/// Reads a whole directory as one layer, its root's attributes included.
pub fn scan_full(tree: BorrowedFd<'_>, options: &SealOptions) -> Result<Manifest, SealError> {
    Ok(read(tree, &View::default(), None, options)?.0)
}

/// Returns what a step changed in a tree that was written out from `base`.
///
/// A file whose stamp is as in the snapshot, and was old enough then, has what `base` says; any
/// other is read. Stubs are left out of the manifest; of the tree only notes of owners are changed.
pub fn diff_against(
    tree: BorrowedFd<'_>,
    base: &View,
    snapshot: &Snapshot,
    options: &SealOptions,
) -> Result<Changes, SealError> {
    let (now, sights) = read(tree, base, Some(snapshot), options)?;
    let changes = diff_dated(base, &View::new(vec![std::sync::Arc::new(now)]));
    if let Some(one_id) = &options.one_id {
        doubts(one_id, base, &changes.manifest, &sights)?;
        note_made(tree, &changes.manifest, &sights)?;
    }
    Ok(changes)
}

fn read(
    tree: BorrowedFd<'_>,
    base: &View,
    snapshot: Option<&Snapshot>,
    options: &SealOptions,
) -> Result<(Manifest, Vec<Sight>), SealError> {
    let stubs = options.stubs.iter().collect();
    let mut reader = TreeReader {
        base,
        snapshot,
        options,
        stubs,
        entries: Vec::new(),
        unhashed: Vec::new(),
        inodes: HashMap::new(),
        sights: Vec::new(),
    };
    // A scratch root that nobody changed has no entry, as in the base.
    let root = root_stat(tree)?;
    let (xattrs, note) = content_xattrs(tree, b"")?;
    let stamp = Stamp::new(&root, xattrs.clone());
    let meta = reader.meta(&TreePath::ROOT, &root, (xattrs, note), &stamp);
    reader.saw(&TreePath::ROOT, note, &stamp);
    let known = snapshot.is_some() && base.get(b"").is_none();
    if options.root && !(known && meta.same_but_time(&Meta::new(0o755))) {
        reader
            .entries
            .push(Entry::new(TreePath::ROOT, Kind::DIRECTORY, meta));
    }
    walk(tree, |visit| {
        let file_type = handle::file_type(visit.stat);
        let is_directory = file_type == FileType::Directory;
        let at = |error: FsError| error.at(visit.path.as_bytes());
        let (xattrs, note) = content_xattrs(visit.dir, visit.name).map_err(at)?;
        let stamp_xattrs = if is_directory {
            xattrs.clone()
        } else {
            Xattrs::new()
        };
        let stamp = Stamp::new(visit.stat, stamp_xattrs);
        reader.saw(visit.path, note, &stamp);
        if is_directory {
            let meta = reader.meta(visit.path, visit.stat, (xattrs, note), &stamp);
            reader
                .entries
                .push(Entry::new(visit.path.clone(), Kind::DIRECTORY, meta));
            return Ok(Descend::Into);
        }
        let target = match file_type {
            FileType::Symlink => handle::read_link(visit.dir, visit.name).map_err(at)?,
            _ => Vec::new(),
        };
        reader.file(visit.path, visit.stat, (xattrs, note), &stamp, target);
        Ok::<_, SealError>(Descend::Into)
    })?;
    let sights = std::mem::take(&mut reader.sights);
    Ok((reader.finish(tree)?, sights))
}

struct TreeReader<'a> {
    base: &'a View,
    snapshot: Option<&'a Snapshot>,
    options: &'a SealOptions,
    stubs: HashSet<&'a TreePath>,
    entries: Vec<Entry>,
    /// Indices of the files to hash.
    unhashed: Vec<usize>,
    inodes: HashMap<(u64, u64), TreePath>,
    /// What was touched, where notes tell owners.
    sights: Vec<Sight>,
}

impl TreeReader<'_> {
    fn saw(&mut self, path: &TreePath, note: Option<Owner>, stamp: &Stamp) {
        let wanted = self.options.one_id.is_some() && !self.options.owners.contains_key(path);
        if wanted && self.before(path) != Some(stamp) {
            let path = path.clone();
            self.sights.push(Sight { path, note });
        }
    }

    fn before(&self, path: &TreePath) -> Option<&Stamp> {
        self.snapshot.and_then(|snapshot| snapshot.stamps.get(path))
    }

    fn meta(
        &self,
        path: &TreePath,
        stat: &Stat,
        (xattrs, note): (Xattrs, Option<Owner>),
        stamp: &Stamp,
    ) -> Meta {
        let below = self.base.get(path.as_bytes());
        let file_type = handle::file_type(stat);
        let by_note = || {
            let below = below.as_ref().map(|found| (found.kind(), found.meta()));
            owners::owner(note, file_type, below)
        };
        let before = self.before(path);
        if let (Some(found), Some(before)) = (below, before)
            && before.same_attributes(stamp)
            && (file_type == FileType::Directory || found.meta().xattrs == xattrs)
        {
            let mut meta = found.meta().clone();
            meta.mtime = handle::mtime(stat);
            if self.options.one_id.is_some() && before != stamp {
                (meta.uid, meta.gid) = by_note();
            }
            return meta;
        }
        let ids = &self.options.ids;
        let (uid, gid) = match (self.options.owners.get(path), &self.options.one_id) {
            (Some(&owner), _) => owner,
            (None, Some(_)) => by_note(),
            (None, None) => (ids.uid_inside(stat.st_uid), ids.gid_inside(stat.st_gid)),
        };
        let mode = match file_type {
            FileType::Symlink => 0o777,
            _ => stat.st_mode & 0o7777,
        };
        Meta {
            mode,
            uid,
            gid,
            mtime: handle::mtime(stat),
            xattrs,
        }
    }

    fn file(
        &mut self,
        path: &TreePath,
        stat: &Stat,
        attributes: (Xattrs, Option<Owner>),
        stamp: &Stamp,
        target: Vec<u8>,
    ) {
        let inode = (stat.st_dev, stat.st_ino);
        let first = (stat.st_nlink > 1)
            .then(|| self.inodes.get(&inode))
            .flatten();
        if let Some(to) = first {
            let kind = Kind::Hardlink { to: to.clone() };
            self.entries
                .push(Entry::new(path.clone(), kind, Meta::default()));
            return;
        }
        let below = self.base.get(path.as_bytes());
        let meta = self.meta(path, stat, attributes, stamp);
        let unchanged = below.filter(|_| self.unchanged(path, stamp));
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let kind = match (unchanged, handle::file_type(stat)) {
            (Some(found), _) => found.kind().clone(),
            (None, FileType::RegularFile) => {
                let size = stat.st_size as u64;
                if size == 0 && below.is_none() && self.stubs.contains(path) {
                    return;
                }
                let known = self
                    .options
                    .known
                    .get(path)
                    .filter(|known| known.size == size);
                let digest = known.map(|known| known.digest).unwrap_or_else(|| {
                    self.unhashed.push(self.entries.len());
                    FileDigest([0; 32])
                });
                Kind::File { size, digest }
            }
            (None, FileType::Symlink) => Kind::Symlink { target },
            (None, FileType::BlockDevice) => Kind::BlockDevice { major, minor },
            (None, FileType::Fifo) => Kind::Fifo,
            // 0:0 is nothing but an overlay's mark that was left lying about.
            (None, FileType::CharacterDevice) if (major, minor) != (0, 0) => {
                Kind::CharDevice { major, minor }
            }
            _ => return,
        };
        if stat.st_nlink > 1 {
            self.inodes.insert(inode, path.clone());
        }
        self.entries.push(Entry::new(path.clone(), kind, meta));
    }

    fn unchanged(&self, path: &TreePath, stamp: &Stamp) -> bool {
        let Some(snapshot) = self.snapshot else {
            return false;
        };
        snapshot.stamps.get(path) == Some(stamp)
            && snapshot.taken_nanos - stamp.ctime >= DOUBT_NANOS
    }

    fn finish(mut self, tree: BorrowedFd<'_>) -> Result<Manifest, SealError> {
        let jobs: Vec<Job<'_>> = self
            .unhashed
            .iter()
            .map(|&index| {
                let Entry {
                    path,
                    kind: Kind::File { size, .. },
                    ..
                } = &self.entries[index]
                else {
                    unreachable!("BUG: only files are hashed")
                };
                Job { path, size: *size }
            })
            .collect();
        let digests = hash_files(tree, &jobs, self.options.threads, &self.options.stop)?;
        for (index, hashed) in std::mem::take(&mut self.unhashed).into_iter().zip(digests) {
            if let Kind::File { digest, .. } = &mut self.entries[index].kind {
                *digest = hashed;
            }
        }
        // From the deepest up, stub directories in which nothing is left.
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.into_iter().rev() {
            let is_full = kept
                .last()
                .is_some_and(|below| below.path.starts_with(entry.path.as_bytes()));
            let is_stub = entry.kind.is_directory() && self.stubs.contains(&entry.path);
            if is_stub && !is_full && self.base.get(entry.path.as_bytes()).is_none() {
                continue;
            }
            kept.push(entry);
        }
        Ok(Manifest::new(kept)?)
    }
}

fn root_stat(tree: BorrowedFd<'_>) -> FsResult<Stat> {
    rustix::fs::fstat(tree).map_err(|source| FsError::new("stat", b"", source))
}

/// The attributes that are content, and the owner that a note tells.
fn content_xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> FsResult<(Xattrs, Option<Owner>)> {
    let mut xattrs = handle::xattrs(dir, name)?;
    let note = xattrs.get(owners::NOTE.as_bytes());
    let note = note.and_then(|value| owners::read(value));
    xattrs.retain(|key, _| is_content_xattr(key));
    Ok((xattrs, note))
}
