//! The porter: a process of kiln's own that stays outside of the user namespace that kiln enters.
//!
//! Some programs must run as whoever called kiln: credential helpers that speak to the session's bus, podman,
//! which makes a user namespace of its own, ssh with its keys. So [`crate::userns::enter`] leaves a copy of this
//! process behind, with the caller's ids, groups, mounts and environment, which waits for requests on a socket:
//! [`Program::start`] and [`connect`]. Nobody else can ask it: the socket is kiln's alone, and closed in whatever
//! kiln executes. It ends with kiln, however that ends, and takes along what it started.

mod program;
mod serve;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::unistd::ForkResult;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::bytestring::ByteString;
use crate::wire;

pub use program::{Program, Started};

/// The variable that tells the executed process which descriptor is its socket, as `FD:PID`. Children inherit
/// the variable, not the descriptor; they have other numbers.
pub(crate) const VARIABLE: &str = "KILN_PORTER";

/// This process's way to its porter.
static OURS: OnceLock<Mutex<OwnedFd>> = OnceLock::new();

/// What is asked over the socket. A channel comes with it, for all that is to be said about it.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// The three standard streams come along.
    Start {
        name: ByteString,
        arguments: Vec<ByteString>,
        variables: Vec<(ByteString, ByteString)>,
        directory: Option<ByteString>,
        own_group: bool,
    },
    Connect {
        path: ByteString,
    },
}

/// What is said over a channel to the porter. Closing it means that kiln is gone.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Kill,
}

/// What is said over a channel to kiln.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Started,
    /// The connection comes along.
    Connected,
    Failed(i32),
    /// The status, as wait(2) has it.
    Ended(i32),
}

/// Leaves a porter behind; returns the socket that it listens to.
///
/// The process must have one thread.
pub(crate) fn leave() -> io::Result<OwnedFd> {
    let (ours, theirs) = socket_pair()?;
    // SAFETY: this process has one thread, so that the child may do whatever its parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => {
            drop(ours);
            serve::serve(theirs)
        }
        ForkResult::Parent { .. } => Ok(ours),
    }
}

/// Takes over the socket that the variable names, if this is the process that it was left for.
///
/// To be called while the process has one thread, before it opens anything.
pub(crate) fn adopt() {
    let Some(socket) = std::env::var(VARIABLE).ok().and_then(|text| named(&text)) else {
        return;
    };
    // SAFETY: it is open, since it could be asked about, and was left open for this process, which has opened
    // nothing yet that could own it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // It is taken over once.
    let _ = OURS.set(Mutex::new(socket));
}

/// The socket that a value of the variable names, closed on execution from now on.
fn named(text: &str) -> Option<RawFd> {
    let (fd, pid) = text.split_once(':')?;
    if pid.parse() != Ok(std::process::id()) {
        return None;
    }
    let number: RawFd = fd.parse().ok().filter(|fd| *fd > 2)?;
    // SAFETY: it is only asked about, and the kernel refuses a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let kind = rustix::net::sockopt::socket_type(fd).ok()?;
    if kind != SocketType::SEQPACKET {
        return None;
    }
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).ok()?;
    Some(number)
}

/// Whether this process has a porter: it entered a user namespace, and is not the user who called any more.
pub fn is_there() -> bool {
    OURS.get().is_some()
}

/// Connects to a socket with the ids and groups of whoever called kiln.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let path = ByteString::of(path);
    let channel = ask(&Request::Connect { path }, &[])?;
    let (answer, mut fds) = answer(&channel)?;
    match (answer, fds.pop()) {
        (Answer::Connected, Some(fd)) => Ok(fd.into()),
        (Answer::Failed(errno), _) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(confused()),
    }
}

/// Sends a request; returns the channel that its answers come over.
fn ask(request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket_pair()?;
    let mut all = vec![theirs.as_fd()];
    all.extend_from_slice(fds);
    wire::send(socket()?.as_fd(), request, &all)?;
    Ok(ours)
}

/// The socket, for one message at a time.
fn socket() -> io::Result<MutexGuard<'static, OwnedFd>> {
    let socket = OURS.get().ok_or(io::ErrorKind::NotConnected)?;
    Ok(socket.lock().unwrap_or_else(PoisonError::into_inner))
}

fn answer(channel: &OwnedFd) -> io::Result<(Answer, Vec<OwnedFd>)> {
    match wire::receive(channel.as_fd())? {
        Some((answer, attached)) => Ok((answer, attached.fds)),
        None => Err(io::Error::other(
            "the process that kiln left outside of its user namespace is gone",
        )),
    }
}

fn confused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an unexpected answer")
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_socket_is_for_the_process_that_it_was_left_for() {
        let (ours, _theirs) = socket_pair().unwrap();
        let (fd, pid) = (ours.as_raw_fd(), std::process::id());
        assert_eq!(named(&format!("{fd}:{pid}")), Some(fd));
        assert_eq!(named(&format!("{fd}:{}", pid + 1)), None);
        assert_eq!(named(&format!("1:{pid}")), None);
        assert_eq!(named(&format!("1000000:{pid}")), None);
        assert_eq!(named("x"), None);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(named(&format!("{}:{pid}", file.as_raw_fd())), None);
    }
}
