//! The suite that every strategy passes.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use kiln_store::{Content, Policy, Snapshot, Snapshotter, StoreError, Strategy};
use kiln_tree::aged::Age;
use kiln_tree::{Kind, Manifest, OverlayXattrs, Stop, TreePath};

use crate::fixture::{Fixture, can_mount, fixture, fixture_with_marks, layer};

const HOUR: Age = Age {
    by: Duration::from_secs(60 * 60),
    since: 0,
};

const STRATEGIES: [Strategy; 2] = [Strategy::Overlay, Strategy::Copy];

/// A path in a snapshot that std::fs can use.
fn at(snapshot: &Snapshot, name: &str) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        snapshot.root().as_raw_fd()
    ))
}

/// One line an entry.
fn lines(manifest: &Manifest) -> Vec<String> {
    manifest
        .entries()
        .iter()
        .map(|entry| {
            let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
            let kind = match &entry.kind {
                Kind::File { size, .. } => format!("file {size}"),
                Kind::Directory { opaque: true, .. } => "dir opaque".into(),
                Kind::Directory { passing: true, .. } => return format!("{path}/"),
                Kind::Directory { .. } => "dir".into(),
                Kind::Symlink { target } => format!("link {}", String::from_utf8_lossy(target)),
                Kind::Hardlink { to } => {
                    format!("same as {}", String::from_utf8_lossy(to.as_bytes()))
                }
                Kind::Whiteout => return format!("{path} gone"),
                other => format!("{other:?}"),
            };
            format!(
                "{path} {kind} {:o} {}:{}",
                entry.meta.mode, entry.meta.uid, entry.meta.gid
            )
        })
        .collect()
}

/// Works in a snapshot of `layers`, seals it, and compares what was meant; then the layer on top
/// of the others must show what the snapshot showed.
fn check(
    layers: impl Fn(&Fixture) -> Vec<Content>,
    work: impl Fn(&Snapshot),
    stubs: &[&str],
    expected: &[&str],
) {
    if !can_mount() {
        return;
    }
    for (strategy, marks) in [
        (Strategy::Overlay, OverlayXattrs::Trusted),
        (Strategy::Overlay, OverlayXattrs::User),
        (Strategy::Copy, OverlayXattrs::Trusted),
    ] {
        let f = fixture_with_marks(marks);
        let mut layers = layers(&f);
        let snapshotter = f.store.snapshotter(strategy);
        let snapshot = snapshotter
            .prepare(&f.lease, &layers, &Stop::NEVER)
            .unwrap();
        assert!(snapshot.is_mount() && snapshot.writable());
        work(&snapshot);
        let shown = tree(&snapshot);
        let mut options = f.store.seal_options();
        options.stubs = stubs
            .iter()
            .map(|path| TreePath::new(*path).unwrap())
            .collect();
        let sealed = snapshotter.seal(snapshot, options).unwrap();
        assert_eq!(lines(&sealed.manifest), expected, "{strategy}");
        layers.push(sealed.commit(&f.store, &f.lease).unwrap().content);
        if stubs.is_empty() {
            // Each strategy shows what either has sealed.
            for strategy in STRATEGIES {
                let aged = f.store.aged_snapshotter(strategy, HOUR);
                for snapshotter in [f.store.snapshotter(strategy), aged] {
                    let view = snapshotter.view(&f.lease, &layers, &Stop::NEVER);
                    assert_eq!(tree(&view.unwrap()), shown, "{strategy}");
                }
            }
        }
    }
}

/// All that a snapshot shows: path, mode, owner, and bytes or target.
fn tree(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    let meta = fs::metadata(at(snapshot, ".")).unwrap();
    found.push(format!(". {:o} {}:{}", meta.mode(), meta.uid(), meta.gid()));
    let walked = kiln_tree::walk::walk::<kiln_tree::FsError>(snapshot.root(), |visit| {
        let path = String::from_utf8_lossy(visit.path.as_bytes()).into_owned();
        let whole = at(snapshot, &path);
        let meta = fs::symlink_metadata(&whole).unwrap();
        let text = if meta.is_file() {
            fs::read_to_string(&whole).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&whole).unwrap().display().to_string()
        } else {
            String::new()
        };
        found.push(format!(
            "{path} {:o} {}:{} {text}",
            meta.mode(),
            meta.uid(),
            meta.gid()
        ));
        Ok(kiln_tree::walk::Descend::Into)
    });
    walked.unwrap();
    found
}

fn base(f: &Fixture) -> Vec<Content> {
    let lower = [
        ("etc/passwd", "root"),
        ("etc/group", "g"),
        ("usr/bin/sh", "#!"),
    ];
    vec![
        layer(&f.store, &f.lease, &lower).content,
        layer(
            &f.store,
            &f.lease,
            &[("etc/passwd", "root2"), ("opt/a/b", "deep")],
        )
        .content,
    ]
}

fn write(snapshot: &Snapshot, name: &str, text: &str) {
    fs::write(at(snapshot, name), text).unwrap();
}

#[test]
fn a_step_that_does_nothing_seals_empty() {
    check(base, |_| {}, &[], &[]);
}

#[test]
fn on_no_layers_there_is_an_empty_root() {
    let work = |s: &Snapshot| {
        assert_eq!(tree(s), [". 40755 0:0"]);
        write(s, "a", "x");
    };
    check(|_| vec![], work, &[], &["a file 1 644 0:0"]);
}

#[test]
fn mount_points_that_were_missing_leave_no_trace() {
    let work = |s: &Snapshot| {
        for dir in ["proc", "sys", "dev", "etc"] {
            let _ = fs::create_dir(at(s, dir));
        }
        for file in ["etc/resolv.conf", "etc/hosts"] {
            write(s, file, "");
        }
    };
    let stubs = ["proc", "sys", "dev", "etc/resolv.conf", "etc/hosts"];
    check(base, work, &stubs, &[]);
    let with_etc = [&stubs[..], &["etc"]].concat();
    check(|_| vec![], work, &with_etc, &[]);
}

#[test]
fn a_mount_point_that_was_used_stays() {
    let work = |s: &Snapshot| {
        fs::create_dir(at(s, "proc")).unwrap();
        write(s, "proc/file", "x");
    };
    check(
        base,
        work,
        &["proc"],
        &["proc dir 755 0:0", "proc/file file 1 644 0:0"],
    );
}

#[test]
fn changed_added_and_deleted() {
    let work = |s: &Snapshot| {
        assert_eq!(fs::read_to_string(at(s, "etc/passwd")).unwrap(), "root2");
        write(s, "etc/passwd", "other");
        write(s, "etc/shadow", "");
        fs::remove_file(at(s, "etc/group")).unwrap();
        fs::remove_dir_all(at(s, "opt")).unwrap();
        symlink("sh", at(s, "usr/bin/bash")).unwrap();
    };
    let expected = [
        "etc/",
        "etc/group gone",
        "etc/passwd file 5 644 0:0",
        "etc/shadow file 0 644 0:0",
        "opt gone",
        "usr/",
        "usr/bin/",
        "usr/bin/bash link sh 777 0:0",
    ];
    check(base, work, &[], &expected);
}

#[test]
fn what_was_touched_and_put_back_is_not_meant() {
    let work = |s: &Snapshot| {
        write(s, "etc/tmp", "x");
        fs::remove_file(at(s, "etc/tmp")).unwrap();
        let passwd = at(s, "etc/passwd");
        let before = fs::metadata(&passwd).unwrap().modified().unwrap();
        write(s, "etc/passwd", "root2");
        let file = fs::File::options().write(true).open(&passwd).unwrap();
        file.set_modified(before).unwrap();
        fs::create_dir(at(s, "new")).unwrap();
        fs::remove_dir(at(s, "new")).unwrap();
    };
    check(base, work, &[], &[]);
}

#[test]
fn a_new_time_alone_is_a_change() {
    let work = |s: &Snapshot| {
        let file = fs::File::options().write(true).open(at(s, "etc/passwd"));
        file.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    check(base, work, &[], &["etc/", "etc/passwd file 5 644 0:0"]);
}

#[test]
fn modes_and_owners_alone_are_changes() {
    let work = |s: &Snapshot| {
        fs::set_permissions(at(s, "usr/bin/sh"), fs::Permissions::from_mode(0o4755)).unwrap();
        std::os::unix::fs::chown(at(s, "opt/a"), Some(7), Some(8)).unwrap();
        fs::set_permissions(at(s, "."), fs::Permissions::from_mode(0o700)).unwrap();
    };
    let expected = [
        " dir 700 0:0",
        "opt/",
        "opt/a dir 755 7:8",
        "usr/",
        "usr/bin/",
        "usr/bin/sh file 2 4755 0:0",
    ];
    check(base, work, &[], &expected);
}

#[test]
fn the_root_keeps_the_attributes_of_a_lower_one() {
    let layers = |f: &Fixture| {
        let snapshotter = f.store.snapshotter(Strategy::Copy);
        let snapshot = snapshotter
            .prepare(&f.lease, &base(f), &Stop::NEVER)
            .unwrap();
        fs::set_permissions(at(&snapshot, "."), fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(at(&snapshot, "."), Some(3), Some(4)).unwrap();
        let sealed = snapshotter.seal(snapshot, f.store.seal_options()).unwrap();
        let top = sealed.commit(&f.store, &f.lease).unwrap().content;
        [base(f), vec![top]].concat()
    };
    let work = |s: &Snapshot| assert_eq!(tree(s)[0], ". 41777 3:4");
    check(layers, work, &[], &[]);
}

#[test]
fn a_directory_in_place_of_a_file_and_the_other_way() {
    let work = |s: &Snapshot| {
        fs::remove_file(at(s, "usr/bin/sh")).unwrap();
        fs::create_dir(at(s, "usr/bin/sh")).unwrap();
        fs::remove_dir_all(at(s, "opt/a")).unwrap();
        write(s, "opt/a", "file");
    };
    let expected = [
        "opt/",
        "opt/a file 4 644 0:0",
        "usr/",
        "usr/bin/",
        "usr/bin/sh dir 755 0:0",
    ];
    check(base, work, &[], &expected);
}

#[test]
fn hard_links_stay_together() {
    let work = |s: &Snapshot| {
        write(s, "one", "x");
        fs::hard_link(at(s, "one"), at(s, "two")).unwrap();
    };
    check(
        base,
        work,
        &[],
        &["one file 1 644 0:0", "two same as one 644 0:0"],
    );
}

/// A layer that lists a directory only to reach something in it must not change how it looks.
#[test]
fn directories_passed_through_look_as_below() {
    let layers = |f: &Fixture| {
        let snapshotter = f.store.snapshotter(Strategy::Copy);
        let snapshot = snapshotter.prepare(&f.lease, &[], &Stop::NEVER).unwrap();
        fs::create_dir_all(at(&snapshot, "var/spool")).unwrap();
        fs::set_permissions(
            at(&snapshot, "var/spool"),
            fs::Permissions::from_mode(0o1770),
        )
        .unwrap();
        let sealed = snapshotter.seal(snapshot, f.store.seal_options()).unwrap();
        let low = sealed.commit(&f.store, &f.lease).unwrap().content;
        let mut options = f.store.seal_options();
        options.implied = ["var", "var/spool"]
            .map(|path| TreePath::new(path).unwrap())
            .into();
        let draft = f.store.begin_layer().unwrap();
        fs::create_dir_all(draft.fs_path().join("var/spool")).unwrap();
        fs::write(draft.fs_path().join("var/spool/mail"), "m").unwrap();
        let view = kiln_tree::View::default();
        let sealed = kiln_tree::seal::seal(draft.fs().as_fd(), &view, &options).unwrap();
        let content = Content::Layer(sealed.manifest.id());
        f.store
            .commit_layer(&f.lease, draft, &sealed.manifest, content)
            .unwrap();
        vec![low, content]
    };
    let work = |s: &Snapshot| {
        assert_eq!(
            fs::metadata(at(s, "var/spool")).unwrap().mode() & 0o7777,
            0o1770
        );
        assert!(at(s, "var/spool/mail").exists());
    };
    check(layers, work, &[], &[]);
}

/// Steps that change nothing all have one layer, and images repeat theirs.
#[test]
fn the_same_layer_may_come_twice() {
    let layers = |f: &Fixture| {
        let empty = layer(&f.store, &f.lease, &[]).content;
        let twice = layer(&f.store, &f.lease, &[("etc/passwd", "twice")]).content;
        [vec![empty, twice], base(f), vec![empty, twice, empty]].concat()
    };
    let work = |s: &Snapshot| {
        assert_eq!(fs::read_to_string(at(s, "etc/passwd")).unwrap(), "twice");
        assert_eq!(fs::read_to_string(at(s, "etc/group")).unwrap(), "g");
    };
    check(layers, work, &[], &[]);
    check(
        |f| vec![layer(&f.store, &f.lease, &[]).content; 3],
        |_| {},
        &[],
        &[],
    );
}

#[test]
fn more_layers_than_the_kernel_stacks() {
    if !can_mount() {
        return;
    }
    let f = fixture();
    let layers: Vec<_> = (0..705)
        .map(|number: u32| {
            let (own, text) = (format!("f{number}"), number.to_string());
            layer(&f.store, &f.lease, &[("latest", &text), (&own, "")]).content
        })
        .collect();
    for strategy in STRATEGIES {
        let snapshotter = f.store.snapshotter(strategy);
        for count in [400, 401, 699, 705] {
            let view = snapshotter
                .view(&f.lease, &layers[..count], &Stop::NEVER)
                .unwrap();
            assert_eq!(view.layers().len(), count);
            let latest = fs::read_to_string(at(&view, "latest")).unwrap();
            assert_eq!(latest, (count - 1).to_string());
            assert_eq!(fs::read_dir(at(&view, ".")).unwrap().count(), count + 1);
        }
        let snapshot = snapshotter
            .prepare(&f.lease, &layers, &Stop::NEVER)
            .unwrap();
        write(&snapshot, "new", "");
        let sealed = snapshotter.seal(snapshot, f.store.seal_options()).unwrap();
        assert_eq!(lines(&sealed.manifest), ["new file 0 644 0:0"]);
    }
    // One fold for lists up to 699, one more on top of it.
    assert_eq!(f.store.usage().unwrap().layers.count, 705 + 2);
}

#[test]
fn what_was_made_here_seems_older_and_stays_as_it_is() {
    if !can_mount() {
        return;
    }
    for strategy in STRATEGIES {
        let f = fixture();
        let layers = base(&f);
        let time = |snapshot: &Snapshot| fs::metadata(at(snapshot, "usr/bin/sh")).unwrap().mtime();
        let view = || {
            let snapshotter = f.store.snapshotter(strategy);
            snapshotter.view(&f.lease, &layers, &Stop::NEVER).unwrap()
        };
        let before = time(&view());
        let snapshotter = f.store.aged_snapshotter(strategy, HOUR);
        let older = snapshotter
            .prepare(&f.lease, &layers, &Stop::NEVER)
            .unwrap();
        assert_eq!(time(&older), before - 3600, "{strategy}");
        // Only what changed is sealed, also of a file that was opened to be written to.
        let opened = fs::OpenOptions::new()
            .append(true)
            .open(at(&older, "usr/bin/sh"));
        drop(opened.unwrap());
        write(&older, "new", "");
        let sealed = snapshotter.seal(older, f.store.seal_options()).unwrap();
        assert_eq!(
            lines(&sealed.manifest),
            ["new file 0 644 0:0"],
            "{strategy}"
        );
        drop(sealed);
        drop(snapshotter);
        assert_eq!(time(&view()), before, "{strategy}");
        assert_eq!(f.store.usage().unwrap().layers.count, layers.len() as u64);
    }
}

#[test]
fn a_view_cannot_be_sealed_and_an_overlay_view_not_written() {
    if !can_mount() {
        return;
    }
    for strategy in STRATEGIES {
        let f = fixture();
        let layers = base(&f);
        let snapshotter = f.store.snapshotter(strategy);
        let view = snapshotter.view(&f.lease, &layers, &Stop::NEVER).unwrap();
        assert!(!view.writable());
        if strategy == Strategy::Overlay {
            let error = fs::write(at(&view, "x"), "").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
        let error = snapshotter.seal(view, f.store.seal_options()).unwrap_err();
        assert!(matches!(error, StoreError::WrongSnapshot { .. }), "{error}");
        let other = STRATEGIES
            .into_iter()
            .find(|other| *other != strategy)
            .unwrap();
        let snapshot = snapshotter
            .prepare(&f.lease, &layers, &Stop::NEVER)
            .unwrap();
        let error = f
            .store
            .snapshotter(other)
            .seal(snapshot, f.store.seal_options())
            .unwrap_err();
        assert!(matches!(error, StoreError::WrongSnapshot { .. }), "{error}");
    }
}

#[test]
fn dropped_snapshots_leave_nothing() {
    if !can_mount() {
        return;
    }
    for strategy in STRATEGIES {
        let f = fixture();
        let layers = base(&f);
        let snapshotter: Box<dyn Snapshotter> = f.store.snapshotter(strategy);
        let snapshot = snapshotter
            .prepare(&f.lease, &layers, &Stop::NEVER)
            .unwrap();
        write(&snapshot, "x", "x");
        drop(snapshot);
        drop(snapshotter.view(&f.lease, &layers, &Stop::NEVER).unwrap());
        let work = f.store.root().join("work");
        let own = fs::read_dir(work).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read_dir(own).unwrap().count(), 0);
        assert_eq!(
            fs::read_dir(f.store.root().join("trash")).unwrap().count(),
            0
        );
        f.store.sweep(Policy::UnusedOnly).unwrap();
    }
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing() {
    let f = &fixture();
    let layers = base(f);
    let whole = f.store.snapshotter(Strategy::Copy);
    // Stopped at the first question, at the second, and so on, until it is not stopped any more.
    let stopped = (0..).map_while(|patience| {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let stop = Stop::when(move || {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= patience
        });
        whole.prepare(&f.lease, &layers, &stop).err()
    });
    let stopped: Vec<String> = stopped.map(|error| format!("{error:?}")).collect();
    assert!(stopped.len() > 3, "{stopped:?}");
    assert!(
        stopped.iter().all(|error| error.contains("stopped")),
        "{stopped:?}"
    );
    let work = f.store.root().join("work");
    let own = fs::read_dir(work).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(own).unwrap().count(), 0);
}

#[test]
fn a_missing_layer_is_named() {
    let f = fixture();
    let gone = Content::Layer(kiln_tree::LayerId([1; 32]));
    for strategy in STRATEGIES {
        let error = f
            .store
            .snapshotter(strategy)
            .prepare(&f.lease, &[gone], &Stop::NEVER)
            .unwrap_err();
        assert!(
            matches!(error, StoreError::NoSuchLayer(content) if content == gone),
            "{error}"
        );
    }
}

#[test]
fn the_probe_finds_the_overlay_where_there_is_one() {
    if !can_mount() {
        return;
    }
    let probe = fixture().store.probe_snapshots().unwrap();
    assert_eq!(probe.strategy, Strategy::Overlay, "{:?}", probe.reason);
}
