//! The `kiln` command.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // Steps run in re-executions of this binary; nothing may happen before that is told apart.
    kiln::init_if_requested();
    cli::main()
}
