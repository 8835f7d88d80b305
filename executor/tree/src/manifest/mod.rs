//! What a layer holds, entry by entry: its identity, its encoding and the truth about its owners.

mod encoding;
mod entry;
mod layer;

pub use entry::{Entry, Kind, Meta, Mtime, Xattrs};
pub use layer::{Manifest, ManifestError};
