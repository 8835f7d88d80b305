//! What the caller wants: one process, the tree it sees, and what it may do.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

/// One process in a sandbox.
///
/// Paths are those of the container. The user namespace is the caller's: [`crate::userns`] makes
/// one for a whole process.
#[derive(Debug)]
pub struct Spec {
    /// The file system that becomes `/`.
    pub root: RootFs,
    /// Whether `/` itself (not what is mounted below it) refuses writes.
    pub root_readonly: bool,
    /// Mounted in this order, after `/proc`, `/sys` and `/dev`, so that they may cover those.
    pub mounts: Vec<Mount>,
    /// The program and its arguments; a program without `/` is looked up in the `PATH` of `env`.
    pub args: Vec<OsString>,
    /// The whole environment: nothing is inherited and nothing is added.
    pub env: Vec<(OsString, OsString)>,
    /// An absolute directory, which must exist.
    pub cwd: PathBuf,
    /// Who the process is.
    pub user: User,
    /// The host name; [`DEFAULT_HOSTNAME`] where it is absent.
    pub hostname: Option<String>,
    /// Which network it sees.
    pub network: Network,
    /// What it may ask of the kernel.
    pub privileges: Privileges,
    /// Limits set before the user is.
    pub rlimits: Vec<Rlimit>,
    /// A cgroup of its own, gone with it; the caller's where it is absent.
    pub cgroup: Option<Cgroup>,
    /// Where its standard streams lead.
    pub stdio: Stdio,
    /// The size of `/dev/shm`; 64 MiB where it is absent.
    pub shm_size_bytes: Option<u64>,
    /// The read-only content of `/etc/resolv.conf`; the image's own where it is absent.
    pub resolv_conf: Option<Vec<u8>>,
    /// The read-only content of `/etc/hosts`; the image's own where it is absent.
    pub hosts: Option<Vec<u8>>,
    /// What executes programs of another processor, in this sandbox alone.
    ///
    /// The program is then in a user namespace of its own, in which ids are as outside.
    pub emulator: Option<Emulator>,
    /// Whether to hear of what changes owners and attributes ([`crate::Running::heard`]).
    pub listen: bool,
}

/// A binary format of the sandbox's own: programs that another one executes.
#[derive(Debug)]
pub struct Emulator {
    /// The program that executes them, opened; it needs no file of the sandbox (it is static).
    pub interpreter: OwnedFd,
    /// How the kernel lists the format; letters, digits and `-`.
    pub name: String,
    /// What such programs begin with, where `mask` has bits.
    pub magic: Vec<u8>,
    /// As long as `magic`.
    pub mask: Vec<u8>,
}

/// The host name of a sandbox that asks for none.
pub const DEFAULT_HOSTNAME: &str = "kiln";

impl Spec {
    /// Makes a spec that runs `args` as root in `/` of `root`, on the host's network, silently.
    pub fn new<A: Into<OsString>>(root: RootFs, args: impl IntoIterator<Item = A>) -> Spec {
        Spec {
            root,
            root_readonly: false,
            mounts: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: User::default(),
            hostname: None,
            network: Network::Host,
            privileges: Privileges::Default,
            rlimits: Vec::new(),
            cgroup: None,
            stdio: Stdio::default(),
            shm_size_bytes: None,
            resolv_conf: None,
            hosts: None,
            emulator: None,
            listen: false,
        }
    }
}

/// The file system that becomes `/`.
#[derive(Debug)]
pub enum RootFs {
    /// A detached mount (of `fsmount` or `open_tree`), which the sandbox takes.
    Detached(OwnedFd),
    /// A directory, of which the sandbox takes a private recursive bind.
    Directory(OwnedFd),
}

/// One mount below the root.
#[derive(Debug)]
pub struct Mount {
    /// An absolute path; links in the image are followed inside the root only, and what is missing
    /// is made and reported as a [`Stub`].
    pub target: PathBuf,
    /// What is to be seen there.
    pub source: MountSource,
    /// Whether it refuses writes.
    pub readonly: bool,
}

/// What a mount shows.
#[derive(Debug)]
pub enum MountSource {
    /// A detached mount (of `fsmount` or `open_tree`), which the sandbox takes.
    Detached(OwnedFd),
    /// A directory or a file (also a socket or a device), bound with what is mounted below it.
    Bind {
        /// Opened with `O_PATH` or otherwise; its mount is in the caller's mount namespace.
        fd: OwnedFd,
        /// A path below a directory `fd`, resolved inside it; links cannot leave it.
        subpath: Option<PathBuf>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// The kernel's default (half of the memory) where it is absent.
        size_bytes: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A file with these bytes, in memory only, gone with the sandbox.
    File {
        /// The content.
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner, as the container counts.
        uid: u32,
        /// Group, as the container counts.
        gid: u32,
    },
}

/// Who the process is, in the container's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// Which network the process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The caller's.
    Host,
    /// A network of its own with nothing but loopback.
    None,
}

/// What the process may ask of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// The capabilities, system calls and masked paths that containers have by default.
    Default,
    /// Every capability that the caller has, no filter and nothing masked.
    Insecure,
}

/// One limit; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// A cgroup that a sandbox has for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Where it is made: from the root of each hierarchy if it begins with `/`, else below the caller's own
    /// cgroup; `NAME.slice` is where systemd has it. Made if it is missing.
    pub parent: Option<String>,
    /// What is limited in it.
    pub limits: Limits,
}

/// What all processes of a sandbox may use together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, files in memory included.
    pub memory_bytes: Option<u64>,
    /// Memory and swap; where it is absent, twice the memory.
    pub swap: Option<Swap>,
    /// The weight beside others, 1024 being usual.
    pub cpu_shares: Option<u64>,
    /// The length of a period; 100 ms where it is absent.
    pub cpu_period_micros: Option<u64>,
    /// Processor time in each period.
    pub cpu_quota_micros: Option<u64>,
    /// A list such as `0-3,5`; empty is all.
    pub cpuset_cpus: String,
    /// Nodes of memory, as a list; empty is all.
    pub cpuset_mems: String,
    /// Processes and threads at once.
    pub processes: Option<u64>,
}

/// How much memory and swap there may be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// Bytes of both.
    Total(u64),
    /// As much swap as there is.
    Unlimited,
}

macro_rules! resources {
    ($($name:literal $variant:ident $raw:ident,)*) => {
        /// A limited resource, named as `ulimit` options name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Resource {
            $(#[doc = concat!("`", $name, "`: see `", stringify!($raw), "` in getrlimit(2).")] $variant,)*
        }

        impl Resource {
            /// The name that [`FromStr`] accepts.
            pub fn name(self) -> &'static str {
                match self { $(Resource::$variant => $name,)* }
            }

            pub(crate) fn kernel(self) -> rustix::process::Resource {
                match self { $(Resource::$variant => rustix::process::Resource::$variant,)* }
            }
        }

        impl FromStr for Resource {
            type Err = UnknownResource;

            fn from_str(name: &str) -> Result<Resource, UnknownResource> {
                match name {
                    $($name => Ok(Resource::$variant),)*
                    _ => Err(UnknownResource { name: name.to_owned() }),
                }
            }
        }
    };
}

resources! {
    "core" Core RLIMIT_CORE,
    "cpu" Cpu RLIMIT_CPU,
    "data" Data RLIMIT_DATA,
    "fsize" Fsize RLIMIT_FSIZE,
    "locks" Locks RLIMIT_LOCKS,
    "memlock" Memlock RLIMIT_MEMLOCK,
    "msgqueue" Msgqueue RLIMIT_MSGQUEUE,
    "nice" Nice RLIMIT_NICE,
    "nofile" Nofile RLIMIT_NOFILE,
    "nproc" Nproc RLIMIT_NPROC,
    "rss" Rss RLIMIT_RSS,
    "rtprio" Rtprio RLIMIT_RTPRIO,
    "rttime" Rttime RLIMIT_RTTIME,
    "sigpending" Sigpending RLIMIT_SIGPENDING,
    "stack" Stack RLIMIT_STACK,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit whose name is none of getrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no limit is called `{name}`; one of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack is"
)]
pub struct UnknownResource {
    /// What was asked for.
    pub name: String,
}

/// Where the standard streams lead.
#[derive(Debug)]
pub enum Stdio {
    /// The given descriptors; an absent one is `/dev/null`.
    ///
    /// Pipes are given to the user of the process, so that it may reopen `/dev/stdout`.
    Streams {
        /// Read by the process.
        stdin: Option<OwnedFd>,
        /// Written by the process.
        stdout: Option<OwnedFd>,
        /// Written by the process.
        stderr: Option<OwnedFd>,
    },
    /// A terminal made inside; [`crate::Running::terminal`] is its other side.
    Terminal {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
}

impl Default for Stdio {
    fn default() -> Stdio {
        Stdio::Streams {
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }
}

/// A mount point that was missing in the root file system and was made for this process.
///
/// Whoever keeps the root removes it afterwards if it is still an empty directory or an empty file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// Its path in the container, without links on the way.
    pub path: PathBuf,
    /// Whether it is a directory; else an empty file.
    pub is_dir: bool,
}
