//! The bytes of a manifest and its content id; docs/formats/layer-manifest.md.

use crate::digest::{FileDigest, LayerId};
use crate::manifest::entry::{Entry, Kind, Meta, Mtime, Xattrs};
use crate::manifest::layer::Manifest;
use crate::path::TreePath;
use crate::wire::{DecodeError, Reader, Writer};

const MAGIC: &[u8; 8] = b"kilnman0";
const ID_CONTEXT: &str = "kiln layer v0";
/// Path, kind, mode, uid, gid, mtime and the xattr count, with nothing in them.
const LEAST_ENTRY_BYTES: usize = 4 + 1 + 12 + 12 + 4;

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const HARDLINK: u8 = 7;
const WHITEOUT: u8 = 8;
const OPAQUE: u8 = 9;
const PASSING: u8 = 10;

pub(super) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(entries.len() * 128 + 12));
    out.raw(MAGIC);
    out.count(entries.len());
    for entry in entries {
        write_entry(&mut out, entry);
        out.i64(entry.meta.mtime.seconds);
        out.u32(entry.meta.mtime.nanos);
    }
    out.0
}

pub(super) fn id(entries: &[Entry]) -> LayerId {
    let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
    let mut out = Writer::default();
    out.count(entries.len());
    for entry in entries {
        write_entry(&mut out, entry);
        if out.0.len() > 64 << 10 {
            hasher.update(&out.0);
            out.0.clear();
        }
    }
    hasher.update(&out.0);
    LayerId(*hasher.finalize().as_bytes())
}

/// Writes all of an entry but its time.
fn write_entry(out: &mut Writer, entry: &Entry) {
    out.bytes(entry.path.as_bytes());
    match &entry.kind {
        Kind::File { size, digest } => {
            out.u8(FILE);
            out.u64(*size);
            out.raw(&digest.0);
        }
        Kind::Directory { opaque, passing } => out.u8(match (opaque, passing) {
            (true, _) => OPAQUE,
            (_, true) => PASSING,
            _ => DIRECTORY,
        }),
        Kind::Symlink { target } => {
            out.u8(SYMLINK);
            out.bytes(target);
        }
        Kind::CharDevice { major, minor } => {
            out.u8(CHAR_DEVICE);
            out.u32(*major);
            out.u32(*minor);
        }
        Kind::BlockDevice { major, minor } => {
            out.u8(BLOCK_DEVICE);
            out.u32(*major);
            out.u32(*minor);
        }
        Kind::Fifo => out.u8(FIFO),
        Kind::Hardlink { to } => {
            out.u8(HARDLINK);
            out.bytes(to.as_bytes());
        }
        Kind::Whiteout => out.u8(WHITEOUT),
    }
    out.u32(entry.meta.mode);
    out.u32(entry.meta.uid);
    out.u32(entry.meta.gid);
    out.count(entry.meta.xattrs.len());
    for (name, value) in &entry.meta.xattrs {
        out.bytes(name);
        out.bytes(value);
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, DecodeError> {
    let mut input = Reader::new("layer manifest", bytes);
    input.magic(MAGIC)?;
    let count = input.count(LEAST_ENTRY_BYTES)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(read_entry(&mut input)?);
    }
    let broken = input.error("its entries contradict each other");
    input.finish()?;
    Manifest::from_sorted(entries).map_err(|_| broken)
}

fn read_path(input: &mut Reader<'_>) -> Result<TreePath, DecodeError> {
    TreePath::new(input.bytes()?).map_err(|_| input.error("a path is not normal"))
}

fn read_entry(input: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let path = read_path(input)?;
    let kind = match input.u8()? {
        FILE => Kind::File {
            size: input.u64()?,
            digest: FileDigest(input.array()?),
        },
        DIRECTORY => Kind::DIRECTORY,
        OPAQUE => Kind::Directory {
            opaque: true,
            passing: false,
        },
        PASSING => Kind::Directory {
            opaque: false,
            passing: true,
        },
        SYMLINK => Kind::Symlink {
            target: input.bytes()?.to_vec(),
        },
        CHAR_DEVICE => Kind::CharDevice {
            major: input.u32()?,
            minor: input.u32()?,
        },
        BLOCK_DEVICE => Kind::BlockDevice {
            major: input.u32()?,
            minor: input.u32()?,
        },
        FIFO => Kind::Fifo,
        HARDLINK => Kind::Hardlink {
            to: read_path(input)?,
        },
        WHITEOUT => Kind::Whiteout,
        _ => return Err(input.error("an entry has an unknown kind")),
    };
    let (mode, uid, gid) = (input.u32()?, input.u32()?, input.u32()?);
    let xattrs = read_xattrs(input)?;
    let mtime = Mtime {
        seconds: input.i64()?,
        nanos: input.u32()?,
    };
    Ok(Entry {
        path,
        kind,
        meta: Meta {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        },
    })
}

fn read_xattrs(input: &mut Reader<'_>) -> Result<Xattrs, DecodeError> {
    let mut xattrs = Xattrs::new();
    for _ in 0..input.count(8)? {
        let name = input.bytes()?;
        if xattrs
            .last_key_value()
            .is_some_and(|(last, _)| last.as_slice() >= name)
        {
            return Err(input.error("extended attributes are out of order"));
        }
        xattrs.insert(name.to_vec(), input.bytes()?.to_vec());
    }
    Ok(xattrs)
}
