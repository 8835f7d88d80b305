//! How overlayfs marks deletions in a layer's directory.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags};

use crate::handle::{FsError, FsResult};
use crate::owners;

/// The namespace of the overlay marks that are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: overlays mounted by root.
    Trusted,
    /// `user.overlay.*`: overlays mounted in a user namespace, with `userxattr`.
    User,
}

impl OverlayXattrs {
    /// The xattr that marks a directory as opaque.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// The xattr that marks an empty file as a whiteout.
    fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }

    /// What the mark is called if `name` is a mark of this namespace.
    pub(crate) fn mark(self, name: &[u8]) -> Option<&[u8]> {
        name.strip_prefix(match self {
            Self::Trusted => b"trusted.overlay.".as_slice(),
            Self::User => b"user.overlay.".as_slice(),
        })
    }
}

/// Whether an xattr belongs to a layer's content.
///
/// Not `*.overlay.*`, nor `security.*` but capabilities, nor `system.*` but POSIX ACLs, nor what kiln notes.
pub fn is_content_xattr(name: &[u8]) -> bool {
    let (space, rest) = match name.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&name[..dot], &name[dot + 1..]),
        None => return false,
    };
    match space {
        _ if rest.starts_with(b"overlay.") || rest.is_empty() => false,
        b"user" if name == owners::NOTE.as_bytes() => false,
        b"security" => rest == b"capability",
        b"system" => matches!(rest, b"posix_acl_access" | b"posix_acl_default"),
        b"user" | b"trusted" => true,
        _ => false,
    }
}

/// Makes the whiteout `name`: a character device 0:0, which an ordinary user may make too.
///
/// A directory that is itself on an overlay takes no such device: there it is the other form, an
/// empty file with a mark.
pub fn make_whiteout(dir: impl AsFd, name: &[u8]) -> FsResult<()> {
    let dir = dir.as_fd();
    let made = rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0);
    let made = match made {
        Err(rustix::io::Errno::PERM) => make_marked_file(dir, name),
        made => made,
    };
    made.map_err(|source| FsError::new("make whiteout", name, source))
}

fn make_marked_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mark = |marks: OverlayXattrs| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&file, marks.whiteout(), b"y", flags)
    };
    // The first is refused exactly where overlays are mounted with the second.
    match mark(OverlayXattrs::Trusted) {
        Err(rustix::io::Errno::PERM) => mark(OverlayXattrs::User),
        marked => marked,
    }
}

/// Marks an open directory as opaque.
pub fn make_opaque(dir: impl AsFd, marks: OverlayXattrs) -> FsResult<()> {
    rustix::fs::fsetxattr(dir, marks.opaque(), b"y", rustix::fs::XattrFlags::empty())
        .map_err(|source| FsError::new("mark as opaque", b"", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_xattrs() {
        for name in [
            "user.a",
            "security.capability",
            "system.posix_acl_access",
            "trusted.x",
        ] {
            assert!(is_content_xattr(name.as_bytes()), "{name}");
        }
        for name in [
            "trusted.overlay.origin",
            "user.overlay.opaque",
            "user.kiln.owner",
            "security.selinux",
            "security.overlay.x",
            "system.nfs4_acl",
            "btrfs.compression",
            "user.",
            "noise",
        ] {
            assert!(!is_content_xattr(name.as_bytes()), "{name}");
        }
    }
}
