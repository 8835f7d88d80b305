//! One entry of a layer.

use std::collections::BTreeMap;

use crate::digest::FileDigest;
use crate::path::TreePath;

/// Extended attributes by full name (`user.x`), values as the kernel gives them.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A path of a layer and what the layer does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where; the empty path is the layer's root directory itself.
    pub path: TreePath,
    /// What.
    pub kind: Kind,
    /// Its attributes; all default for a whiteout, the target's for a hard link.
    pub meta: Meta,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length of its bytes.
        size: u64,
        /// BLAKE3 of its bytes.
        digest: FileDigest,
    },
    /// A directory.
    Directory {
        /// What lower layers have in this directory is hidden.
        opaque: bool,
        /// It is listed only because something below it is: where a lower layer has the
        /// directory, that one's attributes hold. Never together with `opaque`.
        passing: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as bytes, never resolved here.
        target: Vec<u8>,
    },
    /// A character device; 0:0 is a whiteout and never this.
    CharDevice {
        /// Device class.
        major: u32,
        /// Device in its class.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device class.
        major: u32,
        /// Device in its class.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Another name of an entry of the same layer.
    Hardlink {
        /// The group's first path in order, which is neither a directory nor a hard link.
        to: TreePath,
    },
    /// The path is deleted: whatever lower layers have there, with all below it, is gone.
    Whiteout,
}

impl Kind {
    /// A directory that is merged with those below it.
    pub const DIRECTORY: Kind = Kind::Directory {
        opaque: false,
        passing: false,
    };

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Kind::Directory { .. })
    }

    /// Whether this is a directory that is only passed through.
    pub fn is_passing(&self) -> bool {
        matches!(self, Kind::Directory { passing: true, .. })
    }

    /// Whether the two are the same thing to see, however they treat what lies below them.
    pub fn looks_like(&self, other: &Kind) -> bool {
        self == other || (self.is_directory() && other.is_directory())
    }
}

/// A modification time; kept for archives, never part of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10^9.
    pub nanos: u32,
}

impl Mtime {
    /// Whether the two may be one time, which archives and some file systems cut to seconds.
    pub fn agrees(&self, other: &Mtime) -> bool {
        self.seconds == other.seconds
            && (self.nanos == other.nanos || self.nanos == 0 || other.nanos == 0)
    }
}

/// The attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The lower twelve mode bits.
    pub mode: u32,
    /// Owner, as seen inside a container.
    pub uid: u32,
    /// Group, as seen inside a container.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes that belong to the content.
    pub xattrs: Xattrs,
}

impl Meta {
    /// Attributes of root's, with `mode`, the epoch and no xattrs.
    pub fn new(mode: u32) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// Whether all but the modification time are equal.
    pub fn same_but_time(&self, other: &Meta) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
            && self.xattrs == other.xattrs
    }
}

impl Entry {
    /// Returns the entry of these parts.
    pub fn new(path: TreePath, kind: Kind, meta: Meta) -> Self {
        Self { path, kind, meta }
    }

    /// Returns the mark that `path` is deleted.
    pub fn whiteout(path: TreePath) -> Self {
        Self::new(path, Kind::Whiteout, Meta::default())
    }
}
