//! What the registry holds and remembers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::{Builder, Fault};

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The header `Authorization`, if it had one.
    pub authorization: Option<String>,
    /// The header `Range`, if it had one.
    pub range: Option<String>,
    /// The header `User-Agent`, if it had one.
    pub user_agent: Option<String>,
    /// The body, of requests to the token server only.
    pub body: String,
    /// The status of the answer, 0 if there was none.
    pub status: u16,
}

pub(crate) struct State {
    pub(crate) settings: Builder,
    pub(crate) address: SocketAddr,
    pub(crate) faults: Vec<Fault>,
    pub(crate) log: Vec<Logged>,
    /// Tokens by value, with the scopes that they are good for.
    pub(crate) tokens: HashMap<String, Vec<String>>,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    pub(crate) counter: u64,
    blobs: HashMap<String, Bytes>,
    /// Repository and digest.
    held: HashSet<(String, String)>,
    /// Repository and tag or digest.
    manifests: HashMap<(String, String), (String, Bytes)>,
}

impl State {
    pub(crate) fn new(settings: Builder, address: SocketAddr) -> Self {
        Self {
            settings,
            address,
            faults: Vec::new(),
            log: Vec::new(),
            tokens: HashMap::new(),
            uploads: HashMap::new(),
            counter: 0,
            blobs: HashMap::new(),
            held: HashSet::new(),
            manifests: HashMap::new(),
        }
    }

    /// Takes the first fault that fits a request.
    pub(crate) fn fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        let for_bodies = |fault: &Fault| {
            matches!(
                fault,
                Fault::CutAfter { .. }
                    | Fault::WrongBytes { .. }
                    | Fault::WrongRange { .. }
                    | Fault::Stall { .. }
                    | Fault::Slow { .. }
                    | Fault::Together { .. }
                    | Fault::Redirect { .. }
            )
        };
        let for_uploads = |fault: &Fault| {
            matches!(
                fault,
                Fault::CutUpload { .. }
                    | Fault::StallUpload { .. }
                    | Fault::SlowUpload { .. }
                    | Fault::TogetherUpload { .. }
                    | Fault::AlterUpload { .. }
            )
        };
        let fits = |fault: &Fault| {
            path.contains(fault.path())
                && (method == "GET" || !for_bodies(fault))
                && (matches!(method, "PUT" | "PATCH") || !for_uploads(fault))
        };
        let at = self.faults.iter().position(fits)?;
        Some(self.faults.remove(at))
    }

    /// Keeps what came of a chunk before its connection was cut.
    pub(crate) fn keep_part(&mut self, path: &str, bytes: &[u8]) {
        let upload = path.rsplit('/').next().unwrap_or_default();
        if let Some(held) = self.uploads.get_mut(upload) {
            held.extend_from_slice(bytes);
        }
    }

    pub(crate) fn put_blob(&mut self, repository: &str, digest: &str, bytes: Bytes) {
        self.blobs.insert(digest.to_owned(), bytes);
        self.held.insert((repository.to_owned(), digest.to_owned()));
    }

    /// Lets a repository share a blob of another; tells whether that one has it.
    pub(crate) fn mount(&mut self, from: &str, to: &str, digest: &str) -> bool {
        let has = self.held.contains(&(from.to_owned(), digest.to_owned()));
        if has {
            self.held.insert((to.to_owned(), digest.to_owned()));
        }
        has
    }

    pub(crate) fn forget_tag(&mut self, repository: &str, tag: &str) {
        self.manifests
            .remove(&(repository.to_owned(), tag.to_owned()));
    }

    /// Lets a repository lose a blob.
    pub(crate) fn forget_blob(&mut self, repository: &str, digest: &str) {
        self.held
            .remove(&(repository.to_owned(), digest.to_owned()));
    }

    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.held.get(&(repository.to_owned(), digest.to_owned()))?;
        self.blobs.get(digest).cloned()
    }

    pub(crate) fn put_manifest(
        &mut self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: Bytes,
    ) {
        self.manifests.insert(
            (repository.to_owned(), name.to_owned()),
            (media_type.to_owned(), bytes),
        );
    }

    pub(crate) fn manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        self.manifests
            .get(&(repository.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The tags of a repository, sorted.
    pub(crate) fn tags(&self, repository: &str) -> Vec<&str> {
        let names = self.manifests.keys();
        let of_it = names.filter(|(held_by, _)| held_by == repository);
        let tags = of_it.map(|(_, name)| name.as_str());
        let mut tags: Vec<&str> = tags.filter(|name| !name.starts_with("sha256:")).collect();
        tags.sort_unstable();
        tags
    }

    /// The manifests of a repository that are about another, by digest, sorted.
    pub(crate) fn referrers(&self, repository: &str, subject: &str) -> Vec<(String, Bytes)> {
        let mut found: Vec<(String, Bytes)> = self
            .manifests
            .iter()
            .filter(|((held_by, name), _)| held_by == repository && name.starts_with("sha256:"))
            .filter(|(_, (_, bytes))| {
                let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
                document["subject"]["digest"] == subject
            })
            .map(|((_, digest), (_, bytes))| (digest.clone(), bytes.clone()))
            .collect();
        found.sort();
        found
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}
