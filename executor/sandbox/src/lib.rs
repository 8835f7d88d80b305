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

mod apply;
mod bytestring;
mod capabilities;
pub mod cgroup;
mod emulator;
mod error;
mod init;
mod listener;
mod mountfd;
mod net;
mod own_binary;
mod plan;
pub mod porter;
mod probe;
mod process;
mod resolve;
mod running;
mod seccomp;
mod spawn;
mod spec;
mod subid;
pub mod userns;
mod vfork;
mod wire;

pub use error::{Error, Phase};
pub use init::init_if_requested;
pub use listener::{Heard, Refused};
pub use probe::probe_report;
pub use process::ignore_file_size_signal;
pub use running::{Exit, Running};
pub use spawn::spawn;
pub use spec::{
    Cgroup, DEFAULT_HOSTNAME, Emulator, Limits, Mount, MountSource, Network, Privileges, Resource,
    Rlimit, RootFs, Spec, Stdio, Stub, Swap, UnknownResource, User,
};
