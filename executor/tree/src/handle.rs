//! System calls on a directory handle and one name in it, with errors that say what was tried.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::digest::FileDigest;
use crate::manifest::{Mtime, Xattrs};
use crate::path;
use crate::stop::Stop;

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
        Self::Io {
            attempt,
            path: path::display(path),
            source: source.into(),
        }
    }

    /// The failed call's own error, for whoever knows better where it was.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::Io { source, .. } => source,
            Self::Path(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
        }
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
        Err(Errno::NOENT) => Ok(None),
        Err(source) => Err(FsError::new("stat", name, source)),
    }
}

/// The type of a file as `stat` tells it.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens `path`, several components deep, by one call that follows no link and cannot leave `root`.
pub fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> FsResult<OwnedFd> {
    let path_or_dot = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(&root, path_or_dot, flags, Mode::empty(), resolve);
    retry_again(open).map_err(|source| FsError::new("open", path, source))
}

/// The flags that open a file for reading its bytes without waiting for a pipe's other end.
pub const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

/// The flags that open a directory for reading it.
pub const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// `openat2` gives up with `EAGAIN` when something else is renamed while it looks.
pub(crate) fn retry_again<T>(
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    for _ in 0..64 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    call()
}

/// A name in a directory with its type; [`FileType::Unknown`] where the file system does not tell.
pub type Name = (Vec<u8>, FileType);

/// Returns the names in an open directory, sorted, without `.` and `..`.
pub fn names(dir: impl AsFd) -> FsResult<Vec<Name>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut names = Vec::new();
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|source| FsError::new("read directory", b"", source))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    names.sort_unstable_by(|a: &Name, b| a.0.cmp(&b.0));
    Ok(names)
}

/// Returns the target of the symbolic link `name`.
pub fn read_link(dir: impl AsFd, name: &[u8]) -> FsResult<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new())
        .map(|target| target.into_bytes())
        .map_err(|source| FsError::new("read link", name, source))
}

/// Returns every extended attribute of `name` in `dir`, or of `dir` itself for an empty name.
pub fn xattrs(dir: impl AsFd, name: &[u8]) -> FsResult<Xattrs> {
    let path = proc_path(&dir, name);
    let names = grown(|buffer: &mut [u8]| rustix::fs::llistxattr(&path[..], buffer));
    let names = match names {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
        Err(source) => return Err(FsError::new("list xattrs of", name, source)),
    };
    let mut xattrs = Xattrs::new();
    for key in names.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
        match grown(|buffer: &mut [u8]| rustix::fs::lgetxattr(&path[..], key, buffer)) {
            Ok(value) => {
                xattrs.insert(key.to_vec(), value);
            }
            // Listed to everybody, but `trusted.*` is read by root alone.
            Err(Errno::NODATA) => {}
            Err(source) => return Err(FsError::new("read xattrs of", name, source)),
        }
    }
    Ok(xattrs)
}

/// Sets an extended attribute of `name` in `dir`, or of `dir` itself for an empty name.
pub fn set_xattr(dir: impl AsFd, name: &[u8], key: &[u8], value: &[u8]) -> FsResult<()> {
    let path = proc_path(&dir, name);
    rustix::fs::lsetxattr(&path[..], key, value, XattrFlags::empty())
        .map_err(|source| FsError::new("set xattr of", name, source))
}

/// Removes an extended attribute, if it is there.
pub fn remove_xattr(dir: impl AsFd, name: &[u8], key: &str) -> FsResult<()> {
    match rustix::fs::lremovexattr(&proc_path(&dir, name)[..], key) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(source) => Err(FsError::new("remove xattr of", name, source)),
    }
}

/// The calls on xattrs take no directory handle; the kernel's own link to the handle stands in,
/// and the last component is never followed.
fn proc_path(dir: &impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    path
}

fn grown(
    mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; 512];
    match read(&mut small) {
        Err(Errno::RANGE) => {}
        done => return done.map(|length| small[..length].to_vec()),
    }
    // The kernel's own limit for a value and for a list.
    let mut large = vec![0; 64 << 10];
    let length = read(&mut large)?;
    large.truncate(length);
    Ok(large)
}

/// Reads a file from its start through BLAKE3; returns the digest and how many bytes there were.
///
/// Errors once `stop` says so.
pub fn hash(file: impl AsFd, buffer: &mut Vec<u8>, stop: &Stop) -> FsResult<(FileDigest, u64)> {
    buffer.resize(READ_BYTES, 0);
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    loop {
        match rustix::io::read(&file, &mut buffer[..]) {
            Ok(0) => return Ok((FileDigest(*hasher.finalize().as_bytes()), total)),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                total += length as u64;
                stop.check()?;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(FsError::new("read", b"", source)),
        }
    }
}

/// How much is read and written at once.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Writes all of `bytes` at the file's position.
pub fn write_all(file: impl AsFd, mut bytes: &[u8]) -> FsResult<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(0) => return Err(FsError::new("write", b"", Errno::NOSPC)),
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(source) => return Err(FsError::new("write", b"", source)),
        }
    }
    Ok(())
}

/// The modification time that `stat` tells.
pub fn mtime(stat: &Stat) -> Mtime {
    Mtime {
        seconds: stat.st_mtime,
        nanos: stat.st_mtime_nsec as u32,
    }
}

impl FsError {
    /// Names the path that a call on an open file could not know.
    pub fn at(self, whole: &[u8]) -> Self {
        match self {
            Self::Io {
                attempt, source, ..
            } => Self::new(attempt, whole, source),
            path => path,
        }
    }
}
