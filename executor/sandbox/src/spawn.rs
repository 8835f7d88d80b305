//! Starting a sandbox from a process that may have many threads.
//!
//! The first process is born into its pid namespace and executes this binary again at once. Until
//! then it shares the caller's memory, as in `posix_spawn`, and makes only system calls. The other
//! namespaces are its own business.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::cgroup::{self, Made};
use crate::error::Error;
use crate::listener::Heard;
use crate::mountfd::{self, Reach};
use crate::plan::{self, Handle, Host, Package};
use crate::running::Running;
use crate::spec::{Spec, Stub};
use crate::vfork::vfork;
use crate::wire::{self, Attached, Fault, Reply};
use crate::{init, own_binary, probe, seccomp};

/// Starts a process in a sandbox, and returns once its program runs.
///
/// It blocks for some milliseconds. Errors if the sandbox can't be set up or the program can't be
/// started; whatever was started for it is gone by then.
pub fn spawn(spec: Spec) -> Result<Running, Error> {
    let program = spec
        .args
        .first()
        .map(|arg| arg.to_string_lossy().into_owned());
    let cwd = spec.cwd.clone();
    let host = Host {
        cgroup2: probe::cgroup2(),
        filter: seccomp::filter(),
        hierarchies: cgroup::here,
    };
    let Package {
        plan,
        bytes,
        handles,
        nodev,
        cgroup,
    } = plan::plan(spec, host)?;
    let fds = handles
        .into_iter()
        .map(|handle| prepare(handle, nodev))
        .collect::<Result<Vec<_>, _>>()?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();

    let cgroup = cgroup.as_ref().map(Made::new).transpose()?;
    let starting = |doing| move |source: io::Error| Error::Start { doing, source };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| starting("make a socket pair")(errno.into()))?;
    let (pid, pidfd) = start(own_binary::open()?, theirs.as_fd())
        .map_err(starting("make a process in a pid namespace of its own"))?;
    drop(theirs);
    let mut running = Running {
        pid,
        pidfd,
        socket: ours,
        terminal: None,
        stubs: Vec::new(),
        notes: Vec::new(),
        killed: false,
        exit: None,
        heard: Heard::EVERYTHING,
        cgroup,
    };
    // It waits for its plan, so that whatever it starts will be there, too.
    if let Some(cgroup) = &running.cgroup {
        let entered = cgroup.enter(running.pid());
        entered.map_err(starting("put the sandbox into its cgroup"))?;
    }

    // A failure to send is the failure of the receiver, which is told below.
    let sent = wire::send_with_bytes(running.socket.as_fd(), &plan, &bytes, &fds);
    match wire::receive::<Reply>(running.socket.as_fd()) {
        Ok(Some((Reply::Started { stubs, notes }, Attached { fds, .. }))) => {
            let stub = |(path, is_dir): (crate::bytestring::ByteString, bool)| Stub {
                path: PathBuf::from(path.as_os_str()),
                is_dir,
            };
            running.stubs = stubs.into_iter().map(stub).collect();
            running.notes = notes;
            running.terminal = fds.into_iter().next();
            Ok(running)
        }
        Ok(Some((Reply::Failed(fault), _))) => Err(error(fault, program.unwrap_or_default(), cwd)),
        Ok(Some((Reply::Exited(..) | Reply::Signaled(..), _)) | None) => {
            sent.map_err(starting("send the plan to the sandbox"))?;
            match running.wait() {
                Err(lost) => Err(lost),
                Ok(exit) => Err(Error::Lost {
                    how: format!("{exit:?}"),
                }),
            }
        }
        Err(source) => Err(starting("read the sandbox's answer")(source)),
    }
}

/// Readies a descriptor for its journey.
///
/// Binds are cloned here, since the kernel clones only mounts of one's own mount namespace.
fn prepare(handle: Handle, nodev: bool) -> Result<OwnedFd, Error> {
    let (cloned, target, readonly) = match handle {
        Handle::Stream(fd) => return Ok(fd),
        Handle::Detached {
            fd,
            target,
            readonly,
        } => (Ok(fd), target, readonly),
        Handle::Bind {
            fd,
            subpath,
            target,
            readonly,
        } => {
            let source = match subpath {
                Some(path) => mountfd::open_below(fd.as_fd(), &path),
                None => Ok(fd),
            };
            (
                source.and_then(|fd| mountfd::clone_tree(fd.as_fd())),
                target,
                readonly,
            )
        }
    };
    let mut attributes = MountAttrFlags::empty();
    if nodev {
        // A device node that came with an image would be the host's own disk. The devices that
        // steps may use are in the sandbox's /dev.
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    if readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let private = cloned.and_then(|mount| {
        mountfd::make_private(mount.as_fd(), Reach::Below, attributes)?;
        Ok(mount)
    });
    private.map_err(|source| Error::Source { target, source })
}

fn error(fault: Fault, program: String, cwd: PathBuf) -> Error {
    let source = io::Error::from_raw_os_error;
    match fault {
        Fault::Setup { phase, path, errno } => {
            let path = path.map(|path| PathBuf::from(path.as_os_str()));
            Error::Setup {
                phase,
                path,
                source: source(errno),
            }
        }
        Fault::Cwd { errno } => Error::Cwd {
            path: cwd,
            source: source(errno),
        },
        Fault::NotFound => Error::ProgramNotFound { program },
        Fault::NoInterpreter => Error::InterpreterNotFound { program },
        Fault::NotExecutable { errno } => Error::NotExecutable {
            program,
            source: source(errno),
        },
    }
}

/// What the child finds in the memory that it shares with its parent.
struct Birth {
    binary: RawFd,
    socket: RawFd,
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
    /// Why it could not execute; the only thing that it writes.
    errno: libc::c_int,
}

/// Makes a process in a new pid namespace that executes `binary` as a sandbox's first process,
/// with `socket` as its standard input.
fn start(binary: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<(Pid, OwnedFd)> {
    let mut birth = Birth {
        binary: binary.as_raw_fd(),
        socket: socket.as_raw_fd(),
        argv: [init::NAME.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        errno: 0,
    };
    // SAFETY: `be_born` makes only system calls, and `birth` is not touched before it has returned.
    let (pid, pidfd) = unsafe {
        vfork(
            libc::CLONE_NEWPID,
            be_born,
            (&raw mut birth).cast::<c_void>(),
        )
    }?;
    if birth.errno != 0 {
        let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
        rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED)?;
        return Err(io::Error::from_raw_os_error(birth.errno));
    }
    Ok((pid, pidfd))
}

/// The child between its birth and its execution.
extern "C" fn be_born(birth: *mut c_void) -> libc::c_int {
    // SAFETY: `start` passes a pointer to a `Birth` that lives until this process has executed or
    // exited, and does not touch it meanwhile. All pointers in it are null-terminated C strings
    // and arrays. Only system calls follow: `dup2` on distinct descriptors, which clears the
    // close-on-exec flag, and `execveat` of an opened file.
    unsafe {
        let birth = &mut *birth.cast::<Birth>();
        if libc::dup2(birth.socket, 0) == 0 {
            libc::syscall(
                libc::SYS_execveat,
                birth.binary,
                c"".as_ptr(),
                birth.argv.as_ptr(),
                birth.envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        birth.errno = *libc::__errno_location();
        libc::_exit(127)
    }
}
