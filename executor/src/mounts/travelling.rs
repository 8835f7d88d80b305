//! Cache mounts that come to a build when a step needs them, and leave when it is done.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_solver::WaitsFor;
use tokio::sync::OnceCell;

use super::import::Existing;
use super::place::{Contents, MountsPlace, Shelf};
use super::{ExportMounts, MountsEvent, MountsExported, Tell};
use crate::error::{Error, words};
use crate::executor::Executor;
use crate::transfer::TransferObserver;

/// What a build does about its cache mounts: where those that are not here come from, and where those
/// that its steps used go.
pub struct TravellingMounts {
    from: Vec<MountsPlace>,
    to: Vec<MountsPlace>,
    /// Is told in words what went wrong or is worth knowing.
    notice: Box<dyn Fn(String) + Send + Sync>,
    opened: OnceCell<Vec<(Shelf, Contents)>>,
    brought: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    used: Mutex<BTreeSet<String>>,
}

impl TravellingMounts {
    /// Tells where mounts come from, the first that has one counting, and where they go.
    pub fn new(
        from: Vec<MountsPlace>,
        to: Vec<MountsPlace>,
        notice: impl Fn(String) + Send + Sync + 'static,
    ) -> TravellingMounts {
        TravellingMounts {
            from,
            to,
            notice: Box::new(notice),
            opened: OnceCell::new(),
            brought: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// Sees to it that a mount that a step is about to use is here, if it can be had.
    ///
    /// What cannot be had is told, and the step begins with an empty one.
    pub(crate) async fn bring(
        &self,
        executor: &Executor,
        id: &str,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) {
        lock(&self.used).insert(id.to_owned());
        if self.from.is_empty() || executor.store().has_cache_mount(id) {
            return;
        }
        let cell = Arc::clone(lock(&self.brought).entry(id.to_owned()).or_default());
        cell.get_or_init(|| async {
            if let Err(error) = self.import(executor, id, waiting).await {
                (self.notice)(format!(
                    "the cache mount `{id}` begins empty: {}",
                    words(&error)
                ));
            }
        })
        .await;
    }

    async fn import(
        &self,
        executor: &Executor,
        id: &str,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<(), Error> {
        let opened = self.opened.get_or_init(|| self.open(executor)).await;
        for (shelf, contents) in opened {
            let Some(mount) = contents.config.mounts.iter().find(|mount| mount.id == id) else {
                continue;
            };
            let place = shelf.shown().to_owned();
            waiting(WaitsFor::MountFrom(id.to_owned(), place), None);
            let tell = |event| {
                if let MountsEvent::Waiting { id, pid } = event {
                    waiting(WaitsFor::CacheMount(id), pid);
                }
            };
            let silent = TransferObserver::silent();
            executor
                .import_mount(shelf, mount, Existing::Keep, &tell, &silent)
                .await?;
            return Ok(());
        }
        Ok(())
    }

    async fn open(&self, executor: &Executor) -> Vec<(Shelf, Contents)> {
        let mut opened = Vec::new();
        for place in &self.from {
            let read = async {
                let shelf = Shelf::open(executor, place).await?;
                let contents = shelf.contents().await?;
                Ok::<_, Error>((shelf, contents))
            };
            match read.await {
                Ok((shelf, Some(contents))) => opened.push((shelf, contents)),
                Ok((_, None)) => {
                    (self.notice)(format!("there are no cache mounts at {place} yet"));
                }
                Err(error) => (self.notice)(format!(
                    "no cache mounts were taken from {place}: {}",
                    words(&error)
                )),
            }
        }
        opened
    }

    /// Where the mounts that steps used are to go; nowhere if none was used.
    pub fn destinations(&self, executor: &Executor) -> &[MountsPlace] {
        match self.used(executor).is_empty() {
            true => &[],
            false => &self.to,
        }
    }

    /// Exports the mounts that steps used.
    pub async fn send(
        &self,
        executor: &Executor,
        place: &MountsPlace,
        tell: Tell<'_>,
    ) -> Result<MountsExported, Error> {
        let request = ExportMounts {
            ids: self.used(executor),
            place: place.clone(),
            exclude: Vec::new(),
        };
        let silent = TransferObserver::silent();
        executor.export_mounts(&request, tell, &silent).await
    }

    /// The mounts that steps used; one that somebody removed meanwhile has nothing to send.
    fn used(&self, executor: &Executor) -> Vec<String> {
        let used = lock(&self.used);
        let there = used
            .iter()
            .filter(|id| executor.store().has_cache_mount(id));
        there.cloned().collect()
    }
}

impl fmt::Debug for TravellingMounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TravellingMounts")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
