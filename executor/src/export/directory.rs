//! An OCI image layout in a directory, which may hold other images already.
//!
//! Blobs come first and the index last, each file whole or not at all, so that whoever looks sees
//! the layout as it was or as it will be. Before them comes the file that tells a layout, so that one
//! that was left unfinished can be gone on with.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use kiln_oci::document::{Descriptor, Index, annotation};
use kiln_oci::layout::{
    Content, Export, INDEX_FILE, LAYOUT, LAYOUT_FILE, check_version, oci_layout, read_index,
};
use kiln_store::Store;
use kiln_tree::Stop;

use super::Destination;
use super::image::blob_digest;
use super::output::{Output, write_whole};
use crate::error::Error;

/// Keeps other writers out of a directory, which is made if it is not there.
pub(crate) fn lock(directory: &Path) -> Result<File, Error> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    file.lock().map_err(Error::io("lock", directory))?;
    Ok(file)
}

/// Writes the file that tells a layout, which is there before anything else is.
pub(crate) fn begin(directory: &Path) -> Result<(), Error> {
    let path = directory.join(LAYOUT_FILE);
    match path.exists() {
        true => Ok(()),
        false => write_whole(&path, LAYOUT),
    }
}

/// Errors unless an image can be written there: an empty directory, a layout, or nothing yet.
pub(crate) fn check(directory: &Path) -> Result<(), Error> {
    read(directory).map(drop)
}

/// Returns the index of the layout that is there; nothing if there is none yet.
fn read(directory: &Path) -> Result<Option<Index>, Error> {
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", directory)(error)),
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    let refused = |source| Error::Layout {
        path: directory.to_owned(),
        source,
    };
    let Some(version) = small(&directory.join(LAYOUT_FILE))? else {
        return Err(Error::NotALayout {
            path: directory.to_owned(),
        });
    };
    check_version(&version).map_err(refused)?;
    let index = small(&directory.join(INDEX_FILE))?;
    index
        .map(|index| read_index(&index).map_err(refused))
        .transpose()
}

/// Reads a file as far as a document may go; nothing if it is not there.
fn small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    // One byte more is refused as too large.
    let limit = kiln_oci::document::MANIFEST_LIMIT_BYTES + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// Adds an image, taking its names from whichever image had them.
pub(super) fn write(
    store: &Store,
    directory: &Path,
    image: &Export,
    stop: &Stop,
) -> Result<(), Error> {
    let _lock = lock(directory)?;
    let before = read(directory)?;
    begin(directory)?;
    let mut index = None;
    for file in oci_layout(std::slice::from_ref(image)) {
        let path = directory.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        match file.content {
            Content::Bytes(bytes) if file.path == INDEX_FILE => index = Some(bytes),
            Content::Bytes(bytes) => write_whole(&path, &bytes)?,
            Content::Blob { digest, size } => copy_blob(store, &digest, size, &path, stop)?,
        }
    }
    let index = index.expect("BUG: a layout has no index");
    let unreadable = |source| Error::Layout {
        path: directory.to_owned(),
        source,
    };
    let new = read_index(&index).map_err(unreadable)?;
    let bytes = match before {
        Some(before) => merge(before, new).to_bytes().into(),
        None => index,
    };
    write_whole(&directory.join(INDEX_FILE), &bytes)
}

fn copy_blob(
    store: &Store,
    digest: &kiln_oci::digest::Sha256Digest,
    size: u64,
    path: &Path,
    stop: &Stop,
) -> Result<(), Error> {
    // A layout's blobs are named by what they hold, and files appear whole.
    if fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == size) {
        return Ok(());
    }
    let blob = store.open_blob(&blob_digest(digest))?;
    let mut output = Output::create(&Destination::File(path.to_owned()))?;
    kiln_tree::copy::copy_bytes_unseen(blob, output.file(), size, stop)
        .map_err(|error| Error::io("write", path)(error.into_io()))?;
    output.finish()
}

/// Lists new entries after the old ones that keep their names.
fn merge(mut before: Index, new: Index) -> Index {
    before
        .manifests
        .retain(|old| !new.manifests.iter().any(|new| replaces(new, old)));
    before.manifests.extend(new.manifests);
    before
}

fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    let full = |entry: &Descriptor| entry.annotations.get(annotation::CONTAINERD_NAME).cloned();
    let tag = |entry: &Descriptor| entry.annotations.get(annotation::REF_NAME).cloned();
    match (full(old), tag(old)) {
        (Some(name), _) => Some(name) == full(new),
        // Written by a tool that knows tags alone.
        (None, Some(tag_of_old)) => Some(tag_of_old) == tag(new),
        // An image that nobody named and that is there twice, or has a name now.
        (None, None) => old.digest == new.digest,
    }
}
