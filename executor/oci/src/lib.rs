//! What OCI and docker agreed on, and the registry protocol.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod digest;
pub mod document;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod registry;
