//! Blocks that are set aside, so that a full disk can be cleared.
//!
//! Whoever removes something first writes that it is gone. Where the disk takes nothing at all, this
//! takes room that nobody else could have used up.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::FallocateFlags;

use crate::StoreError;
use crate::store::Store;

/// The file.
pub(crate) const NAME: &str = "reserve";
/// How much is set aside: the log of a small transaction many times over.
const RESERVE_BYTES: u64 = 1 << 20;
/// Nothing is set aside where less than this is free.
const PLENTY_BYTES: u64 = 4 * RESERVE_BYTES;

impl Store {
    /// Gives up what was set aside if the disk is full, so that something can be removed; tells
    /// whether it is.
    pub fn make_room(&self) -> Result<bool, StoreError> {
        if self.free_bytes()? >= RESERVE_BYTES {
            return Ok(false);
        }
        // This goes without a word in the database.
        let trash = self.path("trash");
        for name in self.names_in(&trash)? {
            self.burn(&trash.join(name))?;
        }
        let path = self.path(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("give up", &path)(error))
            }
            _ => Ok(true),
        }
    }

    /// Sets blocks aside where there are plenty, unless that is done; nobody waits for it.
    pub(crate) fn set_aside(&self) {
        let path = self.path(NAME);
        if !self.free_bytes().is_ok_and(|bytes| bytes >= PLENTY_BYTES) {
            return;
        }
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        if let Ok(file) = made
            && rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).is_err()
        {
            // A file system that promises no blocks.
            let _ = fs::remove_file(&path);
        }
    }

    /// What the disk takes of us.
    fn free_bytes(&self) -> Result<u64, StoreError> {
        let root = self.root();
        let stat =
            rustix::fs::statvfs(root).map_err(StoreError::io("look at the disk of", root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
