//! Hearing of system calls that leave no trace on a disk where one id is mapped: what gives a file to root, and
//! what sets attributes.
//!
//! The program has a filter whose answer to these calls is to ask. The first process of the sandbox is asked,
//! remembers it, and always says to go on, so that a step notices nothing but some microseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::seccomp;

/// What was heard of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heard {
    /// Something asked for an owner to be changed.
    pub gave_owners: bool,
    /// Something asked for an extended attribute to be set or removed.
    pub set_attributes: bool,
}

impl Heard {
    /// What may have happened where nobody listened.
    pub const EVERYTHING: Heard = Heard {
        gave_owners: true,
        set_attributes: true,
    };

    fn and(self, other: Heard) -> Heard {
        Heard {
            gave_owners: self.gave_owners || other.gave_owners,
            set_attributes: self.set_attributes || other.set_attributes,
        }
    }
}

/// Calls that change owners.
const OWNERS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
];

/// `setxattrat` and `removexattrat` have these numbers on every architecture.
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;

/// Calls that change extended attributes.
const ATTRIBUTES: &[libc::c_long] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
];

/// Both of 32-bit programs on a 64-bit x86 kernel, as arch/x86/entry/syscalls/syscall_32.tbl numbers them.
#[cfg(target_arch = "x86_64")]
const I386: &[u32] = &[
    16, 95, 182, 198, 207, 212, 226, 227, 228, 235, 236, 237, 298, 463, 466,
];
#[cfg(not(target_arch = "x86_64"))]
const I386: &[u32] = &[];

/// Installs the filter in this thread, which has `CAP_SYS_ADMIN`; returns where its questions come.
///
/// Errors where the kernel has no such filters, or somebody outside listens already.
pub(crate) fn install() -> io::Result<OwnedFd> {
    let mut listed: Vec<u32> = OWNERS
        .iter()
        .chain(ATTRIBUTES)
        .filter_map(|call| u32::try_from(*call).ok())
        .collect();
    listed.sort_unstable();
    let filter = seccomp::asking(&listed, I386);
    let filter = filter.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    let fd = seccomp::install_with(&filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: with this flag the kernel returns a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Call {
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// The kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Question {
    id: u64,
    pid: u32,
    flags: u32,
    call: Call,
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call is made as if nobody had been asked.
const GO_ON: u32 = 1;

/// `_IOWR('!', number, size)`.
const fn request(number: u32, size: usize) -> u32 {
    3 << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number
}

const RECEIVE: u32 = request(0, size_of::<Question>());
const SEND: u32 = request(1, size_of::<Answer>());

/// Hears what asks, as long as anything in the sandbox may.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: Option<OwnedFd>,
    heard: Heard,
}

impl Listener {
    /// Listens; without a descriptor everything may happen unheard.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Listener {
        let heard = match fd {
            Some(_) => Heard::default(),
            None => Heard::EVERYTHING,
        };
        Listener { fd, heard }
    }

    /// For a sandbox of which nobody wants to hear.
    pub(crate) fn deaf() -> Listener {
        Listener {
            fd: None,
            heard: Heard::default(),
        }
    }

    /// Readable when something asks.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard
    }

    /// Nothing that may ask is left.
    pub(crate) fn close(&mut self) {
        self.fd = None;
    }

    /// Answers one question.
    pub(crate) fn answer(&mut self) {
        let Some(fd) = &self.fd else { return };
        let mut question = Question::default();
        // SAFETY: the request reads and writes one `Question`, whose layout is the kernel's and whose size
        // is in the request's number.
        let received = unsafe { libc::ioctl(fd.as_raw_fd(), RECEIVE as _, &raw mut question) };
        // Whoever asked may have been killed, and asks again if it was a signal.
        if received != 0 {
            return;
        }
        self.heard = self.heard.and(heard(&question.call));
        let mut answer = Answer {
            id: question.id,
            flags: GO_ON,
            ..Answer::default()
        };
        // SAFETY: the request reads one `Answer`, whose layout is the kernel's and whose size is in the
        // request's number. It fails only if whoever asked is gone.
        unsafe { libc::ioctl(fd.as_raw_fd(), SEND as _, &raw mut answer) };
    }
}

fn heard(call: &Call) -> Heard {
    let is_in = |calls: &[libc::c_long]| calls.contains(&libc::c_long::from(call.number));
    let heard = match seccomp::is_native(call.arch) {
        true => Heard {
            gave_owners: is_in(OWNERS),
            set_attributes: is_in(ATTRIBUTES),
        },
        false => Heard::EVERYTHING,
    };
    match heard == Heard::default() {
        true => Heard::EVERYTHING,
        false => heard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((RECEIVE, SEND), (0xc050_2100, 0xc018_2101));
        assert!(I386.is_sorted());
    }
}
