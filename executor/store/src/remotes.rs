//! What is kept of places elsewhere: mirrors of git repositories, and what was learnt of URLs.
//!
//! The directories are made when they are first needed, so that a store without them is whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::StoreError;
use crate::locks::{KeyLock, LockAttempt, Mode};
use crate::store::{Store, make_directory, write_atomically};

/// Below the root.
pub(crate) const DIRECTORY: &str = "remotes";
/// Mirrors of repositories, below the root.
pub(crate) const REPOSITORIES: &str = "remotes/git";
/// What was learnt of URLs, below the root.
pub(crate) const FACTS: &str = "remotes/http";

/// The directory of a mirror, ours alone while this is held.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    _lock: KeyLock,
}

/// What asking for a mirror gave.
#[derive(Debug)]
pub enum RepositoryAttempt {
    /// The directory is ours to use; there is none yet where nothing was ever put there.
    Held(Repository),
    /// Somebody uses it: that process, if it is known.
    Busy(Option<u32>),
}

/// A mirror that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryInfo {
    pub(crate) path: PathBuf,
    pub(crate) used: SystemTime,
}

impl Repository {
    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Takes the mirror of the repository that `remote` names if nobody else has it.
    pub fn repository(&self, remote: &str) -> Result<RepositoryAttempt, StoreError> {
        let name = blake3::hash(remote.as_bytes()).to_hex();
        self.make_remotes(REPOSITORIES)?;
        let path = self.path(REPOSITORIES).join(name.as_str());
        Ok(match self.try_lock(&lock_key(&path), Mode::Exclusive)? {
            LockAttempt::Busy(pid) => RepositoryAttempt::Busy(pid),
            LockAttempt::Held(lock) => {
                // When it was last used is what a sweep goes by.
                let touched = fs::File::open(&path)
                    .and_then(|directory| directory.set_modified(SystemTime::now()));
                match touched {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(StoreError::io("use", &path)(error));
                    }
                    _ => RepositoryAttempt::Held(Repository { path, _lock: lock }),
                }
            }
        })
    }

    /// Replaces what is remembered of a place that `name` names, opaque here.
    pub fn remember_remote(&self, name: &str, facts: &[u8]) -> Result<(), StoreError> {
        self.make_remotes(FACTS)?;
        write_atomically(&self.facts_path(name), facts)
    }

    /// Returns what is remembered of a place; losing power may have damaged it.
    pub fn remembered_remote(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.facts_path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Makes a directory that goes with this process, whatever becomes of it.
    pub fn work_directory(&self, purpose: &str) -> Result<WorkDirectory, StoreError> {
        let path = self.work_path(purpose)?;
        make_directory(&path)?;
        Ok(WorkDirectory {
            store: self.clone(),
            path,
        })
    }

    /// Lists the mirrors.
    pub(crate) fn repositories(&self) -> Result<Vec<RepositoryInfo>, StoreError> {
        let directory = self.path(REPOSITORIES);
        let mut found = Vec::new();
        for name in self.remotes_in(&directory)? {
            let path = directory.join(name);
            // One that is gone meanwhile was swept by somebody else.
            if let Ok(used) = fs::symlink_metadata(&path).and_then(|meta| meta.modified()) {
                found.push(RepositoryInfo { path, used });
            }
        }
        Ok(found)
    }

    /// Removes a mirror unless somebody uses it.
    pub(crate) fn sweep_repository(&self, path: &Path) -> Result<bool, StoreError> {
        let LockAttempt::Held(_lock) = self.try_lock(&lock_key(path), Mode::Exclusive)? else {
            return Ok(false);
        };
        self.remove(path)?;
        Ok(true)
    }

    /// The names in one of the directories of this file, none where it was not made yet.
    pub(crate) fn remotes_in(&self, directory: &Path) -> Result<Vec<String>, StoreError> {
        match directory.exists() {
            true => self.names_in(directory),
            false => Ok(Vec::new()),
        }
    }

    fn make_remotes(&self, kind: &str) -> Result<(), StoreError> {
        make_directory(&self.path(DIRECTORY))?;
        make_directory(&self.path(kind))
    }

    fn facts_path(&self, name: &str) -> PathBuf {
        let name = blake3::hash(name.as_bytes()).to_hex();
        self.path(FACTS).join(name.as_str())
    }
}

fn lock_key(path: &Path) -> [u8; 32] {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    blake3::derive_key("kiln 2026 repository lock v0", name)
}

/// A directory of this process, removed when it is dropped; a sweep removes it after a kill.
#[derive(Debug)]
pub struct WorkDirectory {
    store: Store,
    path: PathBuf,
}

impl WorkDirectory {
    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is left to the next sweep.
        let _ = self.store.remove(&self.path);
    }
}
