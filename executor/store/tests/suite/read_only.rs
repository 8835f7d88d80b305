//! A store on a disk that is mounted read-only.

use std::fs;
use std::path::Path;

use kiln_store::{Store, StoreError, StoreOptions};

use crate::fixture::{SmallDisk, image, layer};

fn open(root: &Path) -> Result<Store, StoreError> {
    Store::open(root, StoreOptions::default())
}

/// Makes a store with an image, and lets nobody write to it any more.
fn store(before: impl Fn(&Path)) -> Option<(SmallDisk, std::path::PathBuf)> {
    let disk = SmallDisk::tmpfs("12m")?;
    let root = disk.path().join("store");
    let store = open(&root).unwrap();
    let content = layer(&store, &store.lease(), &[("a", "b")]).content;
    let image = image([0xab; 32], &[content]);
    store.put_image(&store.lease(), &image).unwrap();
    store.tag(&image.id, b"manifest", "name").unwrap();
    drop(store);
    before(&root);
    disk.remount("ro");
    Some((disk, root))
}

/// What is known can be looked at, and nothing else.
fn check(root: &Path) {
    let store = open(root).unwrap();
    assert!(store.is_read_only());
    assert_eq!(store.images().unwrap().len(), 1);
    let lease = store.lease();
    assert!(store.image_by_name(&lease, "name").unwrap().is_some());
    assert!(store.resolve_image(&lease, "abab").is_ok());
    assert!(store.peek_image("name").is_ok());
    let pulled = store.pulled(&lease, "name", "linux/amd64").unwrap();
    assert_eq!(pulled, None);
    assert!(store.builds(10).unwrap().is_empty());
    store.untag("name").unwrap_err();
}

#[test]
fn what_is_known_can_be_looked_at() {
    let Some((_disk, root)) = store(|_| ()) else {
        return;
    };
    check(&root);
}

#[test]
fn a_copy_without_its_log_can_be_read() {
    let copied = |root: &Path| {
        open(root).unwrap().mark_durable().unwrap();
        for name in ["db.sqlite-wal", "db.sqlite-shm"] {
            fs::remove_file(root.join(name)).unwrap();
        }
    };
    let Some((_disk, root)) = store(copied) else {
        return;
    };
    check(&root);
}

#[test]
fn a_log_that_cannot_be_read_is_named() {
    let torn = |root: &Path| fs::remove_file(root.join("db.sqlite-shm")).unwrap();
    let Some((_disk, root)) = store(torn) else {
        return;
    };
    let error = open(&root).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
}
