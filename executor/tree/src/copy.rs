//! Files and trees copied, linked and removed by handle.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, XattrFlags};
use rustix::io::Errno;

use crate::attributes::times;
use crate::handle::{self, FsError, FsResult, READ_BYTES};
use crate::manifest::Meta;
use crate::sparse;
use crate::stop::{PIECE_BYTES, Stop};

/// Copies `size` bytes of `from` into the empty file `to` without looking at them, in the kernel
/// where it can; holes stay holes.
///
/// Errors if the file is shorter by now, or once `stop` says so; `to` is of no use then.
pub fn copy_bytes_unseen(from: impl AsFd, to: impl AsFd, size: u64, stop: &Stop) -> FsResult<()> {
    // A small file is copied in less time than it takes to ask for a clone, and for its holes.
    if size < sparse::HOLE_BYTES as u64 {
        return copy_part(&from, &to, 0, size, stop);
    }
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let mut reached = 0;
    for (start, end) in sparse::data(&from, size)? {
        copy_part(&from, &to, start, end, stop)?;
        reached = end;
    }
    if reached < size {
        let length = rustix::fs::seek(&from, SeekFrom::End(0))
            .map_err(|source| FsError::new("copy", b"", source))?;
        if length < size {
            return Err(changed());
        }
        rustix::fs::ftruncate(&to, size)
            .map_err(|source| FsError::new("set the length of", b"", source))?;
    }
    Ok(())
}

fn copy_part(from: &impl AsFd, to: &impl AsFd, start: u64, end: u64, stop: &Stop) -> FsResult<()> {
    let (mut read, mut written) = (start, start);
    while read < end {
        stop.check()?;
        let most = usize::try_from((end - read).min(PIECE_BYTES)).unwrap_or(READ_BYTES);
        let (at_in, at_out) = (Some(&mut read), Some(&mut written));
        match rustix::fs::copy_file_range(from, at_in, to, at_out, most) {
            Ok(0) => return Err(changed()),
            Ok(_) | Err(Errno::INTR) => {}
            // Not between these two file systems, or not in this sandbox.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if read == start =>
            {
                return read_part(from, to, start, end, stop);
            }
            Err(source) => return Err(FsError::new("copy", b"", source)),
        }
    }
    Ok(())
}

fn read_part(from: &impl AsFd, to: &impl AsFd, start: u64, end: u64, stop: &Stop) -> FsResult<()> {
    let room = usize::try_from(end - start).unwrap_or(READ_BYTES);
    let mut buffer = vec![0; room.min(READ_BYTES)];
    let mut at = start;
    while at < end {
        stop.check()?;
        let most = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(READ_BYTES));
        match rustix::io::pread(from, &mut buffer[..most], at) {
            Ok(0) => return Err(changed()),
            Ok(length) => {
                sparse::write_at(to, &buffer[..length], at)?;
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(FsError::new("read", b"", source)),
        }
    }
    Ok(())
}

fn changed() -> FsError {
    let text = "the file changed while it was copied";
    FsError::new(
        "copy",
        b"",
        io::Error::new(io::ErrorKind::UnexpectedEof, text),
    )
}

/// Creates the file `name` for writing; it must not be there.
pub fn create_file(dir: impl AsFd, name: &[u8]) -> FsResult<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|source| FsError::new("create", name, source))
}

/// Creates the directory `name`, which must not be there, with its mode and owner, and opens it.
pub fn create_directory(dir: impl AsFd, name: &[u8], meta: &Meta) -> FsResult<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700))
        .map_err(|source| FsError::new("make directory", name, source))?;
    let made = handle::open_directory(dir, name)?;
    set_meta(&made, meta).map_err(|error| error.at(name))?;
    Ok(made)
}

/// Gives an open file or directory the owner, mode, xattrs and time of `meta`.
///
/// The owner is set only if it is another one. Every failure is an error: the caller decides what
/// `meta` asks for.
pub fn set_meta(file: impl AsFd, meta: &Meta) -> FsResult<()> {
    let failed = |attempt| move |source: Errno| FsError::new(attempt, b"", source);
    let stat = rustix::fs::fstat(&file).map_err(failed("stat"))?;
    if (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid) {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed("set the owner of"))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.mode)).map_err(failed("set the mode of"))?;
    for (name, value) in &meta.xattrs {
        rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty())
            .map_err(failed("set xattr of"))?;
    }
    rustix::fs::futimens(&file, &times(meta)).map_err(failed("set the time of"))
}

/// Gives `name` itself, were it a link, the owner and time of `meta`.
pub fn set_link_meta(dir: impl AsFd, name: &[u8], meta: &Meta) -> FsResult<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    if let Some(stat) = handle::stat(&dir, name)?
        && (stat.st_uid, stat.st_gid) != (meta.uid, meta.gid)
    {
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), flags)
            .map_err(|source| FsError::new("set the owner of", name, source))?;
    }
    rustix::fs::utimensat(dir, name, &times(meta), flags)
        .map_err(|source| FsError::new("set the time of", name, source))
}

/// Makes `name` another name of a file of a finished layer; `false` where that cannot be.
///
/// Only for files whose inode has all the attributes that are wanted and that nobody writes to:
/// a file in an overlay's lower directory is copied before it is written.
pub fn link_file(from: impl AsFd, from_name: &[u8], dir: impl AsFd, name: &[u8]) -> FsResult<bool> {
    match rustix::fs::linkat(from, from_name, dir, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // Another file system, a full inode, or another's file.
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => Ok(false),
        Err(source) => Err(FsError::new("link", name, source)),
    }
}

/// Directories deeper than this are moved up before they are emptied, so that the depth of a tree
/// costs no descriptors.
const MOST_DEPTH: usize = 64;

/// Removes `name` in `dir` with everything below it; a link is removed, never followed.
///
/// Something that is not there is fine. Directories of ours that we may not read are opened up.
pub fn remove_tree(dir: impl AsFd, name: &[u8]) -> FsResult<()> {
    let mut moved = vec![name.to_vec()];
    let mut serial = 0_u32;
    while let Some(name) = moved.pop() {
        remove_to_depth(&dir, &name, &mut moved, &mut serial)?;
    }
    Ok(())
}

fn remove_to_depth(
    top: &impl AsFd,
    name: &[u8],
    moved: &mut Vec<Vec<u8>>,
    serial: &mut u32,
) -> FsResult<()> {
    if !unlink_or_is_directory(top, name)? {
        return Ok(());
    }
    // Each level: its name in the one above, its handle and the names left in it.
    let mut levels = vec![open_level(top.as_fd(), name)?];
    while let Some((_, dir, rest)) = levels.last_mut() {
        if let Some((child, file_type)) = rest.pop() {
            if file_type != FileType::Directory && !unlink_or_is_directory(&*dir, &child)? {
                continue;
            }
            if levels.len() < MOST_DEPTH {
                let (_, dir, _) = &levels[levels.len() - 1];
                let level = open_level(dir.as_fd(), &child)?;
                levels.push(level);
            } else {
                let aside = move_up(top, &levels[levels.len() - 1].1, &child, serial)?;
                moved.push(aside);
            }
            continue;
        }
        let Some((done, _, _)) = levels.pop() else {
            break;
        };
        let removed = match levels.last() {
            Some((_, above, _)) => rustix::fs::unlinkat(above, &done[..], AtFlags::REMOVEDIR),
            None => rustix::fs::unlinkat(top, &done[..], AtFlags::REMOVEDIR),
        };
        removed.map_err(|source| FsError::new("remove directory", &done, source))?;
    }
    Ok(())
}

type Level = (Vec<u8>, OwnedFd, Vec<handle::Name>);

fn open_level(dir: impl AsFd, name: &[u8]) -> FsResult<Level> {
    let opened = match handle::open_directory(&dir, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(0o700), AtFlags::empty())
                .map_err(|source| FsError::new("open up", name, source))?;
            handle::open_directory(&dir, name)?
        }
        opened => opened?,
    };
    let names = handle::names(&opened).map_err(|error| error.at(name))?;
    if !names.is_empty()
        && rustix::fs::accessat(
            &opened,
            ".",
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
            AtFlags::empty(),
        )
        .is_err()
    {
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(0o700))
            .map_err(|source| FsError::new("open up", name, source))?;
    }
    Ok((name.to_vec(), opened, names))
}

/// Removes what is no directory; `true` if it is one.
fn unlink_or_is_directory(dir: impl AsFd, name: &[u8]) -> FsResult<bool> {
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR) => Ok(true),
        Err(source) => Err(FsError::new("remove", name, source)),
    }
}

fn move_up(top: &impl AsFd, dir: impl AsFd, name: &[u8], serial: &mut u32) -> FsResult<Vec<u8>> {
    loop {
        *serial += 1;
        let aside = format!(".removed-{serial}").into_bytes();
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&dir, name, top, &aside[..], flags) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST) => {}
            Err(source) => return Err(FsError::new("move up", name, source)),
        }
    }
}
