//! The test binary itself in a sandbox, in a chroot, and as an ordinary user.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_sandbox::{Mount, MountSource, RootFs, Spec, User};

use crate::helper::helper;
use crate::rootfs::{Rootfs, copy_program, open, run};

pub(crate) const TESTS: crate::ProbedTests = &[
    ("root_in_a_sandbox_has_sandboxes", || {
        check("user", |_| {}, "mapped 0 0\n0 7 inner\nproc refused");
        Ok(())
    }),
    ("a_user_in_a_sandbox_has_one_id", || {
        check(
            "user",
            |spec| spec.user = ordinary(),
            "single 0\n0 inner\nproc refused",
        );
        Ok(())
    }),
    ("a_user_with_subordinate_ids_has_them", || {
        let needed = [
            "/usr/bin/newuidmap",
            "/usr/bin/newgidmap",
            "/etc/subuid",
            "/etc/subgid",
        ];
        if let Some(missing) = needed.into_iter().find(|path| !Path::new(path).exists()) {
            return Err(format!("no {missing} (Debian: uidmap)"));
        }
        as_user("subordinate", 0, "mapped 0 1000\n0 7 inner\nproc fresh")
    }),
    ("an_ordinary_user_has_sandboxes", || {
        as_user("user", 54321, "single 0\n0 inner\nproc fresh")
    }),
    ("programs_of_an_ordinary_user_start_outside", || {
        as_user("porter", 54321, &outside(54321))
    }),
    ("programs_of_a_user_with_ids_start_outside", || {
        if !Path::new("/usr/bin/newuidmap").exists() {
            return Err("no newuidmap (Debian: uidmap)".to_owned());
        }
        as_user("subordinate_porter", 0, &outside(1000))
    }),
    ("a_killed_user_takes_programs_outside_along", killed_user),
    ("a_chroot_has_sandboxes_that_cannot_be_left", || {
        let inner = Rootfs::with_points();
        let outer = host_root();
        for (name, source) in [("inner", inner.path()), ("proc", Path::new("/proc"))] {
            let point = outer.path().join(name);
            std::fs::create_dir_all(&point).unwrap();
            std::fs::write(
                outer.path().join(format!("{name}.source")),
                source.to_str().unwrap(),
            )
            .unwrap();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(helper("chroot"))
            .arg(outer.path())
            .output()
            .unwrap();
        expect(&output, "bin dev proc sys")
    }),
];

/// Runs a helper outside of any sandbox, from a copy of this binary that everybody may execute.
fn as_user(name: &str, uid: u32, expected: &str) -> Result<(), String> {
    let root = Rootfs::with_points();
    let (_dir, binary) = copy_of_this();
    let output = Command::new(binary)
        .args(helper(name))
        .arg(root.path())
        .uid(uid)
        .gid(uid)
        .current_dir("/")
        .output()
        .unwrap();
    expect(&output, expected)
}

/// What the helper tells of programs that a user has outside.
fn outside(uid: u32) -> String {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    format!(
        "{uid} {} /usr a word none none 4 said to it\nSome(7)\nNotFound\n\
         ExitStatus(unix_wait_status(9))\nNotFound\n4\nnone",
        map.join(" ")
    )
}

fn killed_user() -> Result<(), String> {
    let (_dir, binary) = copy_of_this();
    let mut child = Command::new(binary)
        .args(helper("porter_hangs"))
        .arg("/")
        .uid(54321)
        .gid(54321)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    if line.starts_with("refused") {
        child.wait().unwrap();
        return Err(line.trim_end().to_owned());
    }
    assert_eq!(line, "there\n");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its output ends with the last process that holds it.
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    Ok(())
}

/// A copy of this binary that everybody may execute, and the directory that it goes with.
fn copy_of_this() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = dir.path().join("test");
    copy_program(&std::env::current_exe().unwrap(), &binary);
    (dir, binary)
}

/// Errors with what this host refuses to let the helper do.
fn expect(output: &std::process::Output, expected: &str) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stdout);
    if said.starts_with("refused") {
        return Err(said.trim_end().to_owned());
    }
    assert_eq!(
        said.trim_end(),
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn ordinary() -> User {
    User {
        uid: 1000,
        gid: 1000,
        groups: vec![],
    }
}

/// A root file system with the host's programs and libraries, and nothing else yet.
fn host_root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for name in host_dirs() {
        let host = Path::new("/").join(name);
        match std::fs::read_link(&host) {
            Ok(target) => symlink(target, dir.path().join(name)).unwrap(),
            Err(_) => std::fs::create_dir(dir.path().join(name)).unwrap(),
        }
    }
    dir
}

/// The directories that hold the host's programs and libraries.
pub(crate) fn host_dirs() -> impl Iterator<Item = &'static str> {
    ["usr", "bin", "sbin", "lib", "lib32", "lib64"]
        .into_iter()
        .filter(|name| Path::new("/").join(name).exists())
}

/// Runs a helper in a sandbox that has the host's programs and, in `/inner`, another root.
pub(crate) fn check(name: &str, change: impl FnOnce(&mut Spec), expected: &str) {
    let root = host_root();
    let inner = Rootfs::with_points();
    let bind = |target: String, source: &Path| Mount {
        target: target.into(),
        source: MountSource::Bind {
            fd: open(source),
            subpath: None,
        },
        readonly: true,
    };
    let mut args = vec!["/kiln-test".into()];
    args.extend(helper(name).map(Into::into));
    args.push(std::ffi::OsString::from("/inner"));
    let mut spec = Spec::new(RootFs::Directory(open(root.path())), args);
    spec.env = vec![("PATH".into(), "/usr/bin".into())];
    spec.mounts = host_dirs()
        .filter(|name| !root.path().join(name).is_symlink())
        .map(|name| bind(format!("/{name}"), &Path::new("/").join(name)))
        .collect();
    spec.mounts
        .push(bind("/kiln-test".into(), &std::env::current_exe().unwrap()));
    spec.mounts.push(bind("/inner".into(), inner.path()));
    change(&mut spec);
    let output = run(spec).unwrap();
    assert_eq!(output.stdout.trim_end(), expected, "{}", output.stderr);
}
