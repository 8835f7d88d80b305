//! Why a process could not be started or watched.

use std::io;
use std::path::PathBuf;

/// Why a sandbox failed; never that the process in it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec cannot mean anything.
    #[error("the sandbox can't have {what} `{value}`")]
    Invalid {
        /// Which field, and what is wrong with it.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The binary could not be opened for its re-execution.
    #[error("can't prepare `{}` to start a sandbox", path.display())]
    OwnBinary {
        /// The binary.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A directory or file that is to be mounted could not be taken.
    #[error("can't take what is to be mounted on `{}`", target.display())]
    Source {
        /// Where it was to be seen.
        target: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No process could be made.
    #[error("can't {doing}")]
    Start {
        /// What was attempted.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No cgroup can be had as it was asked for.
    #[error("{what} can't be limited here: {reason}")]
    Cgroup {
        /// What it was to limit, or whose child it was to be.
        what: String,
        /// Why not.
        reason: String,
        /// A way out, where there is one.
        remedy: Option<&'static str>,
    },
    /// The sandbox could not be set up.
    #[error("can't {phase} in the sandbox{}", at(path))]
    Setup {
        /// What was attempted.
        phase: Phase,
        /// The path concerned, as the container sees it.
        path: Option<PathBuf>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("can't enter the working directory `{}`", path.display())]
    Cwd {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such program.
    #[error("the program `{program}` was not found in {}", place(program))]
    ProgramNotFound {
        /// As the spec names it.
        program: String,
    },
    /// The program is there and what it needs to be loaded is not.
    #[error("the program `{program}` needs an interpreter or loader that is not in the image")]
    InterpreterNotFound {
        /// As the spec names it.
        program: String,
    },
    /// The program is there and cannot be executed.
    #[error("the program `{program}` can't be executed")]
    NotExecutable {
        /// As the spec names it.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The first process of the sandbox ended without an answer.
    #[error("the sandbox ended before it could say how its process did ({how})")]
    Lost {
        /// How it ended.
        how: String,
    },
    /// What was received from the sandbox is not what it sends.
    #[error("the sandbox sent what can't be understood")]
    Protocol {
        /// Where the reading stopped.
        source: serde_json::Error,
    },
}

impl Error {
    /// The code that `docker run` would exit with: 127, 126 or 125.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::ProgramNotFound { .. } | Error::InterpreterNotFound { .. } => 127,
            Error::NotExecutable { .. } | Error::Cwd { .. } => 126,
            _ => 125,
        }
    }

    /// A way out where a mount was asked for at a place that cannot have it, as against a host that refuses it.
    pub fn misplaced(&self) -> Option<&'static str> {
        let Error::Setup { phase, source, .. } = self else {
            return None;
        };
        match (phase, source.raw_os_error()) {
            (Phase::MountPoint, Some(libc::EROFS)) => Some(
                "it lies in a mount that is read-only: give that one `rw`, or make the directory in what it shows",
            ),
            (Phase::MountPoint | Phase::Mount, Some(libc::ENOTDIR | libc::EINVAL)) => {
                Some("a directory goes on a directory alone, and a file on a file")
            }
            _ => None,
        }
    }
}

/// What was attempted inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// Receiving the plan.
    Receive,
    /// Making the namespaces.
    Namespaces,
    /// Setting the host name.
    Hostname,
    /// Bringing loopback up.
    Loopback,
    /// Making the root file system the root.
    Root,
    /// Making a file with given bytes.
    Files,
    /// Making a missing mount point.
    MountPoint,
    /// Mounting.
    Mount,
    /// Making a device, a link or a file in `/dev`.
    Device,
    /// Hiding a path, or making it read-only.
    Mask,
    /// Making the terminal.
    Terminal,
    /// Making the process.
    Fork,
    /// Connecting the standard streams.
    Stdio,
    /// Setting a limit.
    Rlimit,
    /// Telling the kernel of an emulator, in a user namespace of its own.
    Emulator,
    /// Giving capabilities up.
    Capabilities,
    /// Filtering system calls.
    Seccomp,
    /// Becoming the user.
    User,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Receive => "receive the plan",
            Phase::Namespaces => "make namespaces",
            Phase::Hostname => "set the host name",
            Phase::Loopback => "bring loopback up",
            Phase::Root => "change the root",
            Phase::Files => "make the file",
            Phase::MountPoint => "make the mount point",
            Phase::Mount => "mount",
            Phase::Device => "make the device",
            Phase::Mask => "mask",
            Phase::Terminal => "make a terminal",
            Phase::Fork => "make the process",
            Phase::Stdio => "connect the standard streams",
            Phase::Rlimit => "set a limit",
            Phase::Emulator => "register the emulator in a user namespace",
            Phase::Capabilities => "drop capabilities",
            Phase::Seccomp => "filter system calls",
            Phase::User => "become the user",
        })
    }
}

fn at(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map(|path| format!(" (`{}`)", path.display()))
        .unwrap_or_default()
}

fn place(program: &str) -> &'static str {
    if program.contains('/') {
        "the image"
    } else {
        "the image's `PATH`"
    }
}
