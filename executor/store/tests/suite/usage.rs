//! What the store says that it takes, against what the disk says.

use std::process::Command;

use kiln_store::{Policy, Sharing, Store};

use crate::fixture::{blob, fixture, key, layer, record};
use crate::remotes::mirror;

/// Compares with what du(1) counts.
fn check(store: &Store) {
    let du = Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(store.root())
        .output()
        .unwrap();
    let text = String::from_utf8(du.stdout).unwrap();
    let walked: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(store.usage().unwrap().total_bytes(), walked);
}

#[test]
fn the_lines_add_up_to_the_disk() {
    let f = fixture();
    check(&f.store);
    let content = layer(
        &f.store,
        &f.lease,
        &[("a/b/c", "text"), ("d", &"x".repeat(100_000))],
    )
    .content;
    let fs = f.store.root().join(format!(
        "layers/{}/fs",
        content.to_string().replace(':', "-")
    ));
    // As layers share unchanged files.
    let draft = f.store.begin_layer().unwrap();
    std::fs::hard_link(fs.join("d"), draft.fs_path().join("d")).unwrap();
    blob(&f.store, &f.lease, &[0; 10_000]);
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[content]))
        .unwrap();
    f.store
        .cache_mount("id", Sharing::Shared, |_| Ok(()))
        .unwrap();
    f.store.put_hash_memory("/src", &[1; 5000]).unwrap();
    mirror(&f.store, "x.org/a.git");
    f.store.remember_remote("http://x.org/", b"facts").unwrap();
    check(&f.store);
    let usage = f.store.usage().unwrap();
    let counts = [
        usage.layers,
        usage.blobs,
        usage.cache_mounts,
        usage.contexts,
        usage.remotes,
        usage.records,
    ];
    assert_eq!(counts.map(|line| line.count), [1; 6]);
    // A link to a file of a layer takes no second place.
    assert!(usage.work.bytes < 50_000, "{usage:?}");
    drop((draft, f.lease));
    f.store.sweep(Policy::All).unwrap();
    check(&f.store);
}

#[test]
fn a_sweep_tells_what_the_disk_got_back() {
    let f = fixture();
    layer(&f.store, &f.lease, &[("d", &"x".repeat(100_000))]);
    drop(f.lease);
    let before = f.store.usage().unwrap().layers.bytes;
    let report = f.store.sweep(Policy::All).unwrap();
    assert_eq!(before - f.store.usage().unwrap().layers.bytes, report.bytes);
}
