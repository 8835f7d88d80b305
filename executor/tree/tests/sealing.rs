//! Real overlays, really changed, sealed. Needs root for the mount; says so where it is skipped.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use kiln_tree::materialised::{diff_against, materialise, record, scan_full};
use kiln_tree::seal::{SealOptions, Sealed, seal};
use kiln_tree::{Kind, Manifest, OverlayXattrs, Ownership, TreePath, View};

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
    check_copy(step, expected);
}

fn check_copy(step: &str, expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (lower, tree) = (dir.path().join("lower"), dir.path().join("tree"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&tree).unwrap();
    sh(&lower, LOWER);
    let manifest = scan_full(open(&lower).as_fd(), &SealOptions::default()).unwrap();
    let base = View::new(vec![Arc::new(manifest)]);
    let ownership = Ownership::Apply(kiln_tree::seal::IdMap::identity());
    let never = kiln_tree::Stop::NEVER;
    materialise(
        &base,
        &[open(&lower)],
        open(&tree).as_fd(),
        &ownership,
        &never,
    )
    .unwrap();
    let snapshot = record(open(&tree).as_fd(), &never).unwrap();
    sh(&tree, step);
    let options = SealOptions::default();
    let changes = diff_against(open(&tree).as_fd(), &base, &snapshot, &options).unwrap();
    let mut expected: Vec<String> = expected.iter().map(|line| line.to_string()).collect();
    // Without an overlay nobody knows that a directory was removed in between.
    if expected.iter().any(|line| line.ends_with("opaque")) {
        return;
    }
    expected.sort();
    let mut changed = text(&changes.manifest);
    changed.sort();
    assert_eq!(changed, expected, "copy strategy: {step}");
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
    check(
        "rm -r etc; mkdir etc; echo n > etc/n",
        &["/etc dir opaque", "/etc/n file 2"],
    );
    check("rm -r etc; echo n > etc", &["/etc file 2"]);
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
    assert_eq!(text(&bench.seal_with(&user).manifest), ["/etc dir opaque"]);
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

#[test]
fn owners() {
    let Some(bench) = Bench::new("echo a > a; chown 33:34 a; echo b > b") else {
        return;
    };
    bench.step("echo x > a; chown 0:0 a; echo n > n; chown 5:5 n");
    let one_id = SealOptions {
        owners_from_lower: true,
        ..SealOptions::default()
    };
    let manifest = bench.seal_with(&one_id).manifest;
    let owner = |path: &[u8]| {
        let meta = &manifest.get(path).unwrap().meta;
        (meta.uid, meta.gid)
    };
    assert_eq!((owner(b"a"), owner(b"n")), ((33, 34), (0, 0)));
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
        ["/etc dir opaque", "/etc/n file 2", "/usr deleted"]
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
