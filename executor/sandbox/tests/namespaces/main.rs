//! Real sandboxes on the kernel that runs the tests.
//!
//! The sandbox re-executes its caller's binary, so that this one has a `main` of its own.
#![allow(clippy::unwrap_used)]

mod basics;
mod rootfs;

use libtest_mimic::{Arguments, Trial};

fn main() {
    kiln_sandbox::init_if_requested();
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(basics::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
