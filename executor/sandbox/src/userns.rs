//! A user namespace for the whole process, so that an ordinary user can mount and change owners.
//!
//! [`probe`] tells what this host allows, by trying. [`enter`] moves the process into new user and
//! mount namespaces and executes it again, once: it is called early in `main`, while the process
//! has one thread. What has to be done as the caller is left to the [`porter`](crate::porter). What a user was given in /etc/subuid and /etc/subgid is mapped by newuidmap(1)
//! and newgidmap(1); root of a container, which may set ids, maps all that it has; anybody else
//! has one id, which becomes root.

use std::ffi::{CString, OsString, c_void};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

use crate::porter;
use crate::subid;
use crate::vfork::vfork;

/// The environment variable that tells the executed process that it is inside.
pub const MARKER: &str = "KILN_USERNS";

/// Some consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first as the container counts.
    pub container: u32,
    /// The first as whoever starts the container counts.
    pub host: u32,
    /// How many; at least one.
    pub count: u32,
}

/// Which ids a container has, and what they are outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Without overlaps, in the order in which they were given.
    pub ranges: Vec<IdRange>,
}

impl IdMap {
    /// Returns the id outside of an id in the container.
    pub fn to_host(&self, id: u32) -> Option<u32> {
        self.ranges
            .iter()
            .find_map(|range| shift(id, range.container, range.host, range.count))
    }

    /// Returns the id in the container of an id outside.
    pub fn to_container(&self, id: u32) -> Option<u32> {
        self.ranges
            .iter()
            .find_map(|range| shift(id, range.host, range.container, range.count))
    }

    /// Reads the form of /proc/PID/uid_map.
    pub fn parse(text: &str) -> IdMap {
        let range = |line: &str| {
            let mut fields = line
                .split_ascii_whitespace()
                .map(|field| field.parse().ok());
            let (container, host, count) = (fields.next()??, fields.next()??, fields.next()??);
            Some(IdRange {
                container,
                host,
                count,
            })
        };
        IdMap {
            ranges: text.lines().filter_map(range).collect(),
        }
    }

    /// One id becomes root, and the given ranges follow it.
    fn own_and(own: u32, given: &[(u32, u32)]) -> IdMap {
        let mut ranges = vec![IdRange {
            container: 0,
            host: own,
            count: 1,
        }];
        let mut next = 1_u32;
        for (first, count) in given {
            let Some(after) = next.checked_add(*count) else {
                break;
            };
            ranges.push(IdRange {
                container: next,
                host: *first,
                count: *count,
            });
            next = after;
        }
        IdMap { ranges }
    }

    /// Every id of a namespace, as itself.
    fn identity(of: &IdMap) -> IdMap {
        let range = |range: &IdRange| IdRange {
            host: range.container,
            ..*range
        };
        IdMap {
            ranges: of.ranges.iter().map(range).collect(),
        }
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for range in &self.ranges {
            writeln!(f, "{} {} {}", range.container, range.host, range.count)?;
        }
        Ok(())
    }
}

fn shift(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
    let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
    to.checked_add(offset)
}

/// Returns the ids of the namespace that this process is in: user ids, then group ids.
pub fn current_maps() -> io::Result<(IdMap, IdMap)> {
    let read = |path| std::fs::read_to_string(path).map(|text| IdMap::parse(&text));
    Ok((read("/proc/self/uid_map")?, read("/proc/self/gid_map")?))
}

/// What this process can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNsSupport {
    /// It is root already and may mount: it needs none.
    Root,
    /// A namespace with many ids.
    Mapped {
        /// Its users.
        uids: IdMap,
        /// Its groups.
        gids: IdMap,
        /// Who writes the maps.
        by: MapBy,
    },
    /// A namespace in which only root is somebody.
    SingleId {
        /// Why there are no more, and the lines that change it.
        why: String,
    },
    /// No namespace.
    Refused {
        /// The mechanism that refuses.
        which: Refusal,
        /// The command that allows it, or what else helps.
        fix: String,
    },
}

/// Who writes the maps of a new user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapBy {
    /// newuidmap(1) and newgidmap(1).
    Helpers,
    /// This process, which has `CAP_SETUID` and `CAP_SETGID`.
    Caller,
}

/// What refuses a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// AppArmor lets ordinary users have one and takes its capabilities away.
    AppArmor,
    /// A system call filter, as in a container.
    Seccomp,
    /// A kernel setting.
    Sysctl,
    /// The kernel gives none to processes in a chroot.
    Chroot,
    /// The kernel was built without.
    Kernel,
    /// Something else, perhaps a security module.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::AppArmor => "AppArmor",
            Refusal::Seccomp => "seccomp",
            Refusal::Sysctl => "a kernel setting",
            Refusal::Chroot => "the kernel (in a chroot)",
            Refusal::Kernel => "the kernel (built without them)",
            Refusal::Unknown => "the kernel",
        })
    }
}

/// Why a process could not enter a user namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnterError {
    /// The namespace was refused.
    #[error("user namespaces are refused by {which}; {fix}")]
    Refused {
        /// The mechanism that refuses.
        which: Refusal,
        /// What helps.
        fix: String,
    },
    /// The ids could not be mapped.
    #[error("can't map the ids of the user namespace: {said}")]
    Map {
        /// What newuidmap(1), newgidmap(1) or the kernel said.
        said: String,
    },
    /// A step of the way failed.
    #[error("can't {doing}")]
    Step {
        /// What was attempted.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Tells what this process can have, by trying to make one in a child.
pub fn probe() -> UserNsSupport {
    if rustix::process::geteuid().is_root() && has(CapabilitySet::SYS_ADMIN) {
        return UserNsSupport::Root;
    }
    if let Err(trial) = attempt() {
        let (which, fix) = diagnose(trial, &Facts::read());
        return UserNsSupport::Refused { which, fix };
    }
    choose_maps()
}

/// Tells whether this process is root in its user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tells whether this process is in the host's own user namespace.
pub fn is_initial() -> bool {
    // PROC_USER_INIT_INO of include/linux/proc_ns.h: the one namespace whose number is fixed.
    std::fs::read_link("/proc/self/ns/user")
        .is_ok_and(|name| name.as_os_str() == "user:[4026531837]")
}

/// Tells whether this process was executed by [`enter`].
pub fn entered() -> bool {
    std::env::var_os(MARKER).is_some()
}

/// Moves this process into new user and mount namespaces and executes it again with the same
/// arguments, with [`MARKER`] in its environment; returns only to tell why that was not possible.
///
/// The process must have one thread. For [`UserNsSupport::Root`] it does just the execution.
pub fn enter(support: &UserNsSupport) -> EnterError {
    match enter_namespaces(support) {
        Err(error) => error,
        Ok((kind, porter)) => step("execute kiln again")(execute_again(kind, porter.as_ref())),
    }
}

fn enter_namespaces(
    support: &UserNsSupport,
) -> Result<(&'static str, Option<OwnedFd>), EnterError> {
    let leave = || match single_threaded() {
        true => porter::leave().map_err(step("leave a process outside")),
        false => Err(busy()),
    };
    match support {
        UserNsSupport::Root => Ok(("root", None)),
        UserNsSupport::Refused { which, fix } => Err(EnterError::Refused {
            which: *which,
            fix: fix.clone(),
        }),
        UserNsSupport::SingleId { .. } => {
            let own = [
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ];
            let porter = leave()?;
            make_namespaces()?;
            let [uids, gids] = own.map(|id| IdMap::own_and(id, &[]).to_string());
            let files = [
                ("setgroups", "deny"),
                ("uid_map", &uids),
                ("gid_map", &gids),
            ];
            for (file, text) in files {
                let path = format!("/proc/self/{file}");
                std::fs::write(&path, text).map_err(|error| EnterError::Map {
                    said: format!("{path}: {error}"),
                })?;
            }
            Ok(("single", Some(porter)))
        }
        UserNsSupport::Mapped { uids, gids, by } => {
            let porter = leave()?;
            with_mapper(uids, gids, *by)?;
            // The caller's other groups mean nothing in there.
            rustix::thread::set_thread_groups(&[])
                .map_err(|error| step("drop groups")(error.into()))?;
            Ok(("mapped", Some(porter)))
        }
    }
}

/// Moves this process into new user and mount namespaces in which ids are as they were.
///
/// The process must have one thread and may set ids where it is.
pub(crate) fn enter_as_is() -> Result<(), EnterError> {
    let (uids, gids) = current_maps().map_err(step("read the maps of ids"))?;
    with_mapper(
        &IdMap::identity(&uids),
        &IdMap::identity(&gids),
        MapBy::Caller,
    )
}

fn step(doing: &'static str) -> impl Fn(io::Error) -> EnterError {
    move |source| EnterError::Step { doing, source }
}

fn make_namespaces() -> Result<(), EnterError> {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    nix::sched::unshare(flags).map_err(|error| {
        if error == nix::Error::EINVAL && !single_threaded() {
            return step("make a user namespace with threads running")(error.into());
        }
        let trial = Trial::Create(error as i32);
        let (which, fix) = diagnose(trial, &Facts::read());
        EnterError::Refused { which, fix }
    })
}

fn busy() -> EnterError {
    step("make a user namespace with threads running")(io::Error::from_raw_os_error(libc::EBUSY))
}

fn single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Makes the namespaces while a child that stays outside waits to write their maps.
fn with_mapper(uids: &IdMap, gids: &IdMap, by: MapBy) -> Result<(), EnterError> {
    let target = std::process::id();
    let (made_read, mut made) = std::io::pipe().map_err(step("make a pipe"))?;
    let (mut said, say) = std::io::pipe().map_err(step("make a pipe"))?;
    if !single_threaded() {
        return Err(busy());
    }
    // SAFETY: this process has one thread, so that the child may do whatever its parent may.
    let forked = unsafe { nix::unistd::fork() };
    let mapper = match forked.map_err(|error| step("make a process")(error.into()))? {
        ForkResult::Child => {
            drop((made, said));
            let code = match map_when_made(made_read, target, uids, gids, by) {
                Ok(()) => 0,
                Err(text) => {
                    // Nobody is left to tell if this fails; the exit code says enough.
                    let _ = (&say).write_all(text.as_bytes());
                    1
                }
            };
            std::process::exit(code)
        }
        ForkResult::Parent { child } => child,
    };
    drop((made_read, say));
    let entered = make_namespaces();
    if entered.is_ok() {
        made.write_all(b"x")
            .map_err(step("tell that the user namespace is made"))?;
    }
    drop(made);
    let mut text = String::new();
    said.read_to_string(&mut text)
        .map_err(step("hear that the ids are mapped"))?;
    let status =
        waitpid(mapper, None).map_err(|error| step("wait for the mapper")(error.into()))?;
    entered?;
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(EnterError::Map {
            said: text.trim().replace('\n', ", "),
        }),
    }
}

fn map_when_made(
    mut made: io::PipeReader,
    target: u32,
    uids: &IdMap,
    gids: &IdMap,
    by: MapBy,
) -> Result<(), String> {
    if made.read(&mut [0]).map_err(|error| error.to_string())? == 0 {
        return Err("the namespace was not made".to_owned());
    }
    let all = [
        ("newuidmap", "uid_map", uids),
        ("newgidmap", "gid_map", gids),
    ];
    for (helper, file, map) in all {
        match by {
            MapBy::Caller => {
                let path = format!("/proc/{target}/{file}");
                std::fs::write(&path, map.to_string())
                    .map_err(|error| format!("{path}: {error}"))?;
            }
            MapBy::Helpers => {
                let numbers = map
                    .ranges
                    .iter()
                    .flat_map(|r| [r.container, r.host, r.count]);
                let output = Command::new(helper)
                    .arg(target.to_string())
                    .args(numbers.map(|number| number.to_string()))
                    .stdin(Stdio::null())
                    .output()
                    .map_err(|error| format!("{helper}: {error}"))?;
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned());
                }
            }
        }
    }
    Ok(())
}

fn execute_again(kind: &str, porter: Option<&OwnedFd>) -> io::Error {
    let c_string = |text: OsString| CString::new(text.as_bytes());
    let mut markers = vec![OsString::from(format!("{MARKER}={kind}"))];
    if let Some(porter) = porter {
        if let Err(error) = rustix::io::fcntl_setfd(porter, rustix::io::FdFlags::empty()) {
            return error.into();
        }
        let (fd, pid) = (porter.as_raw_fd(), std::process::id());
        markers.push(OsString::from(format!("{}={fd}:{pid}", porter::VARIABLE)));
    }
    let env = std::env::vars_os()
        .filter(|(name, _)| name != MARKER && name != porter::VARIABLE)
        .map(|(name, value)| {
            let mut one = name;
            one.push("=");
            one.push(value);
            one
        });
    let args: Result<Vec<_>, _> = std::env::args_os().map(c_string).collect();
    let env: Result<Vec<_>, _> = markers.into_iter().chain(env).map(c_string).collect();
    match (args, env) {
        (Ok(args), Ok(env)) => match nix::unistd::execve(c"/proc/self/exe", &args, &env) {
            Err(error) => error.into(),
        },
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    }
}

fn has(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn choose_maps() -> UserNsSupport {
    if has(CapabilitySet::SETUID | CapabilitySet::SETGID)
        && let Ok((uids, gids)) = current_maps()
    {
        let (uids, gids) = (IdMap::identity(&uids), IdMap::identity(&gids));
        return UserNsSupport::Mapped {
            uids,
            gids,
            by: MapBy::Caller,
        };
    }
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = subid::user_name(&passwd, uid);
    let uids = subid::ranges(&read("/etc/subuid"), name, uid);
    let gids = subid::ranges(&read("/etc/subgid"), name, uid);
    if uids.is_empty() || gids.is_empty() {
        let why = more_ids(uid);
        return UserNsSupport::SingleId { why };
    }
    if let Some(missing) = ["newuidmap", "newgidmap"]
        .into_iter()
        .find(|name| !in_path(name))
    {
        let why =
            format!("`{missing}` is not installed; it is in the package `uidmap` or `shadow`");
        return UserNsSupport::SingleId { why };
    }
    UserNsSupport::Mapped {
        uids: IdMap::own_and(uid, &uids),
        gids: IdMap::own_and(gid, &gids),
        by: MapBy::Helpers,
    }
}

/// How many ids a line for a user gives, or a multiple.
const LINE: u32 = 65536;

/// The words that tell a user who has one id how to be given more.
fn more_ids(uid: u32) -> String {
    given_more(uid, "one id only", LINE)
}

/// The words that tell a user who has so many ids how to be given `count` more.
fn given_more(uid: u32, has: &str, count: u32) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = subid::user_name(&passwd, uid);
    let who = name.map_or_else(|| uid.to_string(), str::to_owned);
    let line = |path| format!("{who}:{}:{count}", subid::free(&read(path), count));
    let (uids, gids) = (line("/etc/subuid"), line("/etc/subgid"));
    format!(
        "`{who}` has {has}; as root, add the line `{uids}` to /etc/subuid and `{gids}` to /etc/subgid"
    )
}

/// Tells the user whose namespace has too few ids for `id` which lines give more, beside those that there are.
///
/// Nothing, if it is no namespace of [`enter`] with many ids.
pub fn wider_fix(id: u32) -> Option<String> {
    let (uids, gids) = current_maps().ok()?;
    wider(&uids, &gids, id).map(|(last, count)| {
        given_more(
            uids.ranges[0].host,
            &format!("the ids 0 to {last} only"),
            count,
        )
    })
}

/// Tells the user of a namespace with many ids how to be given as many as a line has.
pub fn more_ids_fix() -> Option<String> {
    let (uids, gids) = current_maps().ok()?;
    wider_fix(beyond(&uids, &gids)?)
}

/// The first id that a namespace which [`enter`] made with many has not.
fn beyond(uids: &IdMap, gids: &IdMap) -> Option<u32> {
    let end = |map: &IdMap| match map.ranges.as_slice() {
        [own, more @ ..] if own.count == 1 && !more.is_empty() => {
            let last = map.ranges.last()?;
            last.container.checked_add(last.count)
        }
        _ => None,
    };
    Some(end(uids)?.min(end(gids)?))
}

/// The last id of such a namespace, and how many more there must be for `id`.
fn wider(uids: &IdMap, gids: &IdMap, id: u32) -> Option<(u32, u32)> {
    let end = beyond(uids, gids)?;
    let lacking = id.checked_add(1)?.checked_sub(end).filter(|&few| few > 0)?;
    Some((end - 1, lacking.checked_next_multiple_of(LINE)?))
}

/// Tells the user whose one id is all that this namespace has how to be given more.
///
/// Nothing, if there are more.
pub fn single_id_fix() -> Option<String> {
    let (uids, _) = current_maps().ok()?;
    match uids.ranges.as_slice() {
        [only] if only.count == 1 => Some(more_ids(only.host)),
        _ => None,
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir: PathBuf| dir.join(program))
        .any(|file| file.is_file())
}

/// Where a trial failed, with the kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Create(i32),
    /// The namespace was made, and mounting in it was refused.
    Use(i32),
}

/// Makes a user and mount namespace in a child, and changes a mount there.
fn attempt() -> Result<(), Trial> {
    let mut errno: libc::c_int = 0;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    // SAFETY: `try_mounting` makes only system calls, and `errno` is not touched before it is done.
    let child = unsafe { vfork(flags, try_mounting, (&raw mut errno).cast::<c_void>()) };
    match child {
        Err(error) => Err(Trial::Create(error.raw_os_error().unwrap_or(libc::EIO))),
        Ok((_, pidfd)) => {
            // Nothing is to be learned from a child that only ends.
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            if errno == 0 {
                Ok(())
            } else {
                Err(Trial::Use(errno))
            }
        }
    }
}

extern "C" fn try_mounting(errno: *mut c_void) -> libc::c_int {
    // SAFETY: `attempt` passes a pointer to a `c_int` that outlives this process. The paths are C
    // strings, and null pointers are what `mount` takes for a change of propagation.
    unsafe {
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        if libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) != 0 {
            *errno.cast::<libc::c_int>() = *libc::__errno_location();
        }
        libc::_exit(0)
    }
}

/// What the kernel says about itself and this process.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    max_user_namespaces: Option<u64>,
    unprivileged_clone: Option<u64>,
    apparmor_restricts: Option<u64>,
    filtered: bool,
    chrooted: bool,
}

impl Facts {
    fn read() -> Facts {
        let number = |path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let filtered = status
            .lines()
            .any(|line| line.starts_with("Seccomp:") && line.ends_with('2'));
        let mounts = read("/proc/self/mountinfo");
        let root = |line: &str| line.split(' ').nth(4) == Some("/");
        Facts {
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            filtered,
            chrooted: !mounts.is_empty() && !mounts.lines().any(root),
        }
    }
}

fn diagnose(trial: Trial, facts: &Facts) -> (Refusal, String) {
    let sysctl = |setting: &str| format!("`sysctl -w {setting}` as root allows them");
    if facts.max_user_namespaces == Some(0) || trial == Trial::Create(libc::ENOSPC) {
        return (Refusal::Sysctl, sysctl("user.max_user_namespaces=28633"));
    }
    if facts.unprivileged_clone == Some(0) {
        return (
            Refusal::Sysctl,
            sysctl("kernel.unprivileged_userns_clone=1"),
        );
    }
    match trial {
        Trial::Create(libc::EINVAL | libc::ENOSYS) => (
            Refusal::Kernel,
            "run kiln as root, or on a kernel with CONFIG_USER_NS".to_owned(),
        ),
        Trial::Create(libc::EPERM) if facts.chrooted => (
            Refusal::Chroot,
            "run kiln as root, or outside the chroot".to_owned(),
        ),
        _ if facts.apparmor_restricts == Some(1) => (
            Refusal::AppArmor,
            sysctl("kernel.apparmor_restrict_unprivileged_userns=0"),
        ),
        _ if facts.filtered => {
            let fix =
                "start the container that kiln runs in with `--security-opt seccomp=unconfined`";
            (Refusal::Seccomp, fix.to_owned())
        }
        Trial::Create(errno) | Trial::Use(errno) => {
            let error = io::Error::from_raw_os_error(errno);
            (
                Refusal::Unknown,
                format!("it says `{error}`; run kiln as root"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_both_ways() {
        let map = IdMap::own_and(1000, &[(100000, 10), (200000, 5)]);
        assert_eq!(map.to_string(), "0 1000 1\n1 100000 10\n11 200000 5\n");
        assert_eq!(IdMap::parse(&map.to_string()), map);
        assert_eq!(map.to_host(0), Some(1000));
        assert_eq!(map.to_host(12), Some(200001));
        assert_eq!(map.to_host(16), None);
        assert_eq!(map.to_container(100009), Some(10));
        assert_eq!(map.to_container(0), None);
    }

    #[test]
    fn an_identity_is_of_what_there_is() {
        let of = IdMap::parse("         0     100000      65536\n");
        assert_eq!(IdMap::identity(&of).to_string(), "0 0 65536\n");
    }

    #[test]
    fn an_id_that_is_too_high_takes_whole_lines() {
        let map = IdMap::own_and(1000, &[(100000, 65536)]);
        let fewer = IdMap::own_and(1000, &[(100000, 60000)]);
        let check = |gids: &IdMap, id, expected| assert_eq!(wider(&map, gids, id), expected);
        check(&map, 65536, None);
        check(&map, 65537, Some((65536, 65536)));
        check(&map, 200_000, Some((65536, 196_608)));
        check(&fewer, 65536, Some((60000, 65536)));
        check(&map, u32::MAX, None);
        check(&IdMap::own_and(1000, &[]), 7, None);
        check(&IdMap::identity(&IdMap::parse("0 0 65536")), 70_000, None);
    }

    fn check(trial: Trial, facts: Facts, which: Refusal, fix: &str) {
        let (found, text) = diagnose(trial, &facts);
        assert_eq!(found, which);
        assert!(text.contains(fix), "{text}");
    }

    #[test]
    fn each_mechanism_is_named_with_its_remedy() {
        let eperm = Trial::Create(libc::EPERM);
        let none = Facts::default();
        check(
            Trial::Create(libc::ENOSPC),
            none,
            Refusal::Sysctl,
            "user.max_user_namespaces=28633",
        );
        check(
            eperm,
            Facts {
                unprivileged_clone: Some(0),
                ..none
            },
            Refusal::Sysctl,
            "kernel.unprivileged_userns_clone=1",
        );
        check(
            eperm,
            Facts {
                chrooted: true,
                ..none
            },
            Refusal::Chroot,
            "outside the chroot",
        );
        check(
            eperm,
            Facts {
                filtered: true,
                ..none
            },
            Refusal::Seccomp,
            "seccomp=unconfined",
        );
        check(
            Trial::Use(libc::EACCES),
            Facts {
                apparmor_restricts: Some(1),
                ..none
            },
            Refusal::AppArmor,
            "kernel.apparmor_restrict_unprivileged_userns=0",
        );
        check(
            Trial::Create(libc::EINVAL),
            none,
            Refusal::Kernel,
            "CONFIG_USER_NS",
        );
        check(eperm, none, Refusal::Unknown, "run kiln as root");
    }

    #[test]
    fn probing_answers_in_a_process_with_threads() {
        // Whatever the host allows, the answer is one, and no child is left.
        let first = probe();
        let second = std::thread::spawn(probe).join().unwrap();
        assert_eq!(first, second);
    }
}
