//! Sources from elsewhere as the solver asks for them: git repositories and files over http.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_ir::{GitSource, HttpSource, NodeId, Op, Pin, SourceOp};
use kiln_solver::{FetchRequest, Pinned, SourceRequest};
use kiln_store::{Content, Lease};

use crate::error::Error;
use crate::executor::Executor;
use crate::git::{self, GitAccess};
use crate::source::http;

/// The sources of one build.
pub(crate) struct Remotes {
    executor: Executor,
    /// Layers of files that had to be fetched to be pinned.
    fetched: Mutex<BTreeMap<NodeId, Content>>,
}

impl Remotes {
    pub(crate) fn new(executor: &Executor) -> Remotes {
        Remotes {
            executor: executor.clone(),
            fetched: Mutex::default(),
        }
    }

    fn fetched(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Content>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out which commit a repository's reference means.
    pub(crate) async fn pin_git(
        &self,
        request: &SourceRequest,
        source: &GitSource,
    ) -> Result<Pinned, Error> {
        let known = match request.plan.pins.get(&request.node) {
            Some(Pin::Commit(commit)) => Some(commit.as_str()),
            _ => None,
        };
        let found = git::pin(&self.executor, source, known, &self.git_access(source)).await?;
        Ok(Pinned {
            identity: found.commit.clone().into_bytes(),
            content: None,
            pin: Pin::Commit(found.commit),
            label: found.label,
        })
    }

    /// Finds out which bytes an address means.
    pub(crate) async fn pin_http(
        &self,
        lease: &Lease,
        request: &SourceRequest,
        source: &HttpSource,
    ) -> Result<Pinned, Error> {
        check_attributes(source)?;
        let known = match request.plan.pins.get(&request.node) {
            Some(Pin::Checksum(digest)) => Some(digest.as_str()),
            _ => None,
        };
        let authorization = self.authorization(source);
        let found = http::pin(&self.executor, lease, source, known, authorization).await?;
        if let Some(layer) = found.layer {
            self.fetched().insert(request.node, layer);
        }
        Ok(Pinned {
            identity: found.digest.clone().into_bytes(),
            content: None,
            pin: Pin::Checksum(found.digest),
            label: found.label,
        })
    }

    /// Brings the layer of a git or http source here; none for sources of other kinds.
    pub(crate) async fn fetch(
        &self,
        lease: &Lease,
        request: &FetchRequest,
    ) -> Result<Option<Content>, Error> {
        let Some(Pinned { pin, .. }) = &request.pinned else {
            return Ok(None);
        };
        let (executor, sink) = (&self.executor, Some(&request.sink));
        let layer = match (&request.plan.graph.node(request.node).op, pin) {
            (Op::Source(SourceOp::Git(source)), Pin::Commit(commit)) => {
                let access = self.git_access(source);
                git::fetch(executor, lease, source, commit, &access, sink).await?
            }
            (Op::Source(SourceOp::Http(source)), Pin::Checksum(digest)) => {
                let fetched = self.fetched().get(&request.node).copied();
                match fetched {
                    Some(layer) => layer,
                    None => {
                        let authorization = self.authorization(source);
                        http::fetch(executor, lease, source, digest, authorization, sink).await?
                    }
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(layer))
    }

    fn git_access(&self, _source: &GitSource) -> GitAccess {
        GitAccess::default()
    }

    fn authorization(&self, _source: &HttpSource) -> Option<String> {
        None
    }
}

fn check_attributes(source: &HttpSource) -> Result<(), Error> {
    match source.attrs.first_key_value() {
        None => Ok(()),
        Some((name, value)) => Err(Error::Unsupported {
            what: "an attribute of a source",
            value: format!("{name}={value}"),
        }),
    }
}
