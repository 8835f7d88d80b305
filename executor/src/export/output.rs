//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::Destination;
use crate::error::Error;

/// How standard output is called in errors.
const STDOUT: &str = "standard output";

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
            Destination::Stdout => {
                let path = PathBuf::from(STDOUT);
                let file = rustix::io::dup(rustix::stdio::stdout())
                    .map_err(|error| Error::io("open", &path)(error.into()))?;
                return Ok(Output {
                    file: file.into(),
                    path,
                    state: State::Direct,
                });
            }
            Destination::File(path) => path,
        };
        // Whoever has a link there wants the file behind it replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let (file, state) = match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map_err(Error::io("open", &path))?;
                (file, State::Direct)
            }
            _ => beside(&path)?,
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
            let name = temporary(&self.path);
            let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::linkat(CWD, from, CWD, &name, AtFlags::SYMLINK_FOLLOW)
                .map_err(|error| Error::io("name", &self.path)(error.into()))?;
            self.state = State::Named(name);
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

/// Writes a small file as a whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut output = Output::create(&Destination::File(path.to_owned()))?;
    output.write_all(bytes).map_err(Error::io("write", path))?;
    output.finish()
}

fn beside(path: &Path) -> Result<(File, State), Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
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
