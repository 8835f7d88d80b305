//! A disk that is full: told, and nothing half made.

use std::io::Write;
use std::path::Path;

use kiln_store::{Policy, Store, StoreError, StoreOptions};

use crate::fixture::{SmallDisk, blob, image, key, layer, record};

/// Fills a disk to its last byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    let _ = file.sync_all();
}

#[test]
fn a_full_disk_is_told_and_the_store_goes_on() {
    let Some(small) = SmallDisk::tmpfs("2m") else {
        return;
    };
    let store = Store::open(&small.path().join("store"), StoreOptions::default()).unwrap();
    let lease = store.lease();
    let kept = layer(&store, &lease, &[("a", "kept")]).content;

    let filler = small.path().join("filler");
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
    let store = Store::open(&small.path().join("store"), StoreOptions::default()).unwrap();
    assert!(store.layer(&kept).unwrap().is_some());
}

/// Fills the disk of a store that holds records, and clears it by another process.
fn check_cleared(disk: Option<SmallDisk>) {
    let Some(disk) = disk else { return };
    let root = disk.path().join("store");
    let open = || Store::open(&root, StoreOptions::default()).unwrap();
    let store = open();
    assert!(root.join("reserve").exists());
    let lease = store.lease();
    let kept = layer(&store, &lease, &[("kept", "kept")]).content;
    store.put_image(&lease, &image([1; 32], &[kept])).unwrap();
    store
        .tag(&image([1; 32], &[]).id, b"manifest", "kept")
        .unwrap();
    let text = "x".repeat(100_000);
    for number in 0..40 {
        let content = layer(&store, &lease, &[(&number.to_string(), &text)]).content;
        store
            .file_record(&lease, &record(&[key(number)], &[content]))
            .unwrap();
    }
    drop((lease, store));
    fill(&disk.path().join("filler"));

    let store = open();
    assert_eq!(store.images().unwrap().len(), 1);
    assert_eq!(store.peek_image("kept").unwrap().layers, [kept]);
    let usage = store.usage().unwrap();
    assert!(usage.layers.bytes > 4_000_000, "{usage:?}");
    let swept = store.sweep(Policy::All).unwrap();
    assert_eq!((swept.records, swept.layers), (40, 40));
    assert!(swept.bytes > 4_000_000, "{swept:?}");
    assert!(store.layer(&kept).unwrap().is_some());
    // The next time is provided for.
    assert!(root.join("reserve").exists());
}

#[test]
fn a_full_disk_can_be_cleared() {
    check_cleared(SmallDisk::tmpfs("12m"));
    check_cleared(SmallDisk::ext4("32M"));
}

#[test]
fn an_image_can_be_removed_on_a_full_disk() {
    let Some(disk) = SmallDisk::tmpfs("12m") else {
        return;
    };
    let store = Store::open(&disk.path().join("store"), StoreOptions::default()).unwrap();
    let content = layer(&store, &store.lease(), &[("a", "b")]).content;
    let image = image([1; 32], &[content]);
    store.put_image(&store.lease(), &image).unwrap();
    store.mark_durable().unwrap();
    fill(&disk.path().join("filler"));
    assert!(store.make_room().unwrap());
    store.remove_image(&image.id).unwrap();
    assert!(store.images().unwrap().is_empty());
}
