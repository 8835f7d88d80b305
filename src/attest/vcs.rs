//! What version control says of a context that is in a work tree, under the names that buildx gives it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_executor::{GitError, WorkTree, words};

use crate::arguments::without_credentials;
use crate::{BuildRequest, ContextRequest, DockerfileRequest};

const REVISION: &str = "org.opencontainers.image.revision";
const SOURCE: &str = "org.opencontainers.image.source";
const ENTRYPOINT: &str = "com.docker.image.source.entrypoint";

/// Where it is told which commit a context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitInfo {
    /// In provenance, if that is asked for (`BUILDX_GIT_INFO`).
    pub provenance: bool,
    /// In labels of the image (`BUILDX_GIT_LABELS`).
    pub labels: bool,
    /// The files are compared with the commit (`BUILDX_GIT_CHECK_DIRTY`).
    pub compare: bool,
}

impl Default for GitInfo {
    fn default() -> GitInfo {
        GitInfo {
            provenance: true,
            labels: false,
            compare: true,
        }
    }
}

/// What is known of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vcs {
    /// `source`, `revision`, `localdir:NAME`.
    pub(crate) fields: BTreeMap<String, String>,
    /// Labels for the image.
    pub(crate) labels: BTreeMap<String, String>,
    /// Why less is known than could be.
    pub(crate) notice: Option<String>,
}

impl Vcs {
    /// Looks at the directory that a build takes as its context; blocks.
    pub(crate) fn look(request: &BuildRequest) -> Vcs {
        let (source, asked) = (&request.source, &request.git_info);
        let tells = asked.provenance && request.attestations.provenance.is_some();
        if !(tells || asked.labels) || source.delivery.is_some() || request.plan.is_some() {
            return Vcs::default();
        }
        let mut vcs = Vcs::default();
        match found(&source.context, asked.compare) {
            Ok(None) => {}
            Ok(Some((tree, revision))) => {
                if tells {
                    vcs.fields = fields(request, &tree, revision.as_deref());
                }
                if asked.labels {
                    vcs.labels = labels(request, &tree, revision.as_deref());
                }
            }
            Err(error) => {
                vcs.notice = Some(format!(
                    "nothing is told of the commit that the context is: {}",
                    words(&error)
                ));
            }
        }
        vcs
    }
}

/// The work tree, and its commit with whether that is all.
fn found(context: &Path, compare: bool) -> Result<Option<(WorkTree, Option<String>)>, GitError> {
    let Some(tree) = WorkTree::around(context)? else {
        return Ok(None);
    };
    let mut revision = tree.commit.clone();
    if let Some(revision) = &mut revision
        && compare
        && tree.is_dirty()?
    {
        revision.push_str("-dirty");
    }
    Ok(Some((tree, revision)))
}

fn fields(
    request: &BuildRequest,
    tree: &WorkTree,
    revision: Option<&str>,
) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    if let Some(revision) = revision {
        fields.insert("revision".to_owned(), revision.to_owned());
    }
    if let Some(address) = tree.remote.as_deref().and_then(address) {
        fields.insert("source".to_owned(), address);
    }
    let mut directories = vec![("context", request.source.context.clone())];
    if let Some(file) = dockerfile(request) {
        let directory = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        directories.push(("dockerfile", directory));
    }
    for (name, context) in &request.source.contexts {
        if let ContextRequest::Directory(directory) = context {
            directories.push((name, directory.clone()));
        }
    }
    for (name, directory) in directories {
        if let Some(within) = within(tree, &directory) {
            fields.insert(format!("localdir:{name}"), within);
        }
    }
    fields
}

fn labels(
    request: &BuildRequest,
    tree: &WorkTree,
    revision: Option<&str>,
) -> BTreeMap<String, String> {
    let file = dockerfile(request).and_then(|file| within(tree, &file));
    let address = tree.remote.as_deref().and_then(address);
    let labels = [
        (REVISION, revision.map(str::to_owned)),
        (SOURCE, address),
        (ENTRYPOINT, file),
    ];
    let labels = labels
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    labels.collect()
}

fn dockerfile(request: &BuildRequest) -> Option<PathBuf> {
    match &request.source.dockerfile {
        None => Some(request.source.context.join("Dockerfile")),
        Some(DockerfileRequest::Path(path)) => Some(path.clone()),
        Some(DockerfileRequest::Stream(_) | DockerfileRequest::Url(_)) => None,
    }
}

/// A path from the top of a work tree, where it lies in it.
fn within(tree: &WorkTree, path: &Path) -> Option<String> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let path = path.canonicalize().ok()?;
    let within = path.strip_prefix(&tree.root).ok()?.to_str()?;
    Some(match within {
        "" => ".".to_owned(),
        within => within.to_owned(),
    })
}

/// The address of a remote as everybody may know it; none where it is a path of this host, or runs a
/// program.
fn address(remote: &str) -> Option<String> {
    if remote.chars().any(char::is_control) {
        return None;
    }
    match remote.split_once("://") {
        Some(("file", _)) => None,
        Some((scheme, _)) if scheme.contains("::") => None,
        Some(_) => {
            // A token may stand behind a path as well as before a host.
            let plain = without_credentials(remote);
            let end = plain.find(['?', '#']).unwrap_or(plain.len());
            Some(plain[..end].to_owned())
        }
        // As in `git@example.com:team/app.git`.
        None => {
            let (host, path) = remote.split_once(':')?;
            let is_host = !host.is_empty() && !host.contains('/') && !path.starts_with(':');
            is_host.then(|| remote.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |remote: &str, expected: Option<&str>| {
            assert_eq!(address(remote).as_deref(), expected, "{remote}");
        };
        check(
            "https://example.com/team/app.git",
            Some("https://example.com/team/app.git"),
        );
        check(
            "https://me:token@example.com/app",
            Some("https://example.com/app"),
        );
        check(
            "https://example.com/app?token=secret#x",
            Some("https://example.com/app"),
        );
        check("ssh://git@example.com/app", Some("ssh://example.com/app"));
        check("git@example.com:team/app", Some("git@example.com:team/app"));
        check("/srv/git/app", None);
        check("../app", None);
        check("./a:b", None);
        check("file:///srv/git/app", None);
        check("ext::sh -c id", None);
        check("ext::sh -c https://x", None);
        check("a\nb:c", None);
    }
}
