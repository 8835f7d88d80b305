//! Paths inside a root file system that may be hostile.
//!
//! An image may hold `/etc -> /../../etc`. Paths that exist are resolved by the kernel with
//! `RESOLVE_IN_ROOT`; where something is missing, one component is opened at a time and links are
//! expanded here, so that what is made is always made inside.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::bytestring::ByteString;
use crate::mountfd;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// A root file system, and what was made in it.
pub(crate) struct Root {
    fd: OwnedFd,
    mount_id: u64,
    /// Paths of what was made on the root's own mount, parents first, with whether it is a directory.
    pub(crate) stubs: Vec<(ByteString, bool)>,
}

impl Root {
    /// Takes an attached root.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Root> {
        let mount_id = mountfd::mount_id(&fd)?;
        Ok(Root {
            fd,
            mount_id,
            stubs: Vec::new(),
        })
    }

    /// Returns what is at `path`, made first if it is missing: a directory, or an empty file.
    ///
    /// Errors with `EBUSY` if that is the root itself.
    pub(crate) fn mount_point(&mut self, path: &[u8], is_dir: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
            Ok(found) => Ok(found),
            Err(Errno::NOENT | Errno::LOOP | Errno::AGAIN) => self.make(path, is_dir),
            Err(error) => Err(error.into()),
        }
    }

    fn make(&mut self, path: &[u8], is_dir: bool) -> io::Result<OwnedFd> {
        let mut queue: VecDeque<Vec<u8>> = components(path).collect();
        let mut way: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            if name == b".." {
                way.pop();
                continue;
            }
            let here = way.last().map_or(self.fd.as_fd(), |(fd, _)| fd.as_fd());
            let found = match open_one(here, &name) {
                Err(Errno::NOENT) => {
                    let wants_dir = is_dir || !queue.is_empty();
                    match make_one(here, &name, wants_dir) {
                        // Another sandbox on the same root was faster: the stub is its own.
                        Err(Errno::EXIST) => open_one(here, &name)?,
                        made => {
                            let made = made?;
                            if mountfd::mount_id(here)? == self.mount_id {
                                let names = way.iter().map(|(_, name)| name).chain([&name]);
                                let path = names.flat_map(|name| [b"/", name.as_slice()].concat());
                                self.stubs.push((ByteString(path.collect()), wants_dir));
                            }
                            made
                        }
                    }
                }
                other => other?,
            };
            let stat = rustix::fs::fstat(&found)?;
            if FileType::from_raw_mode(stat.st_mode).is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    way.clear();
                }
                for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    queue.push_front(part);
                }
                continue;
            }
            way.push((found, name));
        }
        way.pop()
            .map(|(fd, _)| fd)
            .ok_or_else(|| Errno::BUSY.into())
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

fn open_one(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn make_one(dir: BorrowedFd<'_>, name: &[u8], is_dir: bool) -> rustix::io::Result<OwnedFd> {
    if is_dir {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    }
    open_one(dir, name)
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
