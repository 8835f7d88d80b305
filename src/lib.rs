//! kiln as a library: builds container images from Dockerfiles and other plans.
//!
//! It composes the rooms and owns no terminal: a caller makes a [`Kiln`], gives it a
//! [`BuildRequest`], and is told of [`Event`]s while the build goes on.
//!
//! ```no_run
//! use kiln::{BuildRequest, Cancel, Kiln, Options, SourceRequest};
//!
//! // First of all in `main`: steps run in re-executions of this very binary.
//! kiln::init_if_requested();
//! # async fn build() -> Result<(), kiln::Error> {
//! let kiln = Kiln::open(Options { root: "/var/lib/kiln".into(), ..Options::default() })?;
//! let source = SourceRequest { context: ".".into(), ..SourceRequest::default() };
//! let request = BuildRequest { source, ..BuildRequest::default() };
//! let built = kiln.build(request, |event| drop(event), Cancel::new()).await?;
//! assert!(built.exported.image_id.is_some());
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod event;
mod explanation;
mod lines;
mod request;

mod arguments;
mod attest;
mod build;
mod cache;
mod call;
mod delivery;
mod dockerfile;
mod entitlement;
mod foresight;
mod ignore;
mod lock;
mod log;
mod missing;
mod open;
mod outside;
mod plan;
mod record;
mod report;
mod reproduce;
mod rerun;
mod revision;
mod steps;
mod trace;
pub mod words;

pub use attest::{AttestError, Attestations, GitInfo, Provenance, ProvenanceMode};
pub use build::Built;
pub use cache::RememberedCache;
pub use call::{
    Checked, ContextEntry, ContextListing, Outlined, SeenContext, Sight, Subrequest, Target,
    Targets, subrequests, subrequests_json,
};
pub use entitlement::Entitlement;
pub use error::{Error, FailedStep, Findings};
pub use event::{Event, StepIndex, StepInfo, StepStatus, Stream, Warnings};
pub use explanation::{Explanation, FoundBy, RecordRef};
pub use foresight::{Fate, Foresight};
pub use ignore::IgnoreRule;
pub use lines::OutputLines;
pub use lock::{LockChange, LockError, LockOptions, LockOutcome, LockRequest, pull_words};
pub use open::{Kiln, Options};
pub use outside::{FrontendFailure, FrontendProblem};
pub use plan::{PlanForm, Planned, read_plan};
pub use record::{BuildDetails, BuildRecord, ExportRecord, Outcome, StepRecord};
pub use reproduce::{Conditions, Culprit, culprit};
pub use request::{
    ASSUMED_PLATFORM, BuildRequest, ContextRequest, Delivery, DockerfileRequest, Frontend,
    Frontends, ReadOnce, SourceRequest,
};
pub use rerun::{Rerun, RerunStep, reruns};
pub use revision::PlanContext;

pub use kiln_executor::{
    Accounts, AgentSource, Annotation, AnnotationPlace, BlobState, Compression, ConfigDifference,
    ContainerRequest, ContentDifference, Credential, Destination, Difference, Engine,
    Error as ExecutorError, Executor, Export, Exported, FileDifference, Flavor, GitError,
    ImageDetails, ImageDifferences, ImageOptions, ImageSummary, ImportedImage, Keep, Kept,
    LayerCompression, LayerDifferences, LayerFiles, LineDifference, ListRequest, LoadSource,
    LoadedImage, LoggedOut, ManifestDescriptor, MemberChange, NewLogin, PlatformDetails, Program,
    ProgramStdio, PullEvent, PullObserver, PullRequest, PulledImage, PushRequest, PushedName,
    RegistryOverrides, RegistrySettings, Revision, SaveFormat, SaveRequest, SecretSource, Secrets,
    SpaceLine, StepLog, Swept, Terminal, Tmpfs, TransferEvent, TransferObserver, Volume, Warn,
    check_writable, host_platform, ignore_file_size_signal, init_if_requested, probe_host, userns,
    write_whole,
};
pub use kiln_executor::{
    AttestAs, Believes, Inventory, Note, Package, Predicate, Purl, Sbom, SbomOrigin, SbomRequest,
    full_name, names_registry,
};
pub use kiln_executor::{
    CacheError, CacheMode, CachePlace, CachePublished, CacheSource, CacheTarget, DEFAULT_TAG,
    LEAST_PART_BYTES, MOST_AGE, MOST_BYTES, MOST_PART_BYTES, PART_BYTES, PATIENCE, S3Place,
    S3Settings,
};
pub use kiln_executor::{
    ExportMounts, ExportedMount, ImportMounts, ImportedMount, MountSummary, MountsError,
    MountsEvent, MountsExported, MountsPlace,
};
pub use kiln_frontend::diagnostic;
pub use kiln_frontend::dockerfile::span;
pub use kiln_frontend::lower::NoCache;
pub use kiln_ir::pattern::wildcard_match;
pub use kiln_ir::{
    Comparison as PlanComparison, HostIp, NetworkMode, Plan, Platform, ProxyEnv, ResolveMode,
    ResourceLimits, ResultEntry, Snapshot, SnapshotError, Ulimit, compare, expect,
};
pub use kiln_solver::{Cancel, Comparison, Reason, WaitsFor};
