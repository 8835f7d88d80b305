//! What is in a cache mount now.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use kiln_ir::pattern::PatternList;
use kiln_store::{Beside, WholeMount};
use kiln_tree::context::{HashMemory, Seen};
use kiln_tree::handle;
use kiln_tree::materialised::scan_full;
use kiln_tree::seal::{Known, SealOptions};
use kiln_tree::walk::{Descend, walk};
use kiln_tree::{Entry, FileDigest, FsError, Kind, Manifest, Stop, TreePath};
use rustix::fs::{FileType, Stat};
use rustix::time::ClockId;

use super::files_error;
use crate::error::Error;

/// A file changed less than this before it was looked at might change again without its times
/// showing it.
const DOUBT_NANOS: i128 = 50_000_000;

/// Lists what the mount holds, by what is remembered of files that have not changed.
///
/// Devices and sockets are left out; owners that this host's disk could not take are as imported.
pub(super) fn take(
    mount: &WholeMount,
    id: &str,
    root: BorrowedFd<'_>,
    single_id: bool,
    stop: &Stop,
) -> Result<Manifest, Error> {
    let failed = |error: FsError| files_error("read", id)(error.into());
    let begun = now_nanos();
    let before = mount.read_beside(Beside::Hashes)?.unwrap_or_default();
    let memory = HashMemory::decode(&before).unwrap_or_default();
    let mut seen: HashMap<TreePath, Seen> = HashMap::new();
    let mut known = HashMap::new();
    walk(root, |visit| {
        stop.check()?;
        if handle::file_type(visit.stat) == FileType::RegularFile {
            let file = of(visit.stat);
            if let Some(digest) = memory.get(&file) {
                let size = file.size;
                known.insert(visit.path.clone(), Known { size, digest });
            }
            seen.insert(visit.path.clone(), file);
        }
        Ok::<_, FsError>(Descend::Into)
    })
    .map_err(failed)?;
    let options = SealOptions {
        known,
        threads: std::thread::available_parallelism().map_or(1, |count| count.get().min(8)),
        stop: stop.clone(),
        ..SealOptions::default()
    };
    let scanned =
        scan_full(root, &options).map_err(|error| files_error("read", id)(error.into()))?;
    let digests = scanned.entries().iter().filter_map(|entry| {
        let Kind::File { digest, .. } = entry.kind else {
            return None;
        };
        let file = seen.get(&entry.path)?;
        let changed = i128::from(file.ctime.0) * 1_000_000_000 + i128::from(file.ctime.1);
        (begun - changed >= DOUBT_NANOS).then_some((*file, digest))
    });
    let after = HashMemory::new(digests).encode();
    if after != before {
        mount.keep_beside(Beside::Hashes, Some(&after))?;
    }
    let attributes = match single_id {
        true => mount.read_beside(Beside::Attributes)?,
        false => None,
    };
    let attributes = attributes.and_then(|bytes| Manifest::decode(&bytes).ok());
    as_recorded(scanned, attributes.as_ref()).map_err(|error| files_error("read", id)(error.into()))
}

fn now_nanos() -> i128 {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

fn of(stat: &Stat) -> Seen {
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    Seen {
        device: u64::from(major) << 32 | u64::from(minor),
        inode: stat.st_ino,
        size: stat.st_size as u64,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
    }
}

/// Gives entries the owners and modes that an import recorded, and leaves devices out.
fn as_recorded(
    scanned: Manifest,
    recorded: Option<&Manifest>,
) -> Result<Manifest, kiln_tree::ManifestError> {
    let is_device = |entry: &Entry| {
        matches!(
            entry.kind,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. }
        )
    };
    if recorded.is_none() && !scanned.entries().iter().any(is_device) {
        return Ok(scanned);
    }
    let linked = |entry: &Entry| is_device(scanned.resolve(entry));
    let entries = scanned.entries().iter().filter(|entry| !linked(entry));
    let mut entries: Vec<Entry> = entries.cloned().collect();
    for entry in &mut entries {
        let was = recorded.and_then(|recorded| recorded.get(entry.path.as_bytes()));
        let same_kind = was
            .filter(|was| std::mem::discriminant(&was.kind) == std::mem::discriminant(&entry.kind));
        let Some(was) = same_kind else {
            continue;
        };
        let ours = match entry.kind.is_directory() {
            true => 0o700,
            false => 0o600,
        };
        if entry.meta.mode == was.meta.mode | ours {
            entry.meta.mode = was.meta.mode;
        }
        (entry.meta.uid, entry.meta.gid) = (was.meta.uid, was.meta.gid);
        if entry.meta.xattrs.is_empty() {
            entry.meta.xattrs = was.meta.xattrs.clone();
        }
    }
    Manifest::new(entries)
}

/// Leaves out what the patterns exclude.
///
/// Of several names of a file the first that stays has the file.
pub(super) fn without(
    manifest: &Manifest,
    excluded: &PatternList,
) -> Result<Manifest, kiln_tree::ManifestError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut moved: HashMap<TreePath, TreePath> = HashMap::new();
    for entry in manifest.entries() {
        if excluded.matches(&String::from_utf8_lossy(entry.path.as_bytes())) {
            continue;
        }
        let mut entry = entry.clone();
        if let Kind::Hardlink { to } = &entry.kind {
            let is_kept = entries.binary_search_by(|kept| kept.path.cmp(to)).is_ok();
            if !is_kept {
                match moved.get(to) {
                    Some(first) => entry.kind = Kind::Hardlink { to: first.clone() },
                    None => {
                        moved.insert(to.clone(), entry.path.clone());
                        let file = manifest.resolve(&entry).kind.clone();
                        entry.kind = file;
                    }
                }
            }
        }
        entries.push(entry);
    }
    Manifest::new(entries)
}

/// What there is to have when an export is added to what is here: of each path whichever is
/// younger, and all that only one of them has.
pub(super) fn merged(
    here: &Manifest,
    export: &Manifest,
) -> Result<Manifest, kiln_tree::ManifestError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut chosen: HashMap<TreePath, bool> = HashMap::new();
    // Paths below something that is no directory here stay out.
    let blocked = |path: &TreePath| {
        let mut above = path.parent();
        while let Some(dir) = above {
            let entry = here.get(dir.as_bytes());
            if entry.is_some_and(|entry| !entry.kind.is_directory()) {
                return true;
            }
            above = dir.parent();
        }
        false
    };
    for entry in export.entries() {
        let mine = here.get(entry.path.as_bytes());
        let taken = match mine {
            None => !blocked(&entry.path),
            Some(mine) => {
                let files = !mine.kind.is_directory() && !entry.kind.is_directory();
                files && here.resolve(mine).meta.mtime < export.resolve(entry).meta.mtime
            }
        };
        chosen.insert(entry.path.clone(), taken);
        if taken {
            entries.push(entry.clone());
        }
    }
    let is_taken = |path: &TreePath| chosen.get(path).copied().unwrap_or(false);
    let mine = here.entries().iter().filter(|entry| !is_taken(&entry.path));
    entries.extend(mine.cloned());
    // A link whose file is the other one's by now is a file of its own.
    let keeps: Vec<bool> = entries
        .iter()
        .map(|entry| match &entry.kind {
            Kind::Hardlink { to } => is_taken(&entry.path) == is_taken(to),
            _ => true,
        })
        .collect();
    for (entry, keeps) in entries.iter_mut().zip(keeps) {
        if !keeps {
            let of = match is_taken(&entry.path) {
                true => export,
                false => here,
            };
            *entry = Entry {
                path: entry.path.clone(),
                ..of.resolve(entry).clone()
            };
        }
    }
    Manifest::new(entries)
}

/// The files of a directory by what they hold: where one of them is, with its attributes.
pub(super) fn by_digest(manifest: &Manifest) -> HashMap<(u64, FileDigest), Vec<&Entry>> {
    let mut found: HashMap<(u64, FileDigest), Vec<&Entry>> = HashMap::new();
    for entry in manifest.entries() {
        if let Kind::File { size, digest } = entry.kind {
            found.entry((size, digest)).or_default().push(entry);
        }
    }
    found
}
