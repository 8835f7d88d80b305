//! Paths inside a root, trees removed and files copied, by handle.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_tree::copy::{copy_bytes_unseen, create_file, link_file, remove_tree};
use kiln_tree::handle::{self, READ};
use kiln_tree::{Meta, Stop, resolve};
use rustix::fs::OFlags;

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// A root with a secret beside it.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(root.join("etc/inside"), "inside").unwrap();
    symlink("/etc/inside", root.join("absolute")).unwrap();
    symlink("../../../../etc/inside", root.join("etc/climbing")).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("/made/by/link", root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    dir
}

fn check_read(path: &str, expected: Option<&str>) {
    let dir = root();
    let root = open(&dir.path().join("root"));
    let file = resolve::open(&root, path.as_bytes(), OFlags::RDONLY);
    let text = file
        .ok()
        .map(|file| std::io::read_to_string(fs::File::from(file)).unwrap());
    assert_eq!(text.as_deref(), expected, "{path}");
}

#[test]
fn paths_stay_inside() {
    check_read("etc/inside", Some("inside"));
    check_read("/etc/inside", Some("inside"));
    check_read("absolute", Some("inside"));
    check_read("etc/climbing", Some("inside"));
    check_read("../../etc/inside", Some("inside"));
    check_read("out", None);
    check_read("../secret", None);
    check_read("loop", None);
}

#[test]
fn looks_inside() {
    let dir = root();
    let root = open(&dir.path().join("root"));
    assert!(resolve::stat(&root, b"absolute").unwrap().is_some());
    assert!(resolve::stat(&root, b"out").unwrap().is_none());
    assert!(resolve::stat_link(&root, b"out").unwrap().is_some());
    assert_eq!(
        resolve::read_link(&root, b"out").unwrap().unwrap(),
        b"../secret"
    );
    assert_eq!(resolve::read_link(&root, b"etc/inside").unwrap(), None);
    assert_eq!(resolve::read_link(&root, b"none").unwrap(), None);
}

fn check_make(path: &str, expected: &[&str]) {
    let dir = root();
    let root = open(&dir.path().join("root"));
    let mut made = Vec::new();
    let mut note = |path: &[u8]| made.push(String::from_utf8(path.to_vec()).unwrap());
    resolve::make_directories(
        &root,
        path.as_bytes(),
        &Meta {
            uid: owner().0,
            gid: owner().1,
            ..Meta::new(0o750)
        },
        &mut note,
    )
    .unwrap();
    assert_eq!(made, expected, "{path}");
    for path in expected {
        let made = fs::symlink_metadata(dir.path().join("root").join(path)).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o750);
    }
    assert!(!dir.path().join("made").exists());
}

fn owner() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

#[test]
fn makes_directories_inside() {
    check_make("a/b/c", &["a", "a/b", "a/b/c"]);
    check_make("/etc/x", &["etc/x"]);
    check_make("../../x", &["x"]);
    check_make("etc/../../y", &["y"]);
    check_make(
        "dangling/z",
        &["made", "made/by", "made/by/link", "made/by/link/z"],
    );
    check_make("", &[]);
    let dir = root();
    let root = open(&dir.path().join("root"));
    for path in ["etc/inside/x", "loop/x"] {
        let made =
            resolve::make_directories(&root, path.as_bytes(), &Meta::new(0o755), &mut |_| {});
        assert!(made.is_err(), "{path}");
    }
}

#[test]
fn one_call_opens_beneath() {
    let dir = root();
    let root = open(&dir.path().join("root"));
    assert!(handle::open_beneath(&root, b"etc/inside", READ).is_ok());
    for path in [
        "absolute",
        "etc/climbing",
        "../secret",
        "/etc/inside",
        "out",
    ] {
        assert!(
            handle::open_beneath(&root, path.as_bytes(), READ).is_err(),
            "{path}"
        );
    }
}

#[test]
fn removes_without_following() {
    let dir = root();
    let handle = open(dir.path());
    symlink("../secret", dir.path().join("root/etc/link")).unwrap();
    remove_tree(&handle, b"root").unwrap();
    remove_tree(&handle, b"root").unwrap();
    assert!(!dir.path().join("root").exists());
    assert_eq!(
        fs::read_to_string(dir.path().join("secret")).unwrap(),
        "secret"
    );
}

#[test]
fn removes_what_is_deeper_than_any_path() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    let name = b"a-directory-in-a-directory";
    let mut at = handle::open_directory(&top, b".").unwrap();
    for _ in 0..1000 {
        rustix::fs::mkdirat(&at, &name[..], rustix::fs::Mode::RWXU).unwrap();
        create_file(&at, b"file").unwrap();
        at = handle::open_directory(&at, name).unwrap();
    }
    remove_tree(&top, name).unwrap();
    let left: Vec<_> = handle::names(&top)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(left, [b"file".to_vec()]);
}

#[test]
fn copies() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    for size in [0, 1, 4096, 300_000, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|at: u32| at as u8).collect();
        fs::write(dir.path().join("from"), &bytes).unwrap();
        let from = || open(&dir.path().join("from"));
        let to = || create_file(&top, b"to").unwrap();
        copy_bytes_unseen(from(), to(), size.into(), &Stop::NEVER).unwrap();
        assert_eq!(fs::read(dir.path().join("to")).unwrap(), bytes);
        remove_tree(&top, b"to").unwrap();
        // Another size than was seen before is a change.
        assert!(copy_bytes_unseen(from(), to(), u64::from(size) + 1, &Stop::NEVER).is_err());
        remove_tree(&top, b"to").unwrap();
    }
}

#[test]
fn copies_keep_holes() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    let size = 64 << 20;
    let path = dir.path().join("from");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 20 << 20).unwrap();
    file.set_len(size).unwrap();
    copy_bytes_unseen(
        open(&path),
        create_file(&top, b"to").unwrap(),
        size,
        &Stop::NEVER,
    )
    .unwrap();
    let copied = dir.path().join("to");
    assert!(fs::read(&copied).unwrap() == fs::read(&path).unwrap());
    let on_disk = fs::metadata(&copied).unwrap().blocks() * 512;
    assert!(on_disk < 1 << 20, "{on_disk} on disk");
    // A hole that is not there any more is a change as well.
    file.set_len(21 << 20).unwrap();
    let to = create_file(&top, b"changed").unwrap();
    assert!(copy_bytes_unseen(open(&path), to, size, &Stop::NEVER).is_err());
}

#[test]
fn copies_end_when_they_are_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    fs::write(dir.path().join("from"), vec![7; 40 << 20]).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let stop = Stop::when({
        let asked = Arc::clone(&asked);
        move || asked.fetch_add(1, Ordering::Relaxed) == 2
    });
    let to = create_file(&top, b"to").unwrap();
    if rustix::fs::ioctl_ficlone(&to, open(&dir.path().join("from"))).is_ok() {
        return;
    }
    copy_bytes_unseen(open(&dir.path().join("from")), to, 40 << 20, &stop).unwrap_err();
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    let copied = fs::metadata(dir.path().join("to")).unwrap().len();
    assert!(copied < 40 << 20, "{copied} bytes were copied");
}

#[test]
fn links() {
    let dir = tempfile::tempdir().unwrap();
    let top = open(dir.path());
    fs::write(dir.path().join("a"), "x").unwrap();
    assert!(link_file(&top, b"a", &top, b"b").unwrap());
    assert_eq!(fs::metadata(dir.path().join("b")).unwrap().nlink(), 2);
    assert!(link_file(&top, b"none", top.as_fd(), b"c").is_err());
}
