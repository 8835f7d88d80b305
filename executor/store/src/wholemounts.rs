//! Cache mounts as a whole: looked at, replaced by another directory, removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::StoreError;
use crate::cachemounts::{CacheMountInfo, Sharing, mount_key};
use crate::layers::open_directory;
use crate::locks::{KeyLock, LockAttempt, Mode};
use crate::store::{Store, make_directory, now, write_atomically};

/// What is kept beside the directory of a cache mount, and goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// How it was used last, in a word.
    Sharing,
    /// Remembered hashes of its files; docs/formats/hash-memory.md.
    Hashes,
    /// What the disk could not take of an import's attributes; docs/formats/layer-manifest.md.
    Attributes,
}

impl Beside {
    const ALL: [Beside; 3] = [Beside::Sharing, Beside::Hashes, Beside::Attributes];

    fn suffix(self) -> &'static str {
        match self {
            Beside::Sharing => "sharing",
            Beside::Hashes => "hashes",
            Beside::Attributes => "attributes",
        }
    }

    fn path(self, mount: &Path) -> PathBuf {
        let mut name = mount.as_os_str().to_owned();
        name.push(".");
        name.push(self.suffix());
        PathBuf::from(name)
    }
}

/// A directory that may become a cache mount; dropping it discards it.
#[derive(Debug)]
pub struct MountDraft {
    store: Store,
    directory: OwnedFd,
    path: PathBuf,
    named: bool,
}

/// A cache mount that nobody else uses while this lives; it need not be there yet.
#[derive(Debug)]
pub struct WholeMount {
    store: Store,
    id: String,
    instance: u32,
    path: PathBuf,
    _lock: KeyLock,
}

/// What asking for a cache mount as a whole gave.
#[derive(Debug)]
pub enum WholeMountAttempt {
    /// It is ours.
    Held(WholeMount),
    /// Somebody uses it: that process, if it is known.
    Busy(Option<u32>),
}

impl Store {
    /// Takes a cache mount from all who would use it, without waiting.
    pub fn whole_mount(&self, id: &str, instance: u32) -> Result<WholeMountAttempt, StoreError> {
        match self.try_lock(&mount_key(id, instance), Mode::Exclusive)? {
            LockAttempt::Busy(pid) => Ok(WholeMountAttempt::Busy(pid)),
            LockAttempt::Held(lock) => Ok(WholeMountAttempt::Held(WholeMount {
                store: self.clone(),
                id: id.to_owned(),
                instance,
                path: self.mount_path(id, instance),
                _lock: lock,
            })),
        }
    }

    /// Begins an empty directory, mode 0755, that may become a cache mount.
    pub fn begin_mount(&self) -> Result<MountDraft, StoreError> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.work_path("mount")?;
        make_directory(&path)?;
        let directory = open_directory(&path)?;
        let draft = MountDraft {
            store: self.clone(),
            directory,
            path,
            named: false,
        };
        fs::set_permissions(&draft.path, fs::Permissions::from_mode(0o755))
            .map_err(StoreError::io("set the mode of", &draft.path))?;
        Ok(draft)
    }

    /// Whether cache mount `id` has its first directory.
    pub fn has_cache_mount(&self, id: &str) -> bool {
        self.mount_path(id, 0).exists()
    }

    /// Opens the directory of a cache mount, whoever uses it; none if there is none.
    pub fn peek_mount(&self, mount: &CacheMountInfo) -> Result<Option<OwnedFd>, StoreError> {
        open_if_there(&mount.path)
    }

    /// Who uses a cache mount now: nobody, or a process that may not be known.
    pub fn mount_user(&self, mount: &CacheMountInfo) -> Result<Option<Option<u32>>, StoreError> {
        self.lock_holder(&mount_key(&mount.id, mount.instance))
    }

    /// How a cache mount was used last; none if that is not known.
    pub fn mount_sharing(&self, mount: &CacheMountInfo) -> Option<Sharing> {
        let word = fs::read(Beside::Sharing.path(&mount.path)).ok()?;
        [Sharing::Shared, Sharing::Private, Sharing::Locked]
            .into_iter()
            .find(|sharing| sharing_word(*sharing).as_bytes() == word)
    }

    /// Keeps how a cache mount is used, for people.
    pub(crate) fn note_sharing(&self, path: &Path, sharing: Sharing) -> Result<(), StoreError> {
        let note = Beside::Sharing.path(path);
        let word = sharing_word(sharing).as_bytes();
        match fs::read(&note) {
            Ok(noted) if noted == word => Ok(()),
            _ => write_atomically(&note, word),
        }
    }

    /// Removes the directory of a cache mount and what is kept beside it.
    pub(crate) fn remove_mount(&self, path: &Path) -> Result<(), StoreError> {
        self.remove(path)?;
        for beside in Beside::ALL {
            remove_file(&beside.path(path))?;
        }
        Ok(())
    }
}

fn sharing_word(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    }
}

fn open_if_there(path: &Path) -> Result<Option<OwnedFd>, StoreError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => open_directory(path).map(Some),
    }
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

impl MountDraft {
    /// The directory, to be filled.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for MountDraft {
    fn drop(&mut self) {
        if !self.named {
            // What is left of it goes with the next sweep.
            let _ = self.store.remove(&self.path);
        }
    }
}

impl WholeMount {
    /// Opens the directory; none if there is none.
    pub fn directory(&self) -> Result<Option<OwnedFd>, StoreError> {
        open_if_there(&self.path)
    }

    /// Puts the draft in the place of whatever there is, by one rename.
    ///
    /// Killed at any instant, the mount is the old or the new directory.
    pub fn replace(&self, mut draft: MountDraft) -> Result<(), StoreError> {
        let failed = |source: Errno| StoreError::io("name the cache mount", &self.path)(source);
        let swap = |flags| renameat_with(CWD, &draft.path, CWD, &self.path, flags);
        match swap(RenameFlags::NOREPLACE) {
            Ok(()) => draft.named = true,
            Err(Errno::EXIST) => match swap(RenameFlags::EXCHANGE) {
                // The draft's path is now the old directory's, which goes with the draft.
                Ok(()) => {}
                // A file system that cannot: for a moment there is none.
                Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV | Errno::OPNOTSUPP) => {
                    self.store.remove(&self.path)?;
                    swap(RenameFlags::empty()).map_err(failed)?;
                    draft.named = true;
                }
                Err(source) => return Err(failed(source)),
            },
            Err(source) => return Err(failed(source)),
        }
        self.store.database().write("replace a cache mount", |t| {
            t.prepare_cached(
                "INSERT INTO cache_mount (id, instance, created, used) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (id, instance) DO UPDATE SET used = excluded.used",
            )?
            .execute((&self.id, self.instance, now()))?;
            Ok(())
        })
    }

    /// Removes it.
    pub fn remove(self) -> Result<(), StoreError> {
        self.store.database().write("remove a cache mount", |t| {
            t.execute(
                "DELETE FROM cache_mount WHERE id = ?1 AND instance = ?2",
                (&self.id, self.instance),
            )?;
            Ok(())
        })?;
        self.store.remove_mount(&self.path)
    }

    /// Reads what is kept beside it; none if there is nothing.
    pub fn read_beside(&self, what: Beside) -> Result<Option<Vec<u8>>, StoreError> {
        let path = what.path(&self.path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    /// Keeps something beside it, or nothing any more.
    pub fn keep_beside(&self, what: Beside, bytes: Option<&[u8]>) -> Result<(), StoreError> {
        let path = what.path(&self.path);
        match bytes {
            Some(bytes) => write_atomically(&path, bytes),
            None => remove_file(&path),
        }
    }
}
