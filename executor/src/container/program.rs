//! Starting a program in an image, and holding on to it.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use kiln_ir::NetworkMode;
use kiln_sandbox::{
    Exit, Mount, MountSource, Network, Resource, Rlimit, RootFs, Running, Spec, Stdio, User,
};
use kiln_store::{Lease, Snapshot};
use kiln_tree::Stop;

use super::image::{self, Found, Pulls};
use super::process::{Process, process};
use super::request::{ContainerRequest, ProgramStdio, Terminal};
use super::volume;
use crate::error::Error;
use crate::exec::make_cwd;
use crate::executor::{Executor, host_platform};
use crate::file::accounts;
use crate::hostfiles;
use crate::limits::cgroup_of;
use crate::piped::Ended;
use crate::source::{ResolvedImage, fetch, stoppable};
use crate::users::Identity;

/// A program that runs in an image.
///
/// Its descriptor ([`AsFd`]) is readable once all its processes are gone. Dropping it kills them,
/// and drops what they changed in the image's files.
#[derive(Debug)]
pub struct Program {
    // Dropped in this order: nobody may use the files any more when they go.
    running: Running,
    _root: Snapshot,
    _lease: Lease,
}

impl Executor {
    /// Starts a program, pulling its image if it is not in the store; returns once it runs.
    ///
    /// [`Error::program_exit_code`] is what `docker run` exits with after an error.
    pub async fn start(&self, mut request: ContainerRequest) -> Result<Program, Error> {
        let lease = self.store().lease();
        let observer = request.on_pull.take();
        let platform = request.platform.as_ref();
        let pulls = match (request.never_pull, observer) {
            (true, _) => Pulls::Never,
            (false, Some(observer)) => Pulls::Told(observer),
            (false, None) => Pulls::Silently,
        };
        let found = image::find(self, &lease, &request.image, platform, pulls).await?;
        let executor = self.clone();
        stoppable(move |stop| start(&executor, lease, &found, request, stop)).await
    }

    /// Sees to it that an image is here, to start a program in it.
    pub(crate) async fn bring(&self, image: &ResolvedImage) -> Result<Brought, Error> {
        let lease = self.store().lease();
        let (layers, _) = fetch(self, &lease, image, None, &Stop::NEVER).await?;
        let found = Found {
            config: image.config.clone(),
            platform: host_platform(),
            layers,
        };
        Ok(Brought { found, lease })
    }

    /// Starts a program in an image that is here; blocks for some milliseconds.
    pub(crate) fn start_in(
        &self,
        Brought { found, lease }: Brought,
        request: ContainerRequest,
    ) -> Result<Program, Error> {
        start(self, lease, &found, request, &Stop::NEVER)
    }
}

/// An image that is here, as long as this is kept.
pub(crate) struct Brought {
    found: Found,
    lease: Lease,
}

/// What a confined program may have: it reads and answers, and needs little for that.
const CONFINED: [(Resource, u64); 4] = [
    (Resource::Core, 0),
    (Resource::Nofile, 256),
    (Resource::Fsize, 64 << 20),
    // Memory of its own: heap, stacks and anonymous mappings.
    (Resource::Data, 2 << 30),
];
/// The size of a confined program's `/tmp`, and of its `/dev/shm`.
const CONFINED_TMP_BYTES: u64 = 64 << 20;

/// Takes from a program what it needs not.
fn confine(spec: &mut Spec) {
    spec.root_readonly = true;
    spec.shm_size_bytes = Some(CONFINED_TMP_BYTES);
    spec.mounts.push(Mount {
        target: PathBuf::from("/tmp"),
        source: MountSource::Tmpfs {
            size_bytes: Some(CONFINED_TMP_BYTES),
            mode: 0o1777,
        },
        readonly: false,
    });
    let limits = CONFINED.into_iter().map(|(resource, limit)| Rlimit {
        resource,
        soft: limit,
        hard: limit,
    });
    spec.rlimits.extend(limits);
    // There is nobody to be asked for names.
    spec.resolv_conf = None;
}

fn start(
    executor: &Executor,
    lease: Lease,
    image: &Found,
    request: ContainerRequest,
    stop: &Stop,
) -> Result<Program, Error> {
    let process = process(&image.config.config, &request)?;
    let identity = accounts(executor.store(), &image.layers)?.resolve(&process.user)?;
    if executor.options().single_id && (identity.uid, identity.gid) != (0, 0) {
        return Err(Error::OneId { user: process.user });
    }
    let mounts = volume::mounts(&request.volumes, &request.tmpfs)?;
    let snapshotter = executor.snapshotter()?;
    let root = snapshotter.prepare(&lease, &image.layers, stop)?;
    make_cwd(&root, &process.cwd)?;
    let fd = root
        .root()
        .try_clone_to_owned()
        .map_err(Error::io("duplicate", "a descriptor"))?;
    let root_fs = if root.is_mount() {
        RootFs::Detached(fd)
    } else {
        RootFs::Directory(fd)
    };
    let mut spec = spec(root_fs, process, identity, request.network);
    spec.cgroup = cgroup_of(&request.cgroup_parent, &request.limits, request.processes)?;
    // A volume over one of these files is what the caller wants to be seen there.
    let covered = |path: &str| mounts.iter().any(|mount| mount.target == Path::new(path));
    if covered("/etc/hosts") {
        spec.hosts = None;
    }
    if covered("/etc/resolv.conf") {
        spec.resolv_conf = None;
    }
    spec.mounts = mounts;
    spec.root_readonly = request.readonly;
    spec.stdio = match request.stdio {
        ProgramStdio::Streams {
            stdin,
            stdout,
            stderr,
        } => Stdio::Streams {
            stdin,
            stdout,
            stderr,
        },
        ProgramStdio::Terminal(Terminal { rows, cols }) => Stdio::Terminal { rows, cols },
    };
    if request.confined {
        confine(&mut spec);
    }
    executor.emulate(&mut spec, &image.platform)?;
    let running = kiln_sandbox::spawn(spec)?;
    Ok(Program {
        running,
        _root: root,
        _lease: lease,
    })
}

fn spec(root: RootFs, process: Process, identity: Identity, network: NetworkMode) -> Spec {
    let mut spec = Spec::new(root, process.args);
    let own = |(name, value): (String, String)| (OsString::from(name), OsString::from(value));
    spec.env = process.env.into_iter().map(own).collect();
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        spec.env.push(("HOME".into(), identity.home.into()));
    }
    spec.cwd = PathBuf::from(process.cwd);
    spec.user = User {
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups,
    };
    spec.network = match network {
        NetworkMode::None => Network::None,
        NetworkMode::Default | NetworkMode::Host => Network::Host,
    };
    spec.resolv_conf = Some(hostfiles::resolv_conf());
    spec.hosts = Some(hostfiles::hosts(&process.hostname, &[]));
    spec.hostname = Some(process.hostname);
    spec
}

impl Program {
    /// The master side of its terminal, if it was asked for.
    ///
    /// Reading from it fails with `EIO` once every process has closed the other side.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.running.terminal()
    }

    /// Tells its terminal a size; without a terminal it does nothing.
    pub fn resize(&self, Terminal { rows, cols }: Terminal) -> Result<(), Error> {
        self.running
            .resize(rows, cols)
            .map_err(Error::io("resize", "the program's terminal"))
    }

    /// Sends a signal to the program, not to those that it started.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.running
            .signal(signal)
            .map_err(Error::io("send a signal to", "the program"))
    }

    /// Kills it with everything that it started.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.running
            .kill()
            .map_err(Error::io("kill", "the program"))
    }

    /// Blocks until all its processes are gone; returns its exit code, or 128 and its signal.
    pub fn wait(&mut self) -> Result<i32, Error> {
        Ok(self.running.wait()?.code())
    }

    /// Blocks until all its processes are gone, and tells a code from a signal.
    pub(crate) fn ended(&mut self) -> Result<Ended, Error> {
        Ok(match self.running.wait()? {
            Exit::Code(code) => Ended::Code(code),
            Exit::Signal(signal) => Ended::Signal(signal),
        })
    }

    /// Like [`Program::wait`], but returns `None` at once if some process is left.
    pub fn try_wait(&mut self) -> Result<Option<i32>, Error> {
        Ok(self.running.try_wait()?.map(Exit::code))
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.as_fd()
    }
}

impl Error {
    /// The code that `docker run` would exit with: 127 for a program that is not there, 126 for one
    /// that cannot be executed, 125 for everything else.
    pub fn program_exit_code(&self) -> u8 {
        match self {
            Error::Sandbox(error) => u8::try_from(error.exit_code()).unwrap_or(125),
            _ => 125,
        }
    }
}
