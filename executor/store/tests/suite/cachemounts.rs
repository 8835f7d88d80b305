//! Cache mounts: who may use one with whom.

use std::io;
use std::os::fd::BorrowedFd;

use kiln_store::{CacheMount, CacheMountAttempt, Policy, Sharing, Store};

use crate::fixture::fixture;

fn take(store: &Store, sharing: Sharing) -> Option<CacheMount> {
    match store
        .cache_mount("/root/.cache", sharing, |_| Ok(()))
        .unwrap()
    {
        CacheMountAttempt::Held(mount) => Some(mount),
        CacheMountAttempt::Busy(_) => None,
    }
}

#[test]
fn shared_users_have_one_directory() {
    let f = fixture();
    let (a, b) = (
        take(&f.store, Sharing::Shared).unwrap(),
        take(&f.store, Sharing::Shared).unwrap(),
    );
    assert_eq!(a.path(), b.path());
    assert!(a.created() && !b.created());
    assert!(take(&f.store, Sharing::Locked).is_none());
    drop((a, b));
    assert!(take(&f.store, Sharing::Locked).is_some());
}

#[test]
fn private_users_have_one_each_and_get_them_back() {
    let f = fixture();
    let (a, b) = (
        take(&f.store, Sharing::Private).unwrap(),
        take(&f.store, Sharing::Private).unwrap(),
    );
    assert_ne!(a.path(), b.path());
    let first = a.path().to_owned();
    drop(a);
    assert_eq!(take(&f.store, Sharing::Private).unwrap().path(), first);
    assert_eq!(f.store.cache_mounts().unwrap().len(), 2);
}

#[test]
fn a_locked_mount_has_one_user() {
    let f = fixture();
    let a = take(&f.store, Sharing::Locked).unwrap();
    let busy = f
        .store
        .cache_mount("/root/.cache", Sharing::Locked, |_| Ok(()))
        .unwrap();
    assert!(matches!(busy, CacheMountAttempt::Busy(Some(pid)) if pid == std::process::id()));
    drop(a);
    assert!(take(&f.store, Sharing::Locked).is_some());
}

#[test]
fn a_new_mount_is_filled_before_anybody_sees_it() {
    let f = fixture();
    let fill = |dir: BorrowedFd<'_>| {
        rustix::fs::mkdirat(dir, "seed", rustix::fs::Mode::from(0o755)).map_err(io::Error::from)
    };
    let fail = |_: BorrowedFd<'_>| Err(io::Error::other("no seed"));
    let error = f
        .store
        .cache_mount("id", Sharing::Shared, fail)
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot fill the new cache mount `id`");
    assert_eq!(f.store.cache_mounts().unwrap(), []);
    let CacheMountAttempt::Held(mount) = f.store.cache_mount("id", Sharing::Shared, fill).unwrap()
    else {
        panic!()
    };
    assert!(mount.path().join("seed").is_dir());
    drop(mount);
    let again = f.store.cache_mount("id", Sharing::Shared, fail).unwrap();
    assert!(matches!(again, CacheMountAttempt::Held(_)));
}

#[test]
fn a_mount_in_use_is_not_swept() {
    let f = fixture();
    let mount = take(&f.store, Sharing::Shared).unwrap();
    assert_eq!(f.store.sweep(Policy::All).unwrap().cache_mounts, 0);
    assert!(mount.path().exists());
    let path = mount.path().to_owned();
    drop(mount);
    assert_eq!(f.store.sweep(Policy::All).unwrap().cache_mounts, 1);
    assert!(!path.exists());
    assert_eq!(f.store.remove_cache_mount("/root/.cache").unwrap(), 0);
}
