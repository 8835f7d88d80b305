//! Git repositories as sources: which commit a reference means, and a layer of its files.
//!
//! Everything is done by the `git` command, which sees nothing of the user's or the system's
//! configuration. What was fetched stays in a mirror in the store, one a remote, which one process
//! at a time uses.

mod checkout;
mod command;
mod mirror;
mod reference;
mod revision;
mod worktree;

use std::io;
use std::path::PathBuf;

use kiln_ir::GitSource;
use kiln_solver::StepSink;
use kiln_store::{Content, Lease, StoreError};

use crate::error::Error;
use crate::executor::Executor;
use command::Git;
pub use command::GitAccess;
use mirror::Mirror;
pub(crate) use reference::PinnedCommit;
pub use revision::Revision;
pub use worktree::WorkTree;

/// A repository cannot be had, or not as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// There is no `git` here.
    #[error("could not run `git`, which sources in git repositories need")]
    NotInstalled {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The command refused.
    #[error("could not {attempt} `{remote}`: git said: {said}")]
    Failed {
        /// What was tried.
        attempt: &'static str,
        /// The repository.
        remote: String,
        /// The end of what it wrote.
        said: String,
    },
    /// Words that git could take for options, or that are no address.
    #[error("`{value}` is no {what} of a git repository")]
    Invalid {
        /// Address or reference.
        what: &'static str,
        /// As asked for.
        value: String,
    },
    /// The repository has no such branch or tag.
    #[error("repository `{remote}` does not contain ref `{reference}`")]
    NoReference {
        /// The repository.
        remote: String,
        /// As asked for.
        reference: String,
    },
    /// A reference means another commit than it must.
    #[error("expected checksum of `{remote}` to match {expected}, got {found}")]
    Checksum {
        /// The repository.
        remote: String,
        /// As asked for.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The repository does not have the commit, or has it no more.
    #[error("repository `{remote}` does not contain commit {commit}")]
    NoCommit {
        /// The repository.
        remote: String,
        /// As pinned.
        commit: String,
    },
    /// The commit has no such directory.
    #[error("commit {commit} of `{remote}` has no directory `{subdir}`")]
    NoDirectory {
        /// The repository.
        remote: String,
        /// The commit.
        commit: String,
        /// As asked for.
        subdir: String,
    },
    /// A file of the work on it cannot be read or written.
    #[error("could not {attempt} `{}`", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl GitError {
    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        let said =
            |words: &str| matches!(self, GitError::Failed { said, .. } if said.contains(words));
        Some(match self {
            GitError::NotInstalled { .. } => "install the package `git`".to_owned(),
            GitError::NoReference { .. } => {
                "name a branch, a tag or a whole commit hash after the `#`".to_owned()
            }
            _ if said("could not read Username") || said("Authentication failed") => {
                "give a token with --secret id=GIT_AUTH_TOKEN".to_owned()
            }
            _ if said("Host key verification failed") => {
                "add the host's key to ~/.ssh/known_hosts, as `ssh-keyscan HOST` prints it"
                    .to_owned()
            }
            _ if said("Permission denied (publickey") => {
                "forward an agent that has the key with --ssh default".to_owned()
            }
            _ if said("transport 'file' not allowed") => {
                "repositories on this host are reached over http, git or ssh only".to_owned()
            }
            _ => return None,
        })
    }

    /// Whether this host lacks something.
    pub(crate) fn is_environment(&self) -> bool {
        matches!(self, GitError::NotInstalled { .. } | GitError::Store(_))
    }
}

/// Finds out which commit `source` means; a whole hash or an earlier pin says it without a request.
///
/// What the repository says is remembered in the store if it is to be kept.
pub(crate) async fn pin(
    executor: &Executor,
    source: &GitSource,
    pinned: Option<&str>,
    access: &GitAccess,
    keep: bool,
) -> Result<PinnedCommit, Error> {
    let remote = Remote::of(source)?;
    reference::pin(executor, source, &remote, pinned, access, keep).await
}

/// Brings the files of a pinned commit here, as one layer.
pub(crate) async fn fetch(
    executor: &Executor,
    lease: &Lease,
    source: &GitSource,
    commit: &str,
    access: &GitAccess,
    sink: Option<&StepSink>,
) -> Result<Content, Error> {
    let remote = Remote::of(source)?;
    let git = Git::new(executor, &remote, access)?;
    let mirror = mirror_with(executor, source, &remote, commit, &git, sink).await?;
    checkout::checkout(executor, lease, source, &remote, commit, &mirror, &git).await
}

/// The time of a commit, in seconds since 1970.
pub(crate) async fn commit_time(
    executor: &Executor,
    source: &GitSource,
    commit: &str,
    access: &GitAccess,
) -> Result<Option<i64>, Error> {
    let remote = Remote::of(source)?;
    let git = Git::new(executor, &remote, access)?;
    let mirror = mirror_with(executor, source, &remote, commit, &git, None).await?;
    mirror.commit_time(&git, commit).await
}

/// Takes the mirror of a remote, with `commit` in it.
async fn mirror_with(
    executor: &Executor,
    source: &GitSource,
    remote: &Remote,
    commit: &str,
    git: &Git,
    sink: Option<&StepSink>,
) -> Result<Mirror, Error> {
    let mirror = mirror::take(executor, remote, commit, git).await?;
    if !mirror.has(git, commit).await? {
        if executor.options().offline {
            return Err(Error::Offline {
                reference: remote.shown.clone(),
            });
        }
        mirror.bring(git, remote, source, commit, sink).await?;
    }
    Ok(mirror)
}

/// Where a repository is.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// What git is given.
    pub(crate) url: String,
    /// Without the password that may be in it.
    pub(crate) shown: String,
    password: Option<String>,
}

impl Remote {
    fn of(source: &GitSource) -> Result<Remote, Error> {
        if let Some((name, value)) = source.attrs.first_key_value() {
            return Err(Error::Unsupported {
                what: "an attribute of a source",
                value: format!("{name}={value}"),
            });
        }
        let url = match &source.full_url {
            Some(url) => url.clone(),
            None => format!("https://{}", source.remote),
        };
        check_word("address", &url)?;
        let shown = kiln_oci::web::without_password(&url);
        let password = (shown != url).then(|| password(&url)).flatten();
        Ok(Remote {
            url,
            shown,
            password,
        })
    }

    /// Text of git's without the password.
    fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) if !password.is_empty() => text.replace(password, "xxxxx"),
            _ => text.to_owned(),
        }
    }
}

/// The password as it stands in an address.
fn password(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (account, _) = rest.split('/').next()?.rsplit_once('@')?;
    Some(account.split_once(':')?.1.to_owned())
}

/// Refuses what git could take for an option.
fn check_word(what: &'static str, value: &str) -> Result<(), GitError> {
    let bad = value.starts_with('-') || value.chars().any(|c| c.is_control() || c == ' ');
    match bad {
        true => Err(GitError::Invalid {
            what,
            value: value.escape_debug().to_string(),
        }),
        false => Ok(()),
    }
}

/// Whether text is a whole commit hash: of SHA-1 or of SHA-256.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
