//! What a build is: ops, graph, canonical bytes, digest, text form. Pure data, no I/O.
//!
//! A front end makes a [`Plan`]: a [`Graph`] of content-addressed [`Node`]s, the named results it
//! ends in, and beside it what people see ([`Display`]) and which identities were pinned.

pub mod encode;
pub mod graph;
pub mod image;
pub mod oci_config;
pub mod op;
pub mod pattern;
pub mod plan;
pub mod platform;
mod validate;

pub use graph::{Graph, GraphError, Input, Node, NodeDigest, NodeId};
pub use image::{Config, Healthcheck, History, ImageConfig};
pub use oci_config::ImageConfigError;
pub use op::*;
pub use pattern::{PatternError, PatternList, PatternState};
pub use plan::{
    Display, Pin, Plan, PlanError, ProgressGroup, ResourceLimits, ResultEntry, SourceRange,
};
pub use platform::{Platform, PlatformError};
