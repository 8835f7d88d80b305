//! Archives as people hand them in: what they are compressed with shows in their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use flate2::bufread::GzDecoder;

/// Compressed input is read in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;
/// The longest of the marks that formats begin with.
const MAGIC_BYTES: usize = 6;
/// What an xz stream may ask for: four times what `xz -9` does.
const XZ_MEMORY_BYTES: u64 = 256 << 20;
/// How a gzip member begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// A tar header.
const BLOCK_BYTES: usize = 512;

/// Returns a reader of what `input` holds, decompressed by what its first bytes say.
pub(crate) fn decompress(input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    // A slow transfer may bring the first bytes one by one.
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    let mut input = input;
    Read::by_ref(&mut input)
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(input);
    let input = BufReader::with_capacity(BUFFER_BYTES, whole);
    Ok(match head[..] {
        [first, second, ..] if [first, second] == GZIP_MAGIC => {
            Box::new(GzipMembers(Some(GzDecoder::new(input))))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(input)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, flags)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        _ => Box::new(input),
    })
}

/// Reads gzip members one after the other. What follows the last and is none counts for nothing, as with gzip itself:
/// tapes and some writers leave zeros there.
struct GzipMembers<R: BufRead>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Some(mut rest) = self.0.take().map(GzDecoder::into_inner) else {
                break;
            };
            // The second byte may lie in the next piece of the input.
            if rest.fill_buf()?.first() == Some(&GZIP_MAGIC[0]) {
                self.0 = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Returns a reader of the tar archive that `file` is, perhaps compressed; nothing if it is none.
///
/// As docker does, the first header decides: its checksum must hold.
pub(crate) fn tar_reader(mut file: File) -> Option<Box<dyn Read + Send>> {
    let probe = file.try_clone().ok()?;
    let head = first_block(&mut decompress(probe).ok()?).ok()?;
    file.rewind().ok()?;
    if is_tar(&head) {
        decompress(file).ok()
    } else {
        None
    }
}

/// Reads the first block of what may be a tar archive.
pub(crate) fn first_block(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(BLOCK_BYTES);
    reader.take(BLOCK_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether this is the first block of a tar archive.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    head.len() == BLOCK_BYTES && checksum_holds(head)
}

/// Whether a block is a tar header: the sum of its bytes, with blanks for the sum itself.
fn checksum_holds(block: &[u8]) -> bool {
    let field = &block[148..156];
    let text: String = field
        .iter()
        .map(|&byte| byte as char)
        .filter(char::is_ascii_digit)
        .collect();
    let Ok(written) = u32::from_str_radix(&text, 8) else {
        return false;
    };
    let blanks = u32::from(b' ') * 8;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    let without = sum - field.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    !text.is_empty() && without + blanks == written
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        builder
            .append_data(&mut header, "file", &b"hello"[..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    fn check(bytes: &[u8], is_tar: bool) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let reader = tar_reader(file);
        assert_eq!(reader.is_some(), is_tar);
        if let Some(mut reader) = reader {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, archive());
        }
    }

    #[test]
    fn archives_are_known_by_their_bytes() {
        let plain = archive();
        check(&plain, true);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let gz = gz.finish().unwrap();
        check(&gz, true);
        check(&[&gz[..], &[0; 700]].concat(), true);
        check(&[&gz[..], b"garbage"].concat(), true);
        let half = |part: &[u8]| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(part).unwrap();
            gz.finish().unwrap()
        };
        let (one, two) = plain.split_at(700);
        check(&[half(one), half(two)].concat(), true);
        check(&zstd::encode_all(&plain[..], 1).unwrap(), true);
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&plain).unwrap();
        check(&bz.finish().unwrap(), true);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        check(&xz.finish().unwrap(), true);
    }

    /// Gives one byte at a time.
    struct Trickle(io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    #[test]
    fn slow_archives_are_known_too() {
        let plain = archive();
        for bytes in [plain.clone(), zstd::encode_all(&plain[..], 1).unwrap()] {
            let mut all = Vec::new();
            decompress(Trickle(io::Cursor::new(bytes)))
                .unwrap()
                .read_to_end(&mut all)
                .unwrap();
            assert_eq!(all, plain);
        }
    }

    #[test]
    fn other_files_are_none() {
        check(b"", false);
        check(b"#!/bin/sh\necho hello\n", false);
        check(&[0; 1024], false);
        check(&[0x1f, 0x8b, 0, 0, 1, 2, 3], false);
    }
}
