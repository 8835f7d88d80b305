//! The first process of a sandbox: sets it up, starts the program, reaps, and ends the sandbox.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::{ForkResult, Pid};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;

use crate::apply::{self, Outcome, Terminal};
use crate::bytestring::ByteString;
use crate::error::Phase;
use crate::listener::Listener;
use crate::plan::{Format, Plan};
use crate::porter;
use crate::process::{self, Streams};
use crate::wire::{self, Fault, Reply, Request};

/// The name under which this binary is the first process of a sandbox.
pub(crate) const NAME: &CStr = c"kiln-sandbox-init";

/// Becomes the first process of a sandbox and never returns, if that is what this process is for; takes
/// over what [`crate::userns::enter`] left for it otherwise.
///
/// To be called first in `main`, while the process has one thread; it costs a look at `argv[0]` and the environment.
pub fn init_if_requested() {
    let requested = std::env::args_os()
        .next()
        .is_some_and(|name| name.as_bytes() == NAME.to_bytes());
    if requested {
        let failed = be_init().is_err();
        std::process::exit(if failed { 125 } else { 0 });
    }
    porter::adopt();
}

/// Errors only if the caller cannot be told of anything.
fn be_init() -> io::Result<()> {
    // Nobody in the sandbox may look into this process: it is root, and this is the host's binary.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    close_from(3, CloseHow::Now)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let Some((plan, attached)) = wire::receive::<Plan>(socket.as_fd())? else {
        return Ok(());
    };
    let fds = attached.fds.into_iter().map(Some).collect();
    match start(&plan, &attached.bytes, fds, socket.as_fd()) {
        Ok(Started {
            child,
            children,
            listener,
            master,
            stubs,
            notes,
        }) => {
            let reply = Reply::Started { stubs, notes };
            let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
            wire::send(socket.as_fd(), &reply, &fds)?;
            drop(fds);
            drop(master);
            watch(child, &children, listener, socket.as_fd())
        }
        Err(fault) => wire::send(socket.as_fd(), &Reply::Failed(fault), &[]),
    }
}

struct Started {
    child: Pid,
    children: SignalFd,
    listener: Listener,
    master: Option<OwnedFd>,
    stubs: Vec<(ByteString, bool)>,
    notes: Vec<String>,
}

fn start(
    plan: &Plan,
    bytes: &[u8],
    mut fds: Vec<Option<OwnedFd>>,
    socket: BorrowedFd<'_>,
) -> Result<Started, Fault> {
    let failed = |phase| move |error: io::Error| Fault::of(phase, &error);
    apply::enter(&plan.namespaces)?;
    let Outcome {
        stubs,
        notes,
        terminal,
    } = apply::apply(&plan.steps, bytes, &mut fds)?;
    let (master, streams) = match terminal {
        Some(Terminal { master, slave }) => (Some(master), Streams::Terminal(slave)),
        None => {
            let mut given = |at: usize| fds.get_mut(at).and_then(Option::take);
            (
                None,
                Streams::Given(plan.process.streams.map(|at| at.and_then(&mut given))),
            )
        }
    };
    let mut interpreter = |format: &Format| fds.get_mut(format.interpreter).and_then(Option::take);
    let emulator = plan.process.emulator.as_ref();
    let emulator = emulator.and_then(|format| Some((format, interpreter(format)?)));
    // Whatever else came is not wanted by anybody.
    drop(fds);
    let null = open_null().map_err(failed(Phase::Stdio))?;
    detach_streams(null.as_fd()).map_err(failed(Phase::Stdio))?;

    let (ready, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| Fault::of(Phase::Fork, &error.into()))?;
    let asked = match plan.process.listen {
        true => {
            let pair = rustix::net::socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            );
            Some(pair.map_err(|error| Fault::of(Phase::Fork, &error.into()))?)
        }
        false => None,
    };
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    mask.thread_block()
        .map_err(|error| Fault::of(Phase::Fork, &error.into()))?;
    let children = SignalFd::with_flags(&mask, flags)
        .map_err(|error| Fault::of(Phase::Fork, &error.into()))?;

    // SAFETY: this process has one thread, so the child may do whatever its parent may.
    let child = match unsafe { nix::unistd::fork() } {
        Err(error) => return Err(Fault::of(Phase::Fork, &error.into())),
        Ok(ForkResult::Child) => {
            let emulator = emulator.as_ref().map(|(format, fd)| (*format, fd.as_fd()));
            let listener = asked.as_ref().map(|(_, theirs)| theirs.as_fd());
            let null = null.as_fd();
            let process = &plan.process;
            let fault = process::become_program(process, bytes, &streams, emulator, null, listener);
            let text = serde_json::to_vec(&fault).unwrap_or_default();
            // Nobody is left to tell if this fails; the parent then sees the end of the pipe.
            let _ = rustix::io::write(&report, &text);
            std::process::exit(125)
        }
        Ok(ForkResult::Parent { child }) => child,
    };
    drop((report, streams, emulator));
    let mut listener = match asked {
        None => Listener::deaf(),
        Some((ours, theirs)) => {
            drop(theirs);
            // Nothing comes from a child that fails before; it tells why below.
            let received = wire::receive::<()>(ours.as_fd()).map_err(failed(Phase::Seccomp))?;
            Listener::new(received.and_then(|(_, attached)| attached.fds.into_iter().next()))
        }
    };
    await_execution(ready.as_fd(), socket, &mut listener)?;
    listener.begin(child);
    Ok(Started {
        child,
        children,
        listener,
        master,
        stubs,
        notes,
    })
}

/// Waits until the child's end of the pipe is closed, which executing does, or tells a failure.
///
/// On the way there it asks to be the user that it is to be.
fn await_execution(
    ready: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    listener: &mut Listener,
) -> Result<(), Fault> {
    let failed = |error: rustix::io::Errno| Fault::of(Phase::Fork, &error.into());
    loop {
        let mut wanted = vec![
            PollFd::from_borrowed_fd(ready, PollFlags::IN),
            PollFd::from_borrowed_fd(socket, PollFlags::RDHUP),
        ];
        let questions = listener.fd();
        wanted.extend(questions.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match rustix::event::poll(&mut wanted, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(failed(error)),
        }
        if !wanted[0].revents().is_empty() {
            break;
        }
        if wanted[1]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::RDHUP)
        {
            // The caller is gone, and with this process everything in the sandbox is.
            std::process::exit(0);
        }
        let question = wanted.get(2).map_or(PollFlags::empty(), PollFd::revents);
        drop(wanted);
        listener.attend(question);
    }
    let mut text = [0; 4096];
    match rustix::io::read(ready, &mut text).map_err(failed)? {
        0 => Ok(()),
        length => Err(serde_json::from_slice(&text[..length])
            .unwrap_or_else(|error| Fault::of(Phase::Fork, &error.into()))),
    }
}

/// Reaps what ends, passes signals on, and returns when the program or the caller is gone.
fn watch(
    child: Pid,
    children: &SignalFd,
    mut listener: Listener,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    loop {
        let mut wanted = vec![
            PollFd::new(children, PollFlags::IN),
            PollFd::from_borrowed_fd(socket, PollFlags::IN),
        ];
        let questions = listener.fd();
        wanted.extend(questions.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match rustix::event::poll(&mut wanted, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, asked] = [0, 1].map(|at: usize| !wanted[at].revents().is_empty());
        let question = wanted.get(2).map_or(PollFlags::empty(), PollFd::revents);
        drop(wanted);
        listener.attend(question);
        if ended {
            // One signal may stand for many children: drain it, then reap all.
            while children.read_signal()?.is_some() {}
            if let Some(ended) = reap(child)? {
                let reply = match ended {
                    WaitStatus::Signaled(_, signal, _) => {
                        Reply::Signaled(signal as i32, listener.heard())
                    }
                    WaitStatus::Exited(_, code) => Reply::Exited(code, listener.heard()),
                    _ => unreachable!("BUG: the program has not ended"),
                };
                return wire::send(socket, &reply, &[]);
            }
        }
        if asked {
            match wire::receive::<Request>(socket)? {
                None => return Ok(()),
                Some((Request::Signal(signal), _)) => {
                    // SAFETY: sending a signal touches no memory of this process. The child has
                    // not been reaped, so the number is still its own.
                    unsafe { libc::kill(child.as_raw(), signal) };
                }
            }
        }
    }
}

/// Reaps what has ended; returns how the program did, if it has.
fn reap(child: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(ended @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)))
                if pid == child =>
            {
                return Ok(Some(ended));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(None),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn open_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Lets go of the streams inherited from the caller.
pub(crate) fn detach_streams(null: BorrowedFd<'_>) -> io::Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}

/// What becomes of descriptors.
#[derive(Clone, Copy)]
pub(crate) enum CloseHow {
    Now,
    OnExec,
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32, how: CloseHow) -> io::Result<()> {
    close_between(first, u32::MAX, how)
}

/// Closes every descriptor from `first` to `last`, if there are any.
pub(crate) fn close_between(first: u32, last: u32, how: CloseHow) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    let flags = match how {
        CloseHow::Now => 0,
        CloseHow::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: with `Now`, it is called before any descriptor above the standard ones has an owner
    // in this process, or where no owner is ever dropped; with `OnExec`, owners notice nothing.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
