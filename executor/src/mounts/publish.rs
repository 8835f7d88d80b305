//! Writing exports: blobs first, then what names them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, MANIFEST_LIMIT_BYTES, annotation};
use kiln_oci::layout::{self, Document, INDEX_FILE, blob_path, oci_layout, read_index};
use kiln_oci::media_type::OCI_MANIFEST;
use kiln_oci::reference::Reference;
use kiln_store::{BlobDigest, Store};
use kiln_tree::Stop;

use super::error::MountsError;
use super::format::{ARTIFACT, CONFIG, Config, ExportedTree, Pack, VERSION};
use super::place::{Contents, MountsPlace, Shelf, is_export, with_entry};
use crate::error::Error;
use crate::executor::Executor;
use crate::export::Destination;
use crate::export::archive;
use crate::export::output::{Output, write_whole};
use crate::source::{blocking, stoppable};
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// So often an export is added to what somebody else wrote meanwhile.
const TRIES: usize = 10;
/// What an export is called in the index of a layout.
const NAME: &str = "kiln-mounts";

/// What this host adds to an export.
#[derive(Debug, Clone, Default)]
pub(super) struct Ours {
    mounts: Vec<ExportedTree>,
    trees: Vec<(Descriptor, Bytes)>,
    packs: Vec<Pack>,
}

/// The documents of an export.
pub(super) struct Documents {
    pub(super) config: Document,
    pub(super) manifest: Document,
}

impl Ours {
    pub(super) fn add(&mut self, mount: ExportedTree, tree: Bytes, packs: Vec<Pack>) {
        self.trees.push((mount.tree.clone(), tree));
        self.packs.extend(packs);
        self.mounts.push(mount);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// The packs that are blobs of the store.
    pub(super) fn packs(&self) -> impl Iterator<Item = &Pack> {
        self.packs.iter()
    }

    fn bytes(&self) -> u64 {
        let trees = self.trees.iter().map(|(tree, _)| tree.size);
        trees.chain(self.packs.iter().map(|pack| pack.size)).sum()
    }
}

pub(super) fn documents(config: &Config) -> Documents {
    let bytes = Bytes::from(config.encode());
    let descriptor = Descriptor::new(CONFIG, Sha256Digest::of(&bytes), bytes.len() as u64);
    let manifest = Bytes::from(config.manifest(descriptor.clone()).to_bytes());
    let mut root = Descriptor::new(
        OCI_MANIFEST,
        Sha256Digest::of(&manifest),
        manifest.len() as u64,
    );
    root.artifact_type = ARTIFACT.to_owned();
    let name = (annotation::REF_NAME.to_owned(), NAME.to_owned());
    root.annotations.insert(name.0, name.1);
    Documents {
        config: Document { descriptor, bytes },
        manifest: Document {
            descriptor: root,
            bytes: manifest,
        },
    }
}

fn nothing() -> Config {
    Config {
        version: VERSION,
        mounts: Vec::new(),
    }
}

impl Executor {
    /// Writes an export, whose packs the caller holds; returns how many bytes of blobs were sent, and
    /// its digest.
    pub(super) async fn publish_mounts(
        &self,
        place: &MountsPlace,
        shelf: Option<Shelf>,
        ours: &Ours,
    ) -> Result<(u64, Sha256Digest), Error> {
        match (place, shelf) {
            (MountsPlace::Registry(reference), Some(shelf)) => {
                let reference = Reference::parse(reference)?;
                self.push_mounts(&reference, &shelf, ours).await
            }
            (MountsPlace::Directory(path), Some(shelf)) => {
                let directory = path.clone();
                let lock = blocking(move || lock(&directory)).await?;
                // Nobody else writes there until this ends.
                let before = shelf.contents_held().await?;
                let (store, path, ours) = (self.store().clone(), path.clone(), ours.clone());
                stoppable(move |stop| {
                    let _lock = lock;
                    write_directory(&store, &path, before, &ours, stop)
                })
                .await
            }
            (MountsPlace::Archive(_) | MountsPlace::Stream, _) | (_, None) => {
                let destination = match place {
                    MountsPlace::Archive(path) => Destination::File(path.clone()),
                    _ => Destination::Stdout,
                };
                let (store, ours) = (self.store().clone(), ours.clone());
                stoppable(move |stop| write_archive(&store, &destination, &ours, stop)).await
            }
        }
    }

    async fn push_mounts(
        &self,
        reference: &Reference,
        shelf: &Shelf,
        ours: &Ours,
    ) -> Result<(u64, Sha256Digest), Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let observer = TransferObserver::new(move |event| {
            if let TransferEvent::Blob {
                size_bytes,
                state: BlobState::Moved,
                ..
            } = event
            {
                counter.fetch_add(size_bytes, Ordering::Relaxed);
            }
        });
        let mut is_sent = false;
        // A registry has no way to say `if it is still this one`: what others wrote is looked at right
        // before the name is given, and right after.
        for _ in 0..TRIES {
            let there = shelf.contents().await?;
            let root = there.as_ref().map(|there| there.root);
            let config = there.map_or_else(nothing, |there| there.config);
            let export = layout_of(&config.with(&ours.mounts), ours);
            if !is_sent {
                // All that takes long comes before the name.
                let untagged = reference.at(export.root.digest);
                self.send(&export, &[untagged], &observer).await?;
                is_sent = true;
                let now = shelf.contents().await?;
                if now.map(|now| now.root) != root {
                    continue;
                }
            }
            let named = std::slice::from_ref(reference);
            self.send(&export, named, &observer).await?;
            let now = shelf.contents().await?;
            if now.is_some_and(|now| now.config.covers(&ours.mounts)) {
                return Ok((sent.load(Ordering::Relaxed), export.root.digest));
            }
        }
        Err(MountsError::Contended {
            place: shelf.shown().to_owned(),
            tries: TRIES,
        }
        .into())
    }
}

fn read_pack(store: &Store, digest: &Sha256Digest) -> Result<Bytes, Error> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut blob = store.open_blob(&BlobDigest(*digest.as_bytes()))?;
    blob.read_to_end(&mut bytes)
        .map_err(Error::io("read", "a pack of the store"))?;
    Ok(bytes.into())
}

fn write_archive(
    store: &Store,
    destination: &Destination,
    ours: &Ours,
    stop: &Stop,
) -> Result<(u64, Sha256Digest), Error> {
    let config = nothing().with(&ours.mounts);
    let export = layout_of(&config, ours);
    let digest = export.root.digest;
    let mut output = Output::create(destination)?;
    archive::write(store, &oci_layout(&[export]), 0, &mut output, stop)?;
    output.finish()?;
    Ok((ours.bytes(), digest))
}

fn layout_of(config: &Config, ours: &Ours) -> layout::Export {
    let documents = documents(config);
    let trees = ours.trees.iter().map(|(tree, bytes)| Document {
        descriptor: tree.clone(),
        bytes: bytes.clone(),
    });
    layout::Export {
        root: documents.manifest.descriptor.clone(),
        names: Vec::new(),
        documents: trees
            .chain([documents.config, documents.manifest])
            .collect(),
        blobs: ours.packs.iter().map(Pack::descriptor).collect(),
    }
}

/// Keeps other exporters out of a directory, which is made if it is not there.
fn lock(directory: &Path) -> Result<File, Error> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    file.lock().map_err(Error::io("lock", directory))?;
    Ok(file)
}

/// Adds to a layout: blobs, then the index; then what nothing names any more goes.
fn write_directory(
    store: &Store,
    directory: &Path,
    before: Option<Contents>,
    ours: &Ours,
    stop: &Stop,
) -> Result<(u64, Sha256Digest), Error> {
    let there = before
        .as_ref()
        .map_or_else(nothing, |contents| contents.config.clone());
    let config = there.with(&ours.mounts);
    let export = layout_of(&config, ours);
    // What was there when the pictures were taken may have gone with somebody else's export.
    let has = |pack: &Pack| {
        let path = directory.join(blob_path(&pack.digest));
        ours.packs.contains(pack) || path.metadata().is_ok_and(|found| found.len() == pack.size)
    };
    if !ours.mounts.iter().flat_map(|mount| &mount.packs).all(has) {
        return Err(MountsError::Contended {
            place: directory.display().to_string(),
            tries: 1,
        }
        .into());
    }
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
    let index_path = directory.join(INDEX_FILE);
    let index = match fs::read(&index_path) {
        Ok(bytes) if bytes.len() as u64 <= MANIFEST_LIMIT_BYTES => {
            let read = read_index(&bytes).map_err(|source| Error::Layout {
                path: directory.to_owned(),
                source,
            });
            Some(read?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Ok(_) => None,
        Err(error) => return Err(Error::io("read", index_path)(error)),
    };
    let digest = export.root.digest;
    let root = export.root.clone();
    let mut written = 0;
    for file in oci_layout(&[export]) {
        let path = directory.join(&file.path);
        match file.content {
            layout::Content::Bytes(_) if file.path == INDEX_FILE => {}
            layout::Content::Bytes(bytes) => write_whole(&path, &bytes)?,
            layout::Content::Blob { digest, size } => {
                if stop.is_set() {
                    return Err(Error::Cancelled);
                }
                let there = fs::metadata(&path);
                if there.is_ok_and(|there| there.is_file() && there.len() == size) {
                    continue;
                }
                write_whole(&path, &read_pack(store, &digest)?)?;
                written += size;
            }
        }
    }
    let others = index
        .as_ref()
        .is_some_and(|index| index.manifests.iter().any(|entry| !is_export(entry)));
    let index = with_entry(index, root);
    write_whole(&index_path, &index.to_bytes())?;
    if let (Some(before), false) = (before, others) {
        remove_unnamed(directory, &before, &config)?;
    }
    Ok((
        written + ours.trees.iter().map(|(tree, _)| tree.size).sum::<u64>(),
        digest,
    ))
}

/// Removes what the older export named and the new one does not.
fn remove_unnamed(directory: &Path, before: &Contents, now: &Config) -> Result<(), Error> {
    let documents = documents(now);
    let manifest = now.manifest(documents.config.descriptor.clone());
    let mut named: Vec<Sha256Digest> = manifest.layers.iter().map(|blob| blob.digest).collect();
    named.push(documents.config.descriptor.digest);
    named.push(documents.manifest.descriptor.digest);
    let old = before.manifest.layers.iter().map(|blob| blob.digest);
    let old = old.chain([before.root, before.manifest.config.digest]);
    for digest in old.filter(|digest| !named.contains(digest)) {
        let path = directory.join(blob_path(&digest));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
