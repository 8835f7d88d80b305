//! What a lowering is a function of: the text, and the options of the build.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{HostIp, NetworkMode, Platform, ProxyEnv, ResolveMode, ResourceLimits, Ulimit};

use crate::dockerfile::Source;

/// A Dockerfile with the options of its build.
#[derive(Clone, Debug, Default)]
pub struct LowerInput {
    /// The text of the Dockerfile.
    pub text: Source,
    /// Its name, as diagnostics and source ranges show it.
    pub file_name: String,
    /// The stage to build, by name in any case; none is the last one.
    pub target: Option<String>,
    /// Stages that the target does not need are lowered too, so that they are checked.
    pub every_stage: bool,
    /// `--build-arg`: values of declared arguments; none is a name given without a value that
    /// the caller's environment does not have either, and counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`: these override the Dockerfile's, in the final stage only.
    pub labels: BTreeMap<String, String>,
    /// What the result is for, normalised; empty is the build platform.
    pub platforms: Vec<Platform>,
    /// Results are keyed by platform even if there is only one.
    pub multi_platform: bool,
    /// What the build runs on, normalised.
    pub build_platform: Platform,
    /// The steps for which no earlier result is used.
    pub no_cache: NoCache,
    /// The network of RUN steps that name none.
    pub network: NetworkMode,
    /// `--add-host`, in order.
    pub add_hosts: Vec<HostIp>,
    /// `--ulimit`, in order.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`: size of `/dev/shm`; none is the executor's default.
    pub shm_size_bytes: Option<u64>,
    /// Host name of RUN steps; the build argument `BUILDKIT_SANDBOX_HOSTNAME` goes before it.
    pub hostname: String,
    /// Parent cgroup of RUN steps.
    pub cgroup_parent: String,
    /// Resource limits of RUN steps; in no digest.
    pub limits: ResourceLimits,
    /// `--build-context`, by name; `NAME::PLATFORM` goes before `NAME` for that platform.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The patterns of the context's ignore file.
    pub ignore: Vec<String>,
    /// Proxies of RUN steps; the proxy build arguments go before them, field by field.
    pub proxy: ProxyEnv,
    /// Seconds since 1970 for everything that the build itself dates; the build argument
    /// `SOURCE_DATE_EPOCH` goes before it.
    pub source_date_epoch: Option<i64>,
    /// When the registry is asked about base images.
    pub resolve_mode: ResolveMode,
    /// Namespace of cache mounts; the build argument `BUILDKIT_CACHE_MOUNT_NS` goes before it.
    pub cache_mount_ns: String,
}

/// The steps for which no earlier result is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    No,
    /// Every step.
    All,
    /// The steps of these stages, by name in any case.
    Stages(BTreeSet<String>),
}

/// What `--build-context NAME=VALUE` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the client.
    Local {
        /// The name of the local source, as the executor knows it.
        source: String,
        /// The patterns of its own ignore file.
        ignore: Vec<String>,
    },
    /// An image: `docker-image://REFERENCE`, the value here is the reference.
    Image(String),
    /// An image in an OCI layout directory of the client: the layout's name, as the executor knows
    /// it, with `:TAG` or `@DIGEST` where the client chose one.
    OciLayout(String),
    /// A git repository or an archive over http, as a URL.
    Url(String),
}
