//! What a caller asks for.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_ir::{NetworkMode, Platform, ResourceLimits};

/// A program to run in an image; whatever is not said comes from the image's config.
#[derive(Debug, Default)]
pub struct ContainerRequest {
    /// The image by name or id, as typed.
    pub image: String,
    /// Which of an image's platforms is wanted; by default the host's, or the only one.
    pub platform: Option<Platform>,
    /// Arguments in place of the image's command; empty keeps it.
    pub command: Vec<String>,
    /// A program in place of the image's entry point, whose command is then dropped too; the empty
    /// string only removes both.
    pub entrypoint: Option<String>,
    /// Variables over those of the image, the last of a name counts; one without a value is removed.
    pub env: Vec<(String, Option<String>)>,
    /// Host directories and files to be seen in the container.
    pub volumes: Vec<Volume>,
    /// Empty file systems in memory to be seen there.
    pub tmpfs: Vec<Tmpfs>,
    /// Nothing can be written but volumes and what is in memory.
    pub readonly: bool,
    /// `user[:group]`, by name or number.
    pub user: Option<String>,
    /// An absolute path, made if it is missing.
    pub workdir: Option<String>,
    /// The default is the host's.
    pub network: NetworkMode,
    /// What its processes may use together.
    pub limits: ResourceLimits,
    /// How many processes and threads it may have at once.
    pub processes: Option<u64>,
    /// Where its cgroup is made; empty is below the caller's own.
    pub cgroup_parent: String,
    /// It cannot change a file but in a `/tmp` in memory, and has limits.
    pub confined: bool,
    /// The host name.
    pub hostname: Option<String>,
    /// No registry is asked for the image.
    pub never_pull: bool,
    /// Where its standard streams lead.
    pub stdio: ProgramStdio,
    /// Told about a pull, if there has to be one.
    pub on_pull: Option<PullObserver>,
}

/// A host path that is seen in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Made absolute from the working directory; a directory is made there if there is nothing.
    pub host: PathBuf,
    /// An absolute path in the container, not its root.
    pub target: String,
    /// Whether the container can only read.
    pub readonly: bool,
}

/// An empty file system in memory, gone with the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// An absolute path in the container, not its root.
    pub target: String,
    /// How much it can hold; by default half of the host's memory.
    pub size_bytes: Option<u64>,
    /// The mode of its root.
    pub mode: u32,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Height.
    pub rows: u16,
    /// Width.
    pub cols: u16,
}

/// Where the standard streams of a program lead.
#[derive(Debug)]
pub enum ProgramStdio {
    /// The given descriptors, without anybody in between; an absent one is `/dev/null`.
    Streams {
        /// Read by the program.
        stdin: Option<OwnedFd>,
        /// Written by the program.
        stdout: Option<OwnedFd>,
        /// Written by the program.
        stderr: Option<OwnedFd>,
    },
    /// A terminal in the container; [`crate::Program::terminal`] is its other side.
    Terminal(Terminal),
}

impl Default for ProgramStdio {
    fn default() -> ProgramStdio {
        ProgramStdio::Streams {
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }
}

/// How a pull goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The image is not in the store, so a registry is asked.
    Asking {
        /// The complete reference in its short form.
        reference: String,
    },
    /// Everything is here.
    Done {
        /// What it is, such as `sha256:25109184, asked for just now`.
        label: String,
    },
}

/// Takes the events of a pull.
pub struct PullObserver(Box<dyn Fn(PullEvent) + Send + Sync>);

impl PullObserver {
    /// Makes one of a function.
    pub fn new(observe: impl Fn(PullEvent) + Send + Sync + 'static) -> PullObserver {
        PullObserver(Box::new(observe))
    }

    pub(super) fn tell(&self, event: PullEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for PullObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullObserver")
    }
}
