//! The cache mounts of a step, which it has for itself before it gets a job slot.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use kiln_ir::{CacheSharing, ExecOp, Mount, MountKind};
use kiln_solver::WaitsFor;
use kiln_store::{CacheMount, CacheMountAttempt, Lease, Sharing};
use kiln_tree::Stop;

use crate::error::Error;
use crate::exec::{fill, layers_of};
use crate::executor::Executor;
use crate::file::open_layers;
use crate::mounts::TravellingMounts;
use crate::patience::Patience;
use crate::source::stoppable;
use crate::worker::Handle;

/// The cache mounts of a step; others that want one of them wait until this is dropped.
#[derive(Debug, Default)]
pub struct CacheMounts(BTreeMap<String, CacheMount>);

impl CacheMounts {
    /// Takes the step's cache mounts by id, in that order, so that two steps never wait for each
    /// other.
    ///
    /// A step that mounts an id twice shows one directory twice, by the strictest sharing that it
    /// asks for: it must not wait for itself.
    pub(crate) async fn take(
        executor: &Executor,
        lease: &Lease,
        op: &ExecOp,
        inputs: &[Handle],
        travelling: Option<&TravellingMounts>,
        waiting: &(dyn Fn(WaitsFor, Option<u32>) + Send + Sync),
    ) -> Result<CacheMounts, Error> {
        let wanted = wanted(op);
        if let Some(travelling) = travelling {
            // Before any is held, and all at once.
            let brought = wanted
                .keys()
                .map(|id| travelling.bring(executor, id, waiting));
            futures_util::future::join_all(brought).await;
        }
        let mut taken = BTreeMap::new();
        for (id, (sharing, mount)) in wanted {
            let mut patience = Patience::new();
            let cache = loop {
                let attempt = {
                    let (executor, lease) = (executor.clone(), lease.clone());
                    let (mount, inputs) = (mount.clone(), inputs.to_vec());
                    let id = id.to_owned();
                    // A new one is filled, which may take as long as a copy.
                    stoppable(move |stop| {
                        attempt(&executor, &lease, &id, sharing, &mount, &inputs, stop)
                    })
                };
                match attempt.await? {
                    CacheMountAttempt::Held(cache) => break cache,
                    CacheMountAttempt::Busy(pid) => {
                        if patience.tells(pid) {
                            let other = pid.filter(|pid| *pid != std::process::id());
                            waiting(WaitsFor::CacheMount(id.to_owned()), other);
                        }
                    }
                }
                patience.pause().await;
            };
            taken.insert(id.to_owned(), cache);
        }
        Ok(CacheMounts(taken))
    }

    /// The directory of one of them.
    pub(crate) fn directory(&self, id: &str) -> Option<BorrowedFd<'_>> {
        self.0.get(id).map(CacheMount::directory)
    }
}

impl Executor {
    /// Removes the cache mounts whose ids begin so.
    pub fn forget_caches(&self, prefix: &str) -> Result<(), Error> {
        for mount in self.store().cache_mounts()? {
            if mount.id.starts_with(prefix) {
                self.store().remove_cache_mount(&mount.id)?;
            }
        }
        Ok(())
    }
}

/// By id: the strictest sharing, and the first mount, which says what a new directory begins with.
fn wanted(op: &ExecOp) -> BTreeMap<&str, (Sharing, &Mount)> {
    let mut wanted: BTreeMap<&str, (Sharing, &Mount)> = BTreeMap::new();
    for mount in &op.mounts {
        if let MountKind::Cache { id, sharing } = &mount.kind {
            let sharing = match sharing {
                CacheSharing::Shared => Sharing::Shared,
                CacheSharing::Private => Sharing::Private,
                CacheSharing::Locked => Sharing::Locked,
            };
            let (strictest, _) = wanted.entry(id).or_insert((sharing, mount));
            *strictest = stricter(*strictest, sharing);
        }
    }
    wanted
}

fn stricter(one: Sharing, other: Sharing) -> Sharing {
    match (one, other) {
        (Sharing::Locked, _) | (_, Sharing::Locked) => Sharing::Locked,
        (Sharing::Private, _) | (_, Sharing::Private) => Sharing::Private,
        (Sharing::Shared, Sharing::Shared) => Sharing::Shared,
    }
}

fn attempt(
    executor: &Executor,
    lease: &Lease,
    id: &str,
    sharing: Sharing,
    mount: &Mount,
    inputs: &[Handle],
    stop: &Stop,
) -> Result<CacheMountAttempt, Error> {
    let fill = |directory: BorrowedFd<'_>| {
        fill_new(executor, lease, mount, inputs, directory, stop).map_err(io::Error::other)
    };
    Ok(executor.store().cache_mount(id, sharing, fill)?)
}

/// Puts the first content into a new cache mount.
fn fill_new(
    executor: &Executor,
    lease: &Lease,
    mount: &Mount,
    inputs: &[Handle],
    directory: BorrowedFd<'_>,
    stop: &Stop,
) -> Result<(), Error> {
    let layers = layers_of(executor, lease, mount, inputs)?;
    if layers.is_empty() {
        return Ok(());
    }
    let source = open_layers(executor.store(), &layers)?;
    fill(executor, &source, &mount.selector, directory, stop)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::executor;

    fn step(mounts: &[(&str, CacheSharing)]) -> ExecOp {
        let mount = |(id, sharing): &(&str, CacheSharing)| Mount {
            target: "/cache".to_owned(),
            kind: MountKind::Cache {
                id: (*id).to_owned(),
                sharing: *sharing,
            },
            ..Mount::default()
        };
        ExecOp {
            mounts: mounts.iter().map(mount).collect(),
            ..ExecOp::default()
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn a_step_does_not_wait_for_a_cache_mount_of_its_own() {
        let (_directory, executor) = executor();
        let op = step(&[
            ("one", CacheSharing::Shared),
            ("one", CacheSharing::Locked),
            ("two", CacheSharing::Locked),
            ("two", CacheSharing::Locked),
        ]);
        let lease = executor.store().lease();
        let waiting = |what, pid| panic!("waits for {what:?} of {pid:?}");
        let taking = CacheMounts::take(&executor, &lease, &op, &[], None, &waiting);
        let taken = runtime().block_on(taking).unwrap();
        assert_eq!(taken.0.keys().collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn who_shares_waits_for_who_has_it_alone() {
        let (_directory, executor) = executor();
        let lease = executor.store().lease();
        let take = |sharing| {
            let (executor, lease) = (executor.clone(), lease.clone());
            async move {
                let told = std::sync::Mutex::new(Vec::new());
                let waiting = |what, pid| told.lock().unwrap().push((what, pid));
                let op = step(&[("one", sharing)]);
                let taken = CacheMounts::take(&executor, &lease, &op, &[], None, &waiting).await;
                (taken.unwrap(), told.into_inner().unwrap())
            }
        };
        runtime().block_on(async {
            let (alone, told) = take(CacheSharing::Locked).await;
            assert_eq!(told, []);
            let give_back = async {
                tokio::task::yield_now().await;
                drop(alone);
            };
            let ((_shared, told), ()) = tokio::join!(take(CacheSharing::Shared), give_back);
            let (_shared_too, alike) = take(CacheSharing::Shared).await;
            assert_eq!(alike, []);
            // This process has it, which is nobody to name.
            let expected = (WaitsFor::CacheMount("one".to_owned()), None);
            assert!(told.is_empty() || told == [expected], "{told:?}");
        });
    }
}
