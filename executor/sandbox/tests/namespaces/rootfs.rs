//! A root file system of one static busybox, and a way to run something in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_sandbox::{Error, Exit, RootFs, Spec, Stdio, spawn};

const APPLETS: &[&str] = &[
    "cat", "chown", "cp", "dd", "echo", "env", "false", "hostname", "id", "ifconfig", "kill", "ln",
    "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "printf", "ps", "pwd", "readlink", "rm", "sh",
    "sleep", "stat", "stty", "test", "touch", "true", "tty", "umount", "unshare", "wc",
];

/// A directory that holds a root file system.
pub(crate) struct Rootfs {
    dir: tempfile::TempDir,
}

/// Where the host has a static busybox.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
}

impl Rootfs {
    pub(crate) fn new() -> Rootfs {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        copy_program(&busybox().unwrap(), &bin.join("busybox"));
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        Rootfs { dir }
    }

    /// One in which nothing is missing, for whoever may not write to it.
    pub(crate) fn with_points() -> Rootfs {
        let root = Rootfs::new();
        for point in ["proc", "sys", "dev"] {
            std::fs::create_dir(root.path().join(point)).unwrap();
        }
        root
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> RootFs {
        RootFs::Directory(open(self.dir.path()))
    }

    /// A spec that runs `script` by the shell.
    pub(crate) fn sh(&self, script: &str) -> Spec {
        let mut spec = Spec::new(self.root(), ["/bin/sh", "-c", script]);
        spec.env = vec![("PATH".into(), "/bin".into())];
        spec
    }
}

/// Opens whatever is at a path.
pub(crate) fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

/// What a finished process said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) stubs: Vec<(String, bool)>,
    pub(crate) notes: Vec<String>,
}

/// Runs a spec to its end, with its output in pipes.
pub(crate) fn run(mut spec: Spec) -> Result<Output, Error> {
    let (mut out, stdout) = std::io::pipe().unwrap();
    let (mut err, stderr) = std::io::pipe().unwrap();
    let stdin = match spec.stdio {
        Stdio::Streams { stdin, .. } => stdin,
        Stdio::Terminal { .. } => None,
    };
    spec.stdio = Stdio::Streams {
        stdin,
        stdout: Some(stdout.into()),
        stderr: Some(stderr.into()),
    };
    let mut running = spawn(spec)?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    out.read_to_string(&mut stdout).unwrap();
    let stderr = reader.join().unwrap();
    let exit = running.wait()?;
    let stubs = running.stubs();
    let stubs = stubs
        .iter()
        .map(|stub| (stub.path.display().to_string(), stub.is_dir))
        .collect();
    Ok(Output {
        exit,
        stdout,
        stderr,
        stubs,
        notes: running.notes().to_vec(),
    })
}

/// Runs a script in a fresh root, and compares all that it prints.
pub(crate) fn check(script: &str, expected: &str) {
    check_in(&Rootfs::new(), |_| {}, script, expected);
}

/// The same with a root and changes of the spec.
pub(crate) fn check_in(
    root: &Rootfs,
    change: impl FnOnce(&mut Spec),
    script: &str,
    expected: &str,
) {
    let mut spec = root.sh(script);
    change(&mut spec);
    let output = run(spec).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(
        said.trim_end(),
        expected,
        "{:?} {:?}",
        output.exit,
        output.notes
    );
}

/// Copies a program that is about to be executed.
///
/// Another process does it: what a thread spawns meanwhile would inherit the copy, open for writing,
/// and a program that somebody writes cannot be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}
