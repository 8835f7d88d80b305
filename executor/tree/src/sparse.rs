//! Files with holes: found in what is read, left in what is written.

use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::handle::{FsError, FsResult};

/// Zeros of this many bytes, at a multiple of it, become a hole. Less saves little, and a file in
/// many pieces is slow to read.
pub(crate) const HOLE_BYTES: usize = 64 << 10;

/// Writes a file from its start, leaving holes where there are long runs of zeros.
#[derive(Debug)]
pub(crate) struct SparseWriter<F> {
    file: F,
    at: u64,
    /// How far something was really written.
    written: u64,
}

impl<F: AsFd> SparseWriter<F> {
    /// Begins to write to an empty file.
    pub(crate) fn new(file: F) -> Self {
        SparseWriter {
            file,
            at: 0,
            written: 0,
        }
    }

    /// Writes what comes next.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> FsResult<()> {
        while !bytes.is_empty() {
            let into = (self.at % HOLE_BYTES as u64) as usize;
            let next = bytes.len().min(HOLE_BYTES - into);
            let mut end = next;
            if next == HOLE_BYTES && is_zero(&bytes[..next]) {
                self.at += next as u64;
                bytes = &bytes[next..];
                continue;
            }
            // All up to the next hole in one call.
            while let Some(block) = bytes.get(end..end + HOLE_BYTES) {
                if is_zero(block) {
                    break;
                }
                end += HOLE_BYTES;
            }
            if bytes.len() - end < HOLE_BYTES {
                end = bytes.len();
            }
            write_at(&self.file, &bytes[..end], self.at)?;
            self.at += end as u64;
            self.written = self.at;
            bytes = &bytes[end..];
        }
        Ok(())
    }

    /// Ends the file where writing ended.
    pub(crate) fn finish(self) -> FsResult<()> {
        if self.written == self.at {
            return Ok(());
        }
        rustix::fs::ftruncate(&self.file, self.at)
            .map_err(|source| FsError::new("set the length of", b"", source))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Writes all of `bytes` at an offset.
pub(crate) fn write_at(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> FsResult<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, at) {
            Ok(0) => return Err(FsError::new("write", b"", Errno::NOSPC)),
            Ok(length) => {
                bytes = &bytes[length..];
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(FsError::new("write", b"", source)),
        }
    }
    Ok(())
}

/// The parts of a file of `size` bytes that are not holes; all of it where nobody can tell.
pub(crate) fn data(file: impl AsFd, size: u64) -> FsResult<Vec<(u64, u64)>> {
    let stat = rustix::fs::fstat(&file).map_err(|source| FsError::new("stat", b"", source))?;
    // Blocks are of 512 bytes, whatever the file system (stat(3type)).
    if u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512)
        >= size
    {
        return Ok(vec![(0, size)]);
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) => return Ok(vec![(0, size)]),
        };
        let end = match rustix::fs::seek(&file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(_) => return Ok(vec![(0, size)]),
        };
        if start >= end {
            break;
        }
        parts.push((start, end));
        at = end;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Writes pieces, and checks what is in the file and how much of it is on disk.
    fn check(pieces: &[&[u8]], most_on_disk: u64) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut writer = SparseWriter::new(File::create(&path).unwrap());
        for piece in pieces {
            writer.write(piece).unwrap();
        }
        writer.finish().unwrap();
        let mut found = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == pieces.concat());
        let on_disk = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(on_disk <= most_on_disk, "{on_disk} on disk");
    }

    #[test]
    fn zeros_become_holes() {
        let zeros = vec![0; 4 << 20];
        check(&[], 0);
        check(&[&zeros], 0);
        check(&[b"a", &zeros, b"b"], 3 * HOLE_BYTES as u64);
        check(&[&zeros, b"end"], HOLE_BYTES as u64);
        check(&[b"start", &zeros], 2 * HOLE_BYTES as u64);
        check(&[&zeros[..100], b"x", &zeros[..100]], 4096);
    }
}
