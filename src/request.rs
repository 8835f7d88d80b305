//! What a caller can ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_executor::{CacheSource, CacheTarget, Export, MountsPlace, Secrets};
use kiln_frontend::lower::NoCache;
use kiln_ir::{HostIp, NetworkMode, Platform, ProxyEnv, ResolveMode, ResourceLimits, Ulimit};
use kiln_solver::Cancel;

use crate::{Attestations, Conditions, Entitlement, Error, GitInfo, LockRequest};

/// What is built: where it is written, and what it is told.
///
/// Paths are the caller's; nothing here is read from the environment.
#[derive(Debug, Clone, Default)]
pub struct SourceRequest {
    /// The build context.
    pub context: PathBuf,
    /// Brings the build context from elsewhere; then `context` counts for nothing.
    pub delivery: Option<Delivery>,
    /// The Dockerfile; by default `Dockerfile` (or `dockerfile`) in the context.
    pub dockerfile: Option<DockerfileRequest>,
    /// The stage to build; by default the last.
    pub target: Option<String>,
    /// Build arguments; one without a value counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// Further contexts by name.
    pub contexts: BTreeMap<String, ContextRequest>,
    /// What the result is for; by default what builds it. Several results make an index.
    pub platforms: Vec<Platform>,
    /// What is taken to build it; by default this host, or [`ASSUMED_PLATFORM`] where a plan is made
    /// without asking anybody.
    pub build_platform: Option<Platform>,
    /// Labels of the image, over those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Network of steps that name none.
    pub network: NetworkMode,
    /// Lines for `/etc/hosts`.
    pub add_hosts: Vec<HostIp>,
    /// Limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// What a cgroup limits for each step; in no key.
    pub limits: ResourceLimits,
    /// Where the cgroups of steps are made; empty is below the caller's own.
    pub cgroup_parent: String,
    /// Size of `/dev/shm` of steps.
    pub shm_size_bytes: Option<u64>,
    /// Which steps run whatever is cached.
    pub no_cache: NoCache,
    /// When registries are asked about what no lock pins.
    pub resolve_mode: ResolveMode,
    /// What fixes images, commits and files.
    pub lock: LockRequest,
    /// Proxies of steps.
    pub proxy: ProxyEnv,
    /// Seconds since 1970 for every time in the result.
    pub source_date_epoch: Option<i64>,
    /// Who reads the Dockerfile, if not the built-in front end.
    pub frontends: Frontends,
}

impl SourceRequest {
    /// Whether planning with what store and registries say makes or reads layers: a context is brought
    /// here, or a front end from outside may ask for a plan to be carried out.
    pub fn needs_layers(&self) -> bool {
        let brings =
            self.delivery.is_some() || matches!(self.dockerfile, Some(DockerfileRequest::Url(_)));
        brings || self.has_outside_frontend()
    }

    /// Whether a front end from outside reads the file, as far as can be told before it is here.
    pub fn has_outside_frontend(&self) -> bool {
        let chosen = crate::delivery::Place::local(&SourceRequest {
            // What is read once is not read for this.
            dockerfile: self
                .dockerfile
                .clone()
                .filter(|file| matches!(file, DockerfileRequest::Path(_))),
            ..self.clone()
        })
        .and_then(|place| crate::outside::choose(self, &place));
        // What is wrong with it is told by whoever reads it.
        matches!(chosen, Ok(Some(_)))
    }
}

/// What is to be known of front ends from outside.
#[derive(Debug, Clone, Default)]
pub struct Frontends {
    /// Reads the build file, whatever that says.
    pub chosen: Option<Frontend>,
    /// The build file may name a program of this host.
    pub allow_exec: bool,
    /// How long one may say nothing while it waits for nothing; by default a minute.
    pub patience: Option<Duration>,
    /// The whole environment of programs of this host.
    pub environment: Vec<(OsString, OsString)>,
    /// Ends one at once; a build sets its own.
    pub cancel: Cancel,
}

impl Frontends {
    pub(crate) fn patience(&self) -> Duration {
        self.patience.unwrap_or(Duration::from_secs(60))
    }
}

/// A front end from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// A program of this host; one without `/` is looked for in the `PATH` of its environment.
    Program(PathBuf),
    /// An image by reference, whose program runs in a sandbox.
    Image(String),
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frontend::Program(program) => program.display().fmt(f),
            Frontend::Image(image) => image.fmt(f),
        }
    }
}

/// What plans that ask nobody are taken to be built on, so that they are the same on every host.
pub const ASSUMED_PLATFORM: &str = "linux/amd64";

/// A build context that is no directory of the caller.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A git repository, or an archive or a Dockerfile over http.
    Url(String),
    /// An archive, or a Dockerfile alone.
    Stream(ReadOnce),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone)]
pub enum DockerfileRequest {
    /// A file: of the caller, or within a context that is brought here.
    Path(PathBuf),
    /// What is read from there.
    Stream(ReadOnce),
    /// A file over http.
    Url(String),
}

/// Something that is read once, such as standard input. Clones are the same.
#[derive(Clone)]
pub struct ReadOnce {
    reader: Arc<Mutex<Option<Box<dyn Read + Send>>>>,
}

impl ReadOnce {
    /// Wraps what is to be read.
    pub fn new(reader: impl Read + Send + 'static) -> ReadOnce {
        ReadOnce {
            reader: Arc::new(Mutex::new(Some(Box::new(reader)))),
        }
    }

    /// Takes it, which can be done once.
    pub(crate) fn take(&self) -> Result<Box<dyn Read + Send>, Error> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.take().ok_or_else(|| Error::Usage {
            message: "standard input cannot be read twice".to_owned(),
            hint: None,
        })
    }
}

impl fmt::Debug for ReadOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadOnce")
    }
}

/// A named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextRequest {
    /// A directory.
    Directory(PathBuf),
    /// An image by reference.
    Image(String),
    /// A git repository, or a file over http.
    Url(String),
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
    pub tags: Vec<String>,
    /// Secrets and ssh agents that steps may ask for; none of it is kept.
    pub secrets: Secrets,
    /// What steps may have beyond what every step has.
    pub allow: BTreeSet<Entitlement>,
    /// At most so many steps at once; by default 16 or twice the cores.
    pub jobs: Option<usize>,
    /// After a failure, what does not need the failed step goes on.
    pub keep_going: bool,
    /// Where cache mounts come from that are not here when a step needs them.
    pub mounts_from: Vec<MountsPlace>,
    /// Where the cache mounts that steps used go after the build.
    pub mounts_to: Vec<MountsPlace>,
    /// What is said of the images beside them.
    pub attestations: Attestations,
    /// Where it is told which commit the context is, if it is a directory in a work tree.
    pub git_info: GitInfo,
    /// What steps find around them beside what they ask for.
    pub conditions: Conditions,
    /// Where other machines left results that may be used.
    pub cache_from: Vec<CacheSource>,
    /// Where results go for other machines.
    pub cache_to: Vec<CacheTarget>,
    /// The image's config holds the results that the image consists of.
    pub inline_cache: bool,
}
