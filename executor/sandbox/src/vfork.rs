//! A child that shares its parent's memory until it executes or exits, as in `posix_spawn`.

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::Pid;

/// What such a child needs of a stack: a few system calls.
const STACK: usize = 64 << 10;

/// Runs `entry(arg)` in a child born into the namespaces of `flags`; this thread sleeps meanwhile.
///
/// The child starts with all signals blocked.
///
/// # Safety
///
/// `entry` makes only system calls, on a small stack, and ends by executing or `_exit`. It may
/// write to what `arg` points to, which the caller must not touch before this function returns.
pub(crate) unsafe fn vfork(
    flags: libc::c_int,
    entry: extern "C" fn(*mut c_void) -> libc::c_int,
    arg: *mut c_void,
) -> io::Result<(Pid, OwnedFd)> {
    let mut stack = vec![0_u8; STACK];
    let mut pidfd: libc::c_int = -1;
    let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;

    // No handler of this process may run in the child, on its small stack, in shared memory.
    let blocked = AllSignalsBlocked::new()?;
    // SAFETY: the stack is owned memory whose aligned end is passed, since it grows downwards.
    // With CLONE_VFORK this thread sleeps until the child has executed or exited, so that `stack`,
    // `pidfd` and what `arg` points to outlive the child's use of them. Without CLONE_FILES the
    // table of descriptors is copied.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK);
        let top = top.sub(top.addr() % 16).cast::<c_void>();
        libc::clone(
            entry,
            top,
            flags,
            arg,
            &raw mut pidfd,
            std::ptr::null_mut::<c_void>(),
            std::ptr::null_mut::<libc::pid_t>(),
        )
    };
    let error = io::Error::last_os_error();
    drop(blocked);
    let Some(pid) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else {
        return Err(error);
    };
    // SAFETY: the kernel has put a new descriptor there, which nobody else knows.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// This thread's signals wait while it lives.
struct AllSignalsBlocked(nix::sys::signal::SigSet);

impl AllSignalsBlocked {
    fn new() -> io::Result<AllSignalsBlocked> {
        use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
        let mut before = SigSet::empty();
        pthread_sigmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut before),
        )?;
        Ok(AllSignalsBlocked(before))
    }
}

impl Drop for AllSignalsBlocked {
    fn drop(&mut self) {
        // It fails only for a mask that is not one.
        let _ = self.0.thread_set_mask();
    }
}
