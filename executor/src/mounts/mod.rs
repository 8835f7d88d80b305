//! Cache mounts as things of their own: listed, removed, and sent to where another host finds them.
//!
//! An export is an OCI artifact (docs/formats/mount-export.md): a tree for each mount, and packs of
//! the chunks that its files are made of. `picture.rs` says what is in a mount, `packing.rs` packs
//! what the destination lacks, `place.rs` reads exports and `publish.rs` writes them, `stage.rs`
//! brings files here, and `travelling.rs` does all of it for a build.

mod chunks;
mod error;
mod export;
mod format;
mod import;
mod packing;
mod picture;
mod place;
mod publish;
mod stage;
mod travelling;

#[cfg(test)]
mod tests;

use std::io;
use std::time::SystemTime;

use kiln_store::{CacheMountInfo, Sharing, WholeMount, WholeMountAttempt};
use kiln_tree::FsError;
use kiln_tree::walk::{Descend, walk};

pub use error::MountsError;
pub use export::{ExportMounts, ExportedMount, MountsExported};
pub use import::{ImportMounts, ImportedMount};
pub use place::MountsPlace;
pub use travelling::TravellingMounts;

use crate::error::Error;
use crate::executor::Executor;
use crate::patience::Patience;
use crate::source::ago;

/// A cache mount that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSummary {
    /// Its id.
    pub id: String,
    /// Which of its directories; only private use makes more than number 0.
    pub instance: u32,
    /// Bytes of disk blocks; a file with several names counts once.
    pub size_bytes: u64,
    /// How many files there are, directories not counted.
    pub files: u64,
    /// When it was last used, in seconds since 1970.
    pub used: i64,
    /// The same for people.
    pub age: String,
    /// How it was used last: shared, private or locked.
    pub sharing: Option<&'static str>,
    /// Who uses it now: nobody, or a process that may not be known.
    pub user: Option<Option<u32>>,
}

/// What is told while cache mounts travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountsEvent {
    /// Somebody uses a mount that is to be exported or replaced: that process, if it is known.
    Waiting {
        /// The mount.
        id: String,
        /// Who.
        pid: Option<u32>,
    },
    /// A mount's picture was taken.
    Packed(ExportedMount),
    /// So many bytes of a mount's packs are to be fetched, or were.
    Fetching {
        /// The mount.
        id: String,
        /// So far.
        current: u64,
        /// In all.
        total: u64,
    },
    /// A mount is here.
    Imported(ImportedMount),
}

/// Is told what happens.
pub(crate) type Tell<'a> = &'a (dyn Fn(MountsEvent) + Send + Sync);

impl Executor {
    /// Lists the cache mounts by id.
    pub fn mounts(&self) -> Result<Vec<MountSummary>, Error> {
        let store = self.store();
        let mounts = store.cache_mounts()?;
        let mut summaries = Vec::with_capacity(mounts.len());
        for mount in mounts {
            // Its row may outlive it for a moment.
            let Some(directory) = store.peek_mount(&mount)? else {
                continue;
            };
            let (mut files, mut blocks) = (0, 0);
            let mut linked = std::collections::HashSet::new();
            walk::<FsError>(std::os::fd::AsFd::as_fd(&directory), |visit| {
                let stat = visit.stat;
                files += u64::from(!kiln_tree::handle::file_type(stat).is_dir());
                if stat.st_nlink < 2 || linked.insert((stat.st_dev, stat.st_ino)) {
                    blocks += stat.st_blocks.unsigned_abs();
                }
                Ok(Descend::Into)
            })
            .map_err(|error| files_error("read", &mount.id)(error.into()))?;
            summaries.push(MountSummary {
                size_bytes: blocks.saturating_mul(512),
                files,
                used: seconds(mount.used),
                age: ago(mount.used),
                sharing: store.mount_sharing(&mount).map(sharing_word),
                user: store.mount_user(&mount)?,
                id: mount.id,
                instance: mount.instance,
            });
        }
        Ok(summaries)
    }

    /// Removes every directory of a cache mount that nobody uses; one in use is an error in the end.
    pub fn remove_mount(&self, id: &str) -> Result<(), Error> {
        let store = self.store();
        let mounts = store.cache_mounts()?;
        let mounts: Vec<CacheMountInfo> =
            mounts.into_iter().filter(|mount| mount.id == id).collect();
        if mounts.is_empty() {
            return Err(MountsError::NoSuchMount { id: id.to_owned() }.into());
        }
        let mut user = None;
        for mount in &mounts {
            match store.whole_mount(id, mount.instance)? {
                WholeMountAttempt::Held(whole) => {
                    whole.remove()?;
                }
                WholeMountAttempt::Busy(pid) => user = Some(pid),
            }
        }
        match user {
            Some(pid) => Err(MountsError::InUse {
                id: id.to_owned(),
                pid,
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Takes a cache mount from all who would use it, when whoever uses it now is done.
    ///
    /// None if it is wanted only where there is none yet, and there is one.
    pub(crate) async fn whole_mount(
        &self,
        id: &str,
        only_new: bool,
        waiting: &(dyn Fn(Option<u32>) + Send + Sync),
    ) -> Result<Option<WholeMount>, Error> {
        let mut patience = Patience::new();
        loop {
            if only_new && self.store().has_cache_mount(id) {
                return Ok(None);
            }
            match self.store().whole_mount(id, 0)? {
                WholeMountAttempt::Held(whole) => return Ok(Some(whole)),
                WholeMountAttempt::Busy(pid) => {
                    if patience.tells(pid) {
                        waiting(pid.filter(|pid| *pid != std::process::id()));
                    }
                }
            }
            patience.pause().await;
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

fn sharing_word(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    }
}

/// Makes an error of what files of a mount refuse.
fn files_error(
    attempt: &'static str,
    id: &str,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Error {
    let id = id.to_owned();
    move |source| {
        let full = source.downcast_ref::<FsError>().map(FsError::kind);
        match full {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Error::Store(kiln_store::StoreError::Full {
                    action: attempt,
                    path: format!("the cache mount `{id}`").into(),
                })
            }
            _ => MountsError::Files {
                attempt,
                id,
                source,
            }
            .into(),
        }
    }
}
