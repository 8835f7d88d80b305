//! Who works on the store: each process holds a lock on a file of its own in `procs`.
//!
//! A lock dies with its process, whatever killed it, so whoever can take the lock knows that the
//! process is dead and that its leases and its work directory are nobody's.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use crate::StoreError;

/// A file is locked before it has its name; one that never got it belongs to a process that died
/// in between, after this long.
const UNNAMED_IS_DEAD_AFTER: Duration = Duration::from_secs(3600);
const UNNAMED: &str = "new-";

/// This process, as the others see it.
#[derive(Debug)]
pub(crate) struct Process {
    id: String,
    path: PathBuf,
    _lock: File,
}

impl Process {
    /// Registers this process in `procs`.
    pub(crate) fn register(procs: &Path) -> Result<Self, StoreError> {
        let id = fresh_id();
        let unnamed = procs.join(format!("{UNNAMED}{id}"));
        let path = procs.join(&id);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unnamed)
            .map_err(StoreError::io("register this process as", &unnamed))?;
        let register = |file: &mut File| -> std::io::Result<()> {
            rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive)?;
            match file.write_all(format!("{}\n", std::process::id()).as_bytes()) {
                // For people alone; the lock is what counts.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
                written => written?,
            }
            fs::rename(&unnamed, &path)
        };
        if let Err(source) = register(&mut file) {
            let _ = fs::remove_file(&unnamed);
            return Err(StoreError::io("register this process as", &path)(source));
        }
        Ok(Self {
            id,
            path,
            _lock: file,
        })
    }

    /// The name that leases and the work directory carry.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A process that died, held so that nobody else clears up after it.
#[derive(Debug)]
pub(crate) struct Dead {
    /// The name that its leases and its work directory carry.
    pub(crate) id: String,
    path: PathBuf,
    _lock: File,
}

impl Dead {
    /// Forgets the process; its leases and its work directory are gone by now.
    pub(crate) fn bury(self) -> Result<(), StoreError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the processes in `procs` that are dead.
pub(crate) fn dead(procs: &Path) -> Result<Vec<Dead>, StoreError> {
    let mut found = Vec::new();
    for item in fs::read_dir(procs).map_err(StoreError::io("list", procs))? {
        let item = item.map_err(StoreError::io("list", procs))?;
        let path = item.path();
        let name = item.file_name().to_string_lossy().into_owned();
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if name.starts_with(UNNAMED) && !old(&file) {
            continue;
        }
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            found.push(Dead {
                id: name,
                path,
                _lock: file,
            });
        }
    }
    Ok(found)
}

fn old(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > UNNAMED_IS_DEAD_AFTER))
}

/// Returns a name that no other process has had: `create_new` would tell.
fn fresh_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = format!("{} {now} {count}", std::process::id());
    blake3::hash(seed.as_bytes()).to_hex()[..16].to_owned()
}
