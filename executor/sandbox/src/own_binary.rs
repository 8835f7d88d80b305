//! This binary, opened so that nobody who runs in a sandbox can write to it.
//!
//! The first process of a sandbox shows its binary as `/proc/1/exe`. That is a read-only mount of
//! its own, attached nowhere; where the kernel refuses one, a sealed copy in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::MountAttrFlags;

use crate::error::Error;
use crate::mountfd::{self, Reach};

const SELF: &str = "/proc/self/exe";

/// Returns what to execute, opened once in the life of the process.
pub(crate) fn open() -> Result<BorrowedFd<'static>, Error> {
    static BINARY: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(binary) = BINARY.get() {
        return Ok(binary.as_fd());
    }
    let opened = detached().or_else(|_| sealed_copy()).map_err(|source| {
        let path = std::fs::read_link(SELF).unwrap_or_else(|_| PathBuf::from(SELF));
        Error::OwnBinary { path, source }
    })?;
    // A second thread may have been faster; either will do.
    Ok(BINARY.get_or_init(|| opened).as_fd())
}

/// Whether the kernel grants the mount, so that no copy is needed.
pub(crate) fn is_detached() -> bool {
    detached().is_ok()
}

fn detached() -> io::Result<OwnedFd> {
    let file = rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mount = mountfd::clone_tree(file.as_fd())?;
    mountfd::make_private(
        mount.as_fd(),
        Reach::This,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    Ok(mount)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let name = c"kiln";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // A kernel from before such files could be anything but executable.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    io::copy(&mut File::open(SELF)?, &mut File::from(memory.try_clone()?))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    // Executing needs that nobody has it open for writing: this opening replaces that one.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_is_the_binary_and_refuses_writes() {
        let copy = sealed_copy().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(SELF).unwrap());
        let writer = std::fs::OpenOptions::new().write(true).open(&path);
        let refused = writer.and_then(|mut file| io::Write::write_all(&mut file, b"x"));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
