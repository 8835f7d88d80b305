//! From a reference to a commit: what the remote lists.

use kiln_ir::GitSource;

use super::command::{Git, GitAccess};
use super::{GitError, Remote, check_word, is_commit};
use crate::error::Error;
use crate::executor::Executor;

/// Commits are shown by so many digits.
const SHOWN_DIGITS: usize = 12;

/// What a reference means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PinnedCommit {
    /// The commit; where the `.git` directory is kept, it may be the tag that points to it.
    pub(crate) commit: String,
    /// For people.
    pub(crate) label: String,
}

impl PinnedCommit {
    fn new(commit: &str, note: &str) -> PinnedCommit {
        let short: String = commit.chars().take(SHOWN_DIGITS).collect();
        PinnedCommit {
            commit: commit.to_owned(),
            label: format!("commit {short}{note}"),
        }
    }
}

pub(super) async fn pin(
    executor: &Executor,
    source: &GitSource,
    remote: &Remote,
    pinned: Option<&str>,
    access: &GitAccess,
    keep: bool,
) -> Result<PinnedCommit, Error> {
    check_word("reference", &source.reference)?;
    let checksum = source.checksum.as_deref().unwrap_or_default();
    if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(GitError::Invalid {
            what: "commit",
            value: checksum.to_owned(),
        }
        .into());
    }
    let checksum = checksum.to_ascii_lowercase();
    let known = pinned
        .or(Some(source.reference.as_str()).filter(|reference| is_commit(reference)))
        .or((source.fetch_by_commit && is_commit(&checksum)).then_some(checksum.as_str()));
    if let Some(commit) = known {
        if !commit.starts_with(&checksum) {
            return Err(mismatch(remote, &checksum, commit).into());
        }
        return Ok(PinnedCommit::new(commit, ""));
    }
    let memory = format!("git {}\n{}", remote.url, source.reference);
    if executor.options().offline {
        let remembered = executor.store().remembered_remote(&memory)?;
        let listed = remembered.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(listed) = listed else {
            return Err(Error::Offline {
                reference: remote.shown.clone(),
            });
        };
        let commit = choose(&listed, source, remote, &checksum)?;
        return Ok(PinnedCommit::new(&commit, ", as last seen"));
    }
    let git = Git::new(executor, remote, access)?;
    if let Some(lines) = &source.known_ssh_hosts {
        git.know_hosts(lines)?;
    }
    let peeled = format!("{}^{{}}", source.reference);
    let mut arguments = vec!["ls-remote", "--", &remote.url];
    match source.reference.as_str() {
        "" => arguments.push("HEAD"),
        reference => arguments.extend([reference, &peeled]),
    }
    let listed = git
        .outside("list the branches and tags of", &arguments)
        .await?;
    let commit = choose(&listed, source, remote, &checksum)?;
    if keep {
        executor
            .store()
            .remember_remote(&memory, listed.as_bytes())?;
    }
    Ok(PinnedCommit::new(&commit, ", asked for just now"))
}

/// Picks the commit out of what `git ls-remote` lists: a branch goes before a tag of its name, and
/// a tag stands for the commit that it points to, unless its own object is kept.
fn choose(
    listed: &str,
    source: &GitSource,
    remote: &Remote,
    checksum: &str,
) -> Result<String, GitError> {
    let reference = source.reference.as_str();
    let below = |prefix: &str| {
        let name = reference.strip_prefix(prefix).unwrap_or(reference);
        format!("{prefix}{name}")
    };
    let find = |wanted: &str| {
        let lines = listed.lines().filter_map(|line| line.split_once('\t'));
        let mut commits = lines.filter(|(_, name)| *name == wanted);
        commits.next().map(|(commit, _)| commit)
    };
    let (branch, tag, whole) = (below("refs/heads/"), below("refs/tags/"), below("refs/"));
    let peeled = find(&format!("{tag}^{{}}"));
    let (object, commit) = match reference {
        "" => (find("HEAD"), None),
        _ if whole != tag && find(&whole).is_some() => (find(&whole), None),
        _ if find(&branch).is_some() => (find(&branch), None),
        _ => (find(&tag), peeled),
    };
    let Some(object) = object.filter(|object| is_commit(object)) else {
        return Err(GitError::NoReference {
            remote: remote.shown.clone(),
            reference: match reference {
                "" => "HEAD".to_owned(),
                reference => reference.to_owned(),
            },
        });
    };
    let commit = commit.filter(|commit| is_commit(commit));
    let fits = |hash: &str| hash.starts_with(checksum);
    if !fits(object) && !commit.is_some_and(fits) {
        let found = match commit {
            Some(commit) => format!("{object} or {commit}"),
            None => object.to_owned(),
        };
        return Err(mismatch(remote, checksum, &found));
    }
    let wanted = match commit {
        Some(commit) if !source.keep_git_dir => commit,
        _ => object,
    };
    Ok(wanted.to_owned())
}

fn mismatch(remote: &Remote, expected: &str, found: &str) -> GitError {
    GitError::Checksum {
        remote: remote.shown.clone(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    fn listed() -> String {
        let lines = [
            (hash('1'), "HEAD"),
            (hash('1'), "refs/heads/main"),
            (hash('2'), "refs/heads/both"),
            (hash('3'), "refs/tags/both"),
            (hash('4'), "refs/tags/v1"),
            (hash('5'), "refs/tags/v1^{}"),
            (hash('6'), "refs/pull/1/head"),
        ];
        lines
            .iter()
            .map(|(hash, name)| format!("{hash}\t{name}\n"))
            .collect()
    }

    fn chosen(reference: &str, keep_git_dir: bool, checksum: &str) -> Result<String, String> {
        let source = GitSource {
            remote: "x/y.git".to_owned(),
            reference: reference.to_owned(),
            keep_git_dir,
            ..GitSource::default()
        };
        let remote = Remote::of(&source).unwrap();
        choose(&listed(), &source, &remote, checksum).map_err(|error| error.to_string())
    }

    fn check(reference: &str, digit: char) {
        assert_eq!(chosen(reference, false, ""), Ok(hash(digit)), "{reference}");
    }

    #[test]
    fn references_mean_commits() {
        check("", '1');
        check("main", '1');
        check("refs/heads/main", '1');
        check("heads/main", '1');
        check("both", '2');
        check("refs/tags/both", '3');
        check("tags/both", '3');
        check("v1", '5');
        check("refs/tags/v1", '5');
        check("pull/1/head", '6');
        assert_eq!(chosen("v1", true, ""), Ok(hash('4')));
    }

    #[test]
    fn a_checksum_fits_the_tag_or_its_commit() {
        assert_eq!(chosen("v1", false, "444"), Ok(hash('5')));
        assert_eq!(chosen("v1", false, "555"), Ok(hash('5')));
        let error = chosen("main", false, "555").unwrap_err();
        assert!(error.contains("match 555, got 1111"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_told() {
        let error = chosen("nowhere", false, "").unwrap_err();
        assert_eq!(
            error,
            "repository `https://x/y.git` does not contain ref `nowhere`"
        );
    }
}
