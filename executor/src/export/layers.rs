//! What image documents say of layers: diff ids, and the blobs that hold them.
//!
//! Both are made once for each layer ever. They are filed under the layer's content id and all that
//! decides the archive's bytes: the version of the tar that is written, its times, the compressor; and
//! where the layer passes through directories that the layers below it dress otherwise, those.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use kiln_oci::document::Descriptor;
use kiln_oci::media_type::{Compression, layer_compression};
use kiln_store::{AS_PULLED, BlobDigest, BlobWriter, Content, DiffId, Lease, Store};
use kiln_tree::stop::{PIECE_BYTES, Stoppable};
use kiln_tree::tar::{
    DirectoryFiles, FileSource, MtimePolicy, WriteError, WriteOptions, write_layer,
};
use kiln_tree::{Entry, Kind, Manifest, Stop, TreePath};
use rustix::fs::MemfdFlags;
use sha2::{Digest, Sha256};

use super::bases::Bases;
use super::image::blob_digest;
use crate::archive::decompress;
use crate::compress::{LayerCompression, compress};
use crate::error::{Error, words};

/// The version of what [`write_layer`] writes; to be raised whenever its bytes change.
const TAR: &str = "tar v0";
/// Stands before the digest of a manifest in which passed directories look as those below do.
pub(crate) const SPELLED: &str = " as=";
/// Stands before the digest of the layers below.
const OVER: &str = " over=";
/// What eleven octal digits of a tar header hold; larger files have a record of their own.
const MOST_HEADER_SIZE: u64 = 0o77_777_777_777;
const BLOCK: u64 = 512;

/// A layer of an image.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) content: Content,
    pub(crate) diff_id: DiffId,
    /// When the store got it.
    pub(crate) created: SystemTime,
    /// What its files hold.
    pub(crate) size_bytes: u64,
    /// What the image that it came from has it as.
    pub(crate) named: Option<Descriptor>,
    /// Where its archive is in the store, once it is packed.
    pub(crate) blob: Option<Blob>,
}

/// An archive in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) digest: BlobDigest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// Finds the diff ids of a leased stack's layers; those that nobody asked for before are hashed,
/// several at once.
pub(crate) fn describe(
    store: &Store,
    layers: &[Content],
    mtime: MtimePolicy,
    stop: &Stop,
) -> Result<Vec<Layer>, Error> {
    let mut known: Vec<Option<DiffId>> = Vec::with_capacity(layers.len());
    for (index, content) in layers.iter().enumerate() {
        known.push(match content {
            Content::DiffId(id) => Some(*id),
            Content::Layer(_) => store.diff_id(content, &filed_over(layers, index, mtime))?,
        });
    }
    let open: Vec<usize> = (0..layers.len())
        .filter(|&index| known[index].is_none())
        .collect();
    for (index, diff_id) in hash_all(store, layers, &open, mtime, stop)? {
        store.put_diff_id(&layers[index], &filed_over(layers, index, mtime), &diff_id)?;
        known[index] = Some(diff_id);
    }
    let found = layers.iter().zip(known);
    found
        .filter_map(|(content, diff_id)| Some(layer(store, content, diff_id?)))
        .collect()
}

fn layer(store: &Store, content: &Content, diff_id: DiffId) -> Result<Layer, Error> {
    let info = store.layer(content)?;
    let info = info.ok_or(kiln_store::StoreError::NoSuchLayer(*content))?;
    Ok(Layer {
        content: *content,
        diff_id,
        created: info.created,
        size_bytes: info.size_bytes,
        named: None,
        blob: None,
    })
}

fn hash_all(
    store: &Store,
    layers: &[Content],
    wanted: &[usize],
    mtime: MtimePolicy,
    stop: &Stop,
) -> Result<Vec<(usize, DiffId)>, Error> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut mine = Vec::new();
        while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let diff_id = hash(store, &layers[..=index], mtime, stop).inspect_err(|_| {
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

/// Finds the diff id of a stack's highest layer, perhaps of another stack that dresses it alike.
pub(super) fn hash(
    store: &Store,
    stack: &[Content],
    mtime: MtimePolicy,
    stop: &Stop,
) -> Result<DiffId, Error> {
    let archive = LayerArchive::of(store, stack, mtime)?;
    if let Some(known) = store.diff_id(&archive.content, &archive.options)? {
        return Ok(known);
    }
    let mut sink = Hashing {
        hash: Sha256::new(),
        out: io::sink(),
    };
    archive.write(store, &mut Stoppable::new(&mut sink, stop))?;
    let diff_id = sink.finish();
    store.put_diff_id(&archive.content, &archive.options, &diff_id)?;
    Ok(diff_id)
}

/// The archive of a layer on top of others: all that decides its bytes.
pub(crate) struct LayerArchive {
    content: Content,
    manifest: Arc<Manifest>,
    mtime: MtimePolicy,
    /// These in the words that it is filed under.
    options: String,
}

impl LayerArchive {
    /// The archive of the highest layer of a stack.
    pub(crate) fn of(
        store: &Store,
        stack: &[Content],
        mtime: MtimePolicy,
    ) -> Result<LayerArchive, Error> {
        let Some(content) = stack.last() else {
            unreachable!("BUG: an archive of no layer is asked for");
        };
        let mut options = filed_tar(mtime);
        let spelled = match content {
            // What others packed says how it looks to others.
            Content::DiffId(_) => None,
            Content::Layer(_) => store.layers_view(stack)?.spelled_out(),
        };
        let manifest = match spelled {
            Some(manifest) => {
                let hash = blake3::hash(&manifest.encode());
                options.push_str(&format!("{SPELLED}{}", hash.to_hex()));
                Arc::new(manifest)
            }
            None => store.layer_manifest(content)?,
        };
        Ok(LayerArchive {
            content: *content,
            manifest,
            mtime,
            options,
        })
    }

    /// The archive of the highest layer of a stack that has this diff id, as far as that is known;
    /// else the one with the times of its files.
    pub(crate) fn with_diff_id(
        store: &Store,
        stack: &[Content],
        diff_id: &DiffId,
    ) -> Result<LayerArchive, Error> {
        let filed = match stack.last() {
            Some(content) => store.archived_as(content, diff_id)?,
            None => None,
        };
        LayerArchive::of(
            store,
            stack,
            filed.map_or(MtimePolicy::Keep, |words| times(&words)),
        )
    }

    /// What the archive lists.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The words that it is filed under.
    pub(crate) fn filed_as(&self) -> &str {
        &self.options
    }

    /// Whether it has the times of the layer's files.
    pub(crate) fn keeps_times(&self) -> bool {
        self.mtime == MtimePolicy::Keep
    }

    /// Writes it.
    pub(crate) fn write(&self, store: &Store, out: &mut impl Write) -> Result<(), Error> {
        let directory = store.open_layer(&self.content)?;
        let files = DirectoryFiles(directory.as_fd());
        Ok(write_layer(
            &self.manifest,
            &files,
            &self.write_options(),
            out,
        )?)
    }

    /// How long it is, without reading the layer's files.
    pub(super) fn length(&self) -> Result<u64, Error> {
        let mut bodies = 0;
        let entries = self.manifest.entries().iter();
        let heads = entries.map(|entry| match &entry.kind {
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
        let heads =
            Manifest::new(heads.collect()).expect("BUG: a manifest with empty files is none");
        let mut count = Counting(0);
        write_layer(&heads, &Holes(&heads), &self.write_options(), &mut count)?;
        Ok(count.0 + bodies)
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            mtime: self.mtime,
            ..WriteOptions::default()
        }
    }
}

/// Makes blobs of layers.
pub(crate) struct Packer<'a> {
    pub(crate) store: &'a Store,
    pub(crate) lease: &'a Lease,
    pub(crate) mtime: MtimePolicy,
    pub(crate) packing: LayerCompression,
    pub(crate) stop: &'a Stop,
    /// Where layers that others packed came from.
    pub(crate) bases: &'a dyn Bases,
}

impl Packer<'_> {
    /// Finds the blobs of a leased stack's layers, and makes and leases those that are not there.
    pub(crate) fn pack(&self, layers: &[Content]) -> Result<Vec<Layer>, Error> {
        let packed = layers.iter().enumerate().map(|(index, content)| {
            // A layer of an image keeps its times: they are in its diff id.
            let mtime = match content {
                Content::DiffId(_) => MtimePolicy::Keep,
                Content::Layer(_) => self.mtime,
            };
            let info = self.store.layer(content)?;
            if let (None, Content::Layer(_)) = (&info, content) {
                return self.left(content);
            }
            let (diff_id, blob) = self.top(&layers[..=index], mtime)?;
            // One that was left where it is has neither time nor size here.
            let info = info.map(|info| (info.created, info.size_bytes));
            let (created, size_bytes) = info.unwrap_or((SystemTime::UNIX_EPOCH, 0));
            Ok(Layer {
                content: *content,
                diff_id,
                created,
                size_bytes,
                named: None,
                blob: Some(blob),
            })
        });
        packed.collect()
    }

    /// A layer that others made and packed as it would be packed here, and that stays where it is.
    fn left(&self, content: &Content) -> Result<Layer, Error> {
        let (times, packed) = (filed_tar(self.mtime), self.packing.filed_as());
        let left = self.bases.left(content, &times, &packed)?;
        let left = left.ok_or(kiln_store::StoreError::NoSuchLayer(*content))?;
        Ok(Layer {
            content: *content,
            diff_id: left.blob.diff_id,
            created: left.created,
            size_bytes: 0,
            named: None,
            blob: Some(Blob {
                digest: blob_digest(&left.blob.digest),
                size: left.blob.size,
                compression: left.blob.compression,
            }),
        })
    }

    /// The same for layers of an image, whose config has their diff ids already.
    pub(crate) fn pack_as(
        &self,
        layers: &[Content],
        diff_ids: &[DiffId],
    ) -> Result<Vec<Layer>, Error> {
        let packed = layers.iter().zip(diff_ids).enumerate();
        let packed = packed.map(|(index, (content, expected))| {
            let mtime = match content {
                Content::DiffId(_) => MtimePolicy::Keep,
                Content::Layer(_) => match self.store.archived_as(content, expected)? {
                    Some(words) => times(&words),
                    None => self.mtime,
                },
            };
            let (diff_id, blob) = self.top(&layers[..=index], mtime)?;
            if diff_id != *expected {
                return Err(Error::DamagedLayer {
                    layer: *content,
                    expected: *expected,
                    found: diff_id,
                });
            }
            Ok(Layer {
                blob: Some(blob),
                ..layer(self.store, content, diff_id)?
            })
        });
        packed.collect()
    }

    /// Finds or makes the blob of the highest layer of a leased stack, alone.
    pub(crate) fn pack_top(&self, stack: &[Content]) -> Result<Layer, Error> {
        let Some(content) = stack.last() else {
            unreachable!("BUG: no layer is to be packed");
        };
        let (diff_id, blob) = self.top(stack, self.mtime)?;
        Ok(Layer {
            blob: Some(blob),
            ..layer(self.store, content, diff_id)?
        })
    }

    /// The words under which its blobs are filed.
    pub(crate) fn filed_as(&self) -> std::borrow::Cow<'static, str> {
        self.packing.filed_as()
    }

    /// The blob of a stack's highest layer.
    fn top(&self, stack: &[Content], mtime: MtimePolicy) -> Result<(DiffId, Blob), Error> {
        let (store, lease, packing) = (self.store, self.lease, self.packing);
        let Some(content) = stack.last() else {
            unreachable!("BUG: no layer is to be packed");
        };
        if let Content::DiffId(id) = content
            && let Some(found) = self.of_base(stack, *id)?
        {
            return Ok(found);
        }
        let archive = LayerArchive::of(store, stack, mtime)?;
        let options = &archive.options;
        if let Some(found) = self.filed(content, options)? {
            return Ok(found);
        }
        let mut writer = store.write_blob(None)?;
        let diff_id = compress(packing, &mut writer, |out| {
            let mut out = Hashing::into(out);
            archive.write(store, &mut Stoppable::new(&mut out, self.stop))?;
            Ok::<_, Unpacked>(out.finish())
        })
        .map_err(|error| error.in_store(store))?;
        match (content, store.diff_id(content, options)?) {
            (Content::DiffId(id), _) if *id != diff_id => {
                let pulled = match self.bases.bring_archive(*id)? {
                    true => as_pulled(store, lease, content)?,
                    false => None,
                };
                let (_, pulled) = pulled.ok_or(Error::ForeignLayer { layer: *content })?;
                return self.again(content, *id, pulled);
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
        self.file(content, options, writer, diff_id)
    }

    /// The blob that others packed the highest layer of a stack as: the one that its image names; if that cannot
    /// be had, the one that came last.
    fn of_base(&self, stack: &[Content], diff_id: DiffId) -> Result<Option<(DiffId, Blob)>, Error> {
        let content = Content::DiffId(diff_id);
        let pulled = as_pulled(self.store, self.lease, &content)?.map(|(_, blob)| blob);
        let Some(named) = self.bases.blob(stack) else {
            return pulled
                .map(|pulled| self.again(&content, diff_id, pulled))
                .transpose();
        };
        let blob = Blob {
            digest: blob_digest(&named.digest),
            size: named.size,
            compression: layer_compression(&named.media_type).unwrap_or(Compression::Gzip),
        };
        let is_pulled = pulled.is_some_and(|pulled| pulled.digest == blob.digest);
        if blob.digest.0 == diff_id.0 && !is_pulled && !self.bases.has_archive(&named)? {
            return pulled
                .map(|pulled| self.anew(&content, diff_id, &pulled))
                .transpose();
        }
        if self.is_packed_anew(&blob)
            && let Some(pulled) = pulled
        {
            // Any archive of it will do.
            return self.anew(&content, diff_id, &pulled).map(Some);
        }
        let here = self.store.lease_blob(self.lease, &blob.digest)?;
        if here || (!self.is_packed_anew(&blob) && self.bases.leave(&named)?) {
            return self.again(&content, diff_id, blob).map(Some);
        }
        match (self.bases.bring(&named), pulled) {
            (Err(_), _) if self.stop.is_set() => Err(Error::Cancelled),
            (Ok(()), _) => self.again(&content, diff_id, blob).map(Some),
            (Err(error), Some(pulled)) => {
                self.bases.warn(format!(
                    "layer {diff_id} leaves as {}, and not as its image names it: {}",
                    pulled.digest,
                    words(&error)
                ));
                self.again(&content, diff_id, pulled).map(Some)
            }
            (Err(_), None) => Ok(None),
        }
    }

    /// Whether a layer that others packed is to be packed in another way.
    fn is_packed_anew(&self, blob: &Blob) -> bool {
        self.packing.force && blob.compression != self.packing.compression
    }

    /// The blob that others packed a layer as or, where all are to be packed alike, another one of the same archive.
    fn again(
        &self,
        content: &Content,
        diff_id: DiffId,
        blob: Blob,
    ) -> Result<(DiffId, Blob), Error> {
        match self.is_packed_anew(&blob) {
            true => self.anew(content, diff_id, &blob),
            false => Ok((diff_id, blob)),
        }
    }

    /// Another blob of the archive that is in this one.
    fn anew(
        &self,
        content: &Content,
        expected: DiffId,
        blob: &Blob,
    ) -> Result<(DiffId, Blob), Error> {
        if let Some(found) = self.filed(content, "")? {
            return Ok(found);
        }
        let store = self.store;
        let mut writer = store.write_blob(None)?;
        let archive = store.open_blob(&blob.digest)?;
        let unreadable = || Error::io("read", store.root().join("blobs"));
        let diff_id = compress(self.packing, &mut writer, |out| {
            let mut archive = decompress(archive).map_err(|error| unreadable()(error))?;
            let mut out = Hashing::into(out);
            let mut piece = vec![0; PIECE_BYTES as usize];
            loop {
                if self.stop.is_set() {
                    return Err(Unpacked::Layer(Error::Cancelled));
                }
                match archive.read(&mut piece) {
                    Ok(0) => return Ok(out.finish()),
                    Ok(count) => out.write_all(&piece[..count]).map_err(Unpacked::Blob)?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Unpacked::Layer(unreadable()(error))),
                }
            }
        })
        .map_err(|error| error.in_store(store))?;
        if diff_id != expected {
            return Err(Error::DamagedLayer {
                layer: *content,
                expected,
                found: diff_id,
            });
        }
        self.file(content, "", writer, diff_id)
    }

    /// The blob that was made before of a layer's archive.
    fn filed(&self, content: &Content, options: &str) -> Result<Option<(DiffId, Blob)>, Error> {
        let (lease, words) = (self.lease, self.packing.filed_as());
        let found = self.store.compressed(lease, content, options, &words)?;
        Ok(found.map(|found| {
            let blob = Blob {
                digest: found.blob,
                size: found.size_bytes,
                compression: self.packing.compression,
            };
            (found.diff_id, blob)
        }))
    }

    /// Keeps a new blob and what it is of.
    fn file(
        &self,
        content: &Content,
        options: &str,
        writer: BlobWriter,
        diff_id: DiffId,
    ) -> Result<(DiffId, Blob), Error> {
        let size = writer.written();
        let digest = writer.finish(self.lease)?;
        let words = self.packing.filed_as();
        self.store
            .put_compressed(content, options, &words, &digest, &diff_id)?;
        let blob = Blob {
            digest,
            size,
            compression: self.packing.compression,
        };
        Ok((diff_id, blob))
    }
}

/// The blob that a layer was pulled as, if it is still there.
pub(crate) fn as_pulled(
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

/// The times of a layer's files, in the words under which its archives are filed.
pub(super) fn filed_tar(mtime: MtimePolicy) -> String {
    match mtime {
        MtimePolicy::Keep => TAR.to_owned(),
        MtimePolicy::Fixed(epoch) => format!("{TAR} mtime={epoch}"),
        MtimePolicy::Clamp(epoch) => format!("{TAR} mtime<={epoch}"),
    }
}

/// The words under which the diff id of one layer of a stack is found without reading manifests.
fn filed_over(layers: &[Content], index: usize, mtime: MtimePolicy) -> String {
    if index == 0 {
        return filed_tar(mtime);
    }
    let mut hash = blake3::Hasher::new();
    for below in &layers[..index] {
        hash.update(&below.to_bytes());
    }
    format!("{}{OVER}{}", filed_tar(mtime), hash.finalize().to_hex())
}

/// The times that the words of an archive name.
fn times(options: &str) -> MtimePolicy {
    let words = options.strip_prefix(TAR).unwrap_or_default();
    let times = words.split(SPELLED).next().unwrap_or_default();
    let times = times.split(OVER).next().unwrap_or_default();
    let fixed = times.strip_prefix(" mtime=").map(str::parse);
    let clamped = times.strip_prefix(" mtime<=").map(str::parse);
    match (fixed, clamped) {
        (Some(Ok(epoch)), _) => MtimePolicy::Fixed(epoch),
        (_, Some(Ok(epoch))) => MtimePolicy::Clamp(epoch),
        _ => MtimePolicy::Keep,
    }
}

/// Why a layer is not packed.
enum Unpacked {
    Layer(Error),
    Blob(io::Error),
}

impl From<Error> for Unpacked {
    fn from(error: Error) -> Unpacked {
        match error {
            Error::WriteLayer(WriteError::Write(source)) => Unpacked::Blob(source),
            error => Unpacked::Layer(error),
        }
    }
}

impl From<io::Error> for Unpacked {
    fn from(error: io::Error) -> Unpacked {
        Unpacked::Blob(error)
    }
}

impl Unpacked {
    /// Says where it was that the disk took no more.
    fn in_store(self, store: &Store) -> Error {
        match self {
            Unpacked::Layer(error) => error,
            Unpacked::Blob(source) => Error::unwritten(store)(source),
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
    /// Passes on to `out`.
    fn into(out: W) -> Self {
        Hashing {
            hash: Sha256::new(),
            out,
        }
    }

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
