//! Locks between processes on anything that has a key: one byte each of one file.
//!
//! The file is never deleted and never written, and a lock belongs to an open file description, so
//! it works between threads too and ends with its holder. Who holds one is told by the file
//! `locks.holders`, a hint: it is written after locking and believed only while the lock is held.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::StoreError;
use crate::store::{Store, open_or_create};

/// Slots of `locks.holders`; two keys in one slot cost a pid that is not shown.
const SLOTS: u64 = 65_536;
const SLOT_BYTES: usize = 16;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct KeyLock {
    _file: File,
}

/// What trying to lock gave.
#[derive(Debug)]
pub enum LockAttempt {
    /// The lock is ours.
    Held(KeyLock),
    /// Somebody has it: that process, if it is known.
    Busy(Option<u32>),
}

/// How many may hold a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Store {
    /// Takes the lock of `key` if it is free; no other thread or process can then.
    pub fn try_lock_key(&self, key: &[u8; 32]) -> Result<LockAttempt, StoreError> {
        self.try_lock(key, Mode::Exclusive)
    }

    pub(crate) fn try_lock(&self, key: &[u8; 32], mode: Mode) -> Result<LockAttempt, StoreError> {
        let path = self.path("locks");
        // Each lock has a description of its own, or threads would share them.
        let file = open(&path)?;
        let start = offset(key);
        let kind = match mode {
            Mode::Shared => libc::F_RDLCK,
            Mode::Exclusive => libc::F_WRLCK,
        };
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
            Ok(_) => {
                self.sign(start)?;
                Ok(LockAttempt::Held(KeyLock { _file: file }))
            }
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(LockAttempt::Busy(self.holder(start))),
            Err(source) => Err(StoreError::io("lock a byte of", &path)(source)),
        }
    }

    /// Looks who holds the lock of `key`, without taking it: nobody, or a process that may not be known.
    pub(crate) fn lock_holder(&self, key: &[u8; 32]) -> Result<Option<Option<u32>>, StoreError> {
        let path = self.path("locks");
        let file = open(&path)?;
        let start = offset(key);
        let mut range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut range))
            .map_err(|source| StoreError::io("look at a lock of", &path)(source))?;
        let is_free = range.l_type == libc::F_UNLCK as libc::c_short;
        Ok((!is_free).then(|| self.holder(start)))
    }

    /// Says that this process holds the lock at `start`.
    fn sign(&self, start: i64) -> Result<(), StoreError> {
        let path = self.path("locks.holders");
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(&start.to_be_bytes());
        slot[8..12].copy_from_slice(&std::process::id().to_be_bytes());
        open(&path)?
            .write_all_at(&slot, place(start))
            .map_err(StoreError::io("write", &path))
    }

    fn holder(&self, start: i64) -> Option<u32> {
        let mut slot = [0; SLOT_BYTES];
        let file = open(&self.path("locks.holders")).ok()?;
        file.read_exact_at(&mut slot, place(start)).ok()?;
        let (key, rest) = slot.split_first_chunk::<8>()?;
        let (pid, _) = rest.split_first_chunk::<4>()?;
        (*key == start.to_be_bytes()).then(|| u32::from_be_bytes(*pid))
    }
}

/// A byte that stands for `key`, leaving out the last, which no range may reach.
fn offset(key: &[u8; 32]) -> i64 {
    let (head, _) = key
        .split_first_chunk::<8>()
        .expect("BUG: a key has 32 bytes");
    i64::from_be_bytes(*head) & (i64::MAX >> 1)
}

fn place(start: i64) -> u64 {
    start.unsigned_abs() % SLOTS * SLOT_BYTES as u64
}

fn open(path: &std::path::Path) -> Result<File, StoreError> {
    open_or_create(path).map_err(StoreError::io("open", path))
}
