//! Opening a store: which directories are one, and whose.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use kiln_store::{Store, StoreError, StoreOptions};

use crate::fixture::{fixture, open};

fn check_refused(prepare: impl FnOnce(&std::path::Path), expected: &str) {
    let f = fixture();
    let root = f.store.root().to_owned();
    drop((f.lease, f.store));
    prepare(&root);
    let error = Store::open(&root, StoreOptions::default()).unwrap_err();
    let text = error.to_string().replace(root.to_str().unwrap(), "ROOT");
    assert_eq!(text, expected);
}

#[test]
fn a_new_store_is_ours_alone() {
    let f = fixture();
    let meta = fs::metadata(f.store.root()).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o700);
    assert_eq!(
        fs::read_to_string(f.store.root().join("version")).unwrap(),
        "1\n"
    );
}

#[test]
fn reading_registers_no_process() {
    let f = fixture();
    assert_eq!(
        f.store.blob_size(&kiln_store::BlobDigest([0; 32])).unwrap(),
        None
    );
    assert_eq!(
        f.store.find(&f.lease, &[kiln_store::Key([0; 32])]).unwrap(),
        [None]
    );
    assert_eq!(
        fs::read_dir(f.store.root().join("procs")).unwrap().count(),
        0
    );
}

#[test]
fn the_last_handle_takes_the_process_back() {
    let f = fixture();
    crate::fixture::blob(&f.store, &f.lease, b"x");
    let root = f.store.root().to_owned();
    assert_eq!(fs::read_dir(root.join("procs")).unwrap().count(), 1);
    drop((f.lease, f.store));
    assert_eq!(fs::read_dir(root.join("procs")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("work")).unwrap().count(), 0);
}

#[test]
fn a_newer_layout_is_refused() {
    check_refused(
        |root| fs::write(root.join("version"), "2\n").unwrap(),
        "the store `ROOT` has version 2, and this kiln knows versions up to 1; use a newer kiln or another KILN_ROOT",
    );
}

#[test]
fn a_newer_database_is_refused() {
    check_refused(
        |root| {
            let c = rusqlite::Connection::open(root.join("db.sqlite")).unwrap();
            c.pragma_update(None, "user_version", 9).unwrap();
        },
        "the store `ROOT` has version 9, and this kiln knows versions up to 6; use a newer kiln or another KILN_ROOT",
    );
}

#[test]
fn a_damaged_version_is_refused() {
    check_refused(
        |root| fs::write(root.join("version"), "what\n").unwrap(),
        "the store's database has a damaged file `version`; remove the store at `ROOT` to start anew",
    );
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    if !crate::fixture::can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
    let error = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Owner {
                owner: 12345,
                user: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_store_half_made_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    fs::create_dir_all(root.join("layers")).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    open(&dir);
}

#[test]
fn many_open_a_new_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| crate::fixture::blob(&open(&dir), &open(&dir).lease(), b"x"));
        }
    });
    assert_eq!(open(&dir).usage().unwrap().blobs.count, 1);
}
