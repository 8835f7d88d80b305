//! What image documents say of layers: diff ids, and the blobs that hold them.
//!
//! Both are made once for each layer ever. They are filed under the layer's content id and all that
//! decides the archive's bytes: the version of the tar that is written, its times, the compressor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use kiln_oci::media_type::Compression;
use kiln_store::{AS_PULLED, BlobDigest, Content, DiffId, Lease, Store};
use kiln_tree::tar::{
    DirectoryFiles, FileSource, MtimePolicy, WriteError, WriteOptions, write_layer,
};
use kiln_tree::{Entry, Kind, Manifest, TreePath};
use rustix::fs::MemfdFlags;
use sha2::{Digest, Sha256};

use crate::compress::{compress, filed_as};
use crate::error::Error;

/// The version of what [`write_layer`] writes; to be raised whenever its bytes change.
const TAR: &str = "tar v0";
/// What eleven octal digits of a tar header hold; larger files have a record of their own.
const MOST_HEADER_SIZE: u64 = 0o77_777_777_777;
const BLOCK: u64 = 512;

/// A layer of an image.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) content: Content,
    pub(super) diff_id: DiffId,
    /// When the store got it.
    pub(super) created: SystemTime,
    /// What its files hold.
    pub(super) size_bytes: u64,
    /// Where its archive is in the store, once it is packed.
    pub(super) blob: Option<Blob>,
}

/// An archive in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob {
    pub(super) digest: BlobDigest,
    pub(super) size: u64,
    pub(super) compression: Compression,
}

/// Finds the diff ids of leased layers; those that nobody asked for before are hashed, several at once.
pub(super) fn describe(
    store: &Store,
    layers: &[Content],
    mtime: MtimePolicy,
) -> Result<Vec<Layer>, Error> {
    let mut known: Vec<Option<DiffId>> = Vec::with_capacity(layers.len());
    for content in layers {
        known.push(match content {
            Content::DiffId(id) => Some(*id),
            Content::Layer(_) => store.diff_id(content, &filed_tar(mtime))?,
        });
    }
    let open: Vec<usize> = (0..layers.len())
        .filter(|&index| known[index].is_none())
        .collect();
    for (index, diff_id) in hash_all(store, layers, &open, mtime)? {
        store.put_diff_id(&layers[index], &filed_tar(mtime), &diff_id)?;
        known[index] = Some(diff_id);
    }
    let found = layers.iter().zip(known);
    found
        .filter_map(|(content, diff_id)| Some(layer(store, content, diff_id?)))
        .collect()
}

fn layer(store: &Store, content: &Content, diff_id: DiffId) -> Result<Layer, Error> {
    let info = store
        .layer(content)?
        .ok_or(kiln_store::StoreError::NoSuchLayer(*content))?;
    let (created, size_bytes) = (info.created, info.size_bytes);
    Ok(Layer {
        content: *content,
        diff_id,
        created,
        size_bytes,
        blob: None,
    })
}

fn hash_all(
    store: &Store,
    layers: &[Content],
    wanted: &[usize],
    mtime: MtimePolicy,
) -> Result<Vec<(usize, DiffId)>, Error> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut mine = Vec::new();
        while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let diff_id = hash(store, &layers[index], mtime).inspect_err(|_| {
                // The others need not go on.
                next.store(wanted.len(), Ordering::Relaxed);
            })?;
            mine.push((index, diff_id));
        }
        Ok::<_, Error>(mine)
    };
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads.min(wanted.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut all = Vec::with_capacity(wanted.len());
        for thread in working {
            match thread.join() {
                Ok(hashed) => all.extend(hashed?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

fn hash(store: &Store, content: &Content, mtime: MtimePolicy) -> Result<DiffId, Error> {
    let mut sink = Hashing {
        hash: Sha256::new(),
        out: io::sink(),
    };
    write_tar(store, content, mtime, &mut sink)?;
    Ok(sink.finish())
}

/// Finds the blobs of leased layers, and makes and leases those that are not there.
pub(super) fn pack(
    store: &Store,
    lease: &Lease,
    layers: &[Content],
    mtime: MtimePolicy,
    compression: Compression,
) -> Result<Vec<Layer>, Error> {
    let packed = layers.iter().map(|content| {
        let (diff_id, blob) = pack_one(store, lease, content, mtime, compression)?;
        Ok(Layer {
            blob: Some(blob),
            ..layer(store, content, diff_id)?
        })
    });
    packed.collect()
}

fn pack_one(
    store: &Store,
    lease: &Lease,
    content: &Content,
    mtime: MtimePolicy,
    compression: Compression,
) -> Result<(DiffId, Blob), Error> {
    // A layer of an image keeps its times: they are in its diff id.
    let mtime = match content {
        Content::DiffId(_) => MtimePolicy::Keep,
        Content::Layer(_) => mtime,
    };
    if let Some(blob) = as_pulled(store, lease, content)? {
        return Ok((blob.0, blob.1));
    }
    let options = filed_tar(mtime);
    if let Some(found) = store.compressed(lease, content, &options, filed_as(compression))? {
        let blob = Blob {
            digest: found.blob,
            size: found.size_bytes,
            compression,
        };
        return Ok((found.diff_id, blob));
    }
    let mut writer = store.write_blob(None)?;
    let diff_id = compress(compression, &mut writer, |out| {
        let mut out = Hashing {
            hash: Sha256::new(),
            out,
        };
        write_tar(store, content, mtime, &mut out)?;
        Ok::<_, Packing>(out.finish())
    })
    .map_err(|error| error.in_store(store))?;
    match (content, store.diff_id(content, &options)?) {
        (Content::DiffId(id), _) if *id != diff_id => {
            return Err(Error::ForeignLayer { layer: *content });
        }
        (Content::Layer(_), Some(expected)) if expected != diff_id => {
            return Err(Error::DamagedLayer {
                layer: *content,
                expected,
                found: diff_id,
            });
        }
        _ => {}
    }
    let size = writer.written();
    let digest = writer.finish(lease)?;
    store.put_compressed(content, &options, filed_as(compression), &digest, &diff_id)?;
    Ok((
        diff_id,
        Blob {
            digest,
            size,
            compression,
        },
    ))
}

/// The blob that a layer was pulled as, if it is still there.
pub(super) fn as_pulled(
    store: &Store,
    lease: &Lease,
    content: &Content,
) -> Result<Option<(DiffId, Blob)>, Error> {
    let Content::DiffId(_) = content else {
        return Ok(None);
    };
    let Some(found) = store.compressed(lease, content, "", AS_PULLED)? else {
        return Ok(None);
    };
    let mut head = Vec::new();
    let file = store.open_blob(&found.blob)?;
    file.take(4)
        .read_to_end(&mut head)
        .map_err(Error::io("read", store.root().join("blobs")))?;
    let compression = match head.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    };
    Ok(Some((
        found.diff_id,
        Blob {
            digest: found.blob,
            size: found.size_bytes,
            compression,
        },
    )))
}

/// Returns how long the archive of a layer is, without reading its files.
pub(super) fn tar_length(
    store: &Store,
    content: &Content,
    mtime: MtimePolicy,
) -> Result<u64, Error> {
    let manifest = store.layer_manifest(content)?;
    let mut bodies = 0;
    let heads = manifest.entries().iter().map(|entry| match &entry.kind {
        Kind::File { size, digest } if *size <= MOST_HEADER_SIZE => {
            bodies += size.next_multiple_of(BLOCK);
            Entry {
                kind: Kind::File {
                    size: 0,
                    digest: *digest,
                },
                ..entry.clone()
            }
        }
        _ => entry.clone(),
    });
    let heads = Manifest::new(heads.collect()).expect("BUG: a manifest with empty files is none");
    let mut count = Counting(0);
    write_layer(
        &heads,
        &Holes(&heads),
        &WriteOptions {
            mtime,
            ..WriteOptions::default()
        },
        &mut count,
    )?;
    Ok(count.0 + bodies)
}

/// The times of a layer's files, in the words under which its archives are filed.
fn filed_tar(mtime: MtimePolicy) -> String {
    match mtime {
        MtimePolicy::Keep => TAR.to_owned(),
        MtimePolicy::Fixed(epoch) => format!("{TAR} mtime={epoch}"),
        MtimePolicy::Clamp(epoch) => format!("{TAR} mtime<={epoch}"),
    }
}

/// The times of the archive of a layer that has this diff id; those of its files if nothing is
/// known of one.
pub(crate) fn times_of(
    store: &Store,
    content: &Content,
    diff_id: &DiffId,
) -> Result<MtimePolicy, Error> {
    let options = store.archived_as(content, diff_id)?;
    let times = options.as_deref().and_then(|options| {
        let times = options.strip_prefix(TAR)?;
        let fixed = times.strip_prefix(" mtime=").map(str::parse);
        let clamped = times.strip_prefix(" mtime<=").map(str::parse);
        match (fixed, clamped) {
            (Some(Ok(epoch)), _) => Some(MtimePolicy::Fixed(epoch)),
            (_, Some(Ok(epoch))) => Some(MtimePolicy::Clamp(epoch)),
            _ => None,
        }
    });
    Ok(times.unwrap_or(MtimePolicy::Keep))
}

/// Writes the archive of a layer.
pub(crate) fn write_tar(
    store: &Store,
    content: &Content,
    mtime: MtimePolicy,
    out: &mut impl Write,
) -> Result<(), Error> {
    let manifest = store.layer_manifest(content)?;
    let directory = store.open_layer(content)?;
    let options = WriteOptions {
        mtime,
        ..WriteOptions::default()
    };
    Ok(write_layer(
        &manifest,
        &DirectoryFiles(directory.as_fd()),
        &options,
        out,
    )?)
}

/// Why a layer cannot be packed.
enum Packing {
    Layer(Error),
    Blob(io::Error),
}

impl From<Error> for Packing {
    fn from(error: Error) -> Packing {
        match error {
            Error::WriteLayer(WriteError::Write(source)) => Packing::Blob(source),
            error => Packing::Layer(error),
        }
    }
}

impl From<io::Error> for Packing {
    fn from(error: io::Error) -> Packing {
        Packing::Blob(error)
    }
}

impl Packing {
    /// Says where it was that the disk took no more.
    fn in_store(self, store: &Store) -> Error {
        match self {
            Packing::Layer(error) => error,
            Packing::Blob(source) => Error::io("write a blob into", store.root())(source),
        }
    }
}

/// Passes bytes on and hashes them.
pub(crate) struct Hashing<W> {
    hash: Sha256,
    out: W,
}

impl Hashing<io::Sink> {
    /// Only hashes.
    pub(crate) fn new() -> Self {
        Hashing {
            hash: Sha256::new(),
            out: io::sink(),
        }
    }
}

impl<W> Hashing<W> {
    /// The digest of what was written.
    pub(crate) fn finish(self) -> DiffId {
        DiffId(self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Counting(u64);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Files of zeros that take no room.
struct Holes<'a>(&'a Manifest);

impl FileSource for Holes<'_> {
    fn open(&self, index: usize, _: &TreePath) -> io::Result<OwnedFd> {
        match self.0.entries().get(index).map(|entry| &entry.kind) {
            Some(Kind::File { size, .. }) if *size > 0 => {
                let file = rustix::fs::memfd_create("hole", MemfdFlags::CLOEXEC)?;
                rustix::fs::ftruncate(&file, *size)?;
                Ok(file)
            }
            _ => File::open("/dev/null").map(OwnedFd::from),
        }
    }
}
