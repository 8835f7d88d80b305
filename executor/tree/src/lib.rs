//! A directory by handle: walk, hash, copy, seal, tar in and out.
//!
//! Everything here works below a directory handle and never on string paths below a root, so a
//! hostile tree cannot lead it outside. A layer is a directory plus its [`Manifest`]; the manifest
//! is the truth and the directory a best effort.
//!
//! ```
//! use kiln_tree::{Entry, Kind, Manifest, Meta, TreePath};
//! let etc = Entry::new(TreePath::new("etc")?, Kind::DIRECTORY, Meta::new(0o755));
//! let layer = Manifest::new(vec![etc])?;
//! assert_eq!(Manifest::decode(&layer.encode())?.id(), layer.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod digest;
pub mod path;
pub mod wire;

pub mod attributes;
pub mod handle;
pub mod marks;
pub mod resolve;
mod sparse;
pub mod stop;
pub mod walk;

pub mod aged;

pub mod manifest;
pub mod view;

mod owners;

pub mod assemble;
pub mod copy;
pub mod materialised;
pub mod seal;
pub mod tar;

pub mod context;

pub use attributes::{Ownership, UnmappedOwner};
pub use digest::{FileDigest, LayerId, TreeDigest};
pub use handle::FsError;
pub use manifest::{Entry, Kind, Manifest, ManifestError, Meta, Mtime, Xattrs};
pub use marks::OverlayXattrs;
pub use owners::{OneId, Owner, OwnerDoubt, Why};
pub use path::{PathError, TreePath};
pub use stop::Stop;
pub use view::{Changes, Found, View};
pub use wire::DecodeError;
