//! A disk that is full: told, and nothing half made.

use std::io::Write;
use std::process::Command;

use kiln_store::{Policy, Store, StoreError, StoreOptions};
use tempfile::TempDir;

use crate::fixture::{blob, can_mount, layer};

/// A filesystem of two megabytes, unmounted when dropped.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "kiln-test"])
            .arg(dir.path())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("skipped: cannot mount a tmpfs here");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on() {
    let Some(small) = Small::mount() else { return };
    let store = Store::open(&small.0.path().join("store"), StoreOptions::default()).unwrap();
    let lease = store.lease();
    let kept = layer(&store, &lease, &[("a", "kept")]).content;

    let filler = small.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut error = None;
    for number in 0..100_000u32 {
        let tree: &[u8] = &[0; 3000];
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        if let Err(refused) = store.put_trees(&[(digest, tree)]) {
            error = Some(refused);
            break;
        }
    }
    let error = error.unwrap();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(
        error.to_string().ends_with("`kiln prune` frees some"),
        "{error}"
    );
    let written = store
        .write_blob(None)
        .map(|mut writer| writer.write_all(&[0; 100_000]));
    assert!(!matches!(written, Ok(Ok(()))));

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(
        crate::layers::read(store.open_layer(&kept).unwrap(), "a"),
        "kept"
    );
    blob(&store, &lease, b"more");
    store.sweep(Policy::All).unwrap();
    drop((lease, store));
    let store = Store::open(&small.0.path().join("store"), StoreOptions::default()).unwrap();
    assert!(store.layer(&kept).unwrap().is_some());
}
