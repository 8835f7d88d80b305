//! Mirrors of repositories and what was learnt of addresses: one user at a time, and swept.

use std::time::Duration;

use kiln_store::{Policy, RepositoryAttempt, Store};

use crate::fixture::fixture;

/// Puts something into the mirror of a repository.
pub(crate) fn mirror(store: &Store, remote: &str) {
    match store.repository(remote).unwrap() {
        RepositoryAttempt::Held(repository) => {
            std::fs::create_dir(repository.path()).unwrap();
            std::fs::write(repository.path().join("HEAD"), [0; 100_000]).unwrap();
        }
        RepositoryAttempt::Busy(pid) => panic!("{pid:?} has {remote}"),
    }
}

fn count(store: &Store) -> u64 {
    store.usage().unwrap().remotes.count
}

#[test]
fn a_mirror_has_one_user() {
    let f = fixture();
    let held = f.store.repository("a").unwrap();
    assert!(matches!(held, RepositoryAttempt::Held(_)));
    let again = f.store.repository("a").unwrap();
    assert!(matches!(again, RepositoryAttempt::Busy(Some(pid)) if pid == std::process::id()));
    let other = f.store.repository("b").unwrap();
    assert!(matches!(other, RepositoryAttempt::Held(_)));
    drop(held);
    let free = f.store.repository("a").unwrap();
    assert!(matches!(free, RepositoryAttempt::Held(_)));
}

#[test]
fn a_sweep_spares_a_mirror_in_use() {
    let f = fixture();
    mirror(&f.store, "a");
    mirror(&f.store, "b");
    let held = f.store.repository("a").unwrap();
    let report = f.store.sweep_keeping_mounts(Policy::All).unwrap();
    assert_eq!((report.repositories, count(&f.store)), (1, 1));
    assert!(report.bytes >= 100_000, "{report:?}");
    drop(held);
    assert_eq!(f.store.sweep(Policy::All).unwrap().repositories, 1);
}

#[test]
fn mirrors_go_by_age_and_by_size() {
    let f = fixture();
    mirror(&f.store, "a");
    let sweep = |policy| f.store.sweep(policy).unwrap().repositories;
    assert_eq!(sweep(Policy::UnusedOnly), 0);
    assert_eq!(sweep(Policy::KeepDuration(Duration::from_secs(3600))), 0);
    assert_eq!(sweep(Policy::KeepBytes(1 << 20)), 0);
    assert_eq!(sweep(Policy::KeepBytes(1000)), 1);
    mirror(&f.store, "a");
    assert_eq!(sweep(Policy::KeepDuration(Duration::ZERO)), 1);
}

#[test]
fn what_was_learnt_is_remembered_until_a_sweep() {
    let f = fixture();
    assert_eq!(f.store.remembered_remote("x").unwrap(), None);
    f.store.remember_remote("x", b"one").unwrap();
    f.store.remember_remote("x", b"two").unwrap();
    let known = || f.store.remembered_remote("x").unwrap();
    assert_eq!(known().as_deref(), Some(&b"two"[..]));
    f.store.sweep(Policy::KeepBytes(0)).unwrap();
    assert!(known().is_some());
    f.store.sweep(Policy::All).unwrap();
    assert_eq!(known(), None);
}

#[test]
fn work_goes_with_its_handle() {
    let f = fixture();
    let work = f.store.work_directory("x").unwrap();
    let path = work.path().to_owned();
    std::fs::write(path.join("file"), "x").unwrap();
    drop(work);
    assert!(!path.exists());
}
