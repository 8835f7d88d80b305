//! What an overlay would show wrongly unless the upper directory says it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_tree::Ownership;
use kiln_tree::{Meta, TreePath, View};
use rustix::fs::{Mode, OFlags};

use crate::StoreError;

/// Gives a new upper directory the attributes of the lower root, and those directories in it whose
/// highest layer only passes through them with others than those that hold.
///
/// The merged root has the attributes of the upper's, and each merged directory those of the
/// highest layer that has it. Sealing leaves out directories that equal the lower's.
pub(crate) fn prepare_root(
    upper: &OwnedFd,
    path: &Path,
    lower: &View,
    ownership: &Ownership,
) -> Result<(), StoreError> {
    if let Some(root) = lower.get(b"") {
        apply(upper, path, root.meta(), ownership)?;
    }
    for masked in lower.masked_directories() {
        if !masked.entry.path.is_root() {
            make(upper, path, lower, &masked.entry.path, ownership)?;
        }
    }
    Ok(())
}

/// Makes a directory and those above it as the lower view shows them.
fn make(
    upper: &OwnedFd,
    root: &Path,
    lower: &View,
    path: &TreePath,
    ownership: &Ownership,
) -> Result<(), StoreError> {
    let mut dir = upper.try_clone().map_err(StoreError::io("open", root))?;
    let mut at: &[u8] = b"";
    for name in path.as_bytes().split(|&byte| byte == b'/') {
        let start = if at.is_empty() { 0 } else { at.len() + 1 };
        at = &path.as_bytes()[..start + name.len()];
        let there = root.join(OsStr::from_bytes(at));
        let made = match rustix::fs::mkdirat(&dir, name, Mode::from(0o700)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(errno) => return Err(StoreError::io("create", &there)(errno)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty())
            .map_err(StoreError::io("open", &there))?;
        if made && let Some(found) = lower.get(at) {
            apply(&dir, &there, found.meta(), ownership)?;
        }
    }
    Ok(())
}

fn apply(dir: &OwnedFd, path: &Path, meta: &Meta, ownership: &Ownership) -> Result<(), StoreError> {
    ownership
        .set(dir, meta, true)
        .map_err(|source| StoreError::Tree {
            action: "set the attributes of",
            path: path.to_owned(),
            source: Box::new(source),
        })
}
