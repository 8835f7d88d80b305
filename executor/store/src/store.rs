//! The root directory: opening it, what lies where, and who we are in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_tree::OverlayXattrs;
use kiln_tree::Ownership;
use kiln_tree::seal::IdMap;

use crate::StoreError;
use crate::database::Database;
use crate::durability;
use crate::filesystem;
use crate::layers::ManifestCache;
use crate::process::Process;
use crate::reserve;

/// The version of the directory layout, in the file `version`.
const LAYOUT_VERSION: i64 = 1;

/// The directories of a store, made when it is.
const DIRECTORIES: &[&str] = &[
    "procs",
    "blobs",
    "blobs/sha256",
    "blobs/partial",
    "layers",
    "work",
    "trash",
    "contexts",
    "mounts",
];

/// What the store cannot find out by itself.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What becomes of the owners that layers name.
    pub ownership: Ownership,
    /// Owners on disk to owners in layers, for sealing.
    pub ids: IdMap,
    /// The namespace of overlay marks: the user's where overlays are mounted in a user namespace.
    pub overlay_xattrs: OverlayXattrs,
    /// Threads that hash and copy files.
    pub threads: usize,
    /// How many builds `kiln builds` remembers.
    pub keep_builds: u32,
}

impl Default for StoreOptions {
    /// Those of root in the initial user namespace.
    fn default() -> Self {
        Self {
            ownership: Ownership::Apply(IdMap::identity()),
            ids: IdMap::identity(),
            overlay_xattrs: OverlayXattrs::Trusted,
            threads: std::thread::available_parallelism().map_or(2, |count| count.get()),
            keep_builds: 200,
        }
    }
}

/// A directory of blobs, layers and what is known about them, shared by several processes.
///
/// Cloning gives another handle on the same open store. The process is registered with the first
/// thing that others must know of, and takes its name back when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    root: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) database: Database,
    pub(crate) boot: String,
    pub(crate) manifests: Mutex<ManifestCache>,
    process: OnceLock<Process>,
    registering: Mutex<()>,
    counter: AtomicU64,
}

impl Store {
    /// Opens the store at `root`, making it if there is none.
    ///
    /// Refuses filesystems that hosts may share, directories of other users, and what a newer kiln
    /// wrote. If the machine was started anew since the store was last used, what no sync had
    /// covered is dropped.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let made = match fs::metadata(root.join("version")) {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_root(root)?;
                true
            }
            Err(error) => return Err(StoreError::io("open", root)(error)),
        };
        check_root(root)?;
        if made {
            lay_out(root)?;
        } else {
            check_version(root)?;
        }
        let inner = Inner {
            root: root.to_owned(),
            options,
            database: Database::open(root)?,
            boot: durability::boot_id()?,
            manifests: Mutex::default(),
            process: OnceLock::new(),
            registering: Mutex::new(()),
            counter: AtomicU64::new(0),
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        if made {
            store.set_aside();
        }
        // What lies on a disk that nobody can write to does not change any more.
        if !store.is_read_only() {
            store.drop_unsynced()?;
        }
        Ok(store)
    }

    /// Whether there is a store at `root`, which [`Store::open`] would make else.
    pub fn is_at(root: &Path) -> bool {
        root.join("version").exists()
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Whether nothing can be written here; what is known can be looked at.
    pub fn is_read_only(&self) -> bool {
        self.inner.database.is_read_only()
    }

    /// What the store was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Returns the path of something below the root.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.inner.root.join(below)
    }

    /// Returns the name of this process, registering it the first time.
    pub(crate) fn process_id(&self) -> Result<&str, StoreError> {
        if let Some(process) = self.inner.process.get() {
            return Ok(process.id());
        }
        let _turn = self
            .inner
            .registering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.inner.process.get().is_none() {
            let process = Process::register(&self.path("procs"))?;
            self.inner
                .process
                .set(process)
                .expect("BUG: registered twice under one lock");
        }
        Ok(self
            .inner
            .process
            .get()
            .expect("BUG: registered above")
            .id())
    }

    /// Returns a path in this process's work directory that nothing has.
    pub(crate) fn work_path(&self, purpose: &str) -> Result<PathBuf, StoreError> {
        let work = self.path("work").join(self.process_id()?);
        make_directory(&work)?;
        Ok(work.join(format!("{purpose}-{}", self.count())))
    }

    /// Returns a number that this process has not used yet.
    pub(crate) fn count(&self) -> u64 {
        self.inner.counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(process) = self.process.get() else {
            return;
        };
        // Whatever fails here is left to the next sweep, which finds the process dead.
        let _ = self.database.write("release leases", |t| {
            t.execute("DELETE FROM lease WHERE process = ?1", [process.id()])?;
            Ok(())
        });
        let work = self.root.join("work").join(process.id());
        if fs::remove_dir(&work).is_err() && work.exists() {
            let trash = self
                .root
                .join("trash")
                .join(format!("work-{}", process.id()));
            let _ = fs::rename(&work, &trash);
        }
    }
}

/// Makes a directory for this user alone.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(StoreError::io("create", path)),
    }
}

/// Opens a file to read and write at any place, which is made for this user alone if it is not there.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// The time now in milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    millis(SystemTime::now())
}

pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    i64::try_from(since).unwrap_or(i64::MAX)
}

pub(crate) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_millis(millis.max(0).unsigned_abs())
}

fn make_root(root: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(StoreError::io("create the store", root))
}

fn check_root(root: &Path) -> Result<(), StoreError> {
    filesystem::refuse_shared(root)?;
    let owner = fs::metadata(root)
        .map_err(StoreError::io("look at the store", root))?
        .uid();
    let user = rustix::process::geteuid().as_raw();
    if owner != user {
        return Err(StoreError::Owner {
            path: root.to_owned(),
            owner,
            user,
        });
    }
    Ok(())
}

/// Fills a new root; the version comes last, and two processes may do this at once.
fn lay_out(root: &Path) -> Result<(), StoreError> {
    let listed = fs::read_dir(root).map_err(StoreError::io("list", root))?;
    for item in listed {
        let name = item.map_err(StoreError::io("list", root))?.file_name();
        let ours = |name: &str| {
            DIRECTORIES.contains(&name)
                || name == crate::remotes::DIRECTORY
                || ["version", "locks", reserve::NAME].contains(&name)
                || name.starts_with("db.sqlite")
                || name.starts_with("version.")
        };
        if !name.to_str().is_some_and(ours) {
            return Err(StoreError::NotAStore {
                path: root.to_owned(),
            });
        }
    }
    for directory in DIRECTORIES {
        make_directory(&root.join(directory))?;
    }
    // Creating the tables first means that a store with a version has a database.
    drop(Database::open(root)?);
    write_atomically(
        &root.join("version"),
        format!("{LAYOUT_VERSION}\n").as_bytes(),
    )
}

fn check_version(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    let text = fs::read_to_string(&path).map_err(StoreError::io("read", &path))?;
    match text.trim_end().parse::<i64>() {
        Ok(LAYOUT_VERSION) => Ok(()),
        Ok(found) if found > LAYOUT_VERSION => Err(StoreError::Newer {
            path: root.to_owned(),
            found,
            supported: LAYOUT_VERSION,
        }),
        _ => Err(StoreError::Damaged {
            what: "file `version`",
            path: root.to_owned(),
        }),
    }
}

/// Replaces `path` by a file of `bytes`; readers see the old or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{count}", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        StoreError::io("write", path)(error)
    })
}
