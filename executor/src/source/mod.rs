//! Sources: from a name to an identity, and from an identity to layers.

mod age;
mod blob;
mod fetch;
pub(crate) mod http;
mod layout;
mod resolve;

pub use age::ago;
pub(crate) use age::stated_time;
pub(crate) use blob::{bring_blob, bring_blob_within, bring_from_anywhere};
pub(crate) use fetch::{Pieces, Tee, blob_path, blocking, fetch, fetch_archive, stoppable};
pub(crate) use resolve::{Place, check_platform, diff_ids, remember, resolved};
pub use resolve::{ResolvedImage, Resolver};
