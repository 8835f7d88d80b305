//! Sources: from a name to an identity, and from an identity to layers.

mod age;
mod fetch;
mod layout;
mod resolve;

pub(crate) use age::ago;
pub(crate) use fetch::{blocking, fetch};
pub use resolve::{ResolvedImage, Resolver};
