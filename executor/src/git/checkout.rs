//! From a commit in a mirror to a layer of its files.

use std::path::Path;

use kiln_ir::GitSource;
use kiln_store::{Content, Lease};

use super::command::Git;
use super::mirror::{Mirror, object_format, reference};
use super::{GitError, Remote, is_commit};
use crate::context::ScannedContext;
use crate::error::Error;
use crate::executor::Executor;
use crate::file::{Keep, copy_tree};
use crate::source::stoppable;

/// What git itself keeps in a working tree.
const GIT: &str = "**/.git";

pub(super) async fn checkout(
    executor: &Executor,
    lease: &Lease,
    source: &GitSource,
    remote: &Remote,
    commit: &str,
    mirror: &Mirror,
    git: &Git,
) -> Result<Content, Error> {
    let work = executor.store().work_directory("checkout")?;
    let subdir = subdir(&source.subdir);
    // With a subdirectory alone there is no place for what belongs to the whole.
    let keep_git_dir = source.keep_git_dir && subdir.is_empty();
    let tree = work.path().join("tree");
    let shown = tree.to_string_lossy().into_owned();
    let run = async |attempt, arguments: &[&str]| git.within(attempt, &tree, arguments).await;
    let arguments = ["init", "--quiet", object_format(commit), "--", &shown];
    git.outside("prepare a checkout of", &arguments).await?;
    run(
        "prepare a checkout of",
        &["remote", "add", "origin", &remote.shown],
    )
    .await?;
    if keep_git_dir {
        copy_history(source, commit, mirror, git, &tree).await?;
    } else {
        let objects = mirror.path().join("objects");
        let path = tree.join(".git/objects/info/alternates");
        std::fs::write(&path, format!("{}\n", objects.display()))
            .map_err(Error::io("write", &path))?;
    }
    let object = format!("{commit}^{{commit}}");
    run(
        "check out",
        &["checkout", "--quiet", "--force", "--detach", &object],
    )
    .await?;
    if !source.skip_submodules && tree.join(".gitmodules").is_file() {
        // Relative addresses are relative to what is really asked, account and all.
        run(
            "prepare a checkout of",
            &["remote", "set-url", "origin", &remote.url],
        )
        .await?;
        let arguments = [
            "submodule",
            "update",
            "--quiet",
            "--init",
            "--recursive",
            "--checkout",
            "--depth=1",
        ];
        run("fetch the submodules of", &arguments).await?;
        run(
            "prepare a checkout of",
            &["remote", "set-url", "origin", &remote.shown],
        )
        .await?;
    }
    if keep_git_dir {
        run(
            "tidy a checkout of",
            &["reflog", "expire", "--all", "--expire=now"],
        )
        .await?;
        for name in ["FETCH_HEAD", "ORIG_HEAD"] {
            // It may not be there.
            let _ = std::fs::remove_file(tree.join(".git").join(name));
        }
    }
    let mtime = match source.mtime_from_commit {
        true => mirror.commit_time(git, commit).await?,
        false => None,
    };
    let (executor, lease) = (executor.clone(), lease.clone());
    let exclude = match keep_git_dir {
        true => Vec::new(),
        false => vec![GIT.to_owned()],
    };
    let keep = Keep {
        mtime_seconds: mtime,
        // Whatever the umask made of the one bit that git keeps.
        mode: "u=rwX,go=rX",
    };
    let no_directory = GitError::NoDirectory {
        remote: remote.shown.clone(),
        commit: commit.to_owned(),
        subdir: source.subdir.clone(),
    };
    stoppable(move |stop| {
        let context = ScannedContext::scan_once(&work.path().join("tree"), &exclude, stop)?;
        let layer = copy_tree(executor.store(), &lease, &context, &subdir, &keep)?;
        layer.ok_or_else(|| no_directory.into())
    })
    .await
}

/// Makes the checkout's own repository whole: of this commit, and of nothing before it.
async fn copy_history(
    source: &GitSource,
    commit: &str,
    mirror: &Mirror,
    git: &Git,
    tree: &Path,
) -> Result<(), Error> {
    let from = format!("file://{}", mirror.path().display());
    let name = source.reference.as_str();
    let is_named = !name.is_empty() && !is_commit(name);
    let kind = git
        .local(
            "read a commit of",
            mirror.path(),
            &["cat-file", "-t", commit],
        )
        .await?;
    let to = match name {
        _ if !is_named => None,
        name if name.starts_with("refs/") => Some(name.to_owned()),
        name if kind.trim() == "tag" => Some(format!("refs/tags/{name}")),
        name => Some(format!("refs/heads/{name}")),
    };
    let refspec = match to {
        Some(to) => format!("+{}:{to}", reference(commit)),
        None => reference(commit),
    };
    let arguments = [
        "fetch",
        "--quiet",
        "--update-head-ok",
        "--no-tags",
        "--depth=1",
        "--",
        &from,
        &refspec,
    ];
    git.local("check out", tree, &arguments).await?;
    Ok(())
}

/// The subdirectory without what only leads around; empty is the whole.
fn subdir(text: &str) -> String {
    let cleaned = kiln_ir::pattern::clean(&format!("/{text}"));
    cleaned.trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::subdir;

    #[test]
    fn subdirectories_stay_below() {
        for (text, expected) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("a/b/", "a/b"),
            ("../../x", "x"),
        ] {
            assert_eq!(subdir(text), expected, "{text}");
        }
    }
}
