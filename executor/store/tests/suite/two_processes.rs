//! Several processes on one store, some of them killed.

use std::time::Duration;

use kiln_store::{Content, Policy, Store};

use crate::child::Child;
use crate::fixture::{fixture, key, layer, open, record};

#[test]
fn a_lease_of_another_process_holds_until_it_dies() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[content]))
        .unwrap();
    drop(f.lease);
    let child = Child::start("lease", &f.dir);
    let report = f.store.sweep(Policy::All).unwrap();
    assert_eq!(
        (report.records, report.layers, report.dead_processes),
        (0, 0, 0)
    );
    assert!(f.store.open_layer(&content).is_ok());
    child.kill();
    let report = f.store.sweep(Policy::All).unwrap();
    assert_eq!(
        (report.records, report.layers, report.dead_processes),
        (1, 1, 1)
    );
    assert!(f.store.open_layer(&content).is_err());
}

#[test]
fn the_work_of_a_process_is_its_own_until_it_dies() {
    let f = fixture();
    let child = Child::start("draft", &f.dir);
    let work = f.store.root().join("work");
    let theirs = std::fs::read_dir(&work)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    f.store.sweep(Policy::All).unwrap();
    assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 1);
    child.kill();
    f.store.sweep(Policy::UnusedOnly).unwrap();
    assert!(!theirs.exists());
}

/// Kills processes that commit, look up and sweep, at instants that nobody chose.
#[test]
fn killed_at_any_instant_the_store_stays_whole() {
    let f = fixture();
    drop(f.lease);
    for round in 0..25u64 {
        let children = [Child::spawn("busy", &f.dir), Child::spawn("busy", &f.dir)];
        std::thread::sleep(Duration::from_millis(40 + round * 13 % 90));
        children.into_iter().for_each(Child::kill);
        check_whole(&open(&f.dir));
    }
    let report = f.store.sweep(Policy::All).unwrap();
    assert!(report.dead_processes > 0);
    for place in ["layers", "work", "trash", "blobs/sha256", "procs"] {
        let names: Vec<_> = std::fs::read_dir(f.store.root().join(place))
            .unwrap()
            .collect();
        let ours = usize::from(place == "procs");
        assert_eq!(names.len(), ours, "{place}: {names:?}");
    }
}

/// Whatever has a row is there in full.
fn check_whole(store: &Store) {
    let lease = store.lease();
    let keys: Vec<_> = (0..64).map(key).collect();
    for record in store.find(&lease, &keys).unwrap().into_iter().flatten() {
        assert_eq!(record.missing, []);
        for content in record.outputs.iter().flatten().flatten() {
            let manifest = store.layer_manifest(content).unwrap();
            assert_eq!(Content::Layer(manifest.id()), *content);
            let fs = store.open_layer(content).unwrap();
            let text = crate::layers::read(&fs, "dir/file");
            assert_eq!(text, crate::layers::read(&fs, "other"));
        }
    }
    let c = rusqlite::Connection::open(store.root().join("db.sqlite")).unwrap();
    let mut query = c
        .prepare("SELECT lower(hex(digest)), size_bytes FROM blob")
        .unwrap();
    let blobs = query.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    });
    let paths: Vec<_> = blobs.unwrap().map(Result::unwrap).collect();
    drop(query);
    // Nobody else runs now, so rows and files can be compared one after the other.
    for (hex, size) in paths {
        let file = store.root().join("blobs/sha256").join(hex);
        assert_eq!(std::fs::metadata(file).unwrap().len(), size.unsigned_abs());
    }
    let whole: String = c
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok");
}
