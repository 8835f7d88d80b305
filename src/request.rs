//! What a caller can ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_executor::{Export, Secrets};
use kiln_frontend::lower::NoCache;
use kiln_ir::{HostIp, NetworkMode, ProxyEnv, ResolveMode, Ulimit};

use crate::Entitlement;

/// What is built: where it is written, and what it is told.
///
/// Paths are the caller's; nothing here is read from the environment.
#[derive(Debug, Clone, Default)]
pub struct SourceRequest {
    /// The build context.
    pub context: PathBuf,
    /// The Dockerfile; by default `Dockerfile` (or `dockerfile`) in the context.
    pub dockerfile: Option<PathBuf>,
    /// The stage to build; by default the last.
    pub target: Option<String>,
    /// Build arguments; one without a value counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// Further contexts by name.
    pub contexts: BTreeMap<String, ContextRequest>,
    /// Platform, as in `linux/amd64`; by default the host's.
    pub platform: Option<String>,
    /// Labels of the image, over those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Network of steps that name none.
    pub network: NetworkMode,
    /// Lines for `/etc/hosts`.
    pub add_hosts: Vec<HostIp>,
    /// Limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` of steps.
    pub shm_size_bytes: Option<u64>,
    /// Which steps run whatever is cached.
    pub no_cache: NoCache,
    /// When registries are asked.
    pub resolve_mode: ResolveMode,
    /// Proxies of steps.
    pub proxy: ProxyEnv,
    /// Seconds since 1970 for every time in the result.
    pub source_date_epoch: Option<i64>,
}

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextRequest {
    /// A directory.
    Directory(PathBuf),
    /// An image by reference.
    Image(String),
    /// An image in an OCI layout directory.
    OciLayout {
        /// The directory.
        path: PathBuf,
        /// A tag or digest in it; none where it holds one image only.
        reference: Option<String>,
    },
}

/// A whole build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// What is built.
    pub source: SourceRequest,
    /// A plan in text or JSON form that is built instead of a Dockerfile.
    pub plan: Option<String>,
    /// Where the result goes; empty is kiln's own store.
    pub exports: Vec<Export>,
    /// Names of the image.
    pub tags: BTreeSet<String>,
    /// Secrets and ssh agents that steps may ask for; none of it is kept.
    pub secrets: Secrets,
    /// What steps may have beyond what every step has.
    pub allow: BTreeSet<Entitlement>,
    /// At most so many steps at once; by default 16 or twice the cores.
    pub jobs: Option<usize>,
    /// After a failure, what does not need the failed step goes on.
    pub keep_going: bool,
}
