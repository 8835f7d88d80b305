//! Results for real: sources, runs, file operations, exporters.
//!
//! An [`Executor`] is a store with a way to registries and into sandboxes. For one build it makes a
//! [`BuildWorker`], which the solver asks for facts, results and runs; what came out is exported by
//! [`Executor::export`]. Everything that touches the world is in here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod executor;
mod warning;

mod context;
mod stack;
mod users;

mod archive;
mod caller;
mod engines;
mod file;
mod git;
mod source;
mod unpack;

mod cachemounts;
mod combine;
mod emulation;
mod exec;
mod hostfiles;
mod limits;
mod patience;
mod secrets;
mod ssh;

mod filed;
mod remotes;
mod select;
mod worker;

mod looker;
mod past;

mod compare;
mod compress;
mod export;

mod packed;
mod pull;
mod push;
mod transfer;

mod accounts;
mod attached;
mod attestation;
mod builds;
mod cache;
mod challenges;
mod container;
mod delivery;
mod images;
mod import;
mod layer_files;
mod lists;
mod load;
mod mounts;
mod peek;
mod piped;
mod sbom;
mod sboms;
mod space;

pub use accounts::{Accounts, LoggedOut, NewLogin};
pub use attestation::Predicate;
pub use builds::{Build, FoundBuild, NewBuild, StepLog};
pub use cache::{
    CacheContent, CacheError, CacheMode, CacheNotices, CachePlace, CachePublished, CacheSource,
    CacheTarget, DEFAULT_TAG, DocumentError, Elsewhere, MOST_AGE, MOST_BYTES, PATIENCE, S3Place,
};
pub use cachemounts::CacheMounts;
pub use compare::{
    ConfigDifference, ContentDifference, Difference, FileDifference, ImageDifferences,
    LayerDifferences, LineDifference,
};
pub use compress::LayerCompression;
pub use container::{
    ContainerRequest, Program, ProgramStdio, PullEvent, PullObserver, Terminal, Tmpfs, Volume,
};
pub use context::Locals;
pub use delivery::{Delivered, StreamContent};
pub use engines::{Engine, UnknownEngine};
pub use error::{Error, words};
pub use executor::{Executor, ExecutorOptions, Found, host_platform};
pub use export::{
    Annotation, AnnotationPlace, Compression, Destination, Export, Exported, Flavor, ImageOptions,
    ImageToExport, ManifestDescriptor, ResultToExport, SaveFormat, SaveRequest, ScanToExport, Sent,
    behind_links, check_writable, rfc3339, write_whole,
};
pub use file::{ChangeError, FileError, ModeError, PickError};
pub use git::{GitAccess, GitError, Revision, WorkTree};
pub use images::{ImageDetails, ImageSummary, PlatformDetails, full_name};
pub use import::ImportedImage;
pub use kiln_oci::s3::{LEAST_PART_BYTES, MOST_PART_BYTES, PART_BYTES, S3Settings};
pub use kiln_store::Lease as BuildLease;
pub use layer_files::LayerFiles;
pub use lists::{ListError, ListRequest, MemberChange};
pub use load::{LoadError, LoadSource, LoadedImage};
pub use looker::Looker;
pub use mounts::{
    ExportMounts, ExportedMount, ImportMounts, ImportedMount, MountSummary, MountsError,
    MountsEvent, MountsExported, MountsPlace, TravellingMounts,
};
pub use past::{Past, PastBuild};
pub use peek::{Peek, PeekedEntry, PeekedKind, Unseen};
pub use piped::{Ended, Piped, Streams};
pub use pull::{PullRequest, PulledImage};
pub use push::{AttestAs, Believes, PushRequest, PushedName};
pub use remotes::lock_name;
pub use sbom::{Inventory, Note, Package, Purl, SPDX_PREDICATE, image_purl};
pub use sboms::{Sbom, SbomOrigin, SbomRequest, names_registry};
pub use secrets::{AgentSource, SecretSource, Secrets};
pub use source::{ResolvedImage, Resolver, ago};
pub use space::{Keep, SpaceLine, Swept};
pub use ssh::AgentError;
pub use transfer::{BlobState, TransferEvent, TransferObserver};
pub use users::AccountError;
pub use warning::Warn;
pub use worker::{BuildWorker, Handle};

pub use kiln_oci::registry::{
    Credential, Kept, Overrides as RegistryOverrides, Settings as RegistrySettings,
};
pub use kiln_sandbox::{
    ignore_file_size_signal, init_if_requested, probe_report as probe_host, userns,
};
