//! Sealing: what a finished step meant, read off its upper directory.

mod hashing;
mod ids;
mod options;
mod upper;

pub(crate) use hashing::{Job, hash_files};
pub use ids::{IdMap, IdRange, UNMAPPED};
pub use options::{Known, SealError, SealOptions, Sealed};
pub use upper::seal;
