//! Mirrors: what was fetched of a remote, kept as a bare repository in the store.

use std::path::Path;

use kiln_ir::GitSource;
use kiln_solver::StepSink;
use kiln_store::{Repository, RepositoryAttempt};

use super::command::Git;
use super::{GitError, Remote};
use crate::error::Error;
use crate::executor::Executor;
use crate::patience::Patience;

/// The mirror of one remote, ours until it is dropped.
pub(super) struct Mirror {
    repository: Repository,
}

/// Waits for the mirror of a remote, and makes it if there is none.
pub(super) async fn take(
    executor: &Executor,
    remote: &Remote,
    commit: &str,
    git: &Git,
) -> Result<Mirror, Error> {
    // Hashes of the two kinds never share a repository.
    let name = format!("{} {}", commit.len(), remote.url);
    let mut patience = Patience::new();
    let repository = loop {
        match executor.store().repository(&name)? {
            RepositoryAttempt::Held(repository) => break repository,
            RepositoryAttempt::Busy(_) => {}
        }
        patience.pause().await;
    };
    let mirror = Mirror { repository };
    if mirror.path().exists() {
        mirror.tidy()?;
        return Ok(mirror);
    }
    let new = executor.store().work_directory("mirror")?;
    let format = object_format(commit);
    git.within(
        "prepare a mirror of",
        new.path(),
        &["init", "--quiet", "--bare", format],
    )
    .await?;
    std::fs::rename(new.path(), mirror.path()).map_err(io("name", mirror.path()))?;
    Ok(mirror)
}

/// The option of `git init` for hashes like this one.
pub(super) fn object_format(commit: &str) -> &'static str {
    match commit.len() {
        64 => "--object-format=sha256",
        _ => "--object-format=sha1",
    }
}

fn io(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GitError {
    let path = path.to_owned();
    move |source| GitError::Io {
        attempt,
        path,
        source,
    }
}

impl Mirror {
    pub(super) fn path(&self) -> &Path {
        self.repository.path()
    }

    /// Removes what a killed git left: nobody else has the mirror.
    fn tidy(&self) -> Result<(), GitError> {
        let packs = self.path().join("objects/pack");
        let stale = |name: &str| name.starts_with("tmp_") || name.ends_with(".lock");
        for directory in [self.path().to_owned(), packs, self.path().join("refs/kiln")] {
            for entry in std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
            {
                if stale(&entry.file_name().to_string_lossy()) {
                    let path = entry.path();
                    std::fs::remove_file(&path).map_err(io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    /// Whether the commit is here with all that belongs to it.
    pub(super) async fn has(&self, git: &Git, commit: &str) -> Result<bool, GitError> {
        // A reference is given only to what came whole.
        let reference = format!("{}^{{commit}}", reference(commit));
        let arguments = ["rev-parse", "--quiet", "--verify", &reference];
        git.says(self.path(), &arguments).await
    }

    /// Fetches a commit: alone if the server gives it so, else with what leads to it.
    pub(super) async fn bring(
        &self,
        git: &Git,
        remote: &Remote,
        source: &GitSource,
        commit: &str,
        sink: Option<&StepSink>,
    ) -> Result<(), Error> {
        if let Some(lines) = &source.known_ssh_hosts {
            git.know_hosts(lines)?;
        }
        if let Some(sink) = sink {
            sink.progress(format!("fetch {}", remote.shown), 0, None);
        }
        let by_commit = format!("+{commit}:{}", reference(commit));
        let alone = self.fetch(git, remote, &["--depth=1"], &[&by_commit]).await;
        match alone {
            Ok(()) if self.has(git, commit).await? => return Ok(()),
            Err(error) if !is_about_the_way(&error) => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let is_shallow = self.path().join("shallow").exists();
        let depth: &[&str] = if is_shallow { &["--unshallow"] } else { &[] };
        let mut wanted = vec![
            "+refs/heads/*:refs/all/heads/*",
            "+refs/tags/*:refs/all/tags/*",
        ];
        let own;
        let is_other = source.reference.starts_with("refs/")
            && !["refs/heads/", "refs/tags/"]
                .iter()
                .any(|prefix| source.reference.starts_with(prefix));
        if is_other {
            own = format!("+{}:refs/all/other", source.reference);
            wanted.push(&own);
        }
        self.fetch(git, remote, depth, &wanted).await?;
        let object = format!("{commit}^{{commit}}");
        if !git.says(self.path(), &["cat-file", "-e", &object]).await? {
            return Err(GitError::NoCommit {
                remote: remote.shown.clone(),
                commit: commit.to_owned(),
            }
            .into());
        }
        git.within(
            "keep a commit of",
            self.path(),
            &["update-ref", &reference(commit), commit],
        )
        .await?;
        Ok(())
    }

    async fn fetch(
        &self,
        git: &Git,
        remote: &Remote,
        options: &[&str],
        wanted: &[&str],
    ) -> Result<(), GitError> {
        let fixed = [
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
        ];
        let arguments = [&fixed[..], options, &["--", &remote.url], wanted].concat();
        git.within("fetch from", self.path(), &arguments).await?;
        Ok(())
    }

    /// The time of a commit, in seconds since 1970.
    pub(super) async fn commit_time(&self, git: &Git, commit: &str) -> Result<Option<i64>, Error> {
        let object = format!("{commit}^{{commit}}");
        let arguments = ["show", "--no-patch", "--format=%ct", &object, "--"];
        let text = git
            .within("read a commit of", self.path(), &arguments)
            .await?;
        Ok(text.trim().parse().ok())
    }
}

/// What a mirror knows a whole commit by.
pub(super) fn reference(commit: &str) -> String {
    format!("refs/kiln/{commit}")
}

/// Whether the server does not give single commits, as against not giving anything.
fn is_about_the_way(error: &GitError) -> bool {
    const WORDS: [&str; 5] = [
        "not our ref",
        "unadvertised object",
        "does not support shallow",
        "does not allow request for",
        "couldn't find remote ref",
    ];
    matches!(error, GitError::Failed { said, .. } if WORDS.iter().any(|words| said.contains(words)))
}
