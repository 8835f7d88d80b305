//! A process that runs in a sandbox, seen from outside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::cgroup::Made;
use crate::error::Error;
use crate::listener::Heard;
use crate::spec::Stub;
use crate::wire::{self, Reply, Request};

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Whether it returned 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// The code that a shell would show: a signal counts from 128.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// A started process and everything that it started.
///
/// Its descriptor ([`AsFd`]) is readable once all of them are gone. Dropping it kills them and
/// waits until they are gone, so that nobody writes to the root any more.
#[derive(Debug)]
pub struct Running {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) stubs: Vec<Stub>,
    pub(crate) notes: Vec<String>,
    pub(crate) killed: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) heard: Heard,
    /// Removed after everything in it.
    pub(crate) cgroup: Option<Made>,
}

impl Running {
    /// The sandbox's first process, as the caller's pid namespace numbers it.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The mount points that were made in the root, parents first.
    pub fn stubs(&self) -> &[Stub] {
        &self.stubs
    }

    /// What this host did not allow and what was done instead, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What was heard until it ended, where the spec asks to listen; all that may be before.
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// Whether the kernel ended something in the sandbox since its cgroup had no more memory.
    pub fn out_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Made::out_of_memory)
    }

    /// The terminal's master side, if the spec asked for a terminal.
    ///
    /// Reading from it fails with `EIO` once every process has closed the other side.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Tells the terminal its size; without a terminal it does nothing.
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => wire::set_size(terminal.as_fd(), rows, cols),
            None => Ok(()),
        }
    }

    /// Sends a signal to the process, not to those that it started.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match wire::send(self.socket.as_fd(), &Request::Signal(signal), &[]) {
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Ok(()),
            other => other,
        }
    }

    /// Kills every process in the sandbox; [`Running::wait`] tells when they are gone.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.killed = true;
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Blocks until every process in the sandbox is gone, and tells how the first ended.
    ///
    /// After [`Running::kill`] that is signal 9, unless the process was done before.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.reap(WaitIdOptions::EXITED)? {
                return Ok(exit);
            }
        }
    }

    /// Like [`Running::wait`], but returns `None` at once if some process is left.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, Error> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn reap(&mut self, options: WaitIdOptions) -> Result<Option<Exit>, Error> {
        if let Some(exit) = self.exit {
            return Ok(Some(exit));
        }
        let status = match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => status,
            Ok(None) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => {
                return Err(Error::Start {
                    doing: "wait for the sandbox",
                    source: error.into(),
                });
            }
        };
        // The answer was queued before the first process ended, and outlives it.
        let answer = wire::receive::<Reply>(self.socket.as_fd());
        let exit = match answer {
            Ok(Some((Reply::Exited(code, heard), _))) => {
                self.heard = heard;
                Exit::Code(code)
            }
            Ok(Some((Reply::Signaled(signal, heard), _))) => {
                self.heard = heard;
                Exit::Signal(signal)
            }
            _ if self.killed => Exit::Signal(libc::SIGKILL),
            _ => {
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => format!("signal {signal}"),
                    _ => "unknown status".to_owned(),
                };
                self.exit = Some(Exit::Signal(libc::SIGKILL));
                return Err(Error::Lost { how });
            }
        };
        self.exit = Some(exit);
        Ok(Some(exit))
    }
}

impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exit.is_none() && self.kill().is_ok() {
            // Nobody is left to tell about a failure, and the processes have got their signal.
            let _ = self.wait();
        }
    }
}
