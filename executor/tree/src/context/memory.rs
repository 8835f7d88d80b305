//! Digests of files remembered by what `stat` says of them; docs/formats/hash-memory.md.

use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Statx, StatxFlags};

use crate::digest::FileDigest;
use crate::handle::{FsError, FsResult};
use crate::manifest::Mtime;
use crate::wire::{DecodeError, Reader, Writer};

const MAGIC: &[u8; 8] = b"kilnmem0";
const KEY_BYTES: usize = 3 * 8 + 2 * 12;
/// What tells a file from others in a key: device and inode.
const FILE_BYTES: usize = 16;
const RECORD_BYTES: usize = KEY_BYTES + 32;

/// What `stat` says of a file that tells its bytes apart from other bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The file system, as the kernel numbers it.
    pub device: u64,
    /// The file on it.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// When its bytes changed, seconds and nanoseconds; anybody can set it.
    pub mtime: (i64, u32),
    /// When anything about it changed; only the kernel sets it.
    pub ctime: (i64, u32),
}

pub(super) const WANTED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::INO)
    .union(StatxFlags::NLINK)
    .union(StatxFlags::SIZE)
    .union(StatxFlags::MTIME)
    .union(StatxFlags::CTIME);

impl Seen {
    /// Returns what `stat` says of an open file now.
    pub fn of(file: impl AsFd) -> FsResult<Self> {
        rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, WANTED)
            .map(|stat| Self::from_stat(&stat))
            .map_err(|source| FsError::new("stat", b"", source))
    }

    pub(super) fn from_stat(stat: &Statx) -> Self {
        Self {
            device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// The modification time in the form that manifests have.
    pub fn modified(&self) -> Mtime {
        Mtime {
            seconds: self.mtime.0,
            nanos: self.mtime.1,
        }
    }

    fn key(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&self.device.to_be_bytes());
        key[8..16].copy_from_slice(&self.inode.to_be_bytes());
        key[16..24].copy_from_slice(&self.size.to_be_bytes());
        key[24..32].copy_from_slice(&self.mtime.0.to_be_bytes());
        key[32..36].copy_from_slice(&self.mtime.1.to_be_bytes());
        key[36..44].copy_from_slice(&self.ctime.0.to_be_bytes());
        key[44..].copy_from_slice(&self.ctime.1.to_be_bytes());
        key
    }
}

/// Remembered digests, kept as the sorted records that the file has, so that loading reads nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashMemory {
    records: Vec<u8>,
}

impl HashMemory {
    /// Remembers these; of two for the same file the first counts.
    pub fn new(digests: impl IntoIterator<Item = (Seen, FileDigest)>) -> Self {
        let mut records: Vec<_> = digests
            .into_iter()
            .map(|(seen, digest)| (seen.key(), digest))
            .collect();
        records.sort_by_key(|(key, _)| *key);
        records.dedup_by_key(|(key, _)| *key);
        let mut bytes = Vec::with_capacity(records.len() * RECORD_BYTES);
        for (key, digest) in records {
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(&digest.0);
        }
        Self { records: bytes }
    }

    /// Also remembers what `before` knew of other files, unless that is far more: of a directory
    /// that several ignore rules share, each scan sees a part.
    #[must_use]
    pub fn with(self, before: &HashMemory) -> Self {
        let file = |record: &[u8]| {
            let mut file = [0; FILE_BYTES];
            file.copy_from_slice(&record[..FILE_BYTES]);
            file
        };
        let own: HashSet<[u8; FILE_BYTES]> =
            self.records.chunks_exact(RECORD_BYTES).map(file).collect();
        let others: Vec<&[u8]> = before
            .records
            .chunks_exact(RECORD_BYTES)
            .filter(|record| !own.contains(&file(record)))
            .collect();
        if others.is_empty() || others.len() > 4 * self.len() + 4096 {
            return self;
        }
        let mut records: Vec<&[u8]> = self.records.chunks_exact(RECORD_BYTES).collect();
        records.extend(others);
        records.sort_unstable();
        let records = records.concat();
        Self { records }
    }

    /// How many digests are remembered.
    pub fn len(&self) -> usize {
        self.records.len() / RECORD_BYTES
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the digest of the file that looks exactly like this.
    pub fn get(&self, seen: &Seen) -> Option<FileDigest> {
        let key = seen.key();
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let record = &self.records[middle * RECORD_BYTES..][..RECORD_BYTES];
            match record[..KEY_BYTES].cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let mut digest = [0; 32];
                    digest.copy_from_slice(&record[KEY_BYTES..]);
                    return Some(FileDigest(digest));
                }
            }
        }
        None
    }

    /// Returns the bytes that [`HashMemory::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(12 + self.records.len()));
        out.raw(MAGIC);
        out.count(self.len());
        out.raw(&self.records);
        out.0
    }

    /// Reads an encoded memory, strictly: only bytes that `encode` gives are accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new("hash memory", bytes);
        input.magic(MAGIC)?;
        let count = input.count(RECORD_BYTES)?;
        let records = input.raw(count * RECORD_BYTES)?;
        let keys = || {
            records
                .chunks_exact(RECORD_BYTES)
                .map(|record| &record[..KEY_BYTES])
        };
        if keys()
            .zip(keys().skip(1))
            .any(|(before, after)| before >= after)
        {
            return Err(input.error("records are out of order"));
        }
        input.finish()?;
        Ok(Self {
            records: records.to_vec(),
        })
    }
}
