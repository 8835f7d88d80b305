//! Whoever called: programs that are started, and sockets that are connected to, in their name.
//!
//! Credential helpers speak to the session's bus, ssh uses the caller's keys, sockets open for the caller's groups.
//! A process that has become somebody else since, as in a user namespace, has another way to do it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};

/// A program and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// One without `/` is looked for in `PATH`.
    pub program: OsString,
    /// What follows.
    pub arguments: Vec<OsString>,
    /// Signals that a terminal sends are not for it; who drops it kills its whole group.
    pub own_group: bool,
}

impl CommandLine {
    /// A program with its arguments, in the terminal's foreground.
    pub fn new<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> CommandLine {
        let arguments = arguments.into_iter();
        CommandLine {
            program: program.as_ref().to_owned(),
            arguments: arguments.map(|one| one.as_ref().to_owned()).collect(),
            own_group: false,
        }
    }
}

/// Does things as whoever called.
pub trait Caller: fmt::Debug + Send + Sync {
    /// Starts a program with these standard streams: input, output, errors. Within a runtime.
    fn start(
        &self,
        line: &CommandLine,
        streams: [OwnedFd; 3],
    ) -> io::Result<Box<dyn CallersProcess>>;

    /// Connects to a socket.
    fn connect<'a>(&'a self, socket: &'a Path) -> BoxFuture<'a, io::Result<UnixStream>>;
}

/// A process that was started; dropping it kills it.
pub trait CallersProcess: Send {
    /// Returns how it ended, once it has.
    fn ended(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>>;
}

/// The standard streams of a process that is to be started, and this side of them.
#[derive(Debug)]
pub struct Pipes {
    /// For the process.
    pub theirs: [OwnedFd; 3],
    /// What it reads.
    pub stdin: Sender,
    /// What it writes.
    pub stdout: Receiver,
    /// What it tells people.
    pub stderr: Receiver,
}

impl Pipes {
    /// Makes three pipes. Within a runtime.
    pub fn new() -> io::Result<Pipes> {
        let (stdin, to_stdin) = io::pipe()?;
        let (from_stdout, stdout) = io::pipe()?;
        let (from_stderr, stderr) = io::pipe()?;
        Ok(Pipes {
            theirs: [stdin.into(), stdout.into(), stderr.into()],
            stdin: Sender::from_owned_fd(to_stdin.into())?,
            stdout: Receiver::from_owned_fd(from_stdout.into())?,
            stderr: Receiver::from_owned_fd(from_stderr.into())?,
        })
    }
}

/// This very process is the caller's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Directly;

impl Caller for Directly {
    fn start(
        &self,
        line: &CommandLine,
        streams: [OwnedFd; 3],
    ) -> io::Result<Box<dyn CallersProcess>> {
        let [stdin, stdout, stderr] = streams.map(Stdio::from);
        let mut command = tokio::process::Command::new(&line.program);
        command
            .args(&line.arguments)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true);
        if line.own_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let group = child
            .id()
            .filter(|_| line.own_group)
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Box::new(Own { child, group }))
    }

    fn connect<'a>(&'a self, socket: &'a Path) -> BoxFuture<'a, io::Result<UnixStream>> {
        Box::pin(UnixStream::connect(socket))
    }
}

/// A child of this process.
struct Own {
    child: tokio::process::Child,
    /// The group that it leads, until it was waited for.
    group: Option<Pid>,
}

impl CallersProcess for Own {
    fn ended(&mut self) -> BoxFuture<'_, io::Result<ExitStatus>> {
        Box::pin(async {
            let status = self.child.wait().await;
            self.group = None;
            status
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Nobody is left where this fails.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}
