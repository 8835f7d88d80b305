//! Writing the files of a copy into a layer, by several threads.
//!
//! The [`Changeset`](super::changeset::Changeset) has listed the files and made their directories by
//! then, so that what the layer holds does not depend on which thread is faster.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_tree::{FileDigest, FsError, Kind, Meta, Ownership, Stop, TreePath, handle};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::FileError;
use super::changeset::{ChangeError, set};
use super::source::{Item, Layers, Source};

/// Fewer files than this are written by the calling thread alone.
const WORTH_A_THREAD: usize = 64;
/// Files of one directory that a thread takes at once.
const CHUNK: usize = 128;

type Result<T> = std::result::Result<T, ChangeError>;

/// A file that a changeset lists and whose bytes are still to be written.
pub(crate) struct Listed<'i> {
    /// What is copied.
    pub(crate) item: &'i Item,
    /// Where to, in a directory that is there.
    pub(crate) at: TreePath,
    /// Its attributes there.
    pub(crate) meta: Meta,
}

/// The directory of a layer in the making, as far as writing files needs it.
#[derive(Clone, Copy)]
pub(crate) struct Disk<'a> {
    /// The layer's directory.
    pub(crate) root: BorrowedFd<'a>,
    /// What becomes of owners.
    pub(crate) ownership: &'a Ownership,
    /// An earlier layer, files of which that are equal in all are linked instead of written.
    pub(crate) donor: Option<&'a Layers>,
    /// The most threads that write.
    pub(crate) threads: usize,
    /// Gives it up.
    pub(crate) stop: &'a Stop,
}

/// Writes all files; of several failures the first by order is told.
pub(crate) fn write_files<S: Source + Sync>(
    disk: Disk<'_>,
    source: &S,
    files: &[Listed<'_>],
) -> std::result::Result<(), FileError> {
    let chunks = chunks(files);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<(usize, FileError)>> = Mutex::new(None);
    let work = || {
        let mut writer = Writer::new(disk);
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else {
                return;
            };
            let written = chunk.iter().try_for_each(|file| writer.file(source, file));
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(first, _)| index < *first) {
                    *failed = Some((index, error));
                }
            }
        }
    };
    let others = if files.len() < WORTH_A_THREAD {
        0
    } else {
        disk.threads.min(chunks.len()).saturating_sub(1)
    };
    std::thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

/// Parts of the list that no two threads should share a directory's lock for.
fn chunks<'f, 'i>(files: &'f [Listed<'i>]) -> Vec<&'f [Listed<'i>]> {
    files
        .chunk_by(|a, b| above(&a.at) == above(&b.at))
        .flat_map(|directory| directory.chunks(CHUNK))
        .collect()
}

/// Writes files one after the other, keeping the directories open that the last one was in.
pub(crate) struct Writer<'a> {
    disk: Disk<'a>,
    to: Opened,
    from: Opened,
}

/// The directory that was opened last: which root's, its path, its handle.
#[derive(Default)]
struct Opened(Option<(usize, Vec<u8>, OwnedFd)>);

impl Opened {
    /// Opens `path` below the root that `number` stands for, unless it is open.
    fn open(&mut self, number: usize, root: BorrowedFd<'_>, path: &[u8]) -> Result<BorrowedFd<'_>> {
        let is_open = self
            .0
            .as_ref()
            .is_some_and(|(at, open, _)| *at == number && open == path);
        if !is_open {
            let opened = handle::open_beneath(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
            self.0 = Some((number, path.to_vec(), opened));
        }
        match &self.0 {
            Some((_, _, fd)) => Ok(fd.as_fd()),
            None => unreachable!("BUG: the directory was just opened"),
        }
    }
}

impl<'a> Writer<'a> {
    fn new(disk: Disk<'a>) -> Writer<'a> {
        Writer {
            disk,
            to: Opened::default(),
            from: Opened::default(),
        }
    }

    fn file<S: Source>(
        &mut self,
        source: &S,
        file: &Listed<'_>,
    ) -> std::result::Result<(), FileError> {
        self.disk.stop.check().map_err(ChangeError::from)?;
        if let Some(donor) = self.disk.donor
            && self.link_equal(donor, file)?
        {
            return Ok(());
        }
        source.write(file.item, self, &file.at, &file.meta)
    }

    /// Writes a file at `at` by copying the bytes of an open one.
    pub(crate) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        size: u64,
        at: &TreePath,
        meta: &Meta,
    ) -> Result<()> {
        let ownership = self.disk.ownership;
        let parent = self.to.open(0, self.disk.root, above(at))?;
        let file = create(parent, at.name(), at)?;
        kiln_tree::copy::copy_bytes_unseen(from, &file, size, self.disk.stop)
            .map_err(|error| error.at(at.as_bytes()))?;
        set(ownership, &file, at, meta, false)
    }

    /// Links the file `from` of a finished layer, which has the very attributes that are wanted;
    /// `false` where that is not possible.
    pub(crate) fn link(
        &mut self,
        (number, layer): (usize, BorrowedFd<'_>),
        from: &TreePath,
        at: &TreePath,
    ) -> Result<bool> {
        let to = self.to.open(0, self.disk.root, above(at))?;
        let above = self.from.open(number, layer, above(from))?;
        // Another file system, or too many links: a copy is as good.
        Ok(rustix::fs::linkat(above, from.name(), to, at.name(), AtFlags::empty()).is_ok())
    }

    /// Links the donor's file at the same path if it is the same in all.
    fn link_equal(&mut self, donor: &Layers, file: &Listed<'_>) -> Result<bool> {
        let Some(found) = donor.view.get(file.at.as_bytes()) else {
            return Ok(false);
        };
        // Names of one file stay apart here, as they are in the source.
        let is_equal = std::ptr::eq(found.entry, found.inode)
            && digest(found.kind())
                .is_some_and(|digest| Some(digest) == self::digest(&file.item.kind))
            && *found.meta() == file.meta;
        if !is_equal {
            return Ok(false);
        }
        // Numbered from the other end, since the source counts its layers from 0.
        let layer = donor.directories[found.layer].as_fd();
        self.link(
            (usize::MAX - found.layer, layer),
            &found.inode.path,
            &file.at,
        )
    }
}

/// The directory that holds `path`.
fn above(path: &TreePath) -> &[u8] {
    let path = path.as_bytes();
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    &path[..end]
}

fn digest(kind: &Kind) -> Option<(u64, FileDigest)> {
    match kind {
        Kind::File { size, digest } => Some((*size, *digest)),
        _ => None,
    }
}

/// Makes a new file of our own.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &[u8], path: &TreePath) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| FsError::new("create", path.as_bytes(), error).into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::Arc;

    use kiln_store::{Store, StoreOptions};
    use kiln_tree::{Manifest, Mtime, OverlayXattrs, View};

    use super::*;
    use crate::context::ScannedContext;
    use crate::file::changeset::Changeset;
    use crate::file::copy::{Copier, Treatment};
    use crate::file::pick::{Pick, items};

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    /// Makes a layer of a whole context in an empty directory.
    fn copy(context: &ScannedContext, donor: Option<&Layers>, into: &Path) -> Manifest {
        let lower = View::new(Vec::new());
        let root = open(into);
        let (ownership, marks) = (Ownership::Record, OverlayXattrs::User);
        let mut changes = Changeset::new(&lower, root.as_fd(), ownership, marks)
            .with_threads(4)
            .with_donor(donor);
        let treatment = Treatment {
            owner: None,
            mode: None,
            mtime: None,
            replace: false,
        };
        let whole = Pick {
            name: Vec::new(),
            at: TreePath::ROOT,
            contents: true,
        };
        let picked = items(context, &whole, &kiln_solver::CopySelection::default()).unwrap();
        Copier::new(&mut changes, context, treatment, Mtime::default())
            .copy(&whole, &picked, &TreePath::ROOT)
            .unwrap();
        changes.finish().unwrap()
    }

    #[test]
    fn what_did_not_change_is_linked_from_the_donor() {
        let place = tempfile::tempdir().unwrap();
        let [context, first, second] = ["context", "first", "second"].map(|name| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        for index in 0..400 {
            let directory = context.join(format!("d{}", index % 3));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("f{index}")), format!("{index}")).unwrap();
        }
        let store = Store::open(&place.path().join("store"), StoreOptions::default()).unwrap();
        let scan = || ScannedContext::scan(&store, &context, &[], &Stop::NEVER).unwrap();
        let donor = Layers {
            view: View::new(vec![Arc::new(copy(&scan(), None, &first))]),
            directories: vec![open(&first)],
            may_link: true,
        };
        fs::write(context.join("d0/f3"), "other").unwrap();
        fs::write(context.join("d1/new"), "new").unwrap();

        let manifest = copy(&scan(), Some(&donor), &second);
        let mut written = Vec::new();
        for entry in manifest.entries() {
            let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
            let Kind::File { digest, .. } = &entry.kind else {
                continue;
            };
            let bytes = fs::read(second.join(&path)).unwrap();
            assert_eq!(bytes, fs::read(context.join(&path)).unwrap());
            assert_eq!(digest.0, *blake3::hash(&bytes).as_bytes());
            let inode = |root: &Path| fs::metadata(root.join(&path)).map(|meta| meta.ino()).ok();
            if inode(&first) != inode(&second) {
                written.push(path);
            }
        }
        assert_eq!(written, ["d0/f3", "d1/new"]);
    }
}
