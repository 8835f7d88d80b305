//! System calls on a directory handle and one name in it, with errors that say what was tried.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::path;

/// The file system refused something.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// A system call failed.
    #[error("could not {attempt} `{path}`")]
    Io {
        /// What was tried, such as `open`.
        attempt: &'static str,
        /// Where, below the root that was given, escaped.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A name below the root cannot be handled.
    #[error("a path below the root cannot be used")]
    Path(#[from] path::PathError),
}

/// A result of this module.
pub type FsResult<T> = Result<T, FsError>;

impl FsError {
    /// Returns the error of `attempt` on `path`.
    pub fn new(attempt: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { attempt, path: path::display(path), source: source.into() }
    }

    /// The kind of the failed call.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::Path(_) => io::ErrorKind::InvalidInput,
        }
    }
}

/// Opens a directory for reading; a symbolic link in its place is an error.
pub fn open_directory(dir: impl AsFd, name: &[u8]) -> FsResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|source| FsError::new("open directory", name, source))
}

/// Opens a regular file for reading without following a link or waiting for a pipe's other end.
pub fn open_file(dir: impl AsFd, name: &[u8]) -> FsResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|source| FsError::new("open", name, source))
}

/// Looks at `name`, not at what it links to; `None` if it does not exist.
pub fn stat(dir: impl AsFd, name: &[u8]) -> FsResult<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(source) => Err(FsError::new("stat", name, source)),
    }
}

/// The type of a file as `stat` tells it.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Borrows a handle; a helper for generic callers.
pub(crate) fn borrow(dir: &impl AsFd) -> BorrowedFd<'_> {
    dir.as_fd()
}
