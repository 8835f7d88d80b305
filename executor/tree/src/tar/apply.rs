//! An untrusted layer archive into a directory of its own.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::handle::FsError;
use crate::manifest::{Entry, Manifest, ManifestError};
use crate::path::{PathError, TreePath};
use crate::seal::IdMap;

/// What happens to the owners that an archive names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Files get them, mapped to the ids outside.
    Apply(IdMap),
    /// Only the manifest has them; on disk everything is ours to read and write.
    Record,
}

/// The namespace of the overlay marks that go on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: overlays mounted by root.
    Trusted,
    /// `user.overlay.*`: overlays mounted in a user namespace, with `userxattr`.
    User,
}

/// Files of lower layers, for archives that hard-link to them.
pub trait LowerFiles: Sync {
    /// Opens the file at `path` in the lower layers with its entry, a file and no hard link.
    fn open(&self, path: &TreePath) -> io::Result<Option<(Entry, OwnedFd)>>;
}

/// How to apply an archive, and how much of it.
pub struct ApplyOptions<'a> {
    /// Owners.
    pub ownership: Ownership,
    /// Overlay marks.
    pub overlay: OverlayXattrs,
    /// Where hard links out of the layer lead; without it they are errors.
    pub lower: Option<&'a dyn LowerFiles>,
    /// The most bytes of files.
    pub max_bytes: u64,
    /// The most entries.
    pub max_entries: usize,
}

impl ApplyOptions<'_> {
    /// Returns options for an archive applied by root, with generous limits.
    pub fn new(ownership: Ownership, overlay: OverlayXattrs) -> Self {
        Self { ownership, overlay, lower: None, max_bytes: 1 << 40, max_entries: 4_000_000 }
    }
}

/// What applying an archive gave.
#[derive(Debug)]
pub struct Applied {
    /// The layer.
    pub manifest: Manifest,
    /// The bytes of all files written.
    pub bytes: u64,
}

/// An archive was refused, or could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not a readable archive.
    #[error("could not read the archive after entry `{after}`")]
    Archive {
        /// The last whole entry.
        after: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An entry has a path that is refused.
    #[error("the archive has an entry that is refused")]
    Path(#[from] PathError),
    /// An entry is refused.
    #[error("archive entry `{path}` {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive is larger than allowed.
    #[error("the archive has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The directory takes no more.
    #[error("could not write the layer")]
    Fs(#[from] FsError),
    /// The entries contradict each other.
    #[error("the archive is inconsistent")]
    Manifest(#[from] ManifestError),
}

/// Applies an untrusted layer archive to the empty directory `into`.
///
/// Deletions go on disk as overlay whiteouts and opaque marks. Nothing outside `into` is touched
/// whatever the archive says.
pub fn apply(
    archive: impl Read,
    into: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
) -> Result<Applied, ApplyError> {
    let _ = (archive, into, options);
    unimplemented!()
}
