//! Sources from elsewhere as the solver asks for them: git repositories and files over http.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use kiln_ir::{GitSource, HttpSource, NodeId, Op, Pin, SourceOp};
use kiln_oci::web::without_password;
use kiln_solver::{FetchRequest, Pinned, SourceRequest};
use kiln_store::{Content, Lease};

use crate::error::Error;
use crate::executor::Executor;
use crate::git::{self, GitAccess};
use crate::secrets::Secrets;
use crate::source::http;
use crate::ssh::Agents;

/// The ids of secrets that sources are asked for with; `.HOST` may follow those of git, the host
/// itself those of http.
const GIT_HEADER: &str = "GIT_AUTH_HEADER";
const GIT_TOKEN: &str = "GIT_AUTH_TOKEN";
const HTTP_HEADER: &str = "HTTP_AUTH_HEADER_";
const HTTP_TOKEN: &str = "HTTP_AUTH_TOKEN_";
/// The agent of remotes that name none.
const DEFAULT_AGENT: &str = "default";

/// The sources of one build.
pub(crate) struct Remotes {
    executor: Executor,
    secrets: Arc<Secrets>,
    agents: Arc<Agents>,
    /// Whether the store may change.
    keeps: bool,
    /// Layers of files that had to be fetched to be pinned.
    fetched: Mutex<BTreeMap<NodeId, Content>>,
}

impl Remotes {
    pub(crate) fn new(executor: &Executor) -> Remotes {
        Remotes {
            executor: executor.clone(),
            secrets: Arc::default(),
            agents: Arc::default(),
            keeps: true,
            fetched: Mutex::default(),
        }
    }

    /// Lets sources be asked for with proofs.
    pub(crate) fn with_secrets(self, secrets: Arc<Secrets>, agents: Arc<Agents>) -> Remotes {
        Remotes {
            secrets,
            agents,
            ..self
        }
    }

    /// Leaves the store as it is.
    pub(crate) fn looking(self) -> Remotes {
        Remotes {
            keeps: false,
            ..self
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
        let access = self.git_access(source)?;
        let found = git::pin(&self.executor, source, known, &access, self.keeps).await?;
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
        let authorization = self.authorization(source)?;
        let found = match self.keeps {
            true => http::pin(&self.executor, lease, source, known, authorization).await?,
            false => http::look(&self.executor, source, known, authorization).await?,
        };
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
                let access = self.git_access(source)?;
                git::fetch(executor, lease, source, commit, &access, sink).await?
            }
            (Op::Source(SourceOp::Http(source)), Pin::Checksum(digest)) => {
                let fetched = self.fetched().get(&request.node).copied();
                match fetched {
                    Some(layer) => layer,
                    None => {
                        let authorization = self.authorization(source)?;
                        http::fetch(executor, lease, source, digest, authorization, sink).await?
                    }
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(layer))
    }

    /// Finds out when a source was last changed, in seconds since 1970; none where nobody says.
    pub(crate) async fn time(
        &self,
        lease: &Lease,
        source: &SourceOp,
    ) -> Result<Option<i64>, Error> {
        match source {
            SourceOp::Git(source) => {
                let access = self.git_access(source)?;
                let pinned = git::pin(&self.executor, source, None, &access, self.keeps).await?;
                git::commit_time(&self.executor, source, &pinned.commit, &access).await
            }
            SourceOp::Http(source) => {
                let authorization = self.authorization(source)?;
                let pinned = http::pin(&self.executor, lease, source, None, authorization).await?;
                Ok(pinned.modified)
            }
            _ => Ok(None),
        }
    }

    /// What git may prove itself with: a header, or a token, first those of this very host; and the
    /// agent of an ssh remote.
    fn git_access(&self, source: &GitSource) -> Result<GitAccess, Error> {
        let url = match &source.full_url {
            Some(url) => url.clone(),
            None => format!("https://{}", source.remote),
        };
        if !is_http(&url) {
            let id = source.mount_ssh_sock.as_deref().unwrap_or(DEFAULT_AGENT);
            let agent = self.agents.agent(id)?;
            return Ok(GitAccess {
                ssh_agent: agent.map(|agent| agent.socket().to_owned()),
                ..GitAccess::default()
            });
        }
        let host = host(&url);
        let header = source.auth_header_secret.as_deref();
        let header = header.unwrap_or(GIT_HEADER);
        let token = source.auth_token_secret.as_deref().unwrap_or(GIT_TOKEN);
        for (name, is_token) in [
            (format!("{header}.{host}"), false),
            (format!("{token}.{host}"), true),
            (header.to_owned(), false),
            (token.to_owned(), true),
        ] {
            if let Some(value) = self.proof(&name)? {
                let value = match is_token {
                    true => format!("basic {}", BASE64.encode(format!("x-access-token:{value}"))),
                    false => value,
                };
                return Ok(GitAccess {
                    authorization: Some(value),
                    ..GitAccess::default()
                });
            }
        }
        Ok(GitAccess::default())
    }

    /// What is sent to the host of a file; only secrets that name it are.
    fn authorization(&self, source: &HttpSource) -> Result<Option<String>, Error> {
        if let Some(name) = &source.auth_header_secret {
            return self.proof(name);
        }
        let host = host(&source.url);
        if let Some(header) = self.proof(&format!("{HTTP_HEADER}{host}"))? {
            return Ok(Some(header));
        }
        let token = self.proof(&format!("{HTTP_TOKEN}{host}"))?;
        Ok(token.map(|token| format!("Bearer {token}")))
    }

    /// A secret as one line.
    fn proof(&self, id: &str) -> Result<Option<String>, Error> {
        let value = self.secrets.value(id)?;
        let text = value.map(|value| String::from_utf8_lossy(&value).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// What a git or http source is called in a lock: its address without a password. None where the
/// source itself says which commit or bytes it means, and for sources of other kinds.
pub fn lock_name(source: &SourceOp) -> Option<String> {
    match source {
        SourceOp::Git(source) => {
            let checksum = source.checksum.as_deref();
            let says_so = git::is_commit(&source.reference)
                || (source.fetch_by_commit && checksum.is_some_and(git::is_commit));
            let url = match &source.full_url {
                Some(url) => url.clone(),
                None => format!("https://{}", source.remote),
            };
            let mut name = without_password(&url);
            // A tag is then the tag itself, not the commit that it points to.
            if source.keep_git_dir {
                name.push_str("?keep-git-dir=true");
            }
            if !source.reference.is_empty() {
                name.push('#');
                name.push_str(&source.reference);
            }
            (!says_so).then_some(name)
        }
        SourceOp::Http(source) if source.checksum.is_none() => Some(without_password(&source.url)),
        _ => None,
    }
}

/// Where a git or http source is, without a password.
pub(crate) fn address(source: &SourceOp) -> String {
    match source {
        SourceOp::Git(source) => {
            without_password(source.full_url.as_deref().unwrap_or(&source.remote))
        }
        SourceOp::Http(source) => without_password(&source.url),
        _ => String::new(),
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The host of an address, with its port where it names one.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
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
