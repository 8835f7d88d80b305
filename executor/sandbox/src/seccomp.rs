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
//!
//! The program is a binary search, since the kernel runs it for every system call there is when it
//! is installed, to fill that bitmap: a linear one costs a third of a millisecond a step. Programs
//! for i386 run on an x86-64 host and meet the same refusals by their own numbers; the x32
//! personality, which would go round the list, does not exist here.

use std::io;
use std::sync::OnceLock;

use libc::sock_filter;

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

#[cfg(target_arch = "x86_64")]
pub(crate) const NATIVE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
pub(crate) const NATIVE: Option<u32> = Some(0xc000_00b7);
/// The lists are not checked for other architectures.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) const NATIVE: Option<u32> = None;
#[cfg(target_arch = "x86_64")]
pub(crate) const I386: u32 = 0x4000_0003;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

fn compile() -> Option<Vec<u8>> {
    let mut native: Vec<u32> = DENIED
        .iter()
        .filter_map(|call| u32::try_from(*call).ok())
        .collect();
    native.sort_unstable();
    #[cfg(target_arch = "x86_64")]
    let i386 = DENIED_I386;
    #[cfg(not(target_arch = "x86_64"))]
    let i386 = &[];
    Some(bytes(&program(NATIVE?, &native, i386, REFUSING)))
}

fn bytes(program: &[sock_filter]) -> Vec<u8> {
    let bytes = program.iter().flat_map(|one| {
        let [c0, c1] = one.code.to_ne_bytes();
        let [k0, k1, k2, k3] = one.k.to_ne_bytes();
        [c0, c1, one.jt, one.jf, k0, k1, k2, k3]
    });
    bytes.collect()
}

/// Whether calls of this architecture have the numbers that this binary knows.
pub(crate) fn is_native(arch: u32) -> bool {
    NATIVE == Some(arch)
}

/// Whether calls of this architecture are those of 32-bit programs on a 64-bit x86 kernel.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_i386(arch: u32) -> bool {
    arch == I386
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn is_i386(_: u32) -> bool {
    false
}

/// Returns a filter that asks a listener about the sorted calls, natively and for i386, and about all that this
/// crate has no list for; nothing where it does not know the architecture.
pub(crate) fn asking(native: &[u32], i386: &[u32]) -> Option<Vec<u8>> {
    Some(bytes(&program(NATIVE?, native, i386, ASKING)))
}

/// What a filter answers.
#[derive(Clone, Copy)]
struct Answers {
    /// About calls that are listed.
    listed: u32,
    /// About calls of architectures and personalities that nothing is known of.
    unknown: u32,
}

const REFUSING: Answers = Answers {
    listed: libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
    unknown: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
};
const ASKING: Answers = Answers {
    listed: libc::SECCOMP_RET_USER_NOTIF,
    unknown: libc::SECCOMP_RET_USER_NOTIF,
};

/// The program for the sorted numbers of the native architecture, and of i386.
fn program(arch: u32, listed: &[u32], i386: &[u32], answers: Answers) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD, 0, 0, ARCH_AT)];
    program.extend(only_for(arch, native(listed, answers)));
    #[cfg(target_arch = "x86_64")]
    program.extend(only_for(I386, search(i386, answers.listed)));
    #[cfg(not(target_arch = "x86_64"))]
    let _ = i386;
    program.push(instruction(RETURN, 0, 0, answers.unknown));
    program
}

#[cfg(target_arch = "x86_64")]
fn native(listed: &[u32], answers: Answers) -> Vec<sock_filter> {
    const X32: u32 = 0x4000_0000;
    let mut program = vec![
        instruction(AT_LEAST, 0, 1, X32),
        instruction(RETURN, 0, 0, answers.unknown),
    ];
    program.extend(search(listed, answers.listed));
    program
}

#[cfg(not(target_arch = "x86_64"))]
fn native(listed: &[u32], answers: Answers) -> Vec<sock_filter> {
    search(listed, answers.listed)
}

/// Runs `rest` with the number loaded if the loaded architecture is `arch`, else what follows.
fn only_for(arch: u32, rest: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut program = vec![
        instruction(EQUAL, 0, offset(rest.len() + 1), arch),
        instruction(LOAD, 0, 0, NUMBER_AT),
    ];
    program.extend(rest);
    program
}

/// Gives the answer if the loaded number is one of the sorted ones, and allows it otherwise.
fn search(listed: &[u32], answer: u32) -> Vec<sock_filter> {
    match listed {
        [] => vec![instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW)],
        [one] => vec![
            instruction(EQUAL, 0, 1, *one),
            instruction(RETURN, 0, 0, answer),
            instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ],
        many => {
            let (below, from) = many.split_at(many.len() / 2);
            let left = search(below, answer);
            let mut program = vec![instruction(AT_LEAST, offset(left.len()), 0, from[0])];
            program.extend(left);
            program.extend(search(from, answer));
            program
        }
    }
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The lists are constants, and a test compiles them.
fn offset(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("BUG: a list is too long for one jump")
}

/// Installs a filter of [`filter`] in this thread; the caller has `CAP_SYS_ADMIN`.
pub(crate) fn install(filter: &[u8]) -> io::Result<()> {
    install_with(filter, 0).map(drop)
}

/// The same with more flags; returns what the kernel returns.
pub(crate) fn install_with(filter: &[u8], flags: libc::c_ulong) -> io::Result<libc::c_long> {
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
    let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
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
    if result >= 0 {
        Ok(result)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with a call.
    fn judge(program: &[sock_filter], arch: u32, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let one = program[at];
            at += 1;
            let holds = match one.code {
                LOAD => {
                    loaded = if one.k == ARCH_AT { arch } else { number };
                    continue;
                }
                RETURN => return one.k,
                EQUAL => loaded == one.k,
                AT_LEAST => loaded >= one.k,
                code => panic!("{code}"),
            };
            at += usize::from(if holds { one.jt } else { one.jf });
        }
    }

    fn errno(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno as u32
    }

    #[cfg(target_arch = "x86_64")]
    const DENIED_OF_I386: &[u32] = DENIED_I386;
    #[cfg(not(target_arch = "x86_64"))]
    const DENIED_OF_I386: &[u32] = &[];

    #[test]
    fn a_listener_is_asked_about_what_is_listed_and_what_is_unknown() {
        let Some(arch) = NATIVE else { return };
        let program = program(arch, &[5, 7, 9], &[6], ASKING);
        for number in 0..20 {
            let expected = match number {
                5 | 7 | 9 => libc::SECCOMP_RET_USER_NOTIF,
                _ => libc::SECCOMP_RET_ALLOW,
            };
            assert_eq!(judge(&program, arch, number), expected, "{number}");
        }
        assert_eq!(judge(&program, 7, 0), libc::SECCOMP_RET_USER_NOTIF);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(judge(&program, I386, 6), libc::SECCOMP_RET_USER_NOTIF);
    }

    #[test]
    fn exactly_the_listed_calls_are_refused() {
        let Some(arch) = NATIVE else { return };
        let mut native: Vec<u32> = DENIED.iter().map(|call| *call as u32).collect();
        native.sort_unstable();
        native.dedup();
        assert_eq!(native.len(), DENIED.len());
        let program = program(arch, &native, DENIED_OF_I386, REFUSING);
        let check = |arch, denied: &[u32]| {
            for number in 0..1000 {
                let refused = denied.contains(&number);
                let expected = if refused {
                    errno(libc::EPERM)
                } else {
                    libc::SECCOMP_RET_ALLOW
                };
                assert_eq!(judge(&program, arch, number), expected, "{number}");
            }
        };
        check(arch, &native);
        assert_eq!(judge(&program, 7, 0), errno(libc::ENOSYS));
        #[cfg(target_arch = "x86_64")]
        {
            assert!(DENIED_I386.is_sorted());
            check(I386, DENIED_I386);
            assert_eq!(judge(&program, arch, 0x4000_0000), errno(libc::ENOSYS));
        }
    }

    #[test]
    fn a_filter_is_whole_instructions_within_the_kernels_limit() {
        let Some(filter) = compile() else { return };
        assert_eq!(filter.len() % INSTRUCTION, 0);
        assert!(filter.len() / INSTRUCTION < 4096);
    }
}
