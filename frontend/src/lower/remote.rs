//! Sources of ADD that are neither in the context nor in the Dockerfile: git and http.

use std::collections::BTreeMap;

use kiln_ir::GitSource;

/// The name that a file over http has where it stands for a context.
pub const CONTEXT_FILE: &str = "context";

/// Where a word of ADD points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// A git repository.
    Git(Box<GitRef>),
    /// A file over http.
    Http {
        /// The URL.
        url: String,
        /// The name of the file: the last part of the path, or `__unnamed__`.
        file_name: String,
    },
}

/// A git URL with what its fragment and query say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GitRef {
    url: String,
    remote: String,
    reference: String,
    subdir: String,
    checksum: String,
    keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    mtime_from_commit: bool,
    fetch_by_commit: bool,
}

/// Reads a word as a remote source; `None` is a local path. The error is a whole message.
///
/// An http URL is a repository only if its path ends in `.git`.
pub(super) fn classify(word: &str) -> Result<Option<Remote>, String> {
    let (address, fragment) = word.split_once('#').unwrap_or((word, ""));
    let (base, query) = address.split_once('?').unwrap_or((address, ""));
    let scheme = base.split_once("://").map(|(scheme, _)| scheme);
    let is_git = match scheme {
        Some("http" | "https") => base.ends_with(".git"),
        Some("git" | "ssh") => true,
        Some(_) => false,
        None => is_scp_like(base),
    };
    if is_git {
        return GitRef::new(base, query, fragment).map(|git| Some(Remote::Git(Box::new(git))));
    }
    if !matches!(scheme, Some("http" | "https")) {
        return Ok(None);
    }
    let path = base.splitn(4, '/').nth(3).unwrap_or("");
    let file_name = match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) => percent_decoded(name),
    };
    Ok(Some(Remote::Http {
        url: word.to_owned(),
        file_name,
    }))
}

/// A build context that is no directory of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteContext {
    /// A git repository.
    Git(Box<GitSource>),
    /// An archive or a Dockerfile over http.
    Http(String),
}

/// Reads what was given as a build context; `None` is a local path. The error is a whole message.
///
/// Other than a source of ADD, `github.com/…` needs no scheme.
pub fn remote_context(text: &str) -> Result<Option<RemoteContext>, String> {
    let whole = match text.starts_with("github.com/") {
        true => {
            let (address, rest) = text.split_at(text.find(['#', '?']).unwrap_or(text.len()));
            let end = if address.ends_with(".git") {
                ""
            } else {
                ".git"
            };
            format!("https://{address}{end}{rest}")
        }
        false => text.to_owned(),
    };
    Ok(match classify(&whole)? {
        None => None,
        Some(Remote::Http { url, .. }) => Some(RemoteContext::Http(url)),
        Some(Remote::Git(git)) => Some(RemoteContext::Git(Box::new(git.source(None, "")?))),
    })
}

/// `user@host:path`, where the host comes before the first slash.
fn is_scp_like(base: &str) -> bool {
    let Some((host, path)) = base.split_once(':') else {
        return false;
    };
    let Some((user, host)) = host.split_once('@') else {
        return false;
    };
    !path.is_empty()
        && !user.is_empty()
        && !host.is_empty()
        && [user, host].iter().all(|part| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| text_of(tail.get(..2)))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            // A decoded slash or NUL would not be a file name any more.
            Some(code) if code != b'/' && code != 0 => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(name) if name != "." && name != ".." => name,
        _ => text.to_owned(),
    }
}

fn text_of(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok()
}

impl GitRef {
    fn new(base: &str, query: &str, fragment: &str) -> Result<GitRef, String> {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut git = GitRef {
            url: base.to_owned(),
            remote: normalized_remote(base),
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            ..GitRef::default()
        };
        git.read_query(query)?;
        Ok(git)
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if values.insert(key, value).is_some() {
                return Err(format!("query {key:?} has multiple values"));
            }
        }
        let mut tag = None;
        let mut branch = None;
        for (key, value) in values {
            if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir") {
                return Err(format!("query {key:?} has no value"));
            }
            match key {
                "ref" => settle("ref", &mut self.reference, value)?,
                "subdir" => settle("subdir", &mut self.subdir, value)?,
                "tag" => tag = Some(prefixed("refs/tags/", value)),
                "branch" => branch = Some(prefixed("refs/heads/", value)),
                "checksum" | "commit" => settle("checksum", &mut self.checksum, value)?,
                "keep-git-dir" => self.keep_git_dir = Some(boolean(key, value)?),
                "submodules" => self.submodules = Some(boolean(key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = boolean(key, value)?,
                "mtime" => {
                    self.mtime_from_commit = match value {
                        "commit" => true,
                        "checkout" => false,
                        _ => return Err(format!("invalid mtime value: {value:?}")),
                    }
                }
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_owned());
        }
        if let Some(reference) = tag.or(branch) {
            settle("ref", &mut self.reference, &reference)?;
        }
        if self.reference.is_empty() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    /// Returns the source, with what the flags of ADD say. The error is a whole message.
    pub(super) fn source(
        mut self,
        keep_git_dir: Option<bool>,
        checksum: &str,
    ) -> Result<GitSource, String> {
        if let (Some(flag), Some(query)) = (keep_git_dir, self.keep_git_dir)
            && flag != query
        {
            return Err("inconsistent keep-git-dir configuration".to_owned());
        }
        if !checksum.is_empty() {
            if !self.checksum.is_empty() && self.checksum != checksum {
                return Err(format!(
                    "checksum mismatch {checksum:?} != {:?}",
                    self.checksum
                ));
            }
            self.checksum = checksum.to_owned();
        }
        Ok(GitSource {
            remote: self.remote,
            reference: self.reference,
            subdir: self.subdir,
            full_url: Some(self.url),
            keep_git_dir: self.keep_git_dir.or(keep_git_dir).unwrap_or(false),
            skip_submodules: self.submodules == Some(false),
            checksum: (!self.checksum.is_empty()).then_some(self.checksum),
            mtime_from_commit: self.mtime_from_commit,
            fetch_by_commit: self.fetch_by_commit,
            ..GitSource::default()
        })
    }
}

/// `host/path`, without scheme and user, so that two ways to fetch a repository are one remote.
fn normalized_remote(base: &str) -> String {
    let (rest, scp) = match base.split_once("://") {
        Some((_, rest)) => (rest, false),
        None => (base, true),
    };
    let (host, path) = rest
        .split_once(if scp { ':' } else { '/' })
        .unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{host}/{}", path.trim_start_matches('/'))
}

fn settle(what: &str, field: &mut String, value: &str) -> Result<(), String> {
    if !field.is_empty() && field != value {
        return Err(format!("{what} conflicts: {field:?} vs {value:?}"));
    }
    value.clone_into(field);
    Ok(())
}

fn prefixed(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) {
        return value.to_owned();
    }
    format!("{prefix}{value}")
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use kiln_ir::GitSource;

    use super::{Remote, RemoteContext, classify, remote_context};

    fn git(word: &str) -> GitSource {
        match classify(word).unwrap() {
            Some(Remote::Git(git)) => git.source(None, "").unwrap(),
            other => panic!("{word}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_http(word: &str, expected: &str) {
        match classify(word).unwrap() {
            Some(Remote::Http { file_name, .. }) => assert_eq!(file_name, expected),
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn local_words() {
        for word in [
            "a",
            "./a.git",
            "github.com/me/app",
            "ftp://x/y",
            "a@b",
            "c:\\x",
            "a b@c:d",
        ] {
            assert_eq!(classify(word), Ok(None), "{word}");
        }
    }

    #[test]
    fn http_words() {
        check_http("https://x.org/a/b.tar.gz", "b.tar.gz");
        check_http("https://x.org/a/b%20c?d=e", "b c");
        check_http("https://x.org/a/..%2f", "..%2f");
        check_http("https://x.org", "__unnamed__");
        check_http("http://x.org/", "__unnamed__");
        check_http("http://x.org/a%2", "a%2");
    }

    #[test]
    fn git_words() {
        let source = git("https://x.org/me/app.git#v1:src");
        assert_eq!(
            (
                source.remote.as_str(),
                source.reference.as_str(),
                source.subdir.as_str()
            ),
            ("x.org/me/app.git", "v1", "src")
        );
        assert_eq!(git("git@x.org:me/app.git").remote, "x.org/me/app.git");
        assert_eq!(git("https://x.org/a.git?tag=v1").reference, "refs/tags/v1");
        assert!(git("https://x.org/a.git?submodules=false").skip_submodules);
        assert!(git("https://x.org/a.git?keep-git-dir").keep_git_dir);
    }

    #[test]
    fn contexts() {
        let remote = |text: &str| match remote_context(text).unwrap() {
            Some(RemoteContext::Git(git)) => format!("git {}", git.full_url.unwrap()),
            Some(RemoteContext::Http(url)) => format!("http {url}"),
            None => "local".to_owned(),
        };
        for (text, expected) in [
            (".", "local"),
            ("a/b.git", "local"),
            (
                "github.com/me/app#main",
                "git https://github.com/me/app.git",
            ),
            ("github.com/me/app.git", "git https://github.com/me/app.git"),
            ("https://x.org/a.git#v1:src", "git https://x.org/a.git"),
            ("git@x.org:me/app.git", "git git@x.org:me/app.git"),
            ("ssh://git@x.org/app", "git ssh://git@x.org/app"),
            ("https://x.org/a.tar.gz", "http https://x.org/a.tar.gz"),
        ] {
            assert_eq!(remote(text), expected, "{text}");
        }
        assert!(remote_context("https://x.org/a.git?x=1").is_err());
    }

    #[test]
    fn wrong_git_words() {
        for (word, message) in [
            ("https://x.org/a.git?x=1", "unexpected query \"x\""),
            (
                "https://x.org/a.git?ref=a#b",
                "ref conflicts: \"b\" vs \"a\"",
            ),
            (
                "https://x.org/a.git?tag=a&branch=b",
                "branch conflicts with tag",
            ),
            ("https://x.org/a.git?ref", "query \"ref\" has no value"),
        ] {
            assert_eq!(classify(word).map(|_| ()), Err(message.to_owned()));
        }
    }
}
