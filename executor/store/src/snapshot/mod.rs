//! Snapshots: ordered layers as one filesystem, to read or to work in.
//!
//! A snapshot begins with [`Snapshotter::prepare`] or [`Snapshotter::view`]. One that was prepared
//! ends with [`Snapshotter::seal`], which gives a draft of the layer that was made, to be
//! committed; any snapshot may be dropped instead, which removes what is its own. All that a
//! snapshot has on disk lies in this process's work directory, and its mount is attached nowhere,
//! so a kill leaves only that directory, for the next sweep.

mod attributes;
mod copy;
mod fold;
mod lower;
mod overlay;
mod probe;

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_tree::aged::Age;
use kiln_tree::seal::SealOptions;
use kiln_tree::{Manifest, OneId, Ownership, Stop, TreePath, View};

pub use copy::Copied;
pub use overlay::Overlay;
pub use probe::Probe;

use self::lower::Lowers;
use crate::layers::{LayerDraft, LayerHandle};
use crate::store::Store;
use crate::{Content, Lease, StoreError};

/// How layers become a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// A detached overlay mount over the layers' directories.
    Overlay,
    /// A copy of the merged tree, compared with its manifest afterwards.
    Copy,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Strategy::Overlay => "overlay",
            Strategy::Copy => "copy",
        })
    }
}

/// Makes filesystems of layers, by one strategy.
///
/// Every implementation passes the suite in tests/snapshots.rs. Layers are given lowest first and
/// must be in the store; the lease is for layers that a strategy makes on the way.
pub trait Snapshotter: fmt::Debug + Send + Sync {
    /// The strategy.
    fn strategy(&self) -> Strategy;

    /// Returns a filesystem that shows `layers` and can be changed.
    ///
    /// Errors once `stop` says so, with nothing left behind; so does [`Snapshotter::view`].
    fn prepare(
        &self,
        lease: &Lease,
        layers: &[Content],
        stop: &Stop,
    ) -> Result<Snapshot, StoreError>;

    /// Returns a filesystem that shows `layers` and is not to be changed.
    fn view(&self, lease: &Lease, layers: &[Content], stop: &Stop) -> Result<Snapshot, StoreError>;

    /// Makes a layer of what was changed in a prepared snapshot.
    ///
    /// Nobody may use the filesystem any more: mounts and handles of it are closed. The marks of
    /// `options` are overridden by those of the store.
    fn seal(&self, snapshot: Snapshot, options: SealOptions) -> Result<SealedLayer, StoreError>;
}

/// Layers as one filesystem.
#[derive(Debug)]
pub struct Snapshot {
    // Fields are dropped in this order: the mount before the directories under it.
    root: OwnedFd,
    is_mount: bool,
    writable: bool,
    state: State,
    lower: View,
    layers: Vec<Content>,
    work: WorkDirectory,
}

impl Snapshot {
    /// The root: a detached mount if [`Snapshot::is_mount`], else a directory.
    ///
    /// Both serve as the start of `openat`; the first can be given to `move_mount`.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether the root is a mount that is attached nowhere.
    pub fn is_mount(&self) -> bool {
        self.is_mount
    }

    /// The directory that gets an overlay's changes.
    pub fn upper(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Overlay { upper } => upper.as_ref().map(AsFd::as_fd),
            State::Copy { .. } => None,
        }
    }

    /// Whether it was prepared to be changed.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// The layers that it was made of, lowest first.
    pub fn layers(&self) -> &[Content] {
        &self.layers
    }

    /// What the layers show, by their manifests.
    pub fn lower(&self) -> &View {
        &self.lower
    }
}

/// What a strategy needs for sealing.
#[derive(Debug)]
enum State {
    Overlay {
        upper: Option<OwnedFd>,
    },
    Copy {
        tree: OwnedFd,
        before: Option<kiln_tree::materialised::Snapshot>,
    },
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Overlay { upper: Some(_) } => "overlay",
            State::Overlay { upper: None } => "read-only overlay",
            State::Copy {
                before: Some(_), ..
            } => "copy",
            State::Copy { before: None, .. } => "read-only copy",
        }
    }
}

/// A layer that was sealed and is not in the store yet.
#[derive(Debug)]
pub struct SealedLayer {
    /// What the step meant.
    pub manifest: Manifest,
    /// What was in the directory without being meant.
    pub dropped: Vec<TreePath>,
    /// The layer's directory.
    pub draft: LayerDraft,
}

impl SealedLayer {
    /// Commits the layer under the id of its manifest.
    pub fn commit(self, store: &Store, lease: &Lease) -> Result<LayerHandle, StoreError> {
        let content = Content::Layer(self.manifest.id());
        store.commit_layer(lease, self.draft, &self.manifest, content)
    }
}

fn of_lowers(strategy: Strategy, lowers: Lowers) -> Box<dyn Snapshotter> {
    match strategy {
        Strategy::Overlay => Box::new(Overlay::new(lowers)),
        Strategy::Copy => Box::new(Copied::new(lowers)),
    }
}

impl Store {
    /// Returns the snapshotter of a strategy, whether it works here or not.
    pub fn snapshotter(&self, strategy: Strategy) -> Box<dyn Snapshotter> {
        of_lowers(strategy, Lowers::new(self))
    }

    /// Returns one that shows the files of layers that were made here as if they were older; those of
    /// archives have the times that these say.
    ///
    /// It copies each such layer once, and removes the copies when it is dropped.
    pub fn aged_snapshotter(&self, strategy: Strategy, by: Age) -> Box<dyn Snapshotter> {
        of_lowers(strategy, Lowers::aged(self, by))
    }

    /// Returns options for sealing with this store's owners, marks and threads.
    pub fn seal_options(&self) -> SealOptions {
        let options = self.options();
        SealOptions {
            marks: options.overlay_xattrs,
            ids: options.ids.clone(),
            one_id: (options.ownership == Ownership::Record).then(OneId::default),
            threads: options.threads,
            ..SealOptions::default()
        }
    }
}

/// A directory in this process's work, removed when dropped.
#[derive(Debug)]
struct WorkDirectory {
    store: Store,
    path: PathBuf,
    kept: bool,
}

impl WorkDirectory {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let path = store.work_path("snapshot")?;
        crate::store::make_directory(&path)?;
        Ok(Self {
            store: store.clone(),
            path,
            kept: false,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory of mode 0755 in it.
    fn make(&self, name: &str) -> Result<PathBuf, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(name);
        crate::store::make_directory(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(StoreError::io("set the mode of", &path))?;
        Ok(path)
    }

    /// Makes it a draft of the layer in its `fs`.
    fn into_draft(mut self) -> Result<LayerDraft, StoreError> {
        let draft = self.store.draft(self.path.clone())?;
        self.kept = true;
        Ok(draft)
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is in the trash, for the next sweep.
            let _ = self.store.remove(&self.path);
        }
    }
}
