//! Layer archives: the OCI form of a layer, written from a manifest and applied to a directory.

mod apply;
mod entries;
mod sparse;
mod write;

pub use apply::{Applied, ApplyError, ApplyOptions, LowerFiles, apply};
pub use entries::{Entries, Head};
pub use write::{
    DirectoryFiles, FileSource, LayersFiles, MtimePolicy, WriteError, WriteOptions, write_layer,
};

/// Begins the name of a deletion.
const WHITEOUT: &[u8] = b".wh.";
/// The name that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
