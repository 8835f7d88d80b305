//! Blobs: named once their digest is known to be right.

use std::io::{Read, Write};

use kiln_store::{BlobDigest, StoreError};

use crate::fixture::{blob, fixture};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn a_blob_comes_back_by_its_digest() {
    let f = fixture();
    let digest = blob(&f.store, &f.lease, b"hello");
    assert_eq!(digest.to_string(), HELLO);
    assert_eq!(f.store.blob_size(&digest).unwrap(), Some(5));
    let mut text = String::new();
    f.store
        .open_blob(&digest)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn another_digest_than_expected_gets_no_name() {
    let f = fixture();
    let expected: BlobDigest = HELLO.parse().unwrap();
    let mut writer = f.store.write_blob(Some(expected)).unwrap();
    writer.write_all(b"hell0").unwrap();
    let error = writer.finish(&f.lease).unwrap_err();
    assert!(matches!(error, StoreError::BlobDigest { .. }), "{error}");
    assert_eq!(f.store.blob_size(&expected).unwrap(), None);
    assert!(matches!(
        f.store.open_blob(&expected),
        Err(StoreError::NoSuchBlob(_))
    ));
    assert_eq!(f.store.usage().unwrap().blobs.count, 0);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let f = fixture();
    let mut writer = f.store.write_blob(None).unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    assert_eq!(files(&f.dir.path().join("store/work")), 0);
}

#[test]
fn a_partial_blob_is_gone_on_with_once() {
    let f = fixture();
    let expected: BlobDigest = HELLO.parse().unwrap();
    let mut writer = f.store.write_blob(Some(expected)).unwrap();
    writer.write_all(b"hel").unwrap();
    writer.keep_partial().unwrap();

    let mut writer = f.store.resume_blob(expected).unwrap().unwrap();
    assert_eq!(writer.written(), 3);
    assert!(f.store.resume_blob(expected).unwrap().is_none());
    writer.write_all(b"lo").unwrap();
    assert_eq!(writer.finish(&f.lease).unwrap(), expected);
}

#[test]
fn a_leased_blob_is_not_deleted() {
    let f = fixture();
    let digest = blob(&f.store, &f.lease, b"hello");
    assert!(!f.store.delete_blob(&digest).unwrap());
    drop(f.lease);
    assert!(f.store.delete_blob(&digest).unwrap());
    assert_eq!(f.store.blob_size(&digest).unwrap(), None);
}

#[test]
fn the_same_blob_twice_is_one() {
    let f = fixture();
    blob(&f.store, &f.lease, b"hello");
    blob(&f.store, &f.lease, b"hello");
    assert_eq!(f.store.usage().unwrap().blobs.count, 1);
}

/// Files anywhere below a directory.
fn files(dir: &std::path::Path) -> usize {
    let items = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    items
        .map(|item| {
            if item.path().is_dir() {
                files(&item.path())
            } else {
                1
            }
        })
        .sum()
}
