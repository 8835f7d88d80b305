//! What a plan needs of a commit, as a directory: a Dockerfile with its ignore file and its lock.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_executor::Revision;

use crate::Error;

/// Files beside a Dockerfile of any name.
const BESIDE: &[&str] = &[".dockerignore", "kiln.lock"];
/// What may stand after a Dockerfile's own name.
const AFTER: &[&str] = &[".dockerignore", ".kiln.lock"];
/// So many names of temporary directories are tried.
const MOST_NAMES: u32 = 1000;
const NAMES: &[&str] = &["Dockerfile", "dockerfile"];

/// A context with nothing in it but what planning reads; removed when this is dropped.
#[derive(Debug)]
pub struct PlanContext {
    directory: PathBuf,
    /// The Dockerfile within it, where it is not the default one.
    pub dockerfile: Option<PathBuf>,
}

impl PlanContext {
    /// Takes out of a commit what planning `path` reads: a directory, or a Dockerfile in its own.
    ///
    /// `file` is the Dockerfile within that directory. Errors if the commit has no such thing.
    pub fn of(revision: &Revision, path: &str, file: Option<&str>) -> Result<PlanContext, Error> {
        let git = |error: kiln_executor::GitError| Error::Executor(error.into());
        let (context, file) = match revision.has_directory(path).map_err(git)? {
            true => (path, file),
            false => match path.rsplit_once('/') {
                Some((context, name)) => (context, Some(name)),
                None => ("", Some(path)),
            },
        };
        let directory = temporary_directory()?;
        let taken = PlanContext {
            dockerfile: file.map(|file| directory.join(file)),
            directory,
        };
        let names: Vec<&str> = file.map_or(NAMES.to_vec(), |file| vec![file]);
        let mut found = false;
        for name in &names {
            found |= taken.take(revision, context, name)?;
            for after in AFTER {
                taken.take(revision, context, &format!("{name}{after}"))?;
            }
        }
        for name in BESIDE {
            taken.take(revision, context, name)?;
        }
        if !found {
            let at = match context {
                "" => "its root".to_owned(),
                context => format!("`{context}`"),
            };
            return Err(Error::Usage {
                message: format!(
                    "revision `{}` has no `{}` in {at}",
                    revision.shown(),
                    names[0]
                ),
                hint: Some(
                    "name the directory after `--`, or the file as REVISION:PATH".to_owned(),
                ),
            });
        }
        Ok(taken)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn take(&self, revision: &Revision, context: &str, name: &str) -> Result<bool, Error> {
        let path = match context {
            "" => PathBuf::from(name),
            context => Path::new(context).join(name),
        };
        let git = |error: kiln_executor::GitError| Error::Executor(error.into());
        let inside = revision.from_root(Path::new(name)).map_err(git)?;
        let path = revision.from_root(&path).map_err(git)?;
        let Some(bytes) = revision.read(&path).map_err(git)? else {
            return Ok(false);
        };
        let target = self.directory.join(inside);
        let parent = target.parent().unwrap_or(&self.directory);
        let made = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&target, bytes));
        made.map_err(|source| failed("write", &target, source))?;
        Ok(true)
    }
}

impl Drop for PlanContext {
    fn drop(&mut self) {
        // It is a directory of temporary files; what stays behind is small and the host's to remove.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn temporary_directory() -> Result<PathBuf, Error> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kiln-plan-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            // Left behind by an earlier process of that number, or put there by somebody else.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MOST_NAMES => {}
            Err(source) => return Err(failed("make", &directory, source)),
        }
    }
}

fn failed(attempt: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File {
        attempt,
        path: path.to_owned(),
        source,
    }
}
