//! Making cgroups, putting a process into them, and removing them, also those that a killed kiln left.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::hierarchy::here;
use super::limits::{self, CgroupPlan, Place, plan};
use crate::error::Error;
use crate::spec::Cgroup;

/// All cgroups that kiln makes are called so, and are locked by the kiln that uses them.
const PREFIX: &str = "kiln-";
/// A step may make cgroups below its own, if it may write there.
const DEPTH: usize = 16;
const REMEDY: &str = "`kiln info` says what can be limited here; as an ordinary user, start kiln by \
                      `systemd-run --user --scope -p Delegate=yes`";

/// Errors unless a sandbox can have this cgroup now; it is made and removed.
pub fn check(wanted: &Cgroup) -> Result<(), Error> {
    Made::new(&plan(here(), wanted)?).map(drop)
}

/// Finds out what can be limited here: each limit with why not, if it cannot.
pub fn probe() -> Vec<(&'static str, Result<(), Error>)> {
    let attempt = |what, controller| Made::new(&limits::probe(here(), what, controller)?).map(drop);
    limits::ALL
        .iter()
        .map(|(what, controller)| (*what, attempt(what, controller)))
        .collect()
}

/// The cgroups of one sandbox; they are removed when it is dropped, which must be when all is ended in them.
#[derive(Debug)]
pub(crate) struct Made {
    places: Vec<MadePlace>,
}

#[derive(Debug)]
struct MadePlace {
    path: PathBuf,
    /// Held while it is used, so that no other kiln takes it for left behind.
    _lock: File,
    /// Those above it that were made for it, lowest first.
    parents: Vec<PathBuf>,
}

/// What a cgroup could not be had for.
struct Failed {
    attempt: String,
    source: io::Error,
}

impl Made {
    pub(crate) fn new(plan: &CgroupPlan) -> Result<Made, Error> {
        let mut made = Made { places: Vec::new() };
        for place in &plan.places {
            let one = make(place).map_err(|Failed { attempt, source }| Error::Cgroup {
                what: place.what.clone(),
                reason: format!("could not {attempt}: {source}"),
                remedy: Some(REMEDY),
            })?;
            made.places.push(one);
        }
        Ok(made)
    }

    /// Puts a process into them.
    pub(crate) fn enter(&self, pid: i32) -> io::Result<()> {
        self.places
            .iter()
            .try_for_each(|place| write(&place.path, "cgroup.procs", &pid.to_string()))
    }

    /// Whether the kernel ended something in them for want of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        // Version 2 and version 1.
        let files = ["memory.events", "memory.oom_control"];
        self.places.iter().any(|place| {
            let texts = files.iter().filter_map(|file| read(&place.path, file).ok());
            texts.into_iter().any(|text| {
                let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
                kills.is_some_and(|count| count.trim() != "0")
            })
        })
    }
}

impl Drop for MadePlace {
    fn drop(&mut self) {
        // The kernel lets go of a cgroup a moment after the last process in it is reaped.
        for pause_millis in [0, 1, 2, 5, 10, 20, 50, 100, 200, 500] {
            std::thread::sleep(Duration::from_millis(pause_millis));
            if remove(&self.path, DEPTH) {
                break;
            }
        }
        for parent in &self.parents {
            // Somebody else may use it by now.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn make(place: &Place) -> Result<MadePlace, Failed> {
    const ATTEMPTS: usize = 16;
    let mut result = try_make(place);
    for _ in 1..ATTEMPTS {
        match &result {
            // Another kiln has removed a parent that it had made.
            Err(failed) if gone(&failed.source) => result = try_make(place),
            _ => break,
        }
    }
    result
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn try_make(place: &Place) -> Result<MadePlace, Failed> {
    let mut parents = Vec::new();
    let result = try_make_below(place, &mut parents);
    parents.reverse();
    match result {
        Ok((path, lock)) => {
            let made = MadePlace {
                path,
                _lock: lock,
                parents,
            };
            // From here on, dropping removes it.
            fill(place, &made.path)?;
            Ok(made)
        }
        Err(failed) => {
            for parent in &parents {
                let _ = std::fs::remove_dir(parent);
            }
            Err(failed)
        }
    }
}

fn try_make_below(place: &Place, parents: &mut Vec<PathBuf>) -> Result<(PathBuf, File), Failed> {
    let below = place
        .parent
        .strip_prefix(&place.root)
        .unwrap_or(Path::new(""));
    let mut path = place.root.clone();
    for name in below {
        path.push(name);
        match std::fs::create_dir(&path) {
            Ok(()) => parents.push(path.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed("make", &path, source)),
        }
        inherit(place, &path)?;
    }
    for controller in place.controllers.iter().filter(|_| place.unified) {
        enable(place, &place.parent, controller)?;
    }
    sweep(&place.parent);
    make_own(&place.parent)
}

/// Makes a new cgroup and locks it.
fn make_own(parent: &Path) -> Result<(PathBuf, File), Failed> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => {}
            // Of a kiln that had this number, or has it in another pid namespace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(source) => return Err(failed("make", &path, source)),
        }
        let lock = open(&path).and_then(|lock| {
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        });
        match lock {
            // A kiln that swept may have been quicker than this one's lock.
            Ok(lock) if path.join("cgroup.procs").exists() => return Ok((path, lock)),
            Ok(_) => continue,
            Err(error) if gone(&error) => continue,
            Err(source) => {
                let _ = std::fs::remove_dir(&path);
                return Err(failed("lock", &path, source));
            }
        }
    }
}

fn fill(place: &Place, path: &Path) -> Result<(), Failed> {
    inherit(place, path)?;
    for one in &place.writes {
        match write(path, one.file, &one.value) {
            Err(error) if one.optional && gone(&error) => {}
            Err(source) => {
                let file = path.join(one.file);
                let attempt = format!("write `{}` to `{}`", one.value, file.display());
                return Err(Failed { attempt, source });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// A new cgroup of processors in version 1 has none, and takes no process before it has.
fn inherit(place: &Place, path: &Path) -> Result<(), Failed> {
    let Some(parent) = path.parent().filter(|_| !place.unified) else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(now) = read(path, file) else {
            return Ok(());
        };
        if !now.trim().is_empty() {
            continue;
        }
        let above =
            read(parent, file).map_err(|source| failed("read", &parent.join(file), source))?;
        write(path, file, above.trim())
            .map_err(|source| failed("write", &path.join(file), source))?;
    }
    Ok(())
}

/// Lets the children of a cgroup of version 2 have a controller.
fn enable(place: &Place, path: &Path, controller: &str) -> Result<(), Failed> {
    const SUBTREE: &str = "cgroup.subtree_control";
    let has =
        |file| read(path, file).map(|text| text.split_whitespace().any(|name| name == controller));
    let file = path.join(SUBTREE);
    if has(SUBTREE).map_err(|source| failed("read", &file, source))? {
        return Ok(());
    }
    if !has("cgroup.controllers").unwrap_or(false) {
        match path.parent() {
            Some(parent) if path != place.root => enable(place, parent, controller)?,
            _ => {
                return Err(Failed {
                    attempt: format!("have the controller `{controller}` in `{}`", path.display()),
                    source: io::Error::other("it is not passed on to that cgroup"),
                });
            }
        }
    }
    let add = || write(path, SUBTREE, &format!("+{controller}"));
    let mut added = add();
    // Only cgroups without processes of their own pass controllers on.
    let is_busy = matches!(&added, Err(error) if error.raw_os_error() == Some(libc::EBUSY));
    if is_busy && place.is_own && path == place.parent && leave(path) {
        added = add();
    }
    added.map_err(|source| Failed {
        attempt: format!("write `+{controller}` to `{}`", file.display()),
        source,
    })
}

/// Moves this process out of its own cgroup into one below, if nobody else is in it.
fn leave(own: &Path) -> bool {
    let myself = std::process::id().to_string();
    let alone = read(own, "cgroup.procs").is_ok_and(|text| text.lines().eq([myself.as_str()]));
    if !alone {
        return false;
    }
    let Ok((path, lock)) = make_own(own) else {
        return false;
    };
    let moved = write(&path, "cgroup.procs", &myself).is_ok();
    match moved {
        // It is this process's as long as it lives.
        true => std::mem::forget(lock),
        false => drop(std::fs::remove_dir(&path)),
    }
    moved
}

/// Removes what killed kilns have left in a parent.
fn sweep(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let Ok(lock) = open(&path) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // What the kernel still ends there is left to the next.
            remove(&path, DEPTH);
        }
    }
}

/// Removes a cgroup with those below it; tells whether it is gone.
fn remove(path: &Path, depth: usize) -> bool {
    match std::fs::remove_dir(path) {
        Err(error) if !gone(&error) && depth > 0 => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                remove(&entry.path(), depth - 1);
            }
            std::fs::remove_dir(path).is_ok()
        }
        Err(error) => gone(&error),
        Ok(()) => true,
    }
}

fn failed(attempt: &str, path: &Path, source: io::Error) -> Failed {
    Failed {
        attempt: format!("{attempt} `{}`", path.display()),
        source,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn read(directory: &Path, file: &str) -> io::Result<String> {
    std::fs::read_to_string(directory.join(file))
}

/// The kernel takes one value by one write, and makes no file.
fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory.join(file), flags, Mode::empty())?;
    rustix::io::write(file.as_fd(), value.as_bytes())?;
    Ok(())
}
