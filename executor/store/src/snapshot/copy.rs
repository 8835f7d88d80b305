//! Snapshots as copies, for where overlayfs cannot have its upper directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_tree::copy::remove_tree;
use kiln_tree::handle::{self, FsError, READ_DIRECTORY};
use kiln_tree::marks::{make_opaque, make_whiteout};
use kiln_tree::materialised::{Names, diff_against, materialise, record};
use kiln_tree::seal::SealOptions;
use kiln_tree::walk::{Descend, walk};
use kiln_tree::{Kind, Manifest, OverlayXattrs, Stop, TreePath};
use rustix::mount::OpenTreeFlags;

use crate::layers::open_directory;
use crate::snapshot::lower::Lowers;
use crate::snapshot::{SealedLayer, Snapshot, Snapshotter, State, Strategy, WorkDirectory};
use crate::{Content, Lease, StoreError};

/// The copy strategy: the merged tree is written out, and compared with its manifests afterwards.
///
/// It needs nothing of the kernel and costs a copy of the whole tree for each snapshot.
#[derive(Debug, Clone)]
pub struct Copied {
    lowers: Lowers,
}

impl Copied {
    pub(super) fn new(lowers: Lowers) -> Self {
        Self { lowers }
    }

    fn copy(
        &self,
        lease: &Lease,
        layers: &[Content],
        writable: bool,
        stop: &Stop,
    ) -> Result<Snapshot, StoreError> {
        let store = &self.lowers.store;
        let lower = self.lowers.of(lease, layers, stop)?;
        let directories: Vec<OwnedFd> = lower
            .directories
            .iter()
            .map(|path| open_directory(path))
            .collect::<Result<_, _>>()?;
        let lower = lower.view;
        let work = WorkDirectory::new(store)?;
        let names = match writable {
            true => Names::Apart,
            false => Names::Linked,
        };
        let path = work.make("fs")?;
        let tree = open_directory(&path)?;
        materialise(
            &lower,
            &directories,
            tree.as_fd(),
            &store.options().ownership,
            names,
            stop,
        )
        .map_err(failed("copy layers to", &path))?;
        let before = match writable {
            true => Some(record(tree.as_fd(), stop).map_err(failed("look over", &path))?),
            false => None,
        };
        let (root, is_mount) = root(&tree, &path)?;
        let state = State::Copy { tree, before };
        let layers = layers.to_vec();
        Ok(Snapshot {
            root,
            is_mount,
            writable,
            state,
            lower,
            layers,
            work,
        })
    }
}

impl Snapshotter for Copied {
    fn strategy(&self) -> Strategy {
        Strategy::Copy
    }

    fn prepare(
        &self,
        lease: &Lease,
        layers: &[Content],
        stop: &Stop,
    ) -> Result<Snapshot, StoreError> {
        self.copy(lease, layers, true, stop)
    }

    fn view(&self, lease: &Lease, layers: &[Content], stop: &Stop) -> Result<Snapshot, StoreError> {
        self.copy(lease, layers, false, stop)
    }

    fn seal(&self, snapshot: Snapshot, options: SealOptions) -> Result<SealedLayer, StoreError> {
        let Snapshot {
            root,
            state,
            lower,
            work,
            ..
        } = snapshot;
        let State::Copy {
            tree,
            before: Some(before),
        } = state
        else {
            return Err(StoreError::WrongSnapshot {
                expected: "copy",
                found: state.name(),
            });
        };
        drop(root);
        let marks = self.lowers.store.options().overlay_xattrs;
        let options = SealOptions { marks, ..options };
        let path = work.path().join("fs");
        let changes =
            diff_against(tree.as_fd(), &lower, &before, &options).map_err(failed("seal", &path))?;
        reduce(tree.as_fd(), &changes.manifest, marks).map_err(failed("reduce", &path))?;
        let draft = work.into_draft()?;
        Ok(SealedLayer {
            manifest: changes.manifest,
            dropped: Vec::new(),
            draft,
        })
    }
}

/// Returns the tree as a mount of its own if we may have one, or else as a directory.
fn root(tree: &OwnedFd, path: &Path) -> Result<(OwnedFd, bool), StoreError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(tree, "", flags) {
        Ok(mount) => Ok((mount, true)),
        Err(_) => tree
            .try_clone()
            .map(|tree| (tree, false))
            .map_err(StoreError::io("open", path)),
    }
}

/// Turns a whole tree into the directory of the layer that `manifest` lists: what it does not list
/// goes, and its deletions become marks.
fn reduce(tree: BorrowedFd<'_>, manifest: &Manifest, marks: OverlayXattrs) -> Result<(), FsError> {
    let mut unlisted: Vec<TreePath> = Vec::new();
    walk::<FsError>(tree, |visit| {
        let listed = manifest.get(visit.path.as_bytes());
        if listed.is_some_and(|entry| entry.kind != Kind::Whiteout) {
            return Ok(Descend::Into);
        }
        unlisted.push(visit.path.clone());
        Ok(Descend::Past)
    })?;
    for path in &unlisted {
        let (dir, name) = place(tree, path)?;
        remove_tree(&dir, name)?;
    }
    mark(tree, manifest, marks)
}

/// Marks what `manifest` deletes and hides in the directory of its layer.
pub(super) fn mark(
    tree: BorrowedFd<'_>,
    manifest: &Manifest,
    marks: OverlayXattrs,
) -> Result<(), FsError> {
    for entry in manifest.entries() {
        match entry.kind {
            Kind::Whiteout => {
                let (dir, name) = place(tree, &entry.path)?;
                make_whiteout(&dir, name)?;
            }
            Kind::Directory { opaque: true, .. } => {
                let dir = handle::open_beneath(tree, entry.path.as_bytes(), READ_DIRECTORY)?;
                make_opaque(&dir, marks)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens the directory that holds `path` and returns the name in it.
fn place<'a>(tree: BorrowedFd<'_>, path: &'a TreePath) -> Result<(OwnedFd, &'a [u8]), FsError> {
    let bytes = path.as_bytes();
    let (above, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None => (&b""[..], bytes),
    };
    Ok((handle::open_beneath(tree, above, READ_DIRECTORY)?, name))
}

pub(super) fn failed<E>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StoreError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| StoreError::Tree {
        action,
        path: path.to_owned(),
        source: Box::new(source),
    }
}
