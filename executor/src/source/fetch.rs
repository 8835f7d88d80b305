//! Bringing an image's layers here: fetched and unpacked at the same time, several at once.

use std::fs::File;
use std::io::{self, Read, Take, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_oci::digest::{Sha256Digest, VerifyingReader};
use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_oci::registry;
use kiln_store::{AS_PULLED, BlobDigest, BlobWriter, Content, DiffId, Lease};
use kiln_tree::Stop;
use kiln_tree::stop::Stoppable;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::blob::{self, Begun, Tried};
use super::resolve::{Place, ResolvedImage, short};
use crate::combine::clone_layer;
use crate::engines::{self, LayerSource, LocalLayers, SavedImage, keep_archive};
use crate::error::Error;
use crate::executor::Executor;
use crate::patience::arriving;
use crate::transfer::{BlobState, TransferEvent, TransferObserver};
use crate::unpack::{Of, unpack};

/// Layers that are fetched at once.
const AT_ONCE: usize = 4;
/// Pieces of a blob that wait for the unpacker.
const PIECES: usize = 64;

pub(super) fn bytes_of(digest: &Sha256Digest) -> [u8; 32] {
    *digest.as_bytes()
}

/// Sees to it that every layer of an image is in the store and leased.
///
/// Tells whether anything had to be brought here.
pub(crate) async fn fetch(
    executor: &Executor,
    lease: &Lease,
    image: &ResolvedImage,
    observer: Option<&TransferObserver>,
    stop: &Stop,
) -> Result<(Vec<Content>, bool), Error> {
    let layers = Content::of_image(&image.diff_ids);
    let missing = executor.store().lease_layers(lease, &layers)?;
    if missing.is_empty() {
        return Ok((layers, false));
    }
    if let Some(saved) = saved(image) {
        engines::bring(executor, lease, saved, &missing, observer).await?;
        return Ok((layers, true));
    }
    let mut tasks = JoinSet::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut begun: Vec<DiffId> = Vec::new();
    for (index, &diff_id) in image.diff_ids.iter().enumerate() {
        if !missing.contains(&Content::DiffId(diff_id)) || begun.contains(&diff_id) {
            continue;
        }
        begun.push(diff_id);
        let job = Job {
            observer: observer.cloned(),
            ..Job::new(executor, lease, image, index, stop)
        };
        let gate = Arc::clone(&gate);
        tasks.spawn(async move {
            // The gate is never closed.
            let _turn = gate.acquire_owned().await;
            job.run().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        let failure = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(error) if error.is_cancelled() => Error::Cancelled,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        // None of the others goes on, or is heard of, after the failure.
        tasks.shutdown().await;
        return Err(failure);
    }
    if let Place::Registry(reference)
    | Place::Engine {
        name: reference, ..
    } = &image.place
    {
        let blobs: Vec<BlobDigest> = image
            .blobs
            .iter()
            .map(|blob| BlobDigest(bytes_of(&blob.digest)))
            .collect();
        executor.store().put_places(&reference.name(), &blobs)?;
    }
    Ok((layers, true))
}

/// Brings the archive of a layer here once more, though its files are here; tells whether the image
/// has that layer.
pub(crate) async fn fetch_archive(
    executor: &Executor,
    lease: &Lease,
    image: &ResolvedImage,
    layer: DiffId,
    stop: &Stop,
) -> Result<bool, Error> {
    let Some(index) = image.diff_ids.iter().position(|id| *id == layer) else {
        return Ok(false);
    };
    if let Some(saved) = saved(image) {
        engines::bring(executor, lease, saved, &[Content::DiffId(layer)], None).await?;
        return Ok(true);
    }
    let job = Job {
        again: true,
        ..Job::new(executor, lease, image, index, stop)
    };
    job.run().await?;
    Ok(true)
}

/// An engine's image that only comes whole.
fn saved(image: &ResolvedImage) -> Option<&SavedImage> {
    match &image.place {
        Place::Engine {
            layers: LocalLayers::Saved(saved),
            ..
        } => Some(saved),
        _ => None,
    }
}

/// The file of a blob in an OCI layout.
pub(crate) fn blob_path(directory: &std::path::Path, blob: &Descriptor) -> std::path::PathBuf {
    directory.join("blobs/sha256").join(blob.digest.hex())
}

enum Origin {
    /// The layer on top of those that it lies on.
    Stack(Vec<Content>),
    Registry {
        reference: Reference,
        blob: Descriptor,
    },
    File {
        directory: std::path::PathBuf,
        blob: Descriptor,
    },
    Engine {
        layer: LayerSource,
        /// The image, as people call it.
        shown: String,
    },
}

struct Job {
    executor: Executor,
    lease: Lease,
    diff_id: DiffId,
    place: Origin,
    observer: Option<TransferObserver>,
    stop: Stop,
    /// Even if the layer is in the store.
    again: bool,
}

impl Job {
    fn new(
        executor: &Executor,
        lease: &Lease,
        image: &ResolvedImage,
        index: usize,
        stop: &Stop,
    ) -> Job {
        Job {
            executor: executor.clone(),
            lease: lease.clone(),
            diff_id: image.diff_ids[index],
            place: match &image.place {
                Place::Store { layers, .. } => Origin::Stack(layers[..=index].to_vec()),
                Place::Registry(reference) => Origin::Registry {
                    reference: reference.clone(),
                    blob: image.blobs[index].clone(),
                },
                Place::Layout(directory) => Origin::File {
                    directory: directory.clone(),
                    blob: image.blobs[index].clone(),
                },
                Place::Engine { layers, .. } => match layers {
                    LocalLayers::Each(layers) => Origin::Engine {
                        layer: layers[index].clone(),
                        shown: image.label.clone(),
                    },
                    LocalLayers::Saved(_) => {
                        unreachable!("BUG: a layer of a saved image is asked for by itself")
                    }
                },
            },
            observer: None,
            stop: stop.clone(),
            again: false,
        }
    }

    async fn run(self) -> Result<(), Error> {
        let Job {
            executor,
            lease,
            diff_id,
            place,
            observer,
            stop,
            again,
        } = self;
        // Two images that share a layer need it once.
        let turn = executor.turn_of(diff_id);
        let _turn = turn.lock().await;
        let store = executor.store();
        let is_here = || {
            let missing = store.lease_layers(&lease, &[Content::DiffId(diff_id)])?;
            Ok::<_, Error>(!again && missing.is_empty())
        };
        if is_here()? {
            return Ok(());
        }
        let _arriving = match &place {
            Origin::Registry { blob, .. } => {
                let waiting = |pid| told(observer.as_ref(), blob, pid);
                let held = arriving(store, &diff_id.0, &stop, waiting).await?;
                if is_here()? {
                    if let Some(observer) = &observer {
                        observer.blob(blob, BlobState::Present);
                    }
                    return Ok(());
                }
                Some(held)
            }
            _ => None,
        };
        match place {
            Origin::Stack(stack) => {
                blocking(move || clone_layer(executor.store(), &lease, &stack, diff_id)).await
            }
            Origin::File { directory, blob } => {
                blocking(move || {
                    let of = Of {
                        blob: blob.digest.to_string(),
                        reference: directory.display().to_string(),
                    };
                    let path = blob_path(&directory, &blob);
                    let open = || File::open(&path).map_err(Error::io("open", &path));
                    let writer = executor
                        .store()
                        .write_blob(Some(BlobDigest(bytes_of(&blob.digest))))?;
                    let archive = Incoming {
                        head: None,
                        rest: Stoppable::new(open()?, &stop),
                        writer,
                    };
                    let kept = keep(&executor, &lease, archive, diff_id, of.clone(), || false);
                    // What cannot be unpacked may not be what was put there.
                    if kept.is_err() && !stop.is_set() {
                        check_file(open()?, &path, &blob, of)?;
                    }
                    kept
                })
                .await
            }
            Origin::Engine { layer, shown } => {
                blocking(move || {
                    let of = Of {
                        blob: layer.name(),
                        reference: shown,
                    };
                    let archive = Counted {
                        inner: Stoppable::new(layer.open()?, &stop),
                        name: layer.name(),
                        done: 0,
                        total: layer.size_bytes(),
                        observer,
                    };
                    keep_archive(&executor, &lease, archive, Some(diff_id), of).map(drop)
                })
                .await
            }
            Origin::Registry { reference, blob } => {
                let coming = Coming {
                    executor,
                    lease,
                    diff_id,
                    reference,
                    blob,
                    observer,
                };
                coming.run().await
            }
        }
    }
}

/// Says that another process is bringing a blob here.
fn told(observer: Option<&TransferObserver>, blob: &Descriptor, pid: Option<u32>) {
    if let Some(observer) = observer {
        let whom = pid.map_or("another kiln".to_owned(), |pid| {
            format!("another kiln (process {pid})")
        });
        let shown = short(&blob.digest.to_string());
        observer.tell(TransferEvent::Waiting(format!(
            "{whom} is fetching {shown}; waiting for it"
        )));
    }
}

/// A layer on its way from a registry.
struct Coming {
    executor: Executor,
    lease: Lease,
    diff_id: DiffId,
    reference: Reference,
    blob: Descriptor,
    observer: Option<TransferObserver>,
}

impl Coming {
    async fn run(self) -> Result<(), Error> {
        let client = self.executor.registry()?;
        let mut begun = blob::begin(&self.executor, &self.blob, true).await?;
        loop {
            let tried = Tried::new(client, &self.reference, &begun);
            match self.bring(begun).await {
                Err(error) if tried.allows_another(&error) => {
                    begun = blob::begin(&self.executor, &self.blob, false).await?;
                }
                done => return done,
            }
        }
    }

    async fn bring(&self, begun: Begun) -> Result<(), Error> {
        let blob = &self.blob;
        let (sender, receiver) = mpsc::channel(PIECES);
        let of = Of {
            blob: blob.digest.to_string(),
            reference: self.reference.familiar(),
        };
        let client = self.executor.registry()?.clone();
        let Begun { writer, head, seen } = begun;
        // Whoever waits for this may go away at any time.
        let worth_keeping = Arc::new(AtomicBool::new(true));
        let mut done = seen.bytes();
        let unpacking = tokio::task::spawn_blocking({
            let (executor, lease, diff_id) =
                (self.executor.clone(), self.lease.clone(), self.diff_id);
            let head = head.map(|head| head.take(done));
            let worth_keeping = Arc::clone(&worth_keeping);
            move || {
                let archive = Incoming {
                    head,
                    rest: Pieces::new(receiver),
                    writer,
                };
                let is_worth = || worth_keeping.load(Ordering::Acquire);
                keep(&executor, &lease, archive, diff_id, of, is_worth)
            }
        });
        let mut stream = client.rest_of_blob(&self.reference, blob, seen);
        let mut failure = None;
        loop {
            let piece = match stream.next().await {
                Some(Ok(piece)) => piece,
                None => {
                    worth_keeping.store(false, Ordering::Release);
                    break;
                }
                Some(Err(error)) => {
                    if let registry::Error::Content { .. } = error {
                        worth_keeping.store(false, Ordering::Release);
                    }
                    let _ = sender
                        .send(Err(io::Error::other("the transfer failed")))
                        .await;
                    failure = Some(error);
                    break;
                }
            };
            done += piece.len() as u64;
            if let Some(observer) = &self.observer {
                observer.blob(blob, BlobState::Moving(done));
            }
            // When the unpacker gave up, the rest still tells whether the bytes are at fault.
            let _ = sender.send(Ok(piece)).await;
        }
        drop(sender);
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match failure {
            Some(error) => return Err(error.into()),
            None => unpacked?,
        }
        if let Some(observer) = &self.observer {
            observer.blob(blob, BlobState::Moved);
        }
        Ok(())
    }
}

/// Tells how far the reading is.
struct Counted<R> {
    inner: R,
    name: String,
    done: u64,
    total: Option<u64>,
    observer: Option<TransferObserver>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        if let Some(observer) = &self.observer {
            observer.tell(TransferEvent::Blob {
                digest: self.name.clone(),
                size_bytes: self.total.unwrap_or(self.done),
                state: BlobState::Moving(self.done),
            });
        }
        Ok(count)
    }
}

/// Checks that a file of a layout is the blob that it is named after.
fn check_file(file: File, path: &std::path::Path, blob: &Descriptor, of: Of) -> Result<(), Error> {
    let mut reader = VerifyingReader::new(file, blob.digest, Some(blob.size));
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::Layer {
            blob: of.blob,
            reference: of.reference,
            reason: error.to_string(),
        }),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The archive of a layer as it is read, and the blob that it is written down to.
struct Incoming<R> {
    /// What the blob has already.
    head: Option<Take<File>>,
    rest: R,
    writer: BlobWriter,
}

/// Unpacks a layer while its blob is written down too, and files the two together.
///
/// If unpacking fails, what there is of the blob is kept as a beginning where `is_worth_keeping` says so.
fn keep(
    executor: &Executor,
    lease: &Lease,
    archive: Incoming<impl Read + Send + 'static>,
    diff_id: DiffId,
    of: Of,
    is_worth_keeping: impl Fn() -> bool,
) -> Result<(), Error> {
    let head: Box<dyn Read + Send> = match archive.head {
        Some(head) => Box::new(head),
        None => Box::new(io::empty()),
    };
    let (tee, written) = Tee::new(archive.rest, archive.writer);
    let unpacked = unpack(executor.store(), lease, head.chain(tee), Some(diff_id), &of);
    // The reader is dropped by now, and hands the blob back.
    let writer = written.recv().ok().transpose();
    let writer = writer.map_err(Error::unwritten(executor.store()))?;
    if let Err(error) = unpacked {
        if let Some(writer) = writer.filter(|_| is_worth_keeping()) {
            blob::keep_beginning(writer);
        }
        return Err(error);
    }
    let blob = writer.ok_or(Error::Cancelled)?.finish(lease)?;
    executor
        .store()
        .put_compressed(&Content::DiffId(diff_id), "", AS_PULLED, &blob, &diff_id)?;
    Ok(())
}

/// Passes bytes on and writes them down too; at the end hands back the writer, or why it refused.
pub(crate) struct Tee<R: Read, W: Write> {
    inner: R,
    writer: Option<W>,
    done: std::sync::mpsc::Sender<io::Result<W>>,
}

impl<R: Read, W: Write> Tee<R, W> {
    pub(crate) fn new(
        inner: R,
        writer: W,
    ) -> (Tee<R, W>, std::sync::mpsc::Receiver<io::Result<W>>) {
        let (done, written) = std::sync::mpsc::channel();
        let tee = Tee {
            inner,
            writer: Some(writer),
            done,
        };
        (tee, written)
    }
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let written = match &mut self.writer {
            Some(writer) => writer.write_all(&buffer[..count]),
            None => Ok(()),
        };
        if let Err(error) = written {
            self.writer = None;
            let _ = self.done.send(Err(error));
            return Err(io::Error::other("its copy could not be written"));
        }
        Ok(count)
    }
}

/// Padding behind the compressed bytes belongs to the blob, and no decoder reads it; more of it than
/// this is no padding.
const MOST_PADDING_BYTES: u64 = 64 << 10;

impl<R: Read, W: Write> Drop for Tee<R, W> {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            let mut rest = (&mut self.inner).take(MOST_PADDING_BYTES);
            // What goes wrong here shows in the blob's digest.
            let _ = io::copy(&mut rest, &mut writer);
            // Nobody waits for it if unpacking failed.
            let _ = self.done.send(Ok(writer));
        }
    }
}

/// The pieces of a transfer as a reader.
pub(crate) struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Pieces {
    pub(crate) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Pieces {
        Pieces {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = piece?,
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Like [`blocking`], for long work on files that is to end when nobody waits for it any more.
pub(crate) async fn stoppable<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let waits = Arc::new(());
    let gone = Arc::downgrade(&waits);
    let stop = Stop::when(move || gone.strong_count() == 0);
    let done = blocking(move || work(&stop)).await;
    // Dropping this future before it is done drops what tells the work that somebody waits.
    drop(waits);
    done
}

/// Runs something that keeps a processor or a disk busy.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::Cancelled),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_told_to_stop() {
        let (began, mut beginning) = mpsc::unbounded_channel();
        let (ended, mut ending) = mpsc::unbounded_channel();
        let work = stoppable(move |stop| {
            began.send(()).unwrap();
            while !stop.is_set() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Ok(())
        });
        tokio::select! {
            done = work => panic!("it ended by itself: {done:?}"),
            begun = beginning.recv() => begun.unwrap(),
        }
        ending.recv().await.unwrap();
    }

    #[tokio::test]
    async fn work_that_is_waited_for_goes_on() {
        let done = stoppable(|stop| Ok(stop.is_set())).await;
        assert!(!done.unwrap());
    }
}
