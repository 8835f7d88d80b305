//! Text to graph: reads Dockerfiles and lowers them, without touching the world; and what front ends
//! from outside say and are told.
//!
//! The same input gives the same output: nothing here reads files, clocks, the environment or the
//! network (clippy.toml bans them).
//!
//! ```
//! use kiln_frontend::dockerfile;
//!
//! let parsed = dockerfile::parse("FROM alpine AS base\nRUN make\n");
//! assert!(parsed.diagnostics.is_empty());
//! assert_eq!(parsed.dockerfile.stages[0].name().as_deref(), Some("base"));
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod dockerfile;

pub mod lower;

pub mod outside;

pub mod diagnostic;

mod remedy;
