//! A local build context, scanned in place into a content-addressed tree.
//!
//! Two stat calls apart nothing is asked of a file whose digest is remembered; directories are
//! objects named by their digest, so two builds share all that did not change between them.

mod changes;
mod memory;
mod object;
mod scan;
mod select;
mod tree;

pub use changes::{Change, What, changes};
pub use memory::{HashMemory, Seen};
pub use object::{Child, Device, Directory, Node};
pub use scan::{ScanError, ScanOptions, scan};
pub use select::{Decision, Everything, Select};
pub use tree::{ContextTree, Item, ItemKind};
