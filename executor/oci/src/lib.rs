//! What OCI and docker agreed on: names and documents of images, and the registry protocol. Single
//! files over http come the same way.
//!
//! Nothing in here runs or unpacks an image, and nothing is stored; documents go in and out as
//! bytes, layers as streams.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod caller;
pub mod daemon;
pub mod digest;
pub mod document;
pub mod layout;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod registry;
pub mod s3;
pub mod web;
