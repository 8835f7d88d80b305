//! Paths as a container sees them: resolved by `openat2(RESOLVE_IN_ROOT)` inside a root handle.
//!
//! Symbolic links are followed as if the handle were `/`: absolute targets and `..` stay inside.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::copy::create_directory;
use crate::handle::{FsError, FsResult, retry_again};
use crate::manifest::Meta;
use crate::path::{PathError, TreePath, display};

/// How many links a path may lead through before it is a loop; the kernel's own number.
const MOST_LINKS: usize = 40;

/// Opens `path` inside `root`, links followed.
pub fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> FsResult<OwnedFd> {
    try_open(&root, path, flags).map_err(|source| FsError::new("open", path, source))
}

/// Looks at what `path` leads to, links followed; `None` if it leads to nothing.
pub fn stat(root: impl AsFd, path: &[u8]) -> FsResult<Option<Stat>> {
    look(&root, path, OFlags::PATH)
}

/// Looks at `path` itself, the last component not followed; `None` if it is not there.
pub fn stat_link(root: impl AsFd, path: &[u8]) -> FsResult<Option<Stat>> {
    look(&root, path, OFlags::PATH | OFlags::NOFOLLOW)
}

/// Returns the target of the symbolic link at `path`; `None` if there is no link.
pub fn read_link(root: impl AsFd, path: &[u8]) -> FsResult<Option<Vec<u8>>> {
    let link = match try_open(&root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(link) => link,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(source) => return Err(FsError::new("read link", path, source)),
    };
    match rustix::fs::readlinkat(link, "", Vec::new()) {
        Ok(target) => Ok(Some(target.into_bytes())),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(source) => Err(FsError::new("read link", path, source)),
    }
}

/// Opens the directory at `path`, making what is missing with the mode and owner of `meta`.
///
/// Links on the way are followed, to missing targets too, which are made. Calls `made` with the
/// path below the root, as far as it is spelled in `path`, of each directory made.
pub fn make_directories(
    root: impl AsFd,
    path: &[u8],
    meta: &Meta,
    made: &mut dyn FnMut(&[u8]),
) -> FsResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let failed = |source| FsError::new("make directory", path, source);
    // Components still to go, last first, and where we are as a path inside the root.
    let mut rest: Vec<Vec<u8>> = components(path);
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            here.pop();
            continue;
        }
        let above = here.join(&b'/');
        here.push(name);
        let spelled = here.join(&b'/');
        match try_open(&root, &spelled, flags | OFlags::NOFOLLOW) {
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let dir = try_open(&root, &above, flags).map_err(failed)?;
                let name = here.last().expect("BUG: it was just pushed");
                match create_directory(dir, name, meta) {
                    Ok(_) => made(&spelled),
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.at(path)),
                }
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let Some(target) = read_link(&root, &spelled)? else {
                    return Err(failed(Errno::NOTDIR));
                };
                links += 1;
                if links > MOST_LINKS {
                    return Err(failed(Errno::LOOP));
                }
                here.pop();
                if target.starts_with(b"/") {
                    here.clear();
                }
                rest.extend(components(&target));
            }
            Err(source) => return Err(failed(source)),
        }
    }
    try_open(&root, &here.join(&b'/'), flags).map_err(failed)
}

/// A path that leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It leads through more links than the kernel follows.
    #[error("too many symbolic links on the way to `{path}`")]
    Links {
        /// The path.
        path: String,
    },
    /// It leads to a path that no tree can have.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Follows the links in `path` that `link` tells of, the last component's too if `follow_last`.
pub fn follow(
    path: &[u8],
    follow_last: bool,
    link: impl Fn(&TreePath) -> Option<Vec<u8>>,
) -> Result<TreePath, FollowError> {
    let mut rest = components(path);
    let mut at = TreePath::ROOT;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            at = at.parent().unwrap_or_default();
            continue;
        }
        let next = at.join(&name)?;
        let Some(target) = link(&next).filter(|_| follow_last || !rest.is_empty()) else {
            at = next;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            let path = display(path);
            return Err(FollowError::Links { path });
        }
        if target.starts_with(b"/") {
            at = TreePath::ROOT;
        }
        rest.extend(components(&target));
    }
    Ok(at)
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path
        .split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(<[u8]>::to_vec).collect()
}

fn look(root: &impl AsFd, path: &[u8], flags: OFlags) -> FsResult<Option<Stat>> {
    let failed = |source| FsError::new("stat", path, source);
    match try_open(root, path, flags) {
        Ok(found) => rustix::fs::fstat(found).map(Some).map_err(failed),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

fn try_open(root: &impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) {
        Mode::from_raw_mode(0o600)
    } else {
        Mode::empty()
    };
    retry_again(|| rustix::fs::openat2(root, path, flags, mode, resolve))
}
