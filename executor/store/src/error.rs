//! What can go wrong between kiln and its store.

use std::io;
use std::path::{Path, PathBuf};

use crate::{BlobDigest, Content};

/// An operation on the store failed; the store itself is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store could not be worked on.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The path worked on.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk that holds the store is full; `kiln prune` makes room.
    #[error("cannot {action} `{}`: no space left on the disk of the store; `kiln prune` frees some", path.display())]
    Full {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The path worked on.
        path: PathBuf,
    },
    /// The store cannot be written to, and its last changes cannot be read without.
    #[error("cannot open the store `{}`: its disk is mounted read-only, and its last changes are still in the log of its database, which takes a disk that can be written to", path.display())]
    ReadOnly {
        /// The root.
        path: PathBuf,
    },
    /// The database refused.
    #[error("cannot {action} in the database `{}`", path.display())]
    Database {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The database holds a value that this version never writes.
    #[error("the store's database has a damaged {what}; remove the store at `{}` to start anew", path.display())]
    Damaged {
        /// Which value.
        what: &'static str,
        /// The store's root.
        path: PathBuf,
    },
    /// The root lies on a filesystem that several hosts may share, where neither locks nor SQLite hold.
    #[error("the store `{}` is on a {filesystem} filesystem, which may be shared between hosts; set KILN_ROOT to a local directory", path.display())]
    SharedFilesystem {
        /// The root.
        path: PathBuf,
        /// The filesystem's name.
        filesystem: &'static str,
    },
    /// The root belongs to somebody else.
    #[error("the store `{}` belongs to user {owner}, and kiln runs as user {user}; set KILN_ROOT to a directory of your own", path.display())]
    Owner {
        /// The root.
        path: PathBuf,
        /// The uid that owns it.
        owner: u32,
        /// The effective uid of this process.
        user: u32,
    },
    /// The root holds something, and it is no store.
    #[error("`{}` is not empty and not a kiln store; set KILN_ROOT to a new directory", path.display())]
    NotAStore {
        /// The root.
        path: PathBuf,
    },
    /// A newer kiln made the store.
    #[error("the store `{}` has version {found}, and this kiln knows versions up to {supported}; use a newer kiln or another KILN_ROOT", path.display())]
    Newer {
        /// The root.
        path: PathBuf,
        /// The version of the store.
        found: i64,
        /// The newest version that this kiln knows.
        supported: i64,
    },
    /// A blob's bytes are not what its digest says.
    #[error("blob `{expected}` has the digest `{found}`; it was truncated or altered")]
    BlobDigest {
        /// The digest that was asked for.
        expected: BlobDigest,
        /// The digest of what came.
        found: BlobDigest,
    },
    /// A blob is longer or shorter than announced.
    #[error("blob `{digest}` should have {expected} bytes and has {found}")]
    BlobSize {
        /// The blob.
        digest: BlobDigest,
        /// The announced length.
        expected: u64,
        /// The length of what came, as far as it was read.
        found: u64,
    },
    /// A blob is not in the store.
    #[error("blob `{0}` is not in the store")]
    NoSuchBlob(BlobDigest),
    /// A layer is not in the store.
    #[error("layer `{0}` is not in the store")]
    NoSuchLayer(Content),
    /// No image has this name or id.
    #[error("no image is called `{name}`; `kiln images` lists those that are there")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },
    /// An image that another one is made of.
    #[error("image `{id}` is part of `{of}`; remove that")]
    ImageOfIndex {
        /// The image.
        id: crate::ImageId,
        /// The one that it is part of.
        of: crate::ImageId,
    },
    /// An id prefix fits several images.
    #[error("`{prefix}` fits {}; give more digits", matches.join(", "))]
    AmbiguousImage {
        /// What was asked for.
        prefix: String,
        /// The ids that it fits.
        matches: Vec<String>,
    },
    /// A sealed or stored layer is not what its manifest or directory says.
    #[error("cannot {action} `{}`", path.display())]
    Tree {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The directory or manifest worked on.
        path: PathBuf,
        /// What the tree room said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel refused an overlay mount.
    #[error("cannot {action} of an overlay with {lowers} layers below `{}`: {detail}", path.display())]
    Overlay {
        /// The step that failed, such as `set option userxattr`.
        action: String,
        /// The number of lower directories.
        lowers: usize,
        /// The directory that holds the upper.
        path: PathBuf,
        /// The kernel's own words, if it had any.
        detail: String,
        /// What the system call returned.
        #[source]
        source: io::Error,
    },
    /// A snapshot made by one strategy was given to another, or a view was sealed.
    #[error("a {found} snapshot cannot be sealed by the {expected} strategy")]
    WrongSnapshot {
        /// The strategy asked.
        expected: &'static str,
        /// What the snapshot is.
        found: &'static str,
    },
    /// The hook that fills a new cache mount failed.
    #[error("cannot fill the new cache mount `{id}`")]
    CacheMountInit {
        /// The mount's id.
        id: String,
        /// What the hook said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Returns the closure that makes an error out of a failed `action` on `path`; a full disk has one of its own.
    pub fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> StoreError {
        move |source| {
            let (path, source) = (path.as_ref().to_owned(), source.into());
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StoreError::Full { action, path }
                }
                _ => StoreError::Io {
                    action,
                    path,
                    source,
                },
            }
        }
    }

    pub(crate) fn database(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full { action, path },
            _ => StoreError::Database {
                action,
                path,
                source,
            },
        }
    }
}
