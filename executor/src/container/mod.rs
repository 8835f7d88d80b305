//! A program run in an image: `kiln run`.
//!
//! A [`ContainerRequest`] names an image and says what differs from its config. The image is found
//! (or pulled), the two become one process by docker's rules, and the process runs in a sandbox
//! over a snapshot that is dropped with the [`Program`].

mod image;
mod process;
mod program;
mod request;
mod volume;

pub(crate) use image::{Pulls, find};
pub use program::Program;
pub use request::{
    ContainerRequest, ProgramStdio, PullEvent, PullObserver, Terminal, Tmpfs, Volume,
};
