//! Layers: one content id is one layer.

use std::os::fd::AsFd;

use kiln_store::{Content, DiffId, StoreError};
use kiln_tree::LayerId;

use crate::fixture::{diff_layer, fixture, layer};

#[test]
fn a_layer_comes_back_with_its_manifest() {
    let f = fixture();
    let made = layer(&f.store, &f.lease, &[("etc/a", "text"), ("b", "")]);
    assert!(!made.adopted);
    let info = f.store.layer(&made.content).unwrap().unwrap();
    assert_eq!((info.size_bytes, info.files), (4, 3));
    let manifest = f.store.layer_manifest(&made.content).unwrap();
    assert_eq!(Content::Layer(manifest.id()), made.content);
    let fs = f.store.open_layer(&made.content).unwrap();
    assert_eq!(read(&fs, "etc/a"), "text");
}

#[test]
fn the_manifest_is_read_from_disk_by_others() {
    let f = fixture();
    let made = layer(&f.store, &f.lease, &[("a", "text")]);
    let other = crate::fixture::open(&f.dir);
    assert_eq!(
        other.layer_manifest(&made.content).unwrap().total_bytes(),
        4
    );
}

#[test]
fn one_content_is_one_layer_and_the_older_stays() {
    let f = fixture();
    let first = layer(&f.store, &f.lease, &[("a", "same")]);
    let inode = rustix::fs::fstat(f.store.open_layer(&first.content).unwrap())
        .unwrap()
        .st_ino;
    let second = layer(&f.store, &f.lease, &[("a", "same")]);
    assert!(second.adopted);
    assert_eq!(first.content, second.content);
    assert_eq!(
        rustix::fs::fstat(f.store.open_layer(&first.content).unwrap())
            .unwrap()
            .st_ino,
        inode
    );
    let work = f.store.root().join("work");
    let left = std::fs::read_dir(work)
        .unwrap()
        .map(|item| item.unwrap().path());
    assert_eq!(
        left.map(|path| std::fs::read_dir(path).unwrap().count())
            .sum::<usize>(),
        0
    );
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let f = fixture();
    let draft = f.store.begin_layer().unwrap();
    let path = draft.fs_path();
    std::fs::write(path.join("file"), "x").unwrap();
    drop(draft);
    assert!(!path.exists());
    assert_eq!(
        std::fs::read_dir(f.store.root().join("trash"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_directory_without_a_row_makes_way() {
    let f = fixture();
    let id = DiffId([9; 32]);
    let orphan = f.store.root().join(format!("layers/sha256-{}", id.hex()));
    std::fs::create_dir_all(orphan.join("fs/half")).unwrap();
    let content = diff_layer(&f.store, &f.lease, id, "whole");
    let fs = f.store.open_layer(&content).unwrap();
    assert_eq!(read(&fs, "file"), "whole");
    assert!(!orphan.join("fs/half").exists());
}

#[test]
fn missing_layers_are_told() {
    let f = fixture();
    let there = layer(&f.store, &f.lease, &[("a", "")]).content;
    let gone = Content::Layer(LayerId([1; 32]));
    assert_eq!(
        f.store.lease_layers(&f.lease, &[there, gone]).unwrap(),
        [gone]
    );
    assert!(f.store.lease_layer(&f.lease, &there).unwrap());
    assert!(!f.store.lease_layer(&f.lease, &gone).unwrap());
    assert_eq!(f.store.layer(&gone).unwrap(), None);
    assert!(matches!(
        f.store.open_layer(&gone),
        Err(StoreError::NoSuchLayer(_))
    ));
    assert!(matches!(
        f.store.layer_manifest(&gone),
        Err(StoreError::NoSuchLayer(_))
    ));
}

#[test]
fn a_damaged_manifest_is_named() {
    let f = fixture();
    let made = layer(&f.store, &f.lease, &[("a", "")]).content;
    let path = f.store.root().join(format!(
        "layers/{}/manifest",
        made.to_string().replace(':', "-")
    ));
    std::fs::write(&path, "nonsense").unwrap();
    let error = f.store.layer_manifest(&made).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("cannot read the manifest `{}`", path.display())
    );
}

pub(crate) fn read(dir: impl AsFd, name: &str) -> String {
    use std::io::Read;
    let flags = rustix::fs::OFlags::RDONLY;
    let fd = rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()).unwrap();
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}
