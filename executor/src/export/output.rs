//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Destination;
use crate::error::Error;

/// How standard output is called in errors.
const STDOUT: &str = "standard output";
/// What leads to it in the end.
const STDOUTS: [&str; 2] = ["/proc/self/fd/1", "/dev/fd/1"];
/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// An archive being written.
///
/// A file is written beside its destination, without a name where the file system can, and takes
/// the destination's place in [`Output::finish`]. Something that is no plain file, such as a pipe,
/// is written to directly.
pub(crate) struct Output {
    file: File,
    path: PathBuf,
    state: State,
}

enum State {
    /// Nothing is to be done at the end.
    Direct,
    /// Written under no name.
    Nameless,
    /// Written under this name.
    Named(PathBuf),
}

impl Output {
    /// Begins to write.
    pub(crate) fn create(destination: &Destination) -> Result<Output, Error> {
        let path = match destination {
            Destination::Stdout => return Output::stdout(PathBuf::from(STDOUT)),
            Destination::File(path) => path,
        };
        Output::at(path)
    }

    /// Begins to write where others write, too, each behind the other.
    fn stdout(path: PathBuf) -> Result<Output, Error> {
        let file = rustix::io::dup(rustix::stdio::stdout())
            .map_err(|error| Error::io("open", &path)(error.into()))?;
        Ok(Output {
            file: file.into(),
            path,
            state: State::Direct,
        })
    }

    fn at(path: &Path) -> Result<Output, Error> {
        let place = Place::of(path).map_err(Error::io("write", path))?;
        let (file, path, state) = match place {
            // Opened once more it would have an end of its own.
            Place::Open { path, .. } if STDOUTS.iter().any(|name| path == Path::new(name)) => {
                return Output::stdout(path);
            }
            Place::Open { path, append } => {
                let file = OpenOptions::new().write(true).append(append).open(&path);
                let file = file.map_err(Error::io("open", &path))?;
                (file, path, State::Direct)
            }
            Place::File(path) => {
                let (file, state) = beside(&path)?;
                (file, path, state)
            }
        };
        Ok(Output { file, path, state })
    }

    /// What it is called in errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to which others may copy without looking at bytes.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.file.flush().map_err(Error::io("write", &self.path))?;
        if let State::Nameless = self.state {
            let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link =
                |name: &Path| rustix::fs::linkat(CWD, &from, CWD, name, AtFlags::SYMLINK_FOLLOW);
            // A new file is never seen under another name; only a rename replaces one.
            let failed = |error: Errno| Error::io("name", &self.path)(error.into());
            self.state = match link(&self.path) {
                Err(Errno::EXIST) => {
                    let name = temporary(&self.path);
                    link(&name).map_err(failed)?;
                    State::Named(name)
                }
                linked => linked.map(|()| State::Direct).map_err(failed)?,
            };
        }
        if let State::Named(name) = &self.state {
            fs::rename(name, &self.path).map_err(Error::io("replace", &self.path))?;
            self.state = State::Direct;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let State::Named(name) = &self.state {
            let _ = fs::remove_file(name);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What a path stands for, links followed: whoever has a link there wants what is behind it.
enum Place {
    /// A file that is replaced, or is not there yet.
    File(PathBuf),
    /// What is no file, such as a pipe, or is open already: it is written to, an open file at its end.
    Open { path: PathBuf, append: bool },
}

impl Place {
    fn of(path: &Path) -> io::Result<Place> {
        let path = behind_links(path)?;
        // Only the kernel's own links are left, to what a process has open.
        if path.is_symlink() {
            return Ok(Place::Open { path, append: true });
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Err(Errno::ISDIR.into()),
            Ok(metadata) if !metadata.is_file() => Ok(Place::Open {
                path,
                append: false,
            }),
            _ => Ok(Place::File(path)),
        }
    }
}

/// Where a path leads, also if nothing is there yet; links of `/proc` to open files are not followed.
///
/// Errors where links go in a circle.
pub fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else {
            return Ok(path);
        };
        let directory = parent(&path);
        let of_the_kernel = rustix::fs::statfs(directory)
            .is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC);
        if of_the_kernel {
            return Ok(path);
        }
        path = directory.join(target);
    }
    Err(Errno::LOOP.into())
}

/// Writes a small file as a whole, behind whatever links lead there; what is no file is written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut output = Output::at(path)?;
    output.write_all(bytes).map_err(Error::io("write", path))?;
    output.finish()
}

/// Errors if [`write_whole`] could not write there; leaves nothing.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    match Place::of(path).map_err(Error::io("write", path))? {
        // Opening a pipe would wait for its reader.
        Place::Open { path, .. } => rustix::fs::access(&path, Access::WRITE_OK)
            .map_err(|error| Error::io("write", &path)(error.into())),
        Place::File(path) => beside(&path).map(|(file, state)| drop(Output { file, path, state })),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path) -> Result<(File, State), Error> {
    let directory = parent(path);
    if path.file_name().is_none() {
        return Err(Error::io("write", path)(io::ErrorKind::IsADirectory.into()));
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let nameless = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666));
    // Naming it later takes /proc.
    if let (Ok(file), true) = (nameless, Path::new("/proc/self/fd").exists()) {
        return Ok((OwnedFd::into(file), State::Nameless));
    }
    let name = temporary(path);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&name)
        .map_err(Error::io("create", path))?;
    Ok((file, State::Named(name)))
}

/// A name beside `path` that nothing else has.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name may have 255 bytes, and this one is only for a moment.
    let short: String = name.chars().take(40).collect();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{short}.kiln-{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_only_when_it_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&Destination::File(path.clone())).unwrap();
        output.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["x.tar"]);
    }

    #[test]
    fn giving_up_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let mut output = Output::create(&Destination::File(path.clone())).unwrap();
        output.write_all(b"new").unwrap();
        drop(output);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn a_named_temporary_file_is_removed_and_renamed_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let make = || {
            let name = temporary(&path);
            let file = File::create_new(&name).unwrap();
            Output {
                file,
                path: path.clone(),
                state: State::Named(name),
            }
        };
        drop(make());
        assert!(names(directory.path()).is_empty());
        make().finish().unwrap();
        assert_eq!(names(directory.path()), ["x.tar"]);
    }

    #[test]
    fn the_file_behind_a_link_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (
            directory.path().join("x.tar"),
            directory.path().join("link"),
        );
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(link.is_symlink());
    }

    #[test]
    fn a_link_to_nothing_yet_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (
            directory.path().join("x.tar"),
            directory.path().join("link"),
        );
        std::os::unix::fs::symlink("again", &link).unwrap();
        std::os::unix::fs::symlink("x.tar", directory.path().join("again")).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["again", "link", "x.tar"]);
        std::os::unix::fs::symlink("circle", directory.path().join("circle")).unwrap();
        let error = write_whole(&directory.path().join("circle"), b"").unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
    }

    #[test]
    fn an_open_file_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one ").unwrap();
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(&open, directory.path().join("stdout")).unwrap();
        write_whole(Path::new(&open), b"two ").unwrap();
        write_whole(&directory.path().join("stdout"), b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two three");
    }

    #[test]
    fn what_could_not_be_written_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        check_writable(&directory.path().join("x")).unwrap();
        assert!(names(directory.path()).is_empty());
        check_writable(Path::new("/dev/full")).unwrap();
        for path in ["/no/such/x", "/"] {
            check_writable(Path::new(path)).unwrap_err();
        }
        // Nobody reads it yet, and nobody waits for that.
        let pipe = directory.path().join("pipe");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(CWD, &pipe, mode).unwrap();
        check_writable(&pipe).unwrap();
    }

    #[test]
    fn devices_are_written_to() {
        write_whole(Path::new("/dev/null"), b"gone").unwrap();
        let error = write_whole(Path::new("/dev/full"), b"no room").unwrap_err();
        assert_eq!(error.to_string(), "could not write `/dev/full`");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = write_whole(Path::new("/no/such/x.tar"), b"").unwrap_err();
        assert_eq!(error.to_string(), "could not create `/no/such/x.tar`");
    }
}
