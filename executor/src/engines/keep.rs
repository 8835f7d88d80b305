//! A layer's archive from an engine into the store: unpacked, and kept as it can be sent on.

use std::io::{self, Read, Write};

use bytes::Bytes;

use kiln_store::{AS_PULLED, BlobWriter, Content, DiffId, Lease};
use tokio::sync::mpsc;

use crate::compress::{LayerCompression, compress};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::{Pieces, Tee};
use crate::unpack::{Of, unpack};

/// Pieces that wait for the compressor.
const PIECES: usize = 16;

/// Unpacks a layer, files its archive, and returns what it is; it must be `expected`, if that is given.
///
/// Engines keep layers unpacked. The archive is the only one that has this diff id and might be gone
/// tomorrow, so it stays: compressed, as images are sent.
pub(crate) fn keep_archive(
    executor: &Executor,
    lease: &Lease,
    archive: impl Read + Send + 'static,
    expected: Option<DiffId>,
    of: Of,
) -> Result<DiffId, Error> {
    let store = executor.store();
    let mut archive = archive;
    let mut head = Vec::with_capacity(4);
    Read::by_ref(&mut archive)
        .take(4)
        .read_to_end(&mut head)
        .map_err(Error::io("read", &of.blob))?;
    let is_compressed = matches!(head[..], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]);
    let archive = io::Cursor::new(head).chain(archive);
    let writer = store.write_blob(None)?;
    let (found, writer) = match is_compressed {
        true => {
            let (tee, written) = Tee::new(archive, writer);
            let found = unpack(store, lease, tee, expected, &of);
            let writer = written.recv().map_err(|_| Error::Cancelled)?;
            let writer = writer.map_err(Error::unwritten(store))?;
            (found?, writer)
        }
        false => {
            let (packer, packing) = Packer::start(writer);
            let (tee, written) = Tee::new(archive, packer);
            let found = unpack(store, lease, tee, expected, &of);
            // The end of what it is sent is the end of the archive.
            drop(written.recv());
            let packed = match packing.join() {
                Ok(packed) => packed,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            // If it refused something, what was unpacked ended there.
            let writer = packed.map_err(Error::unwritten(store))?;
            (found?, writer)
        }
    };
    let blob = writer.finish(lease)?;
    store.put_compressed(&Content::DiffId(found), "", AS_PULLED, &blob, &found)?;
    Ok(found)
}

/// Compresses what is written to it, on threads of its own.
struct Packer {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

type Packing = std::thread::JoinHandle<io::Result<BlobWriter>>;

impl Packer {
    fn start(mut writer: BlobWriter) -> (Packer, Packing) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let packing = std::thread::spawn(move || {
            compress(LayerCompression::default(), &mut writer, |out| {
                let mut pieces = Pieces::new(receiver);
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match pieces.read(&mut buffer)? {
                        0 => return Ok::<_, io::Error>(()),
                        count => out.write_all(&buffer[..count])?,
                    }
                }
            })?;
            Ok(writer)
        });
        (Packer { sender }, packing)
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        // Why it ended is told where it is joined.
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
