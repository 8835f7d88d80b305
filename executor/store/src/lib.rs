//! Blobs, layers, snapshots, records, leases, sweeping.
//!
//! A [`Store`] is a directory that several kiln processes share. What it holds is found by digest
//! and kept by [`Lease`]s while somebody works with it, by records and images otherwise; the rest
//! is swept. The format is docs/formats/store.md.
//!
//! ```
//! use std::io::Write;
//! use kiln_store::{Store, StoreOptions};
//! # let directory = tempfile::tempdir()?;
//! let store = Store::open(&directory.path().join("kiln"), StoreOptions::default())?;
//! let lease = store.lease();
//! let mut writer = store.write_blob(None)?;
//! writer.write_all(b"hello")?;
//! let digest = writer.finish(&lease)?;
//! assert_eq!(store.blob_size(&digest)?, Some(5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod content;
mod error;

mod database;
mod durability;
mod filesystem;
mod process;
mod reserve;
mod schema;
mod store;
mod trash;

mod blobs;
mod layers;
mod leases;
mod records;

mod attached;
mod attestations;
mod builds;
mod cachemounts;
mod compressed;
mod contexts;
mod images;
mod locks;
mod places;
mod remotes;
mod wholemounts;

pub mod snapshot;

mod abandon;
mod sweep;
mod usage;

pub use attestations::Attestation;
pub use blobs::BlobWriter;
pub use builds::{Build, FoundBuild, NewBuild, StepLog};
pub use cachemounts::{CacheMount, CacheMountAttempt, CacheMountInfo, Sharing};
pub use compressed::{AS_PULLED, Compressed};
pub use content::{BlobDigest, Content, DiffId, ImageId, Key, Lineage, OpKey, ParseIdError};
pub use error::StoreError;
pub use images::{Image, Member, NamedImage, NewImage, NewIndex, Pulled};
pub use layers::{LayerDraft, LayerHandle, LayerInfo};
pub use leases::Lease;
pub use locks::{KeyLock, LockAttempt};
pub use records::{Nearest, NewRecord, Record, RecordId, Tombstone};
pub use remotes::{Repository, RepositoryAttempt, WorkDirectory};
pub use snapshot::{SealedLayer, Snapshot, Snapshotter, Strategy};
pub use store::{Store, StoreOptions, open_or_create};
pub use sweep::{Policy, SweepReport};
pub use usage::{Usage, UsageLine};
pub use wholemounts::{Beside, MountDraft, WholeMount, WholeMountAttempt};
