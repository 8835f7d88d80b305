//! From what is wanted to an ordered list of what is to be done: pure data.
//!
//! Descriptors and long byte strings travel beside a plan; it names them by position.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bytestring::ByteString;
use crate::cgroup::{self, CgroupPlan, Hierarchies};
use crate::error::Error;
use crate::spec::{
    DEFAULT_HOSTNAME, Mount, MountSource, Network, Privileges, Resource, RootFs, Spec, Stdio,
};

/// Everything that the first process of a sandbox does, in order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) steps: Vec<Step>,
    pub(crate) process: Process,
}

/// A namespace beside the pid namespace, which the first process is born into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Namespace {
    Mount,
    Ipc,
    Uts,
    Network,
    /// The only one that a sandbox can do without.
    Cgroup,
}

/// One thing done before the process exists.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Hostname(String),
    /// Loopback up.
    Loopback,
    /// Nothing that is mounted from here on is seen outside.
    PrivatePropagation,
    /// Makes the files that [`Source::File`] names by position.
    Files(Vec<Content>),
    /// Attaches the root; all later targets resolve inside it.
    Root {
        fd: usize,
    },
    Mount {
        at: ByteString,
        /// The first that the kernel grants is taken.
        sources: Vec<Source>,
        readonly: bool,
        /// Whether the sandbox does without if the kernel grants none.
        optional: bool,
    },
    /// A device in `/dev`: made, or bound from the host where that is refused.
    Device {
        name: String,
        major: u32,
        minor: u32,
        /// Block or character.
        #[serde(default, skip_serializing_if = "is_false")]
        block: bool,
        /// Whether the sandbox does without if it can be neither made nor bound.
        #[serde(default, skip_serializing_if = "is_false")]
        optional: bool,
    },
    /// A symbolic link in `/dev`.
    Link {
        name: String,
        to: String,
    },
    /// Empty from now on; nothing if it is not there.
    Mask {
        below: Kernel,
        path: String,
    },
    /// Read-only from now on; nothing if it is not there.
    Protect {
        below: Kernel,
        path: String,
    },
    /// A terminal from the sandbox's own `/dev/pts`, also seen as `/dev/console`.
    Terminal {
        rows: u16,
        cols: u16,
    },
    /// From now on no node opens in `/dev` but those that the plan made: a payload that may make
    /// nodes could else make the host's disk.
    NoMoreDevices,
    RootReadonly,
    /// Makes the root the root, and forgets the old one.
    Pivot,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A file system that shows the kernel's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kernel {
    Proc,
    Sys,
}

/// Where a mount comes from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// A detached mount.
    Fd(usize),
    /// A new file system.
    New {
        fs: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        flags: Vec<Flag>,
    },
    /// The same path of the caller's tree with all that is mounted below it.
    Caller(ByteString),
    /// One of the files made before.
    File(usize),
}

/// A file with some of the bytes beside the plan.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Where it will be seen.
    pub(crate) at: ByteString,
    /// Where the bytes start, and how many they are.
    pub(crate) range: (usize, usize),
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Flag {
    Nosuid,
    Nodev,
    Noexec,
}

/// The program and what it is allowed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) args: Vec<ByteString>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<ByteString>,
    pub(crate) cwd: ByteString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) rlimits: Vec<(Resource, u64, u64)>,
    /// Standard input, output and error; `None` is `/dev/null`.
    pub(crate) streams: [Option<usize>; 3],
    /// Whether it keeps every capability that the caller has; else [`crate::capabilities`].
    pub(crate) all_capabilities: bool,
    /// Where among the bytes beside the plan the system call filter is.
    pub(crate) filter: Option<(usize, usize)>,
    /// What executes programs of another processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) emulator: Option<Format>,
    /// Whether the first process hears of what changes owners and attributes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) listen: bool,
}

/// A binary format to register, with the descriptor of its interpreter.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) interpreter: usize,
    pub(crate) name: String,
    pub(crate) magic: Vec<u8>,
    pub(crate) mask: Vec<u8>,
}

/// A descriptor that travels beside the plan, and what the caller must do to it first.
#[derive(Debug)]
pub(crate) enum Handle {
    /// Sent as it is.
    Stream(OwnedFd),
    /// A detached mount to be made private and perhaps read-only.
    Detached {
        fd: OwnedFd,
        target: PathBuf,
        readonly: bool,
    },
    /// Something to be cloned into a detached mount.
    Bind {
        fd: OwnedFd,
        subpath: Option<PathBuf>,
        target: PathBuf,
        readonly: bool,
    },
}

/// A plan with all that travels beside it.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) plan: Plan,
    pub(crate) bytes: Vec<u8>,
    pub(crate) handles: Vec<Handle>,
    /// Whether device nodes in what is mounted open nothing.
    pub(crate) nodev: bool,
    /// What the caller makes and puts the first process into.
    pub(crate) cgroup: Option<CgroupPlan>,
}

/// What the plan depends on beside the spec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host<'a> {
    /// Whether `/sys/fs/cgroup` is the unified hierarchy.
    pub(crate) cgroup2: bool,
    /// The compiled filter, where the kernel has filters.
    pub(crate) filter: Option<&'a [u8]>,
    /// Finds the cgroup hierarchies, where some are needed.
    pub(crate) hierarchies: fn() -> &'static Hierarchies,
}

const MASKED: [(Kernel, &str); 11] = [
    (Kernel::Proc, "asound"),
    (Kernel::Proc, "acpi"),
    (Kernel::Proc, "kcore"),
    (Kernel::Proc, "keys"),
    (Kernel::Proc, "latency_stats"),
    (Kernel::Proc, "timer_list"),
    (Kernel::Proc, "timer_stats"),
    (Kernel::Proc, "sched_debug"),
    (Kernel::Proc, "scsi"),
    (Kernel::Sys, "firmware"),
    (Kernel::Sys, "devices/virtual/powercap"),
];
const PROTECTED: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// Devices that only an insecure sandbox has.
const LOOP_CONTROL: (u32, u32) = (10, 237);
const LOOP_MAJOR: u32 = 7;
const LOOPS: u32 = 8;
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Makes the plan of a spec.
///
/// Errors if the spec cannot mean anything: no program, a relative path, a zero byte.
pub(crate) fn plan(spec: Spec, host: Host<'_>) -> Result<Package, Error> {
    validate(&spec)?;
    let cgroup = spec.cgroup.as_ref();
    let cgroup = cgroup
        .map(|wanted| cgroup::plan((host.hierarchies)(), wanted))
        .transpose()?;
    let default = spec.privileges == Privileges::Default;
    let mut bytes = Vec::new();
    let mut handles = Vec::new();
    let mut steps = Vec::new();
    let mut namespaces = vec![Namespace::Mount, Namespace::Ipc, Namespace::Uts];

    steps.push(Step::Hostname(
        spec.hostname.unwrap_or_else(|| DEFAULT_HOSTNAME.to_owned()),
    ));
    if spec.network == Network::None {
        namespaces.push(Namespace::Network);
        steps.push(Step::Loopback);
    }
    namespaces.push(Namespace::Cgroup);
    steps.push(Step::PrivatePropagation);
    let place_of_files = steps.len();
    let mut files = Vec::new();
    steps.push(Step::Root { fd: 0 });
    handles.push(match spec.root {
        RootFs::Detached(fd) => Handle::Detached {
            fd,
            target: "/".into(),
            readonly: false,
        },
        RootFs::Directory(fd) => Handle::Bind {
            fd,
            subpath: None,
            target: "/".into(),
            readonly: false,
        },
    });

    kernel_file_systems(&mut steps, host, default);
    devices(&mut steps, default);
    dev_file_systems(&mut steps, spec.shm_size_bytes.unwrap_or(DEFAULT_SHM_BYTES));
    let terminal = match spec.stdio {
        Stdio::Terminal { rows, cols } => {
            steps.push(Step::Terminal { rows, cols });
            None
        }
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } => Some([stdin, stdout, stderr]),
    };
    if default {
        let protected = PROTECTED.iter().map(|path| (Kernel::Proc, *path));
        steps.extend(protected.map(|(below, path)| Step::Protect {
            below,
            path: path.to_owned(),
        }));
        steps.extend(MASKED.iter().map(|(below, path)| Step::Mask {
            below: *below,
            path: (*path).into(),
        }));
    }

    let provided = [
        ("/etc/resolv.conf", spec.resolv_conf),
        ("/etc/hosts", spec.hosts),
    ];
    for (target, content) in provided {
        if let Some(content) = content {
            let source = MountSource::File {
                bytes: content,
                mode: 0o644,
                uid: 0,
                gid: 0,
            };
            let mount = Mount {
                target: target.into(),
                source,
                readonly: true,
            };
            steps.push(mount_step(mount, &mut bytes, &mut files, &mut handles));
        }
    }
    for mount in spec.mounts {
        steps.push(mount_step(mount, &mut bytes, &mut files, &mut handles));
    }
    if !files.is_empty() {
        steps.insert(place_of_files, Step::Files(files));
    }
    if spec.root_readonly {
        steps.push(Step::RootReadonly);
    }
    steps.push(Step::Pivot);

    let mut streams = [None; 3];
    for (place, stream) in streams.iter_mut().zip(terminal.into_iter().flatten()) {
        *place = stream.map(|fd| {
            handles.push(Handle::Stream(fd));
            handles.len() - 1
        });
    }
    let emulator = spec.emulator.map(|emulator| {
        handles.push(Handle::Stream(emulator.interpreter));
        Format {
            interpreter: handles.len() - 1,
            name: emulator.name,
            magic: emulator.magic,
            mask: emulator.mask,
        }
    });
    let filter = host
        .filter
        .filter(|_| default)
        .map(|filter| append(&mut bytes, filter));
    let env = spec
        .env
        .iter()
        .map(|(name, value)| ByteString([name.as_bytes(), b"=", value.as_bytes()].concat()));
    let process = Process {
        args: spec.args.iter().map(ByteString::of).collect(),
        env: env.collect(),
        cwd: ByteString::of(&spec.cwd),
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.groups,
        rlimits: spec
            .rlimits
            .iter()
            .map(|r| (r.resource, r.soft, r.hard))
            .collect(),
        streams,
        all_capabilities: !default,
        filter,
        emulator,
        listen: spec.listen,
    };
    Ok(Package {
        plan: Plan {
            namespaces,
            steps,
            process,
        },
        bytes,
        handles,
        nodev: default,
        cgroup,
    })
}

/// What shows the kernel's state; `protected` is whether it may only be read.
fn kernel_file_systems(steps: &mut Vec<Step>, host: Host<'_>, protected: bool) {
    let all = [Flag::Nosuid, Flag::Nodev, Flag::Noexec];
    let new = |fs: &str, options: &[(&str, &str)], flags: &[Flag]| Source::New {
        fs: fs.to_owned(),
        options: options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        flags: flags.to_vec(),
    };
    let mut mount = |at: &str, sources: Vec<Source>, readonly, optional| {
        steps.push(Step::Mount {
            at: at.into(),
            sources,
            readonly,
            optional,
        });
    };
    // A container's own /proc is partly hidden, and then the kernel refuses a new one inside it.
    mount(
        "/proc",
        vec![new("proc", &[], &all), Source::Caller("/proc".into())],
        false,
        false,
    );
    mount(
        "/sys",
        vec![new("sysfs", &[], &all), Source::Caller("/sys".into())],
        protected,
        true,
    );
    if host.cgroup2 {
        mount(
            "/sys/fs/cgroup",
            vec![new("cgroup2", &[], &all)],
            protected,
            true,
        );
    }
    let dev = [("mode", "755"), ("size", "65536k")];
    mount(
        "/dev",
        vec![new("tmpfs", &dev, &[Flag::Nosuid])],
        false,
        false,
    );
}

/// The devices of `/dev`. Where not even `protected`, the step may make more of them, and has those
/// that image tools mount through, as under BuildKit.
fn devices(steps: &mut Vec<Step>, protected: bool) {
    for (name, major, minor) in DEVICES {
        steps.push(Step::Device {
            name: name.to_owned(),
            major,
            minor,
            block: false,
            optional: false,
        });
    }
    if protected {
        steps.push(Step::NoMoreDevices);
    } else {
        let (major, minor) = LOOP_CONTROL;
        steps.push(Step::Device {
            name: "loop-control".to_owned(),
            major,
            minor,
            block: false,
            optional: true,
        });
        steps.extend((0..LOOPS).map(|minor| Step::Device {
            name: format!("loop{minor}"),
            major: LOOP_MAJOR,
            minor,
            block: true,
            optional: true,
        }));
    }
    for (name, to) in LINKS {
        steps.push(Step::Link {
            name: name.to_owned(),
            to: to.to_owned(),
        });
    }
}

fn dev_file_systems(steps: &mut Vec<Step>, shm_size_bytes: u64) {
    let quiet = vec![Flag::Nosuid, Flag::Noexec];
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let pts = vec![
        option("newinstance", ""),
        option("ptmxmode", "0666"),
        option("mode", "0620"),
    ];
    // Group 5 is `tty`, which a user namespace with one id does not have.
    let with_group = pts.iter().cloned().chain([option("gid", "5")]).collect();
    steps.push(Step::Mount {
        at: "/dev/pts".into(),
        sources: [with_group, pts]
            .map(|options| Source::New {
                fs: "devpts".to_owned(),
                options,
                flags: quiet.clone(),
            })
            .into(),
        readonly: false,
        optional: false,
    });
    let flags = vec![Flag::Nosuid, Flag::Nodev, Flag::Noexec];
    let options = vec![
        option("mode", "1777"),
        option("size", &shm_size_bytes.to_string()),
    ];
    steps.push(Step::Mount {
        at: "/dev/shm".into(),
        sources: vec![Source::New {
            fs: "tmpfs".to_owned(),
            options,
            flags: flags.clone(),
        }],
        readonly: false,
        optional: false,
    });
    steps.push(Step::Mount {
        at: "/dev/mqueue".into(),
        sources: vec![Source::New {
            fs: "mqueue".to_owned(),
            options: Vec::new(),
            flags,
        }],
        readonly: false,
        optional: true,
    });
}

fn mount_step(
    mount: Mount,
    bytes: &mut Vec<u8>,
    files: &mut Vec<Content>,
    handles: &mut Vec<Handle>,
) -> Step {
    let Mount {
        target,
        source,
        readonly,
    } = mount;
    let at = ByteString::of(&target);
    let source = match source {
        MountSource::Detached(fd) => {
            handles.push(Handle::Detached {
                fd,
                target,
                readonly,
            });
            Source::Fd(handles.len() - 1)
        }
        MountSource::Bind { fd, subpath } => {
            handles.push(Handle::Bind {
                fd,
                subpath,
                target,
                readonly,
            });
            Source::Fd(handles.len() - 1)
        }
        MountSource::Tmpfs { size_bytes, mode } => {
            let size = size_bytes.map(|size| ("size".to_owned(), size.to_string()));
            let mode = ("mode".to_owned(), format!("{mode:o}"));
            Source::New {
                fs: "tmpfs".to_owned(),
                options: [mode].into_iter().chain(size).collect(),
                flags: vec![Flag::Nosuid, Flag::Nodev],
            }
        }
        MountSource::File {
            bytes: content,
            mode,
            uid,
            gid,
        } => {
            files.push(Content {
                at: at.clone(),
                range: append(bytes, &content),
                mode,
                uid,
                gid,
            });
            Source::File(files.len() - 1)
        }
    };
    Step::Mount {
        at,
        sources: vec![source],
        readonly,
        optional: false,
    }
}

fn append(bytes: &mut Vec<u8>, more: &[u8]) -> (usize, usize) {
    let start = bytes.len();
    bytes.extend_from_slice(more);
    (start, more.len())
}

fn validate(spec: &Spec) -> Result<(), Error> {
    let invalid = |what, value: String| Err(Error::Invalid { what, value });
    if spec.args.is_empty() {
        return invalid("no program in", "args".to_owned());
    }
    let env = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if let Some(text) = spec
        .args
        .iter()
        .chain(env)
        .find(|text| text.as_bytes().contains(&0))
    {
        return invalid(
            "a zero byte in",
            text.to_string_lossy().escape_debug().to_string(),
        );
    }
    let paths = spec
        .mounts
        .iter()
        .map(|mount| mount.target.as_path())
        .chain([spec.cwd.as_path()]);
    for path in paths {
        if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
            return invalid(
                "the path",
                path.to_string_lossy().escape_debug().to_string(),
            );
        }
    }
    let ids = spec
        .user
        .groups
        .iter()
        .chain([&spec.user.uid, &spec.user.gid]);
    if let Some(id) = ids.into_iter().find(|id| **id == NOBODY_AT_ALL) {
        return invalid("the user or group", id.to_string());
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| is_root(&mount.target)) {
        return invalid("a mount on", mount.target.display().to_string());
    }
    Ok(())
}

/// What `setresuid` takes for "leave it as it is", and must not be asked for: that would be root.
const NOBODY_AT_ALL: u32 = u32::MAX;

fn is_root(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::RootDir | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Rlimit, User};

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn spec() -> Spec {
        Spec::new(RootFs::Detached(fd()), ["/bin/sh", "-c", "make"])
    }

    /// A line for each step, then one for the process, then what travels beside.
    fn render(spec: Spec, cgroup2: bool) -> String {
        let Package {
            plan,
            bytes,
            handles,
            nodev,
            ..
        } = plan(
            spec,
            Host {
                cgroup2,
                filter: Some(b"filter!!"),
                hierarchies: cgroup::here,
            },
        )
        .unwrap();
        let mut text = format!("namespaces {:?}\n", plan.namespaces);
        for step in &plan.steps {
            text += &serde_json::to_string(step).unwrap();
            text += "\n";
        }
        text += &format!(
            "process {}\n",
            serde_json::to_string(&plan.process).unwrap()
        );
        text += &format!("bytes {:?}\n", String::from_utf8_lossy(&bytes));
        if !nodev {
            text += "device nodes open\n";
        }
        for (at, handle) in handles.iter().enumerate() {
            text += &match handle {
                Handle::Stream(_) => format!("fd {at} stream\n"),
                Handle::Detached {
                    target, readonly, ..
                } => {
                    format!("fd {at} detached {target:?} readonly={readonly}\n")
                }
                Handle::Bind {
                    subpath,
                    target,
                    readonly,
                    ..
                } => {
                    format!("fd {at} bind {subpath:?} {target:?} readonly={readonly}\n")
                }
            };
        }
        let text_form = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text_form).unwrap(), plan);
        text
    }

    #[test]
    fn the_default_plan() {
        insta::assert_snapshot!(render(spec(), true));
    }

    #[test]
    fn a_plan_with_everything() {
        let mut spec = spec();
        spec.root_readonly = true;
        spec.env = vec![("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())];
        spec.cwd = "/src".into();
        spec.user = User {
            uid: 1000,
            gid: 100,
            groups: vec![5],
        };
        spec.hostname = Some("builder".to_owned());
        spec.network = Network::None;
        spec.rlimits = vec![Rlimit {
            resource: Resource::Nofile,
            soft: 1024,
            hard: u64::MAX,
        }];
        spec.stdio = Stdio::Streams {
            stdin: None,
            stdout: Some(fd()),
            stderr: Some(fd()),
        };
        spec.shm_size_bytes = Some(1 << 20);
        spec.resolv_conf = Some(b"nameserver 1.1.1.1\n".to_vec());
        spec.hosts = Some(b"127.0.0.1 localhost\n".to_vec());
        let mount = |target: &str, source, readonly| Mount {
            target: target.into(),
            source,
            readonly,
        };
        let secret = MountSource::File {
            bytes: b"s3cret".to_vec(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        spec.mounts = vec![
            mount(
                "/src",
                MountSource::Bind {
                    fd: fd(),
                    subpath: Some("app".into()),
                },
                true,
            ),
            mount("/cache", MountSource::Detached(fd()), false),
            mount(
                "/tmp",
                MountSource::Tmpfs {
                    size_bytes: Some(4096),
                    mode: 0o1777,
                },
                false,
            ),
            mount("/run/secrets/key", secret, true),
        ];
        insta::assert_snapshot!(render(spec, false));
    }

    #[test]
    fn an_insecure_plan_with_a_terminal() {
        let mut spec = spec();
        spec.privileges = Privileges::Insecure;
        spec.stdio = Stdio::Terminal { rows: 24, cols: 80 };
        insta::assert_snapshot!(render(spec, false));
    }

    #[test]
    fn bytes_that_are_not_text_survive() {
        let odd = ByteString(vec![0xff, b'a']);
        let text = serde_json::to_string(&odd).unwrap();
        assert_eq!(text, "[255,97]");
        assert_eq!(serde_json::from_str::<ByteString>(&text).unwrap(), odd);
    }
}
