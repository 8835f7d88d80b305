//! Carrying a plan's steps out, in the first process of the sandbox.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags};
use rustix::pty::OpenptFlags;
use rustix::thread::ThreadNameSpaceType;

use crate::bytestring::ByteString;
use crate::error::Phase;
use crate::mountfd::{self, Reach};
use crate::net;
use crate::plan::{Content, Flag, Kernel, Namespace, Source, Step};
use crate::resolve::Root;
use crate::wire::{self, Fault};

/// What setting up leaves behind.
pub(crate) struct Outcome {
    pub(crate) stubs: Vec<(ByteString, bool)>,
    pub(crate) notes: Vec<String>,
    pub(crate) terminal: Option<Terminal>,
}

/// Both sides of the sandbox's terminal.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// Moves this process into new namespaces.
pub(crate) fn enter(namespaces: &[Namespace]) -> Result<(), Fault> {
    use nix::sched::CloneFlags;
    let mut flags = CloneFlags::empty();
    let mut cgroup = false;
    for namespace in namespaces {
        match namespace {
            Namespace::Mount => flags |= CloneFlags::CLONE_NEWNS,
            Namespace::Ipc => flags |= CloneFlags::CLONE_NEWIPC,
            Namespace::Uts => flags |= CloneFlags::CLONE_NEWUTS,
            Namespace::Network => flags |= CloneFlags::CLONE_NEWNET,
            Namespace::Cgroup => cgroup = true,
        }
    }
    let unshare = |flags| nix::sched::unshare(flags).map_err(io::Error::from);
    unshare(flags).map_err(|error| Fault::of(Phase::Namespaces, &error))?;
    if cgroup {
        // Kernels without cgroups have nothing that this would hide.
        let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    }
    Ok(())
}

/// Carries the steps out.
pub(crate) fn apply(
    steps: &[Step],
    bytes: &[u8],
    fds: &mut [Option<OwnedFd>],
) -> Result<Outcome, Fault> {
    let mut setup = Setup {
        bytes,
        fds,
        files: Vec::new(),
        root: None,
        kept: BTreeMap::new(),
        empty: None,
        outcome: Outcome {
            stubs: Vec::new(),
            notes: Vec::new(),
            terminal: None,
        },
    };
    for step in steps {
        setup.step(step)?;
    }
    if let Some(root) = setup.root {
        setup.outcome.stubs = root.stubs;
    }
    Ok(setup.outcome)
}

/// What the kernel's file systems are remembered by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    Kernel(Kernel),
    Dev,
    Pts,
}

struct Setup<'a> {
    bytes: &'a [u8],
    fds: &'a mut [Option<OwnedFd>],
    /// Made and not yet attached.
    files: Vec<Option<OwnedFd>>,
    root: Option<Root>,
    /// Mounts by descriptor, since their paths may be links, or covered, in a hostile image.
    kept: BTreeMap<Kept, OwnedFd>,
    /// An attached empty read-only directory.
    empty: Option<OwnedFd>,
    outcome: Outcome,
}

impl Setup<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Fault> {
        let plain = |phase| move |error: io::Error| Fault::of(phase, &error);
        match step {
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .map_err(|error| Fault::at(Phase::Hostname, name.as_bytes(), &error.into())),
            Step::Loopback => net::loopback_up().map_err(plain(Phase::Loopback)),
            Step::PrivatePropagation => private_propagation().map_err(plain(Phase::Root)),
            Step::Files(files) => self.make_files(files),
            Step::Root { fd } => self.attach_root(*fd).map_err(plain(Phase::Root)),
            Step::Mount {
                at,
                sources,
                readonly,
                optional,
            } => match self.mount(at, sources, *readonly) {
                Err(fault) if *optional => {
                    self.note_missing(at, &fault);
                    Ok(())
                }
                other => other,
            },
            Step::Device {
                name,
                major,
                minor,
                block,
                optional,
            } => {
                let kind = match block {
                    true => FileType::BlockDevice,
                    false => FileType::CharacterDevice,
                };
                match self.device(name, kind, *major, *minor) {
                    Err(_) if *optional => Ok(()),
                    made => made.map_err(|error| Fault::at(Phase::Device, &in_dev(name), &error)),
                }
            }
            Step::Link { name, to } => self
                .kept(Kept::Dev)
                .and_then(|dev| Ok(rustix::fs::symlinkat(to.as_str(), dev, name.as_str())?))
                .map_err(|error| Fault::at(Phase::Device, &in_dev(name), &error)),
            Step::Mask { below, path } => self
                .mask(*below, path)
                .map_err(|error| Fault::at(Phase::Mask, &in_kernel(*below, path), &error)),
            Step::Protect { below, path } => self
                .protect(*below, path)
                .map_err(|error| Fault::at(Phase::Mask, &in_kernel(*below, path), &error)),
            Step::Terminal { rows, cols } => {
                self.terminal(*rows, *cols).map_err(plain(Phase::Terminal))
            }
            Step::NoMoreDevices => self
                .kept(Kept::Dev)
                .and_then(|dev| {
                    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
                    mountfd::make_private(dev, Reach::This, attributes)
                })
                .map_err(|error| Fault::at(Phase::Device, b"/dev", &error)),
            Step::RootReadonly => self.root_readonly().map_err(plain(Phase::Root)),
            Step::Pivot => self.pivot().map_err(plain(Phase::Root)),
        }
    }

    fn make_files(&mut self, files: &[Content]) -> Result<(), Fault> {
        let plain = |error: io::Error| Fault::of(Phase::Files, &error);
        let options = [("mode".to_owned(), "700".to_owned())];
        let scratch = mountfd::new_file_system("tmpfs", &options, MountAttrFlags::empty());
        let scratch = scratch.map_err(plain)?;
        // Only what is attached can be cloned. Nothing may be left here when the root is pivoted:
        // of mounts on one point, the topmost alone would be taken away.
        mountfd::attach_to_root(scratch.as_fd()).map_err(plain)?;
        for (index, file) in files.iter().enumerate() {
            let made = self.make_file(scratch.as_fd(), &index.to_string(), file);
            let made = made.map_err(|error| Fault::at(Phase::Files, file.at.as_bytes(), &error))?;
            self.files.push(Some(made));
        }
        rustix::mount::unmount("/", UnmountFlags::DETACH).map_err(|error| plain(error.into()))
    }

    fn make_file(
        &self,
        scratch: BorrowedFd<'_>,
        name: &str,
        content: &Content,
    ) -> io::Result<OwnedFd> {
        let (start, length) = content.range;
        let bytes = start
            .checked_add(length)
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(rustix::io::Errno::INVAL)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(scratch, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        io::Write::write_all(&mut file, bytes)?;
        if (content.uid, content.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(content.uid), Gid::from_raw(content.gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(content.mode & 0o7777))?;
        mountfd::clone_at(Some(scratch), OsStr::new(name))
    }

    fn attach_root(&mut self, fd: usize) -> io::Result<()> {
        let mount = self.take(fd)?;
        mountfd::attach_to_root(mount.as_fd())?;
        self.root = Some(Root::new(mount)?);
        Ok(())
    }

    fn mount(&mut self, at: &ByteString, sources: &[Source], readonly: bool) -> Result<(), Fault> {
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        let mut found = None;
        for (tries, source) in sources.iter().enumerate() {
            match self.source(source, readonly) {
                Ok(mount) => {
                    found = Some((tries, mount));
                    break;
                }
                // The first refusal is the telling one; what follows are ways around it.
                Err(error) if tries == 0 => refused = error,
                Err(_) => {}
            }
        }
        let Some((tries, mount)) = found else {
            return Err(Fault::at(Phase::Mount, at.as_bytes(), &refused));
        };
        if tries > 0 && matches!(sources.get(tries), Some(Source::Caller(_))) {
            let at = String::from_utf8_lossy(at.as_bytes()).into_owned();
            self.outcome
                .notes
                .push(format!("{at} is the host's: a new one gives {refused}"));
        }
        let point = mountfd::is_dir(&mount)
            .and_then(|is_dir| self.root()?.mount_point(at.as_bytes(), is_dir))
            .map_err(|error| Fault::at(Phase::MountPoint, at.as_bytes(), &error))?;
        mountfd::attach(mount.as_fd(), point.as_fd())
            .map_err(|error| Fault::at(Phase::Mount, at.as_bytes(), &error))?;
        let kept = match at.as_bytes() {
            b"/proc" => Kept::Kernel(Kernel::Proc),
            b"/sys" => Kept::Kernel(Kernel::Sys),
            b"/dev" => Kept::Dev,
            b"/dev/pts" => Kept::Pts,
            _ => return Ok(()),
        };
        // The plan's own mounts come first; one of the caller's on the same path is not ours.
        self.kept.entry(kept).or_insert(mount);
        Ok(())
    }

    fn source(&mut self, source: &Source, readonly: bool) -> io::Result<OwnedFd> {
        let readonly = if readonly {
            MountAttrFlags::MOUNT_ATTR_RDONLY
        } else {
            MountAttrFlags::empty()
        };
        let mount = match source {
            // Made private and read-only by the caller.
            Source::Fd(fd) => return self.take(*fd),
            Source::New { fs, options, flags } => {
                let flags = flags
                    .iter()
                    .fold(readonly, |all, flag| all | attribute(*flag));
                return mountfd::new_file_system(fs, options, flags);
            }
            Source::Caller(path) => mountfd::clone_at(None, path.as_os_str())?,
            Source::File(file) => {
                let file = self.files.get_mut(*file).and_then(Option::take);
                let file = file.ok_or(rustix::io::Errno::BADF)?;
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                mountfd::make_private(file.as_fd(), Reach::This, readonly | attributes)?;
                return Ok(file);
            }
        };
        mountfd::make_private(mount.as_fd(), Reach::Below, readonly)?;
        Ok(mount)
    }

    fn device(&mut self, name: &str, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
        let dev = self.kept(Kept::Dev)?;
        let number = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::mknodat(dev, name, kind, mode, number) {
            // The umask has taken the write bits.
            Ok(()) => {
                rustix::fs::chmodat(dev, name, mode, rustix::fs::AtFlags::empty())?;
                // A mount of its own goes on opening when no other node may.
                let own = mountfd::clone_at(Some(dev), OsStr::new(name))?;
                mountfd::make_private(own.as_fd(), Reach::This, MountAttrFlags::empty())?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let point = rustix::fs::openat(dev, name, flags, Mode::empty())?;
                return mountfd::attach(own.as_fd(), point.as_fd());
            }
            Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let outer = mountfd::clone_at(None, OsStr::from_bytes(&in_dev(name)))?;
        mountfd::make_private(outer.as_fd(), Reach::This, MountAttrFlags::empty())?;
        mountfd::attach(outer.as_fd(), new_file(dev, name)?.as_fd())
    }

    fn mask(&mut self, below: Kernel, path: &str) -> io::Result<()> {
        let Some(point) = self.inside(below, path)? else {
            return Ok(());
        };
        let cover = if mountfd::is_dir(&point)? {
            match &self.empty {
                Some(empty) => mountfd::clone_tree(empty.as_fd())?,
                None => {
                    let options = [("mode".to_owned(), "755".to_owned())];
                    let attributes =
                        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
                    mountfd::new_file_system("tmpfs", &options, attributes)?
                }
            }
        } else {
            mountfd::clone_at(Some(self.kept(Kept::Dev)?), OsStr::new("null"))?
        };
        mountfd::attach(cover.as_fd(), point.as_fd())?;
        if self.empty.is_none() && mountfd::is_dir(&cover)? {
            self.empty = Some(cover);
        }
        Ok(())
    }

    fn protect(&mut self, below: Kernel, path: &str) -> io::Result<()> {
        let Some(point) = self.inside(below, path)? else {
            return Ok(());
        };
        let again = mountfd::clone_tree(point.as_fd())?;
        mountfd::make_private(
            again.as_fd(),
            Reach::Below,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        mountfd::attach(again.as_fd(), point.as_fd())
    }

    fn inside(&self, below: Kernel, path: &str) -> io::Result<Option<OwnedFd>> {
        let Some(fd) = self.kept.get(&Kept::Kernel(below)) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(fd, path, flags, Mode::empty(), resolve) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn terminal(&mut self, rows: u16, cols: u16) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let pts = self.kept(Kept::Pts)?;
        let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        wire::set_size(master.as_fd(), rows, cols)?;
        // The first terminal of a new instance.
        let console = mountfd::clone_at(Some(pts), OsStr::new("0"))?;
        let point = new_file(self.kept(Kept::Dev)?, "console")?;
        mountfd::attach(console.as_fd(), point.as_fd())?;
        self.outcome.terminal = Some(Terminal { master, slave });
        Ok(())
    }

    fn root_readonly(&mut self) -> io::Result<()> {
        let root = self.root()?;
        mountfd::make_private(root.as_fd(), Reach::This, MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn pivot(&mut self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::open("/", flags, Mode::empty())?;
        rustix::process::fchdir(self.root()?.as_fd())?;
        // The old root ends up on top of the new one, from where it is taken away with all below.
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(old)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")?;
        Ok(())
    }

    fn root(&mut self) -> io::Result<&mut Root> {
        Ok(self.root.as_mut().ok_or(rustix::io::Errno::INVAL)?)
    }

    fn kept(&self, kept: Kept) -> io::Result<BorrowedFd<'_>> {
        Ok(self
            .kept
            .get(&kept)
            .ok_or(rustix::io::Errno::INVAL)?
            .as_fd())
    }

    fn take(&mut self, fd: usize) -> io::Result<OwnedFd> {
        Ok(self
            .fds
            .get_mut(fd)
            .and_then(Option::take)
            .ok_or(rustix::io::Errno::BADF)?)
    }

    fn note_missing(&mut self, at: &ByteString, fault: &Fault) {
        if let Fault::Setup { errno, .. } = fault {
            let at = String::from_utf8_lossy(at.as_bytes()).into_owned();
            let why = io::Error::from_raw_os_error(*errno);
            self.outcome.notes.push(format!("there is no {at}: {why}"));
        }
    }
}

/// Leaves a chroot that the caller may be in, and cuts this namespace's mounts off from all others.
///
/// In a chroot, the root could not be pivoted, and whoever may chroot could walk out of the new one.
fn private_propagation() -> io::Result<()> {
    let this = rustix::process::getpid();
    let pidfd = pidfd_of(this)?;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::MOUNT)?;
    mountfd::make_everything_private()
}

fn pidfd_of(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn new_file(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn attribute(flag: Flag) -> MountAttrFlags {
    match flag {
        Flag::Nosuid => MountAttrFlags::MOUNT_ATTR_NOSUID,
        Flag::Nodev => MountAttrFlags::MOUNT_ATTR_NODEV,
        Flag::Noexec => MountAttrFlags::MOUNT_ATTR_NOEXEC,
    }
}

fn in_dev(name: &str) -> Vec<u8> {
    format!("/dev/{name}").into_bytes()
}

fn in_kernel(below: Kernel, path: &str) -> Vec<u8> {
    let root = match below {
        Kernel::Proc => "/proc",
        Kernel::Sys => "/sys",
    };
    format!("{root}/{path}").into_bytes()
}
