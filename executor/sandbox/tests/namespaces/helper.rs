//! What the test binary does when it is not the test.
#![allow(clippy::print_stdout)]

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kiln_sandbox::porter::{self, Program, Started};
use kiln_sandbox::userns::{UserNsSupport, enter, entered, probe};
use kiln_sandbox::{RootFs, Spec, Stdio, spawn};

use crate::rootfs::open;

const HELPER: &str = "--as-helper";

/// The arguments that make this binary a helper.
pub(crate) fn helper(name: &str) -> [&str; 2] {
    [HELPER, name]
}

pub(crate) fn run_if_requested() {
    let args: Vec<String> = std::env::args().collect();
    let [_, marker, name, root] = args.as_slice() else {
        return;
    };
    if marker != HELPER {
        return;
    }
    match name.as_str() {
        "hang" => hang(Path::new(root)),
        "user" => user(Path::new(root)),
        "subordinate" => subordinate(Path::new(root), "user"),
        "subordinate_porter" => subordinate(Path::new(root), "porter"),
        "keyring" => keyring(),
        "porter" => porter(Path::new(root)),
        "porter_hangs" => porter_hangs(),
        "chroot" => chroot(Path::new(root)),
        other => panic!("BUG: there is no helper `{other}`"),
    }
    std::process::exit(0);
}

fn sh(root: &Path, script: &str) -> Spec {
    let mut spec = Spec::new(RootFs::Directory(open(root)), ["/bin/sh", "-c", script]);
    spec.env = vec![("PATH".into(), "/bin".into())];
    let stdout = Some(
        std::os::fd::AsFd::as_fd(&std::io::stdout())
            .try_clone_to_owned()
            .unwrap(),
    );
    let stderr = Some(
        std::os::fd::AsFd::as_fd(&std::io::stderr())
            .try_clone_to_owned()
            .unwrap(),
    );
    spec.stdio = Stdio::Streams {
        stdin: None,
        stdout,
        stderr,
    };
    spec
}

/// Says the pid of a sandbox's first process, and never ends by itself.
fn hang(root: &Path) {
    let mut spec = sh(root, "exec sleep 1000");
    spec.stdio = Stdio::default();
    let running = spawn(spec).unwrap();
    println!("{}", running.pid());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    std::mem::forget(running);
}

/// Enters a user namespace, or says why not.
fn enter_or_end() {
    if !entered() {
        let support = probe();
        if let UserNsSupport::Refused { which, fix } = &support {
            println!("refused by {which}; {fix}");
            std::process::exit(0);
        }
        panic!("{}", enter(&support));
    }
}

/// Enters a user namespace and runs a sandbox there, telling what it got.
fn user(root: &Path) {
    enter_or_end();
    let mapped = std::env::var("KILN_USERNS").unwrap();
    let (uids, _) = kiln_sandbox::userns::current_maps().unwrap();
    match mapped.as_str() {
        "mapped" => println!("mapped 0 {}", uids.to_host(0).unwrap()),
        _ => println!("{mapped} {}", rustix::process::getuid().as_raw()),
    }
    let other = if mapped == "mapped" {
        "chown 7 /tmp/f; stat -c %u /tmp/f"
    } else {
        "true"
    };
    let script = format!("touch /tmp/f; id -u; {other}; echo inner");
    let mut spec = sh(root, &format!("echo $({script})"));
    let source = kiln_sandbox::MountSource::Tmpfs {
        size_bytes: None,
        mode: 0o755,
    };
    spec.mounts.push(kiln_sandbox::Mount {
        target: "/dev/shm/tmp".into(),
        source,
        readonly: false,
    });
    spec.args[2] = spec.args[2]
        .to_str()
        .unwrap()
        .replace("/tmp/", "/dev/shm/tmp/")
        .into();
    let mut running = spawn(spec).unwrap();
    assert!(running.wait().unwrap().success());
    let refused = running
        .notes()
        .iter()
        .any(|note| note.starts_with("/proc is the host's"));
    println!("proc {}", if refused { "refused" } else { "fresh" });
}

/// Moves into a mount namespace whose mounts nobody else sees, or says what is in the way.
fn own_mounts() {
    use nix::mount::{MsFlags, mount};
    const NONE: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    if private == Err(nix::errno::Errno::EINVAL) {
        println!("refused: the root directory is no mount point (in a chroot)");
        std::process::exit(0);
    }
    private.unwrap();
}

/// Becomes a user with subordinate ids, in a mount namespace where /etc says so.
fn subordinate(root: &Path, then: &str) {
    use nix::mount::{MsFlags, mount};
    use std::os::unix::process::CommandExt;
    const NONE: Option<&str> = None;
    // In a chroot the kernel tells another path once the mounts are others.
    let binary = std::env::current_exe().unwrap();
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let files = [
        (
            "passwd",
            "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
        ),
        ("subuid", "ann:100000:65536\n"),
        ("subgid", "ann:100000:65536\n"),
    ];
    for (name, text) in files {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let target = Path::new("/etc").join(name);
        mount(Some(&file), &target, NONE, MsFlags::MS_BIND, NONE).unwrap();
    }
    drop(dir);
    let error = std::process::Command::new(binary)
        .args(helper(then))
        .arg(root)
        .uid(1000)
        .gid(1000)
        .exec();
    panic!("{error}");
}

/// Asks for the key ring of the thread, which only a filter refuses.
fn keyring() {
    const KEYCTL_GET_KEYRING_ID: libc::c_long = 0;
    const KEY_SPEC_THREAD_KEYRING: libc::c_long = -1;
    // SAFETY: the operation takes numbers only.
    let id = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_GET_KEYRING_ID,
            KEY_SPEC_THREAD_KEYRING,
            1,
        )
    };
    let error = std::io::Error::last_os_error().raw_os_error();
    match (id, error) {
        (-1, Some(libc::EPERM)) => println!("refused with EPERM"),
        (-1, other) => println!("refused with {other:?}"),
        _ => println!("granted"),
    }
}

/// In a chroot that is no mount, starts a sandbox that tries to walk out.
fn chroot(root: &Path) {
    use nix::mount::{MsFlags, mount};
    const NONE: Option<&str> = None;
    own_mounts();
    let bind = |source: &Path, target: &Path| {
        mount(
            Some(source),
            target,
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NONE,
        )
        .unwrap();
    };
    for name in ["inner", "proc"] {
        let source = std::fs::read_to_string(root.join(format!("{name}.source"))).unwrap();
        bind(&PathBuf::from(source), &root.join(name));
    }
    for name in crate::nested::host_dirs() {
        if !root.join(name).is_symlink() {
            bind(&Path::new("/").join(name), &root.join(name));
        }
    }
    nix::unistd::chroot(root).unwrap();
    nix::unistd::chdir("/").unwrap();
    let spec = sh(Path::new("/inner"), "cd ../../../..; echo $(ls)");
    assert!(spawn(spec).unwrap().wait().unwrap().success());
}

/// A program outside of the namespace that runs a script, and this side of its streams.
fn outside(script: &str) -> (Started, PipeWriter, PipeReader) {
    let program = Program {
        name: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        variables: vec![("WORD".into(), "a word".into())],
        directory: Some("/usr".into()),
        own_group: false,
    };
    let (stdin, to_stdin) = std::io::pipe().unwrap();
    let (from_stdout, stdout) = std::io::pipe().unwrap();
    let stderr = stdout.try_clone().unwrap();
    let started = program.start(&[stdin.into(), stdout.into(), stderr.into()]);
    (started.unwrap(), to_stdin, from_stdout)
}

/// Enters a user namespace and has programs started outside of it, telling what they said.
fn porter(root: &Path) {
    enter_or_end();
    let (mut started, mut stdin, mut stdout) = outside(
        "id -u; cat /proc/self/uid_map; pwd; echo $WORD; echo ${KILN_USERNS-none} ${KILN_PORTER-none}; \
         ls /proc/self/fd | wc -l; cat; exit 7",
    );
    stdin.write_all(b"said to it\n").unwrap();
    drop(stdin);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    println!("{}", text.split_whitespace().collect::<Vec<_>>().join(" "));
    println!("{:?}", started.wait().unwrap().code());
    let missing = Program {
        name: "/no/such/program".into(),
        ..Program::default()
    };
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let error = missing.start(&[null(), null(), null()]).unwrap_err();
    println!("{:?}", error.kind());

    // What is dropped is killed: nobody holds the other end of its output any more.
    let (started, stdin, mut stdout) = outside("echo there; exec sleep 1000");
    stdout.read_exact(&mut [0; 6]).unwrap();
    drop((started, stdin));
    stdout.read_to_end(&mut Vec::new()).unwrap();
    let (mut started, _stdin, _stdout) = outside("exec sleep 1000");
    started.kill().unwrap();
    println!("{:?}", started.wait().unwrap());

    // It connects as the caller, to whatever the caller could connect to.
    println!(
        "{:?}",
        porter::connect(Path::new("/no/socket")).unwrap_err().kind()
    );
    // A sandbox inherits no way to it: three streams, and the listing's own descriptor.
    let mut running = spawn(sh(
        root,
        "ls /proc/self/fd | wc -l; echo ${KILN_PORTER-none}",
    ))
    .unwrap();
    assert!(running.wait().unwrap().success());
}

/// Has a program started outside that does not end by itself, nor does this.
fn porter_hangs() {
    enter_or_end();
    let program = Program {
        name: "sh".into(),
        arguments: vec![
            "-c".into(),
            "trap '' INT TERM HUP; echo there; exec sleep 1000".into(),
        ],
        ..Program::default()
    };
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let null = std::fs::File::open("/dev/null").unwrap().into();
    let streams = [null, own(stdout.as_fd()), own(stderr.as_fd())];
    let started = program.start(&streams).unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(started);
}
