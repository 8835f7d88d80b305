//! A cache as an OCI image layout in a directory, which may hold other things beside it.
//!
//! Who writes holds a lock from reading what is there to replacing the index, so that nothing that
//! another build added is lost. Blobs that no entry of the index names any more are removed: a
//! reader that wanted one finds it gone, and runs the step.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, MANIFEST_LIMIT_BYTES, Manifest, annotation};
use kiln_oci::layout::{INDEX_FILE, LAYOUT_FILE, blob_path, check_version, read_index};
use kiln_oci::media_type::{Flavor, OCI_MANIFEST};

use crate::error::Error;
use crate::export::{Destination, Output, directory, write_whole};

/// The file whose lock BuildKit holds when it writes; the directory's keeps kiln's own writers apart.
const LOCK_FILE: &str = "index.json.lock";

/// Held by whoever changes a layout.
#[derive(Debug)]
pub(super) struct LayoutLock(#[expect(dead_code, reason = "held until it is dropped")] [File; 2]);

/// Errors where something else lies; another's layout need not have the file that tells one.
pub(super) fn check(directory: &Path) -> Result<(), Error> {
    if directory.join(INDEX_FILE).exists() {
        return Ok(());
    }
    directory::check(directory)
}

/// Makes the directory if need be, and waits until nobody else writes there.
pub(super) fn lock(directory: &Path) -> Result<LayoutLock, Error> {
    check(directory)?;
    let others = directory::lock(directory)?;
    directory::begin(directory)?;
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
    Ok(LayoutLock([others, file]))
}

/// The index of the layout; an empty one if there is none yet, or if a machine that lost its power left
/// nothing of it.
pub(super) fn index(directory: &Path) -> Result<Index, Error> {
    let unreadable = |source| Error::Layout {
        path: directory.to_owned(),
        source,
    };
    let path = directory.join(INDEX_FILE);
    let Some(bytes) = read(&path, MANIFEST_LIMIT_BYTES)? else {
        return Ok(Index::new(Flavor::Oci, Vec::new()));
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Index::new(Flavor::Oci, Vec::new()));
    }
    if let Some(version) = read(&directory.join(LAYOUT_FILE), MANIFEST_LIMIT_BYTES)? {
        check_version(&version).map_err(unreadable)?;
    }
    read_index(&bytes).map_err(unreadable)
}

/// Finds the entry of a manifest by its digest, or by its tag.
pub(super) fn find(
    directory: &Path,
    tag: &str,
    digest: Option<&str>,
) -> Result<Option<Descriptor>, Error> {
    let entries = index(directory)?.manifests;
    Ok(entries.into_iter().find(|entry| match digest {
        Some(digest) => entry.digest.to_string() == digest,
        None => has_tag(entry, tag),
    }))
}

/// Reads what is a manifest.
pub(super) fn manifest(directory: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
    Manifest::from_slice(bytes).map_err(|source| Error::Document {
        what: "manifest",
        reference: directory.display().to_string(),
        source: Box::new(source),
    })
}

/// The tags of the caches that are there, in words; empty if there are none.
pub(super) fn tags(directory: &Path) -> String {
    let index = index(directory).unwrap_or_else(|_| Index::new(Flavor::Oci, Vec::new()));
    let entries = index.manifests.iter();
    let tags = entries.filter_map(|entry| entry.annotations.get(annotation::REF_NAME));
    let tags: Vec<String> = tags.map(|tag| format!("`{tag}`")).collect();
    match tags.is_empty() {
        true => String::new(),
        false => format!("; its tags are {}", tags.join(", ")),
    }
}

fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    entry
        .annotations
        .get(annotation::REF_NAME)
        .map(String::as_str)
        == Some(tag)
}

/// Reads a small blob; nothing if it is not there, or something else is in its place.
pub(super) fn small(
    directory: &Path,
    blob: &Descriptor,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    if blob.size > limit {
        let path = directory.join(blob_path(&blob.digest));
        return Err(Error::io("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    if !has(directory, &blob.digest, blob.size) {
        return Ok(None);
    }
    let bytes = read(&directory.join(blob_path(&blob.digest)), blob.size)?;
    Ok(bytes.filter(|bytes| Sha256Digest::of(bytes) == blob.digest))
}

/// Reads a file as far as `limit`; nothing if it is not there.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::io("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(bytes))
}

/// Whether the layout has a blob, as far as its length tells.
pub(super) fn has(directory: &Path, digest: &Sha256Digest, size: u64) -> bool {
    let path = directory.join(blob_path(digest));
    fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == size)
}

/// Copies a blob from an open file.
pub(super) fn put_file(
    directory: &Path,
    digest: &Sha256Digest,
    size: u64,
    blob: File,
    stop: &kiln_tree::Stop,
) -> Result<(), Error> {
    let path = directory.join(blob_path(digest));
    let mut output = Output::create(&Destination::File(path.clone()))?;
    kiln_tree::copy::copy_bytes_unseen(blob, output.file(), size, stop)
        .map_err(|error| Error::io("write", path)(error.into_io()))?;
    output.finish()
}

/// Lets `tag` mean a manifest with this document, and removes what nothing names any more.
pub(super) fn put(
    directory: &Path,
    tag: &str,
    manifest: &Manifest,
    document: &[u8],
    _lock: &LayoutLock,
) -> Result<Sha256Digest, Error> {
    let bytes = manifest.to_bytes();
    let mut entry = Descriptor::of(OCI_MANIFEST, &bytes);
    entry.media_type.clone_from(&manifest.media_type);
    entry
        .annotations
        .insert(annotation::REF_NAME.to_owned(), tag.to_owned());
    let before = index(directory)?;
    let mut after = before.clone();
    after.manifests.retain(|old| !has_tag(old, tag));
    after.manifests.push(entry.clone());
    write_whole(
        &directory.join(blob_path(&manifest.config.digest)),
        document,
    )?;
    write_whole(&directory.join(blob_path(&entry.digest)), &bytes)?;
    write_whole(&directory.join(INDEX_FILE), &after.to_bytes())?;
    // What an entry leads to that cannot be read is unknown, so that nothing is removed then.
    if let (Some(old), Some(new)) = (reach(directory, &before), reach(directory, &after)) {
        for digest in old.difference(&new) {
            let _ = fs::remove_file(directory.join(blob_path(digest)));
        }
    }
    Ok(entry.digest)
}

/// All blobs that an index leads to; nothing if it has an entry that is no manifest or cannot be read.
fn reach(directory: &Path, index: &Index) -> Option<BTreeSet<Sha256Digest>> {
    let mut all = BTreeSet::new();
    for entry in &index.manifests {
        let bytes = small(directory, entry, MANIFEST_LIMIT_BYTES).ok()??;
        let manifest = Manifest::from_slice(&bytes).ok()?;
        all.insert(entry.digest);
        all.insert(manifest.config.digest);
        all.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    Some(all)
}
