//! The documents of an export of cache mounts; docs/formats/mount-export.md.

use std::io::Read;

use kiln_oci::document::{Descriptor, Manifest as OciManifest};
use kiln_oci::media_type::Flavor;
use kiln_tree::{FileDigest, Kind, Manifest};
use serde::{Deserialize, Serialize};

/// The artifact type of an export's manifest.
pub(crate) const ARTIFACT: &str = "application/vnd.kiln.mounts.v0";
/// The media type of its config.
pub(crate) const CONFIG: &str = "application/vnd.kiln.mounts.config.v0+json";
/// The media type of a mount's tree.
pub(crate) const TREE: &str = "application/vnd.kiln.mounts.tree.v0+zstd";
/// The media type of a pack.
pub(crate) const PACK: &str = "application/vnd.kiln.mounts.pack.v0+zstd";

/// The version of all that is here.
pub(crate) const VERSION: u64 = 0;

/// What a pack holds at most, decompressed.
pub(crate) const PACK_LIMIT_BYTES: u64 = 16 << 20;
/// What a tree has at most, decompressed, and as it is.
const TREE_LIMIT_BYTES: u64 = 128 << 20;
/// What a config has at most.
pub(crate) const CONFIG_LIMIT_BYTES: u64 = 4 << 20;
/// What all files of a mount hold at most, holes included, since each byte is hashed.
const MOUNT_LIMIT_BYTES: u64 = 1 << 40;
/// The longest id.
const ID_LIMIT_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"kilnmnt0";
/// Stands for a chunk of nothing but zeros, which no pack has.
const ZEROS: u32 = u32::MAX;

/// The config of an export: which mounts there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) version: u64,
    pub(crate) mounts: Vec<ExportedTree>,
}

/// One mount of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExportedTree {
    pub(crate) id: String,
    /// When its picture was taken, in milliseconds since 1970.
    pub(crate) taken: u64,
    pub(crate) files: u64,
    /// What its files hold, each hard link group counted once.
    pub(crate) bytes: u64,
    pub(crate) tree: Descriptor,
    pub(crate) packs: Vec<Pack>,
}

/// A blob of compressed chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pack {
    pub(crate) digest: kiln_oci::digest::Sha256Digest,
    pub(crate) size: u64,
    /// Decompressed.
    pub(crate) bytes: u64,
}

impl Pack {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(PACK, self.digest, self.size)
    }
}

impl Config {
    /// Reads a config, and checks all that it says by itself.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Config, String> {
        let config: Config =
            serde_json::from_slice(bytes).map_err(|error| format!("its config is {error}"))?;
        for (index, mount) in config.mounts.iter().enumerate() {
            let id = &mount.id;
            if id.is_empty() || id.len() > ID_LIMIT_BYTES || id.contains('\0') {
                return Err("its config has an impossible id".to_owned());
            }
            if index > 0 && config.mounts[index - 1].id >= *id {
                return Err("its mounts are out of order".to_owned());
            }
            if mount.packs.iter().any(|pack| pack.bytes > PACK_LIMIT_BYTES) {
                return Err(format!("a pack of `{id}` is too large"));
            }
            if mount.tree.size > TREE_LIMIT_BYTES {
                return Err(format!("the tree of `{id}` is too large"));
            }
        }
        Ok(config)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("BUG: a config cannot be written as JSON")
    }

    /// Takes each of `new` in place of one of the same id, unless that is younger.
    pub(crate) fn with(mut self, new: &[ExportedTree]) -> Config {
        for mount in new {
            match self.mounts.binary_search_by(|old| old.id.cmp(&mount.id)) {
                Ok(at) if self.mounts[at].taken <= mount.taken => self.mounts[at] = mount.clone(),
                Ok(_) => {}
                Err(at) => self.mounts.insert(at, mount.clone()),
            }
        }
        self
    }

    /// Whether each of `new`, or a younger one of its id, is in here.
    pub(crate) fn covers(&self, new: &[ExportedTree]) -> bool {
        new.iter().all(|mount| {
            let mut there = self.mounts.iter().filter(|old| old.id == mount.id);
            there.any(|old| old == mount || old.taken > mount.taken)
        })
    }

    /// The manifest of an export with this config: trees first, then packs, each once.
    pub(crate) fn manifest(&self, config: Descriptor) -> OciManifest {
        let mut layers: Vec<Descriptor> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let trees = self.mounts.iter().map(|mount| mount.tree.clone());
        let packs = self.mounts.iter().flat_map(|mount| &mount.packs);
        for blob in trees.chain(packs.map(Pack::descriptor)) {
            if seen.insert(blob.digest) {
                layers.push(blob);
            }
        }
        let mut manifest = OciManifest::new(Flavor::Oci, config, layers);
        manifest.artifact_type = ARTIFACT.to_owned();
        manifest
    }
}

/// Where a chunk's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) digest: FileDigest,
    /// Which of the mount's packs.
    pub(crate) pack: u32,
    /// Where in it, decompressed.
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// This chunk, by its number.
    Chunk(u32),
    /// So many zeros.
    Zeros(u32),
}

/// What is in a mount, and which chunks its files are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) manifest: Manifest,
    pub(crate) chunks: Vec<Chunk>,
    /// The parts of each regular file, in the order of the manifest.
    pub(crate) files: Vec<Vec<Part>>,
}

impl Tree {
    /// The bytes of the tree blob, compressed; none if nobody would read so much.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = self.encode_plain();
        if bytes.len() as u64 > TREE_LIMIT_BYTES || check(&self.manifest).is_err() {
            return None;
        }
        let packed = zstd::bulk::compress(&bytes, LEVEL);
        Some(packed.expect("BUG: memory cannot be compressed"))
    }

    fn encode_plain(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let number = |value: usize| {
            let value = u32::try_from(value).expect("BUG: a tree of 2^32 parts");
            value.to_be_bytes()
        };
        let manifest = self.manifest.encode();
        out.extend(number(manifest.len()));
        out.extend(manifest);
        out.extend(number(self.chunks.len()));
        for chunk in &self.chunks {
            out.extend(chunk.digest.0);
            for value in [chunk.pack, chunk.offset, chunk.length] {
                out.extend(value.to_be_bytes());
            }
        }
        for file in &self.files {
            out.extend(number(file.len()));
            for part in file {
                match part {
                    Part::Chunk(index) => out.extend(index.to_be_bytes()),
                    Part::Zeros(length) => {
                        out.extend(ZEROS.to_be_bytes());
                        out.extend(length.to_be_bytes());
                    }
                }
            }
        }
        out
    }

    /// Reads a tree blob and checks it against the packs that its mount has.
    pub(crate) fn decode(blob: &[u8], packs: &[Pack]) -> Result<Tree, String> {
        let bytes = decompress(blob, TREE_LIMIT_BYTES)?;
        Self::decode_plain(&bytes, packs).map_err(|reason| format!("its tree {reason}"))
    }

    fn decode_plain(bytes: &[u8], packs: &[Pack]) -> Result<Tree, String> {
        let mut input = Input(bytes);
        if input.take(MAGIC.len())? != MAGIC {
            return Err("has another format".to_owned());
        }
        let length = input.number()? as usize;
        let manifest = Manifest::decode(input.take(length)?).map_err(|error| error.to_string())?;
        check(&manifest)?;
        let count = input.count(CHUNK_BYTES)?;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let mut digest = [0; 32];
            digest.copy_from_slice(input.take(32)?);
            let chunk = Chunk {
                digest: FileDigest(digest),
                pack: input.number()?,
                offset: input.number()?,
                length: input.number()?,
            };
            let room = packs.get(chunk.pack as usize).map_or(0, |pack| pack.bytes);
            let end = u64::from(chunk.offset) + u64::from(chunk.length);
            if chunk.length == 0 || end > room {
                return Err("has a chunk that lies in no pack".to_owned());
            }
            chunks.push(chunk);
        }
        let mut files = Vec::new();
        for (size, digest) in regular(&manifest) {
            files.push(read_file(&mut input, size, digest, &chunks)?);
        }
        match input.0 {
            [] => Ok(Tree {
                manifest,
                chunks,
                files,
            }),
            _ => Err("has bytes behind its end".to_owned()),
        }
    }

    /// What the chunks of its files hold, each file's counted.
    pub(crate) fn data_bytes(&self) -> u64 {
        let length = |part: &Part| match part {
            Part::Chunk(index) => u64::from(self.chunks[*index as usize].length),
            Part::Zeros(_) => 0,
        };
        self.files
            .iter()
            .flatten()
            .map(length)
            .fold(0, u64::saturating_add)
    }
}

const CHUNK_BYTES: usize = 32 + 3 * 4;
/// How trees and packs are compressed.
pub(crate) const LEVEL: i32 = 3;

/// Sizes and digests of the regular files, in order.
pub(crate) fn regular(manifest: &Manifest) -> impl Iterator<Item = (u64, FileDigest)> {
    manifest
        .entries()
        .iter()
        .filter_map(|entry| match entry.kind {
            Kind::File { size, digest } => Some((size, digest)),
            _ => None,
        })
}

fn read_file(
    input: &mut Input<'_>,
    size: u64,
    digest: FileDigest,
    chunks: &[Chunk],
) -> Result<Vec<Part>, String> {
    let count = input.count(4)?;
    let mut parts = Vec::with_capacity(count);
    let mut held: u64 = 0;
    for _ in 0..count {
        let part = match input.number()? {
            ZEROS => Part::Zeros(input.number()?),
            index => Part::Chunk(index),
        };
        let length = match part {
            Part::Zeros(length) => length,
            Part::Chunk(index) => {
                let chunk = chunks.get(index as usize);
                let chunk = chunk.ok_or("names a chunk that it has not")?;
                if count == 1 && chunk.digest != digest {
                    return Err("gives a file's only chunk another digest".to_owned());
                }
                chunk.length
            }
        };
        held = held.saturating_add(length.into());
        parts.push(part);
    }
    match held == size {
        true => Ok(parts),
        false => Err("gives a file another size than its chunks have".to_owned()),
    }
}

/// Errors unless a mount may hold what the manifest lists.
fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.get(b"").is_none() {
        return Err("has no root".to_owned());
    }
    if manifest.total_bytes() > MOUNT_LIMIT_BYTES {
        return Err("has files of more than 1 TiB".to_owned());
    }
    for entry in manifest.entries() {
        let refused = match entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
            Kind::Whiteout | Kind::Directory { opaque: true, .. } => "a deletion",
            _ => {
                let known = |name: &Vec<u8>| kiln_tree::marks::is_content_xattr(name);
                match entry.meta.xattrs.keys().all(known) {
                    true => continue,
                    false => "an extended attribute that is not content",
                }
            }
        };
        return Err(format!("has {refused} at `{}`", entry.path));
    }
    Ok(())
}

/// Decompresses something that may want to be endless.
pub(crate) fn decompress(blob: &[u8], limit_bytes: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("a blob cannot be decompressed: {error}");
    let decoder = zstd::Decoder::with_buffer(blob).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut limited = decoder.take(limit_bytes + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > limit_bytes {
        true => Err(format!(
            "a blob decompresses to more than {limit_bytes} bytes"
        )),
        false => Ok(bytes),
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, String> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(bytes))
    }

    /// A count of things of at least so many bytes, which must be there.
    fn count(&mut self, least_bytes: usize) -> Result<usize, String> {
        let count = self.number()? as usize;
        match count.checked_mul(least_bytes) {
            Some(bytes) if bytes <= self.0.len() => Ok(count),
            _ => Err("ends early".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
