//! A result's files in a directory of the caller's.
//!
//! As with buildx everything there is the caller's own, what is in the way is replaced, and the rest
//! stays. The image is hostile: all paths are walked by handle and no link in the directory is ever
//! followed, so nothing outside it is touched. Files are copied, never linked, since the store's own
//! must not change when the caller edits them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_tree::copy::{copy_bytes_unseen, create_file, remove_tree};
use kiln_tree::{Changes, Entry, FsError, Kind, Meta, Mtime, Stop, TreePath, handle};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use crate::error::Error;

/// How files are written out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// All modification times, if they are not kept.
    pub(super) mtime: Option<i64>,
    /// Whether devices can be made; else they are left out.
    pub(super) devices: bool,
}

/// Writes all files of `changes`, which lie in the directories of `layers`; returns how many devices
/// were left out.
pub(super) fn write(
    changes: &Changes,
    layers: &[OwnedFd],
    destination: &Path,
    rules: Rules,
    stop: &Stop,
) -> Result<usize, Error> {
    fs::create_dir_all(destination).map_err(Error::io("create", destination))?;
    let root: OwnedFd = fs::File::open(destination)
        .map_err(Error::io("open", destination))?
        .into();
    let mut writer = Writer {
        root: &root,
        layers,
        rules,
        stop,
        parent: None,
        left_out: BTreeSet::new(),
    };
    writer.write(changes).map_err(|source| Error::Destination {
        path: destination.to_owned(),
        source,
    })?;
    Ok(writer.left_out.len())
}

/// Writes a text beside the files that were written; never over one of them, nor through a link.
pub(super) fn write_beside(
    changes: &Changes,
    destination: &Path,
    name: &str,
    text: &str,
) -> Result<(), Error> {
    let path = destination.join(name);
    if changes.manifest.get(name.as_bytes()).is_some() {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "the result has such a file");
        return Err(Error::io("write the attestation", &path)(taken));
    }
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644));
    let mut file = fs::File::from(file.map_err(|error| Error::io("write", &path)(error.into()))?);
    file.write_all(text.as_bytes())
        .map_err(Error::io("write", &path))
}

struct Writer<'a> {
    root: &'a OwnedFd,
    layers: &'a [OwnedFd],
    rules: Rules,
    stop: &'a Stop,
    /// The directory that was written to last.
    parent: Option<(TreePath, OwnedFd)>,
    /// Devices that could not be made.
    left_out: BTreeSet<TreePath>,
}

impl Writer<'_> {
    fn write(&mut self, changes: &Changes) -> Result<(), FsError> {
        let entries = changes.manifest.entries();
        for (entry, origin) in entries.iter().zip(&changes.origins) {
            if entry.path.is_root() {
                continue;
            }
            self.stop.check()?;
            let origin = origin.and_then(|origin| self.layers.get(origin));
            self.entry(entry, origin.map(AsFd::as_fd))
                .map_err(|error| error.at(entry.path.as_bytes()))?;
        }
        // Writing into a directory changes its time, and its mode may forbid it.
        for entry in entries
            .iter()
            .rev()
            .filter(|entry| entry.kind.is_directory() && !entry.path.is_root())
        {
            let path = entry.path.as_bytes();
            let made = handle::open_beneath(self.root, path, handle::READ_DIRECTORY)?;
            self.dress(made, &entry.meta)
                .map_err(|error| error.at(path))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, origin: Option<BorrowedFd<'_>>) -> Result<(), FsError> {
        let (root, rules) = (self.root, self.rules);
        let name = entry.path.name();
        let is_device = matches!(
            entry.kind,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. }
        );
        let is_left_out = match &entry.kind {
            Kind::Hardlink { to } => self.left_out.contains(to),
            _ => is_device && !rules.devices,
        };
        if is_left_out {
            self.left_out.insert(entry.path.clone());
            return Ok(());
        }
        let stop = self.stop;
        let parent = self.parent_of(&entry.path)?;
        let there = handle::stat(parent, name)?;
        if let Kind::Directory { .. } = entry.kind {
            if there.is_some_and(|stat| handle::file_type(&stat) == FileType::Directory) {
                // The last export may have left it closed to its owner, too.
                let there = handle::open_directory(parent, name)?;
                let _ = rustix::fs::fchmod(&there, Mode::from_raw_mode(0o700));
                return Ok(());
            }
            remove_tree(parent, name)?;
            return rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
                .map_err(|error| FsError::new("make directory", name, error));
        }
        if there.is_some() {
            remove_tree(parent, name)?;
        }
        let failed = |attempt| move |error| FsError::new(attempt, name, error);
        match &entry.kind {
            Kind::File { size, .. } => {
                let missing = || FsError::new("find the layer of", name, rustix::io::Errno::NOENT);
                let from = handle::open_beneath(
                    origin.ok_or_else(missing)?,
                    entry.path.as_bytes(),
                    handle::READ,
                )?;
                let to = create_file(parent, name)?;
                if let Err(error) = copy_bytes_unseen(from, &to, *size, stop) {
                    // Half a file is worse than none.
                    remove_tree(parent, name)?;
                    return Err(error);
                }
                return dress(to, &entry.meta, rules);
            }
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], parent, name).map_err(failed("make link"))?;
            }
            Kind::Hardlink { to } => {
                // Its target comes first in order, so it is one of ours by now.
                let above = to.parent().unwrap_or(TreePath::ROOT);
                let from = handle::open_beneath(root, above.as_bytes(), handle::READ_DIRECTORY)?;
                return rustix::fs::linkat(from, to.name(), parent, name, AtFlags::empty())
                    .map_err(failed("make hard link"));
            }
            Kind::CharDevice { major, minor } => {
                node(parent, name, FileType::CharacterDevice, (*major, *minor))?;
            }
            Kind::BlockDevice { major, minor } => {
                node(parent, name, FileType::BlockDevice, (*major, *minor))?;
            }
            Kind::Fifo => node(parent, name, FileType::Fifo, (0, 0))?,
            Kind::Directory { .. } | Kind::Whiteout => return Ok(()),
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            let mode = Mode::from_raw_mode(entry.meta.mode & 0o1777);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(failed("set the mode of"))?;
        }
        rustix::fs::utimensat(
            parent,
            name,
            &times(&entry.meta, rules),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed("set the time of"))
    }

    fn parent_of(&mut self, path: &TreePath) -> Result<BorrowedFd<'_>, FsError> {
        let above = path.parent().unwrap_or(TreePath::ROOT);
        let opened = match self.parent.take() {
            Some(parent) if parent.0 == above => parent,
            _ => {
                let opened =
                    handle::open_beneath(self.root, above.as_bytes(), handle::READ_DIRECTORY)?;
                (above, opened)
            }
        };
        Ok(self.parent.insert(opened).1.as_fd())
    }

    fn dress(&self, file: OwnedFd, meta: &Meta) -> Result<(), FsError> {
        dress(file, meta, self.rules)
    }
}

/// Gives an open file or directory its mode, its xattrs as far as the disk takes them, and its time.
fn dress(file: OwnedFd, meta: &Meta, rules: Rules) -> Result<(), FsError> {
    let failed = |attempt| move |error| FsError::new(attempt, b"", error);
    let stat = rustix::fs::fstat(&file).map_err(failed("stat"))?;
    // Bits that lend an owner's rights are for that owner alone, and the file is another's now.
    let mut mode = meta.mode;
    if stat.st_uid != meta.uid {
        mode &= !0o4000;
    }
    if stat.st_gid != meta.gid {
        mode &= !0o2000;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("set the mode of"))?;
    for (name, value) in &meta.xattrs {
        // Many file systems take none, and an ordinary user may set few.
        let _ = rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty());
    }
    rustix::fs::futimens(&file, &times(meta, rules)).map_err(failed("set the time of"))
}

fn node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    file_type: FileType,
    (major, minor): (u32, u32),
) -> Result<(), FsError> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(dir, name, file_type, Mode::from_raw_mode(0o600), device)
        .map_err(|error| FsError::new("make device", name, error))
}

fn times(meta: &Meta, rules: Rules) -> Timestamps {
    let mtime = rules
        .mtime
        .map_or(meta.mtime, |seconds| Mtime { seconds, nanos: 0 });
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
