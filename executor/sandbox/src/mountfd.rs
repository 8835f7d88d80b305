//! Mounts by descriptor: nothing here takes a path that somebody else could have changed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// Clones what `fd` shows, with all that is mounted below it, into a detached mount.
pub(crate) fn clone_tree(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(
        fd,
        "",
        clone_flags() | OpenTreeFlags::AT_EMPTY_PATH,
    )?)
}

/// The same for a name in a directory, or a path of the process's own tree.
pub(crate) fn clone_at(dir: Option<BorrowedFd<'_>>, path: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(
        dir.unwrap_or(CWD),
        path,
        clone_flags(),
    )?)
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE
}

/// Opens a path below a directory; no link leads out of it.
pub(crate) fn open_below(dir: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        dir,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// Makes a new file system as a detached mount.
pub(crate) fn new_file_system(
    fs: &str,
    options: &[(String, String)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value.as_str() {
            "" => rustix::mount::fsconfig_set_flag(&context, key.as_str())?,
            value => rustix::mount::fsconfig_set_string(&context, key.as_str(), value)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Attaches a detached mount to what `point` shows.
pub(crate) fn attach(mount: BorrowedFd<'_>, point: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", point, "", flags)?)
}

/// Attaches a detached mount to the root directory of this process.
pub(crate) fn attach_to_root(mount: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::mount::move_mount(
        mount,
        "",
        CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Whom a change of attributes concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    This,
    Below,
}

/// Adds mount attributes, and cuts the mount off from what is mounted elsewhere.
pub(crate) fn make_private(
    mount: BorrowedFd<'_>,
    reach: Reach,
    attributes: MountAttrFlags,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let recursive = if reach == Reach::Below {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: the path is an empty C string, and the structure outlives the call and has the size
    // that is passed; the kernel reads it and keeps nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Cuts every mount of this process's namespace off from all others.
pub(crate) fn make_everything_private() -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    make_private(root.as_fd(), Reach::Below, MountAttrFlags::empty())
}

/// Tells which mount a descriptor is on.
pub(crate) fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    Ok(statx(fd, "", flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Tells whether a descriptor shows a directory.
pub(crate) fn is_dir(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}
