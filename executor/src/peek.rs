//! Looking into a source: a file or a directory at a time, as a container with that root would find it.
//!
//! Links lead where they would lead in such a container, never out of the source, whatever the path.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_store::Lease;
use kiln_tree::{FsError, Kind, handle, resolve};
use rustix::fs::{FileType, OFlags};

use crate::error::Error;
use crate::executor::Executor;
use crate::file::source::{Layers, Source};
use crate::file::{ChangeError, FileError, open_layers};
use crate::worker::{BuildWorker, Handle};

/// Something to look into.
pub struct Peek(Inner);

enum Inner {
    /// A directory of the caller, and what it is called.
    Directory(OwnedFd, PathBuf),
    /// Layers of the store.
    Layers { layers: Layers, _lease: Lease },
}

/// Why nothing is seen; each is a fact of the source, not a failure to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// Nothing is there.
    NotFound,
    /// It is no regular file, or no directory.
    WrongKind,
    /// It has more than was asked for.
    TooBig,
    /// A name is not UTF-8.
    NotUtf8,
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekedEntry {
    /// Its name.
    pub name: String,
    /// What it is; links are not followed.
    pub kind: PeekedKind,
}

/// What is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeekedKind {
    /// A regular file of this size.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

impl Peek {
    /// Looks into a directory of the caller.
    pub fn directory(path: &Path) -> Result<Peek, Error> {
        let opened = File::open(path).map_err(Error::io("open", path))?;
        Ok(Peek(Inner::Directory(opened.into(), path.to_owned())))
    }

    /// Looks into a result.
    pub fn result(
        executor: &Executor,
        worker: &BuildWorker,
        handle: &Handle,
    ) -> Result<Peek, Error> {
        let layers = handle.to_layers(executor, worker.lease())?;
        Peek::layers(open_layers(executor.store(), &layers)?, worker.lease())
    }

    pub(crate) fn layers(layers: Layers, lease: &Lease) -> Result<Peek, Error> {
        Ok(Peek(Inner::Layers {
            layers,
            _lease: lease.clone(),
        }))
    }

    /// Reads a regular file of at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Result<Vec<u8>, Unseen>, Error> {
        let opened = match &self.0 {
            Inner::Directory(root, shown) => {
                file_of(root, path).map_err(|error| failed(shown, path, error))?
            }
            Inner::Layers { layers, .. } => match found(layers, path)? {
                Err(unseen) => Err(unseen),
                Ok(item) if !matches!(item.kind, Kind::File { .. }) => Err(Unseen::WrongKind),
                Ok(item) => Ok(layers.open(&item)?),
            },
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(unseen) => return Ok(Err(unseen)),
        };
        let mut bytes = Vec::new();
        File::from(opened)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        Ok(match bytes.len() as u64 > limit {
            true => Err(Unseen::TooBig),
            false => Ok(bytes),
        })
    }

    /// Lists a directory of at most `limit` entries, by name.
    pub fn list(
        &self,
        path: &str,
        limit: usize,
    ) -> Result<Result<Vec<PeekedEntry>, Unseen>, Error> {
        let entries = match &self.0 {
            Inner::Directory(root, shown) => {
                names_of(root, path).map_err(|error| failed(shown, path, error))?
            }
            Inner::Layers { layers, .. } => match found(layers, path)? {
                Err(unseen) => Err(unseen),
                Ok(item) if !matches!(item.kind, Kind::Directory { .. }) => Err(Unseen::WrongKind),
                Ok(item) => Ok(children(layers, &item.path)?),
            },
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(unseen) => return Ok(Err(unseen)),
        };
        if entries.len() > limit {
            return Ok(Err(Unseen::TooBig));
        }
        let named = entries.into_iter().map(|(name, kind)| {
            let name = String::from_utf8(name).map_err(|_| Unseen::NotUtf8)?;
            Ok(PeekedEntry { name, kind })
        });
        Ok(named.collect())
    }
}

type Named = (Vec<u8>, PeekedKind);

fn failed(root: &Path, path: &str, error: FsError) -> Error {
    Error::io("look at", root.join(path))(std::io::Error::other(error))
}

/// What is no failure to look.
fn unseen(error: FsError) -> Result<Unseen, FsError> {
    use rustix::io::Errno;
    let FsError::Io { source, .. } = &error else {
        return Ok(Unseen::NotFound);
    };
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
            Ok(Unseen::NotFound)
        }
        _ => Err(error),
    }
}

/// Opens a regular file; nothing else is opened, so that no device and no pipe notices.
fn file_of(root: &OwnedFd, path: &str) -> Result<Result<OwnedFd, Unseen>, FsError> {
    let stat = match resolve::stat(root, path.as_bytes()) {
        Ok(Some(stat)) => stat,
        Ok(None) => return Ok(Err(Unseen::NotFound)),
        Err(error) => return unseen(error).map(Err),
    };
    if handle::file_type(&stat) != FileType::RegularFile {
        return Ok(Err(Unseen::WrongKind));
    }
    match resolve::open(root, path.as_bytes(), handle::READ) {
        Ok(opened) => Ok(Ok(opened)),
        Err(error) => unseen(error).map(Err),
    }
}

fn names_of(root: &OwnedFd, path: &str) -> Result<Result<Vec<Named>, Unseen>, FsError> {
    match resolve::stat(root, path.as_bytes()) {
        Ok(Some(stat)) if handle::file_type(&stat) == FileType::Directory => {}
        Ok(Some(_)) => return Ok(Err(Unseen::WrongKind)),
        Ok(None) => return Ok(Err(Unseen::NotFound)),
        Err(error) => return unseen(error).map(Err),
    }
    let directory = match resolve::open(root, path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(opened) => opened,
        Err(error) => return unseen(error).map(Err),
    };
    let mut entries = Vec::new();
    for (name, _) in handle::names(&directory)? {
        // What is gone meanwhile was never there.
        let Some(stat) = handle::stat(&directory, &name)? else {
            continue;
        };
        let kind = match handle::file_type(&stat) {
            FileType::RegularFile => PeekedKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
            FileType::Directory => PeekedKind::Directory,
            FileType::Symlink => PeekedKind::Link,
            _ => PeekedKind::Other,
        };
        entries.push((name, kind));
    }
    Ok(Ok(entries))
}

fn found(layers: &Layers, path: &str) -> Result<Result<crate::file::source::Item, Unseen>, Error> {
    let at = match layers.resolve(path.as_bytes(), true) {
        Ok(at) => at,
        Err(ChangeError::NotADirectory { .. } | ChangeError::Follow(_) | ChangeError::Path(_)) => {
            return Ok(Err(Unseen::NotFound));
        }
        Err(error) => return Err(FileError::from(error).into()),
    };
    Ok(layers.get(&at).ok_or(Unseen::NotFound))
}

fn children(layers: &Layers, directory: &kiln_tree::TreePath) -> Result<Vec<Named>, Error> {
    let mut entries = Vec::new();
    for name in layers.list(directory) {
        let below = [directory.as_bytes(), b"/", &name].concat();
        let path = kiln_tree::TreePath::normalise(&below)
            .map_err(ChangeError::from)
            .map_err(FileError::from)?;
        let Some(item) = layers.get(&path) else {
            continue;
        };
        let kind = match item.kind {
            Kind::File { size, .. } => PeekedKind::File(size),
            Kind::Directory { .. } => PeekedKind::Directory,
            Kind::Symlink { .. } => PeekedKind::Link,
            _ => PeekedKind::Other,
        };
        entries.push((name, kind));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek() -> (tempfile::TempDir, Peek) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(directory.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("a"), "abc").unwrap();
        std::fs::write(root.join("d/f"), "f").unwrap();
        for (name, target) in [
            ("in", "/d/f"),
            ("up", "../../../../secret"),
            ("host", "/etc/passwd"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        }
        let peek = Peek::directory(&root).unwrap();
        (directory, peek)
    }

    fn check(path: &str, expected: Result<&str, Unseen>) {
        let (_directory, peek) = peek();
        let found = peek.read(path, 3).unwrap();
        let found = found.map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{path}");
    }

    #[test]
    fn files() {
        check("a", Ok("abc"));
        check("d/f", Ok("f"));
        check("in", Ok("f"));
        check("nothing", Err(Unseen::NotFound));
        check("a/b", Err(Unseen::NotFound));
        check("d", Err(Unseen::WrongKind));
        check("", Err(Unseen::WrongKind));
    }

    #[test]
    fn nothing_leads_out() {
        check("up", Err(Unseen::NotFound));
        check("host", Err(Unseen::NotFound));
        check("../secret", Err(Unseen::NotFound));
        check("/../secret", Err(Unseen::NotFound));
        check("loop", Err(Unseen::NotFound));
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let (directory, peek) = peek();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            directory.path().join("root/pipe"),
            rustix::fs::Mode::from_raw_mode(0o600),
        )
        .unwrap();
        assert_eq!(peek.read("pipe", 3).unwrap(), Err(Unseen::WrongKind));
        assert_eq!(peek.read("a", 2).unwrap(), Err(Unseen::TooBig));
    }

    #[test]
    fn directories() {
        let (_directory, peek) = peek();
        let list = |path: &str, limit| {
            peek.list(path, limit).unwrap().map(|entries| {
                let entry = |entry: PeekedEntry| format!("{} {:?}", entry.name, entry.kind);
                entries
                    .into_iter()
                    .map(entry)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
        };
        let root = "a File(3), d Directory, host Link, in Link, loop Link, up Link";
        assert_eq!(list("", 9).as_deref(), Ok(root));
        assert_eq!(list("d", 9).as_deref(), Ok("e Directory, f File(1)"));
        assert_eq!(list("", 5), Err(Unseen::TooBig));
        assert_eq!(list("a", 5), Err(Unseen::WrongKind));
        assert_eq!(list("x", 5), Err(Unseen::NotFound));
    }
}
