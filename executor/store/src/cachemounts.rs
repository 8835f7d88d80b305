//! Directories that outlive the steps that use them, one or more for each id.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::StoreError;
use crate::layers::open_directory;
use crate::locks::{KeyLock, LockAttempt, Mode};
use crate::store::{Store, make_directory, now, time};

/// Directories of one private id before somebody has to wait.
const INSTANCES: u32 = 1024;

/// Who may use a cache mount at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Everybody, the same directory.
    Shared,
    /// One each: a second user gets a directory of its own.
    Private,
    /// One after the other, the same directory.
    Locked,
}

/// A cache mount in use.
#[derive(Debug)]
pub struct CacheMount {
    directory: OwnedFd,
    path: PathBuf,
    created: bool,
    _lock: KeyLock,
}

/// What asking for a cache mount gave.
#[derive(Debug)]
pub enum CacheMountAttempt {
    /// The directory is ours to use.
    Held(CacheMount),
    /// Somebody uses it in a way that excludes us: that process, if it is known.
    Busy(Option<u32>),
}

/// A cache mount that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountInfo {
    /// Its id.
    pub id: String,
    /// Which of its directories; only private use makes more than number 0.
    pub instance: u32,
    /// Where it is.
    pub path: PathBuf,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub used: SystemTime,
}

impl Store {
    /// Takes the directory of cache mount `id` if `sharing` lets us, without waiting.
    ///
    /// `init` fills a new directory (mode 0755, empty) before anybody sees it. One that was filled
    /// only in part, by a process that was killed, is made anew.
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        init: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<CacheMountAttempt, StoreError> {
        let (instances, mode) = match sharing {
            Sharing::Shared => (1, Mode::Shared),
            Sharing::Private => (INSTANCES, Mode::Exclusive),
            Sharing::Locked => (1, Mode::Exclusive),
        };
        let mut busy = None;
        for instance in 0..instances {
            match self.try_lock(&mount_key(id, instance), mode)? {
                LockAttempt::Held(lock) => {
                    return self.take_mount(id, instance, lock, sharing, init);
                }
                LockAttempt::Busy(pid) => busy = busy.or(pid),
            }
        }
        Ok(CacheMountAttempt::Busy(busy))
    }

    /// Lists all cache mounts by id.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountInfo>, StoreError> {
        self.database().read("list cache mounts", |c| {
            c.prepare_cached(
                "SELECT id, instance, created, used FROM cache_mount ORDER BY id, instance",
            )?
            .query_map([], |row| {
                let (id, instance): (String, u32) = (row.get(0)?, row.get(1)?);
                Ok(CacheMountInfo {
                    path: self.mount_path(&id, instance),
                    id,
                    instance,
                    created: time(row.get(2)?),
                    used: time(row.get(3)?),
                })
            })?
            .collect()
        })
    }

    /// Removes every directory of cache mount `id` that nobody uses; returns how many.
    pub fn remove_cache_mount(&self, id: &str) -> Result<usize, StoreError> {
        let mounts = self.cache_mounts()?;
        let mut removed = 0;
        for mount in mounts.iter().filter(|mount| mount.id == id) {
            removed += usize::from(self.sweep_mount(mount)?);
        }
        Ok(removed)
    }

    /// Removes a cache mount unless somebody uses it.
    pub(crate) fn sweep_mount(&self, mount: &CacheMountInfo) -> Result<bool, StoreError> {
        let key = mount_key(&mount.id, mount.instance);
        let LockAttempt::Held(_lock) = self.try_lock(&key, Mode::Exclusive)? else {
            return Ok(false);
        };
        self.database().write("remove a cache mount", |t| {
            t.execute(
                "DELETE FROM cache_mount WHERE id = ?1 AND instance = ?2",
                (&mount.id, mount.instance),
            )?;
            Ok(())
        })?;
        self.remove_mount(&mount.path)?;
        Ok(true)
    }

    fn take_mount(
        &self,
        id: &str,
        instance: u32,
        lock: KeyLock,
        sharing: Sharing,
        init: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<CacheMountAttempt, StoreError> {
        let path = self.mount_path(id, instance);
        let mut created = false;
        if !path.exists() {
            // Several sharers may come here at once; the first to name its directory wins.
            match self.make_mount(id, &path, init) {
                Ok(()) => created = true,
                Err(_) if sharing == Sharing::Shared && path.exists() => {}
                Err(error) => return Err(error),
            }
        }
        self.database().write("use a cache mount", |t| {
            t.prepare_cached(
                "INSERT INTO cache_mount (id, instance, created, used) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (id, instance) DO UPDATE SET used = excluded.used",
            )?
            .execute((id, instance, now()))?;
            Ok(())
        })?;
        self.note_sharing(&path, sharing)?;
        let directory = open_directory(&path)?;
        Ok(CacheMountAttempt::Held(CacheMount {
            directory,
            path,
            created,
            _lock: lock,
        }))
    }

    fn make_mount(
        &self,
        id: &str,
        path: &Path,
        init: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let new = self.work_path("mount")?;
        make_directory(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
            .map_err(StoreError::io("set the mode of", &new))?;
        let directory = open_directory(&new)?;
        let filled = init(directory.as_fd()).map_err(|source| StoreError::CacheMountInit {
            id: id.to_owned(),
            source,
        });
        let named = filled.and_then(|()| {
            // Unlike rename(2) alone this never replaces a directory, not even an empty one.
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, path, flags)
                .map_err(StoreError::io("name the cache mount", path))
        });
        if named.is_err() {
            let _ = self.remove(&new);
        }
        named
    }

    pub(crate) fn mount_path(&self, id: &str, instance: u32) -> PathBuf {
        let name = blake3::hash(id.as_bytes()).to_hex();
        self.path("mounts").join(format!("{name}-{instance}"))
    }
}

impl CacheMount {
    /// The directory, to be mounted.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made for this use.
    pub fn created(&self) -> bool {
        self.created
    }
}

pub(crate) fn mount_key(id: &str, instance: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("kiln 2026 cache mount lock v0");
    hasher.update(&instance.to_be_bytes());
    hasher.update(id.as_bytes());
    *hasher.finalize().as_bytes()
}
