//! Merge, diff and clones: layers made of other layers' files, which are linked and not copied.

use std::io::{BufWriter, Write as _};
use std::os::fd::AsFd;

use kiln_store::{Content, DiffId, Lease, Store};
use kiln_tree::tar::WriteError;
use kiln_tree::{Entry, FsError, Kind, Manifest, TreePath, handle, marks, view};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::Error;
use crate::export::LayerArchive;
use crate::file::{ChangeError, FileError, open_layers, set};
use crate::unpack::{Of, unpack};

/// How much of an archive is passed on at once.
const PIPE_BYTES: usize = 64 << 10;

/// Lays trees over each other, lowest first.
///
/// Layers say themselves which directories they only pass through, so the list is the merge.
pub(crate) fn merge(inputs: &[Vec<Content>]) -> Vec<Content> {
    let mut merged: Vec<Content> = Vec::new();
    for layers in inputs {
        // A tree over itself, or over what it was made from, adds nothing below.
        let shared = if layers.starts_with(&merged) {
            merged.len()
        } else {
            0
        };
        merged.extend_from_slice(&layers[shared..]);
    }
    merged
}

/// Returns what `upper` has beyond `lower`.
pub(crate) fn diff(
    store: &Store,
    lease: &Lease,
    lower: &[Content],
    upper: &[Content],
) -> Result<Vec<Content>, Error> {
    if let Some(beyond) = upper.strip_prefix(lower) {
        return Ok(beyond.to_vec());
    }
    let below = open_layers(store, lower)?;
    let above = open_layers(store, upper)?;
    let changes = view::diff(&below.view, &above.view);
    let origin = |index: usize, path: &TreePath| {
        let layer = changes.origins[index]?;
        let found = above.view.get(path.as_bytes())?;
        Some((above.directories[layer].as_fd(), found.inode.path.clone()))
    };
    let draft = store.begin_layer()?;
    link_entries(store, draft.fs(), &changes.manifest, origin)?;
    let content = Content::Layer(changes.manifest.id());
    store.commit_layer(lease, draft, &changes.manifest, content)?;
    Ok(vec![content])
}

/// Keeps the highest layer of a stack under the diff id that an image made of it lists as well.
///
/// Files are linked if the archive with that diff id has their times. Else (the image was made with
/// SOURCE_DATE_EPOCH) what the archive holds is unpacked, so that it can be made again.
pub(crate) fn clone_layer(
    store: &Store,
    lease: &Lease,
    stack: &[Content],
    to: DiffId,
) -> Result<(), Error> {
    let archive = LayerArchive::with_diff_id(store, stack, &to)?;
    if !archive.keeps_times() {
        return unpack_again(store, lease, &archive, to);
    }
    let Some(from) = stack.last() else {
        unreachable!("BUG: no layer is to be kept once more");
    };
    let manifest = archive.manifest();
    let directory = store.open_layer(from)?;
    let draft = store.begin_layer()?;
    let origin = |_: usize, path: &TreePath| Some((directory.as_fd(), path.clone()));
    link_entries(store, draft.fs(), manifest, origin)?;
    store.commit_layer(lease, draft, manifest, Content::DiffId(to))?;
    Ok(())
}

/// Writes a layer's archive and unpacks it at the same time.
fn unpack_again(
    store: &Store,
    lease: &Lease,
    archive: &LayerArchive,
    to: DiffId,
) -> Result<(), Error> {
    let of = Of {
        blob: to.to_string(),
        reference: "an image of this store".to_owned(),
    };
    let (reader, writer) = std::io::pipe().map_err(Error::io("make", "a pipe"))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut writer = BufWriter::with_capacity(PIPE_BYTES, writer);
            archive.write(store, &mut writer)?;
            writer.flush().map_err(Error::io("write to", "a pipe"))
        });
        let unpacked = unpack(store, lease, reader, Some(to), &of);
        let written = match writing.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // A reader that gives up breaks the pipe, and knows why; an archive that ends early does not.
        match (written, unpacked) {
            (Err(Error::WriteLayer(WriteError::Write(_)) | Error::Io { .. }), unpacked) => {
                unpacked.map(drop)
            }
            (Err(error), _) => Err(error),
            (Ok(()), unpacked) => unpacked.map(drop),
        }
    })
}

/// Fills a directory with the entries of a manifest; `origin` tells where each lies.
fn link_entries<'a>(
    store: &Store,
    root: std::os::fd::BorrowedFd<'_>,
    manifest: &Manifest,
    origin: impl Fn(usize, &TreePath) -> Option<(std::os::fd::BorrowedFd<'a>, TreePath)>,
) -> Result<(), Error> {
    let refused = |attempt, path: &TreePath, error: rustix::io::Errno| {
        FileError::from(ChangeError::from(FsError::new(
            attempt,
            path.as_bytes(),
            error,
        )))
    };
    let parent_of = |root, path: &TreePath| {
        let parent = path.parent().unwrap_or(TreePath::ROOT);
        handle::open_beneath(root, parent.as_bytes(), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|error| FileError::from(ChangeError::from(error)))
    };
    let options = store.options();
    let mut directories: Vec<&Entry> = Vec::new();
    for (index, entry) in manifest.entries().iter().enumerate() {
        let path = &entry.path;
        if let Kind::Directory { opaque, .. } = entry.kind {
            directories.push(entry);
            if path.is_root() {
                continue;
            }
            let parent = parent_of(root, path)?;
            rustix::fs::mkdirat(&parent, path.name(), Mode::from_raw_mode(0o700))
                .map_err(|error| refused("make directory", path, error))?;
            if opaque {
                let made = handle::open_directory(&parent, path.name())
                    .and_then(|made| marks::make_opaque(made, options.overlay_xattrs));
                made.map_err(|error| FileError::from(ChangeError::from(error)))?;
            }
            continue;
        }
        let parent = parent_of(root, path)?;
        match origin(index, path) {
            Some((layer, at)) => {
                let from = parent_of(layer, &at)?;
                rustix::fs::linkat(&from, at.name(), &parent, path.name(), AtFlags::empty())
                    .map_err(|error| refused("link", path, error))?;
            }
            None => marks::make_whiteout(&parent, path.name())
                .map_err(|error| FileError::from(ChangeError::from(error)))?,
        }
    }
    for entry in directories.into_iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let made = handle::open_beneath(root, entry.path.as_bytes(), flags)
            .map_err(|error| FileError::from(ChangeError::from(error)))?;
        set(&options.ownership, &made, &entry.path, &entry.meta, true).map_err(FileError::from)?;
    }
    Ok(())
}
