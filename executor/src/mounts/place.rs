//! Where exports of cache mounts are: a registry, a directory, an archive.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, MANIFEST_LIMIT_BYTES, Manifest, Root};
use kiln_oci::layout::{INDEX_FILE, LAYOUT_FILE, blob_path, check_version, read_index};
use kiln_oci::reference::Reference;
use kiln_oci::registry::Client;
use kiln_store::{BlobDigest, Lease};

use super::error::MountsError;
use super::format::{ARTIFACT, CONFIG, CONFIG_LIMIT_BYTES, Config, PACK_LIMIT_BYTES, VERSION};
use super::publish::read_pack;
use crate::archive;
use crate::cache::{ANY_CONFIG_TYPE, copies_of};
use crate::error::Error;
use crate::executor::Executor;
use crate::load::{inside, open_regular};
use crate::source::{blocking, bring_blob};
use crate::transfer::{BlobState, TransferObserver};

/// Questions for blobs that a registry is asked at once.
const ASKED_AT_ONCE: usize = 16;
/// More files than this are not an export.
const MOST_FILES: usize = 1 << 20;

/// Where an export of cache mounts is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountsPlace {
    /// A name in a registry.
    Registry(String),
    /// A directory, which is an OCI image layout.
    Directory(PathBuf),
    /// A tar of such a layout.
    Archive(PathBuf),
    /// The same on standard input or output.
    Stream,
}

impl MountsPlace {
    /// Reads a place as people write it: `-`, a file that ends in `.tar`, a directory that begins with
    /// `/` or `.`, and else a reference, with or without `docker://`.
    pub fn parse(text: &str) -> Result<MountsPlace, Error> {
        let refused = |reason| MountsError::Place {
            text: text.to_owned(),
            reason,
        };
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(MountsPlace::Registry(named(reference)?));
        }
        if text == "-" {
            return Ok(MountsPlace::Stream);
        }
        let is_path = text.starts_with('/')
            || matches!(text, "." | "..")
            || text.starts_with("./")
            || text.starts_with("../");
        if text.ends_with(".tar") {
            return Ok(MountsPlace::Archive(text.into()));
        }
        if [".tar.zst", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"]
            .iter()
            .any(|end| text.ends_with(end))
        {
            let reason = "what is in it is compressed already, so call it .tar";
            return Err(refused(reason).into());
        }
        match is_path {
            true => Ok(MountsPlace::Directory(text.into())),
            false => Ok(MountsPlace::Registry(named(text)?)),
        }
    }
}

fn named(text: &str) -> Result<String, Error> {
    let reference = Reference::parse(text)?;
    match reference.digest() {
        Some(_) => Err(Error::NameWithDigest {
            name: text.to_owned(),
        }),
        None => Ok(reference.to_string()),
    }
}

impl fmt::Display for MountsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountsPlace::Registry(reference) => match Reference::parse(reference) {
                Ok(reference) => f.write_str(&reference.familiar()),
                Err(_) => f.write_str(reference),
            },
            MountsPlace::Directory(path) | MountsPlace::Archive(path) => path.display().fmt(f),
            MountsPlace::Stream => f.write_str("-"),
        }
    }
}

/// A place that is read.
#[derive(Clone)]
pub(super) struct Shelf {
    shown: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Registry {
        client: Client,
        reference: Reference,
    },
    Directory(PathBuf),
    Archive(Arc<Tar>),
}

/// An archive with where its files are.
struct Tar {
    file: File,
    path: PathBuf,
    files: HashMap<String, (u64, u64)>,
}

/// What an export holds.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) root: Sha256Digest,
    pub(super) config: Config,
    pub(super) manifest: Manifest,
}

impl Shelf {
    /// Opens a place; an archive that is not there is an error, all else shows when it is read.
    pub(super) async fn open(executor: &Executor, place: &MountsPlace) -> Result<Shelf, Error> {
        let shown = place.to_string();
        let kind = match place {
            MountsPlace::Registry(reference) => {
                if executor.options().offline {
                    return Err(Error::Offline { reference: shown });
                }
                Kind::Registry {
                    client: executor.registry()?.clone(),
                    reference: Reference::parse(reference)?,
                }
            }
            MountsPlace::Directory(path) => Kind::Directory(path.clone()),
            MountsPlace::Archive(path) => {
                let (executor, path) = (executor.clone(), path.clone());
                let tar = blocking(move || {
                    let file = File::open(&path).map_err(Error::io("open", &path))?;
                    Tar::open(&executor, file, path)
                });
                Kind::Archive(Arc::new(tar.await?))
            }
            MountsPlace::Stream => {
                let executor = executor.clone();
                let tar = blocking(move || {
                    let input = rustix::io::dup(rustix::stdio::stdin())
                        .map_err(|error| Error::io("open", "standard input")(error.into()))?;
                    Tar::open(&executor, input.into(), "standard input".into())
                });
                Kind::Archive(Arc::new(tar.await?))
            }
        };
        Ok(Shelf { shown, kind })
    }

    /// Opens a place that is to be added to; none if it is written as a whole, or there is no file yet.
    pub(super) async fn to_add_to(
        executor: &Executor,
        place: &MountsPlace,
    ) -> Result<Option<Shelf>, Error> {
        let is_there = match place {
            MountsPlace::Registry(_) | MountsPlace::Directory(_) => true,
            MountsPlace::Stream => false,
            // An empty file is what somebody made to have the name.
            MountsPlace::Archive(path) => match std::fs::metadata(path) {
                Ok(found) => found.len() > 0,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::io("open", path)(error)),
            },
        };
        match is_there {
            true => Shelf::open(executor, place).await.map(Some),
            false => Ok(None),
        }
    }

    /// All names of a place in a registry, in the order in which they are written: copies, then its own. There
    /// is only this one elsewhere.
    pub(super) fn names(&self) -> Vec<Shelf> {
        let mut names = Vec::new();
        if let Kind::Registry { client, reference } = &self.kind {
            names.extend(copies_of(reference).map(|copy| Shelf {
                shown: copy.familiar(),
                kind: Kind::Registry {
                    client: client.clone(),
                    reference: copy,
                },
            }));
        }
        names.push(self.clone());
        names
    }

    /// The name in a registry, if it is one.
    pub(super) fn reference(&self) -> Option<&Reference> {
        match &self.kind {
            Kind::Registry { reference, .. } => Some(reference),
            Kind::Directory(_) | Kind::Archive(_) => None,
        }
    }

    /// What a registry has under this name now; none if it is nothing, or not a registry.
    pub(super) async fn version(&self) -> Result<Option<Sha256Digest>, Error> {
        match &self.kind {
            Kind::Registry { client, reference } => Ok(client.own_digest(reference).await?),
            Kind::Directory(_) | Kind::Archive(_) => Ok(None),
        }
    }

    /// How it is called in errors.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads what is there, when nobody writes to it; none if there is nothing.
    pub(super) async fn contents(&self) -> Result<Option<Contents>, Error> {
        let _lock = match &self.kind {
            Kind::Directory(path) if !path.exists() => return Ok(None),
            Kind::Directory(path) => {
                let path = path.clone();
                blocking(move || Ok(shared(&path))).await?
            }
            Kind::Registry { .. } | Kind::Archive(_) => None,
        };
        let Some(mut contents) = self.contents_held().await? else {
            return Ok(None);
        };
        let mut copies = self.names();
        copies.pop();
        for copy in copies {
            // One that cannot be read is as good as none.
            match copy.version().await {
                Ok(Some(version)) if version != contents.root => {}
                _ => continue,
            }
            if let Ok(Some(other)) = copy.contents_held().await {
                contents.config = contents.config.with(&other.config.mounts);
            }
        }
        Ok(Some(contents))
    }

    /// Reads what is there under this name alone, for whoever keeps others from writing to it.
    pub(super) async fn contents_held(&self) -> Result<Option<Contents>, Error> {
        let root = match &self.kind {
            Kind::Registry { client, reference } => match client.manifest(reference).await {
                Ok(pulled) => (pulled.digest, pulled.root),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            Kind::Directory(_) | Kind::Archive(_) => {
                let shelf = self.clone();
                let Some(entry) = blocking(move || shelf.entry()).await? else {
                    return Ok(None);
                };
                let bytes = self.blob(&entry, MANIFEST_LIMIT_BYTES).await?;
                let root = Root::from_slice(&entry.media_type, &bytes);
                (
                    entry.digest,
                    root.map_err(|error| self.hostile(error.to_string()))?,
                )
            }
        };
        let (root, manifest) = match root {
            (digest, Root::Manifest(manifest)) => (digest, manifest),
            (_, Root::Index(_)) => return Err(self.else_there("an index of images").into()),
        };
        if manifest.artifact_type != ARTIFACT || manifest.config.media_type != CONFIG {
            let found = match manifest.artifact_type.as_str() {
                "" if manifest.config.media_type.starts_with(ANY_CONFIG_TYPE) => {
                    "a cache of steps".to_owned()
                }
                "" => "an image".to_owned(),
                other => format!(
                    "an artifact of type `{}`",
                    other.chars().take(100).collect::<String>()
                ),
            };
            return Err(self.else_there(&found).into());
        }
        let bytes = self.blob(&manifest.config, CONFIG_LIMIT_BYTES).await?;
        let config = Config::decode(&bytes).map_err(|reason| self.hostile(reason))?;
        if config.version != VERSION {
            return Err(MountsError::Version {
                place: self.shown.clone(),
                found: config.version,
                supported: VERSION,
            }
            .into());
        }
        Ok(Some(Contents {
            root,
            config,
            manifest,
        }))
    }

    /// Reads a blob whole and verified.
    pub(super) async fn blob(&self, blob: &Descriptor, limit_bytes: u64) -> Result<Bytes, Error> {
        if blob.size > limit_bytes {
            let reason = format!(
                "blob {} has {} bytes, more than {limit_bytes}",
                blob.digest, blob.size
            );
            return Err(self.hostile(reason).into());
        }
        if let Kind::Registry { client, reference } = &self.kind {
            return Ok(client.blob_bytes(reference, blob, limit_bytes).await?);
        }
        let (shelf, blob) = (self.clone(), blob.clone());
        blocking(move || {
            let name = blob_path(&blob.digest);
            let bytes = shelf.file(&name, blob.size)?;
            let right = bytes.as_ref().is_some_and(|bytes| {
                bytes.len() as u64 == blob.size && Sha256Digest::of(bytes) == blob.digest
            });
            match bytes.filter(|_| right) {
                Some(bytes) => Ok(bytes.into()),
                None => Err(MountsError::Damaged {
                    what: "a blob",
                    place: shelf.shown.clone(),
                    expected: blob.digest.to_string(),
                }
                .into()),
            }
        })
        .await
    }

    /// Brings a pack: from a registry by way of the store, so that one that was begun is gone on with.
    pub(super) async fn pack(
        &self,
        executor: &Executor,
        lease: &Lease,
        pack: &Descriptor,
        observer: &TransferObserver,
    ) -> Result<Bytes, Error> {
        // Compressed, nothing grows much beyond what it is.
        let limit = PACK_LIMIT_BYTES + (1 << 20);
        let Kind::Registry { reference, .. } = &self.kind else {
            observer.blob(pack, BlobState::Moving(0));
            let bytes = self.blob(pack, limit).await?;
            observer.blob(pack, BlobState::Moved);
            return Ok(bytes);
        };
        if pack.size > limit {
            let reason = format!("a pack has {} bytes, more than {limit}", pack.size);
            return Err(self.hostile(reason).into());
        }
        let digest = BlobDigest(*pack.digest.as_bytes());
        let was_here = executor.store().blob_size(&digest)?.is_some();
        let moved = |bytes| observer.blob(pack, BlobState::Moving(bytes));
        bring_blob(executor, lease, reference, pack, &moved).await?;
        observer.blob(
            pack,
            match was_here {
                true => BlobState::Present,
                false => BlobState::Moved,
            },
        );
        let (store, digest) = (executor.store().clone(), pack.digest);
        blocking(move || read_pack(&store, &digest)).await
    }

    /// Whether all these blobs are there, as far as can be told without reading them.
    pub(super) async fn has_all(&self, blobs: &[Descriptor]) -> Result<bool, Error> {
        let Kind::Registry { client, reference } = &self.kind else {
            return Ok(blobs.iter().all(|blob| self.has(blob)));
        };
        let asked = blobs
            .iter()
            .map(|blob| client.has_blob(reference, &blob.digest));
        let mut asked = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        while let Some(found) = asked.next().await {
            if found?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a blob is in a directory or an archive, as far as can be told without reading it.
    pub(super) fn has(&self, blob: &Descriptor) -> bool {
        match &self.kind {
            Kind::Registry { .. } => unreachable!("BUG: a registry is to be asked"),
            Kind::Directory(path) => std::fs::metadata(path.join(blob_path(&blob.digest)))
                .is_ok_and(|found| found.is_file() && found.len() == blob.size),
            Kind::Archive(tar) => tar.files.contains_key(&blob_path(&blob.digest)),
        }
    }

    /// Finds the export in the index of a layout; none if there is none.
    fn entry(&self) -> Result<Option<Descriptor>, Error> {
        let path = match &self.kind {
            Kind::Directory(path) => path.clone(),
            Kind::Archive(tar) => tar.path.clone(),
            Kind::Registry { .. } => return Ok(None),
        };
        let unreadable = |source| Error::Layout {
            path: path.clone(),
            source,
        };
        // Before the file is looked for: it is the first that a writer makes.
        if let Kind::Directory(path) = &self.kind
            && is_empty(path)?
        {
            return Ok(None);
        }
        let Some(version) = self.file(LAYOUT_FILE, MANIFEST_LIMIT_BYTES)? else {
            return Err(Error::NotALayout { path });
        };
        check_version(&version).map_err(unreadable)?;
        let Some(index) = self.file(INDEX_FILE, MANIFEST_LIMIT_BYTES)? else {
            return Ok(None);
        };
        let index = read_index(&index).map_err(unreadable)?;
        Ok(index
            .manifests
            .iter()
            .find(|entry| is_export(entry))
            .cloned())
    }

    /// Reads a file, if it is there, of which one byte more than the limit shows that it is too long.
    fn file(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        match &self.kind {
            Kind::Registry { .. } => Ok(None),
            Kind::Directory(path) => {
                let path = path.join(name);
                let Some(file) = open_regular(&path)? else {
                    return Ok(None);
                };
                let mut bytes = Vec::new();
                let read = file.take(limit_bytes + 1).read_to_end(&mut bytes);
                read.map_err(Error::io("read", path))?;
                Ok(Some(bytes))
            }
            Kind::Archive(tar) => {
                let Some((offset, size)) = tar.files.get(name) else {
                    return Ok(None);
                };
                let length = usize::try_from((*size).min(limit_bytes + 1)).unwrap_or(usize::MAX);
                let mut bytes = vec![0; length];
                let read = tar.file.read_exact_at(&mut bytes, *offset);
                read.map_err(Error::io("read", &tar.path))?;
                Ok(Some(bytes))
            }
        }
    }

    pub(super) fn hostile(&self, reason: impl Into<String>) -> MountsError {
        MountsError::Hostile {
            place: self.shown.clone(),
            reason: reason.into(),
        }
    }

    fn else_there(&self, found: &str) -> MountsError {
        MountsError::SomethingElse {
            place: self.shown.clone(),
            found: found.to_owned(),
        }
    }
}

/// Whether an entry of a layout's index is an export of cache mounts.
pub(super) fn is_export(entry: &Descriptor) -> bool {
    entry.artifact_type == ARTIFACT
}

/// Keeps writers out of a directory; nothing where it cannot be locked.
fn shared(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    file.lock_shared().ok()?;
    Some(file)
}

fn is_empty(path: &Path) -> Result<bool, Error> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

impl Tar {
    fn open(executor: &Executor, input: File, path: PathBuf) -> Result<Tar, Error> {
        let failed = |source| MountsError::Archive {
            path: path.clone(),
            source,
        };
        let file = seekable(executor, input, &path)?;
        let mut files = HashMap::new();
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let Some(name) = inside("", &entry.path_bytes()) else {
                continue;
            };
            files.insert(name, (entry.raw_file_position(), entry.size()));
            if files.len() > MOST_FILES {
                let text = format!("it has more than {MOST_FILES} files");
                return Err(failed(io::Error::other(text)).into());
            }
        }
        Ok(Tar { file, path, files })
    }
}

/// A file that can be read from anywhere and is not compressed, copied aside if need be.
fn seekable(executor: &Executor, mut input: File, path: &Path) -> Result<File, Error> {
    let failed = |source| MountsError::Archive {
        path: path.to_owned(),
        source,
    };
    if input.stream_position().is_ok() {
        let head = archive::first_block(&mut input).map_err(failed)?;
        input.rewind().map_err(failed)?;
        if archive::is_tar(&head) {
            return Ok(input);
        }
    }
    let work = executor.store().work_directory("archive")?;
    let copy = work.path().join("archive.tar");
    let mut spool = File::create_new(&copy).map_err(Error::io("create", &copy))?;
    let mut reader = archive::decompress(input).map_err(failed)?;
    io::copy(&mut reader, &mut spool).map_err(failed)?;
    // Its name goes with the directory, and the bytes with the last handle.
    let spool = File::open(&copy).map_err(Error::io("open", &copy))?;
    drop(work);
    Ok(spool)
}

/// The index of a layout with this export in place of an older one, and what else is listed.
pub(super) fn with_entry(before: Option<Index>, entry: Descriptor) -> Index {
    let mut index =
        before.unwrap_or_else(|| Index::new(kiln_oci::media_type::Flavor::Oci, Vec::new()));
    index.manifests.retain(|old| !is_export(old));
    index.manifests.push(entry);
    index
}
