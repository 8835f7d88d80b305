//! The porter's own life: it waits, starts what is asked for, and tells how that ends.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal as NixSignal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};

use super::{Answer, Order, Request, VARIABLE};
use crate::init::{self, CloseHow};
use crate::process;
use crate::userns;
use crate::wire;

/// How long what was started may go on without kiln. Its streams have ended too, and a program that cleans up after
/// itself leaves less behind than one that is killed.
const GRACE: Duration = Duration::from_secs(1);

/// A program that runs.
struct Running {
    child: Child,
    /// Readable once it has ended.
    gone: OwnedFd,
    /// Who asked for it; nobody any more once kiln is gone.
    channel: Option<OwnedFd>,
    own_group: bool,
    /// When it is killed.
    until: Option<Instant>,
}

/// Never returns: this process is nothing but the porter.
pub(super) fn serve(socket: OwnedFd) -> ! {
    // Whatever fails here, nobody is left to tell; kiln finds the socket closed.
    let code = match move_in(&socket).and_then(|socket| attend(&socket)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    std::process::exit(code)
}

/// Lets go of all that it inherited; returns the socket under another number.
fn move_in(socket: &OwnedFd) -> io::Result<OwnedFd> {
    // Root of a namespace with one id has the caller's own id outside.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"kiln-porter")?;
    // What a terminal tells kiln is kiln's to decide about: kiln's end is told by the socket.
    for signal in [
        NixSignal::SIGINT,
        NixSignal::SIGQUIT,
        NixSignal::SIGTERM,
        NixSignal::SIGHUP,
    ] {
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    }
    init::detach_streams(init::open_null()?.as_fd())?;
    // Whoever waits for the end of a pipe that kiln was given must not wait for this process.
    let kept = rustix::io::fcntl_dupfd_cloexec(socket, 3)?;
    let number = kept.as_raw_fd().cast_unsigned();
    init::close_between(3, number - 1, CloseHow::Now)?;
    init::close_between(number + 1, u32::MAX, CloseHow::Now)?;
    Ok(kept)
}

fn attend(socket: &OwnedFd) -> io::Result<()> {
    let mut running: Vec<Running> = Vec::new();
    let mut is_open = true;
    while is_open || !running.is_empty() {
        let [asked, told, ended] = wait(is_open.then_some(socket), &running)?;
        for (index, program) in running.iter_mut().enumerate() {
            if told.contains(&index) {
                program.hear();
            }
            if program.until.is_some_and(|until| until <= Instant::now()) {
                program.kill();
            }
        }
        let mut index = 0;
        running.retain_mut(|program| {
            index += 1;
            !(ended.contains(&(index - 1)) && program.end())
        });
        if !asked.is_empty() {
            match wire::receive::<Request>(socket.as_fd()) {
                Ok(Some((request, attached))) => running.extend(answer(request, attached.fds)),
                // What is malformed came of a kiln that was killed while it spoke.
                Ok(None) | Err(_) => is_open = false,
            }
        }
    }
    Ok(())
}

/// Waits until something happens: which of the socket, of the channels and of the programs are ready.
fn wait(socket: Option<&OwnedFd>, running: &[Running]) -> io::Result<[Vec<usize>; 3]> {
    enum Of {
        Socket,
        Channel(usize),
        Program(usize),
    }
    let mut watched = Vec::new();
    let mut polled = Vec::new();
    let mut watch = |of, fd| {
        watched.push(of);
        polled.push(PollFd::new(fd, PollFlags::IN));
    };
    if let Some(socket) = socket {
        watch(Of::Socket, socket);
    }
    for (index, program) in running.iter().enumerate() {
        watch(Of::Program(index), &program.gone);
        if let Some(channel) = &program.channel {
            watch(Of::Channel(index), channel);
        }
    }
    let next = running.iter().filter_map(|program| program.until).min();
    let patience = next.map(|next| {
        // Rounded up, so that it has passed afterwards.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    match rustix::event::poll(&mut polled, patience.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = [const { Vec::new() }; 3];
    for (of, polled) in watched.iter().zip(&polled) {
        if polled.revents().is_empty() {
            continue;
        }
        match of {
            Of::Socket => ready[0].push(0),
            Of::Channel(index) => ready[1].push(*index),
            Of::Program(index) => ready[2].push(*index),
        }
    }
    Ok(ready)
}

/// Does what is asked; returns what runs from now on.
fn answer(request: Request, fds: Vec<OwnedFd>) -> Option<Running> {
    let mut fds = fds.into_iter();
    let channel = fds.next()?;
    let (answer, sent, started) = match request {
        Request::Start { .. } => match start(&request, fds) {
            Ok(started) => (Answer::Started, None, Some(started)),
            Err(error) => (Answer::Failed(wire::errno(&error)), None, None),
        },
        Request::Connect { path } => match connect(path.as_os_str()) {
            Ok(socket) => (Answer::Connected, Some(socket), None),
            Err(error) => (Answer::Failed(wire::errno(&error)), None, None),
        },
    };
    let sent: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
    // Who is gone by now is seen on the channel, too.
    let _ = wire::send(channel.as_fd(), &answer, &sent);
    let (child, gone, own_group) = started?;
    Some(Running {
        child,
        gone,
        channel: Some(channel),
        own_group,
        until: None,
    })
}

fn start(
    request: &Request,
    streams: impl Iterator<Item = OwnedFd>,
) -> io::Result<(Child, OwnedFd, bool)> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let Request::Start {
        name,
        arguments,
        variables,
        directory,
        own_group,
    } = request
    else {
        return Err(invalid());
    };
    let streams: [OwnedFd; 3] = streams
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| invalid())?;
    let [stdin, stdout, stderr] = streams.map(Stdio::from);
    let mut command = Command::new(name.as_os_str());
    command
        .args(arguments.iter().map(|argument| argument.as_os_str()))
        // Of a kiln within a kiln.
        .env_remove(userns::MARKER)
        .env_remove(VARIABLE)
        .envs(
            variables
                .iter()
                .map(|(name, value)| (name.as_os_str(), value.as_os_str())),
        )
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    if let Some(directory) = directory {
        command.current_dir(Path::new(directory.as_os_str()));
    }
    if *own_group {
        command.process_group(0);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this process is as small as one can be, and std forks it anyway to give up its signals"
    )]
    // SAFETY: the closure makes system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            process::default_signals();
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(gone) => Ok((child, gone, *own_group)),
        Err(error) => {
            // One whose end nobody would see is not left alone; it may have ended by now.
            let _ = child.kill();
            let _ = child.wait();
            Err(error.into())
        }
    }
}

/// Connects without waiting: whoever does not take connections keeps nobody else waiting.
fn connect(path: &OsStr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

impl Running {
    /// Hears what kiln says, or that it is gone.
    fn hear(&mut self) {
        let Some(channel) = &self.channel else { return };
        match wire::receive::<Order>(channel.as_fd()) {
            Ok(Some((Order::Kill, _))) => self.kill(),
            Ok(None) | Err(_) => {
                self.channel = None;
                self.until.get_or_insert_with(|| Instant::now() + GRACE);
            }
        }
    }

    /// Its number is its own until it is waited for; it may have ended.
    fn kill(&mut self) {
        self.until = None;
        if self.own_group {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.kill();
    }

    /// Tells how it ended; whether it did.
    fn end(&mut self) -> bool {
        let Ok(Some(status)) = self.child.try_wait() else {
            return false;
        };
        if let Some(channel) = &self.channel {
            // Who does not want to know any more is gone.
            let _ = wire::send(channel.as_fd(), &Answer::Ended(status.into_raw()), &[]);
        }
        true
    }
}
