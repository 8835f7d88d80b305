//! The last steps to the program, taken by the process that becomes it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::process::{Gid, Rlimit, Uid};

use crate::bytestring::ByteString;
use crate::capabilities;
use crate::emulator;
use crate::error::Phase;
use crate::init::{self, CloseHow};
use crate::listener;
use crate::plan::{Format, Process};
use crate::seccomp;
use crate::wire::{self, Fault};

/// Where a program without `/` is looked up if its environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TERMINAL_MODE: u32 = 0o620;

/// The standard streams of the program.
pub(crate) enum Streams {
    Given([Option<OwnedFd>; 3]),
    Terminal(OwnedFd),
}

/// Becomes the program; returns only to tell why that was not possible.
///
/// `listener` is where the descriptor goes at which the program is heard.
pub(crate) fn become_program(
    process: &Process,
    bytes: &[u8],
    streams: &Streams,
    emulator: Option<(&Format, BorrowedFd<'_>)>,
    null: BorrowedFd<'_>,
    listener: Option<BorrowedFd<'_>>,
) -> Fault {
    match prepare(process, bytes, streams, emulator, null, listener) {
        Ok(()) => execute(process),
        Err(fault) => fault,
    }
}

fn prepare(
    process: &Process,
    bytes: &[u8],
    streams: &Streams,
    emulator: Option<(&Format, BorrowedFd<'_>)>,
    null: BorrowedFd<'_>,
    listener: Option<BorrowedFd<'_>>,
) -> Result<(), Fault> {
    let failed = |phase| move |error: io::Error| Fault::of(phase, &error);
    default_signals();
    connect(process, streams, null).map_err(failed(Phase::Stdio))?;
    for (resource, soft, hard) in &process.rlimits {
        let limit = |value: u64| (value != u64::MAX).then_some(value);
        let limits = Rlimit {
            current: limit(*soft),
            maximum: limit(*hard),
        };
        rustix::process::setrlimit(resource.kernel(), limits)
            .map_err(|error| Fault::at(Phase::Rlimit, resource.name().as_bytes(), &error.into()))?;
    }
    // Limits and terminals are for root of the caller's namespace; what follows is not.
    if let Some((format, interpreter)) = emulator {
        emulator::register(format, interpreter).map_err(failed(Phase::Emulator))?;
    }
    // As root first, since the user may not reach it; again as the user, whom a network file
    // system may trust more than root.
    let entered = rustix::process::chdir(process.cwd.as_bytes());

    if !process.all_capabilities {
        capabilities::bound().map_err(failed(Phase::Capabilities))?;
    }
    if let Some(listener) = listener {
        let fd = listener::install().ok();
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        wire::send(listener, &(), &fds).map_err(failed(Phase::Seccomp))?;
    }
    if let Some((start, length)) = process.filter {
        let filter = start
            .checked_add(length)
            .and_then(|end| bytes.get(start..end));
        let filter = filter.ok_or_else(|| Fault::of(Phase::Seccomp, &Errno::INVAL.into()))?;
        seccomp::install(filter).map_err(failed(Phase::Seccomp))?;
    }
    become_user(process).map_err(failed(Phase::User))?;
    let limited = if process.all_capabilities {
        capabilities::raise()
    } else {
        capabilities::reduce()
    };
    limited.map_err(failed(Phase::Capabilities))?;

    if entered.is_err() {
        rustix::process::chdir(process.cwd.as_bytes()).map_err(|error| Fault::Cwd {
            errno: error.raw_os_error(),
        })?;
    }
    // A directory outside the root, reached through a descriptor that somebody left open, has no
    // path here.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => {}
        Ok(_) => {
            return Err(Fault::Cwd {
                errno: libc::ENOENT,
            });
        }
        Err(error) => {
            return Err(Fault::Cwd {
                errno: error.raw_os_error(),
            });
        }
    }
    init::close_from(3, CloseHow::OnExec).map_err(failed(Phase::Stdio))
}

/// Lets writes beyond the limit of file sizes fail with an error, in place of a signal that ends this process.
///
/// Steps get the default back.
pub fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal};

    // SAFETY: ignoring a signal runs no code of this process.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

pub(crate) fn default_signals() {
    /// The kernel's `sigaction` of 64-bit machines: the default action is all zeros.
    const DEFAULT: [u64; 4] = [0; 4];
    const SET_BYTES: usize = 8;
    for signal in 1..=64 {
        // By the system call, since the library keeps two signals for itself that may have been
        // inherited ignored as well.
        // SAFETY: the structure outlives the call and is as long as the kernel reads; the default
        // action runs no code of this process. It is refused for the two signals without another.
        let _ = unsafe {
            let none = std::ptr::null::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                none,
                SET_BYTES,
            )
        };
    }
    // It fails only for a mask that is not one.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

fn connect(process: &Process, streams: &Streams, null: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    let owner = Some(Uid::from_raw(process.uid));
    let fds = match streams {
        Streams::Terminal(slave) => {
            rustix::process::ioctl_tiocsctty(slave)?;
            rustix::fs::fchmod(slave, Mode::from_raw_mode(TERMINAL_MODE))?;
            if process.uid != 0 {
                rustix::fs::fchown(slave, owner, None)?;
            }
            [slave.as_fd(); 3]
        }
        Streams::Given(fds) => {
            for fd in fds.iter().flatten() {
                let stat = rustix::fs::fstat(fd)?;
                if FileType::from_raw_mode(stat.st_mode).is_fifo() && process.uid != 0 {
                    // A pipe that others own can still be used, only not be opened again.
                    let _ = rustix::fs::fchown(fd, owner, None);
                }
            }
            [0, 1, 2].map(|at: usize| fds[at].as_ref().map_or(null, AsFd::as_fd))
        }
    };
    rustix::stdio::dup2_stdin(fds[0])?;
    rustix::stdio::dup2_stdout(fds[1])?;
    rustix::stdio::dup2_stderr(fds[2])?;
    Ok(())
}

fn become_user(process: &Process) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    let groups: Vec<Gid> = process
        .groups
        .iter()
        .map(|group| Gid::from_raw(*group))
        .collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A user namespace with one id has no other groups, and does not let go of the caller's.
        Err(Errno::PERM) if setgroups_denied() => {}
        Err(Errno::INVAL) if setgroups_denied() => {}
        other => other?,
    }
    if process.all_capabilities {
        rustix::thread::set_keep_capabilities(true)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn setgroups_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

fn execute(process: &Process) -> Fault {
    let invalid = || Fault::NotExecutable {
        errno: libc::EINVAL,
    };
    let c_strings = |all: &[ByteString]| -> Option<Vec<CString>> {
        all.iter().map(ByteString::to_c_string).collect()
    };
    let (Some(args), Some(env)) = (c_strings(&process.args), c_strings(&process.env)) else {
        return invalid();
    };
    let Some(program) = process.args.first().map(ByteString::as_bytes) else {
        return invalid();
    };
    if program.contains(&b'/') {
        return refusal(&args[0], execve(&args[0], &args, &env));
    }
    if program.is_empty() {
        return Fault::NotFound;
    }
    let path = process
        .env
        .iter()
        .find_map(|one| one.as_bytes().strip_prefix(b"PATH="));
    let mut denied = None;
    for dir in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { b".".as_slice() } else { dir };
        let Ok(candidate) = CString::new([dir, b"/", program].concat()) else {
            continue;
        };
        match execve(&candidate, &args, &env) {
            Errno::NOTDIR => {}
            Errno::ACCESS if is_dir(&candidate) => {}
            Errno::ACCESS => denied = Some(Errno::ACCESS),
            errno => match refusal(&candidate, errno) {
                Fault::NotFound => {}
                fault => return fault,
            },
        }
    }
    match denied {
        Some(errno) => Fault::NotExecutable {
            errno: errno.raw_os_error(),
        },
        None => Fault::NotFound,
    }
}

fn execve(program: &CStr, args: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(program, args, env) {
        Err(error) => Errno::from_raw_os_error(error as i32),
    }
}

/// Tells a missing program from one whose loader is missing: the kernel's answer is the same.
fn refusal(program: &CStr, errno: Errno) -> Fault {
    match errno {
        Errno::NOENT if rustix::fs::stat(program).is_ok() => Fault::NoInterpreter,
        Errno::NOENT | Errno::NOTDIR => Fault::NotFound,
        errno => Fault::NotExecutable {
            errno: wire::errno(&errno.into()),
        },
    }
}

fn is_dir(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}
