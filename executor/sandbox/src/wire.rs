//! What travels between the caller and the first process of the sandbox.
//!
//! The socket is `SOCK_SEQPACKET`. A message is a header packet (lengths of its JSON and of its
//! bytes, number of descriptors), then packets of at most [`CHUNK`] bytes and [`FDS`] descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bytestring::ByteString;
use crate::error::Phase;
use crate::listener::Heard;

/// A socket buffer holds at least a few of these on every host.
const CHUNK: usize = 32 << 10;
/// The kernel's `SCM_MAX_FD`.
const FDS: usize = 253;
/// More than any real message, and little enough to be allocated.
const LIMIT: usize = 64 << 20;
const HEADER: usize = 12;

/// From the sandbox to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The process runs; a terminal's master comes with it.
    Started {
        stubs: Vec<(ByteString, bool)>,
        notes: Vec<String>,
    },
    Failed(Fault),
    /// It is gone; what was heard of the sandbox comes with it.
    Exited(i32, Heard),
    Signaled(i32, Heard),
}

/// From the caller to the sandbox, after the plan.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Signal(i32),
}

/// A failure on its way out of the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Fault {
    Setup {
        phase: Phase,
        path: Option<ByteString>,
        errno: i32,
    },
    Cwd {
        errno: i32,
    },
    NotFound,
    NoInterpreter,
    NotExecutable {
        errno: i32,
    },
}

impl Fault {
    pub(crate) fn at(phase: Phase, path: &[u8], error: &io::Error) -> Fault {
        Fault::Setup {
            phase,
            path: Some(ByteString(path.to_vec())),
            errno: errno(error),
        }
    }

    pub(crate) fn of(phase: Phase, error: &io::Error) -> Fault {
        Fault::Setup {
            phase,
            path: None,
            errno: errno(error),
        }
    }
}

pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Sends one message with its descriptors.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with_bytes(socket, message, &[], fds)
}

/// Sends one message with bytes beside it.
pub(crate) fn send_with_bytes<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut body = serde_json::to_vec(message)?;
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&length(body.len())?.to_ne_bytes());
    header[4..8].copy_from_slice(&length(bytes.len())?.to_ne_bytes());
    header[8..].copy_from_slice(&length(fds.len())?.to_ne_bytes());
    body.extend_from_slice(bytes);

    packet(socket, &header, &[])?;
    let mut fds = fds.chunks(FDS);
    for chunk in body.chunks(CHUNK) {
        packet(socket, chunk, fds.next().unwrap_or_default())?;
    }
    for rest in fds {
        packet(socket, &[0], rest)?;
    }
    Ok(())
}

fn length(length: usize) -> io::Result<u32> {
    if length > LIMIT {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    u32::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}

fn packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    loop {
        match rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// What came with a message.
pub(crate) struct Attached {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Receives one message; `None` if the other side has closed the socket.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Attached)>> {
    let mut fds = Vec::new();
    let mut header = [0; HEADER];
    match read(socket, &mut header, &mut fds)? {
        0 => return Ok(None),
        HEADER => {}
        _ => return Err(malformed("a header was expected")),
    }
    let field = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_ne_bytes(bytes) as usize
    };
    let (body_len, bytes_len, fd_count) = (field(0), field(4), field(8));
    if body_len > LIMIT || bytes_len > LIMIT || fd_count > LIMIT {
        return Err(malformed("a message is too long"));
    }
    let mut body = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while body.len() < body_len + bytes_len {
        let count = read(socket, &mut chunk, &mut fds)?;
        if count == 0 {
            return Err(malformed("a message ends early"));
        }
        body.extend_from_slice(&chunk[..count]);
    }
    while fds.len() < fd_count {
        if read(socket, &mut chunk, &mut fds)? == 0 {
            return Err(malformed("descriptors are missing"));
        }
    }
    let bytes = body.split_off(body_len);
    let message = serde_json::from_slice(&body)?;
    Ok(Some((message, Attached { bytes, fds })))
}

fn read(socket: BorrowedFd<'_>, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(into)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(0),
            Err(error) => return Err(error.into()),
            Ok(received) => break received,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(malformed("a packet was cut"));
    }
    Ok(received.bytes)
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Sets the size of a terminal.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal.as_fd(), size)?)
}
