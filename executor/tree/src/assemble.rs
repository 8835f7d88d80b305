//! A directory put together from a manifest, whose files come from wherever the caller has them.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::attributes::Ownership;
use crate::handle::{self, FsError, FsResult};
use crate::manifest::{Entry, Kind, Manifest};
use crate::materialised::make_node;
use crate::path::{self, TreePath};
use crate::stop::Stop;

/// How a file came to be where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new, and has no attributes yet.
    New,
    /// It is another name of a file that has them all.
    Linked,
}

/// Makes all that `manifest` lists in the empty directory `into`; `put` makes each regular file,
/// whose name and open directory it is given.
///
/// Only what one directory can hold is made: no device, no deletion, nothing opaque. Errors once
/// `stop` says so; what is made by then is the caller's to remove.
pub fn assemble(
    manifest: &Manifest,
    into: BorrowedFd<'_>,
    ownership: &Ownership,
    stop: &Stop,
    mut put: impl FnMut(&Entry, BorrowedFd<'_>, &[u8]) -> FsResult<Put>,
) -> FsResult<()> {
    use std::os::fd::AsFd;
    let mut parent: Option<(TreePath, OwnedFd)> = None;
    for entry in manifest.entries() {
        stop.check()?;
        let Some(above) = entry.path.parent() else {
            continue;
        };
        let dir = match parent {
            Some((open, dir)) if open == above => dir,
            _ => handle::open_beneath(into, above.as_bytes(), handle::READ_DIRECTORY)?,
        };
        make(entry, into, dir.as_fd(), ownership, &mut put)
            .map_err(|error| error.at(entry.path.as_bytes()))?;
        parent = Some((above, dir));
    }
    // A directory's time changes with what is put into it, and its mode may keep us out.
    for entry in manifest.entries().iter().rev() {
        if entry.kind.is_directory() {
            stop.check()?;
            let path = entry.path.as_bytes();
            let dir = handle::open_beneath(into, path, handle::READ_DIRECTORY)?;
            ownership
                .set(dir, &entry.meta, true)
                .map_err(|error| error.at(path))?;
        }
    }
    Ok(())
}

fn make(
    entry: &Entry,
    into: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    ownership: &Ownership,
    put: &mut impl FnMut(&Entry, BorrowedFd<'_>, &[u8]) -> FsResult<Put>,
) -> FsResult<()> {
    let name = entry.path.name();
    let failed = |attempt| move |source: Errno| FsError::new(attempt, name, source);
    match &entry.kind {
        Kind::Directory { opaque: false, .. } => {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))
                .map_err(failed("make directory"))
        }
        Kind::File { .. } => match put(entry, dir, name)? {
            Put::Linked => Ok(()),
            Put::New => {
                let file = handle::open_file(dir, name)?;
                ownership.set(file, &entry.meta, false)
            }
        },
        Kind::Symlink { target } => {
            rustix::fs::symlinkat(&target[..], dir, name).map_err(failed("make link"))?;
            ownership.set_at(dir, name, &entry.meta, true)
        }
        Kind::Fifo => {
            make_node(dir, name, FileType::Fifo, 0, 0)?;
            ownership.set_at(dir, name, &entry.meta, false)
        }
        Kind::Hardlink { to } => {
            let (above, first) = path::split(to.as_bytes());
            let from = handle::open_beneath(into, above, handle::READ_DIRECTORY)?;
            rustix::fs::linkat(from, first, dir, name, AtFlags::empty())
                .map_err(failed("make hard link"))
        }
        Kind::CharDevice { .. }
        | Kind::BlockDevice { .. }
        | Kind::Whiteout
        | Kind::Directory { .. } => Err(failed("make")(Errno::INVAL)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::copy::create_file;
    use crate::manifest::{Meta, Mtime};
    use crate::seal::{IdMap, SealOptions};
    use crate::{FileDigest, materialised};

    fn file(path: &str, bytes: &[u8], meta: Meta) -> Entry {
        let kind = Kind::File {
            size: bytes.len() as u64,
            digest: FileDigest(*blake3::hash(bytes).as_bytes()),
        };
        Entry::new(TreePath::new(path).unwrap(), kind, meta)
    }

    fn meta(mode: u32, seconds: i64, nanos: u32) -> Meta {
        Meta {
            mtime: Mtime { seconds, nanos },
            ..Meta::new(mode)
        }
    }

    fn at(path: &str, kind: Kind, meta: Meta) -> Entry {
        Entry::new(TreePath::new(path).unwrap(), kind, meta)
    }

    #[test]
    fn what_is_assembled_reads_as_its_manifest() {
        let own = |mut meta: Meta| {
            // Files of this user, so that it works for any.
            meta.uid = rustix::process::geteuid().as_raw();
            meta.gid = rustix::process::getegid().as_raw();
            meta
        };
        let link = Kind::Symlink {
            target: b"../else/where".to_vec(),
        };
        let entries = vec![
            at("", Kind::DIRECTORY, own(meta(0o750, 5, 1))),
            at(
                "d",
                Kind::DIRECTORY,
                own(meta(0o555, 1_000_000_000, 123_456_789)),
            ),
            file(
                "d/f",
                b"bytes",
                own(meta(0o444, 1_500_000_000, 987_654_321)),
            ),
            at("d/l", link, own(meta(0o777, 77, 7))),
            at("d/p", Kind::Fifo, own(meta(0o600, 78, 8))),
            at(
                "e",
                Kind::Hardlink {
                    to: TreePath::new("d/f").unwrap(),
                },
                Meta::default(),
            ),
        ];
        let manifest = Manifest::new(entries).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let into = std::fs::File::open(directory.path()).unwrap();
        let ownership = Ownership::Apply(IdMap::identity());
        assemble(
            &manifest,
            into.as_fd(),
            &ownership,
            &Stop::NEVER,
            |_, dir, name| {
                handle::write_all(create_file(dir, name)?, b"bytes")?;
                Ok(Put::New)
            },
        )
        .unwrap();
        let read = materialised::scan_full(into.as_fd(), &SealOptions::default()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(
            std::fs::metadata(directory.path().join("e"))
                .unwrap()
                .nlink(),
            2
        );
    }

    #[test]
    fn devices_are_not_made() {
        let device = Kind::BlockDevice { major: 8, minor: 0 };
        let manifest = Manifest::new(vec![at("sda", device, Meta::new(0o666))]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let into = std::fs::File::open(directory.path()).unwrap();
        let made = assemble(
            &manifest,
            into.as_fd(),
            &Ownership::Record,
            &Stop::NEVER,
            |_, _, _| Ok(Put::New),
        );
        assert!(made.is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
