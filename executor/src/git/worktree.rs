//! What a directory of the caller is in version control.
//!
//! As with [`Revision`](super::Revision) the repository may be anybody's: nothing of its configuration makes
//! git run a program. Comparing files would, where attributes name filters; these are switched off one by one.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::GitError;
use super::revision::{ask, git};

/// So many filters are switched off; a configuration of more is not obeyed at all.
const MOST_FILTERS: usize = 100;

/// A work tree with what is checked out there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTree {
    /// Its top directory, with links resolved.
    pub root: PathBuf,
    /// The commit that is checked out; none before the first.
    pub commit: Option<String>,
    /// The address of the remote that its branch follows, or else of `origin` or `upstream`; it may hold
    /// credentials.
    pub remote: Option<String>,
}

impl WorkTree {
    /// Finds the work tree that a directory is in; none if it is in none.
    pub fn around(directory: &Path) -> Result<Option<WorkTree>, GitError> {
        let Ok(directory) = directory.canonicalize() else {
            return Ok(None);
        };
        // Most are in none, and then git need not be there.
        let is_repository = |above: &Path| above.join(".git").symlink_metadata().is_ok();
        if !directory.ancestors().any(is_repository) {
            return Ok(None);
        }
        let line = |arguments: &[&str]| -> Result<Option<String>, GitError> {
            let said = ask(&directory, arguments)?;
            let said = said.map(|said| String::from_utf8_lossy(&said).trim_end().to_owned());
            Ok(said.filter(|said| !said.is_empty()))
        };
        let Some(root) = line(&["rev-parse", "--show-toplevel"])? else {
            return Ok(None);
        };
        let commit = line(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
        let branch = line(&["symbolic-ref", "--quiet", "--short", "HEAD"])?;
        let followed = match branch {
            Some(branch) => line(&["config", "--get", &format!("branch.{branch}.remote")])?,
            None => None,
        };
        let mut remote = None;
        for name in followed
            .as_deref()
            .into_iter()
            .chain(["origin", "upstream"])
        {
            remote = line(&["config", "--get", &format!("remote.{name}.url")])?;
            if remote.is_some() {
                break;
            }
        }
        let root = PathBuf::from(root);
        // Its configuration may say that it is elsewhere.
        if !directory.starts_with(&root) {
            return Ok(None);
        }
        Ok(Some(WorkTree {
            root,
            commit,
            remote,
        }))
    }

    /// Whether it holds anything that the commit does not, or not so; what git is told to ignore does not
    /// count. So is one that cannot be compared without obeying it.
    pub fn is_dirty(&self) -> Result<bool, GitError> {
        let asked = [
            "config",
            "-z",
            "--name-only",
            "--get-regexp",
            r"^filter\..*\.(clean|smudge|process|required)$",
        ];
        let filters = ask(&self.root, &asked)?.unwrap_or_default();
        let mut off = Vec::new();
        for key in filters
            .split(|&byte| byte == 0)
            .filter(|key| !key.is_empty())
        {
            // A key with `=` in it cannot be set by an argument.
            match std::str::from_utf8(key) {
                Ok(key) if !key.contains('=') && off.len() < MOST_FILTERS => {
                    let value = if key.ends_with(".required") {
                        "false"
                    } else {
                        ""
                    };
                    off.push(format!("{key}={value}"));
                }
                _ => return Ok(true),
            }
        }
        let mut command = git(&self.root);
        for setting in ["core.hooksPath=/dev/null", "status.submoduleSummary=false"]
            .into_iter()
            .chain(off.iter().map(String::as_str))
        {
            command.args(["-c", setting]);
        }
        let failed = |source| GitError::Io {
            attempt: "run git in",
            path: self.root.clone(),
            source,
        };
        // A submodule would be looked at by its own configuration.
        let mut child = command
            .args([
                "status",
                "--porcelain",
                "--untracked-files=normal",
                "--ignore-submodules=all",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let mut first = [0];
        let said = match child.stdout.take() {
            Some(mut stdout) => stdout.read(&mut first).map_err(failed),
            None => Ok(0),
        };
        // One line is enough.
        if !matches!(said, Ok(0)) {
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed)?;
        Ok(said? > 0 || !status.success())
    }
}
