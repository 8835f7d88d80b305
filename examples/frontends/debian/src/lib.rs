//! A front end of kiln: a Debian image from a list of packages, without a base image.
//!
//! A description (`debian.toml`) names packages, sources and files. The releases of the sources are
//! fetched through kiln and their signatures verified; packages are resolved here, and what comes out
//! is a plan that fetches, unpacks and installs them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod control;
pub mod description;
pub mod order;
pub mod packed;
pub mod protocol;
pub mod recipe;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod selection;

pub mod session;
pub mod signature;
pub mod universe;
pub mod version;
