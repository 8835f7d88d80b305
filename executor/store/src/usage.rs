//! What lies on the disk, counted from the disk itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_tree::handle::FsError;
use kiln_tree::walk::{Descend, walk};

use crate::StoreError;
use crate::layers::open_directory;
use crate::remotes;
use crate::reserve;
use crate::store::Store;

/// How many things of a kind there are, and what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageLine {
    /// How many there are.
    pub count: u64,
    /// Bytes of disk blocks, files shared with an earlier line not counted again.
    pub bytes: u64,
}

/// What a store takes on the disk, by kind; the lines add up to the total.
///
/// Layers share unchanged files by hard links, so the lines are not what removing would free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Layers with their manifests.
    pub layers: UsageLine,
    /// Blobs, whole and partial.
    pub blobs: UsageLine,
    /// Cache mounts.
    pub cache_mounts: UsageLine,
    /// Remembered hashes of context files; directory objects are in the database.
    pub contexts: UsageLine,
    /// Mirrors of git repositories, and what was learnt of URLs; its count is that of the mirrors.
    pub remotes: UsageLine,
    /// Running steps, and those of processes that died.
    pub work: UsageLine,
    /// What is being removed.
    pub trash: UsageLine,
    /// The database without what is kept of builds; its count is that of records.
    pub records: UsageLine,
    /// Builds that are remembered, their plans and what their steps wrote: a part of the database.
    pub builds: UsageLine,
    /// The rest: the root itself, locks, processes.
    pub other: UsageLine,
}

impl Usage {
    /// The bytes of all lines.
    pub fn total_bytes(&self) -> u64 {
        let lines = [
            &self.layers,
            &self.blobs,
            &self.cache_mounts,
            &self.contexts,
            &self.remotes,
            &self.work,
            &self.trash,
            &self.records,
            &self.builds,
            &self.other,
        ];
        lines.iter().map(|line| line.bytes).sum()
    }
}

impl Store {
    /// Counts what the store takes, walking all of it.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut seen = Counted::default();
        let mut usage = Usage::default();
        for (line, names) in [
            (&mut usage.layers, &["layers"] as &[&str]),
            (&mut usage.blobs, &["blobs"]),
            (&mut usage.cache_mounts, &["mounts"]),
            (&mut usage.contexts, &["contexts"]),
            (&mut usage.remotes, &[remotes::DIRECTORY]),
            (&mut usage.work, &["work"]),
            (&mut usage.trash, &["trash"]),
            (
                &mut usage.records,
                &["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"],
            ),
            (
                &mut usage.other,
                &[
                    "",
                    "version",
                    "locks",
                    "locks.holders",
                    "procs",
                    reserve::NAME,
                ],
            ),
        ] {
            for name in names {
                let path = self.path(name);
                line.bytes += if name.is_empty() {
                    seen.one(&path)?
                } else {
                    seen.all(&path)?
                };
            }
        }
        let (builds, bytes): (i64, i64) = self.database().read("count builds", |c| {
            c.query_row(
                "SELECT (SELECT count(*) FROM build),
                 (SELECT coalesce(sum(length(steps)), 0) FROM build)
                 + (SELECT coalesce(sum(length(details) + length(plan)), 0) FROM build_detail)
                 + (SELECT coalesce(sum(length(head) + length(tail)), 0) FROM build_log)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        usage.builds = UsageLine {
            count: builds.unsigned_abs(),
            // A database whose log was not moved into it yet may be smaller than what it holds.
            bytes: bytes.unsigned_abs().min(usage.records.bytes),
        };
        usage.records.bytes -= usage.builds.bytes;
        let counts: [i64; 4] = self.database().read("count rows", |c| {
            c.query_row(
                "SELECT (SELECT count(*) FROM layer), (SELECT count(*) FROM blob),
                 (SELECT count(*) FROM cache_mount), (SELECT count(*) FROM record)",
                [],
                |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]),
            )
        })?;
        let lines = [
            &mut usage.layers,
            &mut usage.blobs,
            &mut usage.cache_mounts,
            &mut usage.records,
        ];
        for (line, count) in lines.into_iter().zip(counts) {
            line.count = count.unsigned_abs();
        }
        for (line, name) in [
            (&mut usage.contexts, "contexts"),
            (&mut usage.work, "work"),
            (&mut usage.trash, "trash"),
            (&mut usage.other, "procs"),
        ] {
            line.count = self.names_in(&self.path(name))?.len() as u64;
        }
        usage.remotes.count = self.repositories()?.len() as u64;
        Ok(usage)
    }

    /// Returns the names in a directory of the store.
    pub(crate) fn names_in(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let list = fs::read_dir(path).map_err(StoreError::io("list", path))?;
        list.map(|item| {
            let name = item.map_err(StoreError::io("list", path))?.file_name();
            Ok(name.to_string_lossy().into_owned())
        })
        .collect()
    }
}

/// Files with several links that were counted already.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    inodes: HashMap<(u64, u64), u64>,
    only_freed: bool,
}

impl Counted {
    /// The blocks of one file or directory, without what is in it.
    fn one(&mut self, path: &Path) -> Result<u64, StoreError> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(self.blocks(&(
                meta.dev(),
                meta.ino(),
                meta.nlink(),
                meta.blocks(),
                meta.is_dir(),
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::io("look at", path)(error)),
        }
    }

    /// The blocks of a file, or of a directory and all that is in it.
    pub(crate) fn all(&mut self, path: &Path) -> Result<u64, StoreError> {
        let mut bytes = self.one(path)?;
        if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
            return Ok(bytes);
        }
        // Another process may be sweeping: what it removes meanwhile counts no more.
        let root = match open_directory(path) {
            Err(_) if !path.exists() => return Ok(bytes),
            root => root?,
        };
        let counted = walk::<FsError>(root.as_fd(), |visit| {
            let stat = visit.stat;
            let kind = kiln_tree::handle::file_type(stat);
            bytes += self.blocks(&(
                stat.st_dev,
                stat.st_ino,
                stat.st_nlink,
                stat.st_blocks.unsigned_abs(),
                kind == rustix::fs::FileType::Directory,
            ));
            Ok(Descend::Into)
        });
        counted.map_err(|source| StoreError::Tree {
            action: "count",
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(bytes)
    }

    /// The blocks that removing `path` gives back: not those that other links keep.
    pub(crate) fn freed(&mut self, path: &Path) -> Result<u64, StoreError> {
        self.only_freed = true;
        let bytes = self.all(path);
        self.only_freed = false;
        bytes
    }

    fn blocks(
        &mut self,
        &(dev, ino, links, blocks, directory): &(u64, u64, u64, u64, bool),
    ) -> u64 {
        if links <= 1 || directory {
            return blocks * 512;
        }
        let seen = self.inodes.entry((dev, ino)).or_default();
        *seen += 1;
        let counts = if self.only_freed {
            *seen == links
        } else {
            *seen == 1
        };
        if counts { blocks * 512 } else { 0 }
    }
}
