//! What root may do in a sandbox.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The capabilities that Docker gives to a container.
pub(crate) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Bounds what any program started from here on may gain; the caller keeps what it has.
pub(crate) fn bound() -> io::Result<()> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if DEFAULT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know; so are all that follow.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives up everything beyond the default; a user other than root has lost all of it already.
pub(crate) fn reduce() -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & DEFAULT;
    let sets = CapabilitySets {
        effective: now.effective & kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    // Refused only by kernels without ambient capabilities, which therefore have none.
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

/// Lets the user that the process is now, and the program that it will be, keep everything.
///
/// The caller has asked to keep capabilities before it changed the user.
pub(crate) fn raise() -> io::Result<()> {
    let all = rustix::thread::capabilities(None)?.permitted;
    let sets = CapabilitySets {
        effective: all,
        permitted: all,
        inheritable: all,
    };
    rustix::thread::set_capabilities(None, sets)?;
    for capability in all.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
