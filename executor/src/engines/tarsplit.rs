//! Layers that an engine keeps unpacked, put together again to the archives that they came from.
//!
//! Beside the files of a layer its engine keeps the rest of the archive, byte for byte (the format is that
//! of github.com/vbatts/tar-split): lines of JSON, each a piece of bytes or the name of a file whose bytes
//! follow. Nothing proves that the files are still what they were but the layer's diff id.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::MultiGzDecoder;
use kiln_tree::handle::READ;
use serde::Deserialize;

use crate::error::Error;

/// The longest line: a piece holds headers, and the padding after a file.
const LINE_LIMIT_BYTES: u64 = 16 << 20;

/// A layer that is kept in this way.
#[derive(Debug, Clone)]
pub(crate) struct SplitLayer {
    /// What it is called in messages.
    pub(crate) name: String,
    /// The lines, compressed.
    pub(crate) lines: PathBuf,
    /// The directory of its files.
    pub(crate) files: PathBuf,
    /// How long the archive is, as far as the engine says.
    pub(crate) size_bytes: Option<u64>,
}

impl SplitLayer {
    /// Opens the archive.
    pub(crate) fn open(&self) -> Result<Joined, Error> {
        let lines = File::open(&self.lines).map_err(Error::io("open", &self.lines))?;
        let files = open_directory(&self.files).map_err(Error::io("open", &self.files))?;
        let lines = BufReader::new(MultiGzDecoder::new(BufReader::new(lines)));
        Ok(Joined {
            lines: Box::new(lines),
            files,
            part: Part::Bytes(io::Cursor::new(Vec::new())),
        })
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The archive, as a reader.
pub(crate) struct Joined {
    lines: Box<dyn BufRead + Send>,
    files: OwnedFd,
    part: Part,
}

enum Part {
    Bytes(io::Cursor<Vec<u8>>),
    File { name: String, rest: io::Take<File> },
    End,
}

/// A line.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u32,
    name: Option<String>,
    /// Where the name is no UTF-8.
    name_raw: Option<String>,
    size: Option<u64>,
    /// The bytes of a piece; the checksum of a file, which nobody needs here.
    payload: Option<String>,
}

const KIND_FILE: u32 = 1;
const KIND_PIECE: u32 = 2;

impl Joined {
    /// Reads the next line that stands for bytes.
    fn next(&mut self) -> io::Result<Part> {
        loop {
            let mut line = Vec::new();
            let mut limited = Read::by_ref(&mut self.lines).take(LINE_LIMIT_BYTES);
            limited.read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(Part::End);
            }
            let malformed = |what: &str| {
                let words = format!("the layer's list of pieces is malformed: {what}");
                io::Error::new(io::ErrorKind::InvalidData, words)
            };
            let line: Line =
                serde_json::from_slice(&line).map_err(|error| malformed(&error.to_string()))?;
            let decode = |text: &str| {
                STANDARD
                    .decode(text)
                    .map_err(|error| malformed(&error.to_string()))
            };
            match line.kind {
                KIND_PIECE => {
                    let payload = line.payload.unwrap_or_default();
                    return Ok(Part::Bytes(io::Cursor::new(decode(&payload)?)));
                }
                KIND_FILE => {
                    let size = line.size.unwrap_or(0);
                    if size == 0 {
                        continue;
                    }
                    let path = match (&line.name_raw, line.name) {
                        (Some(raw), _) => decode(raw)?,
                        (None, Some(name)) => name.into_bytes(),
                        (None, None) => return Err(malformed("a file has no name")),
                    };
                    return self.open(&path, size);
                }
                kind => return Err(malformed(&format!("there is no kind {kind}"))),
            }
        }
    }

    fn open(&self, path: &[u8], size: u64) -> io::Result<Part> {
        let name = String::from_utf8_lossy(path).into_owned();
        let wrong = |error: io::Error| io::Error::new(error.kind(), format!("`{name}`: {error}"));
        let opened = kiln_tree::resolve::open(&self.files, path, READ);
        let file = File::from(opened.map_err(|error| wrong(io::Error::other(error)))?);
        let meta = file.metadata().map_err(wrong)?;
        if !meta.is_file() || meta.len() != size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("`{name}` is no file of {size} bytes any more"),
            ));
        }
        Ok(Part::File {
            name,
            rest: file.take(size),
        })
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.part {
                Part::Bytes(bytes) => match bytes.read(buffer)? {
                    0 => {}
                    count => return Ok(count),
                },
                Part::File { name, rest } => match rest.read(buffer)? {
                    0 if rest.limit() > 0 => {
                        let words = format!("`{name}` ends too soon");
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, words));
                    }
                    0 => {}
                    count => return Ok(count),
                },
                Part::End => return Ok(0),
            }
            self.part = self.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A layer with one file `a/b` of these bytes, and these lines.
    fn layer(folder: &Path, content: &[u8], lines: &[String]) -> SplitLayer {
        std::fs::create_dir_all(folder.join("files/a")).unwrap();
        std::fs::write(folder.join("files/a/b"), content).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.join("files/out")).unwrap();
        let file = File::create(folder.join("lines.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(lines.join("\n").as_bytes()).unwrap();
        gzip.finish().unwrap();
        SplitLayer {
            name: "layer".to_owned(),
            lines: folder.join("lines.gz"),
            files: folder.join("files"),
            size_bytes: None,
        }
    }

    fn piece(bytes: &[u8]) -> String {
        format!(
            r#"{{"type":2,"payload":"{}","position":0}}"#,
            STANDARD.encode(bytes)
        )
    }

    fn file(name: &str, size: u64) -> String {
        format!(
            r#"{{"type":1,"name":"{name}","size":{size},"payload":"AAAAAAAAAAA=","position":1}}"#
        )
    }

    fn check(lines: &[String], expected: Result<&[u8], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let layer = layer(folder.path(), b"hello", lines);
        let mut bytes = Vec::new();
        let read = layer.open().unwrap().read_to_end(&mut bytes);
        match (read, expected) {
            (Ok(_), Ok(expected)) => assert_eq!(bytes, expected),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (read, expected) => panic!("{read:?} where {expected:?}"),
        }
    }

    #[test]
    fn pieces_and_files_alternate() {
        let lines = [piece(b"<"), file("./a/b", 5), piece(b">"), piece(b"")];
        check(&lines, Ok(b"<hello>"));
        check(&[], Ok(b""));
        let empty = r#"{"type":1,"name":"dir/","payload":null,"position":1}"#;
        check(&[empty.to_owned(), piece(b"x")], Ok(b"x"));
        let raw = r#"{"type":1,"name_raw":"YS9i","size":5}"#;
        check(&[raw.to_owned()], Ok(b"hello"));
    }

    #[test]
    fn files_that_are_gone_or_changed_are_no_layer() {
        check(&[file("a/b", 6)], Err("is no file of 6 bytes any more"));
        check(&[file("a", 5)], Err("is no file of 5 bytes any more"));
        check(&[file("a/c", 5)], Err("`a/c`"));
    }

    #[test]
    fn nothing_leads_out_of_the_layer() {
        check(&[file("../files/../../x", 5)], Err("x`"));
        check(&[file("out", 5)], Err("out`"));
        check(&[file("/etc/passwd", 5)], Err("/etc/passwd`"));
    }

    #[test]
    fn malformed_lines() {
        check(&["{".to_owned()], Err("malformed"));
        check(&[r#"{"type":3}"#.to_owned()], Err("there is no kind 3"));
        check(
            &[r#"{"type":1,"size":5}"#.to_owned()],
            Err("a file has no name"),
        );
        check(
            &[r#"{"type":2,"payload":"?"}"#.to_owned()],
            Err("malformed"),
        );
    }
}
