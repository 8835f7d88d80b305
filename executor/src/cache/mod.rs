//! Caches that travel: what builds on other machines made, and what this one leaves for them.
//!
//! `document` is the format, `place` where such documents and blobs lie, `copies` under which names, `elsewhere` what a build
//! takes from there, `collect` and `publish` what it leaves there. docs/cache.md is the users' page.

mod collect;
mod compact;
mod copies;
mod document;
mod elsewhere;
mod error;
mod layout;
mod place;
mod publish;

#[cfg(test)]
mod tests;

pub(crate) use collect::inline_cache;
pub use collect::{CacheContent, CacheMode};
pub(crate) use copies::{copies_of, is_refusal};
pub(crate) use document::{CachedLayer, CachedRecord};
pub use elsewhere::{CacheNotices, CacheSource, Elsewhere, PATIENCE};
pub use error::{CacheError, DocumentError};
pub(crate) use place::{ANY_CONFIG_TYPE, INLINE_KEY, PACKED_KEY};
pub use place::{CachePlace, DEFAULT_TAG, S3Place};
pub(crate) use publish::pause;
pub use publish::{CachePublished, CacheTarget, MOST_AGE, MOST_BYTES};
