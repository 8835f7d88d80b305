//! A layer as an archive, the same bytes for the same manifest and options.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tar::EntryType;

use crate::handle::{self, FsError, READ_BYTES};
use crate::manifest::{Entry, Kind, Manifest, Meta, Mtime};
use crate::path::{self, TreePath};
use crate::tar::{OPAQUE, WHITEOUT};

const BLOCK: usize = 512;
/// What eleven octal digits hold.
const MOST_SIZE: u64 = 0o77_777_777_777;
/// What seven octal digits hold.
const MOST_ID: u32 = 0o7_777_777;

/// Which modification times an archive has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtimePolicy {
    /// Those of the manifest.
    #[default]
    Keep,
    /// Those of the manifest, but none after this epoch.
    Clamp(i64),
    /// This epoch.
    Fixed(i64),
}

/// How to write an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Which times.
    pub mtime: MtimePolicy,
    /// Whether times keep their nanoseconds, at a KiB an entry; the field's own tools cut them.
    pub nanoseconds: bool,
}

/// Where the bytes of a manifest's files are.
pub trait FileSource {
    /// Opens the file of entry number `index`, at `path`, for reading.
    fn open(&self, index: usize, path: &TreePath) -> io::Result<OwnedFd>;
}

/// The files of a layer's own directory.
#[derive(Debug)]
pub struct DirectoryFiles<'a>(pub BorrowedFd<'a>);

/// The files of [`Changes`](crate::Changes), each in the directory of its layer.
#[derive(Debug)]
pub struct LayersFiles<'a> {
    /// The directories of the upper view's layers, lowest first.
    pub layers: &'a [OwnedFd],
    /// The changes' origins.
    pub origins: &'a [Option<usize>],
}

/// A layer cannot be written as an archive.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file of the layer cannot be read.
    #[error("could not read `{path}` of the layer")]
    Read {
        /// The file.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file on disk has another size than the manifest says.
    #[error("`{path}` of the layer has {actual} bytes on disk and {expected} in the manifest")]
    Size {
        /// The file.
        path: TreePath,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes on disk, counted up to one more than expected.
        actual: u64,
    },
    /// A path means something else in a layer archive.
    #[error("`{0}` cannot be in a layer archive, where names that begin with `.wh.` are deletions")]
    Name(TreePath),
    /// The output takes no more.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
}

/// Writes `manifest` as an OCI layer archive.
///
/// The bytes are a function of the manifest and the options alone. Entries are in path order,
/// deletions are `.wh.NAME`, an opaque directory is directly followed by `.wh..wh..opq`. Headers
/// are ustar; PAX records stand only where ustar has no room.
pub fn write_layer(
    manifest: &Manifest,
    files: &dyn FileSource,
    options: &WriteOptions,
    out: &mut impl Write,
) -> Result<(), WriteError> {
    let out = BufWriter::with_capacity(READ_BYTES, out);
    let mut writer = Writer {
        out,
        options,
        buffer: vec![0; READ_BYTES],
    };
    for (index, entry) in manifest.entries().iter().enumerate() {
        if entry.path.name().starts_with(WHITEOUT) {
            return Err(WriteError::Name(entry.path.clone()));
        }
        writer.entry(index, entry, files)?;
    }
    writer
        .out
        .write_all(&[0; 2 * BLOCK])
        .map_err(WriteError::Write)?;
    writer.out.flush().map_err(WriteError::Write)
}

struct Writer<'a, W: Write> {
    out: BufWriter<W>,
    options: &'a WriteOptions,
    buffer: Vec<u8>,
}

/// What a header says, before it is known where it fits.
struct Head<'a> {
    path: Vec<u8>,
    link: &'a [u8],
    entry_type: EntryType,
    size: u64,
    device: (u32, u32),
}

impl<W: Write> Writer<'_, W> {
    fn entry(
        &mut self,
        index: usize,
        entry: &Entry,
        files: &dyn FileSource,
    ) -> Result<(), WriteError> {
        let path = entry.path.as_bytes();
        let plain = |entry_type| Head {
            path: path.to_vec(),
            link: b"",
            entry_type,
            size: 0,
            device: (0, 0),
        };
        let head = match &entry.kind {
            Kind::File { size, .. } => Head {
                size: *size,
                ..plain(EntryType::Regular)
            },
            Kind::Directory { .. } => Head {
                path: directory(path),
                ..plain(EntryType::Directory)
            },
            Kind::Symlink { target } => Head {
                link: target,
                ..plain(EntryType::Symlink)
            },
            Kind::CharDevice { major, minor } => Head {
                device: (*major, *minor),
                ..plain(EntryType::Char)
            },
            Kind::BlockDevice { major, minor } => Head {
                device: (*major, *minor),
                ..plain(EntryType::Block)
            },
            Kind::Fifo => plain(EntryType::Fifo),
            Kind::Hardlink { to } => Head {
                link: to.as_bytes(),
                ..plain(EntryType::Link)
            },
            Kind::Whiteout => Head {
                path: whiteout(path),
                ..plain(EntryType::Regular)
            },
        };
        self.head(&head, &entry.meta)?;
        if let Kind::File { size, .. } = entry.kind {
            self.body(index, &entry.path, size, files)?;
        }
        if matches!(entry.kind, Kind::Directory { opaque: true, .. }) {
            let mark = entry.path.child(OPAQUE).as_bytes().to_vec();
            let meta = Meta {
                mtime: entry.meta.mtime,
                ..Meta::default()
            };
            self.head(
                &Head {
                    path: mark,
                    ..plain(EntryType::Regular)
                },
                &meta,
            )?;
        }
        Ok(())
    }

    fn head(&mut self, head: &Head<'_>, meta: &Meta) -> Result<(), WriteError> {
        let mtime = self.options.mtime(meta.mtime);
        let mut records = Vec::new();
        let mut pax = |key: &[u8], value: &[u8]| append_record(&mut records, key, value);
        if head.path.len() > 100 || !head.path.is_ascii() {
            pax(b"path", &head.path);
        }
        if head.link.len() > 100 || !head.link.is_ascii() {
            pax(b"linkpath", head.link);
        }
        if head.size > MOST_SIZE {
            pax(b"size", head.size.to_string().as_bytes());
        }
        if meta.uid > MOST_ID {
            pax(b"uid", meta.uid.to_string().as_bytes());
        }
        if meta.gid > MOST_ID {
            pax(b"gid", meta.gid.to_string().as_bytes());
        }
        if mtime.nanos != 0 || !(0..=MOST_SIZE as i64).contains(&mtime.seconds) {
            pax(b"mtime", pax_time(mtime).as_bytes());
        }
        for (name, value) in &meta.xattrs {
            pax(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            let header = Header {
                name: b"PaxHeaders.0/x",
                link: b"",
                entry_type: EntryType::XHeader,
                size: records.len() as u64,
                device: (0, 0),
                mode: 0o644,
                owner: (0, 0),
                seconds: 0,
            };
            self.block(&header)?;
            self.out.write_all(&records).map_err(WriteError::Write)?;
            self.pad(records.len() as u64)?;
        }
        self.block(&Header {
            name: &head.path,
            link: head.link,
            entry_type: head.entry_type,
            // Readers that know no PAX would take a cut-off size for the truth.
            size: if head.size > MOST_SIZE { 0 } else { head.size },
            device: head.device,
            mode: meta.mode,
            owner: (meta.uid, meta.gid),
            seconds: mtime.seconds,
        })
    }

    fn block(&mut self, header: &Header<'_>) -> Result<(), WriteError> {
        let block = header.to_block();
        self.out
            .write_all(block.as_bytes())
            .map_err(WriteError::Write)
    }

    fn body(
        &mut self,
        index: usize,
        path: &TreePath,
        expected: u64,
        files: &dyn FileSource,
    ) -> Result<(), WriteError> {
        let failed = |source| WriteError::Read {
            path: path.clone(),
            source,
        };
        let file = File::from(files.open(index, path).map_err(failed)?);
        let wrong = |actual| WriteError::Size {
            path: path.clone(),
            expected,
            actual,
        };
        let mut done = 0;
        loop {
            let length = match (&file).read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            done += length as u64;
            if done > expected {
                return Err(wrong(done));
            }
            self.out
                .write_all(&self.buffer[..length])
                .map_err(WriteError::Write)?;
            if done == expected && length < self.buffer.len() {
                break;
            }
        }
        if done != expected {
            return Err(wrong(done));
        }
        self.pad(expected)
    }

    fn pad(&mut self, size: u64) -> Result<(), WriteError> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.out
            .write_all(&[0; BLOCK][..padding])
            .map_err(WriteError::Write)
    }
}

impl WriteOptions {
    fn mtime(&self, kept: Mtime) -> Mtime {
        let mtime = match self.mtime {
            MtimePolicy::Keep => kept,
            MtimePolicy::Clamp(epoch) => kept.min(Mtime {
                seconds: epoch,
                nanos: 0,
            }),
            MtimePolicy::Fixed(epoch) => Mtime {
                seconds: epoch,
                nanos: 0,
            },
        };
        if self.nanoseconds {
            mtime
        } else {
            Mtime { nanos: 0, ..mtime }
        }
    }
}

/// The fields of a ustar header; what does not fit is in PAX records and cut off here.
struct Header<'a> {
    name: &'a [u8],
    link: &'a [u8],
    entry_type: EntryType,
    size: u64,
    device: (u32, u32),
    mode: u32,
    owner: (u32, u32),
    seconds: i64,
}

impl Header<'_> {
    fn to_block(&self) -> tar::Header {
        let mut block = tar::Header::new_ustar();
        cut(&mut block.as_old_mut().name, self.name);
        cut(&mut block.as_old_mut().linkname, self.link);
        block.set_entry_type(self.entry_type);
        block.set_size(self.size);
        block.set_mode(self.mode);
        block.set_uid(u64::from(if self.owner.0 > MOST_ID {
            0
        } else {
            self.owner.0
        }));
        block.set_gid(u64::from(if self.owner.1 > MOST_ID {
            0
        } else {
            self.owner.1
        }));
        block.set_mtime(self.seconds.clamp(0, MOST_SIZE as i64) as u64);
        if let Some(ustar) = block.as_ustar_mut() {
            ustar.set_device_major(self.device.0);
            ustar.set_device_minor(self.device.1);
        }
        block.set_cksum();
        block
    }
}

fn cut(field: &mut [u8; 100], bytes: &[u8]) {
    let ascii = bytes
        .iter()
        .map(|byte| if byte.is_ascii() { *byte } else { b'?' });
    for (to, from) in field.iter_mut().zip(ascii) {
        *to = from;
    }
}

fn append_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn pax_time(mtime: Mtime) -> String {
    let (sign, seconds, nanos) = match (mtime.seconds < 0, mtime.nanos) {
        (true, 0) => ("-", mtime.seconds.unsigned_abs(), 0),
        (true, nanos) => (
            "-",
            (mtime.seconds + 1).unsigned_abs(),
            1_000_000_000 - nanos,
        ),
        (false, nanos) => ("", mtime.seconds.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn directory(path: &[u8]) -> Vec<u8> {
    let name = if path.is_empty() { b"." } else { path };
    [name, b"/"].concat()
}

fn whiteout(path: &[u8]) -> Vec<u8> {
    let (dir, name) = path::split(path);
    let mark = [WHITEOUT, name].concat();
    if dir.is_empty() {
        mark
    } else {
        [dir, b"/", &mark].concat()
    }
}

impl FileSource for DirectoryFiles<'_> {
    fn open(&self, _: usize, path: &TreePath) -> io::Result<OwnedFd> {
        open_in(self.0, path)
    }
}

impl FileSource for LayersFiles<'_> {
    fn open(&self, index: usize, path: &TreePath) -> io::Result<OwnedFd> {
        let origin = self.origins.get(index).copied().flatten();
        let layer = origin.and_then(|origin| self.layers.get(origin));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no layer holds the file");
        open_in(layer.ok_or_else(missing)?.as_fd(), path)
    }
}

fn open_in(dir: BorrowedFd<'_>, path: &TreePath) -> io::Result<OwnedFd> {
    handle::open_beneath(dir, path.as_bytes(), handle::READ).map_err(|error| match error {
        FsError::Io { source, .. } => source,
        FsError::Path(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}
