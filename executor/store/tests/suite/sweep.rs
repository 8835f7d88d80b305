//! Sweeping: what goes under which policy, and what stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_store::{BlobDigest, DiffId, Policy, Pulled, Store};

use crate::fixture::{blob, diff_layer, fixture, image, key, layer, record};

fn age(store: &Store, table: &str) {
    let c = rusqlite::Connection::open(store.root().join("db.sqlite")).unwrap();
    c.execute(&format!("UPDATE {table} SET used = used - 10000000"), [])
        .unwrap();
}

#[test]
fn what_nothing_refers_to_goes_under_every_policy() {
    let f = fixture();
    layer(&f.store, &f.lease, &[("a", "1")]);
    blob(&f.store, &f.lease, b"x");
    assert_eq!(f.store.sweep(Policy::UnusedOnly).unwrap().layers, 0);
    drop(f.lease);
    let report = f.store.sweep(Policy::UnusedOnly).unwrap();
    assert_eq!((report.layers, report.blobs), (1, 1));
    assert!(report.bytes > 0);
}

#[test]
fn records_and_named_images_keep_their_layers() {
    let f = fixture();
    let recorded = layer(&f.store, &f.lease, &[("a", "1")]).content;
    let named = layer(&f.store, &f.lease, &[("a", "2")]).content;
    let untagged = layer(&f.store, &f.lease, &[("a", "3")]).content;
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[recorded]))
        .unwrap();
    f.store
        .put_image(&f.lease, &image([1; 32], &[named]))
        .unwrap();
    f.store
        .tag(&kiln_store::ImageId([1; 32]), b"manifest", "name")
        .unwrap();
    f.store
        .put_image(&f.lease, &image([2; 32], &[untagged]))
        .unwrap();
    drop(f.lease);
    let there = |content| f.store.layer(content).unwrap().is_some();
    let report = f.store.sweep(Policy::UnusedOnly).unwrap();
    assert_eq!((report.records, report.images, report.layers), (0, 1, 1));
    assert_eq!(
        [there(&recorded), there(&named), there(&untagged)],
        [true, true, false]
    );
    let report = f.store.sweep(Policy::All).unwrap();
    assert_eq!((report.records, report.images, report.layers), (1, 0, 1));
    assert_eq!([there(&recorded), there(&named)], [false, true]);
    let mark = f.store.tombstones(&[key(1)]).unwrap().remove(0).unwrap();
    assert_eq!(mark.rule, "prune");
}

#[test]
fn a_pull_keeps_its_layers_until_it_goes() {
    let f = fixture();
    let content = diff_layer(&f.store, &f.lease, DiffId([1; 32]), "x");
    let pulled = Pulled {
        reference: "a".into(),
        platform: "linux/amd64".into(),
        manifest_digest: BlobDigest([0; 32]),
        manifest: vec![],
        config: vec![],
        diff_ids: vec![DiffId([1; 32])],
        pulled_at: std::time::SystemTime::now(),
    };
    f.store.put_pulled(&pulled).unwrap();
    drop(f.lease);
    assert_eq!(f.store.sweep(Policy::UnusedOnly).unwrap().layers, 0);
    let report = f.store.sweep(Policy::All).unwrap();
    assert_eq!((report.pulls, report.layers), (1, 1));
    assert_eq!(f.store.layer(&content).unwrap(), None);
}

#[test]
fn by_age_goes_what_was_not_used() {
    let f = fixture();
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[]))
        .unwrap();
    drop(f.lease);
    let policy = Policy::KeepDuration(Duration::from_secs(3600));
    assert_eq!(f.store.sweep(policy).unwrap().records, 0);
    age(&f.store, "record");
    f.store.find(&f.store.lease(), &[key(1)]).unwrap();
    assert_eq!(f.store.sweep(policy).unwrap().records, 0);
    age(&f.store, "record");
    assert_eq!(f.store.sweep(policy).unwrap().records, 1);
}

#[test]
fn by_size_goes_the_longest_unused_until_it_fits() {
    let f = fixture();
    let big = "x".repeat(1000);
    for number in 1..=5 {
        let content = layer(&f.store, &f.lease, &[("a", &format!("{big}{number}"))]).content;
        f.store
            .file_record(&f.lease, &record(&[key(number)], &[content]))
            .unwrap();
        age(&f.store, "record");
    }
    drop(f.lease);
    let report = f.store.sweep(Policy::KeepBytes(2500)).unwrap();
    assert_eq!((report.records, report.layers), (3, 3));
    let lease = f.store.lease();
    let left = f
        .store
        .find(&lease, &(1..=5).map(key).collect::<Vec<_>>())
        .unwrap();
    let left: Vec<_> = left.iter().map(Option::is_some).collect();
    assert_eq!(left, [false, false, false, true, true]);
}

#[test]
fn what_no_row_names_goes() {
    let f = fixture();
    let root = f.store.root();
    std::fs::create_dir_all(root.join(format!("layers/sha256-{}/fs/deep", "0".repeat(64))))
        .unwrap();
    std::fs::write(root.join("layers/stray"), "").unwrap();
    std::fs::write(root.join(format!("blobs/sha256/{}", "0".repeat(64))), "").unwrap();
    std::fs::create_dir_all(root.join("work/0123456789abcdef/layer-1")).unwrap();
    std::fs::create_dir_all(root.join("trash/old/deep")).unwrap();
    assert_eq!(f.store.sweep(Policy::UnusedOnly).unwrap().orphans, 3);
    for place in ["layers", "blobs/sha256", "trash"] {
        assert_eq!(
            std::fs::read_dir(root.join(place)).unwrap().count(),
            0,
            "{place}"
        );
    }
    assert!(!root.join("work/0123456789abcdef").exists());
}

#[test]
fn sweeping_everything_forgets_contexts_and_partial_blobs() {
    let f = fixture();
    f.store.put_trees(&[([1; 32], b"tree")]).unwrap();
    f.store.put_hash_memory("/src", b"memory").unwrap();
    f.store
        .write_blob(Some(BlobDigest([1; 32])))
        .unwrap()
        .keep_partial()
        .unwrap();
    assert_eq!(
        f.store
            .sweep(Policy::KeepDuration(Duration::from_secs(3600)))
            .unwrap()
            .contexts,
        0
    );
    assert_eq!(f.store.sweep(Policy::All).unwrap().contexts, 3);
    assert_eq!(f.store.hash_memory("/src").unwrap(), None);
    assert!(!f.store.has_tree(&[1; 32]).unwrap());
}

#[test]
fn archives_go_before_the_layers_they_are_of() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    f.store
        .put_image(&f.lease, &image([1; 32], &[content]))
        .unwrap();
    f.store
        .tag(&kiln_store::ImageId([1; 32]), b"manifest", "name")
        .unwrap();
    let archive = blob(&f.store, &f.lease, b"archive");
    f.store
        .put_compressed(&content, "", "gzip", &archive, &DiffId([1; 32]))
        .unwrap();
    drop(f.lease);
    assert_eq!(f.store.sweep(Policy::UnusedOnly).unwrap().blobs, 0);
    assert_eq!(f.store.sweep(Policy::All).unwrap().blobs, 1);
    assert!(f.store.layer(&content).unwrap().is_some());
    assert_eq!(
        f.store.diff_id(&content, "").unwrap(),
        Some(DiffId([1; 32]))
    );
}

#[test]
fn an_archive_that_nothing_can_make_again_stays_with_its_image() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "")]).content;
    let id = kiln_store::ImageId([1; 32]);
    f.store
        .put_image(&f.lease, &image([1; 32], &[content]))
        .unwrap();
    f.store.tag(&id, b"manifest", "name").unwrap();
    let archive = blob(&f.store, &f.lease, b"archive");
    f.store
        .put_compressed(
            &content,
            "",
            kiln_store::AS_PULLED,
            &archive,
            &DiffId([1; 32]),
        )
        .unwrap();
    drop(f.lease);
    assert_eq!(f.store.sweep(Policy::All).unwrap().blobs, 0);
    f.store.remove_image(&id).unwrap();
    assert_eq!(f.store.sweep(Policy::All).unwrap().blobs, 1);
}

/// Every record that is found has all of its layers, however fast a sweep is.
#[test]
fn finding_and_leasing_is_one_step_beside_sweeps() {
    let f = fixture();
    let done = AtomicBool::new(false);
    let other = crate::fixture::open(&f.dir);
    let mut hits = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                other.sweep(Policy::All).unwrap();
            }
        });
        for round in 0..150 {
            let filing = f.store.lease();
            let content = layer(&f.store, &filing, &[("a", &format!("{}", round % 5))]).content;
            f.store
                .file_record(&filing, &record(&[key(1)], &[content]))
                .unwrap();
            drop(filing);
            let lease = f.store.lease();
            if let Some(record) = f.store.find(&lease, &[key(1)]).unwrap().remove(0) {
                assert_eq!(record.missing, []);
                let fs = f.store.open_layer(&content).unwrap();
                assert_eq!(crate::layers::read(&fs, "a"), format!("{}", round % 5));
                hits += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(hits > 0);
}
