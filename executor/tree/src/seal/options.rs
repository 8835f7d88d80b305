//! What sealing is told and what it tells.

use std::collections::{HashMap, HashSet};

use crate::digest::FileDigest;
use crate::handle::FsError;
use crate::manifest::{Manifest, ManifestError};
use crate::marks::OverlayXattrs;
use crate::owners::{OneId, OwnerDoubt};
use crate::path::TreePath;
use crate::seal::ids::IdMap;
use crate::stop::Stop;

/// A digest known without reading the file, believed if the size on disk is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Length of the bytes.
    pub size: u64,
    /// Their digest.
    pub digest: FileDigest,
}

/// How to read an upper directory.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The namespace of the overlay's marks; marks of the other one are dropped unread.
    pub marks: OverlayXattrs,
    /// Digests of files that kiln itself wrote.
    pub known: HashMap<TreePath, Known>,
    /// Owners on disk to owners in the layer.
    pub ids: IdMap,
    /// Owners (uid, gid) that hold whatever the disk says.
    pub owners: HashMap<TreePath, (u32, u32)>,
    /// Owners on disk mean nothing, because only one id is mapped: notes tell them, and what they
    /// cannot tell is an error.
    pub one_id: Option<OneId>,
    /// Mount points that the sandbox made, with the directories made on the way to them: removed
    /// where they are still empty.
    pub stubs: Vec<TreePath>,
    /// Directories that were made only to reach something inside: listed as passing.
    pub implied: HashSet<TreePath>,
    /// Whether the root directory's own attributes are listed when they differ from the lower's.
    pub root: bool,
    /// Threads that hash files.
    pub threads: usize,
    /// Gives hashing up.
    pub stop: Stop,
}

impl Default for SealOptions {
    fn default() -> Self {
        Self {
            marks: OverlayXattrs::Trusted,
            known: HashMap::new(),
            ids: IdMap::identity(),
            owners: HashMap::new(),
            one_id: None,
            stubs: Vec::new(),
            implied: HashSet::new(),
            root: true,
            threads: 2,
            stop: Stop::NEVER,
        }
    }
}

/// A sealed layer.
#[derive(Debug)]
pub struct Sealed {
    /// What the step meant.
    pub manifest: Manifest,
    /// What was in the directory without being meant, and is removed from it now.
    pub dropped: Vec<TreePath>,
}

/// An upper directory cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It cannot be read.
    #[error("could not read the finished layer")]
    Fs(#[from] FsError),
    /// What was read contradicts itself.
    #[error("the finished layer is inconsistent")]
    Manifest(#[from] ManifestError),
    /// The directory has a mark that overlays mounted by kiln never make.
    #[error("`{path}` has the overlay mark `{mark}`, which kiln's mounts switch off")]
    Mark {
        /// Where.
        path: TreePath,
        /// The mark, without its namespace.
        mark: &'static str,
    },
    /// One id is mapped, and an owner that is needed cannot be told.
    #[error(transparent)]
    Owner(#[from] OwnerDoubt),
    /// A file's size changed while it was read.
    #[error("`{0}` changed while it was sealed; is a process of the step still running?")]
    Changed(TreePath),
}
