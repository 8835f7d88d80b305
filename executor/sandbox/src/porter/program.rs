//! Programs that the porter starts, seen from kiln.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::{Answer, Order, Request, answer, ask, confused};
use crate::bytestring::ByteString;
use crate::wire;

/// A program to be started with the ids, groups, mounts and environment of whoever called kiln.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// One without `/` is looked for in `PATH`.
    pub name: OsString,
    /// What follows the name.
    pub arguments: Vec<OsString>,
    /// What its environment has beside the caller's, or instead.
    pub variables: Vec<(OsString, OsString)>,
    /// Where it starts, if not where kiln did.
    pub directory: Option<PathBuf>,
    /// Signals that a terminal sends to kiln are not for it; who kills it kills its group.
    pub own_group: bool,
}

/// A program that was started. Dropping it kills it; so does the end of kiln, a second later.
///
/// Its descriptor ([`AsFd`]) is readable once it has ended.
#[derive(Debug)]
pub struct Started {
    channel: OwnedFd,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts it with these standard streams: input, output, errors.
    pub fn start(&self, streams: &[OwnedFd; 3]) -> io::Result<Started> {
        let request = Request::Start {
            name: ByteString::of(&self.name),
            arguments: self.arguments.iter().map(ByteString::of).collect(),
            variables: self
                .variables
                .iter()
                .map(|(name, value)| (ByteString::of(name), ByteString::of(value)))
                .collect(),
            directory: self.directory.as_ref().map(ByteString::of),
            own_group: self.own_group,
        };
        let channel = ask(&request, &streams.each_ref().map(AsFd::as_fd))?;
        match answer(&channel)?.0 {
            Answer::Started => Ok(Started {
                channel,
                ended: None,
            }),
            Answer::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            Answer::Connected | Answer::Ended(_) => Err(confused()),
        }
    }
}

impl Started {
    /// Blocks until it has ended, and tells how.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        match answer(&self.channel)?.0 {
            Answer::Ended(status) => {
                let status = ExitStatus::from_raw(status);
                self.ended = Some(status);
                Ok(status)
            }
            Answer::Started | Answer::Connected | Answer::Failed(_) => Err(confused()),
        }
    }

    /// Kills it; [`Started::wait`] tells when it is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        match self.ended {
            Some(_) => Ok(()),
            None => wire::send(self.channel.as_fd(), &Order::Kill, &[]),
        }
    }
}

impl AsFd for Started {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A porter that is gone has taken it along.
        let _ = self.kill();
    }
}
