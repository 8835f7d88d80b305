//! What a host may lack, looked for once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::{base, engine};

/// Something that not every host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Capability {
    /// Steps can run: as root, or in a user namespace.
    Containers,
    /// The tests run as root.
    Root,
    /// Root may mount in a mount namespace of its own (in a `chroot` below no mount point it may not).
    MountNamespace,
    /// An ordinary user may make user namespaces and run this kiln, tried from root through `setpriv`.
    OrdinaryUser,
    /// The base image is busybox, not the host's coreutils.
    Busybox,
    /// `skopeo`.
    Skopeo,
    /// `umoci`.
    Umoci,
    /// `runc`, able to start a container here.
    Runc,
    /// `dockerd`, able to start here.
    Dockerd,
    /// `podman`, able to keep images here.
    Podman,
    /// `podman`, able to keep images of an ordinary user here.
    PodmanOfUser,
    /// `containerd` with `ctr`, able to start here.
    Containerd,
    /// `docker-registry`.
    DockerRegistry,
    /// `weed`, an object store.
    Seaweed,
    /// `python3`.
    Python,
    /// Python's own installer, and a Python that reads TOML.
    Pip,
    /// `setpriv`.
    Setpriv,
    /// `bash`.
    Bash,
    /// `newuidmap` and `newgidmap`.
    Uidmap,
    /// `ssh-agent` and the programs that come with it.
    OpenSsh,
    /// `sshd`.
    Sshd,
    /// `git`.
    Git,
    /// dpkg's own database on this host.
    Dpkg,
    /// `rpm` and `rpmbuild`.
    Rpm,
    /// `db_load` of Berkeley DB.
    BerkeleyDb,
    /// `strace`, which may trace here.
    Strace,
    /// Root may make cgroups that limit memory and processors.
    Cgroups,
    /// An emulator of arm64 that a sandbox may have for itself.
    Emulator,
    /// `chromium`, able to show a page here.
    Chromium,
}

impl Capability {
    fn words(self) -> &'static str {
        match self {
            Self::Containers => "root or user namespaces",
            Self::Root => "root",
            Self::MountNamespace => "a mount namespace of its own",
            Self::OrdinaryUser => "user namespaces of an ordinary user, who may run this kiln",
            Self::Busybox => "a static busybox",
            Self::Skopeo => "skopeo",
            Self::Umoci => "umoci",
            Self::Runc => "runc, cgroups and a mount namespace of its own",
            Self::Dockerd => "dockerd that starts",
            Self::Podman => "podman with a storage of its own",
            Self::PodmanOfUser => "podman with a storage of an ordinary user",
            Self::Containerd => "containerd that starts, and ctr",
            Self::DockerRegistry => "docker-registry",
            Self::Seaweed => "weed (SeaweedFS)",
            Self::Python => "python3",
            Self::Pip => "pip and Python 3.11",
            Self::Setpriv => "setpriv",
            Self::Bash => "bash",
            Self::Uidmap => "newuidmap",
            Self::OpenSsh => "ssh-agent",
            Self::Sshd => "sshd",
            Self::Git => "git",
            Self::Dpkg => "a Debian",
            Self::Rpm => "rpmbuild",
            Self::BerkeleyDb => "db_load",
            Self::Strace => "strace and leave to trace",
            Self::Cgroups => "root, and cgroups of memory and processors that it may make",
            Self::Chromium => "chromium",
            Self::Emulator => {
                "qemu-user-static on a kernel whose user namespaces have binary formats"
            }
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::Containers => {
                nix::unistd::geteuid().is_root()
                    || succeeds("unshare", &["--user", "--map-root-user", "--mount", "true"])
            }
            Self::MountNamespace => {
                nix::unistd::geteuid().is_root() && succeeds("unshare", &["--mount", "true"])
            }
            Self::OrdinaryUser => {
                let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
                let kiln = [env!("CARGO_BIN_EXE_kiln"), "--version"];
                let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
                nix::unistd::geteuid().is_root()
                    && succeeds("setpriv", &[&user[..], &unshare[..], &kiln[..]].concat())
            }
            Self::Busybox => base::has_busybox(),
            Self::Runc => {
                nix::unistd::geteuid().is_root()
                    && find_program("runc").is_some()
                    && cgroups_are_mounted()
                    // It makes one too, which a root that is no mount refuses, as in a bare chroot.
                    && Self::MountNamespace.is_here()
            }
            Self::Skopeo => find_program("skopeo").is_some(),
            Self::Umoci => find_program("umoci").is_some(),
            Self::Dockerd => nix::unistd::geteuid().is_root() && engine::starts("dockerd"),
            Self::Podman => nix::unistd::geteuid().is_root() && engine::starts("podman"),
            Self::PodmanOfUser => {
                nix::unistd::geteuid().is_root() && engine::starts("podman of a user")
            }
            Self::Containerd => nix::unistd::geteuid().is_root() && engine::starts("containerd"),
            Self::DockerRegistry => find_program("docker-registry").is_some(),
            Self::Seaweed => succeeds("weed", &["version"]),
            Self::Python => find_program("python3").is_some(),
            Self::Pip => succeeds("python3", &["-c", "import pip, tomllib"]),
            Self::Setpriv => find_program("setpriv").is_some(),
            Self::Bash => find_program("bash").is_some(),
            Self::Uidmap => find_program("newuidmap").is_some(),
            Self::OpenSsh => {
                let programs = ["ssh-agent", "ssh-add", "ssh-keygen", "ldd"];
                programs.iter().all(|name| find_program(name).is_some())
            }
            Self::Sshd => find_program("sshd").is_some(),
            Self::Git => find_program("git").is_some(),
            Self::Dpkg => {
                find_program("dpkg-query").is_some() && Path::new("/var/lib/dpkg/status").is_file()
            }
            Self::Rpm => find_program("rpmbuild").is_some() && find_program("rpm").is_some(),
            Self::BerkeleyDb => find_program("db_load").is_some(),
            Self::Strace => succeeds("strace", &["-o", "/dev/null", "true"]),
            Self::Cgroups => ["memory", "cpuset", "pids"]
                .iter()
                .all(|controller| makes_cgroups(controller)),
            Self::Chromium => find_program("chromium").is_some(),
            Self::Emulator => {
                let mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc";
                find_program("qemu-aarch64-static").is_some()
                    && succeeds(
                        "unshare",
                        &["--user", "--map-root-user", "--mount", "sh", "-c", mount],
                    )
            }
        }
    }
}

/// Returns what of `needs` this host lacks, in words, or nothing.
pub(super) fn missing(needs: &[Capability]) -> Option<String> {
    static KNOWN: Mutex<BTreeMap<Capability, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let lacking: Vec<&str> = needs
        .iter()
        .filter(|need| !*known.entry(**need).or_insert_with(|| need.is_here()))
        .map(|need| need.words())
        .collect();
    (!lacking.is_empty()).then(|| lacking.join(" and "))
}

/// runc starts nothing where no cgroup hierarchy is in sight.
fn cgroups_are_mounted() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(" - cgroup"))
}

/// The roots of all mounted cgroup hierarchies.
pub(crate) fn cgroup_roots() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines = mounts.lines().filter(|line| line.contains(" - cgroup"));
    lines
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .collect()
}

/// Whether a cgroup of a controller can be made.
fn makes_cgroups(controller: &str) -> bool {
    cgroup_roots().iter().any(|root| {
        let listed = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let own = root.file_name().unwrap_or_default().to_string_lossy();
        let has = listed.split_whitespace().any(|name| name == controller)
            || own.split(',').any(|name| name == controller);
        let trial = root.join(format!("kiln-trial-of-tests-{}", std::process::id()));
        has && std::fs::create_dir(&trial).is_ok() && std::fs::remove_dir(&trial).is_ok()
    })
}

/// Where a program is, also where an ordinary user's `PATH` does not lead.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|file| file.is_file())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
