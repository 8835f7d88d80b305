//! The system calls that a sandboxed process is refused.
//!
//! This is a list of what is denied, where Docker's is a list of what is allowed. Both refuse what
//! reaches state that no namespace holds: modules, kexec, clocks, swap, quotas, key rings, `bpf`,
//! `perf_event_open`, `io_uring`, `userfaultfd`, file handles. Denying by name has two reasons: a
//! system call younger than the list does not break an image, and the kernel can answer "allowed"
//! from a bitmap without running the filter, which is every call that matters in a build.
//!
//! Unlike Docker's, user namespaces and mounting are allowed. The kernel itself asks for
//! `CAP_SYS_ADMIN` in the user namespace that owns the mounts, which a sandboxed root lacks, and a
//! build that runs inside a sandbox (kiln itself, or any rootless builder) cannot do without them.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

/// An instruction takes so many bytes: code, two jump offsets, operand.
const INSTRUCTION: usize = 8;

/// The system calls that are refused with `EPERM`.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// The same for 32-bit programs on a 64-bit x86 kernel, as arch/x86/entry/syscalls/syscall_32.tbl
/// numbers them, with `stime` and the calls that enter virtual 8086 mode.
#[cfg(target_arch = "x86_64")]
const DENIED_I386: &[u32] = &[
    25, 51, 62, 79, 86, 87, 88, 101, 110, 111, 113, 115, 128, 129, 131, 135, 149, 166, 169, 253,
    264, 283, 286, 287, 288, 336, 338, 342, 343, 350, 357, 374, 404, 405, 425, 426, 427, 443,
];

/// Returns the filter's instructions as the kernel reads them.
///
/// Errors only where this crate does not know the architecture.
pub(crate) fn filter() -> Option<&'static [u8]> {
    static FILTER: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    FILTER
        .get_or_init(|| if available() { compile() } else { None })
        .as_deref()
}

/// Whether the kernel has filters.
fn available() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the operation reads one `u32` through a pointer to one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

fn compile() -> Option<Vec<u8>> {
    let rules: BTreeMap<i64, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let native: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .ok()?
        .try_into()
        .ok()?;
    let program = with_other_personalities(native);
    let bytes = program.iter().flat_map(|one| {
        let [c0, c1] = one.code.to_ne_bytes();
        let [k0, k1, k2, k3] = one.k.to_ne_bytes();
        [c0, c1, one.jt, one.jf, k0, k1, k2, k3]
    });
    Some(bytes.collect())
}

/// The compiler's own prologue kills programs of another personality; images for i386 run on an
/// x86-64 host, and must meet the same refusals. The x32 personality, which would go round the
/// list with its own numbers, does not exist here.
#[cfg(target_arch = "x86_64")]
fn with_other_personalities(native: BpfProgram) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const X32: u32 = 0x4000_0000;
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let one = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;

    let mut compat = vec![one(LOAD, 0, 0, NUMBER)];
    for call in DENIED_I386 {
        compat.push(one(EQUAL, 0, 1, *call));
        compat.push(one(RETURN, 0, 0, refuse(libc::EPERM)));
    }
    compat.push(one(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));

    // An offset in a conditional jump has eight bits; the list fits, and a longer one must not.
    let skip = u8::try_from(compat.len()).expect("BUG: the list for i386 is too long for one jump");
    let mut program = vec![one(LOAD, 0, 0, ARCH), one(EQUAL, 0, skip, AUDIT_ARCH_I386)];
    program.extend(compat);
    program.push(one(LOAD, 0, 0, NUMBER));
    program.push(one(AT_LEAST, 0, 1, X32));
    program.push(one(RETURN, 0, 0, refuse(libc::ENOSYS)));
    program.extend(native);
    program
}

#[cfg(not(target_arch = "x86_64"))]
fn with_other_personalities(native: BpfProgram) -> BpfProgram {
    native
}

/// Installs a filter of [`filter`] in this thread; the caller has `CAP_SYS_ADMIN`.
pub(crate) fn install(filter: &[u8]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = filter
        .chunks_exact(INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    // Without the flag, older kernels turn off speculation for whoever has a filter.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program points to `len` instructions that live until after the call; the kernel
    // copies and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_whole_instructions_within_the_kernels_limit() {
        let filter = compile().unwrap();
        assert_eq!(filter.len() % INSTRUCTION, 0);
        assert!(filter.len() / INSTRUCTION < 4096);
    }

    #[test]
    fn the_lists_have_no_duplicates() {
        let native: std::collections::BTreeSet<_> = DENIED.iter().collect();
        assert_eq!(native.len(), DENIED.len());
        #[cfg(target_arch = "x86_64")]
        assert!(DENIED_I386.is_sorted());
    }
}
