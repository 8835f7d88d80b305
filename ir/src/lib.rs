//! What a build is: ops, graph, canonical bytes, digest, text form. Pure data, no I/O.
//!
//! A front end makes a [`Plan`]: a [`Graph`] of content-addressed [`Node`]s, the named results it
//! ends in, and beside it what people see ([`Display`]) and which identities were pinned.

mod attributes;
mod bytes;
pub mod encode;
pub mod graph;
pub mod image;
mod link;
pub mod oci_config;
pub mod op;
pub mod parse;
pub mod pattern;
pub mod plan;
pub mod platform;
mod syntax;
pub mod text;
mod validate;

pub use graph::{Graph, GraphError, Input, Node, NodeDigest, NodeId};
pub use image::{Config, Healthcheck, History, ImageConfig};
pub use oci_config::ImageConfigError;
pub use op::*;
pub use parse::parse;
pub use pattern::{PatternError, PatternList, PatternState};
pub use plan::{
    Display, Pin, Plan, PlanError, ProgressGroup, ResourceLimits, ResultEntry, SourceRange,
};
pub use platform::{Platform, PlatformError};
pub use syntax::{ParseError, ParseProblem};
pub use text::{PrintOptions, print};
