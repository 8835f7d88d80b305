//! Layer archives: the OCI form of a layer, written from a manifest and applied to a directory.

mod apply;
mod write;

pub use apply::{Applied, ApplyError, ApplyOptions, LowerFiles, Ownership, OverlayXattrs, apply};
pub use write::{DirectoryFiles, FileSource, LayersFiles, MtimePolicy, WriteError, WriteOptions, write_layer};
