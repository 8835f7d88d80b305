//! Images of several platforms: kept, found, named and removed as one.

use kiln_store::{Content, ImageId, Member, NewIndex, Policy, StoreError};

use crate::fixture::{Fixture, fixture, image, layer};

const AMD64: [u8; 32] = [0x0a; 32];
const ARM64: [u8; 32] = [0x0b; 32];
const INDEX: [u8; 32] = [0x0c; 32];

/// A store with an image of two platforms, which have a layer each.
fn two() -> (Fixture, [Content; 2]) {
    let f = fixture();
    let layers = ["amd64", "arm64"].map(|text| layer(&f.store, &f.lease, &[("a", text)]).content);
    for (id, layer) in [(AMD64, layers[0]), (ARM64, layers[1])] {
        f.store.put_image(&f.lease, &image(id, &[layer])).unwrap();
    }
    f.store.put_index(&f.lease, &index(INDEX)).unwrap();
    (f, layers)
}

fn index(id: [u8; 32]) -> NewIndex {
    let member = |platform: &str, id| Member {
        platform: platform.to_owned(),
        id: ImageId(id),
        manifest: b"manifest".to_vec(),
    };
    NewIndex {
        id: ImageId(id),
        index: b"{}".to_vec(),
        members: vec![member("linux/amd64", AMD64), member("linux/arm64", ARM64)],
    }
}

/// The ids of all images, and whether each is part of another.
fn listed(f: &Fixture) -> Vec<(ImageId, bool)> {
    let mut listed: Vec<_> = f
        .store
        .images()
        .unwrap()
        .into_iter()
        .map(|named| (named.image.id, named.is_member))
        .collect();
    listed.sort();
    listed
}

#[test]
fn it_is_found_with_its_members() {
    let (f, layers) = two();
    f.store.tag(&ImageId(INDEX), b"{}", "app").unwrap();
    let found = f.store.image_by_name(&f.lease, "app").unwrap().unwrap();
    assert_eq!(found.members, index(INDEX).members);
    assert_eq!(
        (found.manifest.as_slice(), found.layers),
        (&b"{}"[..], vec![])
    );
    let member = f
        .store
        .resolve_image(&f.lease, &ImageId(ARM64).to_string())
        .unwrap();
    assert_eq!((member.layers, member.members), (vec![layers[1]], vec![]));
    assert_eq!(
        listed(&f),
        [
            (ImageId(AMD64), true),
            (ImageId(ARM64), true),
            (ImageId(INDEX), false)
        ]
    );
}

#[test]
fn a_member_keeps_its_manifest() {
    let (f, layers) = two();
    let other = kiln_store::NewImage {
        manifest: b"other".to_vec(),
        ..image(ARM64, &layers[1..])
    };
    f.store.put_image(&f.lease, &other).unwrap();
    let found = f.store.peek_image(&ImageId(INDEX).to_string()).unwrap();
    let member = &found.members[1];
    assert_eq!(
        f.store.member(&f.lease, member).unwrap().manifest,
        b"manifest"
    );
    assert_eq!(f.store.peek_member(member).unwrap().manifest, b"manifest");
    let newest = f.store.peek_image(&ImageId(ARM64).to_string()).unwrap();
    assert_eq!(newest.manifest, b"other");
}

#[test]
fn a_name_keeps_every_layer() {
    let (f, layers) = two();
    f.store.tag(&ImageId(INDEX), b"{}", "app").unwrap();
    let store = f.store.clone();
    drop(f.lease);
    let report = store.sweep(Policy::All).unwrap();
    assert_eq!((report.images, report.layers), (0, 0));
    for layer in layers {
        assert!(store.layer(&layer).unwrap().is_some());
    }
}

#[test]
fn looking_it_up_leases_every_layer() {
    let (f, layers) = two();
    let store = f.store.clone();
    let lease = store.lease();
    store
        .resolve_image(&lease, &ImageId(INDEX).to_string())
        .unwrap();
    drop(f.lease);
    let report = store.sweep(Policy::All).unwrap();
    assert_eq!((report.images, report.layers), (0, 0));
    assert!(store.layer(&layers[1]).unwrap().is_some());
}

#[test]
fn untagged_it_goes_as_a_whole() {
    let (f, layers) = two();
    let store = f.store.clone();
    drop(f.lease);
    let report = store.sweep(Policy::UnusedOnly).unwrap();
    assert_eq!((report.images, report.layers), (3, 2));
    assert!(store.images().unwrap().is_empty());
    assert!(store.layer(&layers[0]).unwrap().is_none());
}

#[test]
fn a_member_goes_only_with_it() {
    let (f, _) = two();
    let error = f.store.remove_image(&ImageId(ARM64)).unwrap_err();
    assert!(matches!(error, StoreError::ImageOfIndex { .. }), "{error}");
    f.store.tag(&ImageId(AMD64), b"manifest", "native").unwrap();
    let store = f.store.clone();
    drop(f.lease);
    store.remove_image(&ImageId(INDEX)).unwrap();
    let left: Vec<_> = store.images().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].image.id, left[0].is_member),
        (ImageId(AMD64), false)
    );
}

#[test]
fn two_may_share_a_member() {
    let (f, _) = two();
    let other = [0x0d; 32];
    f.store.put_index(&f.lease, &index(other)).unwrap();
    let store = f.store.clone();
    drop(f.lease);
    store.remove_image(&ImageId(INDEX)).unwrap();
    assert_eq!(store.images().unwrap().len(), 3);
    store.remove_image(&ImageId(other)).unwrap();
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn it_has_members_that_are_there_and_have_none() {
    let (f, _) = two();
    let mut missing = index([0x0e; 32]);
    missing.members[0].id = ImageId([9; 32]);
    let mut nested = index([0x0f; 32]);
    nested.members[0].id = ImageId(INDEX);
    for wrong in [missing, nested] {
        let error = f.store.put_index(&f.lease, &wrong).unwrap_err();
        assert!(matches!(error, StoreError::NoSuchImage { .. }), "{error}");
    }
    assert_eq!(listed(&f).len(), 3);
}
