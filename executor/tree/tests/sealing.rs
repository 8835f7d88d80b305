//! Real overlays, really changed, sealed. Needs root for the mount; says so where it is skipped.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use kiln_tree::materialised::{Names, diff_against, materialise, record, scan_full};
use kiln_tree::seal::{SealOptions, Sealed, seal};
use kiln_tree::{Kind, Manifest, OneId, OverlayXattrs, Ownership, TreePath, View};
use proptest::prelude::*;

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn can_mount(dir: &Path) -> bool {
    let works = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs none \"$0\" && mknod \"$0\"/w c 0 0",
        ])
        .arg(dir)
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: this test mounts an overlay, which needs root");
    }
    works
}

struct Bench {
    dir: tempfile::TempDir,
    lower: Arc<Manifest>,
}

impl Bench {
    /// Makes a lower layer by a shell script run in it.
    fn new(script: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        if !can_mount(dir.path()) {
            return None;
        }
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        sh(&dir.path().join("lower"), script);
        let lower = scan_full(
            open(&dir.path().join("lower")).as_fd(),
            &SealOptions::default(),
        );
        Some(Self {
            lower: Arc::new(lower.unwrap()),
            dir,
        })
    }

    fn view(&self) -> View {
        View::new(vec![self.lower.clone()])
    }

    /// Runs a step in the overlay.
    fn step(&self, script: &str) {
        let mount = "mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work,\
                     redirect_dir=nofollow,metacopy=off,index=off,xino=off merged \
                     && cd merged && exec sh -euc \"$0\"";
        let status = Command::new("unshare")
            .args(["-m", "sh", "-c", mount, script])
            .current_dir(self.dir.path())
            .status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn seal_with(&self, options: &SealOptions) -> Sealed {
        seal(
            open(&self.dir.path().join("upper")).as_fd(),
            &self.view(),
            options,
        )
        .unwrap()
    }

    /// What the layer's directory shows when it is mounted on the lower again.
    fn merged_text(&self) -> String {
        let script = "mount -t overlay none -o lowerdir=upper:lower merged 2>/dev/null \
                      && cd merged && find . | sort";
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .current_dir(self.dir.path())
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
}

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

fn text(manifest: &Manifest) -> Vec<String> {
    let kind = |kind: &Kind| match kind {
        Kind::File { size, .. } => format!("file {size}"),
        Kind::Directory { opaque: true, .. } => "dir opaque".into(),
        Kind::Directory { passing: true, .. } => "dir passing".into(),
        Kind::Directory { .. } => "dir".into(),
        Kind::Symlink { target } => format!("-> {}", target.escape_ascii()),
        Kind::CharDevice { major, minor } => format!("char {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        Kind::Fifo => "fifo".into(),
        Kind::Hardlink { to } => format!("= {to}"),
        Kind::Whiteout => "deleted".into(),
    };
    let entries = manifest.entries().iter();
    entries
        .map(|entry| format!("{} {}", entry.path, kind(&entry.kind)))
        .collect()
}

const LOWER: &str = "mkdir -p etc/conf.d usr/bin tmp; echo a > etc/a; echo b > etc/b; \
                     echo c > etc/conf.d/c; ln -s a etc/link; chmod 1777 tmp; ln etc/b etc/b2";

fn check(step: &str, expected: &[&str]) {
    let Some(bench) = Bench::new(LOWER) else {
        return;
    };
    bench.step(step);
    let sealed = bench.seal_with(&SealOptions::default());
    assert_eq!(
        text(&sealed.manifest),
        expected,
        "{step}, dropped {:?}",
        sealed.dropped
    );
    // What the manifests show together is what the directories show together.
    let view = View::new(vec![bench.lower.clone(), Arc::new(sealed.manifest)]);
    let mut shown: Vec<String> = view
        .iter()
        .map(|found| format!(".{}", found.entry.path))
        .collect();
    shown[0] = ".".into();
    shown.sort();
    assert_eq!(
        bench.merged_text().lines().collect::<Vec<_>>(),
        shown,
        "{step}"
    );
    // The copy strategy sees the same changes.
    let mut expected = expected.to_vec();
    let copied = text(&seal_copy(LOWER, step));
    let mut copied: Vec<&str> = copied.iter().map(String::as_str).collect();
    expected.sort();
    copied.sort();
    assert_eq!(copied, expected, "copy strategy: {step}");
}

/// Seals a step that ran in a copied tree.
fn seal_copy(before: &str, step: &str) -> Manifest {
    let dir = tempfile::tempdir().unwrap();
    let (lower, tree) = (dir.path().join("lower"), dir.path().join("tree"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&tree).unwrap();
    sh(&lower, before);
    let manifest = scan_full(open(&lower).as_fd(), &SealOptions::default()).unwrap();
    let base = View::new(vec![Arc::new(manifest)]);
    let ownership = Ownership::Apply(kiln_tree::seal::IdMap::identity());
    let never = kiln_tree::Stop::NEVER;
    materialise(
        &base,
        &[open(&lower)],
        open(&tree).as_fd(),
        &ownership,
        Names::Apart,
        &never,
    )
    .unwrap();
    let snapshot = record(open(&tree).as_fd(), &never).unwrap();
    sh(&tree, step);
    let options = SealOptions::default();
    let changes = diff_against(open(&tree).as_fd(), &base, &snapshot, &options);
    changes.unwrap().manifest
}

#[test]
fn nothing_seals_empty() {
    check("true", &[]);
}

#[test]
fn passing_through_is_nothing() {
    check(
        "touch -r etc/a etc/a; touch etc/conf.d; chmod 755 etc; mkdir x; rmdir x",
        &[],
    );
    check("chmod 600 etc/a; chmod 644 etc/a", &[]);
    check("echo x > etc/new; rm etc/new", &[]);
}

#[test]
fn changes_pass_their_parents() {
    check("echo aa > etc/a", &["/etc dir passing", "/etc/a file 3"]);
    check("chmod 600 etc/a", &["/etc dir passing", "/etc/a file 2"]);
    check("mkdir etc/new", &["/etc dir passing", "/etc/new dir"]);
    check("chmod 700 etc", &["/etc dir"]);
    check("chmod 700 .", &["/ dir"]);
}

#[test]
fn a_touched_file_is_kept() {
    let expected = &["/etc dir passing", "/etc/a file 2"];
    check("touch -d @1000000000 etc/a", expected);
    check("echo a > etc/a; touch -d @1000000000 etc/a", expected);
    check(
        "touch -h -d @1000000000 etc/link",
        &["/etc dir passing", "/etc/link -> a"],
    );
    // The same time, as far as an archive keeps it.
    check("touch -d @$(stat -c %Y etc/a) etc/a", &[]);
}

#[test]
fn deletions() {
    check("rm etc/a", &["/etc dir passing", "/etc/a deleted"]);
    check("rm -r etc", &["/etc deleted"]);
    check("rm -r etc; echo n > etc", &["/etc file 2"]);
}

#[test]
fn a_directory_made_anew_lists_what_it_lacks() {
    let gone = ["/etc/a deleted", "/etc/b deleted", "/etc/b2 deleted"];
    let [a, b, b2] = gone;
    let (conf, link) = ("/etc/conf.d deleted", "/etc/link deleted");
    let passing = "/etc dir passing";
    check(
        "rm -r etc; mkdir etc; echo n > etc/n",
        &[passing, a, b, b2, conf, link, "/etc/n file 2"],
    );
    check(
        "rm -r etc; mkdir -m 700 etc",
        &["/etc dir", a, b, b2, conf, link],
    );
    // What comes back as it was is none of the layer's.
    let kept = "cp -rP --preserve=mode,timestamps etc kept; rm -r etc; mv kept etc";
    check(kept, &[]);
    check(&format!("{kept}; rm etc/a"), &[passing, a]);
    check(
        "rm -r etc; mkdir -p etc/conf.d; echo n > etc/conf.d/n; echo n > etc/link",
        &[
            passing,
            a,
            b,
            b2,
            "/etc/conf.d dir passing",
            "/etc/conf.d/c deleted",
            "/etc/conf.d/n file 2",
            "/etc/link file 2",
        ],
    );
    // What was a file becomes a directory, and the other way round.
    check(
        "rm -r etc; mkdir -p etc/a/x; echo n > etc/conf.d; rm -r usr/bin; ln -s x usr/bin",
        &[
            passing,
            "/etc/a dir",
            "/etc/a/x dir",
            b,
            b2,
            "/etc/conf.d file 2",
            link,
            "/usr dir passing",
            "/usr/bin -> x",
        ],
    );
    check(
        "rm -r etc; mkdir etc; echo n > etc/n; ln etc/n etc/a",
        &[
            passing,
            "/etc/a file 2",
            b,
            b2,
            conf,
            link,
            "/etc/n = /etc/a",
        ],
    );
}

#[test]
fn a_socket_is_nothing_in_the_place_of_something() {
    let socket = "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])'";
    check(
        &format!("rm etc/a; {socket} etc/a; {socket} etc/s"),
        &["/etc dir passing", "/etc/a deleted"],
    );
}

/// What some step does to a few paths, as lines of a script.
fn changes() -> impl Strategy<Value = String> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
    let path = path.prop_map(|names| names.join("/"));
    let line = (path.clone(), path, 0..12_u8).prop_map(|(path, other, what)| match what {
        0 => format!("rm -rf {path}"),
        1 => format!("rm -rf {path}; mkdir {path}"),
        2 => format!("rm -rf {path}; mkdir -p {path}/a/b"),
        3 => format!("rm -rf {path}; mkdir {path}; rm -rf {path}; mkdir -p {path}/b"),
        4 => format!("mkdir -p {path}"),
        5 => format!("chmod 700 {path}"),
        6 => format!("ln {path} {other}"),
        7 => format!("[ ! -f {path} ] || mv -T {path} {other}"),
        8 => format!("rm -rf {path}; ln -s {other} {path}"),
        9 => format!("rm -rf {path}; mkfifo {path}"),
        10 => format!("[ -p {path} ] || echo {other} > {path}"),
        _ => format!("[ -p {path} ] || echo {path} > {path}"),
    });
    let lines = prop::collection::vec(line, 1..8);
    // No clock tells the two runs of a script apart.
    let dated = "find . -mindepth 1 -exec touch -h -d @1000000000 {} +";
    lines.prop_map(move |lines| format!("( {} ) 2>/dev/null || true; {dated}", lines.join("; ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_overlay_and_a_copied_tree_make_the_same_layer(before in changes(), step in changes()) {
        let Some(bench) = Bench::new(&before) else {
            return Ok(());
        };
        bench.step(&step);
        let overlay = bench.seal_with(&SealOptions::default()).manifest;
        let copied = seal_copy(&before, &step);
        prop_assert_eq!(text(&overlay), text(&copied));
        prop_assert_eq!(overlay.id(), copied.id());
        let view = View::new(vec![bench.lower.clone(), Arc::new(overlay)]);
        let mut shown: Vec<String> = view.iter().map(|found| format!(".{}", found.entry.path)).collect();
        shown[0] = ".".into();
        shown.sort();
        let merged = bench.merged_text();
        prop_assert_eq!(merged.lines().collect::<Vec<_>>(), shown);
    }
}

#[test]
fn renames() {
    check(
        "mv etc/a etc/z",
        &["/etc dir passing", "/etc/a deleted", "/etc/z file 2"],
    );
    check(
        "mv etc/conf.d etc/d",
        &[
            "/etc dir passing",
            "/etc/conf.d deleted",
            "/etc/d dir",
            "/etc/d/c file 2",
        ],
    );
}

#[test]
fn links_and_devices() {
    check("ln -sf b etc/link", &["/etc dir passing", "/etc/link -> b"]);
    check(
        "echo x > usr/bin/y; ln usr/bin/y usr/a; ln usr/a usr/b",
        &[
            "/usr dir passing",
            "/usr/a file 2",
            "/usr/b = /usr/a",
            "/usr/bin dir passing",
            "/usr/bin/y = /usr/a",
        ],
    );
    check("mkfifo p; mknod n c 1 3", &["/n char 1:3", "/p fifo"]);
}

#[test]
fn a_change_of_one_name_leaves_the_others() {
    let passing = "/etc dir passing";
    check("echo more >> etc/b", &[passing, "/etc/b file 7"]);
    check("chmod 600 etc/b2", &[passing, "/etc/b2 file 2"]);
    check(
        "chmod 600 etc/b*",
        &[passing, "/etc/b file 2", "/etc/b2 file 2"],
    );
    check(
        "mv etc/b etc/x",
        &[passing, "/etc/b deleted", "/etc/x file 2"],
    );
    check("rm etc/b2", &[passing, "/etc/b2 deleted"]);
    check(
        "ln etc/a etc/c",
        &[passing, "/etc/a file 2", "/etc/c = /etc/a"],
    );
    check(
        "ln etc/b2 etc/c",
        &[passing, "/etc/b2 file 2", "/etc/c = /etc/b2"],
    );
}

#[test]
fn xattrs() {
    let Some(bench) = Bench::new(LOWER) else {
        return;
    };
    let set = |file: &str, name: &str, value: &[u8]| {
        let file = bench.dir.path().join("upper").join(file);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&file, name, value, flags).unwrap();
    };
    bench.step("echo n > new; echo aa > etc/a");
    // cap_net_raw+ep, revision 2.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    set("new", "security.capability", capability);
    set("new", "user.kept", b"a\nb");
    set("new", "user.overlay.opaque", b"y");
    set("new", "trusted.overlay.origin", b"noise");
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x05\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    set("new", "system.posix_acl_access", acl);
    let sealed = bench.seal_with(&SealOptions::default());
    let entry = sealed.manifest.get(b"new").unwrap();
    let names: Vec<_> = entry
        .meta
        .xattrs
        .keys()
        .map(|name| name.escape_ascii().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "security.capability",
            "system.posix_acl_access",
            "user.kept"
        ]
    );
    assert_eq!(entry.meta.xattrs[b"user.kept".as_slice()], b"a\nb");
    assert!(
        sealed
            .manifest
            .get(b"etc/a")
            .unwrap()
            .meta
            .xattrs
            .is_empty()
    );
}

#[test]
fn a_forged_mark_of_the_other_namespace_means_nothing() {
    let Some(bench) = Bench::new(LOWER) else {
        return;
    };
    bench.step("chmod 700 etc");
    let etc = bench.dir.path().join("upper/etc");
    rustix::fs::setxattr(
        &etc,
        "user.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let sealed = bench.seal_with(&SealOptions::default());
    assert_eq!(text(&sealed.manifest), ["/etc dir"]);
    let user = SealOptions {
        marks: OverlayXattrs::User,
        ..SealOptions::default()
    };
    let sealed = bench.seal_with(&user).manifest;
    assert_eq!(sealed.get(b"etc/a").unwrap().kind, Kind::Whiteout);
}

#[test]
fn stubs_go_if_untouched() {
    let Some(bench) = Bench::new(LOWER) else {
        return;
    };
    bench.step("mkdir -p proc a/b/c; touch etc/resolv.conf a/hosts; mkdir sys; echo > sys/kept");
    let stubs = [
        "proc",
        "a",
        "a/b",
        "a/b/c",
        "etc/resolv.conf",
        "a/hosts",
        "sys",
    ];
    let stubs = stubs.map(|stub| TreePath::new(stub).unwrap()).to_vec();
    let sealed = bench.seal_with(&SealOptions {
        stubs,
        ..SealOptions::default()
    });
    assert_eq!(text(&sealed.manifest), ["/sys dir", "/sys/kept file 1"]);
    assert!(!bench.dir.path().join("upper/proc").exists());
    assert!(!bench.dir.path().join("upper/etc").exists());
}

/// Files of 33:34 and of root, and a directory of group 50 that gives its group.
const OWNED: &str = "umask 022; mkdir -p d/e s; echo a > d/a; echo r > d/ro; chmod 444 d/ro; echo b > b; \
                     ln -s x d/l; chown -R -h 33:34 d; chgrp 50 s; chmod 2775 s";

/// What was heard: nothing, or that owners were given.
const QUIET: bool = false;
const GAVE: bool = true;

/// Seals a step where one id is mapped, in an overlay and in a copied tree; `expected` is the owners of what
/// the layer lists, or what is doubtful.
fn check_owners(gave_owners: bool, step: &str, expected: Result<&[&str], &str>) {
    let Some(bench) = Bench::new(OWNED) else {
        return;
    };
    let never = kiln_tree::Stop::NEVER;
    let lower = bench.view();
    let noted = bench.dir.path().join("noted");
    let tree = bench.dir.path().join("tree");
    for (into, names) in [(&noted, Names::Linked), (&tree, Names::Apart)] {
        fs::create_dir(into).unwrap();
        let from = [open(&bench.dir.path().join("lower"))];
        let into = open(into);
        materialise(
            &lower,
            &from,
            into.as_fd(),
            &Ownership::Record,
            names,
            &never,
        )
        .unwrap();
    }
    // The lower layer as one id has it: with notes, and with none of the owners.
    fs::remove_dir_all(bench.dir.path().join("lower")).unwrap();
    fs::rename(&noted, bench.dir.path().join("lower")).unwrap();
    let options = SealOptions {
        one_id: Some(OneId {
            gave_owners,
            set_attributes: false,
            seen: Vec::new(),
        }),
        ..SealOptions::default()
    };
    bench.step(step);
    let upper = open(&bench.dir.path().join("upper"));
    let overlay = seal(upper.as_fd(), &lower, &options).map(|sealed| sealed.manifest);
    let before = record(open(&tree).as_fd(), &never).unwrap();
    sh(&tree, step);
    let copied = diff_against(open(&tree).as_fd(), &lower, &before, &options);
    let copied = copied.map(|changes| changes.manifest);
    for (strategy, sealed) in [("overlay", overlay), ("copy", copied)] {
        let owners = sealed.map(|manifest| {
            let listed = manifest.entries().iter();
            let listed =
                listed.filter(|entry| entry.kind != Kind::Whiteout && !entry.kind.is_passing());
            let line = |entry: &kiln_tree::Entry| {
                let meta = &manifest.resolve(entry).meta;
                format!("{} {:o} {}:{}", entry.path, meta.mode, meta.uid, meta.gid)
            };
            listed.map(line).collect::<Vec<_>>()
        });
        match (owners, expected) {
            (Ok(owners), Ok(expected)) => assert_eq!(owners, expected, "{strategy}: {step}"),
            (Err(error), Err(expected)) => {
                assert!(
                    error.to_string().starts_with(expected),
                    "{strategy}: {step}: {error}"
                );
            }
            (found, _) => panic!("{strategy}: {step}: {found:?}"),
        }
    }
}

#[test]
fn owners_go_with_their_files() {
    check_owners(QUIET, "true", Ok(&[]));
    check_owners(QUIET, "echo x >> d/a", Ok(&["/d/a 644 33:34"]));
    check_owners(QUIET, "echo x >> d/ro", Ok(&["/d/ro 444 33:34"]));
    check_owners(QUIET, "chmod 755 d/ro", Ok(&["/d/ro 755 33:34"]));
    check_owners(QUIET, "mv d/a moved", Ok(&["/moved 644 33:34"]));
    check_owners(QUIET, "mv d/a b", Ok(&["/b 644 33:34"]));
    check_owners(GAVE, "mv b x", Ok(&["/x 644 0:0"]));
    check_owners(QUIET, "mv d/ro d/a", Ok(&["/d/a 444 33:34"]));
    check_owners(QUIET, "ln d/a x", Ok(&["/d/a 644 33:34", "/x 644 33:34"]));
    check_owners(QUIET, "echo n > d/n", Ok(&["/d/n 644 0:0"]));
    check_owners(QUIET, "cp d/a copy", Ok(&["/copy 644 0:0"]));
    check_owners(QUIET, "echo n > n; mv n d/a", Ok(&["/d/a 644 0:0"]));
    check_owners(
        QUIET,
        "rm d/a; echo n > d/a; chmod 644 d/a",
        Ok(&["/d/a 644 0:0"]),
    );
    check_owners(
        GAVE,
        "echo n > n; chown 0:0 n; chmod 600 b",
        Ok(&["/b 600 0:0", "/n 644 0:0"]),
    );
}

#[test]
fn owners_that_cannot_be_told() {
    let given = "`/d/a` belongs to 33:34, and the step may have given it to root";
    check_owners(GAVE, "chown 0:0 d/a", Err(given));
    let given = "`/d/a` belongs to 33:34, and the step may have given it to root, and so with ";
    check_owners(GAVE, "chown -R -h 0:0 d; touch d/x", Err(given));
    let copied = "`/copy` is the same as `/d/a`, which belongs to 33:34";
    check_owners(QUIET, "cp -p d/a copy", Err(copied));
    check_owners(QUIET, "mkdir x; cp -p d/a copy; rmdir x", Err(copied));
    let replaced = "`/d/a` belonged to 33:34, and the step put another in its place";
    check_owners(GAVE, "echo n > n; chown 0:0 n; mv n d/a", Err(replaced));
    let link = "`/moved` is the same as `/d/l`, which belongs to 33:34";
    check_owners(QUIET, "mv d/l moved", Err(link));
    let replaced = "`/d/l` belonged to 33:34, and the step put another in its place";
    check_owners(QUIET, "ln -sfn y d/l", Err(replaced));
    let inherited = "`/s/n` is new in `/s`, which gives its group 50 to what is made there";
    check_owners(QUIET, "echo n > s/n", Err(inherited));
}

#[test]
fn a_layer_stacks_on_another_base() {
    let Some(bench) = Bench::new("true") else {
        return;
    };
    // The kernel marks every new directory opaque; over nothing that must not stay.
    bench.step("mkdir new; echo x > new/x; mknod gone c 0 0 || true");
    let sealed = bench.seal_with(&SealOptions::default());
    assert_eq!(text(&sealed.manifest), ["/new dir", "/new/x file 2"]);
    let lower = bench.dir.path().join("lower");
    sh(&lower, "mkdir new; echo y > new/y");
    assert!(bench.merged_text().contains("./new/y"));
}

#[test]
fn an_overlay_in_a_user_namespace() {
    let Some(bench) = Bench::new(LOWER) else {
        return;
    };
    let script = "mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged \
                  || exit 77; cd merged; exec sh -euc 'rm -r etc; mkdir etc; echo n > etc/n; rm -r usr'";
    let status = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .current_dir(bench.dir.path())
        .status()
        .unwrap();
    if !status.success() {
        eprintln!("skipped: this host mounts no overlay in a user namespace");
        return;
    }
    let user = SealOptions {
        marks: OverlayXattrs::User,
        ..SealOptions::default()
    };
    let sealed = bench.seal_with(&user);
    assert_eq!(
        text(&sealed.manifest),
        [
            "/etc dir passing",
            "/etc/a deleted",
            "/etc/b deleted",
            "/etc/b2 deleted",
            "/etc/conf.d deleted",
            "/etc/link deleted",
            "/etc/n file 2",
            "/usr deleted"
        ]
    );
}

#[test]
fn known_digests_are_believed_only_for_their_size() {
    let Some(bench) = Bench::new("true") else {
        return;
    };
    bench.step("echo a > a; echo b > b");
    let forged = kiln_tree::FileDigest([7; 32]);
    let known = [("a", 2), ("b", 3)].map(|(path, size)| {
        (
            TreePath::new(path).unwrap(),
            kiln_tree::seal::Known {
                size,
                digest: forged,
            },
        )
    });
    let options = SealOptions {
        known: known.into(),
        ..SealOptions::default()
    };
    let manifest = bench.seal_with(&options).manifest;
    let digest = |path: &[u8]| match manifest.get(path).unwrap().kind {
        Kind::File { digest, .. } => digest,
        _ => panic!("a file"),
    };
    assert_eq!(
        (digest(b"a"), digest(b"b")),
        (forged, kiln_tree::FileDigest::of(b"b\n"))
    );
}
