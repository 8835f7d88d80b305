//! Contexts on disk, scanned, changed and scanned again.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_tree::TreeDigest;
use kiln_tree::context::{
    ContextTree, Decision, Device, Directory, Everything, HashMemory, ItemKind, ScanOptions, Seen,
    Select, What, changes, scan,
};

struct Without(&'static [&'static str]);

impl Select for Without {
    fn decide(&self, path: &[u8], is_directory: bool) -> Decision {
        let path = std::str::from_utf8(path).unwrap();
        match self
            .0
            .iter()
            .find(|rule| rule.trim_start_matches('!') == path)
        {
            Some(rule) if rule.starts_with('!') => Decision::Include,
            Some(_) if is_directory => Decision::ExcludeButDescend,
            Some(_) => Decision::Exclude,
            // Below something excluded, only what is named again counts.
            None if self
                .0
                .iter()
                .any(|rule| path.starts_with(&format!("{rule}/"))) =>
            {
                if is_directory {
                    Decision::ExcludeButDescend
                } else {
                    Decision::Exclude
                }
            }
            None => Decision::Include,
        }
    }
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// What changed less than this ago is not remembered.
const GROWN_OLD_AFTER: Duration = Duration::from_millis(50);

/// Waits until all files of a context would be remembered.
fn grow_old(dir: &Path) {
    let files = |tree: &ContextTree| {
        let kinds = tree.iter().map(|(_, item)| &item.kind);
        kinds
            .filter(|kind| matches!(kind, ItemKind::File { .. }))
            .count()
    };
    let patience = Instant::now() + Duration::from_secs(30);
    while Instant::now() < patience {
        let tree = scan_all(dir);
        if tree.memory().len() == files(&tree) {
            return;
        }
        std::thread::sleep(GROWN_OLD_AFTER);
    }
    panic!("files of {} never grow old", dir.display());
}

fn scan_with(dir: &Path, select: &dyn Select, memory: &HashMemory) -> ContextTree {
    scan(
        open(dir).as_fd(),
        select,
        memory,
        &ScanOptions {
            threads: 3,
            ..ScanOptions::default()
        },
    )
    .unwrap()
}

fn scan_all(dir: &Path) -> ContextTree {
    scan_with(dir, &Everything, &HashMemory::default())
}

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

fn context() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        "umask 022; mkdir -p src/deep empty; echo a > src/a; echo b > src/deep/b; ln -s src/a link; \
         echo m > main; touch -d @1000000000 main src/a src/deep/b",
    );
    dir
}

fn paths(tree: &ContextTree) -> Vec<String> {
    tree.iter().map(|(path, _)| path.to_string()).collect()
}

#[test]
fn lists_in_order() {
    let dir = context();
    let tree = scan_all(dir.path());
    let all = [
        "/empty",
        "/link",
        "/main",
        "/src",
        "/src/a",
        "/src/deep",
        "/src/deep/b",
    ];
    assert_eq!(paths(&tree), all);
    let below: Vec<_> = tree
        .within(b"src/deep")
        .map(|(path, _)| path.to_string())
        .collect();
    assert_eq!(below, ["/src/deep", "/src/deep/b"]);
    assert!(tree.get(b"src/nothing").is_none() && tree.get(b"main/below").is_none());
    assert_eq!(tree.total_bytes(), 6);
}

fn check_digest(script: &str, changes_it: bool) {
    let dir = context();
    let before = scan_all(dir.path()).digest();
    sh(dir.path(), script);
    assert_eq!(
        scan_all(dir.path()).digest() != before,
        changes_it,
        "{script}"
    );
}

#[test]
fn the_digest_covers_what_counts() {
    check_digest(
        "touch main src; setfattr -n user.x -v y main 2>/dev/null || true",
        false,
    );
    check_digest("cp main tmp; rm main; mv tmp main", false);
    check_digest("echo x > main", true);
    check_digest("chmod 600 main", true);
    check_digest("chmod 700 src", true);
    check_digest("chmod u+s main", true);
    check_digest("ln -sf src/b link", true);
    check_digest("rm link; cp main link", true);
    check_digest("rmdir empty", true);
    check_digest("mv src/a src/c", true);
}

#[test]
fn selects() {
    let dir = context();
    let none = HashMemory::default();
    let tree = scan_with(dir.path(), &Without(&["src", "empty"]), &none);
    assert_eq!(paths(&tree), ["/link", "/main"]);
    let again = Without(&["src", "!src/deep/b", "empty"]);
    let tree = scan_with(dir.path(), &again, &none);
    assert_eq!(
        paths(&tree),
        ["/link", "/main", "/src", "/src/deep", "/src/deep/b"]
    );
    // Selecting while scanning and selecting afterwards are the same.
    let part = scan_all(dir.path()).select(&again);
    assert_eq!((paths(&part), part.digest()), (paths(&tree), tree.digest()));
    assert_eq!(
        part.get(b"src/deep/b").is_some(),
        part.list(b"src/deep").is_some()
    );
}

#[test]
fn a_part_has_its_own_digest() {
    let dir = context();
    let before = scan_all(dir.path());
    sh(dir.path(), "echo x > src/a; chmod 700 src");
    let after = scan_all(dir.path());
    assert_eq!(before.digest_at(b"src/deep"), after.digest_at(b"src/deep"));
    assert_eq!(before.digest_at(b"main"), after.digest_at(b"main"));
    assert_ne!(before.digest_at(b"src/a"), after.digest_at(b"src/a"));
    assert_ne!(before.digest_at(b"src"), after.digest_at(b"src"));
    assert_ne!(before.digest_at(b""), after.digest_at(b""));
    assert_eq!(before.digest_at(b"none"), None);
}

#[test]
fn nothing_young_is_remembered() {
    // On a machine that stalls in between, files grow old before they are looked at.
    let tree = (0..100).find_map(|_| {
        let began = Instant::now();
        let dir = context();
        let tree = scan_all(dir.path());
        (began.elapsed() < GROWN_OLD_AFTER).then_some(tree)
    });
    let tree = tree.expect("a scan of three new files within 50 ms");
    assert_eq!(tree.hashed(), 3);
    // Made just now, so the same times may still come to stand for other bytes.
    assert!(tree.memory().is_empty());
}

#[test]
fn what_is_remembered_is_not_read() {
    let dir = context();
    let first = scan_all(dir.path());
    // Remember by hand what is too young yet, with a digest that no reading would give.
    let forged = kiln_tree::FileDigest([7; 32]);
    let seen = first.iter().filter_map(|(_, item)| match item.kind {
        ItemKind::File { seen, .. } => Some((seen, forged)),
        _ => None,
    });
    let memory = HashMemory::new(seen);
    let memory = HashMemory::decode(&memory.encode()).unwrap();
    let second = scan_with(dir.path(), &Everything, &memory);
    assert_eq!(second.hashed(), 0);
    assert_eq!(second.memory(), memory);
    sh(dir.path(), "echo other > main; touch -d @1000000000 main");
    let third = scan_with(dir.path(), &Everything, &memory);
    assert_eq!(third.hashed(), 1);
    let Some(ItemKind::File { digest, seen, .. }) = third.get(b"main").map(|item| &item.kind)
    else {
        panic!("main is a file");
    };
    assert_eq!(*digest, kiln_tree::FileDigest::of(b"other\n"));
    assert_eq!(
        *seen,
        Seen::of(fs::File::open(dir.path().join("main")).unwrap()).unwrap()
    );
}

#[test]
fn old_files_are_remembered() {
    // Everything of the installed system is older than a moment.
    let dir = open(Path::new("/etc"));
    struct Few;
    impl Select for Few {
        fn decide(&self, path: &[u8], _: bool) -> Decision {
            if path == b"passwd" {
                Decision::Include
            } else {
                Decision::Exclude
            }
        }
    }
    let scanned =
        |memory: &HashMemory| scan(dir.as_fd(), &Few, memory, &ScanOptions::default()).unwrap();
    let first = scanned(&HashMemory::default());
    assert_eq!((first.hashed(), first.memory().len()), (1, 1));
    assert_eq!(scanned(&first.memory()).hashed(), 0);
}

fn check_changes(script: &str, expected: &[&str]) {
    let dir = context();
    let old = scan_all(dir.path());
    let objects: HashMap<TreeDigest, Vec<u8>> = old.objects().collect();
    sh(dir.path(), script);
    let new = scan_all(dir.path());
    let mut loads = 0;
    let mut load = |digest| {
        loads += 1;
        objects.get(&digest).cloned()
    };
    let found = changes(old.digest(), &new, &mut load, 100);
    let found: Vec<_> = found
        .iter()
        .map(|change| format!("{} {:?}", change.path, change.what))
        .collect();
    assert_eq!(found, expected, "{script}");
    assert!(loads <= 3, "only what differs is loaded");
}

#[test]
fn names_what_changed() {
    check_changes("true", &[]);
    check_changes(
        "echo bb > src/deep/b",
        &["/src/deep/b Content { old_size: 2, new_size: 3 }"],
    );
    check_changes("chmod 600 main", &["/main Mode { old: 420, new: 384 }"]);
    check_changes(
        "rm -r src; ln -sf x link; echo > new",
        &["/link Target", "/new Added", "/src Removed"],
    );
    check_changes("rm -r src; echo > src", &["/src Type"]);
    check_changes("mv main other; echo", &["/other Renamed { from: /main }"]);
    check_changes(
        "mv main other; echo more >> other",
        &["/main Removed", "/other Added"],
    );
}

#[test]
fn a_forgotten_tree_is_said_to_be() {
    let dir = context();
    let found = changes(
        TreeDigest([0; 32]),
        &scan_all(dir.path()),
        &mut |_| None,
        100,
    );
    assert_eq!(found.len(), 1);
    let damaged = changes(
        TreeDigest([0; 32]),
        &scan_all(dir.path()),
        &mut |_| Some(vec![1]),
        100,
    );
    assert_eq!(found, damaged);
}

#[test]
fn objects_decode_to_themselves() {
    let dir = context();
    for (digest, bytes) in scan_all(dir.path()).objects() {
        let directory = Directory::decode(&bytes).unwrap();
        assert_eq!((directory.digest(), directory.encode()), (digest, bytes));
    }
}

#[test]
fn pipes_are_listed_and_never_opened() {
    let dir = context();
    let before = scan_all(dir.path()).digest();
    sh(dir.path(), "mkfifo -m 640 src/pipe");
    let tree = scan_all(dir.path());
    let pipe = tree.get(b"src/pipe").unwrap();
    assert!(matches!(pipe.kind, ItemKind::Fifo));
    assert_eq!(pipe.mode, 0o640);
    assert_ne!(tree.digest(), before);
    let without = scan_with(dir.path(), &Without(&["src/pipe"]), &HashMemory::default());
    assert_eq!(without.digest(), before);
}

#[test]
fn devices_are_told_by_their_numbers() {
    let dir = context();
    let before = scan_all(dir.path()).digest();
    if Command::new("mknod")
        .args(["src/null", "c", "1", "3"])
        .current_dir(dir.path())
        .status()
        .is_ok_and(|status| !status.success())
    {
        eprintln!("skipped: this test makes a device, which needs root");
        return;
    }
    let tree = scan_all(dir.path());
    let null = Device {
        is_block: false,
        major: 1,
        minor: 3,
    };
    let found = &tree.get(b"src/null").unwrap().kind;
    assert!(matches!(found, ItemKind::Device(device) if *device == null));
    assert_ne!(tree.digest(), before);
    let old = tree.digest();
    let objects: HashMap<_, _> = tree.objects().collect();
    sh(dir.path(), "rm src/null; mknod src/null b 1 3");
    let tree = scan_all(dir.path());
    let changed = changes(old, &tree, &mut |digest| objects.get(&digest).cloned(), 9);
    assert_eq!(changed[0].what, What::Type, "{changed:?}");
}

#[test]
fn links_out_of_the_context_are_not_followed() {
    let dir = context();
    sh(dir.path(), "ln -s /etc etc; ln -s /etc/passwd passwd");
    let tree = scan_all(dir.path());
    assert!(matches!(
        tree.get(b"etc").unwrap().kind,
        ItemKind::Symlink { .. }
    ));
    assert!(tree.get(b"etc/passwd").is_none());
}

#[test]
fn wide_directories_are_shared_out() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..2000 {
        fs::write(dir.path().join(format!("f{index}")), index.to_string()).unwrap();
    }
    let one = scan(
        open(dir.path()).as_fd(),
        &Everything,
        &HashMemory::default(),
        &ScanOptions {
            threads: 1,
            ..ScanOptions::default()
        },
    );
    let many = scan_all(dir.path());
    assert_eq!(many.iter().count(), 2000);
    assert_eq!(one.unwrap().digest(), many.digest());
}

#[test]
fn scans_of_different_parts_remember_each_other() {
    let dir = context();
    grow_old(dir.path());
    let first = scan_with(dir.path(), &Without(&["main"]), &HashMemory::default());
    let memory = first.memory();
    let second = scan_with(dir.path(), &Without(&["src/a"]), &memory);
    let memory = second.memory().with(&memory);
    let whole = scan_with(dir.path(), &Everything, &memory);
    assert_eq!((memory.len(), whole.memory().len()), (3, 3));
    assert_eq!(whole.hashed(), 0);
    assert_eq!(HashMemory::decode(&memory.encode()).unwrap(), memory);
    // A file that changed is remembered once.
    sh(dir.path(), "echo other > main; touch -d @1000000000 main");
    grow_old(dir.path());
    let changed = scan_with(dir.path(), &Everything, &memory);
    assert_eq!(changed.hashed(), 1);
    assert_eq!(changed.memory().with(&memory).len(), 3);
}
