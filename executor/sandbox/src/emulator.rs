//! A binary format for one sandbox alone, so that the kernel executes programs of another processor.
//!
//! Since Linux 6.7 each user namespace may have a binfmt_misc of its own. So the program is put into
//! one, with a mount namespace that goes with it, and nothing is left to the host. The interpreter is
//! opened when it is registered: it needs no file in the sandbox and nothing there can replace it.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::process::DumpableBehavior;

use crate::mountfd::{self, Reach};
use crate::plan::Format;
use crate::userns::{self, EnterError};

/// Where every kernel that has binary formats has a directory for them.
const PLACE: &str = "/proc/sys/fs/binfmt_misc";

/// Moves this process into a user namespace, ids as they are, in which the format is known.
///
/// The process must have one thread and nobody beside its parent to look into it.
pub(crate) fn register(format: &Format, interpreter: BorrowedFd<'_>) -> io::Result<()> {
    // Who maps the ids has to open files of this process, which belong to the host's root while it
    // may not be looked into.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let entered = userns::enter_as_is();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    entered.map_err(|error| match error {
        EnterError::Step { source, .. } => source,
        _ => rustix::io::Errno::PERM.into(),
    })?;

    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let formats = mountfd::new_file_system("binfmt_misc", &[], quiet)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let register = rustix::fs::openat(&formats, "register", flags, Mode::empty())?;
    let rule = rule(
        format,
        &format!("/proc/self/fd/{}", interpreter.as_raw_fd()),
    );
    // The kernel takes a rule only whole.
    rustix::io::write(&register, rule.as_bytes())?;
    drop(register);
    mountfd::make_private(
        formats.as_fd(),
        Reach::This,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    // The formats go with their last mount.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, PLACE, flags, Mode::empty())?;
    mountfd::attach(formats.as_fd(), place.as_fd())
}

/// The line that registers a format; `F` opens the interpreter now, `C` keeps setuid programs what
/// they are, and `O`, which that takes, passes the program opened.
fn rule(format: &Format, interpreter: &str) -> String {
    let escape = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
            text
        })
    };
    let (magic, mask) = (escape(&format.magic), escape(&format.mask));
    format!(":{}:M::{magic}:{mask}:{interpreter}:OCF", format.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_one_line() {
        let format = Format {
            interpreter: 0,
            name: "qemu-aarch64".to_owned(),
            magic: vec![0x7f, b'E'],
            mask: vec![0xff, 0x00],
        };
        assert_eq!(
            rule(&format, "/proc/self/fd/7"),
            r":qemu-aarch64:M::\x7f\x45:\xff\x00:/proc/self/fd/7:OCF"
        );
    }
}
