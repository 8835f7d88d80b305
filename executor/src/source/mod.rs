//! Sources: from a name to an identity, and from an identity to layers.

mod age;
mod fetch;
pub(crate) mod http;
mod layout;
mod resolve;

pub use age::ago;
pub(crate) use fetch::{blocking, fetch, fetch_archive, stoppable};
#[cfg(test)]
pub(crate) use resolve::Place;
pub use resolve::{ResolvedImage, Resolver};
