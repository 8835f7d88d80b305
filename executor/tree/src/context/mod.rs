//! A local build context, scanned in place into a content-addressed tree.

mod select;

pub use select::{Decision, Everything, Select};
