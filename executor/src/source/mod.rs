//! Sources: from a name to an identity, and from an identity to layers.

mod age;
mod fetch;
pub(crate) mod http;
mod layout;
mod resolve;

pub(crate) use age::ago;
pub(crate) use fetch::{blocking, fetch};
pub use resolve::{ResolvedImage, Resolver};
