//! What a build is: ops, graph, canonical bytes, digest, text form. Pure data, no I/O.
//!
//! A front end makes a [`Plan`]: a [`Graph`] of content-addressed [`Node`]s, the named results it
//! ends in, and beside it what people see ([`Display`]) and which identities were pinned.
//!
//! ```
//! let text = r#"%0 = image docker.io/library/alpine:latest linux/amd64
//! %1 = local context
//! %2 = file %0 { copy %1:/src -> /app }
//! %3 = exec %2 ["/bin/sh", "-c", "make -C /app"] cwd=/app
//! result %3 { cmd=["/app/run"] }
//! "#;
//! let plan = kiln_ir::parse(text)?;
//! assert_eq!(plan.graph.len(), 4);
//! assert_eq!(plan.to_string(), text);
//! # Ok::<(), kiln_ir::ParseError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod image;
pub mod oci_config;
pub mod op;
pub mod pattern;
pub mod platform;

pub mod graph;
mod link;
pub mod plan;
mod validate;

mod bytes;
pub mod encode;

pub mod build;

mod attributes;
pub mod json;
pub mod parse;
pub mod snapshot;
mod syntax;
pub mod text;

mod describe;
pub mod picture;

pub mod compare;
pub mod expect;
pub mod suggest;

pub use compare::{Comparison, compare};
pub use graph::{Graph, GraphError, Input, Node, NodeDigest, NodeId};
pub use image::{Config, Healthcheck, History, ImageConfig};
pub use oci_config::ImageConfigError;
pub use op::*;
pub use parse::{parse, parse_labelled};
pub use pattern::{PatternError, PatternList, PatternState};
pub use plan::{
    Display, Pin, Plan, PlanError, ProgressGroup, ResourceLimits, ResultEntry, SourceRange,
};
pub use platform::{Platform, PlatformError};
pub use snapshot::{Snapshot, SnapshotError};
pub use syntax::{ParseError, ParseProblem};
pub use text::{PrintOptions, print, print_marked};
