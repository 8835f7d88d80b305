//! `kiln run`: a program in an image, with the caller's streams, terminal and signals.

mod args;
mod attach;
mod command;
mod flags;
mod host_terminal;
mod signals;

pub(crate) use args::RunArgs;
pub(crate) use command::{FAILED, run};
