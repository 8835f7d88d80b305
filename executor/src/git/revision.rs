//! Files of a repository of this host as a commit has them, without a working tree.
//!
//! The repository may be anybody's: nothing of its configuration makes git run a program or reach
//! another host, since only objects are read that are there.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use super::GitError;

/// A file of more bytes is not read.
const LIMIT_BYTES: u64 = 16 << 20;

/// A commit of a repository of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Where git finds the repository.
    directory: PathBuf,
    /// That directory within the repository, from its root; ends in `/` or is empty.
    prefix: String,
    commit: String,
    shown: String,
}

impl Revision {
    /// Finds what `revision` means in the repository around `directory`; none if it means nothing
    /// there, or if there is no repository.
    pub fn find(directory: &Path, revision: &str) -> Result<Option<Revision>, GitError> {
        if revision.starts_with('-') || revision.contains(['\0', '\n']) {
            return Err(GitError::Invalid {
                what: "revision",
                value: revision.to_owned(),
            });
        }
        let asked = ["rev-parse", "--show-prefix"];
        let Some(prefix) = ask(directory, &asked)? else {
            return Ok(None);
        };
        let commit = format!("{revision}^{{commit}}");
        let asked = [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &commit,
        ];
        let Some(commit) = ask(directory, &asked)? else {
            return Ok(None);
        };
        let line = |bytes: Vec<u8>| {
            String::from_utf8_lossy(&bytes)
                .trim_end_matches('\n')
                .to_owned()
        };
        Ok(Some(Revision {
            directory: directory.to_owned(),
            prefix: line(prefix),
            commit: line(commit),
            shown: revision.to_owned(),
        }))
    }

    /// What was asked for.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes a path from where the repository was looked for one from its root.
    ///
    /// Errors if that leads out of it.
    pub fn from_here(&self, path: &Path) -> Result<String, GitError> {
        self.from_root(&Path::new(&self.prefix).join(path))
    }

    /// Takes `.` and `..` out of a path from the repository's root.
    pub fn from_root(&self, path: &Path) -> Result<String, GitError> {
        let invalid = || GitError::Invalid {
            what: "path",
            value: path.display().to_string(),
        };
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part.to_str().ok_or_else(invalid)?),
                Component::ParentDir => drop(parts.pop().ok_or_else(invalid)?),
                Component::RootDir | Component::Prefix(_) => return Err(invalid()),
            }
        }
        Ok(parts.join("/"))
    }

    /// Returns whether the commit has such a directory; the empty path is the root.
    pub fn has_directory(&self, path: &str) -> Result<bool, GitError> {
        match path {
            "" => Ok(true),
            path => Ok(self.entry(path)?.is_some_and(|(mode, _)| mode == "040000")),
        }
    }

    /// Reads a file; none if the commit has none of that name.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        let Some((mode, object)) = self.entry(path)? else {
            return Ok(None);
        };
        let failed = |said: &str| GitError::Failed {
            attempt: "read a file of",
            remote: format!("{}:{path}", self.shown),
            said: said.to_owned(),
        };
        if !mode.starts_with("100") {
            return Err(failed("it is no regular file"));
        }
        let size = self.within(&["cat-file", "-s", &object], &failed)?;
        let size = String::from_utf8_lossy(&size)
            .trim()
            .parse()
            .unwrap_or(u64::MAX);
        if size > LIMIT_BYTES {
            return Err(failed(&format!("it has more than {LIMIT_BYTES} bytes")));
        }
        self.within(&["cat-file", "blob", &object], &failed)
            .map(Some)
    }

    /// Mode and object of a path.
    fn entry(&self, path: &str) -> Result<Option<(String, String)>, GitError> {
        let failed = |said: &str| GitError::Failed {
            attempt: "look into",
            remote: self.shown.clone(),
            said: said.to_owned(),
        };
        let asked = ["ls-tree", "-z", "--full-tree", &self.commit, "--", path];
        let listed = self.within(&asked, &failed)?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let mut entries = listed.split('\0').filter_map(|entry| {
            let (said, name) = entry.split_once('\t')?;
            let mut words = said.split(' ');
            let (mode, _, object) = (words.next()?, words.next()?, words.next()?);
            (name == path).then(|| (mode.to_owned(), object.to_owned()))
        });
        Ok(entries.next())
    }

    fn within(
        &self,
        arguments: &[&str],
        failed: &dyn Fn(&str) -> GitError,
    ) -> Result<Vec<u8>, GitError> {
        ask(&self.directory, arguments)?.ok_or_else(|| failed("it cannot be read"))
    }
}

/// Runs git; none if it says no.
pub(super) fn ask(directory: &Path, arguments: &[&str]) -> Result<Option<Vec<u8>>, GitError> {
    let ran = git(directory).args(arguments).output();
    let ran = ran.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound if directory.is_dir() => GitError::NotInstalled { source },
        _ => GitError::Io {
            attempt: "start git in",
            path: directory.to_owned(),
            source,
        },
    })?;
    Ok(ran.status.success().then_some(ran.stdout))
}

/// Git for a repository whose configuration is not obeyed.
pub(super) fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        // Whose repository it is does not matter where nothing of it is obeyed.
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsmonitor=false",
            "--no-pager",
        ])
        .current_dir(directory)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        // What is not here is not fetched.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "none")
        .stdin(Stdio::null());
    command
}
