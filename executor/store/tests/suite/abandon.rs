//! Leases that are given up: what was brought for nothing goes, what anybody needs stays.

use kiln_store::{Content, DiffId, ImageId, Policy};

use crate::fixture::{blob, diff_layer, fixture, image, key, layer, open, record};

#[test]
fn what_nobody_needs_goes_at_once() {
    let f = fixture();
    let mine = layer(&f.store, &f.lease, &[("a", "1")]).content;
    let bytes = blob(&f.store, &f.lease, b"x");
    f.store.abandon(&f.lease).unwrap();
    assert!(f.store.layer(&mine).unwrap().is_none());
    assert_eq!(f.store.blob_size(&bytes).unwrap(), None);
    for part in ["layers", "blobs/sha256", "trash"] {
        let left = std::fs::read_dir(f.store.root().join(part)).unwrap();
        assert_eq!(left.count(), 0, "{part}");
    }
    let report = f.store.sweep(Policy::UnusedOnly).unwrap();
    assert_eq!((report.layers, report.blobs, report.orphans), (0, 0, 0));
}

#[test]
fn an_archive_goes_with_its_layer() {
    let f = fixture();
    let id = DiffId([7; 32]);
    let content = Content::DiffId(id);
    diff_layer(&f.store, &f.lease, id, "text");
    let bytes = blob(&f.store, &f.lease, b"x");
    f.store
        .put_compressed(&content, "", kiln_store::AS_PULLED, &bytes, &id)
        .unwrap();
    f.store.abandon(&f.lease).unwrap();
    assert!(f.store.layer(&content).unwrap().is_none());
    assert_eq!(f.store.blob_size(&bytes).unwrap(), None);
}

#[test]
fn what_is_referred_to_stays() {
    let f = fixture();
    let recorded = layer(&f.store, &f.lease, &[("a", "1")]).content;
    let of_image = layer(&f.store, &f.lease, &[("a", "2")]).content;
    let attached = blob(&f.store, &f.lease, b"x");
    f.store
        .file_record(&f.lease, &record(&[key(1)], &[recorded]))
        .unwrap();
    f.store
        .put_image(&f.lease, &image([1; 32], &[of_image]))
        .unwrap();
    f.store
        .attach_blobs(&ImageId([1; 32]), &[attached])
        .unwrap();
    f.store.abandon(&f.lease).unwrap();
    for content in [recorded, of_image] {
        assert!(f.store.layer(&content).unwrap().is_some());
    }
    assert_eq!(f.store.blob_size(&attached).unwrap(), Some(1));
}

#[test]
fn what_somebody_else_leases_stays() {
    let f = fixture();
    let content = layer(&f.store, &f.lease, &[("a", "1")]).content;
    let bytes = blob(&f.store, &f.lease, b"x");
    let other = open(&f.dir);
    let lease = other.lease();
    assert!(other.lease_layer(&lease, &content).unwrap());
    assert!(other.lease_blob(&lease, &bytes).unwrap());
    f.store.abandon(&f.lease).unwrap();
    assert!(f.store.layer(&content).unwrap().is_some());
    assert_eq!(f.store.blob_size(&bytes).unwrap(), Some(1));
    other.abandon(&lease).unwrap();
    assert!(f.store.layer(&content).unwrap().is_none());
    assert_eq!(f.store.blob_size(&bytes).unwrap(), None);
}

#[test]
fn a_lease_that_holds_nothing_is_given_up_for_free() {
    let f = fixture();
    f.store.abandon(&f.lease).unwrap();
    assert_eq!(
        std::fs::read_dir(f.store.root().join("procs"))
            .unwrap()
            .count(),
        0
    );
}
