//! Writing exports: blobs first, then what names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, MANIFEST_LIMIT_BYTES, annotation};
use kiln_oci::layout::{self, Document, INDEX_FILE, blob_path, oci_layout, read_index};
use kiln_oci::media_type::OCI_MANIFEST;
use kiln_store::{BlobDigest, Lease, Store};
use kiln_tree::Stop;

use super::error::MountsError;
use super::format::{ARTIFACT, CONFIG, Config, ExportedTree, PACK, Pack, VERSION};
use super::place::{Contents, MountsPlace, Shelf, is_export, with_entry};
use crate::cache::{is_refusal, pause};
use crate::error::Error;
use crate::executor::Executor;
use crate::export::Destination;
use crate::export::output::{Output, write_whole};
use crate::export::{archive, directory};
use crate::push::Believes;
use crate::source::{blocking, stoppable};
use crate::transfer::{BlobState, TransferEvent, TransferObserver};

/// So often an export is added to what somebody else wrote meanwhile.
const TRIES: u32 = 30;
/// What an export is called in the index of a layout.
const NAME: &str = "kiln-mounts";

/// What this host adds to an export.
#[derive(Debug, Clone, Default)]
pub(super) struct Ours {
    mounts: Vec<ExportedTree>,
    trees: Vec<(Descriptor, Bytes)>,
    packs: Vec<Pack>,
}

/// What became of an export.
pub(super) struct Published {
    /// Bytes of blobs that were sent or written.
    pub(super) sent_bytes: u64,
    pub(super) digest: Sha256Digest,
    /// What the place had already of what was to be sent.
    pub(super) there: BTreeSet<Sha256Digest>,
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

    /// Its blobs by their digests, each once, with their lengths.
    pub(super) fn blobs(&self) -> BTreeMap<Sha256Digest, u64> {
        let trees = self.trees.iter().map(|(tree, _)| (tree.digest, tree.size));
        let packs = self.packs.iter().map(|pack| (pack.digest, pack.size));
        trees.chain(packs).collect()
    }

    /// What is written when a place that had some of it gets the rest.
    fn published(&self, digest: Sha256Digest, there: BTreeSet<Sha256Digest>) -> Published {
        let blobs = self.blobs();
        let new = blobs.iter().filter(|(blob, _)| !there.contains(blob));
        Published {
            sent_bytes: new.map(|(_, size)| size).sum(),
            digest,
            there,
        }
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
    /// Writes an export, whose packs the caller holds.
    pub(super) async fn publish_mounts(
        &self,
        place: &MountsPlace,
        shelf: Option<Shelf>,
        ours: &Ours,
        observer: &TransferObserver,
    ) -> Result<Published, Error> {
        match (place, shelf) {
            (MountsPlace::Registry(_), Some(shelf)) => {
                self.push_mounts(&shelf, ours, observer).await
            }
            (MountsPlace::Directory(path), Some(shelf)) => {
                let directory = path.clone();
                let lock = blocking(move || directory::lock(&directory)).await?;
                // Nobody else writes there until this ends.
                let before = shelf.contents_held().await?;
                let (store, path, ours) = (self.store().clone(), path.clone(), ours.clone());
                let observer = observer.clone();
                stoppable(move |stop| {
                    let _lock = lock;
                    write_directory(&store, &path, before, &ours, &observer, stop)
                })
                .await
            }
            (MountsPlace::Archive(path), _) => self.add_to_archive(place, path, ours).await,
            (MountsPlace::Stream, _) | (_, None) => {
                let (store, ours) = (self.store().clone(), ours.clone());
                let config = nothing().with(&ours.mounts);
                let digest = stoppable({
                    let ours = ours.clone();
                    move |stop| write_archive(&store, &Destination::Stdout, &config, &ours, stop)
                });
                Ok(ours.published(digest.await?, BTreeSet::new()))
            }
        }
    }

    /// Writes an archive with what there is in the one that has the name, beside it, and renames it.
    async fn add_to_archive(
        &self,
        place: &MountsPlace,
        path: &Path,
        ours: &Ours,
    ) -> Result<Published, Error> {
        let above = match path.parent() {
            Some(above) if above != Path::new("") => above.to_owned(),
            _ => PathBuf::from("."),
        };
        // The file itself is another one after each export.
        let lock = blocking(move || {
            let directory = File::open(&above).map_err(Error::io("open", &above))?;
            directory.lock().map_err(Error::io("lock", &above))?;
            Ok(directory)
        })
        .await?;
        let shelf = Shelf::to_add_to(self, place).await?;
        let before = match &shelf {
            Some(shelf) => shelf.contents_held().await?,
            None => None,
        };
        let before = before.map_or_else(nothing, |before| before.config);
        let config = before.with(&ours.mounts);
        let lease = self.store().lease();
        let whole = self.with_theirs(shelf.as_ref(), &config, ours, &lease);
        let (whole, brought) = whole.await?;
        let destination = Destination::File(path.to_owned());
        let store = self.store().clone();
        let written = stoppable(move |stop| {
            let _lock = lock;
            write_archive(&store, &destination, &config, &whole, stop)
        })
        .await;
        drop(lease);
        for pack in brought {
            self.store().delete_blob(&pack)?;
        }
        let had = |blob: &Sha256Digest, size| {
            let blob = Descriptor::new(PACK, *blob, size);
            shelf.as_ref().is_some_and(|shelf| shelf.has(&blob))
        };
        let blobs = ours.blobs().into_iter();
        let there = blobs.filter(|(blob, size)| had(blob, *size));
        Ok(ours.published(written?, there.map(|(blob, _)| blob).collect()))
    }

    /// Adds to what is ours all else that a config names; tells which packs were brought here for it.
    async fn with_theirs(
        &self,
        shelf: Option<&Shelf>,
        config: &Config,
        ours: &Ours,
        lease: &Lease,
    ) -> Result<(Ours, Vec<BlobDigest>), Error> {
        let gone = || MountsError::Contended {
            place: shelf.map_or_else(
                || "the archive".to_owned(),
                |shelf| shelf.shown().to_owned(),
            ),
            tries: 1,
        };
        let mut whole = ours.clone();
        let mut brought = Vec::new();
        for mount in &config.mounts {
            let tree = &mount.tree;
            if !whole
                .trees
                .iter()
                .any(|(known, _)| known.digest == tree.digest)
            {
                let shelf = shelf.ok_or_else(gone)?;
                let bytes = shelf.blob(tree, tree.size).await?;
                whole.trees.push((tree.clone(), bytes));
            }
            for pack in &mount.packs {
                if whole.packs.iter().any(|known| known.digest == pack.digest) {
                    continue;
                }
                let shelf = shelf.ok_or_else(gone)?;
                let silent = TransferObserver::silent();
                let bytes = shelf.pack(self, lease, &pack.descriptor(), &silent).await?;
                let (store, lease) = (self.store().clone(), lease.clone());
                let kept = blocking(move || {
                    use std::io::Write as _;
                    let mut writer = store.write_blob(None)?;
                    writer.write_all(&bytes).map_err(Error::unwritten(&store))?;
                    Ok(writer.finish(&lease)?)
                });
                brought.push(kept.await?);
                whole.packs.push(pack.clone());
            }
        }
        Ok((whole, brought))
    }

    /// Adds to what lies in a registry, which replaces whatever is there: so it lies under several names, as
    /// caches do, and what is taken away from one comes back from the others.
    async fn push_mounts(
        &self,
        shelf: &Shelf,
        ours: &Ours,
        observer: &TransferObserver,
    ) -> Result<Published, Error> {
        let reference = shelf
            .reference()
            .expect("BUG: a place in a registry has a name");
        let present = Arc::new(Mutex::new(BTreeSet::new()));
        let (found, told) = (Arc::clone(&present), observer.clone());
        let observer = TransferObserver::new(move |event| {
            if let TransferEvent::Blob {
                digest,
                state: BlobState::Present | BlobState::Mounted,
                ..
            } = &event
            {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.extend(digest.parse::<Sha256Digest>());
            }
            told.tell(event);
        });
        // All that takes long comes before the names.
        let alone = layout_of(&nothing().with(&ours.mounts), ours);
        self.send_blobs(&alone, reference, &observer).await?;
        let mut names = shelf.names();
        let mut void: Option<Vec<Sha256Digest>> = None;
        for attempt in 0..TRIES {
            let lying = look(&mut names).await?;
            let own = lying.last().is_some_and(Option::is_some);
            let void = void.get_or_insert_with(|| match own {
                true => Vec::new(),
                // What copies say from before somebody removed the name counts for nothing.
                false => lying.iter().flatten().map(|copy| copy.root).collect(),
            });
            let says = lying
                .iter()
                .flatten()
                .filter(|name| !void.contains(&name.root));
            let config = says.fold(nothing(), |config, name| config.with(&name.config.mounts));
            let export = layout_of(&config.with(&ours.mounts), ours);
            if !self.write_names(&mut names, &lying, &export).await? {
                pause(attempt).await;
                continue;
            }
            // Whoever looked before this was written may write after it: looked at once at once, and once a
            // little later.
            if all_cover(&look(&mut names).await?, ours) {
                pause(0).await;
                if all_cover(&look(&mut names).await?, ours) {
                    let there = present.lock().unwrap_or_else(PoisonError::into_inner);
                    return Ok(ours.published(export.root.digest, there.clone()));
                }
            }
            pause(attempt).await;
        }
        Err(MountsError::Contended {
            place: shelf.shown().to_owned(),
            tries: TRIES as usize,
        }
        .into())
    }

    /// Writes an export under all names; `false` if somebody else wrote to one after it was looked at.
    async fn write_names(
        &self,
        names: &mut Vec<Shelf>,
        lying: &[Option<Contents>],
        export: &layout::Export,
    ) -> Result<bool, Error> {
        let silent = TransferObserver::silent();
        for at in 0..names.len() {
            let version = names[at].version().await?;
            if version != lying[at].as_ref().map(|name| name.root) {
                return Ok(false);
            }
            if version == Some(export.root.digest) {
                continue;
            }
            let is_own = at + 1 == names.len();
            let name = names[at].reference().cloned();
            let mut sent = Vec::new();
            let sending = self.send(
                export,
                name.as_slice(),
                Believes::Manifests,
                &silent,
                &mut sent,
            );
            match sending.await {
                Ok(()) => {}
                // Goes on without copies, where none may be made.
                Err(error) if !is_own && is_refusal(&error) => {
                    names.drain(..names.len() - 1);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Reads all names; one that something else has is left alone.
async fn look(names: &mut Vec<Shelf>) -> Result<Vec<Option<Contents>>, Error> {
    let mut lying = Vec::with_capacity(names.len());
    let mut kept = Vec::with_capacity(names.len());
    let own = names.len() - 1;
    for (at, name) in names.iter().enumerate() {
        let is_own = at == own;
        match name.contents_held().await {
            Ok(contents) => {
                lying.push(contents);
                kept.push(name.clone());
            }
            Err(error) if is_own || !is_left_alone(&error) => return Err(error),
            Err(_) => {}
        }
    }
    *names = kept;
    Ok(lying)
}

fn is_left_alone(error: &Error) -> bool {
    matches!(error, Error::Mounts(_)) || is_refusal(error)
}

fn all_cover(lying: &[Option<Contents>], ours: &Ours) -> bool {
    let covers = |name: &Option<Contents>| {
        let config = name.as_ref().map(|name| &name.config);
        config.is_some_and(|config| config.covers(&ours.mounts))
    };
    lying.iter().all(covers)
}

pub(super) fn read_pack(store: &Store, digest: &Sha256Digest) -> Result<Bytes, Error> {
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
    config: &Config,
    ours: &Ours,
    stop: &Stop,
) -> Result<Sha256Digest, Error> {
    let export = layout_of(config, ours);
    let digest = export.root.digest;
    let mut output = Output::create(destination)?;
    archive::write(store, &oci_layout(&[export]), 0, &mut output, stop)?;
    output.finish()?;
    Ok(digest)
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

/// Adds to a layout: blobs, then the index; then what nothing names any more goes.
fn write_directory(
    store: &Store,
    directory: &Path,
    before: Option<Contents>,
    ours: &Ours,
    observer: &TransferObserver,
    stop: &Stop,
) -> Result<Published, Error> {
    let config = before
        .as_ref()
        .map_or_else(nothing, |contents| contents.config.clone())
        .with(&ours.mounts);
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
    directory::begin(directory)?;
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
    let is_there = |path: &Path, size| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size)
    };
    let blobs = ours.blobs().into_iter();
    let there = blobs.filter(|(blob, size)| is_there(&directory.join(blob_path(blob)), *size));
    let there: BTreeSet<Sha256Digest> = there.map(|(blob, _)| blob).collect();
    for file in oci_layout(&[export]) {
        let path = directory.join(&file.path);
        match file.content {
            layout::Content::Bytes(_) if file.path == INDEX_FILE => {}
            layout::Content::Bytes(bytes) => write_whole(&path, &bytes)?,
            layout::Content::Blob { digest, size } => {
                if stop.is_set() {
                    return Err(Error::Cancelled);
                }
                let blob = Descriptor::new(PACK, digest, size);
                if is_there(&path, size) {
                    observer.blob(&blob, BlobState::Present);
                    continue;
                }
                observer.blob(&blob, BlobState::Moving(0));
                write_whole(&path, &read_pack(store, &digest)?)?;
                observer.blob(&blob, BlobState::Moved);
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
    Ok(ours.published(digest, there))
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
