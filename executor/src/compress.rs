//! Layers compressed by several threads, the same bytes on any number of them.
//!
//! What is written is cut into chunks of a fixed size; each becomes a gzip member or a zstd frame
//! of its own, which every reader takes for one stream (RFC 1952 section 2.2, RFC 8878 section 3).
//! So a chunk's bytes depend on nothing but the chunk, and threads only decide how soon they come.

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::{mem, thread};

use flate2::{Compress, Compression as Deflate, Crc, FlushCompress, Status};
use kiln_oci::media_type::Compression;

use crate::error::Error;

/// What a gzip member holds; smaller ones compress worse, larger ones keep threads waiting.
const GZIP_CHUNK_BYTES: usize = 1 << 20;
/// What a zstd frame holds; its window at level 3 is 2 MiB.
const ZSTD_CHUNK_BYTES: usize = 4 << 20;
/// On 300 MB of programs and texts, 6 takes a seventh more time for nothing, and 3 a quarter less for
/// 3 % more bytes.
const GZIP_LEVEL: u8 = 5;
/// What zstd itself takes for its default, which its level 0 stands for.
const ZSTD_LEVEL: u8 = 3;
/// Chunks in flight for each thread: one that it works on and one that waits.
const CHUNKS_PER_THREAD: usize = 2;
/// No field names a file, a time or a level; the system is "unknown" (RFC 1952 section 2.3.1).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// How layers become blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LayerCompression {
    /// How they are compressed.
    pub compression: Compression,
    /// How hard; by default what takes little time for most of the gain.
    pub level: Option<u8>,
    /// Layers that are packed otherwise are packed anew, those of base images.
    pub force: bool,
}

impl LayerCompression {
    /// The levels that a compression has; none where nothing is compressed.
    pub fn levels(compression: Compression) -> Option<RangeInclusive<u8>> {
        match compression {
            Compression::None => None,
            Compression::Gzip => Some(0..=9),
            Compression::Zstd => Some(0..=22),
        }
    }

    /// Errors unless there is such a level.
    pub(crate) fn check(self) -> Result<(), Error> {
        let levels = LayerCompression::levels(self.compression);
        match (self.level, levels) {
            (None, _) => Ok(()),
            (Some(level), Some(levels)) if levels.contains(&level) => Ok(()),
            (Some(level), levels) => Err(Error::CompressionLevel {
                level,
                compression: self.compression.as_str(),
                levels: levels.map(|levels| (*levels.start(), *levels.end())),
            }),
        }
    }

    /// The level that is taken.
    fn level(self) -> u8 {
        match (self.compression, self.level) {
            (Compression::Zstd, None | Some(0)) => ZSTD_LEVEL,
            (_, Some(level)) => level,
            (_, None) => GZIP_LEVEL,
        }
    }

    /// How blobs made in this way are filed: all that decides their bytes, and the compressor's version,
    /// with which they may change.
    pub(crate) fn filed_as(self) -> Cow<'static, str> {
        let level = self.level();
        match self.compression {
            Compression::None => "none".into(),
            Compression::Gzip => format!("gzip zlib-rs 0.6 level {level} members 1 MiB").into(),
            Compression::Zstd => format!("zstd 1.5 level {level} frames 4 MiB").into(),
        }
    }
}

impl From<Compression> for LayerCompression {
    fn from(compression: Compression) -> LayerCompression {
        LayerCompression {
            compression,
            ..LayerCompression::default()
        }
    }
}

/// Compresses whatever `produce` writes into `out`, on as many threads as there are processors.
///
/// Errors with what `out` said if it takes no more, whatever `produce` made of that.
pub(crate) fn compress<T, E: From<io::Error>>(
    packing: LayerCompression,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    compress_on(threads, packing, out, produce)
}

fn compress_on<T, E: From<io::Error>>(
    threads: usize,
    packing: LayerCompression,
    out: &mut (impl Write + Send),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let chunk_bytes = match packing.compression {
        Compression::None => return produce(out),
        Compression::Gzip => GZIP_CHUNK_BYTES,
        Compression::Zstd => ZSTD_CHUNK_BYTES,
    };
    // Results are collected in the order in which chunks were cut; the length of that queue bounds
    // what is in memory.
    let (queue, results) = sync_channel(threads * CHUNKS_PER_THREAD);
    let (jobs, todo) = sync_channel::<Job>(threads * CHUNKS_PER_THREAD);
    let todo = Mutex::new(todo);
    thread::scope(|scope| {
        // Threads end when the queue of jobs does, which this closure owns.
        let mut chunks = Chunks {
            chunk_bytes,
            current: Vec::new(),
            jobs,
            queue,
        };
        for _ in 0..threads {
            scope.spawn(|| work(&todo, packing));
        }
        let collector = scope.spawn(move || collect(&results, out));
        let produced = produce(&mut chunks);
        let cut = if produced.is_ok() {
            chunks.finish()
        } else {
            Ok(())
        };
        drop(chunks);
        match collector.join() {
            // The writer's own error says more than that of a pipe which it broke.
            Ok(written) => written?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        let produced = produced?;
        cut?;
        Ok(produced)
    })
}

struct Job {
    chunk: Vec<u8>,
    result: SyncSender<io::Result<Vec<u8>>>,
}

/// Cuts what is written to it into jobs.
struct Chunks {
    chunk_bytes: usize,
    current: Vec<u8>,
    jobs: SyncSender<Job>,
    queue: SyncSender<Receiver<io::Result<Vec<u8>>>>,
}

impl Chunks {
    fn cut(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let chunk = mem::take(&mut self.current);
        let (result, receiver) = sync_channel(1);
        self.queue.send(receiver).map_err(|_| gone())?;
        self.jobs.send(Job { chunk, result }).map_err(|_| gone())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            Ok(())
        } else {
            self.cut()
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.capacity() == 0 {
            self.current.reserve_exact(self.chunk_bytes);
        }
        let count = bytes.len().min(self.chunk_bytes - self.current.len());
        self.current.extend_from_slice(&bytes[..count]);
        if self.current.len() == self.chunk_bytes {
            self.cut()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(todo: &Mutex<Receiver<Job>>, packing: LayerCompression) {
    let mut state = State::new(packing);
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { chunk, result }) = next else {
            return;
        };
        // Nobody waits for it after a failure.
        let _ = result.send(state.compress(&chunk));
    }
}

fn collect(
    results: &Receiver<Receiver<io::Result<Vec<u8>>>>,
    out: &mut impl Write,
) -> io::Result<()> {
    while let Ok(result) = results.recv() {
        // A chunk that was queued and never became a job had a producer that failed.
        let Ok(bytes) = result.recv() else { continue };
        out.write_all(&bytes?)?;
    }
    Ok(())
}

/// A thread's compressor, whose memory is used again for each chunk.
enum State {
    Gzip(Compress),
    Zstd(u8, Option<zstd::bulk::Compressor<'static>>),
}

impl State {
    fn new(packing: LayerCompression) -> State {
        let level = packing.level();
        match packing.compression {
            Compression::Zstd => State::Zstd(level, None),
            Compression::Gzip | Compression::None => {
                State::Gzip(Compress::new(Deflate::new(u32::from(level)), false))
            }
        }
    }

    fn compress(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            State::Gzip(deflate) => member(deflate, chunk),
            State::Zstd(level, compressor) => {
                let compressor = match compressor {
                    Some(compressor) => compressor,
                    none => none.insert(zstd::bulk::Compressor::new(i32::from(*level))?),
                };
                compressor.compress(chunk)
            }
        }
    }
}

/// Returns `chunk` as a gzip member.
fn member(deflate: &mut Compress, chunk: &[u8]) -> io::Result<Vec<u8>> {
    deflate.reset();
    let mut out = Vec::with_capacity(chunk.len() / 2 + 64);
    out.extend_from_slice(&GZIP_HEADER);
    loop {
        let done = deflate.total_in() as usize;
        match deflate
            .compress_vec(&chunk[done..], &mut out, FlushCompress::Finish)
            .map_err(io::Error::other)?
        {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => out.reserve(chunk.len() / 4 + 1024),
        }
    }
    let mut crc = Crc::new();
    crc.update(chunk);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Text that compresses somewhat, the same every time.
    fn text(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut out = Vec::with_capacity(bytes);
        while out.len() < bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            out.extend_from_slice(format!("line {} of the text\n", state >> 52).as_bytes());
        }
        out.truncate(bytes);
        out
    }

    fn compressed(threads: usize, packing: impl Into<LayerCompression>, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let produced: io::Result<()> =
            compress_on(threads, packing.into(), &mut out, |to| to.write_all(input));
        produced.unwrap();
        out
    }

    fn check(bytes: usize) {
        let input = text(bytes);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let one = compressed(1, compression, &input);
            for threads in [2, 3, 8] {
                assert!(
                    compressed(threads, compression, &input) == one,
                    "{threads} threads, {compression:?}"
                );
            }
            let mut back = Vec::new();
            crate::archive::decompress(io::Cursor::new(one))
                .unwrap()
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == input, "{bytes} bytes, {compression:?}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes_that_read_back() {
        check(1);
        check(1024);
        check(GZIP_CHUNK_BYTES);
        check(GZIP_CHUNK_BYTES + 1);
        check(9 << 20);
    }

    #[test]
    fn every_level_reads_back_and_is_filed_by_itself() {
        let input = text(300 << 10);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut words = std::collections::BTreeSet::new();
            for level in LayerCompression::levels(compression).unwrap() {
                let packing = LayerCompression {
                    level: Some(level),
                    ..compression.into()
                };
                words.insert(packing.filed_as());
                let mut back = Vec::new();
                crate::archive::decompress(io::Cursor::new(compressed(2, packing, &input)))
                    .unwrap()
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == input, "{compression:?} {level}");
            }
            // zstd's level 0 is its default.
            let levels = LayerCompression::levels(compression).unwrap().count();
            let same = usize::from(compression == Compression::Zstd);
            assert_eq!(words.len(), levels - same);
        }
        assert_eq!(LayerCompression::levels(Compression::None), None);
    }

    #[test]
    fn what_does_not_compress_is_kept_too() {
        let mut noise = vec![0; 2 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let one = compressed(2, Compression::Gzip, &noise);
        let mut back = Vec::new();
        flate2::read::MultiGzDecoder::new(&one[..])
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == noise);
    }

    #[test]
    fn the_bytes_are_those_that_were_filed() {
        // Other digests mean another compressor: `LayerCompression::filed_as` must change with them.
        let digest = |compression| {
            blake3::hash(&compressed(2, compression, &text(3 << 20)))
                .to_hex()
                .to_string()
        };
        insta::assert_snapshot!(format!(
            "{} {}\n{} {}",
            LayerCompression::from(Compression::Gzip).filed_as(),
            digest(Compression::Gzip),
            LayerCompression::from(Compression::Zstd).filed_as(),
            digest(Compression::Zstd)
        ));
    }

    #[test]
    fn a_writer_that_is_full_is_what_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let input = text(64 << 20);
        let result: io::Result<()> = compress_on(2, LayerCompression::default(), &mut Full, |to| {
            to.write_all(&input)
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_producer_that_fails_is_what_is_told() {
        let mut out = Vec::new();
        let result: io::Result<()> = compress_on(2, LayerCompression::default(), &mut out, |to| {
            to.write_all(&text(3 << 20))?;
            Err(io::Error::from(io::ErrorKind::NotFound))
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
