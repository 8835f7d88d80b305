//! Hearing of system calls that leave no trace on a disk where one id is mapped: what gives a file to root, what
//! sets attributes, and what asks for ids that are not there.
//!
//! The program has a filter whose answer to these calls is to ask. The first process of the sandbox is asked,
//! remembers it, and always says to go on, so that a step notices nothing but some microseconds.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use crate::seccomp;

/// What was heard of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heard {
    /// Something asked for an owner to be changed.
    pub gave_owners: bool,
    /// Something asked for an extended attribute to be set or removed.
    pub set_attributes: bool,
    /// The first that was asked of the kernel and refused for want of ids.
    pub refused: Option<Refused>,
}

/// What the kernel refuses where one id is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// A file was to be given to that user and group; `u32::MAX` stands for whoever it was.
    Owner(u32, u32),
    /// A process was to be that user, or of that group.
    Identity(u32),
    /// A process was to be of other groups, or of none.
    Groups,
}

/// Instead of an id: it stays as it is.
const UNCHANGED: u32 = u32::MAX;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Owner(uid, UNCHANGED) => write!(f, "it gave a file to {uid}"),
            Refused::Owner(UNCHANGED, gid) => write!(f, "it gave a file to group {gid}"),
            Refused::Owner(uid, gid) => write!(f, "it gave a file to {uid}:{gid}"),
            Refused::Identity(id) => write!(f, "it had a process become {id}"),
            Refused::Groups => f.write_str("it had a process leave its groups or join others"),
        }
    }
}

impl Heard {
    /// What may have happened where nobody listened.
    pub const EVERYTHING: Heard = Heard {
        gave_owners: true,
        set_attributes: true,
        refused: None,
    };

    fn and(self, other: Heard) -> Heard {
        Heard {
            gave_owners: self.gave_owners || other.gave_owners,
            set_attributes: self.set_attributes || other.set_attributes,
            refused: self.refused.or(other.refused),
        }
    }
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// An owner: the user is this argument, the group the next.
    Owner(usize),
    /// An extended attribute, or none.
    Attribute,
    /// To be somebody, by so many arguments.
    Identity(usize),
    /// To be of groups.
    Groups,
}

use Asks::{Attribute, Groups, Identity, Owner};

/// `setxattrat` and `removexattrat` have these numbers on every architecture.
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;

const NATIVE: &[(libc::c_long, Asks)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, Owner(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, Owner(1)),
    (libc::SYS_fchown, Owner(1)),
    (libc::SYS_fchownat, Owner(2)),
    (libc::SYS_setxattr, Attribute),
    (libc::SYS_lsetxattr, Attribute),
    (libc::SYS_fsetxattr, Attribute),
    (libc::SYS_removexattr, Attribute),
    (libc::SYS_lremovexattr, Attribute),
    (libc::SYS_fremovexattr, Attribute),
    (SETXATTRAT, Attribute),
    (REMOVEXATTRAT, Attribute),
    (libc::SYS_setuid, Identity(1)),
    (libc::SYS_setgid, Identity(1)),
    (libc::SYS_setfsuid, Identity(1)),
    (libc::SYS_setfsgid, Identity(1)),
    (libc::SYS_setreuid, Identity(2)),
    (libc::SYS_setregid, Identity(2)),
    (libc::SYS_setresuid, Identity(3)),
    (libc::SYS_setresgid, Identity(3)),
    (libc::SYS_setgroups, Groups),
];

/// The same of 32-bit programs on a 64-bit x86 kernel, as arch/x86/entry/syscalls/syscall_32.tbl numbers them.
#[cfg(target_arch = "x86_64")]
const I386: &[(libc::c_long, Asks)] = &[
    (16, Owner(1)),
    (23, Identity(1)),
    (46, Identity(1)),
    (70, Identity(2)),
    (71, Identity(2)),
    (81, Groups),
    (95, Owner(1)),
    (138, Identity(1)),
    (139, Identity(1)),
    (164, Identity(3)),
    (170, Identity(3)),
    (182, Owner(1)),
    (198, Owner(1)),
    (203, Identity(2)),
    (204, Identity(2)),
    (206, Groups),
    (207, Owner(1)),
    (208, Identity(3)),
    (210, Identity(3)),
    (212, Owner(1)),
    (213, Identity(1)),
    (214, Identity(1)),
    (215, Identity(1)),
    (216, Identity(1)),
    (226, Attribute),
    (227, Attribute),
    (228, Attribute),
    (235, Attribute),
    (236, Attribute),
    (237, Attribute),
    (298, Owner(2)),
    (SETXATTRAT, Attribute),
    (REMOVEXATTRAT, Attribute),
];
#[cfg(not(target_arch = "x86_64"))]
const I386: &[(libc::c_long, Asks)] = &[];

/// From this call on, those of i386 have ids of 32 bits; of 16 before.
const I386_WIDE: i32 = 198;

/// Installs the filter in this thread, which has `CAP_SYS_ADMIN`; returns where its questions come.
///
/// Errors where the kernel has no such filters, or somebody outside listens already.
pub(crate) fn install() -> io::Result<OwnedFd> {
    let sorted = |calls: &[(libc::c_long, Asks)]| {
        let numbers = calls
            .iter()
            .filter_map(|(call, _)| u32::try_from(*call).ok());
        let mut numbers: Vec<u32> = numbers.collect();
        numbers.sort_unstable();
        numbers
    };
    let filter = seccomp::asking(&sorted(NATIVE), &sorted(I386));
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
    /// The user namespace of the program, if that can be told.
    namespace: Option<PathBuf>,
}

impl Listener {
    /// Listens; without a descriptor everything may happen unheard.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Listener {
        let heard = match fd {
            Some(_) => Heard::default(),
            None => Heard::EVERYTHING,
        };
        Listener {
            fd,
            heard,
            namespace: None,
        }
    }

    /// For a sandbox of which nobody wants to hear.
    pub(crate) fn deaf() -> Listener {
        Listener {
            fd: None,
            heard: Heard::default(),
            namespace: None,
        }
    }

    /// The program has begun: what was heard before was this crate's own.
    pub(crate) fn begin(&mut self, program: Pid) {
        if self.fd.is_some() {
            self.heard = Heard::default();
            self.namespace = namespace(program.as_raw());
        }
    }

    /// Readable when something asks.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard
    }

    /// Whether a process is where one id is mapped. What makes a namespace of its own in a step is refused there
    /// what it would be refused in the step of root, too.
    fn is_of_the_sandbox(&self, pid: u32) -> bool {
        let theirs = || namespace(i32::try_from(pid).ok()?);
        match &self.namespace {
            Some(ours) => theirs().is_none_or(|theirs| theirs == *ours),
            None => true,
        }
    }

    /// Does what is to be done when its descriptor is polled like this.
    pub(crate) fn attend(&mut self, polled: PollFlags) {
        match polled {
            flags if flags.contains(PollFlags::IN) => self.answer(),
            // Nothing that may ask is left.
            flags if !flags.is_empty() => self.fd = None,
            _ => {}
        }
    }

    /// Answers one question.
    fn answer(&mut self) {
        let Some(fd) = &self.fd else { return };
        let mut question = Question::default();
        // SAFETY: the request reads and writes one `Question`, whose layout is the kernel's and whose size
        // is in the request's number.
        let received = unsafe { libc::ioctl(fd.as_raw_fd(), RECEIVE as _, &raw mut question) };
        // Whoever asked may have been killed, and asks again if it was a signal.
        if received != 0 {
            return;
        }
        let heard = heard(&question.call);
        let counts = heard.refused.is_none() || self.is_of_the_sandbox(question.pid);
        self.heard = self.heard.and(Heard {
            refused: heard.refused.filter(|_| counts),
            ..heard
        });
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

/// The user namespace of a process, where `/proc` is that of this process.
fn namespace(pid: i32) -> Option<PathBuf> {
    let own = std::fs::read_link("/proc/self").ok()?;
    let is_ours = own == Path::new(&std::process::id().to_string());
    is_ours.then(|| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok())?
}

fn heard(call: &Call) -> Heard {
    let (calls, is_native) = match seccomp::is_native(call.arch) {
        true => (NATIVE, true),
        false if seccomp::is_i386(call.arch) => (I386, false),
        false => return Heard::EVERYTHING,
    };
    let number = libc::c_long::from(call.number);
    let Some((_, asks)) = calls.iter().find(|(call, _)| *call == number) else {
        return Heard::EVERYTHING;
    };
    let id = |at: usize| match call.arguments[at] as u32 {
        id if is_native || call.number >= I386_WIDE => id,
        id if id & 0xffff == 0xffff => UNCHANGED,
        id => id & 0xffff,
    };
    let is_other = |id: &u32| !matches!(*id, 0 | UNCHANGED);
    let nothing = Heard::default();
    match *asks {
        Owner(at) => Heard {
            gave_owners: true,
            refused: [id(at), id(at + 1)]
                .iter()
                .any(is_other)
                .then(|| Refused::Owner(id(at), id(at + 1))),
            ..nothing
        },
        Attribute => Heard {
            set_attributes: true,
            ..nothing
        },
        Identity(count) => Heard {
            refused: (0..count).map(id).find(is_other).map(Refused::Identity),
            ..nothing
        },
        Groups => Heard {
            refused: Some(Refused::Groups),
            ..nothing
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((RECEIVE, SEND), (0xc050_2100, 0xc018_2101));
    }

    fn check(arch: u32, number: i64, arguments: &[u32], expected: Option<Refused>) {
        let mut call = Call {
            number: number as i32,
            arch,
            ..Call::default()
        };
        for (at, argument) in arguments.iter().enumerate() {
            call.arguments[at] = u64::from(*argument);
        }
        assert_eq!(heard(&call).refused, expected, "{number} {arguments:?}");
    }

    #[test]
    fn ids_that_are_not_there_are_refused() {
        let Some(native) = seccomp::NATIVE else {
            return;
        };
        let owner = |uid, gid| Some(Refused::Owner(uid, gid));
        check(native, libc::SYS_fchown, &[3, 7, 8], owner(7, 8));
        check(native, libc::SYS_fchown, &[3, 0, UNCHANGED], None);
        check(native, libc::SYS_fchownat, &[9, 9, 0, 8, 9], owner(0, 8));
        check(
            native,
            libc::SYS_setresuid,
            &[UNCHANGED, 33, 0],
            Some(Refused::Identity(33)),
        );
        check(native, libc::SYS_setresuid, &[0, 0, UNCHANGED, 5], None);
        check(native, libc::SYS_setgroups, &[0, 0], Some(Refused::Groups));
        check(native, libc::SYS_fsetxattr, &[9, 9, 9], None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn programs_for_i386_have_numbers_of_their_own() {
        let i386 = seccomp::I386;
        check(i386, 95, &[3, 0xffff, 0], None);
        check(
            i386,
            95,
            &[3, 0xffff, 8],
            Some(Refused::Owner(UNCHANGED, 8)),
        );
        check(i386, 212, &[3, 0xffff, 0], Some(Refused::Owner(0xffff, 0)));
        check(i386, 213, &[0], None);
        assert!(I386.is_sorted_by_key(|(number, _)| *number));
    }
}
